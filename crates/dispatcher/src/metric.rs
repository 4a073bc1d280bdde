//! Metrics of the dispatcher.

use fanfare_domain::operational::catalogue;
use fanfare_service::{Labels, Metric, MetricKind};

pub(crate) const EVENTS: &str = "fanfare_events_total";
pub(crate) const FILTERS: &str = "fanfare_filters_total";
pub(crate) const TEMPLATES: &str = "fanfare_templates_total";
pub(crate) const PARKED_DELETED: &str = "fanfare_parked_deleted_total";
pub(crate) const EGRESS_AVAILABLE: &str = "fanfare_egress_available";
pub(crate) const TOKEN_FETCHES: &str = "fanfare_token_fetches_total";
pub(crate) const WITHOUT_TOKEN: &str = "fanfare_endpoints_without_token";
pub(crate) const ATTEMPTS: &str = "fanfare_attempts_total";
pub(crate) const ATTEMPT_SECONDS: &str = "fanfare_attempt_seconds";
pub(crate) const FIRST_ATTEMPT_LAG: &str = "fanfare_first_attempt_lag_seconds";
pub(crate) const DUE_LAG: &str = "fanfare_due_lag_seconds";
pub(crate) const DELAYED_EVENTS: &str = "fanfare_delayed_events";
pub(crate) const ORDERING_KEYS: &str = "fanfare_ordering_keys";
pub(crate) const ATTEMPTS_IN_FLIGHT: &str = "fanfare_attempts_in_flight";
pub(crate) const PLACES: &str = "fanfare_places";
pub(crate) const PLACE_BYTES: &str = "fanfare_place_bytes";
pub(crate) const LANES: &str = "fanfare_lanes";
pub(crate) const BREAKERS_OPENED: &str = "fanfare_breakers_opened_total";
pub(crate) const BACKLOGS: &str = "fanfare_backlogs";
pub(crate) const BACKLOG_WAIT: &str = "fanfare_backlog_wait_seconds";
pub(crate) const BACKLOG_DELIVERIES: &str = "fanfare_backlog_deliveries";
pub(crate) const LEASE_SECONDS: &str = "fanfare_lease_seconds";
pub(crate) const COMMIT_SECONDS: &str = "fanfare_commit_seconds";
pub(crate) const COMMIT_ROWS: &str = "fanfare_commit_rows";
pub(crate) const MESSAGES_IN_HAND: &str = "fanfare_messages_in_hand";
pub(crate) const QUEUE_READY: &str = "fanfare_queue_ready";
pub(crate) const QUEUE_CONSUMERS: &str = "fanfare_queue_consumers";
pub(crate) const LOOKED: &str = "fanfare_looked_timestamp_seconds";
pub(crate) const DATABASE_AVAILABLE: &str = "fanfare_database_available";
pub(crate) const DISPATCHERS: &str = "fanfare_dispatchers";
pub(crate) const DISAGREEING: &str = "fanfare_disagreeing_processes";
pub(crate) const DELIVERIES: &str = "fanfare_deliveries_ended_total";
pub(crate) const QUEUED: &str = "fanfare_queued_total";
pub(crate) const UNCONFIRMED_RETRIES: &str = "fanfare_unconfirmed_retries_total";
pub(crate) const PARKED: &str = "fanfare_parked_total";
pub(crate) const UNROUTED: &str = "fanfare_unrouted_total";
pub(crate) const CONFIGURATION_VERSION: &str = "fanfare_configuration_version";
pub(crate) const RECOVERED: &str = "fanfare_recovered_total";
pub(crate) const RECOVERY_SECONDS: &str = "fanfare_recovery_seconds";
pub(crate) const MAILS: &str = "fanfare_mails_total";
pub(crate) const OPERATIONAL_EVENTS: &str = "fanfare_operational_events_total";
pub(crate) const JOB_SUCCESS: &str = "fanfare_job_success_timestamp_seconds";
pub(crate) const HELD: &str = "fanfare_held_deliveries";
pub(crate) const PARKED_MESSAGES: &str = "fanfare_parked_messages";
pub(crate) const NOTICES: &str = "fanfare_failure_notices";
pub(crate) const REPLAYS: &str = "fanfare_replays_running";
pub(crate) const ENDPOINTS: &str = "fanfare_endpoints";
pub(crate) const PARTITIONS_AHEAD: &str = "fanfare_partitions_ahead_days";
pub(crate) const STORAGE: &str = "fanfare_storage_bytes";
pub(crate) const DAYS_TO_ARCHIVE: &str = "fanfare_days_to_archive";
pub(crate) const ARCHIVED_ROWS: &str = "fanfare_archived_rows_total";
pub(crate) const ARCHIVED_BYTES: &str = "fanfare_archived_bytes_total";
pub(crate) const ARCHIVE_FAILURES: &str = "fanfare_archive_failures_total";

