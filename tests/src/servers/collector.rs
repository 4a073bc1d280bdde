//! A trace collector (OTLP over HTTP) that stores all received spans.
//!
//! Decodes the needed protobuf fields without an OpenTelemetry library, so that no code of the exporter is trusted.

use std::{
    convert::Infallible,
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
};

use bytes::Bytes;
use http_body_util::{BodyExt, Full};
use hyper::{Method, Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
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
    /// The span's id, in hex.
    pub id: String,
    /// The id of the parent span, in hex; empty for a root span.
    pub parent: String,
}

/// A collector on a free port. Cheap to clone.
#[derive(Clone)]
pub struct Collector {
    address: SocketAddr,
    spans: Arc<Mutex<Vec<Span>>>,
}

impl Collector {
    /// Starts a collector.
    ///
    /// # Panics
    /// If no port is free.
    pub async fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("a local address");
        let collector = Self { address, spans: Arc::default() };
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
        until(&format!("the span {name:?} of {service} in the trace {trace}"), async || {
            let spans = self.spans.lock().unwrap_or_else(PoisonError::into_inner);
            spans.iter().find(|span| (&*span.service, &*span.name, &*span.trace) == (service, name, trace)).cloned()
        })
        .await
    }

    async fn take(&self, request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
        let is_export = request.method() == Method::POST && request.uri().path() == "/v1/traces";
        let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        if is_export {
            self.spans.lock().unwrap_or_else(PoisonError::into_inner).extend(spans(&body));
        }
        let status = if is_export { 200 } else { 404 };
        let mut response = Response::new(Full::default());
        *response.status_mut() = status.try_into().expect("a status");
        Ok(response)
    }
}

/// The spans of an `ExportTraceServiceRequest` (opentelemetry-proto, `trace/v1/trace.proto`). A request holds resource
/// spans, each with a resource, attributes, and scopes with spans.
fn spans(request: &[u8]) -> Vec<Span> {
    let mut spans = Vec::new();
    for resource_spans in all(request, 1) {
        let attributes = all(resource_spans, 1).flat_map(|resource| all(resource, 1));
        let is_name = |attribute: &&[u8]| all(attribute, 1).any(|key| key == b"service.name");
        let service =
            attributes.filter(is_name).flat_map(|attribute| all(attribute, 2)).flat_map(|value| all(value, 1));
        let service = service.map(text).collect::<String>();
        for span in all(resource_spans, 2).flat_map(|scope| all(scope, 2)) {
            let field = |number| all(span, number).next().unwrap_or_default();
            spans.push(Span {
                service: service.clone(),
                name: text(field(5)),
                trace: hex(field(1)),
                id: hex(field(2)),
                parent: hex(field(4)),
            });
        }
    }
    spans
}

/// The length-delimited fields with this number of a protobuf message.
fn all(mut message: &[u8], number: u64) -> impl Iterator<Item = &[u8]> {
    std::iter::from_fn(move || {
        while !message.is_empty() {
            let tag = varint(&mut message)?;
            let length = match tag & 7 {
                0 => varint(&mut message).map(|_| 0)?,
                1 => 8,
                2 => usize::try_from(varint(&mut message)?).ok()?,
                _ => 4,
            };
            let (field, rest) = message.split_at_checked(length)?;
            message = rest;
            if tag == number << 3 | 2 {
                return Some(field);
            }
        }
        None
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
