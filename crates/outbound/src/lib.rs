//! The only path to an endpoint: sign, guard, dial, POST.
//!
//! All calls of a URL chosen by a customer go through [`Client::post`], which bounds the exchange in time, size and
//! reach, and returns an [`Exchange`]. The only error is a reason of ours for which no connection was made.
//! [`Client::probe`] makes the same call for people, and also reports the request and the duration of each phase.
//!
//! - `sign`: headers by which a receiver recognises a genuine delivery
//! - `mistakes`: mistakes in a receiver's check of signatures
//! - `network`: from a URL to a connection to a permitted address, by names, proxy, TLS and client certificates; and
//!   whether our own name servers, proxy and routes work
//! - `tokens`: tokens of token servers
//! - `client`: a POST, from request to response
//! - `exchange`: the recorded part of the response
//! - `timings`: duration of each phase of a probe
//! - `failure`: the [`Outcome`](fanfare_domain::delivery::outcome::Outcome) of an error

mod client;
mod exchange;
mod failure;
pub mod mistakes;
mod network;
mod sign;
mod timings;
mod tokens;

pub use client::{Client, MAX_IDLE, Probe, Request, Settings, attempt_headers};
pub use exchange::{Exchange, MAX_RESPONSE_BODY};
pub use failure::EgressUnavailable;
pub use network::{
    certificates::{CertificateFault, check_certificate},
    egress::{InvalidProxy, Proxy, ProxyAddress},
    name_servers::{InvalidNameServer, NameServer},
    tls::SetupError,
};
pub use sign::is_signed;
pub use timings::Timings;
