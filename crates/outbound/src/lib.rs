//! The one way to an endpoint: sign, guard, dial, POST.
//!
//! Whatever calls a URL that a customer chose goes through [`Client::post`], which bounds the exchange in
//! time, size and reach and answers with an [`Exchange`], never with an error. [`Client::probe`] goes the same
//! way for people who look on, and tells in addition what was sent and how long each phase took.
//!
//! - `sign`: the headers by which a receiver knows that a delivery is ours
//! - `connect`: from a host name to a connection to a permitted address, with TLS on it
//! - `names`: from host names to addresses
//! - `egress`: a proxy of the operator's, through which connections go
//! - `client`: one POST, from request to recorded answer
//! - `timings`: how long each phase of a probe took
//! - `failure`: which [`Outcome`](fanfare_domain::outcome::Outcome) an error means

mod client;
mod connect;
mod egress;
mod failure;
mod names;
mod sign;
mod timings;
mod tls;

pub use client::{Client, Exchange, MAX_RESPONSE_BODY, Probe, Request, Settings};
pub use egress::{NotAProxy, Proxy, ProxyAddress};
pub use names::{NameServer, NotANameServer};
pub use timings::Timings;
pub use tls::SetupError;
