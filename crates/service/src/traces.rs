//! Traces: the settings of OpenTelemetry, and the trace context of spans. Without a destination, spans cost nothing.

mod export;
mod sampling;

use std::{path::PathBuf, str::FromStr, time::Duration};

use axum::http::{HeaderMap, HeaderName, HeaderValue, Uri};
use fanfare_credentials::Secret;
use fanfare_domain::event::trace_context::{TraceContext, Traceparent};
use opentelemetry::{
    KeyValue,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use opentelemetry_sdk::{Resource, resource::EnvResourceDetector, trace::SdkTracerProvider};
use percent_encoding::percent_decode_str;
use sampling::{FollowLinks, SamplerName};
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::Environment;

/// Destination and sampling of traces. The SDK itself reads `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BSP_…` and `OTEL_SPAN_…`.
#[derive(Debug, Clone)]
pub(crate) struct TraceSettings {
    destination: Option<Destination>,
    sampler: FollowLinks,
    service_name: Option<String>,
}

/// A collector that takes OTLP.
#[derive(Debug, Clone)]
struct Destination {
    /// For HTTP with the path.
    url: Uri,
    protocol: Protocol,
    headers: Vec<(HeaderName, HeaderValue)>,
    is_compressed: bool,
    /// The longest wait for an answer.
    timeout: Duration,
    /// Further root certificates.
    certificate: Option<PathBuf>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Grpc,
}

impl FromStr for Protocol {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "http/protobuf" => Ok(Self::Http),
            "grpc" => Ok(Self::Grpc),
            _ => Err("expected http/protobuf or grpc"),
        }
    }
}

struct Exporter {
    is_otlp: bool,
}

impl FromStr for Exporter {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "otlp" => Ok(Self { is_otlp: true }),
            "none" => Ok(Self { is_otlp: false }),
            _ => Err("expected otlp or none"),
        }
    }
}

struct Compression {
    is_gzip: bool,
}

impl FromStr for Compression {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text {
            "gzip" => Ok(Self { is_gzip: true }),
            "none" => Ok(Self { is_gzip: false }),
            _ => Err("expected gzip or none"),
        }
    }
}

#[derive(Clone)]
struct Collector(Uri);

impl FromStr for Collector {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let uri: Option<Uri> = text.trim_end_matches('/').parse().ok();
        uri.filter(|uri| matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some())
            .map(Self)
            .ok_or("expected a URL such as http://127.0.0.1:4318")
    }
}

/// Headers in the form of OpenTelemetry: `name=value,name=value`, the values percent-encoded.
struct Headers(Vec<(HeaderName, HeaderValue)>);

impl FromStr for Headers {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let header = |pair: &str| {
            let (name, value) = pair.split_once('=')?;
            let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
            let mut value = HeaderValue::from_str(&value).ok()?;
            // Keeps the value out of debug output.
            value.set_sensitive(true);
            Some((name.trim().parse().ok()?, value))
        };
        let pairs = text.split(',').filter(|pair| !pair.trim().is_empty());
        let headers: Option<Vec<_>> = pairs.map(header).collect();
        headers.map(Self).ok_or("expected headers such as api-key=secret,tenant=7")
    }
}

impl TraceSettings {
    /// Reads the settings.
    pub(crate) fn read(environment: &mut Environment) -> Option<Self> {
        let is_disabled: Option<bool> =
            environment.with_default("OTEL_SDK_DISABLED", "false", "`true`: no traces are made");
        let exporter: Option<Exporter> =
            environment.with_default("OTEL_TRACES_EXPORTER", "otlp", "`otlp`, or `none`: no traces are made");
        let destination = Destination::read(environment)?;
        let sampler: Option<SamplerName> = environment.with_default(
            "OTEL_TRACES_SAMPLER",
            "parentbased_always_on",
            "sampling of new traces: `always_on`, `always_off`, `traceidratio`; with the prefix `parentbased_`, a \
             publisher's trace is sampled exactly if the publisher samples the trace",
        );
        let ratio = environment.with_default(
            "OTEL_TRACES_SAMPLER_ARG",
            "1.0",
            "sampled part of all traces, 0.0 to 1.0, for `traceidratio` and `parentbased_traceidratio`",
        );
        let service_name =
            environment.optional("OTEL_SERVICE_NAME", "name of the process in traces; default: its program");
        let is_on = !is_disabled? && exporter?.is_otlp;
        Some(Self {
            destination: destination.filter(|_| is_on),
            sampler: FollowLinks::new(sampler?, ratio?),
            service_name,
        })
    }

