//! An event as a publisher sends it, over HTTP or AMQP: the same form and the same checks.

pub mod catalogue;
pub mod cloud_event;
pub mod description;
pub mod outbox;
pub mod parked;
pub mod schema;
pub mod subscription;
pub mod trace_context;

use std::{borrow::Cow, fmt};

use jiff::{SignedDuration, Timestamp};
use serde::{
    Deserialize,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{
    event::{cloud_event::CloudEvent, trace_context::TraceContext},
    ids::{ApplicationId, EventId},
    json,
};

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

    fn of_json(fault: &json::JsonFault, field: Option<&'static str>) -> Self {
        let code = match fault {
            json::JsonFault::Syntax { .. } => FaultCode::MalformedJson,
            json::JsonFault::TooDeep { .. } => FaultCode::TooDeep,
            json::JsonFault::InfiniteNumber { .. } => FaultCode::InfiniteNumber,
        };
        Self { code, field: field.map(Cow::Borrowed), message: fault.to_string() }
    }
}

/// The checked fields of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFields {
    /// Event type. Absent only over AMQP, where the routing key has the type.
    pub event_type: Option<EventType>,
    /// Payload: a JSON value, exactly as sent.
    pub data: String,
    /// The publisher's key of the event, if present in the body.
    pub key: Option<String>,
    /// Time of the event according to the publisher. Any time is accepted, since no decision depends on the value.
    pub occurred_at: Option<Timestamp>,
    /// Version of the type's schema that the publisher names. Checked only in a strict application.
    pub version: Option<u32>,
    /// Trace context in the attributes of a CloudEvent.
    pub trace: Option<TraceContext>,
    /// Further attributes of a CloudEvent. `None` for Fanfare's own form.
    pub cloud_event: Option<CloudEvent>,
}

impl EventFields {
    /// Parses `{type, data, id?, time?, version?}`, or a CloudEvent: an object with the member `specversion`.
    ///
    /// # Errors
    /// The first fault found, with the field.
    pub fn parse(body: &[u8]) -> Result<Self, EventFault> {
        let members = Self::members(body)?;
        if members.is_cloud_event() { cloud_event::read(members) } else { Self::from_members(members) }
    }

    /// Parses a CloudEvent.
    ///
    /// # Errors
    /// The first fault found, with the field.
    pub fn parse_cloud_event(body: &[u8]) -> Result<Self, EventFault> {
        cloud_event::read(Self::members(body)?)
    }

    /// True for the body of a CloudEvent, also of an invalid CloudEvent.
    pub fn is_cloud_event(body: &[u8]) -> bool {
        Self::members(body).is_ok_and(|members| members.is_cloud_event())
    }

