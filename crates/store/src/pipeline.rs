//! The pipeline of an event: persist, lease, give back, record, finish, recover.
//!
//! Only `persist`, `delayed`, `retries` and `lease` grant leases. Each statement that queues a delivery ends with
//! [`backlogs::with_backlogs`].

pub(crate) mod access_tokens;
pub(crate) mod backlogs;
pub(crate) mod bodies;
pub(crate) mod columns;
pub(crate) mod delayed;
pub(crate) mod digests;
pub(crate) mod fan_out;
pub(crate) mod fifo;
pub(crate) mod finish;
pub(crate) mod give_back;
pub(crate) mod lease;
pub(crate) mod persist;
pub(crate) mod processes;
pub(crate) mod record;
pub(crate) mod recovery;
pub(crate) mod retries;
pub(crate) mod sweep;
