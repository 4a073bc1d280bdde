//! An event as a publisher sends it, over HTTP or AMQP: the same form and the same checks.

pub mod catalogue;
pub mod cloud_event;
pub mod delay;
pub mod description;
mod fields;
pub mod ordering;
pub mod outbox;
pub mod parked;
pub mod schema;
pub mod subscription;
pub mod trace_context;

use std::{borrow::Cow, fmt};

use jiff::{SignedDuration, Timestamp};
use sha2::{Digest, Sha256};

use crate::{
    event::{cloud_event::CloudEvent, ordering::OrderingKey, trace_context::TraceContext},
    ids::{ApplicationId, EventId},
    json,
};

pub use fields::EventFields;

/// Maximum length of an event type, in bytes. Application and event type together must fit into an AMQP routing key.
pub const MAX_TYPE_LENGTH: usize = 128;

/// Maximum length of a publisher's key, in bytes: AMQP's limit for `message_id`.
pub const MAX_KEY_LENGTH: usize = 255;

/// Name of a kind of event, such as `order.created` or `REFERRAL_CREATED`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(String);

impl EventType {
    /// Accepts letters, digits and `_ - . : /`, at most [`MAX_TYPE_LENGTH`], with no dot at either end. Such a name is
    /// safe in a routing key, in a header and in a subscription's pattern.
    ///
    /// # Errors
    /// The fault, for the field `type`.
    pub fn parse(text: &str) -> Result<Self, EventFault> {
        let fault = |message: &str| Err(EventFault::new(FaultCode::InvalidField, "type", message));
        if text.is_empty() {
            return fault("is empty; give the event type, such as \"order.created\"");
        }
        if text.len() > MAX_TYPE_LENGTH {
            let message = format!("is longer than {MAX_TYPE_LENGTH} bytes");
            return Err(EventFault::new(FaultCode::FieldTooLong, "type", &message));
        }
        if text.starts_with('.') || text.ends_with('.') {
            return fault("starts or ends with a dot");
        }
        if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:/".contains(&byte)) {
            return fault("holds other characters than letters, digits and _ - . : /");
        }
        Ok(Self(text.to_owned()))
    }

    /// Name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// Faults of an event. The API has the same error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultCode {
    /// Not JSON.
    MalformedJson,
    /// JSON, but not an object.
    NotAnObject,
    /// A required field is absent.
    MissingField,
    /// A field that events do not have.
    UnknownField,
    /// The same field twice.
    DuplicateField,
    /// A field of the wrong JSON type.
    WrongType,
    /// A field longer than allowed.
    FieldTooLong,
    /// A field of the right type with an invalid value.
    InvalidField,
    /// JSON nested deeper than [`json::MAX_DEPTH`].
    TooDeep,
    /// A number too large for a receiver's JSON parser.
    InfiniteNumber,
    /// A type that is not described, in a strict application.
    UnknownEventType,
    /// Data that does not fit the type's schema, in a strict application.
    DataMismatch,
    /// A time of delivery too far ahead.
    TooFarAhead,
}

impl FaultCode {
    /// Code in responses and on parked messages.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::MalformedJson => "malformed_json",
            Self::NotAnObject => "not_an_object",
            Self::MissingField => "missing_field",
            Self::UnknownField => "unknown_field",
            Self::DuplicateField => "duplicate_field",
            Self::WrongType => "wrong_type",
            Self::FieldTooLong => "field_too_long",
            Self::InvalidField => "invalid_field",
            Self::TooDeep => "too_deep",
            Self::InfiniteNumber => "infinite_number",
            Self::UnknownEventType => "unknown_event_type",
            Self::DataMismatch => "data_mismatch",
            Self::TooFarAhead => "too_far_ahead",
        }
    }
}

/// The reason why an event is refused: over HTTP the error, over AMQP the reason on the parked message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", field.as_deref().map(|field| format!("`{field}` ")).unwrap_or_default())]
pub struct EventFault {
    /// Kind of fault.
    pub code: FaultCode,
    /// Faulty field; `None` if the event as a whole is at fault.
    pub field: Option<Cow<'static, str>>,
    /// Rest of the sentence, after the field's name.
    pub message: String,
}

/// Appends a suggestion to a sentence.
pub fn with_suggestion(sentence: &str, nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("{sentence}; did you mean {nearest}?"),
        None => sentence.to_owned(),
    }
}

impl EventFault {
    /// Creates a fault of a field. `message` continues the sentence after the field's name.
    pub fn new(code: FaultCode, field: impl Into<Cow<'static, str>>, message: &str) -> Self {
        Self { code, field: Some(field.into()), message: message.to_owned() }
    }

    pub(crate) fn unknown_type(event_type: &EventType, nearest: Option<&str>) -> Self {
        let message =
            format!("is {event_type}, which is not described: this application accepts described event types only");
        Self::new(FaultCode::UnknownEventType, "type", &with_suggestion(&message, nearest))
    }

    pub(crate) fn reserved_type(event_type: &EventType) -> Self {
        let message = format!("is {event_type}, which only Fanfare publishes: choose another type");
        Self::new(FaultCode::UnknownEventType, "type", &message)
    }

