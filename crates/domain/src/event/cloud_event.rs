//! [CloudEvents 1.0](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/spec.md) in the
//! [JSON format](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/formats/json-format.md).

pub mod binary;
#[cfg(test)]
mod tests;
mod uri;

use std::collections::{BTreeMap, HashSet};

use jiff::Timestamp;
use serde_json::{Value, value::RawValue};

use super::{
    EventFault, EventFields, EventType, FaultCode, MAX_KEY_LENGTH, check_key,
    delay::CLOUD_EVENT_ATTRIBUTE,
    fields::{Members, missing, string, time},
    ordering::OrderingKey,
    trace_context::TraceContext,
};

/// The attribute by which an object is a CloudEvent.
pub(super) const SPECVERSION: &str = "specversion";

/// Extension attribute with the ordering key. Receivers get the attribute like each other.
const ORDERING_KEY: &str = "orderingkey";

/// A CloudEvent's attributes beside `type`, `time` and `deliverat`, without the trace context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CloudEvent {
    /// The publisher's id, unique among the events of the source.
    pub id: String,
    /// The context of the event, a URI reference.
    pub source: String,
    /// `subject`, `datacontenttype`, `dataschema` and extensions: JSON values by name.
    pub attributes: BTreeMap<String, String>,
}

impl CloudEvent {
    /// The key of the event: `<source> <id>`. No source contains a space.
    pub fn key(&self) -> String {
        format!("{} {}", self.source, self.id)
    }
}

/// True if the media type of the data is JSON: the subtype is `json` or ends with `+json` (JSON format, 3.1).
pub(crate) fn is_json(content_type: &str) -> bool {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    essence.split_once('/').is_some_and(|(_, subtype)| subtype == "json" || subtype.ends_with("+json"))
}

/// Reads the members of a CloudEvent.
pub(super) fn read(Members(members): Members<'_>) -> Result<EventFields, EventFault> {
    let (mut reader, mut seen) = (Reader::default(), HashSet::new());
    for (name, value) in members {
        reader.read(&name, value)?;
        if !seen.insert(name.clone()) {
            return Err(EventFault::new(FaultCode::DuplicateField, name, "is given twice"));
        }
    }
    reader.into_fields()
}

#[derive(Default)]
struct Reader {
    has_version: bool,
    id: Option<String>,
    source: Option<String>,
    event_type: Option<EventType>,
    occurred_at: Option<Timestamp>,
    deliver_at: Option<Timestamp>,
    content_type: Option<String>,
    ordering_key: Option<OrderingKey>,
    traceparent: Option<String>,
    tracestate: Option<String>,
    attributes: BTreeMap<String, String>,
    data: Option<String>,
}

impl Reader {
    fn read(&mut self, name: &str, value: &RawValue) -> Result<(), EventFault> {
        match name {
            "data" => self.data = Some(value.get().to_owned()),
            "data_base64" => {
                let message =
                    "cannot be delivered, since deliveries carry JSON; give `data`, for bytes a base64 string";
                return Err(EventFault::new(FaultCode::UnknownField, name.to_owned(), message));
            }
            _ => {
                check_name(name)?;
                // An attribute with the value null is unset (JSON format, 2.2).
                if value.get() != "null" {
                    self.read_attribute(name, value)?;
                }
            }
        }
        Ok(())
    }

    fn read_attribute(&mut self, name: &str, value: &RawValue) -> Result<(), EventFault> {
        let invalid = |message: &str| Err(EventFault::new(FaultCode::InvalidField, name.to_owned(), message));
        let mut kept = None;
        match name {
            SPECVERSION if text(name, value)? != "1.0" => return invalid("is not \"1.0\""),
            SPECVERSION => self.has_version = true,
            "id" => self.id = Some(filled(name, value)?),
            "source" => {
                let source = filled(name, value)?;
                if !uri::is_reference(&source) {
                    return invalid("is not a URI reference, such as \"/shop\" or \"https://example.com/shop\"");
                }
                self.source = Some(source);
            }
            "type" => self.event_type = Some(EventType::parse(&string(name.to_owned(), value)?)?),
            "time" => self.occurred_at = Some(time("time", value)?),
            CLOUD_EVENT_ATTRIBUTE => self.deliver_at = Some(time(CLOUD_EVENT_ATTRIBUTE, value)?),
            "traceparent" => self.traceparent = Some(text(name, value)?),
            "tracestate" => self.tracestate = Some(text(name, value)?),
            "subject" => kept = Some(filled(name, value)?),
            ORDERING_KEY => {
                let key = OrderingKey::parse(ORDERING_KEY, &filled(name, value)?)?;
                kept = Some(key.to_string());
                self.ordering_key = Some(key);
            }
            "datacontenttype" => {
                let content_type = filled(name, value)?;
                if !is_media_type(&content_type) {
                    return invalid("is not a media type, such as \"application/json\"");
                }
                kept = Some(content_type.clone());
                self.content_type = Some(content_type);
            }
            "dataschema" => {
                let schema = filled(name, value)?;
                if !uri::is_absolute(&schema) {
                    return invalid("is not a URI, such as \"https://example.com/order.json\"");
                }
                kept = Some(schema);
            }
            _ => {
                self.attributes.insert(name.to_owned(), extension(name, value)?);
            }
        }
        self.attributes.extend(kept.map(|text| (name.to_owned(), Value::from(text).to_string())));
        Ok(())
    }