/// Consumed queues, in the order of the consumers.
pub(crate) const CONSUMED: [&str; 4] = ["events", "deliveries", "parked", "unrouted"];

/// Stages that commit in batches.
const STAGES: [&str; 3] = [PERSIST, RETRIES, RECORD];
pub(crate) const PERSIST: &str = "persist";
pub(crate) const RETRIES: &str = "retries";
pub(crate) const RECORD: &str = "record";

const TOKEN_OUTCOMES: [&str; 6] = ["fetched", "no_answer", "egress_unavailable", "refused", "unreadable", "unusable"];

const OUTCOMES: [&str; 9] = [
    "answered",
    "timed_out",
    "connection_failed",
    "connection_closed",
    "name_not_resolved",
    "address_forbidden",
    "tls_failed",
    "not_http",
    "not_sendable",
];

const ENDS: [[&str; 2]; 15] = [
    ["delivered", ""],
    ["skipped", ""],
    ["skipped", "feed"],
    ["failed", "attempts_exhausted"],
    ["failed", "expired"],
    ["failed", "aborted"],
    ["failed", "endpoint_deleted"],
    ["failed", "rejected"],
    ["failed", "endpoint_gone"],
    ["failed", "held_too_long"],
    ["failed", "too_many_held"],
    ["failed", "erased"],
    ["failed", "not_rendered"],
    ["failed", "stopped_by_receiver"],
    ["failed", "disabled_by_receiver"],
];

const QUEUE_REASONS: [&str; 18] = [
    "lane_full",
    "application_busy",
    "process_busy",
    "rate_limited",
    "breaker_open",
    "retry_after",
    "egress_unavailable",
    "token_unavailable",
    "backlog",
    "paused",
    "retry",
    "shutting_down",
    "lease_expired",
    "resent",
    "replayed",
    "application_unreadable",
    "isolated",
    "in_order",
];

const PARK_REASONS: [&str; 26] = [
    "invalid_routing_key",
    "unknown_application",
    "application_unreadable",
    "missing_message_id",
    "not_utf8",
    "body_too_large",
    "malformed_json",
    "not_an_object",
    "missing_field",
    "unknown_field",
    "duplicate_field",
    "wrong_type",
    "field_too_long",
    "invalid_field",
    "too_deep",
    "infinite_number",
    "unknown_event_type",
    "data_mismatch",
    "too_far_ahead",
    "key_reused",
    "type_mismatch",
    "id_mismatch",
    "not_storable",
    "delivery_limit",
    "retention_over",
    "invalid_retry",
];

