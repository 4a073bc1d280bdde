use fanfare_domain::{
    delivery::delay::DelayQueues,
    event::{
        Event,
        parked::{Edit, Origin},
    },
};
use lapin::{BasicProperties, message::Delivery, types::LongString};

use super::*;
use crate::{Parked, PutBack, Topology, decode_event, decode_parked, encode_parked, encode_put_back, encode_rerouted};

const KEY: &str = "app_01h455vb4pex5vsknk084sn02q.order.created";

fn topology() -> Topology {
    Topology::new("fanfare".parse().expect("a prefix"), DelayQueues::new([]))
}

fn text(text: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(text))
}

/// The headers of a CloudEvent in binary mode, and further headers that replace headers of the same name.
fn headers(more: &[(&str, AMQPValue)]) -> Vec<(String, AMQPValue)> {
    let required = [
        ("cloudEvents:specversion", text("1.0")),
        ("cloudEvents:id", text("1")),
        ("cloudEvents:source", text("/shop")),
        ("cloudEvents:type", text("order.created")),
    ];
    required.iter().chain(more).map(|(name, value)| ((*name).to_owned(), value.clone())).collect()
}

fn incoming(headers: Vec<(String, AMQPValue)>, content_type: Option<&str>, body: &str) -> Incoming {
    let exchange = topology().events_exchange();
    let mut delivery = Delivery::mock(1, exchange.into(), KEY.into(), false, body.as_bytes().to_vec());
    let mut table = FieldTable::default();
    for (name, value) in headers {
        table.insert(name.into(), value);
    }
    delivery.properties = BasicProperties::default().with_headers(table).with_message_id("any".into());
    if let Some(content_type) = content_type {
        delivery.properties = delivery.properties.with_content_type(content_type.into());
    }
    Incoming::detached(delivery)
}

fn read(incoming: &Incoming) -> Result<Event, Unreadable> {
    decode_event(incoming, 1000, Timestamp::constant(1_781_784_000, 0))
}

fn reason(incoming: &Incoming) -> &'static str {
    read(incoming).expect_err("an unreadable message").reason
}

/// Parks a message and puts the message back.
fn parked_and_put_back(incoming: &Incoming, edit: &Edit) -> Result<Incoming, Unreadable> {
    let parked = encode_parked(&topology(), incoming, &Unreadable::new("unknown_application", "unknown")).detached();
    let Parked::Keep { .. } = decode_parked(&topology(), &parked) else { panic!("a parked message is put back") };
    let put_back = PutBack {
        origin: Origin::Events,
        reason: "unknown_application",
        routing_key: Some(KEY),
        message_id: parked.message_id.as_deref(),
        headers: &parked.headers_as_json(),
        body: &parked.body,
        size: parked.body.len(),
    };
    Ok(encode_put_back(&topology(), &put_back, edit)?.detached())
}

