//! Latency of healthy endpoints beside loads and failing endpoints.

pub(crate) mod beside;
pub(crate) mod dead;
pub(crate) mod failing;
pub(crate) mod publishers;
