//! The fields of an event: reads a body in Fanfare's own form, or hands a CloudEvent on to its reader.

use std::{borrow::Cow, fmt};

use jiff::Timestamp;
use serde::{
    Deserialize,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use crate::{
    event::{
        EventFault, EventType, FaultCode, check_key,
        cloud_event::{self, CloudEvent},
        delay::DELIVER_AT,
        ordering::OrderingKey,
        schema,
        trace_context::TraceContext,
    },
    json,
};

/// Name of the ordering key in Fanfare's own form.
const ORDERING_KEY: &str = "ordering_key";

/// Names of the fields, for people.
const FIELDS: &str = "type, data, id, time, deliver_at, version and ordering_key";

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
    /// Time of delivery. Ingest and dispatcher check how far the time is ahead.
    pub deliver_at: Option<Timestamp>,
    /// Version of the type's schema that the publisher names. Checked only in a strict application.
    pub version: Option<u32>,
    /// Ordering key, if present in the body.
    pub ordering_key: Option<OrderingKey>,
    /// Trace context in the attributes of a CloudEvent.
    pub trace: Option<TraceContext>,
    /// Further attributes of a CloudEvent. `None` for Fanfare's own form.
    pub cloud_event: Option<CloudEvent>,
}

impl EventFields {
    /// Parses an object with the fields of an event, or a CloudEvent: an object with the member `specversion`.
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
            message: format!("an event is a JSON object with the fields {FIELDS}"),
        })
    }

    fn from_members(members: Members<'_>) -> Result<Self, EventFault> {
        let (mut event_type, mut data, mut key, mut version) = (None, None, None, None);
        let (mut occurred_at, mut deliver_at, mut ordering_key) = (None, None, None);
        for (name, value) in members.0 {
            let twice = match name.as_str() {
                "type" => event_type.replace(EventType::parse(&string("type", value)?)?).is_some(),
                "data" => data.replace(value.get().to_owned()).is_some(),
                "id" => key.replace(check_key("id", string("id", value)?)?).is_some(),
                "time" => occurred_at.replace(time("time", value)?).is_some(),
                DELIVER_AT => deliver_at.replace(time(DELIVER_AT, value)?).is_some(),
                "version" => version.replace(schema_version(value)?).is_some(),
                ORDERING_KEY => {
                    let text = string(ORDERING_KEY, value)?;
                    ordering_key.replace(OrderingKey::parse(ORDERING_KEY, &text)?).is_some()
                }
                _ => {
                    let message = format!("is not a field of an event; the fields are {FIELDS}");
                    return Err(EventFault::new(FaultCode::UnknownField, name, &message));
                }
            };
            if twice {
                return Err(EventFault::new(FaultCode::DuplicateField, name, "is given twice"));
            }
        }
        let data = data.ok_or_else(|| missing("data"))?;
        let (trace, cloud_event) = (None, None);
        Ok(Self { event_type, data, key, occurred_at, deliver_at, version, ordering_key, trace, cloud_event })
    }

    /// The event type, if the body must have the type.
    ///
    /// # Errors
    /// If the type is missing.
    pub fn require_type(&self) -> Result<&EventType, EventFault> {
        self.event_type.as_ref().ok_or_else(|| missing("type"))
    }
}

pub(super) fn missing(field: &'static str) -> EventFault {
    EventFault::new(FaultCode::MissingField, field, "is missing")
}

pub(super) fn string(field: impl Into<Cow<'static, str>>, value: &RawValue) -> Result<String, EventFault> {
    if !value.get().starts_with('"') {
        return Err(EventFault::new(FaultCode::WrongType, field, "must be a string"));
    }
    serde_json::from_str(value.get())
        .map_err(|_| EventFault::new(FaultCode::InvalidField, field, "holds half of a surrogate pair"))
}

pub(super) fn time(field: &'static str, value: &RawValue) -> Result<Timestamp, EventFault> {
    const YEAR_1: i64 = -62_135_596_800;
    let time = string(field, value)?.parse().ok().filter(|time: &Timestamp| time.as_second() >= YEAR_1);
    time.ok_or_else(|| {
        let message = "is not an RFC 3339 time with an offset, such as \"2026-06-18T12:00:00Z\"";
        EventFault::new(FaultCode::InvalidField, field, message)
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
pub(super) struct Members<'a>(pub(super) Vec<(String, &'a RawValue)>);

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
            br#"{"type":"order.created","data":{"a": 1e2},"id":"o-1","time":"2026-06-18T14:00:00+02:00","version":2,
                 "deliver_at":"2026-06-19T08:30:00-01:30"}"#;
        let fields = EventFields::parse(body).expect("fields");
        assert_eq!(fields.require_type().expect("type").as_str(), "order.created");
        assert_eq!(fields.data, r#"{"a": 1e2}"#);
        assert_eq!((fields.key.as_deref(), fields.version), (Some("o-1"), Some(2)));
        assert_eq!(fields.occurred_at.expect("time").to_string(), "2026-06-18T12:00:00Z");
        assert_eq!(fields.deliver_at.expect("a time").to_string(), "2026-06-19T10:00:00Z");
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
        for (value, code) in [
            (r#""tomorrow""#, FaultCode::InvalidField),
            (r#""2026-06-19T10:00:00""#, FaultCode::InvalidField),
            ("1781863200", FaultCode::WrongType),
            ("null", FaultCode::WrongType),
        ] {
            assert_eq!(fault(&format!(r#"{{"deliver_at":{value},"data":1}}"#)), field(code, "deliver_at"), "{value}");
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
