//! An event as a publisher hands it in, over HTTP or AMQP: one form, one set of checks.

use std::{borrow::Cow, fmt};

use jiff::{SignedDuration, Timestamp};
use serde::{
    Deserialize,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;
use sha2::{Digest, Sha256};

use crate::{
    ids::{ApplicationId, EventId},
    json,
    traceparent::Traceparent,
};

/// Bytes that an event type may have; with the application before it, it must fit into an AMQP routing key.
pub const MAX_TYPE_LENGTH: usize = 128;

/// Bytes that a publisher's key may have: AMQP's limit for `message_id`.
pub const MAX_KEY_LENGTH: usize = 255;

/// The name of a kind of event, such as `order.created` or `REFERRAL_CREATED`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EventType(String);

impl EventType {
    /// Takes letters, digits and `_ - . : /`, at most [`MAX_TYPE_LENGTH`] of them, with no dot at either
    /// end: a name that is safe in a routing key, in a header and in a subscription's pattern.
    ///
    /// # Errors
    /// With what is wrong, for the field `type`.
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

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for EventType {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

/// What is wrong with an event, in the words of the API's error codes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FaultCode {
    /// Not JSON.
    MalformedJson,
    /// JSON, but not an object.
    NotAnObject,
    /// A required field is absent.
    MissingField,
    /// A field that no event has.
    UnknownField,
    /// The same field twice.
    DuplicateField,
    /// A field of another JSON type than it must have.
    WrongType,
    /// A field beyond its length.
    FieldTooLong,
    /// A field of the right type whose value cannot be taken.
    InvalidField,
    /// JSON nested deeper than [`json::MAX_DEPTH`].
    TooDeep,
    /// A number too large for a receiver's JSON parser.
    InfiniteNumber,
    /// A type that nobody has described, at an application that takes no others.
    UnknownEventType,
}

impl FaultCode {
    /// The code as it stands in answers and on parked messages.
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
        }
    }
}

/// Why an event is refused at a door: over HTTP an error, over AMQP the reason on the parked message.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{}{message}", field.as_deref().map(|field| format!("`{field}` ")).unwrap_or_default())]
pub struct EventFault {
    /// The kind of fault.
    pub code: FaultCode,
    /// The field at fault, where it is one.
    pub field: Option<Cow<'static, str>>,
    /// The rest of the sentence, after the field's name.
    pub message: String,
}

/// A sentence, with what was probably meant behind it.
pub fn with_suggestion(sentence: &str, nearest: Option<&str>) -> String {
    match nearest {
        Some(nearest) => format!("{sentence}; did you mean {nearest}?"),
        None => sentence.to_owned(),
    }
}

impl EventFault {
    pub(crate) fn new(code: FaultCode, field: impl Into<Cow<'static, str>>, message: &str) -> Self {
        Self { code, field: Some(field.into()), message: message.to_owned() }
    }

    pub(crate) fn unknown_type(event_type: &EventType, nearest: Option<&str>) -> Self {
        let message = format!("is {event_type}, which is not described, and this application takes no others");
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

/// The fields of an event, checked, with its data as the text that the publisher sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EventFields {
    /// What happened; absent only over AMQP, where the routing key says it.
    pub event_type: Option<EventType>,
    /// The payload: one JSON value, exactly as sent.
    pub data: String,
    /// The publisher's own id of the event, if it gave one in the body.
    pub key: Option<String>,
    /// When it happened, in the publisher's words. It may be anything: nothing is decided by it.
    pub occurred_at: Option<Timestamp>,
}

impl EventFields {
    /// Reads `{type, data, id?, time?}`.
    ///
    /// # Errors
    /// The first fault found, with its field.
    pub fn parse(body: &[u8]) -> Result<Self, EventFault> {
        let text = std::str::from_utf8(body).map_err(|error| EventFault {
            code: FaultCode::MalformedJson,
            field: None,
            message: format!("the body is not UTF-8 from byte {} on", error.valid_up_to()),
        })?;
        // The depth is checked first, so that no reader below can be made to recurse.
        json::check(text).map_err(|fault| EventFault::of_json(&fault, None))?;
        let members: Members<'_> = serde_json::from_str(text).map_err(|_| EventFault {
            code: FaultCode::NotAnObject,
            field: None,
            message: "an event is a JSON object with the fields type, data, id and time".to_owned(),
        })?;
        Self::from_members(members)
    }

    fn from_members(members: Members<'_>) -> Result<Self, EventFault> {
        let (mut event_type, mut data, mut key, mut occurred_at) = (None, None, None, None);
        for (name, value) in members.0 {
            let twice = match name.as_str() {
                "type" => event_type.replace(EventType::parse(&string("type", value)?)?).is_some(),
                "data" => data.replace(value.get().to_owned()).is_some(),
                "id" => key.replace(check_key("id", string("id", value)?)?).is_some(),
                "time" => occurred_at.replace(time(value)?).is_some(),
                _ => {
                    let message = "is no field of an event; these are: type, data, id, time";
                    return Err(EventFault::new(FaultCode::UnknownField, name, message));
                }
            };
            if twice {
                return Err(EventFault::new(FaultCode::DuplicateField, name, "is given twice"));
            }
        }
        let data = data.ok_or_else(|| EventFault::new(FaultCode::MissingField, "data", "is missing"))?;
        Ok(Self { event_type, data, key, occurred_at })
    }

    /// The event type, where the body must say it.
    ///
    /// # Errors
    /// When it is missing.
    pub fn require_type(&self) -> Result<&EventType, EventFault> {
        self.event_type.as_ref().ok_or_else(|| EventFault::new(FaultCode::MissingField, "type", "is missing"))
    }
}