pub(crate) const ALL: [Metric; 53] = [
    Metric {
        name: PARKED_DELETED,
        kind: MetricKind::Counter,
        labels: Labels::None,
        meaning: "parked messages deleted, the oldest first, beyond `FANFARE_MAX_PARKED` or `FANFARE_MAX_PARKED_MIB`",
    },
    Metric {
        name: EGRESS_AVAILABLE,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "1; 0 while no connection can be made for a reason of ours: name servers, egress proxy, descriptors",
    },
    Metric {
        name: EVENTS,
        kind: MetricKind::Counter,
        labels: Labels::One("result", &["new", "known"]),
        meaning: "events consumed from the broker, by `result`: new, or known (a copy)",
    },
    Metric {
        name: FILTERS,
        kind: MetricKind::Counter,
        labels: Labels::One("result", &["true", "false", "error"]),
        meaning: "filters of webhooks asked for an event, by `result`: only `true` makes a delivery; `error` is no result, \
                  such as a comparison of a missing member",
    },
    Metric {
        name: TEMPLATES,
        kind: MetricKind::Counter,
        labels: Labels::One("result", &["rendered", "failed"]),
        meaning: "bodies of deliveries by templates of webhooks, by `result`: `failed` is a template without a body for \
                  the event, and the delivery fails as `not_rendered`",
    },
    Metric {
        name: TOKEN_FETCHES,
        kind: MetricKind::Counter,
        labels: Labels::One("outcome", &TOKEN_OUTCOMES),
        meaning: "fetches of tokens for endpoints with OAuth 2.0, by `outcome`: fetched, or the fault of the token server; \
                  `egress_unavailable` is a fault of ours",
    },
    Metric {
        name: WITHOUT_TOKEN,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "endpoints with OAuth 2.0 in use that have no token, since their token server gives none: their deliveries \
                  wait as `token_unavailable`",
    },
    Metric {
        name: ATTEMPTS,
        kind: MetricKind::Counter,
        labels: Labels::One("outcome", &OUTCOMES),
        meaning: "attempts made, by `outcome`",
    },
    Metric { name: ATTEMPT_SECONDS, kind: MetricKind::Seconds, labels: Labels::None, meaning: "duration of attempts" },
    Metric {
        name: FIRST_ATTEMPT_LAG,
        kind: MetricKind::Delays,
        labels: Labels::One("queued", &["no", "yes"]),
        meaning: "time from the acceptance of an event, or its `deliver_at`, to the start of a first attempt, by `queued`: \
                  yes, if the delivery was queued before",
    },
    Metric {
        name: DUE_LAG,
        kind: MetricKind::Delays,
        labels: Labels::None,
        meaning: "time from the `deliver_at` of a delayed event to the opening of its deliveries",
    },
    Metric {
        name: DELAYED_EVENTS,
        kind: MetricKind::Gauge,
        labels: Labels::One("state", &["waiting", "overdue"]),
        meaning: "delayed events, by `state`: waiting (not yet due, or due for less than a minute), overdue; counted up to \
                  100,000 every minute",
    },
    Metric {
        name: ORDERING_KEYS,
        kind: MetricKind::Gauge,
        labels: Labels::One("state", &["parked", "overdue"]),
        meaning: "ordering keys of endpoints with FIFO, by `state`: parked (until resumed), overdue (the next delivery \
                  is due for more than a minute); counted every minute, overdue keys up to 1000",
    },
    Metric { name: ATTEMPTS_IN_FLIGHT, kind: MetricKind::Gauge, labels: Labels::None, meaning: "attempts in flight" },
    Metric {
        name: PLACES,
        kind: MetricKind::Gauge,
        labels: Labels::One("state", &["used", "limit"]),
        meaning: "places for attempts, by `state`: used, limit (`FANFARE_PLACES`)",
    },
    Metric {
        name: PLACE_BYTES,
        kind: MetricKind::Gauge,
        labels: Labels::One("state", &["used", "limit"]),
        meaning: "bytes of payloads in flight, by `state`: used, limit (an eighth of `FANFARE_MEMORY_MIB`)",
    },
    Metric {
        name: LANES,
        kind: MetricKind::Gauge,
        labels: Labels::One("state", &["slow", "open"]),
        meaning: "endpoints, by `state`: slow (no answer within a second), open (the breaker of this \
                  process is open: only probes are sent)",
    },
    Metric {
        name: BREAKERS_OPENED,
        kind: MetricKind::Counter,
        labels: Labels::None,
        meaning: "breakers opened by this process, after consecutive failed attempts",
    },
    Metric {
        name: BACKLOGS,
        kind: MetricKind::Gauge,
        labels: Labels::One("state", &["owned", "waiting"]),
        meaning: "endpoints with queued deliveries, by `state`: owned (this process drains the backlog), \
                  waiting (the backlog waits for a place: add dispatchers if the value stays above 0)",
    },
    Metric {
        name: BACKLOG_WAIT,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "time for which backlogs have waited for a place so far, in seconds: the 95th percentile",
    },
    Metric {
        name: BACKLOG_DELIVERIES,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "deliveries in backlogs that wait for a place, of 200 backlogs, each counted up to 1,000; \
                  updated every ten seconds",
    },
    Metric {
        name: LEASE_SECONDS,
        kind: MetricKind::Seconds,
        labels: Labels::None,
        meaning: "duration of the drain's lease statement",
    },
    Metric {
        name: COMMIT_SECONDS,
        kind: MetricKind::Seconds,
        labels: Labels::One("stage", &STAGES),
        meaning: "duration of a batch statement with its commit, by `stage`: persist, retries, record",
    },
    Metric {
        name: COMMIT_ROWS,
        kind: MetricKind::Rows,
        labels: Labels::One("stage", &STAGES),
        meaning: "events, retries or attempts in a commit, by `stage`: few rows in each commit mean little \
                  load",
    },
    Metric {
        name: MESSAGES_IN_HAND,
        kind: MetricKind::Gauge,
        labels: Labels::One("queue", &CONSUMED),
        meaning: "messages received and not yet acked, of `FANFARE_PREFETCH`, by `queue`",
    },
    Metric {
        name: QUEUE_READY,
        kind: MetricKind::Gauge,
        labels: Labels::Open,
        meaning: "messages that wait in the broker, by `queue`; looked up every ten seconds. A delay queue \
                  holds retries until their time",
    },
    Metric {
        name: QUEUE_CONSUMERS,
        kind: MetricKind::Gauge,
        labels: Labels::Open,
        meaning: "consumers of all processes, by `queue`",
    },
    Metric {
        name: LOOKED,
        kind: MetricKind::Gauge,
        labels: Labels::One("at", &["broker", "database"]),
        meaning: "Unix time of the last successful look, by `at`: broker (queue depths), database \
                  (deliveries to recover)",
    },
    Metric {
        name: DATABASE_AVAILABLE,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "1 while the database answers, and the process takes messages in",
    },
    Metric {
        name: DISPATCHERS,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "living dispatchers, as counted by this process",
    },
    Metric {
        name: DISAGREEING,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "living processes with other settings than this process",
    },
    Metric {
        name: DELIVERIES,
        kind: MetricKind::Counter,
        labels: Labels::Two(["state", "reason"], &ENDS),
        meaning: "ended deliveries, by `state` and `reason`",
    },
    Metric {
        name: QUEUED,
        kind: MetricKind::Counter,
        labels: Labels::One("reason", &QUEUE_REASONS),
        meaning: "deliveries queued by this process instead of sent, by `reason`",
    },
    Metric {
        name: UNCONFIRMED_RETRIES,
        kind: MetricKind::Counter,
        labels: Labels::None,
        meaning: "retry messages without a confirm of the broker within 5 s: recovery queues the \
                  deliveries up to 10 s late",
    },
    Metric {
        name: PARKED,
        kind: MetricKind::Counter,
        labels: Labels::One("reason", &PARK_REASONS),
        meaning: "parked messages, which Fanfare could not process, by `reason`; alarm on growth",
    },
    Metric {
        name: UNROUTED,
        kind: MetricKind::Counter,
        labels: Labels::None,
        meaning: "messages that matched no binding, sent on after a new declaration of the topology; alarm \
                  on growth",
    },
    Metric {
        name: CONFIGURATION_VERSION,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "sum of the versions of all applications, equal in all dispatchers with the same \
                  configuration",
    },
    Metric {
        name: RECOVERED,
        kind: MetricKind::Counter,
        labels: Labels::One("kind", &["lease", "retry", "sweep"]),
        meaning: "recovered deliveries, by `kind`: lease (the process died), retry (the retry message did \
                  not come), sweep (an invariant was broken: report the fault)",
    },
    Metric {
        name: RECOVERY_SECONDS,
        kind: MetricKind::Seconds,
        labels: Labels::None,
        meaning: "duration of a look for deliveries to recover; two looks a second",
    },
    Metric {
        name: OPERATIONAL_EVENTS,
        kind: MetricKind::Counter,
        labels: Labels::One("type", &catalogue::TYPES),
        meaning: "operational events told to the operator's application, by `type`",
    },
    Metric {
        name: MAILS,
        kind: MetricKind::Counter,
        labels: Labels::One("result", &["sent", "refused", "failed"]),
        meaning: "mails to owners of endpoints, by `result`: sent, refused (permanently), or \
                  failed (tried again)",
    },
    Metric {
        name: JOB_SUCCESS,
        kind: MetricKind::Gauge,
        labels: Labels::Open,
        meaning: "Unix time of the last success of a background job in this process, by `task`",
    },
    Metric {
        name: HELD,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "deliveries held for paused endpoints, counted up to 100,000",
    },
    Metric {
        name: PARKED_MESSAGES,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "parked messages in the database, counted up to 100,000",
    },
    Metric {
        name: NOTICES,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "notices of failed deliveries and changed conditions that wait for a mail, counted up to 100,000",
    },
    Metric {
        name: REPLAYS,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "running replays, counted every minute",
    },
    Metric {
        name: ENDPOINTS,
        kind: MetricKind::Gauge,
        labels: Labels::One("status", &["enabled", "paused", "disabled"]),
        meaning: "endpoints, by `status`, counted every minute",
    },
    Metric {
        name: PARTITIONS_AHEAD,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "days from today on for which all partitions exist, counted every minute; at 0 nothing \
                  can be stored from tomorrow on",
    },
    Metric {
        name: STORAGE,
        kind: MetricKind::Gauge,
        labels: Labels::Open,
        meaning: "bytes on the database's disk, by `table`, with indexes and partitions, measured every \
                  ten minutes",
    },
    Metric {
        name: DAYS_TO_ARCHIVE,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "days at the end of their retention that wait for the archive, and are kept until then, counted every \
                  minute",
    },
    Metric {
        name: ARCHIVED_ROWS,
        kind: MetricKind::Counter,
        labels: Labels::One("table", &["events", "deliveries", "attempts"]),
        meaning: "rows in days that were archived completely, by `table`",
    },
    Metric {
        name: ARCHIVED_BYTES,
        kind: MetricKind::Counter,
        labels: Labels::None,
        meaning: "compressed bytes in days that were archived completely",
    },
    Metric {
        name: ARCHIVE_FAILURES,
        kind: MetricKind::Counter,
        labels: Labels::None,
        meaning: "days that could not be archived, counted at each try: the day is kept, and tried again after ten \
                  minutes",
    },
];
