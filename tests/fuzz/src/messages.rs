//! Messages from the broker. Any user of the broker may publish such messages.
//!
//! An input has a line with the routing key, a line with the `message_id`, the headers as an AMQP field table (with a
//! length of four bytes), and the body. Unreadable headers count as no headers, as lapin never delivers a message with
//! unreadable headers.

use std::time::Duration;

use fanfare_broker::{
    Incoming, Parked, PutBack, Topology, Unreadable, decode_event, decode_parked, decode_retry, encode_event,
    encode_parked, encode_put_back, encode_rerouted, encode_retry, sanitized,
};
use fanfare_domain::{
    delivery::delay::DelayQueues,
    event::{
        Event, EventFields,
        parked::{Edit, Origin},
    },
};
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{FieldTable, parsing::parse_field_table},
};
use serde_json::{Map, Value};

use crate::{now, text};

const LARGEST: usize = 4096;

fn topology() -> Topology {
    Topology::new("fanfare".parse().expect("a prefix"), DelayQueues::new([]))
}

/// An AMQP short string: at most 255 bytes of UTF-8.
fn name(bytes: &[u8]) -> Option<&str> {
    text(bytes).filter(|name| name.len() <= 255)
}

/// A message that came through this exchange.
fn incoming(bytes: &[u8], exchange: &str) -> Option<Incoming> {
    let mut parts = bytes.splitn(3, |byte| *byte == b'\n');
    let (routing_key, message_id) = (name(parts.next()?)?, name(parts.next()?)?);
    let rest = parts.next()?;
    let (body, headers) = parse_field_table(rest).unwrap_or((rest, FieldTable::default()));
    let mut delivery = Delivery::mock(1, exchange.into(), routing_key.into(), false, body.to_vec());
    delivery.properties = BasicProperties::default().with_headers(headers).with_message_id(message_id.into());
    Some(Incoming::detached(delivery))
}

fn read(incoming: &Incoming) -> Result<Event, Unreadable> {
    decode_event(incoming, LARGEST, now())
}

/// A decoded event keeps its meaning when encoded again or rerouted. An unreadable message is parked with the reason.
pub(crate) fn event(bytes: &[u8]) {
    let topology = topology();
    let Some(incoming) = incoming(bytes, &topology.events_exchange()) else { return };
    let rerouted = encode_rerouted(&topology, &incoming).detached();
    match read(&incoming) {
        Ok(event) => {
            assert!(rerouted.was_rerouted());
            assert_eq!(event.routing_key(), incoming.routing_key);
            let is_whole = EventFields::parse(&incoming.body).is_ok_and(|fields| fields.data == event.data);
            // The body of a CloudEvent in binary mode is only the data.
            assert!(is_whole || event.cloud_event.is_some());
            if is_whole {
                let again = encode_event(&topology, &event, 7, &incoming.body).detached();
                assert_eq!((again.accepted_by(), read(&again)), (Some(7), Ok(event.clone())));
            }
            assert_eq!(read(&rerouted), Ok(event));
        }
        Err(unreadable) => is_parked(&topology, &incoming, &unreadable),
    }
}

/// A decoded retry keeps its content when encoded again or rerouted, and its list of delays ends. An unreadable message
/// is parked with the reason.
pub(crate) fn retry(bytes: &[u8]) {
    let topology = topology();
    let Some(incoming) = incoming(bytes, &topology.deliveries_exchange()) else { return };
    match decode_retry(&incoming) {
        Ok(retry) => {
            let next = retry.clone().next_delay();
            assert_eq!(next.is_err(), retry.then.is_empty());
            let delay = next.ok().map(|(seconds, _)| Duration::from_secs(seconds));
            let again = encode_retry(&topology, &retry, delay).expect("a message").detached();
            assert_eq!(decode_retry(&again), Ok(retry.clone()));
            let rerouted = encode_rerouted(&topology, &incoming).detached();
            assert_eq!(decode_retry(&rerouted), Ok(retry));
        }
        Err(unreadable) => is_parked(&topology, &incoming, &unreadable),
    }
}

