//! The only path to an endpoint: sign, guard, dial, POST.
//!
//! All calls of a URL chosen by a customer go through [`Client::post`], which bounds the exchange in time, size and
//! reach, and returns an [`Exchange`]. The only error is a reason of ours for which no connection was made.
//! [`Client::probe`] makes the same call for people, and also reports the request and the duration of each phase.
//!
//! - `sign`: headers by which a receiver recognises a genuine delivery
//! - `mistakes`: mistakes in a receiver's check of signatures
//! - `connect`: from a host name to a connection to a permitted address, with TLS
//! - `connections`: number of open connections
//! - `names`: from host names to addresses
//! - `egress`: the operator's proxy for connections
//! - `evidence`: whether our own name servers, proxy and routes work
//! - `certificates`: client certificates, and their connections
//! - `tokens`: tokens of token servers
//! - `client`: a POST, from request to response
//! - `exchange`: the recorded part of the response
//! - `timings`: duration of each phase of a probe
//! - `failure`: the [`Outcome`](fanfare_domain::delivery::outcome::Outcome) of an error

mod certificates;
mod client;
mod connect;
mod connections;
mod egress;
mod evidence;
mod exchange;
mod failure;
pub mod mistakes;
mod name_servers;
mod names;
mod sign;
mod timings;
mod tls;
mod tokens;

pub use certificates::{CertificateFault, check_certificate};
pub use client::{Client, MAX_IDLE, Probe, Request, Settings, attempt_headers};
pub use egress::{InvalidProxy, Proxy, ProxyAddress};
pub use exchange::{Exchange, MAX_RESPONSE_BODY};
pub use failure::EgressUnavailable;
pub use name_servers::{InvalidNameServer, NameServer};
pub use sign::is_signed;
pub use timings::Timings;
pub use tls::SetupError;
