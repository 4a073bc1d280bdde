//! Metrics of ingest.

use fanfare_api::{AUDIT_FAILURES, PUBLISH_SECONDS, PUBLISHED};
use fanfare_service::{Labels, Metric, MetricKind};

pub(crate) const HTTP_REQUEST_SECONDS: &str = "fanfare_http_request_seconds";
pub(crate) const API_CONNECTIONS: &str = "fanfare_api_connections";

pub(crate) const ALL: [Metric; 5] = [
    PUBLISHED,
    PUBLISH_SECONDS,
    Metric {
        name: HTTP_REQUEST_SECONDS,
        kind: MetricKind::Seconds,
        labels: Labels::Open,
        meaning: "duration of requests to the API, by `route` (`other` without a route), `method` and `status` (2xx, 4xx, \
                  …)",
    },
    Metric {
        name: API_CONNECTIONS,
        kind: MetricKind::Gauge,
        labels: Labels::One("state", &["open", "limit"]),
        meaning: "connections to the API, by `state`: open, limit (`FANFARE_MAX_CONNECTIONS`)",
    },
    AUDIT_FAILURES,
];