/// Checks a publisher's key, wherever it stood.
///
/// # Errors
/// When it is empty, too long, or holds control characters.
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

/// Checks the time in the id of an event that its publisher named by an id with a time in it: it decides
/// the partition. It may lie ahead a little, as clocks differ.
///
/// # Errors
/// When it cannot be true.
pub fn check_accepted_at(field: &'static str, id: EventId, now: Timestamp) -> Result<(), EventFault> {
    const MAX_AGE: SignedDuration = SignedDuration::from_hours(30 * 24);
    const MAX_LEAD: SignedDuration = SignedDuration::from_hours(1);
    match id.accepted_at().map(|accepted_at| now.duration_since(accepted_at)) {
        Some(age) if age > MAX_AGE || age < -MAX_LEAD => {
            let message = "is the id of an event of a time that is over, or yet to come";
            Err(EventFault::new(FaultCode::InvalidField, field, message))
        }
        _ => Ok(()),
    }
}

fn string(field: &'static str, value: &RawValue) -> Result<String, EventFault> {
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
        let message = "is no RFC 3339 time with an offset, such as \"2026-06-18T12:00:00Z\"";
        EventFault::new(FaultCode::InvalidField, "time", message)
    })
}

/// The members of a JSON object in their order, duplicates included, values as text.
struct Members<'a>(Vec<(String, &'a RawValue)>);

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

/// An event that has been taken in and can be fanned out.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Event {
    /// Its id, the same for every copy of it.
    pub id: EventId,
    /// The application that published it.
    pub application: ApplicationId,
    /// What happened.
    pub event_type: EventType,
    /// The publisher's key, where it gave one.
    pub key: Option<String>,
    /// The payload as JSON text, as sent.
    pub data: String,
    /// When it happened, in the publisher's words.
    pub occurred_at: Option<Timestamp>,
    /// The trace that its publishing belongs to.
    pub traceparent: Traceparent,
}

impl Event {
    /// An event to try something with.
    pub(crate) fn example(event_type: Option<EventType>, data: String) -> Self {
        Self {
            id: EventId(uuid::Uuid::nil()),
            application: ApplicationId(uuid::Uuid::nil()),
            event_type: event_type.unwrap_or_else(|| EventType("example".to_owned())),
            key: None,
            data,
            occurred_at: None,
            traceparent: Traceparent::from_random([1; 16], [1; 8]),
        }
    }

    /// `<application>.<event type>`.
    pub fn routing_key(&self) -> String {
        format!("{}.{}", self.application, self.event_type)
    }
}

/// What tells an event from another one: 16 bytes of SHA-256 over type and data. The time is not part of
/// it, which a publisher may set anew whenever it sends an event again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Content(pub [u8; 16]);

impl Content {
    /// The content of an event of which this is the data, as [`json::check`] accepts it; space in it does not count.
    pub fn of(event_type: &EventType, data: &str) -> Self {
        let mut digest = Sha256::new();
        digest.update(event_type.as_str());
        // No type holds a zero byte: nothing that ends the type can begin the data.
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
        let body = br#"{"type":"order.created","data":{"a": 1e2},"id":"o-1","time":"2026-06-18T14:00:00+02:00"}"#;
        let fields = EventFields::parse(body).expect("fields");
        assert_eq!(fields.require_type().expect("type").as_str(), "order.created");
        assert_eq!(fields.data, r#"{"a": 1e2}"#);
        assert_eq!(fields.key.as_deref(), Some("o-1"));
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
