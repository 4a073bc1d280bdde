//! Every route against the OpenAPI document: generated requests, invalid input, rights, and idempotency.

mod access;
mod bad_input;
pub(crate) mod contract;
mod generated;
mod idempotency;
mod least_rights;
mod openapi;
pub(crate) mod samples;
