use fanfare_domain::{
    delivery::delay::DelayQueues,
    event::parked::{Edit, Origin},
};
use jiff::Timestamp;
use lapin::{BasicProperties, types::LongString};
use serde_json::json;

use super::*;
use crate::{
    Parked, PutBack, Topology, decode_event, decode_parked, decode_retry, encode_parked, encode_put_back,
    encode_rerouted,
};

fn topology() -> Topology {
    Topology::new("fanfare".parse().expect("a prefix"), DelayQueues::new([]))
}

const BAD: &str = "caf\u{1a}";
const KEY: &str = "app_01h455vb4pex5vsknk084sn02q.order.created";

fn event(topology: &Topology) -> Delivery {
    let body = br#"{"data":1}"#.to_vec();
    let mut delivery = Delivery::mock(1, topology.events_exchange().into(), KEY.into(), false, body);
    delivery.properties = BasicProperties::default().with_message_id("order-1".into());
    delivery
}

fn with(change: impl FnOnce(BasicProperties) -> BasicProperties) -> Delivery {
    let mut delivery = event(&topology());
    delivery.properties = change(delivery.properties);
    delivery
}

fn header(value: AMQPValue) -> Delivery {
    let mut headers = FieldTable::default();
    headers.insert("name".into(), value);
    with(|properties| properties.with_headers(headers))
}

fn table() -> FieldTable {
    let mut table = FieldTable::default();
    table.insert(BAD.into(), AMQPValue::Boolean(true));
    table
}

/// Messages, each with a different sanitized part.
fn sanitized() -> Vec<(&'static str, Delivery)> {
    let (mut key, mut exchange) = (event(&topology()), event(&topology()));
    key.routing_key = format!("{KEY}{BAD}").into();
    exchange.exchange = BAD.into();
    let nested = AMQPValue::FieldArray(vec![AMQPValue::FieldTable(table())].into());
    vec![
        ("the exchange", exchange),
        ("the routing key", key),
        ("the property message_id", with(|properties| properties.with_message_id(BAD.into()))),
        ("the name of a header", with(|properties| properties.with_headers(table()))),
        ("the name of a header", header(nested)),
        ("the property content_type", with(|properties| properties.with_content_type(BAD.into()))),
        ("the property content_encoding", with(|properties| properties.with_content_encoding(BAD.into()))),
        ("the property correlation_id", with(|properties| properties.with_correlation_id(BAD.into()))),
        ("the property reply_to", with(|properties| properties.with_reply_to(BAD.into()))),
        ("the property expiration", with(|properties| properties.with_expiration(BAD.into()))),
        ("the property type", with(|properties| properties.with_type(BAD.into()))),
        ("the property user_id", with(|properties| properties.with_user_id(BAD.into()))),
        ("the property app_id", with(|properties| properties.with_app_id(BAD.into()))),
        ("the property cluster_id", with(|properties| properties.with_cluster_id(BAD.into()))),
    ]
}

fn now() -> Timestamp {
    Timestamp::constant(1_781_784_000, 0)
}

/// Reason for parking an event.
fn refusal(incoming: &Incoming) -> Option<Unreadable> {
    decode_event(incoming, 1000, now()).err()
}

#[test]
fn each_part_that_was_sanitized_is_the_reason_to_park_a_message() {
    for (part, delivery) in sanitized() {
        let incoming = Incoming::detached(delivery);
        assert_eq!(refusal(&incoming), Some(not_utf8(part)));
        assert_eq!(decode_retry(&incoming), Err(not_utf8(part)));
        let parked = encode_rerouted(&topology(), &incoming).detached();
        assert_eq!(parked.routing_key, "parked", "{part} is not sent on");
        let Parked::Keep { reason, message, .. } = decode_parked(&topology(), &parked) else {
            panic!("{part}: it is put back")
        };
        assert_eq!((reason.as_str(), message), (NOT_UTF8, not_utf8(part).message));
        assert_eq!(parked.body, incoming.body);
    }
    assert_eq!(refusal(&Incoming::detached(event(&topology()))), None);
    let value = AMQPValue::LongString(LongString::from(BAD));
    assert_eq!(refusal(&Incoming::detached(header(value))), None, "a value may be of any bytes");
}