    fn members(body: &[u8]) -> Result<Members<'_>, EventFault> {
        let text = std::str::from_utf8(body).map_err(|error| EventFault {
            code: FaultCode::MalformedJson,
            field: None,
            message: format!("the body is not UTF-8 from byte {} on", error.valid_up_to()),
        })?;
        // Checks the depth first, so that the recursion of the readers below is bounded.
        json::check(text).map_err(|fault| EventFault::of_json(&fault, None))?;
        serde_json::from_str(text).map_err(|_| EventFault {
            code: FaultCode::NotAnObject,
            field: None,
            message: "an event is a JSON object with the fields type, data, id, time and version".to_owned(),
        })
    }

    fn from_members(members: Members<'_>) -> Result<Self, EventFault> {
        let (mut event_type, mut data, mut key, mut occurred_at, mut version) = (None, None, None, None, None);
        for (name, value) in members.0 {
            let twice = match name.as_str() {
                "type" => event_type.replace(EventType::parse(&string("type", value)?)?).is_some(),
                "data" => data.replace(value.get().to_owned()).is_some(),
                "id" => key.replace(check_key("id", string("id", value)?)?).is_some(),
                "time" => occurred_at.replace(time(value)?).is_some(),
                "version" => version.replace(schema_version(value)?).is_some(),
                _ => {
                    let message = "is not a field of an event; the fields are type, data, id, time and version";
                    return Err(EventFault::new(FaultCode::UnknownField, name, message));
                }
            };
            if twice {
                return Err(EventFault::new(FaultCode::DuplicateField, name, "is given twice"));
            }
        }
        let data = data.ok_or_else(|| missing("data"))?;
        Ok(Self { event_type, data, key, occurred_at, version, trace: None, cloud_event: None })
    }

    /// The event type, if the body must have the type.
    ///
    /// # Errors
    /// If the type is missing.
    pub fn require_type(&self) -> Result<&EventType, EventFault> {
        self.event_type.as_ref().ok_or_else(|| missing("type"))
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

fn missing(field: &'static str) -> EventFault {
    EventFault::new(FaultCode::MissingField, field, "is missing")
}

fn string(field: impl Into<Cow<'static, str>>, value: &RawValue) -> Result<String, EventFault> {
    if !value.get().starts_with('"') {
        return Err(EventFault::new(FaultCode::WrongType, field, "must be a string"));
    }
    serde_json::from_str(value.get())
        .map_err(|_| EventFault::new(FaultCode::InvalidField, field, "holds half of a surrogate pair"))
}

fn time(value: &RawValue) -> Result<Timestamp, EventFault> {
    const YEAR_1: i64 = -62_135_596_800;
    let time = string("time", value)?.parse().ok().filter(|time: &Timestamp| time.as_second() >= YEAR_1);
    time.ok_or_else(|| {
        let message = "is not an RFC 3339 time with an offset, such as \"2026-06-18T12:00:00Z\"";
        EventFault::new(FaultCode::InvalidField, "time", message)
    })
}

fn schema_version(value: &RawValue) -> Result<u32, EventFault> {
    let digits = value.get().strip_prefix('-').unwrap_or(value.get());
    if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(EventFault::new(FaultCode::WrongType, "version", "must be an integer"));
    }
    let version = value.get().parse().ok().filter(|version| (1..=schema::MAX_VERSIONS).contains(version));
    version.ok_or_else(|| {
        let message = format!("is not a whole number from 1 to {}", schema::MAX_VERSIONS);
        EventFault::new(FaultCode::InvalidField, "version", &message)
    })
}

