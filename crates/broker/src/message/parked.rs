//! Messages that are published again: parked, put back, or rerouted after no binding matched.

use fanfare_domain::{
    event::{
        EventFields,
        parked::{Edit, Origin},
    },
    time::parse_duration,
};
use lapin::types::{AMQPValue, FieldTable, LongString, ShortString};
use serde_json::Value;

use crate::{
    Incoming, Message, Topology, Unreadable,
    message::cloud_events::{has_attributes, is_attribute, time},
    message::codec::{ACCEPTED, TOO_LARGE, exchange_of_event, text},
    message::own_headers::SIGNATURE,
    topology::{DUE, ORDERING_KEY, PARKED, PARTITION},
    wire::{is_sanitized, not_utf8, sanitize},
};

const PARKED_REASON: &str = "fanfare-reason";
const PARKED_MESSAGE: &str = "fanfare-message";
const PARKED_ROUTING_KEY: &str = "fanfare-routing-key";
const PARKED_ORIGIN: &str = "fanfare-origin";
const REROUTED: &str = "fanfare-rerouted";
const PUT_BACK: &str = "fanfare-put-back";
const PARKED_SIZE: &str = "fanfare-size";
pub(crate) const DEATHS: &str = "x-death";

/// Fanfare's own headers.
const OURS: [&str; 9] = [
    PARKED_REASON,
    PARKED_MESSAGE,
    PARKED_ROUTING_KEY,
    PARKED_ORIGIN,
    PARKED_SIZE,
    PARTITION,
    PUT_BACK,
    REROUTED,
    SIGNATURE,
];

/// Reason of messages that repeatedly lost their consumers.
pub const DELIVERY_LIMIT: &str = "delivery_limit";

/// Maximum length of a short string in AMQP, in bytes.
const MAX_SHORT_STRING: usize = 255;

/// Maximum size of headers copied to a republished message, in bytes.
pub(crate) const MAX_COPIED_HEADERS: usize = 16 * 1024;

/// Encodes an unreadable message for the parked queue, unchanged, with the reason and the size of the body.
pub fn encode_parked(topology: &Topology, incoming: &Incoming, unreadable: &Unreadable) -> Message {
    let mut headers = copied_headers(incoming);
    let reason = [
        (PARKED_REASON, unreadable.reason.to_owned()),
        (PARKED_MESSAGE, unreadable.message.clone()),
        (PARKED_ROUTING_KEY, incoming.routing_key.clone()),
        (PARKED_ORIGIN, origin(topology, incoming).as_str().to_owned()),
        (PARKED_SIZE, incoming.size.to_string()),
    ];
    for (name, value) in reason {
        headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
    }
    again(incoming, (topology.deliveries_exchange(), PARKED.to_owned()), headers)
}

/// The next step of a message in the parked queue.
#[derive(Debug)]
pub enum Parked {
    /// Parked because the consumers died repeatedly. The message gets a last chance, alone.
    PutBack(Message),
    /// The message stays parked.
    Keep {
        /// Code of the fault.
        reason: String,
        /// Fault, for people.
        message: String,
        /// Routing key of the publish.
        routing_key: Option<String>,
        /// Source of the message.
        origin: Option<Origin>,
        /// Bytes of the whole body.
        size: usize,
    },
}

/// A parked message to be put back on request.
#[derive(Debug, Clone)]
pub struct PutBack<'a> {
    /// Source of the message, and destination.
    pub origin: Origin,
    /// Reason of the parking. A message whose consumers died is handled alone.
    pub reason: &'a str,
    /// Routing key of the publish.
    pub routing_key: Option<&'a str>,
    /// The property `message_id`.
    pub message_id: Option<&'a str>,
    /// Kept headers as a JSON object. Lists, tables and fractions are left out.
    pub headers: &'a str,
    /// Kept bytes of the body.
    pub body: &'a [u8],
    /// Bytes of the whole body.
    pub size: usize,
}

