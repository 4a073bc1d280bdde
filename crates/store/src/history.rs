//! Lists for the API: deliveries, attempts, events, parked messages, failure notices, the audit log, usage; and
//! the search.

pub(crate) mod attempts;
pub(crate) mod audit;
pub(crate) mod deliveries;
pub(crate) mod delivery_counts;
pub(crate) mod delivery_pages;
pub(crate) mod events;
pub(crate) mod feed;
pub(crate) mod health;
pub(crate) mod notices;
pub(crate) mod parked;
pub(crate) mod search;
pub(crate) mod stats;
pub(crate) mod usage;
pub(crate) mod why;
