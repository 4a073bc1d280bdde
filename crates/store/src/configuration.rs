//! Statements on the configuration: applications, keys, endpoints, event types, secrets,
//! signing keys, sessions, names, plans.

pub(crate) mod applications;
pub(crate) mod credentials;
pub(crate) mod endpoint_upsert;
pub(crate) mod endpoints;
pub(crate) mod event_types;
pub(crate) mod keys;
pub(crate) mod names;
pub(crate) mod plans;
pub(crate) mod secrets;
pub(crate) mod sessions;
pub(crate) mod signing_keys;