/// Encodes an edited parked message for the source exchange. Headers whose names are not UTF-8 are left out. An edited
/// body is the complete event: the attributes of a CloudEvent in headers are left out. An edited event is checked like
/// a new event, although ingest had accepted the event as it was.
///
/// # Errors
/// If the routing key or the `message_id` is not UTF-8 and is not edited: the event would get another key. If only the
/// beginning of the body was kept, and the body is not edited. If the `message_id` of a CloudEvent is edited.
pub fn encode_put_back(topology: &Topology, put_back: &PutBack<'_>, edit: &Edit) -> Result<Message, Unreadable> {
    let kept: serde_json::Map<String, Value> = serde_json::from_str(put_back.headers).unwrap_or_default();
    let mut headers = FieldTable::default();
    for (name, value) in kept.iter().filter_map(|(name, value)| Some((name, header_value(value)?))) {
        let is_replaced = edit.body.is_some() && is_attribute(name) || edit.is_change() && name == ACCEPTED;
        // A longer name cannot be a short string.
        if name.len() <= MAX_SHORT_STRING && !is_acted_on(name) && !is_sanitized(name) && !is_replaced {
            headers.insert(name.as_str().into(), value);
        }
    }
    let body = edit.body.as_deref().unwrap_or(put_back.body);
    let is_cloud_event =
        put_back.origin == Origin::Events && (has_attributes(&headers) || EventFields::is_cloud_event(body));
    if put_back.reason == DELIVERY_LIMIT {
        headers.insert(PUT_BACK.into(), AMQPValue::Boolean(true));
    }
    let routing_key = edit.routing_key.as_deref().or(put_back.routing_key).unwrap_or_default();
    // The publisher may have given the ordering key only in the body.
    if !headers.inner().contains_key(ORDERING_KEY)
        && let Some(key) = EventFields::parse(body).ok().and_then(|fields| fields.ordering_key)
    {
        headers.insert(ORDERING_KEY.into(), AMQPValue::LongString(LongString::from(key.as_str())));
    }
    let (exchange, routing_key) = way_back(topology, put_back.origin, routing_key, &mut headers);
    let message_id = match edit.message_id.as_deref() {
        Some(_) if is_cloud_event => {
            let message =
                "the key of a CloudEvent is `source` and `id`, and the message_id has no effect: edit the body";
            return Err(Unreadable::new("id_mismatch", message));
        }
        None if is_cloud_event => put_back.message_id.filter(|id| !is_sanitized(id)),
        edited => edited.or(put_back.message_id),
    };
    if is_sanitized(&routing_key) {
        return Err(not_utf8("the routing key"));
    }
    if message_id.is_some_and(is_sanitized) {
        return Err(not_utf8("the property message_id"));
    }
    if edit.body.is_none() && put_back.size > put_back.body.len() {
        let (kept, size) = (put_back.body.len(), put_back.size);
        return Err(Unreadable::new(TOO_LARGE, format!("only the first {kept} of the body's {size} bytes are kept")));
    }
    Ok(Message { exchange, routing_key, body: body.to_vec(), message_id: message_id.map(str::to_owned), headers })
}

/// The value of a kept header; `None` for a value whose type is unknown.
fn header_value(value: &Value) -> Option<AMQPValue> {
    match value {
        Value::String(text) => Some(AMQPValue::LongString(LongString::from(text.as_str()))),
        Value::Bool(value) => Some(AMQPValue::Boolean(*value)),
        Value::Number(number) => number.as_i64().map(AMQPValue::LongLongInt),
        Value::Null => Some(AMQPValue::Void),
        Value::Array(_) | Value::Object(_) => None,
    }
}

/// Decodes a message from the parked queue.
pub fn decode_parked(topology: &Topology, incoming: &Incoming) -> Parked {
    if let Some(reason) = incoming.header(PARKED_REASON) {
        let message = incoming.header(PARKED_MESSAGE).unwrap_or_default();
        let routing_key = incoming.header(PARKED_ROUTING_KEY);
        let origin = incoming.header(PARKED_ORIGIN).and_then(|origin| Origin::parse(&origin));
        let size = incoming.header(PARKED_SIZE).and_then(|size| size.parse().ok()).unwrap_or(incoming.size);
        return Parked::Keep { reason, message, routing_key, origin, size };
    }
    let size = incoming.size;
    let died = death(topology, &incoming.headers);
    if let Err(Unreadable { reason, message }) = check_died(incoming, died.as_ref()) {
        let (origin, routing_key) = died.unzip();
        return Parked::Keep { reason: reason.to_owned(), message, routing_key, origin, size };
    }
    match died {
        Some((origin, routing_key)) if !incoming.is_quarantined() => {
            let mut headers = copied_headers(incoming);
            headers.insert(PUT_BACK.into(), AMQPValue::Boolean(true));
            let way = way_back(topology, origin, &routing_key, &mut headers);
            Parked::PutBack(again(incoming, way, headers))
        }
        died => {
            let (origin, routing_key) = died.unzip();
            Parked::Keep {
                reason: DELIVERY_LIMIT.to_owned(),
                message: "each process that handled this message died or lost its connection with it".to_owned(),
                routing_key,
                origin,
                size,
            }
        }
    }
}

