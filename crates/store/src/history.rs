//! Lists for the API: deliveries, attempts, events, parked messages, failure notices, the audit log.

pub(crate) mod attempts;
pub(crate) mod audit;
pub(crate) mod deliveries;
pub(crate) mod events;
pub(crate) mod failure_notices;
pub(crate) mod parked;
