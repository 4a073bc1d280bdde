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
use opentelemetry_sdk::{
    Resource,
    resource::{EnvResourceDetector, TelemetryResourceDetector},
    trace::SdkTracerProvider,
};
use percent_encoding::percent_decode_str;
use sampling::FollowLinks;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

use crate::Environment;

/// Destination and sampling of traces. The SDK itself reads `OTEL_RESOURCE_ATTRIBUTES`, `OTEL_BSP_…` and `OTEL_SPAN_…`.
#[derive(Debug, Clone)]
pub(crate) struct TraceSettings {
    /// `None`: no traces are made.
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
    headers: HeaderMap,
    is_compressed: bool,
    /// The longest wait for an answer.
    timeout: Duration,
    /// Further root certificates.
    certificate: Option<PathBuf>,
}

/// Variables of OpenTelemetry that are not supported.
const CLIENT_CERTIFICATES: [&str; 2] =
    ["OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "OTEL_EXPORTER_OTLP_TRACES_CLIENT_CERTIFICATE"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Protocol {
    Http,
    Grpc,
}

impl TraceSettings {
    /// Reads the settings. An injector may set the variables of OpenTelemetry for all programs of a cluster: without a
    /// destination, and with traces switched off, no value is a mistake.
    pub(crate) fn read(environment: &mut Environment) -> Option<Self> {
        let is_disabled: Option<String> =
            environment.with_default("OTEL_SDK_DISABLED", "false", "`true`: no traces are made");
        let exporters: Option<String> =
            environment.with_default("OTEL_TRACES_EXPORTER", "otlp", "`otlp`, or `none`: no traces are made");
        let texts = Texts::read(environment)?;
        let is_on = !is_disabled?.eq_ignore_ascii_case("true")
            && exporters?.split(',').any(|exporter| exporter.trim() == "otlp")
            && (texts.endpoint_for_traces.is_some() || texts.endpoint.is_some());
        let service_name = texts.service_name.clone();
        if !is_on {
            return Some(Self { destination: None, sampler: FollowLinks::default(), service_name });
        }
        let checked = texts.check();
        let (destination, sampler) = checked.map_err(|mistake| environment.mistake(mistake)).ok()?;
        Some(Self { destination: Some(destination), sampler, service_name })
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
        let instance: u64 = rand::random();
        let ours = [
            KeyValue::new("service.name", service),
            KeyValue::new("service.namespace", "fanfare"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", format!("{instance:016x}")),
        ];
        let resource = Resource::builder_empty()
            .with_attributes(ours)
            .with_detectors(&[Box::new(TelemetryResourceDetector), Box::new(EnvResourceDetector::new())]);
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

/// Variables of the destination and of sampling, not yet checked. A variable for traces alone comes before the variable
/// for all signals.
struct Texts {
    endpoint_for_traces: Option<String>,
    endpoint: Option<String>,
    protocol: String,
    headers: Option<String>,
    compression: String,
    timeout: String,
    certificate: Option<PathBuf>,
    has_client_certificate: bool,
    sampler: String,
    ratio: String,
    service_name: Option<String>,
}

impl Texts {
    fn read(environment: &mut Environment) -> Option<Self> {
        let (endpoint_for_traces, endpoint) = endpoints(environment);
        let protocol = for_traces(
            environment,
            ["OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL"],
            "http/protobuf",
            ["the same as `OTEL_EXPORTER_OTLP_PROTOCOL`", "`http/protobuf` or `grpc`"],
        );
        let compression = for_traces(
            environment,
            ["OTEL_EXPORTER_OTLP_TRACES_COMPRESSION", "OTEL_EXPORTER_OTLP_COMPRESSION"],
            "none",
            ["the same as `OTEL_EXPORTER_OTLP_COMPRESSION`", "`none` or `gzip`"],
        );
        let timeout = for_traces(
            environment,
            ["OTEL_EXPORTER_OTLP_TRACES_TIMEOUT", "OTEL_EXPORTER_OTLP_TIMEOUT"],
            "10000",
            [
                "the same as `OTEL_EXPORTER_OTLP_TIMEOUT`",
                "longest wait for an answer of the collector, in milliseconds",
            ],
        );
        let headers_for_traces: Option<(String, Secret)> =
            environment.secret("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "the same as `OTEL_EXPORTER_OTLP_HEADERS`");
        let headers: Option<(String, Secret)> = environment.secret(
            "OTEL_EXPORTER_OTLP_HEADERS",
            "headers of all exports, such as `api-key=secret,tenant=7`, with percent-encoded values",
        );
        let certificate = environment.optional(
            "OTEL_EXPORTER_OTLP_CERTIFICATE",
            "PEM file of further root certificates, for a collector with an own authority",
        );
        let (sampler, ratio) = sampling(environment);
        let meaning = "name of the process in traces; default: its program";
        let service_name = environment.optional("OTEL_SERVICE_NAME", meaning);
        Some(Self {
            endpoint_for_traces,
            endpoint,
            protocol: protocol?,
            headers: headers_for_traces.or(headers).map(|(headers, _)| headers),
            compression: compression?,
            timeout: timeout?,
            certificate,
            has_client_certificate: CLIENT_CERTIFICATES.iter().any(|name| environment.is_set(name)),
            sampler: sampler?,
            ratio: ratio?,
            service_name,
        })
    }

    /// Checks the values; the error names the variable, and no value.
    fn check(self) -> Result<(Destination, FollowLinks), String> {
        let fault = |name: &str, expected: &str| format!("{name}: expected {expected}");
        let protocol = match self.protocol.as_str() {
            "http/protobuf" => Protocol::Http,
            "grpc" => Protocol::Grpc,
            _ => return Err(fault("OTEL_EXPORTER_OTLP_PROTOCOL", "http/protobuf or grpc")),
        };
        let url = match (&self.endpoint_for_traces, &self.endpoint) {
            (Some(whole), _) => collector(whole, ""),
            (None, Some(base)) if protocol == Protocol::Http => collector(base, "/v1/traces"),
            (None, base) => collector(base.as_deref().unwrap_or_default(), ""),
        };
        if self.has_client_certificate {
            return Err("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE: client certificates are not supported".to_owned());
        }
        let form = "a URL such as http://127.0.0.1:4318, without a query";
        let destination = Destination {
            url: url.ok_or_else(|| fault("OTEL_EXPORTER_OTLP_ENDPOINT", form))?,
            protocol,
            headers: headers(self.headers.as_deref().unwrap_or_default())
                .ok_or_else(|| fault("OTEL_EXPORTER_OTLP_HEADERS", "headers such as api-key=secret,tenant=7"))?,
            is_compressed: match self.compression.as_str() {
                "gzip" => true,
                "none" => false,
                _ => return Err(fault("OTEL_EXPORTER_OTLP_COMPRESSION", "none or gzip")),
            },
            timeout: self
                .timeout
                .parse()
                .map(Duration::from_millis)
                .map_err(|_| fault("OTEL_EXPORTER_OTLP_TIMEOUT", "milliseconds, such as 10000"))?,
            certificate: self.certificate,
        };
        let sampler = FollowLinks::new(&self.sampler, &self.ratio);
        Ok((destination, sampler.map_err(|(name, expected)| fault(name, expected))?))
    }
}

/// The destination for traces alone, and for all signals.
fn endpoints(environment: &mut Environment) -> (Option<String>, Option<String>) {
    let endpoint_for_traces = environment.optional(
        "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT",
        "destination of traces, with the whole path, such as `http://127.0.0.1:4318/v1/traces`",
    );
    let endpoint = environment.optional(
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "destination of traces, such as `http://127.0.0.1:4318`; over HTTP, `/v1/traces` is added. Without a \
         destination no traces are made",
    );
    (endpoint_for_traces, endpoint)
}

/// Name and argument of the sampler.
fn sampling(environment: &mut Environment) -> (Option<String>, Option<String>) {
    let sampler = environment.with_default(
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
    (sampler, ratio)
}

/// The first set variable of `names`, else `default`.
fn for_traces(
    environment: &mut Environment,
    [for_traces, for_all]: [&'static str; 2],
    default: &'static str,
    [meaning, meaning_for_all]: [&'static str; 2],
) -> Option<String> {
    let own: Option<String> = environment.optional(for_traces, meaning);
    own.or(environment.with_default(for_all, default, meaning_for_all))
}

/// The URL of a collector, with `path` behind its own path.
fn collector(text: &str, path: &str) -> Option<Uri> {
    let uri: Uri = format!("{}{path}", text.trim_end_matches('/')).parse().ok()?;
    let is_usable = matches!(uri.scheme_str(), Some("http" | "https")) && uri.host().is_some() && uri.query().is_none();
    is_usable.then_some(uri)
}

/// Headers in the form of OpenTelemetry: `name=value,name=value`, the values percent-encoded.
fn headers(text: &str) -> Option<HeaderMap> {
    let header = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let mut value = HeaderValue::from_str(&value).ok().filter(|value| value.to_str().is_ok())?;
        // Keeps the value out of debug output.
        value.set_sensitive(true);
        Some((name.trim().parse::<HeaderName>().ok()?, value))
    };
    text.split(',').filter(|pair| !pair.trim().is_empty()).map(header).collect()
}

/// Reads the trace context of a request.
pub fn incoming_trace(headers: &HeaderMap) -> Option<TraceContext> {
    let parent = headers.get("traceparent")?.to_str().ok()?;
    let states = headers.get_all("tracestate").iter().filter_map(|value| value.to_str().ok());
    let state = states.collect::<Vec<_>>().join(",");
    TraceContext::of_headers(parent, Some(&state))
}

/// Makes a span a child of `parent`. The span must not have begun.
pub fn set_parent(span: &Span, parent: &TraceContext) {
    if span.is_disabled() {
        return;
    }
    // A span that has begun keeps its parent.
    let _ = span.set_parent(opentelemetry::Context::new().with_remote_span_context(span_context(parent)));
}

/// Links a span that begins a trace of its own to `other`. The span must not have begun: the link decides the sampling.
pub fn link_to(span: &Span, other: &TraceContext) {
    if !span.is_disabled() {
        span.add_link(span_context(other));
    }
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
        const GRPC: (&str, &str) = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc");
        assert_eq!(url(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4317"), GRPC]), "http://collector:4317/");
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
        let read = headers("api-key=a%2Cb%3D,tenant = 7,").expect("headers");
        let value = |name: &str| read.get(name).and_then(|value| value.to_str().ok());
        assert_eq!((value("api-key"), value("tenant"), read.len()), (Some("a,b="), Some("7"), 2));
        for bad in ["api-key", "a b=1", "a=%0A", "a=%C3%BC"] {
            assert!(headers(bad).is_none(), "{bad}");
        }
    }

    #[test]
    fn each_mistake_is_named() {
        const BASE: (&str, &str) = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://collector:4318");
        let mistakes = [
            ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "hunter2"),
            ("OTEL_EXPORTER_OTLP_COMPRESSION", "zstd"),
            ("OTEL_EXPORTER_OTLP_TIMEOUT", "10s"),
            ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/pem"),
            ("OTEL_TRACES_SAMPLER", "jaeger_remote"),
            ("OTEL_TRACES_SAMPLER_ARG", "2"),
        ];
        for (name, value) in mistakes {
            let error = read(&[BASE, (name, value)]).expect_err(value);
            assert!(error.contains(name) && !error.contains("hunter2"), "{error}");
            assert!(read(&[(name, value)]).is_ok(), "{name} is a mistake without a destination");
            assert!(
                read(&[BASE, (name, value), ("OTEL_SDK_DISABLED", "True")]).is_ok(),
                "{name} is a mistake if disabled"
            );
        }
        for url in ["collector:4318", "ftp://collector", "http://collector/?key=1"] {
            assert!(read(&[("OTEL_EXPORTER_OTLP_ENDPOINT", url)]).is_err(), "{url}");
        }
    }
}