/// Refuses a message that would be put back under a key of other bytes, or with a part of its body.
fn check_died(incoming: &Incoming, died: Option<&(Origin, String)>) -> Result<(), Unreadable> {
    incoming.check_utf8()?;
    check_whole(incoming)?;
    match died {
        Some((_, routing_key)) if is_sanitized(routing_key) => Err(not_utf8("the routing key")),
        _ => Ok(()),
    }
}

/// Refuses a message with a body that was cut.
fn check_whole(incoming: &Incoming) -> Result<(), Unreadable> {
    if incoming.is_cut() {
        let message = format!("the body has {} bytes, more than an event may have", incoming.size);
        return Err(Unreadable::new(TOO_LARGE, message));
    }
    Ok(())
}

/// Exchange and routing key that lead back to the source.
fn way_back(topology: &Topology, origin: Origin, routing_key: &str, headers: &mut FieldTable) -> (String, String) {
    match origin {
        Origin::Events => (exchange_of_event(topology, routing_key, headers), routing_key.to_owned()),
        Origin::Deliveries => (topology.deliveries_exchange(), DUE.to_owned()),
    }
}

/// Copies a message with other headers, exchange and routing key.
fn again(incoming: &Incoming, (exchange, routing_key): (String, String), headers: FieldTable) -> Message {
    Message { exchange, routing_key, body: incoming.body.clone(), message_id: incoming.message_id.clone(), headers }
}

/// Source of a message that was not dead-lettered.
fn origin(topology: &Topology, incoming: &Incoming) -> Origin {
    if topology.has_events(&incoming.exchange) { Origin::Events } else { Origin::Deliveries }
}

/// True if the broker acts on a header. By `CC` and `BCC` the broker would route copies to exchanges or queues where
/// the publisher may not write, and up to 3.13 the broker reads `x-death`.
fn is_acted_on(header: &str) -> bool {
    header.starts_with("x-") || matches!(header, "CC" | "BCC")
}

/// Headers for a republished message.
///
/// Headers that the broker acts on are left out. Only Fanfare's headers are copied if all together may not fit into a
/// frame: the broker would close the connection. A structured CloudEvent does not keep the attributes in headers.
fn copied_headers(incoming: &Incoming) -> FieldTable {
    let mut headers = FieldTable::default();
    if copied_bytes(incoming) <= MAX_COPIED_HEADERS {
        for (name, value) in publishers_headers(incoming) {
            if !incoming.is_structured() || !is_attribute(name.as_str()) {
                headers.insert(name.clone(), value.clone());
            }
        }
        if let Some((name, value)) = incoming.kept_content_type() {
            headers.insert(name, value);
        }
    }
    let is_needed = |name: &str| OURS.contains(&name) || name == ORDERING_KEY;
    for (name, value) in incoming.headers.inner().iter().filter(|(name, _)| is_needed(name.as_str())) {
        headers.insert(name.clone(), value.clone());
    }
    headers
}

/// Bytes of the headers that a republished message would keep.
pub(crate) fn copied_bytes(incoming: &Incoming) -> usize {
    let bytes = |(name, value): (&ShortString, &AMQPValue)| name.as_str().len() + json(value).to_string().len();
    let content_type = incoming.kept_content_type();
    publishers_headers(incoming).chain(content_type.iter().map(|(name, value)| (name, value))).map(bytes).sum()
}

/// The publisher's headers, without headers that the broker acts on.
fn publishers_headers(incoming: &Incoming) -> impl Iterator<Item = (&ShortString, &AMQPValue)> {
    let headers = incoming.headers.inner().iter();
    headers.filter(|(name, _)| !is_acted_on(name.as_str()) && !OURS.contains(&name.as_str()))
}

