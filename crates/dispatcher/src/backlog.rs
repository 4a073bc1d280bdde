//! Backlogs: queued deliveries of endpoints, drained in order by this process as the endpoints have room.
//!
//! `registry` holds the owned backlogs, `order` decides which is drained next. `drain` leases, sends and ends.
//! `blocked` handles backlogs of paused, disabled and deleted endpoints.

mod blocked;
mod drain;
mod order;
mod registry;

pub(crate) use blocked::run as handle_blocked;
pub(crate) use drain::Drain;
pub(crate) use registry::Backlogs;
