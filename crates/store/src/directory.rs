//! The services' copy of the configuration, and the notices that keep the copy current.

mod changes;
pub(crate) mod counts;
mod listener;
pub(crate) mod snapshot;
mod source;
