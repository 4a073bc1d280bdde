//! Features that a webhook or an event may use: order, FIFO, filters, templates, feeds, digests, delays,
//! authentication, asymmetric signatures, and operational events.

mod asymmetric;
mod authentication;
mod delayed;
mod digests;
mod feed;
mod fifo;
mod filters;
pub(crate) mod operational;
mod order;
mod templates;
