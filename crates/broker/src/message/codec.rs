//! Encodes and decodes messages: bodies, properties and headers.

use std::time::Duration;

use fanfare_domain::{
    delivery::retry::RetryMessage,
    event::{
        Event, EventFault, EventType, check_accepted_at, check_key,
        ordering::{OrderingKey, check_delay},
        trace_context::TraceContext,
    },
    ids::{ApplicationId, EventId},
};
use jiff::Timestamp;
use lapin::{
    BasicProperties,
    message::Delivery,
    types::{AMQPValue, FieldTable, LongString},
};

use crate::{
    Incoming, Topology,
    topology::{ORDERING_KEY, PARTITION},
};

const TRACEPARENT: &str = "traceparent";
const TRACESTATE: &str = "tracestate";

/// Version of the application's settings that accepted the event over HTTP.
pub(crate) const ACCEPTED: &str = "fanfare-accepted";

/// Reason of a message whose body is too long for an event.
pub(crate) const TOO_LARGE: &str = "body_too_large";

/// A message to be published.
#[derive(Debug, Clone)]
pub struct Message {
    pub(crate) exchange: String,
    pub(crate) routing_key: String,
    pub(crate) body: Vec<u8>,
    pub(crate) message_id: Option<String>,
    pub(crate) headers: FieldTable,
}

impl Message {
    /// Adds the trace context of an event, if any.
    pub fn with_trace(mut self, trace: Option<&TraceContext>) -> Self {
        let parent = trace.map(|trace| (TRACEPARENT, trace.parent.to_string()));
        let state = trace.and_then(|trace| Some((TRACESTATE, trace.state.as_deref()?.to_owned())));
        for (name, value) in headers(parent.into_iter().chain(state)).inner() {
            self.headers.insert(name.clone(), value.clone());
        }
        self
    }

    pub(crate) fn properties(&self) -> BasicProperties {
        // 2: persistent. A transient message in a classic queue is lost when the broker restarts.
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_headers(self.headers.clone());
        match &self.message_id {
            Some(id) => properties.with_message_id(id.clone().into()),
            None => properties,
        }
    }

    /// Converts to the form that a consumer gets, without a broker: for tests of decoders.
    pub fn detached(self) -> Incoming {
        let properties = self.properties();
        let mut delivery = Delivery::mock(1, self.exchange.into(), self.routing_key.into(), false, self.body);
        delivery.properties = properties;
        Incoming::detached(delivery)
    }
}

/// The reason why a message cannot be read, and is parked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Unreadable {
    /// Code, for machines.
    pub reason: &'static str,
    /// Sentence, for people.
    pub message: String,
}

impl Unreadable {
    /// Creates a reason with a sentence.
    pub fn new(reason: &'static str, message: impl Into<String>) -> Self {
        Self { reason, message: message.into() }
    }
}

impl From<EventFault> for Unreadable {
    fn from(fault: EventFault) -> Self {
        Self::new(fault.code.as_str(), fault.to_string())
    }
}

/// Encodes an event for the events exchange, with the publisher's body. `version` is the version of the application's
/// settings that accepted the event.
pub fn encode_event(topology: &Topology, event: &Event, version: i64, body: &[u8]) -> Message {
    let mut all = headers([(ACCEPTED, version.to_string())]);
    let exchange = match &event.ordering_key {
        Some(key) => order(topology, event.application, key, &mut all),
        None => topology.events_exchange(),
    };
    let message = Message {
        exchange,
        routing_key: event.routing_key(),
        body: body.to_vec(),
        message_id: Some(event.key.clone().unwrap_or_else(|| event.id.to_string())),
        headers: all,
    };
    message.with_trace(event.trace.as_ref())
}

