//! CloudEvents in binary mode over AMQP 0-9-1: attributes in headers, as RabbitMQ maps the application properties of
//! AMQP 1.0 ([AMQP
//! binding](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/amqp-protocol-binding.md)).

#[cfg(test)]
mod tests;

use fanfare_domain::event::{
    EventFields, FaultCode,
    cloud_event::binary::{Attribute, AttributeValue, DATACONTENTTYPE, to_json},
};
use jiff::Timestamp;
use lapin::types::{AMQPValue, FieldTable, ShortString};

use crate::{
    Incoming, Unreadable,
    message::codec::TOO_LARGE,
    message::parked::{MAX_COPIED_HEADERS, copied_bytes},
};

/// Prefixes of attributes in headers: of the AMQP binding (3.1.3.1), and of the [RabbitMQ
/// binding](https://github.com/knative-extensions/eventing-rabbitmq/blob/main/cloudevents-protocol-spec/spec.md).
const PREFIXES: [&str; 3] = ["cloudEvents:", "cloudEvents_", "ce-"];

/// Attributes of which each makes a message a CloudEvent in binary mode.
const REQUIRED: [&str; 4] = ["specversion", "id", "source", "type"];

/// Beginning of the content types of structured mode.
const STRUCTURED: &str = "application/cloudevents";

/// Name of the attribute in a header.
fn attribute(header: &str) -> Option<&str> {
    PREFIXES.iter().find_map(|prefix| header.strip_prefix(prefix))
}

/// True if a header has an attribute.
pub(crate) fn is_attribute(header: &str) -> bool {
    attribute(header).is_some()
}

/// True if headers have the attributes of binary mode.
pub(crate) fn has_attributes(headers: &FieldTable) -> bool {
    headers.inner().keys().filter_map(|name| attribute(name.as_str())).any(|name| REQUIRED.contains(&name))
}

fn has_content_type(headers: &FieldTable) -> bool {
    headers.inner().keys().any(|name| attribute(name.as_str()) == Some(DATACONTENTTYPE))
}

impl Incoming {
    /// True for the content type of structured mode. Such a message may repeat the attributes in headers.
    pub(crate) fn is_structured(&self) -> bool {
        self.content_type.as_ref().is_some_and(|content_type| {
            content_type.get(..STRUCTURED.len()).is_some_and(|start| start.eq_ignore_ascii_case(STRUCTURED))
        })
    }

    /// True for a CloudEvent in binary mode.
    pub(crate) fn is_binary(&self) -> bool {
        !self.is_structured() && has_attributes(&self.headers)
    }

    /// True for a CloudEvent in either mode, also for an invalid CloudEvent.
    pub(crate) fn is_cloud_event(&self) -> bool {
        self.is_binary() || EventFields::is_cloud_event(&self.body)
    }

    /// The header by which a message in binary mode keeps its media type when published again: Fanfare's messages have
    /// a content type of their own. Void keeps a missing media type.
    pub(crate) fn kept_content_type(&self) -> Option<(ShortString, AMQPValue)> {
        if !self.is_binary() || has_content_type(&self.headers) {
            return None;
        }
        let value = self.content_type.as_ref().map(|text| AMQPValue::LongString(text.as_str().into()));
        Some((format!("{}{DATACONTENTTYPE}", PREFIXES[0]).into(), value.unwrap_or(AMQPValue::Void)))
    }

    /// Reads the event of a message in either form. `max_bytes` bounds the event in the JSON format.
    pub(crate) fn fields(&self, max_bytes: usize) -> Result<EventFields, Unreadable> {
        if self.is_structured() {
            return Ok(EventFields::parse_cloud_event(&self.body)?);
        }
        if !self.is_binary() {
            return Ok(EventFields::parse(&self.body)?);
        }
        // Without its headers, a rerouted message would be another event.
        if copied_bytes(self) > MAX_COPIED_HEADERS {
            let message =
                format!("the headers have more than {MAX_COPIED_HEADERS} bytes: send a structured CloudEvent");
            return Err(Unreadable::new(TOO_LARGE, message));
        }
        let content_type = self.content_type.as_deref().filter(|_| !has_content_type(&self.headers));
        let text = to_json(&attributes(&self.headers)?, content_type, &self.body)?;
        if text.len() > max_bytes {
            let message = format!("the event has {} bytes as JSON; {max_bytes} are allowed", text.len());
            return Err(Unreadable::new(TOO_LARGE, message));
        }
        Ok(EventFields::parse_cloud_event(text.as_bytes())?)
    }
}

fn attributes(headers: &FieldTable) -> Result<Vec<Attribute>, Unreadable> {
    let mut attributes = Vec::new();
    for (header, value) in headers.inner() {
        if let Some(name) = attribute(header.as_str())
            && !matches!(value, AMQPValue::Void)
        {
            let value = attribute_value(name, value).ok_or_else(|| {
                let message = "is no text in UTF-8, boolean, integer or time of the years 1 to 9999";
                Unreadable::new(FaultCode::WrongType.as_str(), format!("the header `{header}` {message}"))
            })?;
            attributes.push((name.to_owned(), value));
        }
    }
    Ok(attributes)
}

fn attribute_value(name: &str, value: &AMQPValue) -> Option<AttributeValue> {
    Some(match value {
        // The form of AMQP 1.0, in which a library may send its timestamps as integers.
        AMQPValue::LongLongInt(milliseconds) if matches!(name, "time" | "deliverat") => {
            AttributeValue::Text(Timestamp::from_millisecond(*milliseconds).ok()?.to_string())
        }
        AMQPValue::LongString(text) => AttributeValue::Text(str::from_utf8(text.as_bytes()).ok()?.to_owned()),
        AMQPValue::ShortString(text) => AttributeValue::Text(text.to_string()),
        AMQPValue::Boolean(value) => AttributeValue::Boolean(*value),
        AMQPValue::Timestamp(seconds) => AttributeValue::Text(time(*seconds)?),
        AMQPValue::ShortShortInt(number) => AttributeValue::Integer((*number).into()),
        AMQPValue::ShortShortUInt(number) => AttributeValue::Integer((*number).into()),
        AMQPValue::ShortInt(number) => AttributeValue::Integer((*number).into()),
        AMQPValue::ShortUInt(number) => AttributeValue::Integer((*number).into()),
        AMQPValue::LongInt(number) => AttributeValue::Integer((*number).into()),
        AMQPValue::LongUInt(number) => AttributeValue::Integer((*number).into()),
        AMQPValue::LongLongInt(number) => AttributeValue::Integer(*number),
        _ => return None,
    })
}

/// Text of an AMQP timestamp, in seconds since 1970.
pub(crate) fn time(seconds: u64) -> Option<String> {
    Some(Timestamp::from_second(i64::try_from(seconds).ok()?).ok()?.to_string())
}
