//! Common parts of every process: configuration, telemetry, listeners, and shutdown.

mod argument;
mod crash;
mod environment;
mod listener;
mod open_files;
mod operations;
mod shared;
mod shutdown;
mod telemetry;

pub use argument::argument;
pub use crash::crash_point;
pub use environment::{ConfigurationError, Environment};
pub use listener::{Peer, serve};
pub use open_files::{TooFewFiles, raise_open_files};
pub use operations::{Metric, MetricKind, Operations, reference};
pub use shared::agreed_settings;
pub use shutdown::stop_signal;
pub use telemetry::{Telemetry, TelemetrySettings, parent_of, trace_of};
