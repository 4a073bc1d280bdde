//! Backlogs: the queued deliveries of endpoints, which this process drains in order, as the endpoints take them.
//!
//! `registry` holds the backlogs that the process owns and decides which of them is drained next; `drain` leases, sends and
//! ends; `blocked` handles backlogs whose endpoint is paused, disabled or deleted.

mod blocked;
mod drain;
mod registry;

pub(crate) use blocked::run as handle_blocked;
pub(crate) use drain::Drain;
pub(crate) use registry::Backlogs;