    fn into_fields(self) -> Result<EventFields, EventFault> {
        if !self.has_version {
            return Err(missing(SPECVERSION));
        }
        let cloud_event = CloudEvent {
            id: self.id.ok_or_else(|| missing("id"))?,
            source: self.source.ok_or_else(|| missing("source"))?,
            attributes: self.attributes,
        };
        let event_type = self.event_type.ok_or_else(|| missing("type"))?;
        let key = cloud_event.key();
        if key.len() > MAX_KEY_LENGTH {
            let most = MAX_KEY_LENGTH - 1;
            let message = format!("and `source` together are longer than {most} bytes; both are the event's key");
            return Err(EventFault::new(FaultCode::FieldTooLong, "id", &message));
        }
        let key = check_key("id", key)?;
        let data = self.data.unwrap_or_else(|| "null".to_owned());
        match self.content_type {
            Some(content_type) if !is_json(&content_type) && !data.starts_with('"') && data != "null" => {
                let message = format!("must be a string, since `datacontenttype` {content_type:?} is not JSON");
                return Err(EventFault::new(FaultCode::WrongType, "data", &message));
            }
            _ => {}
        }
        let trace = self.traceparent.and_then(|parent| TraceContext::of_headers(&parent, self.tracestate.as_deref()));
        Ok(EventFields {
            version: None,
            ordering_key: self.ordering_key,
            event_type: Some(event_type),
            data,
            key: Some(key),
            occurred_at: self.occurred_at,
            deliver_at: self.deliver_at,
            trace,
            cloud_event: Some(cloud_event),
        })
    }
}

fn check_name(name: &str) -> Result<(), EventFault> {
    let is_sound = !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit());
    let message = "is not the name of a CloudEvents attribute; use the characters a-z and 0-9 only";
    if is_sound { Ok(()) } else { Err(EventFault::new(FaultCode::UnknownField, name.to_owned(), message)) }
}

/// Reads a string of the type system of CloudEvents: without control characters and noncharacters.
fn text(name: &str, value: &RawValue) -> Result<String, EventFault> {
    let text = string(name.to_owned(), value)?;
    let is_noncharacter = |code: u32| code & 0xfffe == 0xfffe || (0xfdd0..=0xfdef).contains(&code);
    if text.chars().any(|character| character.is_control() || is_noncharacter(character.into())) {
        let message = "holds control characters, or characters that Unicode excludes";
        return Err(EventFault::new(FaultCode::InvalidField, name.to_owned(), message));
    }
    Ok(text)
}

fn filled(name: &str, value: &RawValue) -> Result<String, EventFault> {
    let text = text(name, value)?;
    if text.is_empty() {
        return Err(EventFault::new(FaultCode::InvalidField, name.to_owned(), "is empty"));
    }
    Ok(text)
}

/// Value of an extension as JSON: a string, a boolean, or an integer of 32 bits.
fn extension(name: &str, value: &RawValue) -> Result<String, EventFault> {
    match value.get().as_bytes() {
        [b'"', ..] => Ok(Value::from(text(name, value)?).to_string()),
        [b't' | b'f', ..] => Ok(value.get().to_owned()),
        [b'-' | b'0'..=b'9', ..] => value.get().parse::<i32>().map(|number| number.to_string()).map_err(|_| {
            let message = "is not an integer of 32 bits; give other numbers as strings";
            EventFault::new(FaultCode::InvalidField, name.to_owned(), message)
        }),
        _ => {
            let message = "must be a string, a boolean or an integer; give other values in `data`";
            Err(EventFault::new(FaultCode::WrongType, name.to_owned(), message))
        }
    }
}

/// True for `<type>/<subtype>`, perhaps with parameters, in visible ASCII.
pub(crate) fn is_media_type(text: &str) -> bool {
    let is_token = |part: &str| {
        let is_sound = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !part.is_empty() && part.bytes().all(is_sound)
    };
    let essence = text.split(';').next().unwrap_or_default().trim_end_matches(' ');
    essence.split_once('/').is_some_and(|(left, right)| is_token(left) && is_token(right)) && text.is_ascii()
}
