//! Logs and traces.

use std::{str::FromStr, time::Duration};

use anyhow::Context;
use async_trait::async_trait;
use axum::http::Uri;
use fanfare_domain::event::traceparent::Traceparent;
use http_body_util::{BodyExt, Full, Limited};
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState, TracerProvider};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{Resource, trace::SdkTracerProvider};
use tokio::{runtime::Handle, time::timeout};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;
use tracing_subscriber::{
    EnvFilter, Layer,
    filter::{FilterExt, filter_fn},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

use crate::Environment;

/// Prefixes of the targets of exported spans: the libraries and the two services.
const OURS: [&str; 3] = ["fanfare", "ingest", "dispatcher"];

/// Log format, log filter, and destination of traces.
#[derive(Debug, Clone)]
pub struct TelemetrySettings {
    format: LogFormat,
    filter: LogFilter,
    otlp_endpoint: Option<OtlpEndpoint>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LogFormat {
    Json,
    Text,
}

impl FromStr for LogFormat {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "json" => Ok(Self::Json),
            "text" => Ok(Self::Text),
            _ => Err("expected json or text"),
        }
    }
}

#[derive(Debug, Clone)]
struct LogFilter(String);

impl FromStr for LogFilter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        EnvFilter::try_new(text).map_err(|_| "expected directives such as info,fanfare_store=debug")?;
        Ok(Self(text.to_owned()))
    }
}

#[derive(Debug, Clone)]
struct OtlpEndpoint(Uri);

impl FromStr for OtlpEndpoint {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Option<Uri> = text.trim_end_matches('/').parse().ok();
        uri.filter(|uri| uri.scheme_str() == Some("http") && uri.host().is_some())
            .map(Self)
            .ok_or("expected a URL such as http://127.0.0.1:4318")
    }
}

impl TelemetrySettings {
    /// Reads the settings.
    pub fn read(environment: &mut Environment) -> Option<Self> {
        let format =
            environment.with_default("FANFARE_LOG_FORMAT", "json", "`json`, an object per line, or `text` for people");
        let filter = environment.with_default(
            "RUST_LOG",
            // lapin logs each lost connection as an error of its own; Fanfare logs the consequences.
            "info,lapin=off",
            "filter of the log, in the syntax of `tracing`'s `EnvFilter`",
        );
        let otlp_endpoint = environment.optional(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "destination of traces, by OTLP over HTTP, such as `http://127.0.0.1:4318`; no traces are made without a \
             value",
        );
        Some(Self { format: format?, filter: filter?, otlp_endpoint })
    }
}

/// Running telemetry of a process.
pub struct Telemetry {
    traces: Option<SdkTracerProvider>,
}

impl Telemetry {
    /// Starts logging, and exports traces if an endpoint is set.
    ///
    /// # Errors
    /// If the filter or the endpoint is unusable, or logging was started before.
    ///
    /// # Panics
    /// If an endpoint is set, outside a runtime of Tokio.
    pub fn start(service: &'static str, settings: &TelemetrySettings) -> anyhow::Result<Self> {
        let filter = EnvFilter::try_new(&settings.filter.0).context("RUST_LOG is not a filter")?;
        let logs = tracing_subscriber::fmt::layer().with_target(false).with_ansi(false);
        let logs = match settings.format {
            LogFormat::Json => logs.json().flatten_event(true).with_current_span(false).boxed(),
            LogFormat::Text => logs.boxed(),
        };
        let traces = settings.otlp_endpoint.as_ref().map(|endpoint| provider(service, endpoint)).transpose()?;
        let spans = traces.as_ref().map(|provider| {
            // The exporter's own requests must not create spans.
            let ours = filter_fn(|metadata| {
                metadata.is_span() && OURS.iter().any(|prefix| metadata.target().starts_with(prefix))
            });
            tracing_opentelemetry::layer().with_tracer(provider.tracer(service)).with_filter(ours)
        });
        tracing_subscriber::registry()
            .with(spans)
            .with(logs.with_filter(filter.and(filter_fn(|metadata| metadata.is_event()))))
            .try_init()?;
        Ok(Self { traces })
    }

    /// Sends the remaining traces.
    pub fn finish(self) {
        if let Some(Err(error)) = self.traces.map(|provider| provider.shutdown()) {
            tracing::warn!(%error, "some traces were not exported");
        }
    }
}

/// The longest wait for an answer of the collector: less than the 5 s for which the shutdown of the exporter waits.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(4);

/// The largest answer of the collector, in bytes.
const MAX_ANSWER: usize = 64 * 1024;

/// Sends traces on the runtime of the service: the exporter's own thread has no runtime.
#[derive(Debug)]
struct TraceClient {
    client: Client<HttpConnector, Full<Bytes>>,
    runtime: Handle,
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
        self.runtime.spawn(async move { timeout(EXPORT_TIMEOUT, exchange).await }).await??
    }
}

fn provider(service: &'static str, endpoint: &OtlpEndpoint) -> anyhow::Result<SdkTracerProvider> {
    let url = format!("{}/v1/traces", endpoint.0.to_string().trim_end_matches('/'));
    let client = Client::builder(TokioExecutor::new()).build_http();
    let client = TraceClient { client, runtime: Handle::current() };
    let exporter = opentelemetry_otlp::SpanExporter::builder()
        .with_http()
        .with_http_client(client)
        .with_endpoint(url)
        .build()
        .context("OTEL_EXPORTER_OTLP_ENDPOINT cannot be used")?;
    let resource = Resource::builder().with_service_name(service).build();
    Ok(SdkTracerProvider::builder().with_batch_exporter(exporter).with_resource(resource).build())
}

/// Makes a span a child of `parent`.
pub fn parent_of(span: &Span, parent: Traceparent) {
    let context = SpanContext::new(
        TraceId::from_bytes(parent.trace),
        SpanId::from_bytes(parent.span),
        TraceFlags::new(parent.flags),
        true,
        TraceState::NONE,
    );
    // Without an exporter, the span has no trace to join.
    let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(context));
}

/// The trace context of `span`; `None` without an exporter.
pub fn trace_of(span: &Span) -> Option<Traceparent> {
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| Traceparent {
        trace: context.trace_id().to_bytes(),
        span: context.span_id().to_bytes(),
        flags: context.trace_flags().to_u8(),
    })
}