/// Members of a JSON object in order, duplicates included, values as text.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl Members<'_> {
    fn is_cloud_event(&self) -> bool {
        self.0.iter().any(|(name, _)| name == cloud_event::SPECVERSION)
    }
}

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct MembersVisitor;
        impl<'de> Visitor<'de> for MembersVisitor {
            type Value = Members<'de>;

            fn expecting(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
                formatter.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(MembersVisitor)
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
    /// Version of the type's schema that the publisher names. Not kept, and not delivered.
    pub version: Option<u32>,
    /// Trace of the publish.
    pub trace: Option<TraceContext>,
    /// Further attributes of a CloudEvent.
    pub cloud_event: Option<CloudEvent>,
}

impl Event {
    /// An event for tests and samples.
    pub(crate) fn example(event_type: Option<EventType>, data: String) -> Self {
        Self {
            id: EventId(uuid::Uuid::nil()),
            application: ApplicationId(uuid::Uuid::nil()),
            event_type: event_type.unwrap_or_else(|| EventType("example".to_owned())),
            key: None,
            data,
            occurred_at: None,
            version: None,
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
    use proptest::prelude::*;

    use super::*;

    fn fault(body: &str) -> (FaultCode, Option<String>) {
        let fault = EventFields::parse(body.as_bytes()).expect_err(body);
        (fault.code, fault.field.map(Cow::into_owned))
    }

    #[test]
    fn reads_every_field() {
        let body =
            br#"{"type":"order.created","data":{"a": 1e2},"id":"o-1","time":"2026-06-18T14:00:00+02:00","version":2}"#;
        let fields = EventFields::parse(body).expect("fields");
        assert_eq!(fields.require_type().expect("type").as_str(), "order.created");
        assert_eq!(fields.data, r#"{"a": 1e2}"#);
        assert_eq!((fields.key.as_deref(), fields.version), (Some("o-1"), Some(2)));
        assert_eq!(fields.occurred_at.expect("time").to_string(), "2026-06-18T12:00:00Z");
    }

    #[test]
    fn each_fault_has_its_code_and_field() {
        let field = |code, name: &str| (code, Some(name.to_owned()));
        assert_eq!(fault("{"), (FaultCode::MalformedJson, None));
        assert_eq!(fault("[]"), (FaultCode::NotAnObject, None));
        assert_eq!(fault("{}"), field(FaultCode::MissingField, "data"));
        assert_eq!(fault(r#"{"data":1,"typ":"a"}"#), field(FaultCode::UnknownField, "typ"));
        assert_eq!(fault(r#"{"data":1,"data":2}"#), field(FaultCode::DuplicateField, "data"));
        assert_eq!(fault(r#"{"type":5,"data":1}"#), field(FaultCode::WrongType, "type"));
        assert_eq!(fault(r#"{"type":"a b","data":1}"#), field(FaultCode::InvalidField, "type"));
        assert_eq!(fault(&format!(r#"{{"type":"{}"}}"#, "a".repeat(129))), field(FaultCode::FieldTooLong, "type"));
        assert_eq!(fault(r#"{"id":"","data":1}"#), field(FaultCode::InvalidField, "id"));
        assert_eq!(fault(&format!(r#"{{"id":"{}"}}"#, "a".repeat(256))), field(FaultCode::FieldTooLong, "id"));
        assert_eq!(fault(r#"{"id":"\ud800","data":1}"#), field(FaultCode::InvalidField, "id"));
        let of_version = |version: &str| fault(&format!(r#"{{"version":{version},"data":1}}"#));
        for version in ["\"1\"", "null", "1.0", "1e0"] {
            assert_eq!(of_version(version), field(FaultCode::WrongType, "version"), "{version}");
        }
        for version in ["0", "21", "-1", "4294967297"] {
            assert_eq!(of_version(version), field(FaultCode::InvalidField, "version"), "{version}");
        }
        assert_eq!(fault(r#"{"time":"yesterday","data":1}"#), field(FaultCode::InvalidField, "time"));
        assert_eq!(fault(r#"{"time":"-009998-01-01T00:00:00Z","data":1}"#), field(FaultCode::InvalidField, "time"));
        assert_eq!(
            fault(&format!(r#"{{"data":{}1{}}}"#, "[".repeat(101), "]".repeat(101))),
            (FaultCode::TooDeep, None)
        );
        assert_eq!(fault(r#"{"data":1e999}"#), (FaultCode::InfiniteNumber, None));
        let fields = EventFields::parse(br#"{"data":1}"#).expect("over AMQP the routing key says the type");
        assert_eq!(fields.require_type().expect_err("type").code, FaultCode::MissingField);
    }

    #[test]
    fn content_is_type_and_data() {
        let content = |event_type: &str, data: &str| Content::of(&EventType::parse(event_type).expect("type"), data);
        assert_eq!(content("a", r#"{ "n": 1 }"#), content("a", r#"{"n":1}"#));
        assert_ne!(content("a", r#"{"n":1}"#), content("b", r#"{"n":1}"#));
        assert_ne!(content("a", r#"{"n":1}"#), content("a", r#"{"n":2}"#));
    }

    proptest! {
        #[test]
        fn never_panics(body in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = EventFields::parse(&body);
        }

        #[test]
        fn data_is_kept_as_sent(space in "[ \t\r\n]{0,3}", number: f64) {
            prop_assume!(number.is_finite());
            let data = format!("{{\"n\":{space}{number:e}}}");
            let fields = EventFields::parse(format!("{{\"data\":{space}{data}{space}}}").as_bytes()).expect("fields");
            prop_assert_eq!(fields.data, data);
        }
    }
}
