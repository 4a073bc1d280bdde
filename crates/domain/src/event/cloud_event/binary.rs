//! Binary mode: the attributes are headers, and the body is the data. Conversion to the JSON format.

use serde_json::Value;

use super::{
    super::{EventFault, FaultCode},
    is_json,
};
use crate::json;

/// An attribute in a header: name without the prefix of the binding, and value.
pub type Attribute = (String, AttributeValue);

/// Value of an attribute in a header. HTTP has only texts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AttributeValue {
    /// A string, or any other value in its form as a string.
    Text(String),
    /// A boolean.
    Boolean(bool),
    /// An integer.
    Integer(i64),
}

/// Converts to the JSON format. `content_type` is the media type of the body, unless an attribute says the media type.
/// The result is JSON, and perhaps no valid CloudEvent.
///
/// # Errors
/// If the body is not what the media type promises, or not text.
pub fn to_json(attributes: &[Attribute], content_type: Option<&str>, body: &[u8]) -> Result<String, EventFault> {
    let own = attributes.iter().find(|(name, _)| name == DATACONTENTTYPE).map(|(_, value)| value);
    let content_type = match own {
        Some(AttributeValue::Text(own)) => Some(own.as_str()),
        _ => content_type,
    };
    let mut members: Vec<String> = Vec::new();
    for (name, value) in attributes {
        if name == "data" {
            let message = "is not an attribute: in binary mode the body is the data";
            return Err(EventFault::new(FaultCode::UnknownField, "data", message));
        }
        let value = match value {
            AttributeValue::Text(text) => Value::from(text.as_str()),
            AttributeValue::Boolean(value) => Value::from(*value),
            AttributeValue::Integer(number) => Value::from(*number),
        };
        members.push(format!("{}:{value}", Value::from(name.as_str())));
    }
    if let Some(content_type) = content_type.filter(|_| own.is_none()) {
        members.push(format!("\"{DATACONTENTTYPE}\":{}", Value::from(content_type)));
    }
    if !body.is_empty() {
        members.push(format!("\"data\":{}", data(content_type, body)?));
    }
    Ok(format!("{{{}}}", members.join(",")))
}

/// The attribute that the media type of a message becomes.
pub const DATACONTENTTYPE: &str = "datacontenttype";

/// The body as JSON: unchanged if the media type is JSON, otherwise a string.
fn data(content_type: Option<&str>, body: &[u8]) -> Result<String, EventFault> {
    let text = str::from_utf8(body).map_err(|error| {
        let message = format!("is not UTF-8 from byte {} on; send bytes as base64 text", error.valid_up_to());
        EventFault::new(FaultCode::InvalidField, "data", &message)
    })?;
    if !content_type.is_none_or(is_json) {
        return Ok(Value::from(text).to_string());
    }
    json::check(text).map_err(|fault| EventFault::of_json(&fault, Some("data")))?;
    Ok(text.to_owned())
}

/// Decodes the value of an HTTP header: a quoted string, then percent-encoding
/// ([HTTP binding](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md),
/// 3.1.3.2).
///
/// # Errors
/// If a `%` is not followed by two hexadecimal digits, or the result is not UTF-8.
pub fn decode_header(name: &str, value: &[u8]) -> Result<String, EventFault> {
    let invalid = |message: &str| EventFault::new(FaultCode::InvalidField, name.to_owned(), message);
    let mut decoded = Vec::new();
    let unquoted = unquoted(value);
    let mut bytes = unquoted.iter().copied();
    let digit = |byte: Option<u8>| {
        byte.and_then(|byte| char::from(byte).to_digit(16)).and_then(|digit| u8::try_from(digit).ok())
    };
    while let Some(byte) = bytes.next() {
        decoded.push(match byte {
            b'%' => match (digit(bytes.next()), digit(bytes.next())) {
                (Some(high), Some(low)) => 16 * high + low,
                _ => return Err(invalid("holds % without two hexadecimal digits in its header; write % as %25")),
            },
            byte => byte,
        });
    }
    String::from_utf8(decoded).map_err(|_| invalid("is not UTF-8 in its header"))
}

/// The content of a quoted string; any other value unchanged.
fn unquoted(value: &[u8]) -> Vec<u8> {
    let [b'"', quoted @ .., b'"'] = value else { return value.to_vec() };
    let mut is_escaped = false;
    quoted
        .iter()
        .copied()
        .filter(|byte| {
            is_escaped = !is_escaped && *byte == b'\\';
            !is_escaped
        })
        .collect()
}
