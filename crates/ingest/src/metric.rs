//! Ingest's metrics.

use fanfare_service::{Metric, MetricKind};

pub(crate) const PUBLISHED: &str = "fanfare_published_total";
pub(crate) const PUBLISH_SECONDS: &str = "fanfare_publish_seconds";

/// All of them.
pub(crate) const ALL: [Metric; 2] = [
    Metric {
        name: PUBLISHED,
        kind: MetricKind::Counter,
        meaning: "events handed in over HTTP, by `result`: accepted, invalid, unavailable, refused or unknown",
    },
    Metric {
        name: PUBLISH_SECONDS,
        kind: MetricKind::Histogram,
        meaning: "how long the broker took to confirm an event",
    },
];
