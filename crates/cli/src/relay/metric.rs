//! Metrics of a relay.

use fanfare_service::{Labels, Metric, MetricKind};

pub(super) const PUBLISHED: &str = "fanfare_relay_published_total";
pub(super) const REFUSED: &str = "fanfare_relay_refused_total";
pub(super) const AGE: &str = "fanfare_relay_oldest_row_seconds";

/// All metrics.
pub(super) const ALL: [Metric; 3] = [
    Metric {
        name: PUBLISHED,
        kind: MetricKind::Counter,
        labels: Labels::None,
        meaning: "Rows of the outbox that the broker has confirmed",
    },
    Metric {
        name: REFUSED,
        kind: MetricKind::Counter,
        labels: Labels::None,
        meaning: "Rows of the outbox that can never be published; the column `refused` has the reason",
    },
    Metric {
        name: AGE,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "Time since the insertion of the oldest row that waits; 0 without a row",
    },
];
