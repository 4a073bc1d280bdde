//! Operation: settings, keys, mail, TLS, privacy, the audit log, and documents that match the code.

mod audit;
mod docs_match_code;
mod keys;
mod mail;
mod node_prints_json;
mod privacy;
mod services;
mod tls;
