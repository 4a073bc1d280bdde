//! Stages of the pipeline, joined by bounded channels. Items move forward by value.
//!
//! ```text
//! queue events ────► events ──► persist ──► ack
//!                                  │ sending
//!                                  ▼
//!                  retries ──► attempt ──► record ──► retry messages ──► delay queues ──► queue deliveries
//!                     │           ▲           │ given back
//!                     └► backlogs ──► drain   ▼
//!                           ▲──────────────────
//! ```

pub(crate) mod attempt;
mod batch;
pub(crate) mod events;
pub(crate) mod fan_out;
pub(crate) mod in_flight;
pub(crate) mod leased;
pub(crate) mod matching;
pub(crate) mod park;
pub(crate) mod persist;
pub(crate) mod record;
pub(crate) mod retries;
mod retry_messages;
pub(crate) mod shaping;
mod spans;
pub(crate) mod unrouted;

pub(crate) use in_flight::InFlight;
