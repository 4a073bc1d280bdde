//! The services' copy of the configuration, and the notices that keep the copy current.

pub(crate) mod listener;
pub(crate) mod snapshot;
