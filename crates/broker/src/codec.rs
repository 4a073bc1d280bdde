//! Messages: what stands in their bodies, properties and headers.

use fanfare_domain::{
    claim::Claim,
    event::{Event, EventFault, EventFields, EventType, check_accepted_at, check_key},
    ids::{ApplicationId, EventId},
    traceparent::Traceparent,
};
use jiff::Timestamp;
use lapin::{
    BasicProperties,
    types::{AMQPValue, FieldTable, LongString, ShortString},
};
use serde_json::Value;

use crate::{
    Incoming, Topology,
    topology::{DUE, PARKED},
};

const TRACEPARENT: &str = "traceparent";
const ACCEPTED: &str = "fanfare-accepted";
const PARKED_REASON: &str = "fanfare-reason";
const PARKED_MESSAGE: &str = "fanfare-message";
const PARKED_ROUTING_KEY: &str = "fanfare-routing-key";
const PUT_BACK: &str = "fanfare-put-back";
const DEATHS: &str = "x-death";

/// Bytes of headers that are kept when a message is published again.
const MAX_COPIED_HEADERS: usize = 16 * 1024;

/// A message that is to be published.
#[derive(Debug, Clone)]
pub struct Message {
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) body: Vec<u8>,
    pub(crate) message_id: Option<String>,
    pub(crate) headers: FieldTable,
}

impl Message {
    pub(crate) fn properties(&self) -> BasicProperties {
        // 2: persistent. A transient message does not survive a classic queue's broker.
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_headers(self.headers.clone());
        match &self.message_id {
            Some(id) => properties.with_message_id(id.clone().into()),
            None => properties,
        }
    }
}

/// Why a message cannot be read. It is parked with this.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unreadable {
    /// The code, for machines.
    pub reason: &'static str,
    /// The sentence, for people.
    pub message: String,
}

impl Unreadable {
    /// A reason and its sentence.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl From<EventFault> for Unreadable {
    fn from(fault: EventFault) -> Self {
        Self::new(fault.code.as_str(), fault.to_string())
    }
}

/// The message that carries an event to the events exchange, with the body that its publisher wrote.
pub fn encode_event(topology: &Topology, event: &Event, body: &[u8]) -> Message {
    Message {
        exchange: topology.events_exchange(),
        routing_key: event.routing_key(),
        body: body.to_vec(),
        message_id: Some(event.key.clone().unwrap_or_else(|| event.id.to_string())),
        headers: headers([(TRACEPARENT, event.traceparent.to_string()), (ACCEPTED, "http".to_owned())]),
    }
}

/// Reads a message from the events exchange, whoever published it. `fresh` is the trace of an event that
/// came without one; `max_bytes` bounds its body.
///
/// # Errors
/// With the reason to park it.
pub fn decode_event(
    incoming: &Incoming,
    max_bytes: usize,
    fresh: Traceparent,
    now: Timestamp,
) -> Result<Event, Unreadable> {
    let (application, event_type) = incoming
        .routing_key
        .split_once('.')
        .ok_or_else(|| Unreadable::new("invalid_routing_key", "the routing key is not <application>.<event type>"))?;
    let application: ApplicationId = application.parse().map_err(|_| {
        Unreadable::new(
            "unknown_application",
            format!("the routing key starts with {application:?}, which is no application's id"),
        )
    })?;
    let event_type = EventType::parse(event_type).map_err(|fault| {
        Unreadable::new("invalid_routing_key", format!("the event type in the routing key {}", fault.message))
    })?;
    let key = incoming.message_id.clone().filter(|id| !id.is_empty()).ok_or_else(|| {
        Unreadable::new("missing_message_id", "the property message_id is missing; give each event an id of its own")
    })?;
    let key = check_key("message_id", key)?;
    if incoming.body.len() > max_bytes {
        let message = format!("the body has {} bytes; {max_bytes} are allowed", incoming.body.len());
        return Err(Unreadable::new("body_too_large", message));
    }
    let fields = EventFields::parse(&incoming.body)?;
    if fields.event_type.is_some_and(|given| given != event_type) {
        return Err(Unreadable::new("type_mismatch", "`type` in the body differs from the routing key"));
    }
    if fields.key.is_some_and(|given| given != key) {
        return Err(Unreadable::new("id_mismatch", "`id` in the body differs from the property message_id"));
    }
    let id = EventId::from_key(application, &key);
    check_accepted_at("message_id", id, now)?;
    Ok(Event {
        id,
        application,
        event_type,
        key: id.accepted_at().is_none().then_some(key),
        data: fields.data,
        occurred_at: fields.occurred_at,
        traceparent: traceparent(incoming).unwrap_or(fresh),
    })
}

/// The message that carries a claim to where it has to wait next, or to those that are due.
///
/// # Errors
/// Never in practice: a claim is a flat record.
pub fn encode_claim(
    topology: &Topology,
    claim: &Claim,
    trace: Option<Traceparent>,
    now: Timestamp,
) -> serde_json::Result<Message> {
    Ok(Message {
        exchange: topology.deliveries_exchange(),
        routing_key: topology.claim_routing_key(claim, now),
        body: serde_json::to_vec(claim)?,
        message_id: None,
        headers: match trace {
            Some(trace) => headers([(TRACEPARENT, trace.to_string())]),
            None => FieldTable::default(),
        },
    })
}

/// Reads a message from the deliveries queue.
///
/// # Errors
/// With the reason to park it.
pub fn decode_claim(incoming: &Incoming) -> Result<(Claim, Option<Traceparent>), Unreadable> {
    let claim = serde_json::from_slice(&incoming.body)
        .map_err(|error| Unreadable::new("invalid_claim", format!("not a claim: {error}")))?;
    Ok((claim, traceparent(incoming)))
}