/// Adds the headers of an event with an ordering key. Returns the exchange.
fn order(topology: &Topology, application: ApplicationId, key: &OrderingKey, headers: &mut FieldTable) -> String {
    let partition = key.partition(application).to_string();
    headers.insert(ORDERING_KEY.into(), AMQPValue::LongString(LongString::from(key.as_str())));
    headers.insert(PARTITION.into(), AMQPValue::LongString(LongString::from(partition)));
    topology.ordered_exchange()
}

/// Exchange of an event that is published again with these headers: an event with an ordering key goes to its queue.
pub(crate) fn exchange_of_event(topology: &Topology, routing_key: &str, headers: &mut FieldTable) -> String {
    let application = routing_key.split_once('.').and_then(|(application, _)| application.parse().ok());
    let key = headers.inner().get(ORDERING_KEY).and_then(text);
    let key = key.and_then(|key| OrderingKey::parse(ORDERING_KEY, &key).ok());
    match application.zip(key) {
        Some((application, key)) => order(topology, application, &key, headers),
        None => topology.events_exchange(),
    }
}

/// Encodes an event as a foreign publisher does: no process of the deployment has checked the event.
pub fn encode_published(
    topology: &Topology,
    routing_key: &str,
    id: &str,
    ordering_key: Option<&OrderingKey>,
    body: &[u8],
) -> Message {
    let mut headers = headers(ordering_key.map(|key| (ORDERING_KEY, key.to_string())));
    Message {
        exchange: exchange_of_event(topology, routing_key, &mut headers),
        routing_key: routing_key.to_owned(),
        body: body.to_vec(),
        message_id: Some(id.to_owned()),
        headers,
    }
}

/// Decodes a message from the events exchange, from any publisher. `max_bytes` bounds the body.
///
/// # Errors
/// The reason to park the message.
pub fn decode_event(incoming: &Incoming, max_bytes: usize, now: Timestamp) -> Result<Event, Unreadable> {
    incoming.check_utf8()?;
    let (application, event_type) = incoming
        .routing_key
        .split_once('.')
        .ok_or_else(|| Unreadable::new("invalid_routing_key", "the routing key is not <application>.<event type>"))?;
    let application: ApplicationId = application.parse().map_err(|_| {
        Unreadable::new(
            "unknown_application",
            format!("the routing key starts with {application:?}, which is not an application id"),
        )
    })?;
    let event_type = EventType::parse(event_type).map_err(|fault| {
        Unreadable::new("invalid_routing_key", format!("the event type in the routing key {}", fault.message))
    })?;
    if incoming.size > max_bytes {
        let message = format!("the body has {} bytes; {max_bytes} are allowed", incoming.size);
        return Err(Unreadable::new(TOO_LARGE, message));
    }
    let fields = incoming.fields(max_bytes);
    let is_cloud_event = match &fields {
        Ok(fields) => fields.cloud_event.is_some(),
        Err(_) => incoming.is_structured() || incoming.is_cloud_event(),
    };
    // The key of a CloudEvent is its source and id. Libraries for CloudEvents choose any message_id.
    let message_id = if is_cloud_event { None } else { Some(message_id(incoming)?) };
    let fields = fields?;
    if fields.event_type.is_some_and(|given| given != event_type) {
        return Err(Unreadable::new("type_mismatch", "`type` in the event differs from the routing key"));
    }
    let ordering_key = ordering_key(incoming, fields.ordering_key)?;
    check_delay(ordering_key.as_ref(), fields.deliver_at)?;
    let key = match (fields.key, message_id) {
        (Some(given), Some(id)) if given != id => {
            return Err(Unreadable::new("id_mismatch", "`id` in the body differs from the property message_id"));
        }
        (given, id) => id.or(given).ok_or_else(missing_message_id)?,
    };
    let id = EventId::from_key(application, &key);
    // Ingest has checked an accepted event. The database's clock may be an earlier one after a failover.
    if incoming.accepted_by().is_none() {
        check_accepted_at("message_id", id, now)?;
    }
    Ok(Event {
        id,
        application,
        event_type,
        key: id.accepted_at().is_none().then_some(key),
        data: fields.data,
        occurred_at: fields.occurred_at,
        deliver_at: fields.deliver_at,
        version: fields.version,
        ordering_key,
        trace: incoming.trace().or(fields.trace),
        cloud_event: fields.cloud_event,
    })
}

