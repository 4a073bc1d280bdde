//! Common parts of every process: configuration, telemetry, listeners, and shutdown.

mod argument;
mod checks;
mod crash;
mod environment;
mod limits;
mod listener;
mod metric;
mod operations;
mod process;
mod recent;
mod shared;
mod shutdown;
mod telemetry;
mod traces;

pub use argument::argument;
pub use checks::{CHECKED_AT_ONCE, Checks};
pub use crash::crash_point;
pub use environment::{ConfigurationError, Environment};
pub use limits::open_files::{TooFewFiles, raise_open_files};
pub use listener::{Peer, Room, serve};
pub use metric::{Labels, Metric, MetricKind, reference};
pub use operations::{Operations, Readiness};
pub use process::{PROCESS_METRICS, report_blocked, report_broker, report_build, report_clock, report_pool};
pub use recent::{RecentCount, host_name};
pub use shutdown::stop_signal;
pub use telemetry::{Telemetry, TelemetrySettings};
pub use traces::{incoming_trace, link_to, set_parent, trace_of};
