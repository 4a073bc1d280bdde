//! Spans of an event's way, in the conventions of OpenTelemetry for
//! [RabbitMQ](https://opentelemetry.io/docs/specs/semconv/messaging/rabbitmq/) and for
//! [HTTP clients](https://opentelemetry.io/docs/specs/semconv/http/http-spans/).

use fanfare_broker::{Incoming, Topology};
use fanfare_domain::{
    delivery::outcome::Outcome,
    event::{Event, trace_context::TraceContext},
};
use fanfare_service::{link_to, set_parent, trace_of};
use tracing::{Span, field::Empty, info_span};

use super::InFlight;

/// The span of a message, from its receipt to the ack, as a child of the publisher's span. The event continues the trace
/// from the new span. An event with the trace `fresh` came without a trace.
pub(super) fn process(
    topology: &Topology,
    message: &Incoming,
    mut event: Event,
    fresh: &TraceContext,
) -> (Event, Span) {
    let (exchange, queue) = (topology.events_exchange(), topology.events_queue());
    let span = info_span!(
        "process",
        otel.name = format!("process {queue}"),
        otel.kind = "consumer",
        "messaging.system" = "rabbitmq",
        "messaging.operation.name" = "process",
        "messaging.operation.type" = "process",
        "messaging.destination.name" = format!("{exchange}:{}:{queue}", message.routing_key),
        "messaging.rabbitmq.destination.routing_key" = message.routing_key,
        "messaging.message.id" = message.message_id,
        "messaging.message.body.size" = message.body.len(),
        "fanfare.event" = %event.id,
    );
    if event.trace != *fresh {
        set_parent(&span, &event.trace);
    }
    event.trace = trace_of(&span).unwrap_or(event.trace);
    (event, span)
}

/// The span of an attempt. The first attempt belongs to the event's trace. A later attempt may come days later: it begins
/// a trace of its own, with a link to the event's.
pub(super) fn attempt(in_flight: &InFlight) -> Span {
    let url = &in_flight.endpoint.url;
    let span = info_span!(
        "attempt",
        otel.name = "POST",
        otel.kind = "client",
        otel.status_code = Empty,
        "http.request.method" = "POST",
        // Paths and queries of customers' URLs hold secrets.
        "url.full" = format!("{}/REDACTED", url.origin().ascii_serialization()),
        "server.address" = url.host_str(),
        "server.port" = url.port_or_known_default(),
        "http.request.resend_count" = Empty,
        "http.response.status_code" = Empty,
        "error.type" = Empty,
        "fanfare.delivery" = %in_flight.delivery,
        "fanfare.endpoint" = %in_flight.endpoint.id,
        "fanfare.attempt" = in_flight.attempt,
    );
    if in_flight.attempt > 1 {
        span.record("http.request.resend_count", in_flight.attempt - 1);
    }
    match &in_flight.trace {
        Some(trace) if in_flight.attempt == 1 => set_parent(&span, trace),
        Some(trace) => link_to(&span, trace),
        None => {}
    }
    span
}

/// Records the outcome of an attempt in its span.
pub(super) fn end_attempt(span: &Span, outcome: Outcome) {
    if let Some(status) = outcome.status() {
        span.record("http.response.status_code", status);
    }
    match outcome.status() {
        Some(..400) => {}
        Some(status) => _ = span.record("error.type", status.to_string()).record("otel.status_code", "ERROR"),
        None => _ = span.record("error.type", outcome.code()).record("otel.status_code", "ERROR"),
    }
}
