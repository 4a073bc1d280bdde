//! Protection: API keys, shares of the API, secrets, TLS, privacy, and the audit log.

mod audit;
mod keys;
mod privacy;
mod secrets;
mod shares;
pub(crate) mod tls;
