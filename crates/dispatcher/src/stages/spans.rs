//! Spans of an event's way, in the conventions of OpenTelemetry for
//! [RabbitMQ](https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/) and for
//! [HTTP clients](https://opentelemetry.io/docs/specs/semconv/http/http-spans/). Numbers are signed: the exporter makes
//! texts of unsigned numbers.

use fanfare_broker::{Incoming, Topology};
use fanfare_domain::{
    delivery::outcome::Outcome,
    event::{Event, trace_context::TraceContext},
};
use fanfare_service::{link_to, set_parent, trace_of};
use tracing::{Span, field::Empty, info_span};

use crate::stages::InFlight;

/// The span of a message, from its receipt to the ack, as a child of the publisher's span.
pub(crate) fn process(topology: &Topology, message: &Incoming, publisher: Option<&TraceContext>) -> Span {
    let span = info_span!(
        "process",
        otel.name = format!("process {}", topology.events_queue()),
        otel.kind = "consumer",
        otel.status_code = Empty,
        "messaging.system" = "rabbitmq",
        "messaging.operation.name" = "process",
        "messaging.operation.type" = "process",
        "messaging.destination.name" =
            format!("{}:{}:{}", topology.events_exchange(), message.routing_key, topology.events_queue()),
        "messaging.rabbitmq.destination.routing_key" = message.routing_key,
        "messaging.message.id" = message.message_id,
        "messaging.message.body.size" = i64::try_from(message.body.len()).unwrap_or(i64::MAX),
        "error.type" = Empty,
        "fanfare.event" = Empty,
    );
    if let Some(parent) = publisher {
        set_parent(&span, parent);
    }
    span
}

/// The event, with a trace that continues from the span of its message.
pub(crate) fn continued(span: &Span, mut event: Event) -> Event {
    span.record("fanfare.event", tracing::field::display(event.id));
    event.trace = trace_of(span).or(event.trace);
    event
}

/// The span of an attempt. The first attempt belongs to the event's trace. A later attempt may come days later: it
/// begins a trace of its own, with a link to the event's.
pub(crate) fn attempt(in_flight: &InFlight) -> Span {
    let url = &in_flight.endpoint.url;
    let span = info_span!(
        "attempt",
        otel.name = "POST",
        otel.kind = "client",
        otel.status_code = Empty,
        "http.request.method" = "POST",
        // Paths and queries of customers' URLs hold secrets.
        "url.full" = format!("{}/REDACTED", url.origin().ascii_serialization()),
        "server.address" = url.host_str().map(|host| host.trim_matches(['[', ']'])),
        "server.port" = url.port_or_known_default().map(i64::from),
        "http.request.resend_count" = Empty,
        "http.response.status_code" = Empty,
        "error.type" = Empty,
        "fanfare.delivery" = %in_flight.delivery,
        "fanfare.endpoint" = %in_flight.endpoint.id,
        "fanfare.attempt" = i64::from(in_flight.attempt),
    );
    if in_flight.attempt > 1 {
        span.record("http.request.resend_count", i64::from(in_flight.attempt - 1));
    }
    match &in_flight.trace {
        Some(trace) if in_flight.attempt == 1 => set_parent(&span, trace),
        Some(trace) => link_to(&span, trace),
        None => {}
    }
    span
}

/// Records the outcome of an attempt in its span.
pub(crate) fn end_attempt(span: &Span, outcome: Outcome) {
    match outcome.status() {
        Some(status) => {
            span.record("http.response.status_code", i64::from(status));
            if status >= 400 {
                fail(span, &status.to_string());
            }
        }
        None => fail(span, outcome.code()),
    }
}

/// Marks a span as failed.
pub(crate) fn fail(span: &Span, error: &str) {
    span.record("error.type", error).record("otel.status_code", "ERROR");
}
