//! Types and every decision of Fanfare, pure: no tokio, no I/O, no clock, no randomness.
//!
//! Time, random bits and fresh ids are arguments of the functions here, so that property tests reach every decision.
//! All I/O is in the crates that depend on this crate.

pub mod address;
pub mod api_key;
pub mod application;
pub mod breaker;
pub mod catalogue;
pub mod client_address;
pub mod delay;
pub mod delivery;
pub mod dialect;
pub mod display_name;
pub mod duration;
pub mod email;
pub mod endpoint_url;
pub mod event;
pub mod header;
pub mod ids;
pub mod json;
pub mod lane;
pub mod outcome;
pub mod parked;
pub mod policy;
pub mod quota;
pub mod rate;
pub mod redaction;
pub mod replay;
pub mod retry;
pub mod secret;
pub mod subscription;
pub mod time;
pub mod traceparent;
