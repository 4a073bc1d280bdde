//! The latency of healthy endpoints beside others.

pub(crate) mod beside;
pub(crate) mod dead;
pub(crate) mod failing;
