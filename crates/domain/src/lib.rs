//! Types and every decision of Fanfare, pure: no tokio, no I/O, no clock, no randomness.
//!
//! Time, random bits and fresh ids are arguments of the functions here, so that property tests reach every decision.
//! All I/O is in the crates that depend on this crate.

pub mod access;
pub mod application;
pub mod delivery;
pub mod diagnosis;
pub mod dialect;
pub mod display_name;
pub mod endpoint;
pub mod event;
pub mod expression;
pub mod ids;
pub mod json;
pub mod operational;
pub mod rate_limit;
pub mod theme;
pub mod time;
