//! Metrics of ingest.

use fanfare_service::{Metric, MetricKind};

pub(crate) const PUBLISHED: &str = "fanfare_published_total";
pub(crate) const PUBLISH_SECONDS: &str = "fanfare_publish_seconds";

pub(crate) const ALL: [Metric; 2] = [
    Metric {
        name: PUBLISHED,
        kind: MetricKind::Counter,
        meaning: "events published over HTTP, by `result`: accepted, invalid, unavailable, refused or unknown; \
                  also requests above the publish rate: limited",
    },
    Metric {
        name: PUBLISH_SECONDS,
        kind: MetricKind::Histogram,
        meaning: "time until the broker confirmed an event, or the publish failed",
    },
];
