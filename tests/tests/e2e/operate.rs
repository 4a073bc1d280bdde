//! Operation: settings, secrets, keys, mail, TLS, privacy, archive, audit log, and documents that match the code.

mod archive;
mod audit;
mod docs_match_code;
mod doctor;
mod keys;
mod mail;
mod node_prints_json;
mod overview;
mod privacy;
mod secrets;
mod services;
mod tls;
mod traces;
mod upgrade;
mod verify;
