//! Statements on the configuration: applications, keys, endpoints, event types, secrets.

pub(crate) mod applications;
pub(crate) mod endpoint_upsert;
pub(crate) mod endpoints;
pub(crate) mod event_types;
pub(crate) mod keys;
pub(crate) mod secrets;
