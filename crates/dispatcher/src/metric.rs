//! The dispatcher's metrics.

use fanfare_service::{Metric, MetricKind};

pub(crate) const EVENTS: &str = "fanfare_events_total";
pub(crate) const ATTEMPTS: &str = "fanfare_attempts_total";
pub(crate) const ATTEMPT_SECONDS: &str = "fanfare_attempt_seconds";
pub(crate) const ATTEMPTS_IN_FLIGHT: &str = "fanfare_attempts_in_flight";
pub(crate) const PLACES_USED: &str = "fanfare_places_used";
pub(crate) const LANES: &str = "fanfare_lanes";
pub(crate) const DELIVERIES: &str = "fanfare_deliveries_ended_total";
pub(crate) const QUEUED: &str = "fanfare_queued_total";
pub(crate) const BACKLOGS: &str = "fanfare_backlogs";
pub(crate) const BACKLOG_WAIT: &str = "fanfare_backlog_wait_seconds";
pub(crate) const BACKLOG_DELIVERIES: &str = "fanfare_backlog_deliveries";
pub(crate) const LEASE_SECONDS: &str = "fanfare_lease_seconds";
pub(crate) const DISPATCHERS: &str = "fanfare_dispatchers";
pub(crate) const UNCONFIRMED_RETRIES: &str = "fanfare_unconfirmed_retries_total";
pub(crate) const PARKED: &str = "fanfare_parked_total";
pub(crate) const UNROUTED: &str = "fanfare_unrouted_total";
pub(crate) const CONFIGURATION_VERSION: &str = "fanfare_configuration_version";
pub(crate) const RECOVERED: &str = "fanfare_recovered_total";
pub(crate) const RECOVERY_SECONDS: &str = "fanfare_recovery_seconds";
pub(crate) const MAILS: &str = "fanfare_mails_total";

/// All of them.
pub(crate) const ALL: [Metric; 20] = [
    Metric {
        name: EVENTS,
        kind: MetricKind::Counter,
        meaning: "events taken from the broker, by `result`: new, or known (a copy)",
    },
    Metric { name: ATTEMPTS, kind: MetricKind::Counter, meaning: "attempts made, by `outcome`" },
    Metric { name: ATTEMPT_SECONDS, kind: MetricKind::Histogram, meaning: "how long attempts took" },
    Metric { name: ATTEMPTS_IN_FLIGHT, kind: MetricKind::Gauge, meaning: "attempts on their way now" },
    Metric {
        name: PLACES_USED,
        kind: MetricKind::Gauge,
        meaning: "places in use, of `FANFARE_PLACES`; as of the last look, every two seconds",
    },
    Metric {
        name: LANES,
        kind: MetricKind::Gauge,
        meaning: "endpoints, by `state`: slow (not answered within a second), open (failed so often in a row that this process \
                  leaves them alone but for probes); as of the last look",
    },
    Metric {
        name: BACKLOGS,
        kind: MetricKind::Gauge,
        meaning: "endpoints with queued deliveries, by `state`: owned (this process drains them), waiting (the drain waits for a \
                  place: scale dispatchers when they stay)",
    },
    Metric {
        name: BACKLOG_WAIT,
        kind: MetricKind::Gauge,
        meaning: "how long backlogs have waited for a place so far, in seconds: 95 of 100 no longer than this",
    },
    Metric {
        name: BACKLOG_DELIVERIES,
        kind: MetricKind::Gauge,
        meaning: "deliveries in backlogs that wait for a place, of 200 backlogs, each counted to 1,000; every ten seconds",
    },
    Metric { name: LEASE_SECONDS, kind: MetricKind::Histogram, meaning: "how long the statement of the drains took" },
    Metric { name: DISPATCHERS, kind: MetricKind::Gauge, meaning: "dispatchers that live, as this process sees them" },
    Metric { name: DELIVERIES, kind: MetricKind::Counter, meaning: "deliveries that ended, by `state` and `reason`" },
    Metric {
        name: QUEUED,
        kind: MetricKind::Counter,
        meaning: "deliveries queued for a reason of our own, by `reason`",
    },
    Metric {
        name: UNCONFIRMED_RETRIES,
        kind: MetricKind::Counter,
        meaning: "retry messages that the broker did not confirm within 5 s: recovery queues their deliveries up to 10 s late",
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
        name: RECOVERED,
        kind: MetricKind::Counter,
        meaning: "deliveries that recovery found, by `kind`: lease (its process died), retry (its message did not come), sweep (a \
                  rule was broken: report it)",
    },
    Metric {
        name: RECOVERY_SECONDS,
        kind: MetricKind::Histogram,
        meaning: "how long each look for deliveries to recover took; it looks twice a second",
    },
    Metric {
        name: MAILS,
        kind: MetricKind::Counter,
        meaning: "mails to owners of failed deliveries, by `result`: sent, refused (for good), or failed (tried again)",
    },
];
