//! Protection: API keys, secrets, TLS, privacy, and the audit log.

mod audit;
mod keys;
mod privacy;
mod secrets;
pub(crate) mod tls;
