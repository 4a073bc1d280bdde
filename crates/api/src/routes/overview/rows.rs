//! Rows of the overview: webhooks in trouble, applications, processes, queues and jobs.

use std::collections::BTreeMap;

use fanfare_domain::{
    diagnosis::{
        findings::{ApplicationLoad, EndpointFact, Values},
        rollup::DURATION_BOUNDS_MS,
    },
    ids::{ApplicationId, EndpointId, ProcessId},
};
use fanfare_store::{JobRun, ProcessRow, QueueDepthRow, TroubledEndpoint};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

/// A webhook in trouble.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct TroubledWebhook {
    #[schema(value_type = String)]
    pub application: ApplicationId,
    pub application_name: String,
    #[schema(value_type = String)]
    pub webhook: EndpointId,
    pub name: Option<String>,
    pub url: String,
    /// The time since which each attempt failed, to five minutes.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub failing_since: Option<Timestamp>,
    /// The status or the outcome of the last failed attempt.
    #[schema(example = "401")]
    pub cause: Option<String>,
    /// The queued deliveries, counted up to 1,000.
    pub waiting: u64,
    /// The reason of the queue, such as `breaker_open`; `null` without a queue.
    pub queue_reason: Option<String>,
    /// The number of consecutive failed attempts; 0 without a queue.
    pub failures: u32,
    /// The webhook gets no attempt before this time.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_probe_at: Option<Timestamp>,
    /// The 95th percentile of the attempts' durations in the last half hour; `null` without an attempt.
    pub duration_p95_ms: Option<f64>,
}

/// An application with many events.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct LoudApplication {
    #[schema(value_type = String)]
    pub application: ApplicationId,
    pub name: String,
    pub events_per_second: f64,
    /// The share of all events, from 0 to 1.
    pub share: f64,
    /// The limit of events per second over HTTP of the application or its plan, at each ingest; `null` for the
    /// deployment's limit.
    pub publish_rate: Option<u32>,
}

/// A process: alive, or dead for less than an hour.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
#[schema(as = Process)]
pub struct ProcessView {
    /// The id of the process, as in logs. A process gets a new id at each start.
    #[schema(value_type = String)]
    pub process: ProcessId,
    /// `dispatcher` or `ingest`.
    pub kind: &'static str,
    /// The name of the machine or pod.
    pub host: Option<String>,
    pub version: String,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    /// The last heartbeat.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub seen_at: Option<Timestamp>,
    pub is_alive: bool,
    /// The places in use: attempts in flight, or not yet recorded.
    pub places_used: usize,
    pub places: usize,
    /// The bytes of the payloads in the places.
    pub bytes_used: usize,
    pub bytes: usize,
    /// The slow endpoints, and the endpoints left alone after many failures.
    pub lanes_slow: usize,
    pub lanes_open: usize,
    /// The backlogs that the process drains, and those among them that wait for a place.
    pub backlogs: usize,
    pub backlogs_waiting: usize,
    /// The events in the last 10 s: persisted by a dispatcher, or published over HTTP.
    pub events: u64,
    /// The attempts in the last 10 s.
    pub attempts: u64,
    pub events_in_hand: usize,
    pub retries_in_hand: usize,
    pub has_broker: bool,
    pub has_database: bool,
    /// The version of the loaded configuration: equal in processes with the same configuration.
    pub configuration: i64,
    pub clock_offset_ms: u64,
    /// The settings that differ between processes, with the values of this process.
    #[schema(value_type = Object)]
    pub differing_settings: BTreeMap<String, Value>,
}

/// A queue of the broker.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Queue)]
pub struct QueueView {
    /// The name without the prefix.
    #[schema(example = "events")]
    pub queue: String,
    /// The messages that wait in the broker. Un-acked messages are not among them.
    pub ready: i64,
    pub consumers: i64,
    #[schema(value_type = String, format = DateTime)]
    pub looked_at: Timestamp,
}

/// The last run of a background job.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Job)]
pub struct JobView {
    #[schema(example = "rollups")]
    pub job: String,
    /// The process of the last run.
    #[schema(value_type = String)]
    pub process: ProcessId,
    #[schema(value_type = String, format = DateTime)]
    pub ended_at: Timestamp,
    pub duration_ms: u64,
    /// The error of the last run; `null` after a success.
    pub error: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub succeeded_at: Option<Timestamp>,
}

impl TroubledWebhook {
    pub(super) fn new(endpoint: TroubledEndpoint, application_name: String) -> Self {
        let TroubledEndpoint { fact, name, url, reason, failures, durations } = endpoint;
        let EndpointFact { application, endpoint, since, cause, waiting, next_probe, .. } = fact;
        Self {
            application,
            application_name,
            webhook: endpoint,
            name,
            url,
            failing_since: since,
            cause,
            waiting,
            queue_reason: reason,
            failures,
            next_probe_at: next_probe,
            duration_p95_ms: durations.percentile(&DURATION_BOUNDS_MS, 0.95),
        }
    }
}

impl From<ApplicationLoad> for LoudApplication {
    fn from(load: ApplicationLoad) -> Self {
        let ApplicationLoad { application, name, events_per_second, share, limit, .. } = load;
        Self { application, name, events_per_second, share, publish_rate: limit }
    }
}

impl ProcessView {
    pub(super) fn new(row: ProcessRow, differing: &BTreeMap<String, Values>) -> Self {
        let own: Value = serde_json::from_str(&row.settings).unwrap_or_default();
        let value = |name: &String| Some((name.clone(), own.get(name)?.clone()));
        let report = row.report;
        Self {
            process: row.id,
            kind: row.kind.as_str(),
            host: row.host,
            version: row.version,
            started_at: row.started_at,
            seen_at: row.seen_at,
            is_alive: row.is_alive,
            places_used: report.places_used,
            places: report.places,
            bytes_used: report.bytes_used,
            bytes: report.bytes,
            lanes_slow: report.lanes_slow,
            lanes_open: report.lanes_open,
            backlogs: report.backlogs,
            backlogs_waiting: report.backlogs_waiting,
            events: report.events,
            attempts: report.attempts,
            events_in_hand: report.events_in_hand,
            retries_in_hand: report.retries_in_hand,
            has_broker: report.has_broker,
            has_database: report.has_database,
            configuration: report.configuration,
            clock_offset_ms: u64::try_from(report.clock_offset.as_millis()).unwrap_or(u64::MAX),
            differing_settings: differing.keys().filter_map(value).collect(),
        }
    }
}

impl From<QueueDepthRow> for QueueView {
    fn from(row: QueueDepthRow) -> Self {
        let QueueDepthRow { queue, ready, consumers, looked_at, .. } = row;
        Self { queue, ready, consumers, looked_at }
    }
}

impl From<JobRun> for JobView {
    fn from(run: JobRun) -> Self {
        let JobRun { job, process, ended_at, duration, error, succeeded_at } = run;
        let duration_ms = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        Self { job, process, ended_at, duration_ms, error, succeeded_at }
    }
}