/// All types that RabbitMQ makes of AMQP 1.0, in both prefixes.
#[test]
fn a_cloud_event_in_binary_mode_stays_the_same_when_published_again() {
    let typed = [
        ("cloudEvents_time", AMQPValue::Timestamp(1_781_784_000)),
        ("cloudEvents_flag", AMQPValue::Boolean(true)),
        ("ce-number", AMQPValue::LongInt(-5)),
        ("cloudEvents:long", AMQPValue::LongLongInt(5)),
        ("cloudEvents:unset", AMQPValue::Void),
        ("other", text("kept")),
    ];
    let in_milliseconds = headers(&[("cloudEvents_time", AMQPValue::LongLongInt(1_781_784_000_500))]);
    let event = read(&incoming(in_milliseconds, None, "1")).expect("an event");
    assert_eq!(event.occurred_at.expect("a time").to_string(), "2026-06-18T12:00:00.5Z");
    for (content_type, body, data) in [
        (None, r#"{"order":1}"#, r#"{"order":1}"#),
        (Some("application/json"), r#"{"order":1}"#, r#"{"order":1}"#),
        (Some("text/plain"), "a \"b\"", r#""a \"b\"""#),
        (Some("text/plain"), "", "null"),
    ] {
        let message = incoming(headers(&typed), content_type, body);
        let event = read(&message).expect("an event");
        assert_eq!((event.key.as_deref(), event.data.as_str()), (Some("/shop 1"), data));
        assert_eq!(event.occurred_at.expect("a time").to_string(), "2026-06-18T12:00:00Z");
        let attributes = &event.cloud_event.as_ref().expect("a CloudEvent").attributes;
        let attribute = |name: &str| attributes.get(name).map(String::as_str);
        assert_eq!((attribute("flag"), attribute("number"), attribute("long")), (Some("true"), Some("-5"), Some("5")));
        assert_eq!(attribute("datacontenttype"), content_type.map(|text| format!("\"{text}\"")).as_deref());
        assert_eq!(attributes.len(), 3 + usize::from(content_type.is_some()));

        assert_eq!(read(&encode_rerouted(&topology(), &message).detached()).as_ref(), Ok(&event));
        let back = parked_and_put_back(&message, &Edit::default()).expect("a message");
        assert_eq!(read(&back), Ok(event));
        assert_eq!(back.header("other").as_deref(), Some("kept"));
    }
}

#[test]
fn structured_messages_need_no_message_id_and_ignore_headers() {
    let body = r#"{"specversion":"1.0","id":"2","source":"/shop","type":"order.created","data":1}"#;
    for headers in [Vec::new(), headers(&[])] {
        let mut message = incoming(headers, Some("application/CloudEvents+json; charset=utf-8"), body);
        message.message_id = None;
        let event = read(&message).expect("an event");
        assert_eq!(event.key.as_deref(), Some("/shop 2"));
        assert_eq!(read(&encode_rerouted(&topology(), &message).detached()).as_ref(), Ok(&event));
        let back = parked_and_put_back(&message, &Edit::default()).expect("a message");
        assert_eq!(read(&back), Ok(event));
    }
    let own_form = incoming(Vec::new(), Some("application/cloudevents+json"), r#"{"data":1}"#);
    assert_eq!(reason(&own_form), "missing_field", "the content type demands a CloudEvent");
    // The body of binary mode is data, also if the data are a CloudEvent.
    let message = incoming(headers(&[]), Some("application/json"), body);
    assert_eq!(read(&message).map(|event| (event.key, event.data)), Ok((Some("/shop 1".to_owned()), body.to_owned())));
}

/// A header that only looks like an attribute changes nothing.
#[test]
fn other_headers_make_no_cloud_event() {
    let message = incoming(vec![("ce-trace".to_owned(), text("1"))], None, r#"{"data":1}"#);
    assert_eq!(read(&message).map(|event| (event.key, event.cloud_event)), Ok((Some("any".to_owned()), None)));
    assert_eq!(encode_rerouted(&topology(), &message).detached().header("ce-trace").as_deref(), Some("1"));
}

#[test]
fn each_fault_of_binary_mode_has_its_reason() {
    let with = |name, value| incoming(headers(&[(name, value)]), None, "1");
    assert_eq!(reason(&with("cloudEvents:specversion", text("0.3"))), "invalid_field");
    assert_eq!(reason(&with("cloudEvents:type", text("order.deleted"))), "type_mismatch");
    assert_eq!(reason(&with("cloudEvents_id", text("2"))), "duplicate_field");
    assert_eq!(reason(&with("ce-id", text("1"))), "duplicate_field");
    assert_eq!(reason(&with("cloudEvents:Flag", text("a"))), "unknown_field");
    assert_eq!(reason(&with("cloudEvents:flag", AMQPValue::Double(1.5))), "wrong_type");
    assert_eq!(reason(&with("cloudEvents:flag", AMQPValue::LongString(LongString::from(vec![0xff])))), "wrong_type");
    assert_eq!(reason(&with("cloudEvents:time", AMQPValue::Timestamp(u64::MAX))), "wrong_type");
    assert_eq!(reason(&with("cloudEvents:number", AMQPValue::LongLongInt(i64::MAX))), "invalid_field");
    let large = "a".repeat(MAX_COPIED_HEADERS);
    assert_eq!(reason(&with("other", text(&large))), "body_too_large");
    assert_eq!(reason(&incoming(headers(&[]), Some("text/plain"), &"\u{1}".repeat(500))), "body_too_large");
    assert_eq!(reason(&incoming(headers(&[]), None, "<a/>")), "malformed_json");
    assert_eq!(reason(&incoming(vec![("cloudEvents:id".to_owned(), text("1"))], None, "1")), "missing_field");
}

#[test]
fn an_edited_body_is_the_complete_event() {
    let message = incoming(headers(&[]), Some("text/plain"), "text");
    let edit = |body: &str, message_id: Option<&str>| Edit {
        routing_key: None,
        message_id: message_id.map(str::to_owned),
        body: Some(body.as_bytes().to_vec()),
    };
    let back = parked_and_put_back(&message, &edit(r#"{"data":1}"#, Some("mine"))).expect("a message");
    let event = read(&back).expect("an event");
    assert_eq!((event.key.as_deref(), event.data.as_str(), event.cloud_event), (Some("mine"), "1", None));
    let cloud_event = r#"{"specversion":"1.0","id":"2","source":"/shop","type":"order.created"}"#;
    let back = parked_and_put_back(&message, &edit(cloud_event, None)).expect("a message");
    assert_eq!(read(&back).map(|event| event.key), Ok(Some("/shop 2".to_owned())));

    // A message_id that has no effect is refused, and does no harm.
    let id = Edit { message_id: Some("mine".to_owned()), ..Edit::default() };
    for refused in [id, edit(cloud_event, Some("mine"))] {
        assert_eq!(parked_and_put_back(&message, &refused).map(drop).expect_err("an edit").reason, "id_mismatch");
    }
    let mut message = incoming(headers(&[]), None, "1");
    message.message_id = Some("\u{1a}".to_owned());
    let back = parked_and_put_back(&message, &Edit::default()).expect("a message");
    assert_eq!(
        (back.message_id.as_deref(), read(&back).map(|event| event.key)),
        (None, Ok(Some("/shop 1".to_owned())))
    );
}
