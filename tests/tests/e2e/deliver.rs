//! Deliveries: the main path, answers, isolation, backlogs, rates, replays, feeds, filters, order, FIFO, delays,
//! authentication and asymmetric signatures.

mod answers;
mod asymmetric;
mod authentication;
mod backlog;
mod delayed;
mod digests;
mod egress;
mod event_flow;
mod fan_out;
mod feed;
mod fifo;
mod filters;
mod isolation;
pub(crate) mod operational;
mod order;
mod rates;
mod receivers;
mod replays;
mod templates;
mod tenants;
