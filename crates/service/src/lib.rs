//! Common parts of every process: configuration, telemetry, listeners, and shutdown.

mod checks;
mod crash;
mod limits;
mod listener;
mod observability;
mod operations;
mod settings;
mod shutdown;

pub use checks::{CHECKED_AT_ONCE, Checks};
pub use crash::crash_point;
pub use limits::open_files::{TooFewFiles, raise_open_files};
pub use listener::{Peer, Room, serve};
pub use observability::{
    metric::{Labels, Metric, MetricKind, reference},
    process::{PROCESS_METRICS, report_blocked, report_broker, report_build, report_clock, report_pool},
    recent::{RecentCount, host_name},
    telemetry::{Telemetry, TelemetrySettings},
    traces::{incoming_trace, link_to, set_parent, trace_of},
};
pub use operations::{Operations, Readiness};
pub use settings::{
    argument::argument,
    environment::{ConfigurationError, Environment},
};
pub use shutdown::stop_signal;
