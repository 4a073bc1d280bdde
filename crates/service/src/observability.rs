//! Logs, traces and metrics of a process.

pub(crate) mod metric;
pub(crate) mod process;
pub(crate) mod recent;
pub(crate) mod telemetry;
pub(crate) mod traces;
