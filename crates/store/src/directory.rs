//! The services' copy of the configuration, and the notices that keep the copy current.

mod changes;
mod listener;
pub(crate) mod snapshot;
mod source;
