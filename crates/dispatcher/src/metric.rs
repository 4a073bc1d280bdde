//! Metrics of the dispatcher.

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

pub(crate) const ALL: [Metric; 20] = [
    Metric {
        name: EVENTS,
        kind: MetricKind::Counter,
        meaning: "events consumed from the broker, by `result`: new, or known (a copy)",
    },
    Metric { name: ATTEMPTS, kind: MetricKind::Counter, meaning: "attempts made, by `outcome`" },
    Metric { name: ATTEMPT_SECONDS, kind: MetricKind::Histogram, meaning: "duration of attempts" },
    Metric { name: ATTEMPTS_IN_FLIGHT, kind: MetricKind::Gauge, meaning: "attempts in flight" },
    Metric {
        name: PLACES_USED,
        kind: MetricKind::Gauge,
        meaning: "places in use, of `FANFARE_PLACES`; updated every two seconds",
    },
    Metric {
        name: LANES,
        kind: MetricKind::Gauge,
        meaning: "endpoints, by `state`: slow (no answer within a second), open (the breaker of this process is open: \
                  only probes are sent); updated every two seconds",
    },
    Metric {
        name: BACKLOGS,
        kind: MetricKind::Gauge,
        meaning: "endpoints with queued deliveries, by `state`: owned (this process drains the backlog), waiting (the \
                  backlog waits for a place: add dispatchers if the value stays above 0)",
    },
    Metric {
        name: BACKLOG_WAIT,
        kind: MetricKind::Gauge,
        meaning: "time for which backlogs have waited for a place so far, in seconds: the 95th percentile",
    },
    Metric {
        name: BACKLOG_DELIVERIES,
        kind: MetricKind::Gauge,
        meaning: "deliveries in backlogs that wait for a place, of 200 backlogs, each counted up to 1,000; updated \
                  every ten seconds",
    },
    Metric { name: LEASE_SECONDS, kind: MetricKind::Histogram, meaning: "duration of the drain's lease statement" },
    Metric { name: DISPATCHERS, kind: MetricKind::Gauge, meaning: "living dispatchers, as counted by this process" },
    Metric { name: DELIVERIES, kind: MetricKind::Counter, meaning: "ended deliveries, by `state` and `reason`" },
    Metric {
        name: QUEUED,
        kind: MetricKind::Counter,
        meaning: "deliveries queued by this process instead of sent, by `reason`",
    },
    Metric {
        name: UNCONFIRMED_RETRIES,
        kind: MetricKind::Counter,
        meaning: "retry messages without a confirm of the broker within 5 s: recovery queues the deliveries up to 10 s \
                  late",
    },
    Metric {
        name: PARKED,
        kind: MetricKind::Counter,
        meaning: "parked messages, which Fanfare could not process, by `reason`; alarm on growth",
    },
    Metric {
        name: UNROUTED,
        kind: MetricKind::Counter,
        meaning: "messages that matched no binding, sent on after a new declaration of the topology; alarm on growth",
    },
    Metric {
        name: CONFIGURATION_VERSION,
        kind: MetricKind::Gauge,
        meaning: "sum of the versions of all applications, equal in all dispatchers with the same configuration",
    },
    Metric {
        name: RECOVERED,
        kind: MetricKind::Counter,
        meaning: "recovered deliveries, by `kind`: lease (the process died), retry (the retry message did not come), \
                  sweep (an invariant was broken: report the fault)",
    },
    Metric {
        name: RECOVERY_SECONDS,
        kind: MetricKind::Histogram,
        meaning: "duration of a look for deliveries to recover; two looks a second",
    },
    Metric {
        name: MAILS,
        kind: MetricKind::Counter,
        meaning: "failure mails to owners of endpoints, by `result`: sent, refused (permanently), or failed (tried \
                  again)",
    },
];