/// Source of a dead-lettered message, and the routing key of the publish, sanitized.
fn death(topology: &Topology, headers: &FieldTable) -> Option<(Origin, String)> {
    let AMQPValue::FieldArray(deaths) = headers.inner().get(DEATHS)? else { return None };
    let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else { return None };
    let AMQPValue::FieldArray(keys) = death.inner().get("routing-keys")? else { return None };
    let queue = text(death.inner().get("queue")?)?;
    let is_event = queue == topology.events_queue() || topology.ordered_queues().contains(&queue);
    let origin = if is_event { Origin::Events } else { Origin::Deliveries };
    let AMQPValue::LongString(key) = keys.as_slice().first()? else { return None };
    let mut key = key.as_bytes().to_vec();
    sanitize(&mut key);
    Some((origin, String::from_utf8(key).ok()?))
}

/// Encodes an unrouted message for the original destination, now that the topology is restored. The headers are kept,
/// so that a message that was put back stays alone. A message that is not UTF-8, or too long, is parked instead.
pub fn encode_rerouted(topology: &Topology, incoming: &Incoming) -> Message {
    let origin = origin(topology, incoming);
    let is_parked = origin == Origin::Deliveries && incoming.routing_key == PARKED;
    if !is_parked && let Err(unreadable) = incoming.check_utf8().and_then(|()| check_whole(incoming)) {
        return encode_parked(topology, incoming, &unreadable);
    }
    let mut headers = copied_headers(incoming);
    let way = match origin {
        Origin::Events => {
            let routing_key = incoming.routing_key.clone();
            (exchange_of_event(topology, &routing_key, &mut headers), routing_key)
        }
        Origin::Deliveries if is_parked => (topology.deliveries_exchange(), PARKED.to_owned()),
        // The delay may be unknown to this process.
        Origin::Deliveries => {
            (topology.deliveries_exchange(), topology.retry_routing_key(parse_duration(&incoming.routing_key)))
        }
    };
    // A message that the previous release parked has no size.
    if is_parked && incoming.is_cut() {
        headers.insert(PARKED_SIZE.into(), AMQPValue::LongString(LongString::from(incoming.size.to_string())));
    }
    headers.insert(REROUTED.into(), AMQPValue::Boolean(true));
    again(incoming, way, headers)
}

impl Incoming {
    /// True if the message was parked and put back, and must be handled alone.
    pub fn is_quarantined(&self) -> bool {
        self.headers.inner().contains_key(PUT_BACK)
    }

    /// True if the message was rerouted before, after no binding had matched.
    pub fn was_rerouted(&self) -> bool {
        self.headers.inner().contains_key(REROUTED)
    }

    /// The publisher's headers as a JSON object, for people.
    pub fn headers_as_json(&self) -> String {
        let published = self.headers.inner().iter().filter(|(name, _)| !OURS.contains(&name.as_str()));
        json_object(published).to_string()
    }
}

fn json_object<'a>(entries: impl Iterator<Item = (&'a ShortString, &'a AMQPValue)>) -> Value {
    Value::Object(entries.map(|(name, value)| (name.to_string(), json(value))).collect())
}

fn json(value: &AMQPValue) -> Value {
    match value {
        AMQPValue::Boolean(value) => (*value).into(),
        AMQPValue::ShortShortInt(value) => (*value).into(),
        AMQPValue::ShortShortUInt(value) => (*value).into(),
        AMQPValue::ShortInt(value) => (*value).into(),
        AMQPValue::ShortUInt(value) => (*value).into(),
        AMQPValue::LongInt(value) => (*value).into(),
        AMQPValue::LongUInt(value) => (*value).into(),
        AMQPValue::LongLongInt(value) => (*value).into(),
        AMQPValue::Timestamp(seconds) => time(*seconds).map_or_else(|| (*seconds).into(), Value::from),
        AMQPValue::Float(value) => (*value).into(),
        AMQPValue::Double(value) => (*value).into(),
        AMQPValue::DecimalValue(value) => format!("{}e-{}", value.value, value.scale).into(),
        AMQPValue::ByteArray(bytes) => String::from_utf8_lossy(bytes.as_slice()).into(),
        AMQPValue::FieldArray(values) => values.as_slice().iter().map(json).collect(),
        AMQPValue::FieldTable(table) => json_object(table.inner().iter()),
        AMQPValue::Void => Value::Null,
        AMQPValue::LongString(_) | AMQPValue::ShortString(_) => text(value).into(),
    }
}