/// A parked message keeps body, routing key, origin and reason. The headers become JSON.
fn is_parked(topology: &Topology, incoming: &Incoming, unreadable: &Unreadable) {
    let parked = encode_parked(topology, incoming, unreadable).detached();
    assert_eq!(parked.body, incoming.body);
    let Parked::Keep { reason, message, routing_key, origin, size } = decode_parked(topology, &parked) else {
        panic!("a newly parked message is put back");
    };
    assert_eq!((reason.as_str(), message.as_str()), (unreadable.reason, unreadable.message.as_str()));
    assert_eq!((routing_key.as_ref(), size), (Some(&incoming.routing_key), incoming.body.len()));
    let origin = origin.expect("an origin");
    let headers = parked.headers_as_json();
    assert!(serde_json::from_str::<Map<String, Value>>(&headers).is_ok(), "{headers}");
    let put_back = PutBack {
        origin,
        reason: &reason,
        routing_key: routing_key.as_deref(),
        message_id: parked.message_id.as_deref(),
        headers: &headers,
        body: &parked.body,
        size,
    };
    let Ok(back) = encode_put_back(topology, &put_back, &Edit::default()) else {
        assert_eq!(reason, "not_utf8");
        return;
    };
    let back = back.detached();
    assert!(!back.is_quarantined());
    // Header names that are not UTF-8 are dropped on the return, after which the message may be readable.
    if reason != "not_utf8" && origin == Origin::Events {
        assert_eq!(read(&back).as_ref(), Err(unreadable));
    }
}

/// Every message in the parked queue is kept, or put back once and kept the second time.
pub(crate) fn parked(bytes: &[u8]) {
    let topology = topology();
    let Some(incoming) = incoming(bytes, "") else { return };
    if let Parked::PutBack(message) = decode_parked(&topology, &incoming) {
        let back = message.detached();
        assert!(back.is_quarantined());
        assert_eq!(back.body, incoming.body);
        assert!(matches!(decode_parked(&topology, &back), Parked::Keep { .. }));
    }
}

/// A message put back with a valid edit has readable parts. An input has a line with the routing key, a line with the
/// `message_id`, a line with the stored headers, and the body.
pub(crate) fn put_back(bytes: &[u8]) {
    let topology = topology();
    let mut parts = bytes.splitn(4, |byte| *byte == b'\n');
    let mut line = || parts.next().and_then(text);
    let (Some(routing_key), Some(message_id), Some(headers)) = (line(), line(), line()) else { return };
    let edit = Edit {
        routing_key: Some(routing_key.to_owned()),
        message_id: Some(message_id.to_owned()),
        body: parts.next().map(<[u8]>::to_vec),
    };
    if edit.check().is_err() {
        return;
    }
    let put_back = PutBack {
        origin: Origin::Events,
        reason: "not_an_object",
        routing_key: None,
        message_id: None,
        headers,
        body: b"{\"data\":1}",
        size: 10,
    };
    let back = encode_put_back(&topology, &put_back, &edit).expect("an edit that is sound").detached();
    // Each part is readable, although the parts together may be no event.
    if let Err(unreadable) = read(&back) {
        let of_parts = [
            "invalid_routing_key",
            "unknown_application",
            "missing_message_id",
            "malformed_json",
            "too_deep",
            "infinite_number",
        ];
        assert!(!of_parts.contains(&unreadable.reason), "{unreadable:?}");
    }
}

/// Replacing invalid text in frames is idempotent and independent of the chunk size. The first byte of an input is the
/// chunk size.
pub(crate) fn frames(bytes: &[u8]) {
    let Some((piece, frames)) = bytes.split_first() else { return };
    let once = sanitized(frames, &[usize::from(*piece)]);
    assert_eq!(once, sanitized(frames, &[frames.len()]));
    assert_eq!(once, sanitized(&once, &[once.len()]));
    let is_sound =
        |(before, after): (&u8, &u8)| before == after || !before.is_ascii() && *after == 0x1a || *after == b'x';
    assert!(once.len() <= frames.len() && frames.iter().zip(&once).all(is_sound));
}
