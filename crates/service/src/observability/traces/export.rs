//! Export of traces by OTLP, over HTTP or gRPC.

use std::{
    mem,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use anyhow::Context;
use async_trait::async_trait;
use axum::http::HeaderMap;
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{
    Compression, SpanExporter, WithExportConfig, WithHttpConfig, WithTonicConfig, tonic_types::metadata::MetadataMap,
};
use tokio::{runtime::Handle, time::timeout};
use tonic::transport::Endpoint;

use super::{Destination, Protocol};

/// Interval of pings on a connection over gRPC.
const KEEP_ALIVE: Duration = Duration::from_secs(30);

/// The largest answer of the collector, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Builds the exporter of a destination.
///
/// # Errors
/// If the certificates cannot be read, or the exporter refuses the destination.
///
/// # Panics
/// Outside a runtime of Tokio.
pub(super) fn exporter(destination: &Destination) -> anyhow::Result<SpanExporter> {
    let connector = connector(destination)?;
    let built = match destination.protocol {
        Protocol::Http => over_http(destination, connector),
        Protocol::Grpc => over_grpc(destination, connector),
    };
    built.context("OTEL_EXPORTER_OTLP_ENDPOINT cannot be used")
}

fn over_http(destination: &Destination, connector: HttpsConnector<HttpConnector>) -> anyhow::Result<SpanExporter> {
    let client = TraceClient {
        client: Client::builder(TokioExecutor::new()).build(connector),
        runtime: Handle::current(),
        headers: destination.headers.clone(),
        timeout: destination.timeout,
        is_failing: AtomicBool::new(false),
    };
    let mut builder =
        SpanExporter::builder().with_http().with_http_client(client).with_endpoint(destination.url.to_string());
    if destination.is_compressed {
        builder = builder.with_compression(Compression::Gzip);
    }
    Ok(builder.build()?)
}

fn over_grpc(destination: &Destination, connector: HttpsConnector<HttpConnector>) -> anyhow::Result<SpanExporter> {
    let endpoint = Endpoint::from(destination.url.clone())
        .timeout(destination.timeout)
        .connect_timeout(destination.timeout)
        // Without pings, a silent connection would fail all exports for many minutes.
        .http2_keep_alive_interval(KEEP_ALIVE)
        .keep_alive_timeout(destination.timeout);
    let metadata = MetadataMap::from_headers(destination.headers.clone());
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_channel(endpoint.connect_with_connector_lazy(connector))
        .with_timeout(destination.timeout)
        // Behind the headers that the library itself reads from the environment.
        .with_interceptor(move |mut request: tonic::Request<()>| {
            let mut headers = mem::take(request.metadata_mut()).into_headers();
            headers.extend(metadata.clone().into_headers());
            *request.metadata_mut() = MetadataMap::from_headers(headers);
            Ok(request)
        });
    if destination.is_compressed {
        builder = builder.with_compression(Compression::Gzip);
    }
    Ok(builder.build()?)
}

/// Connects with the system's roots, and the destination's own.
fn connector(destination: &Destination) -> anyhow::Result<HttpsConnector<HttpConnector>> {
    let mut roots = fanfare_tls::system_roots();
    if let Some(path) = &destination.certificate {
        fanfare_tls::add_roots(&mut roots, path).context("OTEL_EXPORTER_OTLP_CERTIFICATE cannot be used")?;
    }
    let builder = HttpsConnectorBuilder::new().with_tls_config(fanfare_tls::client_config(roots)?).https_or_http();
    Ok(match destination.protocol {
        Protocol::Http => builder.enable_http1().build(),
        Protocol::Grpc => builder.enable_http2().build(),
    })
}

/// Sends traces on the runtime of the service: the exporter's own thread has no runtime.
#[derive(Debug)]
struct TraceClient {
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    runtime: Handle,
    headers: HeaderMap,
    timeout: Duration,
    /// True after a failed export. The exporter logs no causes.
    is_failing: AtomicBool,
}

#[async_trait]
impl HttpClient for TraceClient {
    async fn send_bytes(&self, mut request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        // In place of the headers that the library itself reads from the environment.
        request.headers_mut().extend(self.headers.clone());
        let answer = self.client.request(request.map(Full::new));
        let exchange = async {
            let (head, body) = answer.await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        let limit = self.timeout;
        let sent = self.runtime.spawn(async move { timeout(limit, exchange).await }).await?;
        let sent = sent.unwrap_or_else(|_| Err(format!("no answer within {limit:?}").into()));
        // Prints an error with its causes.
        let sent = sent.map_err(anyhow::Error::from_boxed);
        let was_failing = self.is_failing.swap(sent.is_err(), Ordering::Relaxed);
        match &sent {
            Err(error) if !was_failing => tracing::warn!(error = format!("{error:#}"), "traces cannot be exported"),
            Ok(_) if was_failing => tracing::info!("traces are exported again"),
            _ => {}
        }
        Ok(sent?)
    }
}
