//! What the previous release writes to the broker, as it stands in `proto/wire`, is read as it was meant; and what
//! this one writes, that one can read.

use std::{fs, path::PathBuf};

use fanfare_domain::{
    claim::Claim,
    delay::Ladder,
    event::{Content, Event},
    ids::{ApplicationId, DeliveryId, EndpointId, EventId},
    parked::{Edit, Origin},
    traceparent::Traceparent,
};
use jiff::Timestamp;
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable, LongString},
};
use serde_json::{Map, Value, json};

use crate::{
    DELIVERY_LIMIT, Incoming, Message, Parked, PutBack, Topology, Unreadable, decode_claim, decode_event,
    decode_parked, encode_claim, encode_event, encode_parked, encode_put_back, encode_rerouted, parked::json,
};

const PREFIX: &str = "fanfare";
const APPLICATION: &str = "app_01h455vb4pex5vsknk084sn02q";
const ENDPOINT: &str = "wh_01h455vb4pex5vsknk084sn02r";
const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
const LARGEST: usize = 1000;

/// When the recorded claim was made, and the event accepted.
fn then() -> Timestamp {
    "2026-06-18T12:00:00Z".parse().expect("a time")
}

fn trace() -> Traceparent {
    TRACE.parse().expect("a traceparent")
}

pub(crate) fn topology() -> Topology {
    Topology::new(PREFIX.parse().expect("a prefix"), Ladder::new([]))
}

pub(crate) fn recorded(name: &str) -> Value {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../../proto/wire").join(name);
    serde_json::from_str(&fs::read_to_string(path).expect("a recorded message")).expect("JSON")
}

/// A recorded message as a consumer gets it.
fn incoming(message: &Value) -> Incoming {
    let text = |name: &str| message[name].as_str().unwrap_or_default().to_owned();
    let mut headers = FieldTable::default();
    for (name, value) in message["headers"].as_object().expect("headers") {
        let value = match value {
            Value::Bool(value) => AMQPValue::Boolean(*value),
            value => AMQPValue::LongString(LongString::from(value.as_str().expect("a text"))),
        };
        headers.insert(name.as_str().into(), value);
    }
    let body = message["body"].as_str().map_or_else(|| message["body"].to_string(), str::to_owned);
    let (exchange, key) = (text("exchange").into(), text("routing_key").into());
    let mut delivery = Delivery::mock(1, exchange, key, false, body.into_bytes());
    let properties = BasicProperties::default().with_headers(headers);
    delivery.properties = match message["message_id"].as_str() {
        Some(id) => properties.with_message_id(id.into()),
        None => properties,
    };
    Incoming::detached(delivery)
}

/// A message in the form of the recorded ones.
fn record(message: &Message) -> Value {
    let properties = message.properties();
    let headers: Map<String, Value> =
        message.headers.inner().iter().map(|(name, value)| (name.to_string(), json(value))).collect();
    let body = String::from_utf8(message.body.clone()).expect("text");
    json!({
        "exchange": message.exchange,
        "routing_key": message.routing_key,
        "delivery_mode": properties.delivery_mode(),
        "content_type": properties.content_type().as_ref().map(ToString::to_string),
        "message_id": message.message_id,
        "headers": headers,
        "body": body,
    })
}

/// That a message is what was recorded, with headers beside those, and in a claim fields.
fn is_as_recorded(message: &Message, name: &str) {
    let (recorded, mut written) = (recorded(name), record(message));
    if recorded["body"].is_object() {
        written["body"] = serde_json::from_slice(&message.body).expect("JSON");
    }
    let holds = |recorded: &Value, written: &Value| match (recorded.as_object(), written.as_object()) {
        (Some(recorded), Some(written)) => recorded.iter().all(|(name, value)| written.get(name) == Some(value)),
        _ => recorded == written,
    };
    for (part, value) in recorded.as_object().expect("a message") {
        assert!(holds(value, &written[part]), "{part} of {name}: {value} is written as {}", written[part]);
    }
}

/// A recorded message with what a later release may add to it.
fn with_additions(mut message: Value) -> Value {
    message["headers"]["fanfare-of-the-next-release"] = json!("1");
    if let Some(fields) = message["body"].as_object_mut() {
        fields.insert("of_the_next_release".to_owned(), json!({ "a": 1 }));
    }
    message
}

