//! Connections: pools, TLS, the database's clock, keys and errors.

pub(crate) mod caller;
pub(crate) mod clock;
pub(crate) mod dialler;
pub(crate) mod error;
pub(crate) mod kept_plan;
pub(crate) mod keyring;
pub(crate) mod pools;
pub(crate) mod store;
pub(crate) mod tls;
