//! The pipeline of an event: persist, lease, record, queue, finish.
//!
//! Only `persist`, `retries` and `lease` grant leases. Each statement that queues a delivery ends with
//! [`backlogs::with_backlogs`].

pub(crate) mod backlogs;
pub(crate) mod bodies;
pub(crate) mod columns;
pub(crate) mod fan_out;
pub(crate) mod finish;
pub(crate) mod lease;
pub(crate) mod persist;
pub(crate) mod processes;
pub(crate) mod queue;
pub(crate) mod record;
pub(crate) mod retries;
pub(crate) mod sweep;
