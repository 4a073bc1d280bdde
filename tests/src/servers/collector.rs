//! A trace collector (OTLP over HTTP) that stores all received spans.
//!
//! Decodes the needed protobuf fields without an OpenTelemetry library, so that no code of the exporter is trusted.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io::Read,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http_body_util::{BodyExt, Full};
use hyper::{HeaderMap, Method, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::net::TcpListener;

use crate::patience::until;

/// An exported span.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Span {
    /// The `service.name` of the resource.
    pub service: String,
    /// The span's name.
    pub name: String,
    /// The trace id, in hex.
    pub trace: String,
    /// The trace's `tracestate`.
    pub state: String,
    /// The span's id, in hex.
    pub id: String,
    /// The id of the parent span, in hex; empty for a root span.
    pub parent: String,
    /// Kind: 2 server, 3 client, 4 producer, 5 consumer.
    pub kind: u64,
    /// True if the status is an error.
    pub is_error: bool,
    /// Attributes: texts, and whole numbers.
    pub attributes: BTreeMap<String, Value>,
    /// Trace id and span id of each link, in hex.
    pub links: Vec<(String, String)>,
}

/// A collector on a free port. Cheap to clone.
#[derive(Clone)]
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
    headers: Arc<Mutex<HeaderMap>>,
}

impl Collector {
    /// Starts a collector.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a local address");
        let collector = Self { address, spans: Arc::default(), headers: Arc::default() };
        let server = collector.clone();
        tokio::spawn(async move {
            loop {
                let Ok((stream, _)) = listener.accept().await else { continue };
                let server = server.clone();
                tokio::spawn(async move {
                    let service = service_fn(|request| server.take(request));
                    let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        collector
    }

    /// The value for `OTEL_EXPORTER_OTLP_ENDPOINT`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Waits for a span of a service in a trace.
    pub async fn span(&self, service: &str, name: &str, trace: &str) -> Span {
        let is_meant = |span: &Span| (&*span.service, &*span.name, &*span.trace) == (service, name, trace);
        self.span_of(&format!("the span {name:?} of {service} in the trace {trace}"), is_meant).await
    }

    /// Waits for a span that fulfils a condition.
    pub async fn span_of(&self, what: &str, is_meant: impl Fn(&Span) -> bool) -> Span {
        until(what, async || self.spans().into_iter().find(&is_meant)).await
    }

    /// All spans so far.
    pub fn spans(&self) -> Vec<Span> {
        self.spans.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// A header of the newest export.
    pub fn header(&self, name: &str) -> Option<String> {
        let headers = self.headers.lock().unwrap_or_else(PoisonError::into_inner);
        headers.get(name).and_then(|value| value.to_str().ok()).map(str::to_owned)
    }

    async fn take(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let is_export = request.method() == Method::POST && request.uri().path() == "/v1/traces";
        if is_export {
            *self.headers.lock().unwrap_or_else(PoisonError::into_inner) = request.headers().clone();
        }
        let is_packed = request.headers().get("content-encoding").is_some_and(|encoding| encoding == "gzip");
        let mut body = request.into_body().collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
        if is_packed {
            body = unpacked(&body);
        }
        if is_export {
            self.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(spans(&body));
        }
        let status = if is_export { 200 } else { 404 };
        let mut response = Response::new(Full::default());
        *response.status_mut() = status.try_into().expect("a status");
        Ok(response)
    }
}

fn unpacked(body: &[u8]) -> Vec<u8> {
    let mut unpacked = Vec::new();
    GzDecoder::new(body).read_to_end(&mut unpacked).expect("a gzip body");
    unpacked
}

/// The spans of an `ExportTraceServiceRequest` (opentelemetry-proto, `trace/v1/trace.proto`). A request holds resource
/// spans, each with a resource, attributes, and scopes with spans.
fn spans(request: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource_spans in all(request, 1) {
        let of_resource: BTreeMap<_, _> =
            all(resource_spans, 1).flat_map(|resource| all(resource, 1)).map(attribute).collect();
        let service = of_resource.get("service.name").and_then(Value::as_str).unwrap_or_default().to_owned();
        spans.extend(all(resource_spans, 2).flat_map(|scope| all(scope, 2)).map(|span| Span {
            service: service.clone(),
            trace: hex(first(span, 1)),
            id: hex(first(span, 2)),
            state: text(first(span, 3)),
            parent: hex(first(span, 4)),
            name: text(first(span, 5)),
            kind: number(span, 6).unwrap_or_default(),
            attributes: all(span, 9).map(attribute).collect(),
            links: all(span, 13).map(|link| (hex(first(link, 1)), hex(first(link, 2)))).collect(),
            is_error: number(first(span, 15), 3) == Some(2),
        }));
    }
    spans
}

/// The key and the value of an attribute: a text or a whole number.
fn attribute(attribute: &[u8]) -> (String, Value) {
    let value = first(attribute, 2);
    let number = number(value, 3).map(|number| number.cast_signed());
    (text(first(attribute, 1)), number.map_or_else(|| text(first(value, 1)).into(), Value::from))
}

enum Field<'a> {
    Number(u64),
    Bytes(&'a [u8]),
}

/// The fields of a protobuf message, each with its number.
fn fields(mut message: &[u8]) -> impl Iterator<Item = (u64, Field<'_>)> {
    std::iter::from_fn(move || {
        let tag = if message.is_empty() { None } else { varint(&mut message) }?;
        let length = match tag & 7 {
            0 => return varint(&mut message).map(|value| (tag >> 3, Field::Number(value))),
            1 => 8,
            2 => usize::try_from(varint(&mut message)?).ok()?,
            _ => 4,
        };
        let (field, rest) = message.split_at_checked(length)?;
        message = rest;
        Some((tag >> 3, Field::Bytes(field)))
    })
}

/// All byte fields with this number.
fn all(message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    fields(message).filter_map(move |field| match field {
        (found, Field::Bytes(bytes)) if found == number => Some(bytes),
        _ => None,
    })
}

/// The first byte field with this number; empty without such a field.
fn first(message: &[u8], number: u64) -> &[u8] {
    all(message, number).next().unwrap_or_default()
}

/// The number field with this number.
fn number(message: &[u8], number: u64) -> Option<u64> {
    fields(message).find_map(|field| match field {
        (found, Field::Number(value)) if found == number => Some(value),
        _ => None,
    })
}

fn varint(message: &mut &[u8]) -> Option<u64> {
    let mut value = 0;
    for shift in (0..64).step_by(7) {
        let (&byte, rest) = message.split_first()?;
        *message = rest;
        value |= u64::from(byte & 0x7f) << shift;
        if byte < 0x80 {
            return Some(value);
        }
    }
    None
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
