//! Forms of published events: Fanfare's own, and CloudEvents by the
//! [HTTP binding](https://github.com/cloudevents/spec/blob/v1.0.2/cloudevents/bindings/http-protocol-binding.md).

use std::collections::BTreeMap;

use axum::http::{HeaderMap, header};
use bytes::Bytes;
use fanfare_domain::event::{
    EventFault, EventFields, FaultCode,
    cloud_event::binary::{Attribute, AttributeValue, DATACONTENTTYPE, decode_header, to_json},
};
use utoipa::ToSchema;

use crate::http::{
    body::media_type,
    error::{ApiError, ErrorCode},
};

/// Prefix of attributes in headers.
const PREFIX: &str = "ce-";

/// Headers of binary mode. Other headers with the prefix may have nothing to do with CloudEvents.
const REQUIRED: [&str; 4] = ["ce-specversion", "ce-id", "ce-source", "ce-type"];

/// Beginning of the media types of structured and batched mode.
const CLOUDEVENTS: &str = "application/cloudevents";

/// Form of the events in a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Form {
    /// Fanfare's own form, or a CloudEvent in the JSON format.
    Json,
    /// A CloudEvent in the JSON format.
    Structured,
    /// A CloudEvent in binary mode.
    Binary,
}

impl Form {
    /// The form of a request with a single event.
    pub(super) fn of(headers: &HeaderMap) -> Result<Self, ApiError> {
        match media_type(headers).as_str() {
            "application/cloudevents+json" => Ok(Self::Structured),
            other if !other.starts_with(CLOUDEVENTS) && REQUIRED.iter().any(|name| headers.contains_key(*name)) => {
                Ok(Self::Binary)
            }
            "application/json" => Ok(Self::Json),
            _ => Err(unsupported(
                "send an event with Content-Type: application/json, a CloudEvent with application/cloudevents+json or \
                 in binary mode, and a list to /api/v1/events/batch",
            )),
        }
    }

    /// The form of a request with a list of events.
    pub(super) fn of_batch(headers: &HeaderMap) -> Result<Self, ApiError> {
        match media_type(headers).as_str() {
            "application/cloudevents-batch+json" => Ok(Self::Structured),
            "application/json" => Ok(Self::Json),
            _ => Err(unsupported(
                "send a list with Content-Type: application/json, or of CloudEvents with \
                 application/cloudevents-batch+json",
            )),
        }
    }

    /// Reads an event in JSON.
    pub(super) fn parse(self, body: &[u8]) -> Result<EventFields, EventFault> {
        match self {
            Self::Json => EventFields::parse(body),
            Self::Structured | Self::Binary => EventFields::parse_cloud_event(body),
        }
    }

    /// The body in JSON: of a CloudEvent in binary mode, headers and body together.
    pub(super) fn json(self, headers: &HeaderMap, body: Bytes) -> Result<Bytes, EventFault> {
        if self != Self::Binary {
            return Ok(body);
        }
        let mut attributes: Vec<Attribute> = Vec::new();
        for (name, value) in headers {
            if let Some(name) = name.as_str().strip_prefix(PREFIX) {
                let text = decode_header(name, value.as_bytes())?;
                attributes.push((name.to_owned(), AttributeValue::Text(text)));
            }
        }
        let content_type = headers.get(header::CONTENT_TYPE).map(|value| String::from_utf8_lossy(value.as_bytes()));
        if attributes.iter().any(|(name, _)| name == DATACONTENTTYPE) {
            let message = "is the header Content-Type in binary mode: leave out the header ce-datacontenttype";
            return Err(EventFault::new(FaultCode::InvalidField, DATACONTENTTYPE, message));
        }
        to_json(&attributes, content_type.as_deref(), &body).map(Bytes::from)
    }
}

fn unsupported(message: &str) -> ApiError {
    ApiError::new(ErrorCode::UnsupportedContentType, message)
}

/// A CloudEvent 1.0 in the JSON format. Extensions are further fields.
#[derive(ToSchema)]
#[expect(dead_code, reason = "for the OpenAPI document; `EventFields` parses the body")]
pub(super) struct CloudEvent {
    #[schema(pattern = r"^1\.0$", example = "1.0")]
    specversion: String,
    /// The publisher's id of the event, unique in its source. `source`, a space and `id` are the idempotency key, of at
    /// most 255 bytes.
    #[schema(min_length = 1, max_length = 253)]
    id: String,
    /// The context of the event.
    #[schema(min_length = 1, max_length = 253, format = "uri-reference", example = "/shop")]
    source: String,
    /// 1 to 128 letters, digits and `_ - . : /`, without a dot at either end.
    #[schema(example = "com.example.order.created")]
    r#type: String,
    /// The time of the event.
    #[schema(format = DateTime)]
    time: Option<String>,
    /// The time of delivery.
    #[schema(format = DateTime)]
    deliverat: Option<String>,
    #[schema(min_length = 1)]
    subject: Option<String>,
    /// The media type of the data. With another type than JSON, `data` is a string.
    #[schema(example = "application/json")]
    datacontenttype: Option<String>,
    /// A URI with a scheme.
    #[schema(example = "https://example.com/order.json")]
    dataschema: Option<String>,
    /// The payload: any JSON value. Without, the payload is `null`.
    data: Option<serde_json::Value>,
    /// Extensions: names of a-z and 0-9, values that are strings, booleans or integers of 32 bits. `traceparent` and
    /// `tracestate` give the trace context of the event.
    #[serde(flatten)]
    extensions: BTreeMap<String, serde_json::Value>,
}