/// The message that takes one that could not be read to the parked ones, as it was, with the reason.
pub fn encode_parked(topology: &Topology, incoming: &Incoming, unreadable: &Unreadable) -> Message {
    let mut headers = copied_headers(incoming);
    let reason = [
        (PARKED_REASON, unreadable.reason.to_owned()),
        (PARKED_MESSAGE, unreadable.message.clone()),
        (PARKED_ROUTING_KEY, incoming.routing_key.clone()),
    ];
    for (name, value) in reason {
        headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
    }
    Message {
        exchange: topology.deliveries_exchange(),
        routing_key: PARKED.to_owned(),
        body: incoming.body.clone(),
        message_id: incoming.message_id.clone(),
        headers,
    }
}

/// What is to become of a message in the parked queue.
#[derive(Debug)]
pub enum Parked {
    /// It was parked because its consumers died with it again and again. It gets one more chance, alone.
    PutBack(Message),
    /// It stays parked.
    Keep {
        /// The code of what is wrong with it.
        reason: String,
        /// What is wrong with it, for people.
        message: String,
        /// The routing key that it was published with.
        routing_key: Option<String>,
    },
}

/// Reads a message from the parked queue.
pub fn decode_parked(topology: &Topology, incoming: &Incoming) -> Parked {
    if let Some(reason) = incoming.header(PARKED_REASON) {
        let message = incoming.header(PARKED_MESSAGE).unwrap_or_default();
        return Parked::Keep { reason, message, routing_key: incoming.header(PARKED_ROUTING_KEY) };
    }
    let died = death(&incoming.headers);
    match died {
        Some((queue, routing_key)) if !incoming.is_alone() => {
            Parked::PutBack(put_back(topology, incoming, &queue, routing_key))
        }
        died => Parked::Keep {
            reason: "delivery_limit".to_owned(),
            message: "each process that handled this message died or lost its connection with it".to_owned(),
            routing_key: died.map(|(_, routing_key)| routing_key),
        },
    }
}

fn put_back(topology: &Topology, incoming: &Incoming, queue: &str, routing_key: String) -> Message {
    let exchange =
        if queue == topology.events_queue() { topology.events_exchange() } else { topology.deliveries_exchange() };
    let mut headers = copied_headers(incoming);
    headers.insert(PUT_BACK.into(), AMQPValue::Boolean(true));
    let routing_key = if queue == topology.events_queue() { routing_key } else { DUE.to_owned() };
    Message { exchange, routing_key, body: incoming.body.clone(), message_id: incoming.message_id.clone(), headers }
}

/// The headers of a message that is published again.
///
/// Without those that the broker acts on: by `CC` and `BCC` it would route copies, to where the publisher
/// may not write, and up to 3.13 it reads `x-death`. And none at all where there are so many that, with
/// ours, they may not fit into a frame: the broker would close the connection.
fn copied_headers(incoming: &Incoming) -> FieldTable {
    let mut headers = FieldTable::default();
    let mut bytes = 0;
    for (name, value) in incoming.headers.inner() {
        let is_acted_on = name.as_str().starts_with("x-") || matches!(name.as_str(), "CC" | "BCC");
        if !is_acted_on {
            bytes += name.as_str().len() + json(value).to_string().len();
            headers.insert(name.clone(), value.clone());
        }
    }
    if bytes > MAX_COPIED_HEADERS { FieldTable::default() } else { headers }
}

/// The queue that a message was dead-lettered from, and the routing key that it was published with.
fn death(headers: &FieldTable) -> Option<(String, String)> {
    let AMQPValue::FieldArray(deaths) = headers.inner().get(DEATHS)? else { return None };
    let AMQPValue::FieldTable(death) = deaths.as_slice().first()? else { return None };
    let AMQPValue::FieldArray(keys) = death.inner().get("routing-keys")? else { return None };
    Some((text(death.inner().get("queue")?)?, text(keys.as_slice().first()?)?))
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
        AMQPValue::Timestamp(value) => (*value).into(),
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

fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

impl Incoming {
    /// Whether it may be the last copy that there is of what it says: no other message may be left to end
    /// what an earlier copy has begun.
    pub fn may_be_last(&self) -> bool {
        self.redelivered || self.is_alone()
    }

    /// Whether it has been put back after it was parked, and must be handled alone.
    pub fn is_alone(&self) -> bool {
        self.headers.inner().contains_key(PUT_BACK)
    }

    /// What is kept of the headers that it was published with, as a JSON object, for people.
    pub fn headers_as_json(&self) -> String {
        let ours = [PARKED_REASON, PARKED_MESSAGE, PARKED_ROUTING_KEY, PUT_BACK];
        let published = self.headers.inner().iter().filter(|(name, _)| !ours.contains(&name.as_str()));
        json_object(published).to_string()
    }

    /// Whether its publisher has been told that its event is accepted: it came over HTTP, and its type was checked
    /// by what was known then.
    pub fn is_accepted(&self) -> bool {
        self.headers.inner().contains_key(ACCEPTED)
    }

    /// A header that is a text.
    fn header(&self, name: &str) -> Option<String> {
        self.headers.inner().get(name).and_then(text)
    }
}

fn traceparent(incoming: &Incoming) -> Option<Traceparent> {
    incoming.header(TRACEPARENT)?.parse().ok()
}

fn headers<const N: usize>(entries: [(&str, String); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
    }
    table
}
