//! The dispatcher's metrics.

use fanfare_service::{Metric, MetricKind};

pub(crate) const EVENTS: &str = "fanfare_events_total";
pub(crate) const ATTEMPTS: &str = "fanfare_attempts_total";
pub(crate) const ATTEMPT_SECONDS: &str = "fanfare_attempt_seconds";
pub(crate) const ATTEMPTS_IN_FLIGHT: &str = "fanfare_attempts_in_flight";
pub(crate) const BUDGET_USED: &str = "fanfare_budget_used";
pub(crate) const LANES: &str = "fanfare_lanes";
pub(crate) const DELIVERIES: &str = "fanfare_deliveries_ended_total";
pub(crate) const DEFERRALS: &str = "fanfare_deferrals_total";
pub(crate) const PARKED: &str = "fanfare_parked_total";
pub(crate) const UNROUTED: &str = "fanfare_unrouted_total";
pub(crate) const CONFIGURATION_VERSION: &str = "fanfare_configuration_version";
pub(crate) const RESCUED: &str = "fanfare_rescued_total";
pub(crate) const MAILS: &str = "fanfare_mails_total";

/// All of them.
pub(crate) const ALL: [Metric; 13] = [
    Metric {
        name: EVENTS,
        kind: MetricKind::Counter,
        meaning: "events taken from the broker, by `result`: new, or known (a copy)",
    },
    Metric { name: ATTEMPTS, kind: MetricKind::Counter, meaning: "attempts made, by `outcome`" },
    Metric { name: ATTEMPT_SECONDS, kind: MetricKind::Histogram, meaning: "how long attempts took" },
    Metric { name: ATTEMPTS_IN_FLIGHT, kind: MetricKind::Gauge, meaning: "attempts on their way now" },
    Metric {
        name: BUDGET_USED,
        kind: MetricKind::Gauge,
        meaning: "places that are used, by `budget`: fast of `FANFARE_MAX_ATTEMPTS_IN_FLIGHT`, slow of \
                  `FANFARE_MAX_SLOW_ATTEMPTS`; as of the last look, every two seconds",
    },
    Metric {
        name: LANES,
        kind: MetricKind::Gauge,
        meaning: "endpoints, by `state`: waiting (deliveries wait for their turn), slow (not answered within a second), open \
                  (failed so often in a row that this process leaves them alone but for probes); as of the last look",
    },
    Metric { name: DELIVERIES, kind: MetricKind::Counter, meaning: "deliveries that ended, by `state` and `reason`" },
    Metric {
        name: DEFERRALS,
        kind: MetricKind::Counter,
        meaning: "deliveries put off for a reason of our own, by `reason`",
    },
    Metric {
        name: PARKED,
        kind: MetricKind::Counter,
        meaning: "messages that could not be read, by `reason`; alarm when it grows",
    },
    Metric {
        name: UNROUTED,
        kind: MetricKind::Counter,
        meaning: "messages that no binding wanted, sent on after the topology was declared again; alarm when it grows",
    },
    Metric {
        name: CONFIGURATION_VERSION,
        kind: MetricKind::Gauge,
        meaning: "the sum of the versions of all applications, the same in every dispatcher that knows the same",
    },
    Metric {
        name: RESCUED,
        kind: MetricKind::Counter,
        meaning: "deliveries whose claim was gone, found by the reconciler",
    },
    Metric {
        name: MAILS,
        kind: MetricKind::Counter,
        meaning: "mails to owners of failed deliveries, by `result`: sent, refused (for good), or failed (tried again)",
    },
];