    fn of_json(fault: &json::JsonFault, field: Option<&'static str>) -> Self {
        let code = match fault {
            json::JsonFault::Syntax { .. } => FaultCode::MalformedJson,
            json::JsonFault::TooDeep { .. } => FaultCode::TooDeep,
            json::JsonFault::InfiniteNumber { .. } => FaultCode::InfiniteNumber,
        };
        Self { code, field: field.map(Cow::Borrowed), message: fault.to_string() }
    }
}

/// Checks a publisher's key in the given field.
///
/// # Errors
/// If the key is empty, too long, or contains control characters.
pub fn check_key(field: &'static str, key: String) -> Result<String, EventFault> {
    if key.is_empty() {
        return Err(EventFault::new(
            FaultCode::InvalidField,
            field,
            "is empty; leave it out, or give your id of the event",
        ));
    }
    if key.len() > MAX_KEY_LENGTH {
        let message = format!("is longer than {MAX_KEY_LENGTH} bytes");
        return Err(EventFault::new(FaultCode::FieldTooLong, field, &message));
    }
    if key.chars().any(char::is_control) {
        return Err(EventFault::new(FaultCode::InvalidField, field, "holds control characters"));
    }
    Ok(key)
}

/// Checks the acceptance time in an event id chosen by the publisher. The time decides the partition. Clocks differ, so
/// the time may be up to an hour ahead.
///
/// # Errors
/// If the time is more than 30 days ago or more than an hour ahead.
pub fn check_accepted_at(field: &'static str, id: EventId, now: Timestamp) -> Result<(), EventFault> {
    const MAX_AGE: SignedDuration = SignedDuration::from_hours(30 * 24);
    const MAX_LEAD: SignedDuration = SignedDuration::from_hours(1);
    match id.accepted_at().map(|accepted_at| now.duration_since(accepted_at)) {
        Some(age) if age > MAX_AGE || age < -MAX_LEAD => {
            let message = "is an event id with a time more than 30 days ago, or in the future";
            Err(EventFault::new(FaultCode::InvalidField, field, message))
        }
        _ => Ok(()),
    }
}

/// An accepted event, ready for fan-out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Event id, the same for every copy of the event.
    pub id: EventId,
    /// Application that published the event.
    pub application: ApplicationId,
    /// Event type.
    pub event_type: EventType,
    /// The publisher's key, if given. Of a CloudEvent `<source> <id>`.
    pub key: Option<String>,
    /// Payload as JSON text, as sent.
    pub data: String,
    /// Time of the event according to the publisher.
    pub occurred_at: Option<Timestamp>,
    /// Time of delivery that the publisher sets.
    pub deliver_at: Option<Timestamp>,
    /// Version of the type's schema that the publisher names. Not kept, and not delivered.
    pub version: Option<u32>,
    /// Events with the same ordering key have consecutive numbers at each endpoint.
    pub ordering_key: Option<OrderingKey>,
    /// Trace of the publish.
    pub trace: Option<TraceContext>,
    /// Further attributes of a CloudEvent.
    pub cloud_event: Option<CloudEvent>,
}

impl Event {
    /// An event for tests and samples.
    pub(crate) fn example(event_type: Option<EventType>, data: String) -> Self {
        let event_type = event_type.unwrap_or_else(|| EventType("example".to_owned()));
        Self::new(EventId(uuid::Uuid::nil()), ApplicationId(uuid::Uuid::nil()), event_type, data)
    }

    /// An event without optional members. `data` is JSON text.
    pub fn new(id: EventId, application: ApplicationId, event_type: EventType, data: String) -> Self {
        Self {
            id,
            application,
            event_type,
            key: None,
            data,
            occurred_at: None,
            deliver_at: None,
            version: None,
            ordering_key: None,
            trace: None,
            cloud_event: None,
        }
    }

    /// AMQP routing key: `<application>.<event type>`.
    pub fn routing_key(&self) -> String {
        format!("{}.{}", self.application, self.event_type)
    }
}

/// Digest that distinguishes events: 16 bytes of SHA-256 over type and data. The time is left out, since a publisher
/// may set a new time whenever an event is sent again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content(pub [u8; 16]);

impl Content {
    /// Digests type and data. [`json::check`] must accept the data. White space outside of strings does not count.
    pub fn of(event_type: &EventType, data: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update(event_type.as_str());
        // No type contains a zero byte, so the end of the type is unambiguous.
        digest.update([0]);
        digest.update(json::compact(data));
        let digest: [u8; 32] = digest.finalize().into();
        let mut content = [0; 16];
        content.copy_from_slice(&digest[..16]);
        Self(content)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_is_type_and_data() {
        let content = |event_type: &str, data: &str| Content::of(&EventType::parse(event_type).expect("type"), data);
        assert_eq!(content("a", r#"{ "n": 1 }"#), content("a", r#"{"n":1}"#));
        assert_ne!(content("a", r#"{"n":1}"#), content("b", r#"{"n":1}"#));
        assert_ne!(content("a", r#"{"n":1}"#), content("a", r#"{"n":2}"#));
    }
}
