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

mod batch;
pub(crate) mod intake;
pub(crate) mod sending;
mod spans;

pub(crate) use sending::in_flight::InFlight;