    /// Starts the export; `None` without a destination.
    ///
    /// # Errors
    /// If the certificates cannot be read, or the exporter cannot be built.
    ///
    /// # Panics
    /// With a destination, outside a runtime of Tokio.
    pub(crate) fn provider(&self, service: &'static str) -> anyhow::Result<Option<SdkTracerProvider>> {
        let Some(destination) = &self.destination else { return Ok(None) };
        let ours = [
            KeyValue::new("service.name", service),
            KeyValue::new("service.namespace", "fanfare"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
        ];
        let resource =
            Resource::builder_empty().with_attributes(ours).with_detector(Box::new(EnvResourceDetector::new()));
        let resource = match &self.service_name {
            Some(name) => resource.with_service_name(name.clone()),
            None => resource,
        };
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(export::exporter(destination)?)
            .with_sampler(self.sampler.clone())
            .with_resource(resource.build());
        Ok(Some(provider.build()))
    }
}

impl Destination {
    /// Reads the destination. A variable for traces alone comes before the variable for all signals. The outer `None`
    /// stands for a mistake.
    fn read(environment: &mut Environment) -> Option<Option<Self>> {
        let for_traces: Option<Collector> = environment.optional(
            "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
            "destination of traces, with the whole path, such as `http://127.0.0.1:4318/v1/traces`",
        );
        let for_all: Option<Collector> = environment.optional(
            "OTEL_EXPORTER_OTLP_ENDPOINT",
            "destination of traces, such as `http://127.0.0.1:4318`; over HTTP, `/v1/traces` is added. Without a \
             destination no traces are made",
        );
        let protocol_for_traces: Option<Protocol> =
            environment.optional("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "the same as `OTEL_EXPORTER_OTLP_PROTOCOL`");
        let protocol: Option<Protocol> =
            environment.with_default("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf", "`http/protobuf` or `grpc`");
        let headers_for_traces: Option<(Headers, Secret)> =
            environment.secret("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "the same as `OTEL_EXPORTER_OTLP_HEADERS`");
        let headers: Option<(Headers, Secret)> = environment.secret(
            "OTEL_EXPORTER_OTLP_HEADERS",
            "headers of all exports, such as `api-key=secret,tenant=7`, with percent-encoded values",
        );
        let compression: Option<Compression> =
            environment.with_default("OTEL_EXPORTER_OTLP_COMPRESSION", "none", "`none` or `gzip`");
        let timeout = environment.number(
            "OTEL_EXPORTER_OTLP_TIMEOUT",
            "10000",
            1..=600_000,
            "longest wait for an answer of the collector, in milliseconds",
        );
        let certificate = environment.optional(
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "PEM file of further root certificates, for a collector with an own authority",
        );
        let protocol = protocol_for_traces.or(protocol);
        let url =
            for_traces.map(|collector| Some(collector.0)).or_else(|| for_all.map(|all| with_path(&all.0, protocol?)));
        let settings = (protocol?, compression?.is_gzip, timeout?);
        let Some(url) = url else { return Some(None) };
        let (protocol, is_compressed, timeout) = settings;
        Some(Some(Self {
            url: url?,
            protocol,
            headers: headers_for_traces.or(headers).map(|(headers, _)| headers.0).unwrap_or_default(),
            is_compressed,
            timeout: Duration::from_millis(u64::try_from(timeout).unwrap_or(u64::MAX)),
            certificate,
        }))
    }
}

/// The URL for traces below a collector's base URL.
fn with_path(base: &Uri, protocol: Protocol) -> Option<Uri> {
    match protocol {
        Protocol::Grpc => Some(base.clone()),
        Protocol::Http => format!("{}/v1/traces", base.to_string().trim_end_matches('/')).parse().ok(),
    }
}

/// Reads the trace context of a request.
pub fn incoming_trace(headers: &HeaderMap) -> Option<TraceContext> {
    let states = headers.get_all("tracestate").iter().filter_map(|value| value.to_str().ok());
    let state = states.collect::<Vec<_>>().join(",");
    TraceContext::of_headers(headers.get("traceparent")?.to_str().ok()?, Some(&state))
}

/// Makes a span a child of `parent`. The span must not have begun.
pub fn set_parent(span: &Span, parent: &TraceContext) {
    // Without an exporter, the span has no trace to join.
    let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(span_context(parent)));
}

/// Links a span that begins a trace of its own to `other`. The span must not have begun: the link decides the sampling.
pub fn link_to(span: &Span, other: &TraceContext) {
    span.add_link(span_context(other));
}

/// The trace context of `span`; `None` without an exporter.
pub fn trace_of(span: &Span) -> Option<TraceContext> {
    let context = span.context();
    let context = context.span().span_context().clone();
    context.is_valid().then(|| TraceContext {
        parent: Traceparent {
            trace: context.trace_id().to_bytes(),
            span: context.span_id().to_bytes(),
            flags: context.trace_flags().to_u8(),
        },
        state: Some(context.trace_state().header()).filter(|state| !state.is_empty()).map(Into::into),
    })
}

fn span_context(context: &TraceContext) -> SpanContext {
    let Traceparent { trace, span, flags } = context.parent;
    let state = context.state.as_deref().and_then(|state| TraceState::from_str(state).ok());
    SpanContext::new(
        TraceId::from_bytes(trace),
        SpanId::from_bytes(span),
        TraceFlags::new(flags),
        true,
        state.unwrap_or_default(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(values: &[(&str, &str)]) -> Result<TraceSettings, String> {
        let variables = values.iter().map(|&(name, value)| (name.to_owned(), value.to_owned()));
        let mut environment = Environment::new(variables);
        let settings = TraceSettings::read(&mut environment);
        environment.finish(settings).map_err(|error| error.to_string())
    }

    fn destination(values: &[(&str, &str)]) -> Option<Destination> {
        read(values).expect("good settings").destination
    }

    #[test]
    fn the_path_is_added_over_http_only() {
        const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://collector:4318/otlp/");
        let url = |values: &[(&str, &str)]| destination(values).expect("a destination").url.to_string();
        assert_eq!(url(&[BASE]), "https://collector:4318/otlp/v1/traces");
        assert_eq!(url(&[BASE, ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")]), "https://collector:4318/otlp");
        let whole = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://traces:1/x");
        assert_eq!(url(&[BASE, whole]), "http://traces:1/x");
    }

    #[test]
    fn traces_can_be_switched_off() {
        const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        assert!(destination(&[]).is_none());
        assert!(destination(&[BASE, ("OTEL_SDK_DISABLED", "true")]).is_none());
        assert!(destination(&[BASE, ("OTEL_TRACES_EXPORTER", "none")]).is_none());
        assert!(destination(&[BASE]).is_some());
    }

    #[test]
    fn headers_are_percent_decoded() {
        let headers = "api-key=a%2Cb%3D,tenant = 7,".parse::<Headers>().expect("headers").0;
        let headers: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().expect("text"))).collect();
        assert_eq!(headers, [("api-key", "a,b="), ("tenant", "7")]);
        for bad in ["api-key", "a b=1", "a=%0A"] {
            assert!(bad.parse::<Headers>().is_err(), "{bad}");
        }
    }

    #[test]
    fn each_mistake_is_named() {
        for (name, value) in [
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "collector:4318"),
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "hunter2"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_TRACES_EXPORTER", "zipkin"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
            ("OTEL_SDK_DISABLED", "yes"),
        ] {
            let error = read(&[(name, value)]).expect_err(value);
            assert!(error.contains(name) && !error.contains("hunter2"), "{error}");
        }
    }
}
