//! The services' copy of the configuration, and the notices that keep it current.

pub(crate) mod listener;
pub(crate) mod snapshot;