/// The ordering key in the header, and perhaps in the body as well. The broker chose the queue by the header.
fn ordering_key(incoming: &Incoming, in_body: Option<OrderingKey>) -> Result<Option<OrderingKey>, Unreadable> {
    let unordered = |message: &str| Err(Unreadable::new("not_ordered", message));
    let Some(value) = incoming.headers.inner().get(ORDERING_KEY) else {
        return match in_body {
            None => Ok(None),
            Some(_) => unordered("the event has an ordering key, and the message lacks the header ordering-key"),
        };
    };
    let key = text(value).ok_or_else(|| Unreadable::new("wrong_type", "the header ordering-key must be a string"))?;
    let key = OrderingKey::parse(ORDERING_KEY, &key)?;
    if in_body.is_some_and(|given| given != key) {
        return unordered("the ordering key in the body differs from the header ordering-key");
    }
    if !incoming.is_ordered {
        return unordered(
            "an event with an ordering key was published to the exchange for events without order: publish it to \
             <prefix>.ordered-by-key, or over HTTP",
        );
    }
    Ok(Some(key))
}

fn message_id(incoming: &Incoming) -> Result<String, Unreadable> {
    let id = incoming.message_id.clone().filter(|id| !id.is_empty()).ok_or_else(missing_message_id)?;
    Ok(check_key("message_id", id)?)
}

fn missing_message_id() -> Unreadable {
    Unreadable::new("missing_message_id", "the property message_id is missing; give each event a unique id")
}

/// Encodes a retry for the next delay queue, or for the queue of due retries.
///
/// # Errors
/// Never in practice: a retry is a flat record.
pub fn encode_retry(topology: &Topology, retry: &RetryMessage, delay: Option<Duration>) -> serde_json::Result<Message> {
    Ok(Message {
        exchange: topology.deliveries_exchange(),
        routing_key: topology.retry_routing_key(delay),
        body: serde_json::to_vec(retry)?,
        message_id: None,
        headers: FieldTable::default(),
    })
}

/// Decodes a message from the deliveries queue.
///
/// # Errors
/// The reason to park the message.
pub fn decode_retry(incoming: &Incoming) -> Result<RetryMessage, Unreadable> {
    incoming.check_utf8()?;
    serde_json::from_slice(&incoming.body)
        .map_err(|error| Unreadable::new("invalid_retry", format!("not a retry: {error}")))
}

pub(crate) fn text(value: &AMQPValue) -> Option<String> {
    match value {
        AMQPValue::LongString(text) => Some(String::from_utf8_lossy(text.as_bytes()).into_owned()),
        AMQPValue::ShortString(text) => Some(text.to_string()),
        _ => None,
    }
}

impl Incoming {
    /// Version of the application's settings that accepted the event over HTTP; `None` over AMQP. The settings of that
    /// version have checked the type, and the publisher has got the answer.
    pub fn accepted_by(&self) -> Option<i64> {
        self.header(ACCEPTED)?.parse().ok()
    }

    /// Trace context of the publisher.
    pub fn trace(&self) -> Option<TraceContext> {
        TraceContext::of_headers(&self.header(TRACEPARENT)?, self.header(TRACESTATE).as_deref())
    }

    /// Text of a header.
    pub(crate) fn header(&self, name: &str) -> Option<String> {
        self.headers.inner().get(name).and_then(text)
    }
}

fn headers<'a>(entries: impl IntoIterator<Item = (&'a str, String)>) -> FieldTable {
    let mut table = FieldTable::default();
    for (name, value) in entries {
        table.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
    }
    table
}
