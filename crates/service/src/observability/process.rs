//! Metrics of every process: its build, its connections to the servers, and its clock.

use std::time::Duration;

use crate::{Labels, Metric, MetricKind, observability::telemetry::dropped_lines};

const BUILD_INFO: &str = "fanfare_build_info";
const BROKER_CONNECTED: &str = "fanfare_broker_connected";
const BROKER_BLOCKED: &str = "fanfare_broker_blocked";
const BROKER_CONNECTIONS: &str = "fanfare_broker_connections_total";
const DATABASE_CONNECTIONS: &str = "fanfare_database_connections";
const LOG_LINES_DROPPED: &str = "fanfare_log_lines_dropped_total";
const CLOCK_OFFSET: &str = "fanfare_clock_offset_seconds";

/// Commit of the build, given by the build of an image.
const COMMIT: &str = match option_env!("FANFARE_COMMIT") {
    Some(commit) => commit,
    None => "unknown",
};

const PURPOSES: [&str; 5] = ["publish", "events", "deliveries", "parked", "unrouted"];

/// Metrics of every process.
pub const PROCESS_METRICS: [Metric; 7] = [
    Metric {
        name: BUILD_INFO,
        kind: MetricKind::Gauge,
        labels: Labels::Open,
        meaning: "always 1, with `service`, `version` and `commit` of the program",
    },
    Metric {
        name: BROKER_CONNECTED,
        kind: MetricKind::Gauge,
        labels: Labels::One("purpose", &PURPOSES),
        meaning: "1 while the process is connected to the broker, by `purpose`: publish, or the consumed queue",
    },
    Metric {
        name: BROKER_BLOCKED,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "1 while the broker accepts no messages, because of its memory or disk",
    },
    Metric {
        name: BROKER_CONNECTIONS,
        kind: MetricKind::Counter,
        labels: Labels::One("purpose", &PURPOSES),
        meaning: "connections made to the broker, by `purpose`; growth means lost connections",
    },
    Metric {
        name: DATABASE_CONNECTIONS,
        kind: MetricKind::Gauge,
        labels: Labels::Open,
        meaning: "connections to the database, by `pool` (general, batch, events, heartbeat; of ingest also api, \
                  console, portal) and `state`: used, idle, limit; \
                  `waiting` counts statements that wait for a connection",
    },
    Metric {
        name: CLOCK_OFFSET,
        kind: MetricKind::Gauge,
        labels: Labels::None,
        meaning: "deviation of the machine's clock from the database's clock, which Fanfare uses, in seconds",
    },
    Metric {
        name: LOG_LINES_DROPPED,
        kind: MetricKind::Counter,
        labels: Labels::None,
        meaning: "lines of the log that were dropped, because nothing read the standard output",
    },
];

/// Metrics of the operating system about the process, with the names of Prometheus's own clients. `metrics-process`
/// describes and sets the metrics.
pub(crate) const SYSTEM_METRICS: [Metric; 8] = [
    system("process_cpu_seconds_total", MetricKind::Counter, "processor time, in seconds"),
    system("process_open_fds", MetricKind::Gauge, "open files"),
    system("process_max_fds", MetricKind::Gauge, "limit of open files"),
    system("process_resident_memory_bytes", MetricKind::Gauge, "resident memory, in bytes"),
    system("process_virtual_memory_bytes", MetricKind::Gauge, "virtual memory, in bytes"),
    system("process_virtual_memory_max_bytes", MetricKind::Gauge, "limit of virtual memory, in bytes"),
    system("process_start_time_seconds", MetricKind::Gauge, "Unix time of the start"),
    system("process_threads", MetricKind::Gauge, "threads"),
];

const fn system(name: &'static str, kind: MetricKind, meaning: &'static str) -> Metric {
    Metric { name, kind, labels: Labels::None, meaning }
}

/// Reports the build. To be repeated with the other gauges, which end without a report.
pub fn report_build(service: &'static str) {
    let version = env!("CARGO_PKG_VERSION");
    metrics::gauge!(BUILD_INFO, "service" => service, "version" => version, "commit" => COMMIT).set(1);
}

/// Reports a connection to the broker, and the number of connections made so far.
pub fn report_broker(purpose: &'static str, is_connected: bool, connections: u64) {
    metrics::gauge!(BROKER_CONNECTED, "purpose" => purpose).set(f64::from(u8::from(is_connected)));
    metrics::counter!(BROKER_CONNECTIONS, "purpose" => purpose).absolute(connections);
}

/// Reports if the broker refuses to read from the process.
pub fn report_blocked(is_blocked: bool) {
    metrics::gauge!(BROKER_BLOCKED).set(f64::from(u8::from(is_blocked)));
}

/// Reports the states of a pool's connections.
pub fn report_pool(pool: &'static str, states: [(&'static str, usize); 4]) {
    for (state, count) in states {
        // Exact: a process has fewer than 2^53 connections.
        metrics::gauge!(DATABASE_CONNECTIONS, "pool" => pool, "state" => state).set(count as f64);
    }
}

/// Reports the number of dropped lines of the log.
pub(crate) fn report_log() {
    metrics::counter!(LOG_LINES_DROPPED).absolute(dropped_lines());
}

/// Reports the deviation of the machine's clock, before or behind the database's clock.
pub fn report_clock(offset: Duration) {
    metrics::gauge!(CLOCK_OFFSET).set(offset.as_secs_f64());
}