/// A recorded message, and the same from a later release.
fn both(name: &str) -> [Incoming; 2] {
    [incoming(&recorded(name)), incoming(&with_additions(recorded(name)))]
}

fn application() -> ApplicationId {
    APPLICATION.parse().expect("an id")
}

fn claim() -> Claim {
    let (event, endpoint): (EventId, EndpointId) =
        (EventId::from_key(application(), "order-1001"), ENDPOINT.parse().expect("an id"));
    Claim {
        delivery: DeliveryId::derive(then(), event, endpoint),
        event,
        application: application(),
        endpoint,
        attempt: 2,
        sequence: 3,
        due: "2026-06-18T12:05:00Z".parse().expect("a time"),
        made: then(),
        deferrals: 1,
    }
}

fn event(incoming: &Incoming) -> Event {
    decode_event(incoming, LARGEST, Traceparent::from_random([1; 16], [1; 8]), then()).expect("an event")
}

#[test]
fn events_are_understood_in_both_directions() {
    for incoming in both("event.json") {
        let event = event(&incoming);
        assert_eq!(event.id.to_string(), "evt_3r0gmwh56rhdtt5ygds2prhbxz");
        assert_eq!((event.application, event.event_type.as_str()), (application(), "order.created"));
        assert_eq!((event.key.as_deref(), event.data.as_str()), (Some("order-1001"), r#"{"order":1001}"#));
        assert_eq!((event.occurred_at, event.traceparent), (Some(then()), trace()));
        assert_eq!(
            u128::from_be_bytes(Content::of(&event.event_type, &event.data).0),
            0xd65259c7d12b6681fb78bc936c59af7f
        );
        assert_eq!(incoming.accepted_by(), Some(7));
        assert!(!incoming.is_alone() && !incoming.was_rerouted());
        is_as_recorded(&encode_event(&topology(), &event, 7, &incoming.body), "event.json");
    }
}

#[test]
fn claims_are_understood_in_both_directions() {
    for incoming in both("claim.json") {
        assert_eq!(decode_claim(&incoming).expect("a claim"), (claim(), Some(trace())));
    }
    let written = encode_claim(&topology(), &claim(), Some(trace()), then()).expect("a message");
    is_as_recorded(&written, "claim.json");
}

#[test]
fn parked_messages_are_understood_in_both_directions() {
    for incoming in both("parked.json") {
        let Parked::Keep { reason, message, routing_key, origin } = decode_parked(&topology(), &incoming) else {
            panic!("it is to be kept");
        };
        assert_eq!((reason.as_str(), message.as_str()), ("not_an_object", "the body is not an object"));
        assert_eq!(routing_key, Some(format!("{APPLICATION}.order.created")));
        assert_eq!(origin, Some(Origin::Events));
        assert_eq!((incoming.message_id.as_deref(), &incoming.body[..]), (Some("order-1001"), &b"[]"[..]));
    }
    let mut unreadable = recorded("event.json");
    (unreadable["body"], unreadable["headers"]) = (json!("[]"), json!({ "traceparent": TRACE }));
    let reason = Unreadable::new("not_an_object", "the body is not an object");
    is_as_recorded(&encode_parked(&topology(), &incoming(&unreadable), &reason), "parked.json");
}

#[test]
fn what_was_put_back_is_understood_in_both_directions() {
    for incoming in both("put-back.json") {
        assert!(incoming.is_alone() && incoming.may_be_last());
        assert_eq!(event(&incoming).key.as_deref(), Some("order-1001"));
    }
    let message = recorded("event.json");
    let routing_key = message["routing_key"].as_str();
    let put_back = PutBack {
        origin: Origin::Events,
        reason: DELIVERY_LIMIT,
        routing_key,
        message_id: Some("order-1001"),
        headers: &message["headers"].to_string(),
        body: message["body"].as_str().expect("a text").as_bytes(),
    };
    is_as_recorded(&encode_put_back(&topology(), &put_back, &Edit::default()), "put-back.json");
}

#[test]
fn what_was_rerouted_is_understood_in_both_directions() {
    for incoming in both("rerouted.json") {
        assert!(incoming.was_rerouted());
        assert_eq!(event(&incoming).key.as_deref(), Some("order-1001"));
    }
    is_as_recorded(&encode_rerouted(&topology(), &incoming(&recorded("event.json")), then()), "rerouted.json");
}
