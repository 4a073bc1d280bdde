//! Export of traces by OTLP, over HTTP or gRPC.

use std::time::Duration;

use anyhow::Context;
use async_trait::async_trait;
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
        timeout: destination.timeout,
    };
    let headers = destination.headers.iter().map(|(name, value)| {
        let value = value.to_str().expect("checked when read");
        (name.to_string(), value.to_owned())
    });
    let mut builder = SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(destination.url.to_string())
        .with_headers(headers.collect());
    if destination.is_compressed {
        builder = builder.with_compression(Compression::Gzip);
    }
    Ok(builder.build()?)
}

fn over_grpc(destination: &Destination, connector: HttpsConnector<HttpConnector>) -> anyhow::Result<SpanExporter> {
    let endpoint = Endpoint::from(destination.url.clone()).timeout(destination.timeout);
    let metadata = MetadataMap::from_headers(destination.headers.iter().cloned().collect());
    let mut builder = SpanExporter::builder()
        .with_tonic()
        .with_channel(endpoint.connect_with_connector_lazy(connector))
        .with_timeout(destination.timeout)
        .with_metadata(metadata);
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
    timeout: Duration,
}

#[async_trait]
impl HttpClient for TraceClient {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let answer = self.client.request(request.map(Full::new));
        let exchange = async {
            let (head, body) = answer.await?.into_parts();
            let body = Limited::new(body, MAX_ANSWER).collect().await?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        let limit = self.timeout;
        self.runtime.spawn(async move { timeout(limit, exchange).await }).await??
    }
}
