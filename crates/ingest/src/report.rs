//! Metrics and spans of requests, and gauges of the process. Every gauge is set anew at each report: a gauge without a
//! report for three minutes ends.

use std::time::Duration;

use axum::{
    extract::{MatchedPath, Request, State},
    middleware::Next,
    response::Response,
};
use fanfare_api::authenticate;
use fanfare_broker::Publisher;
use fanfare_domain::access::api_key::Role;
use fanfare_service::{
    Room, incoming_trace, report_blocked, report_broker, report_build, report_clock, report_pool, set_parent,
};
use fanfare_store::{Directory, Store};
use tokio::time::{Instant, sleep};
use tracing::{Instrument, Span, field::Empty, info_span};

use crate::metric;

/// Interval of the reports.
const EVERY: Duration = Duration::from_secs(2);

/// Reports connections and clock, until the process exits.
pub(crate) async fn connections(publisher: Publisher, store: Store, room: Room) {
    loop {
        report_build("ingest");
        let publishing = publisher.state();
        report_broker("publish", publishing.is_connected, publishing.connections);
        report_blocked(publishing.is_blocked);
        for pool in store.pools() {
            report_pool(pool.name, pool.states);
        }
        report_clock(store.clock_offset());
        for (state, count) in [("open", room.used()), ("limit", room.limit())] {
            // Exact: a process has fewer than 2^53 connections.
            metrics::gauge!(metric::API_CONNECTIONS, "state" => state).set(count as f64);
        }
        sleep(EVERY).await;
    }
}

/// Measures and traces a request.
pub(crate) async fn measured(State(directory): State<Directory>, request: Request, next: Next) -> Response {
    let began = Instant::now();
    let route = request.extensions().get::<MatchedPath>().cloned();
    // A caller may invent methods: only known methods become labels.
    let method = match request.method().as_str() {
        "GET" => "GET",
        "POST" => "POST",
        "PUT" => "PUT",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        "HEAD" => "HEAD",
        "OPTIONS" => "OPTIONS",
        _ => "other",
    };
    let span = route.as_ref().map_or_else(Span::none, |route| request_span(&request, method, route.as_str()));
    // A caller without a key must not decide about sampling.
    if !span.is_disabled()
        && let Some(parent) = incoming_trace(request.headers())
        && authenticate(request.headers(), &directory, &Role::ALL).is_ok()
    {
        set_parent(&span, &parent);
    }
    let response = next.run(request).instrument(span.clone()).await;
    span.record("http.response.status_code", i64::from(response.status().as_u16()));
    if response.status().is_server_error() {
        span.record("error.type", response.status().as_str()).record("otel.status_code", "ERROR");
    }
    let status = match response.status().as_u16() {
        ..200 => "1xx",
        200..300 => "2xx",
        300..400 => "3xx",
        400..500 => "4xx",
        _ => "5xx",
    };
    let route = route.map_or_else(|| "other".to_owned(), |route| route.as_str().to_owned());
    let histogram =
        metrics::histogram!(metric::HTTP_REQUEST_SECONDS, "route" => route, "method" => method, "status" => status);
    histogram.record(began.elapsed());
    response
}

/// The span of a request, in the conventions of OpenTelemetry for
/// [HTTP servers](https://opentelemetry.io/docs/specs/semconv/http/http-spans/).
fn request_span(request: &Request, method: &'static str, route: &str) -> Span {
    let is_known = method != "other";
    let span = info_span!(
        "request",
        otel.name = format!("{} {route}", if is_known { method } else { "HTTP" }),
        otel.kind = "server",
        otel.status_code = Empty,
        "http.request.method" = if is_known { method } else { "_OTHER" },
        "http.request.method_original" = Empty,
        "http.route" = route,
        "url.scheme" = "http",
        // The path of a link that signs in holds the link's secret.
        "url.path" = if route.ends_with("/open/{token}") { route } else { request.uri().path() },
        "http.response.status_code" = Empty,
        "error.type" = Empty,
    );
    if !is_known {
        span.record("http.request.method_original", request.method().as_str());
    }
    span
}
