//! The pipeline of an event: persist, lease, record, queue, finish. Resend, replay and test sends open further
//! deliveries.
//!
//! Only `persist`, `retries` and `lease` grant leases. Each statement that queues a delivery ends with
//! [`backlogs::with_backlogs`].

pub(crate) mod backlogs;
pub(crate) mod bodies;
pub(crate) mod columns;
pub(crate) mod erase;
pub(crate) mod fan_out;
pub(crate) mod finish;
pub(crate) mod lease;
pub(crate) mod persist;
pub(crate) mod processes;
pub(crate) mod queue;
pub(crate) mod record;
pub(crate) mod replay_advance;
pub(crate) mod replays;
pub(crate) mod resend;
pub(crate) mod retries;
pub(crate) mod sweep;
pub(crate) mod test_send;