#[test]
fn nothing_is_put_back_under_another_key() {
    let sound = PutBack {
        origin: Origin::Events,
        reason: NOT_UTF8,
        routing_key: Some(KEY),
        message_id: Some("order-1"),
        headers: &json!({ (BAD): "1", "tenant": "blue" }).to_string(),
        body: b"{\"data\":1}",
        size: 10,
    };
    let back = |put_back: &PutBack<'_>, edit: &Edit| encode_put_back(&topology(), put_back, edit);
    let message = back(&sound, &Edit::default()).expect("a message").detached();
    assert_eq!((refusal(&message), message.header("tenant").as_deref()), (None, Some("blue")));
    let key = PutBack { routing_key: Some(BAD), ..sound.clone() };
    let id = PutBack { message_id: Some(BAD), ..sound.clone() };
    assert_eq!(back(&key, &Edit::default()).err(), Some(not_utf8("the routing key")));
    assert_eq!(back(&id, &Edit::default()).err(), Some(not_utf8("the property message_id")));
    let accepted = PutBack { headers: &json!({ "fanfare-accepted": "7" }).to_string(), ..sound.clone() };
    let version = |edit: &Edit| back(&accepted, edit).expect("a message").detached().accepted_by();
    let edit = Edit { routing_key: Some(KEY.to_owned()), message_id: Some("order-2".to_owned()), body: None };
    assert_eq!((version(&Edit::default()), version(&edit)), (Some(7), None), "an edited event is checked again");
    let cut = PutBack { size: 1_000_000, ..key.clone() };
    assert_eq!(back(&cut, &edit).map_err(|unreadable| unreadable.reason).err(), Some("body_too_large"));
    let whole = Edit { body: Some(b"{\"data\":1}".to_vec()), ..edit.clone() };
    assert_eq!(refusal(&back(&cut, &whole).expect("a message").detached()), None);
    for put_back in [key, id] {
        assert_eq!(refusal(&back(&put_back, &edit).expect("a message").detached()), None);
    }
}

/// The broker reports the routing key in a header value, which is a long string and arrives unchanged.
#[test]
fn a_message_that_died_under_a_key_of_other_bytes_is_kept() {
    let text = |bytes: &[u8]| AMQPValue::LongString(LongString::from(bytes.to_vec()));
    let died = |key: &[u8]| {
        let mut death = FieldTable::default();
        death.insert("queue".into(), text(topology().events_queue().as_bytes()));
        death.insert("routing-keys".into(), AMQPValue::FieldArray(vec![text(key)].into()));
        let mut headers = FieldTable::default();
        headers.insert("x-death".into(), AMQPValue::FieldArray(vec![AMQPValue::FieldTable(death)].into()));
        Incoming::detached(with(|properties| properties.with_headers(headers)))
    };
    let Parked::Keep { reason, routing_key, origin, .. } = decode_parked(&topology(), &died(b"caf\xe9")) else {
        panic!("it is put back")
    };
    assert_eq!((reason.as_str(), routing_key.as_deref()), (NOT_UTF8, Some(BAD)));
    assert_eq!(origin, Some(Origin::Events));
    assert!(matches!(decode_parked(&topology(), &died(KEY.as_bytes())), Parked::PutBack(_)));
}

#[test]
fn a_parked_message_is_parked_unchanged_when_read_again() {
    let unreadable = not_utf8("the property message_id");
    let incoming = Incoming::detached(with(|properties| properties.with_message_id(BAD.into())));
    let parked = encode_parked(&topology(), &incoming, &unreadable).detached();
    let Parked::Keep { reason, message, routing_key, origin, .. } = decode_parked(&topology(), &parked) else {
        panic!("it is put back")
    };
    assert_eq!((reason.as_str(), message, routing_key.as_deref()), (NOT_UTF8, unreadable.message, Some(KEY)));
    assert_eq!((origin, parked.message_id.as_deref()), (Some(Origin::Events), Some(BAD)));

    let again = encode_rerouted(&topology(), &parked).detached();
    assert_eq!((again.routing_key.as_str(), again.was_rerouted()), ("parked", true));
    for name in ["fanfare-reason", "fanfare-message", "fanfare-routing-key", "fanfare-origin"] {
        assert_eq!(again.header(name), parked.header(name), "{name}");
    }
}
