//! The one way to an endpoint: sign, guard, dial, POST.
//!
//! Whatever calls a URL that a customer chose goes through [`Client::post`], which bounds the exchange in
//! time, size and reach and answers with an [`Exchange`], never with an error.
//!
//! - `sign`: the headers by which a receiver knows that a delivery is ours
//! - `connect`: from a host name to a connection to a permitted address, with TLS on it
//! - `client`: one POST, from request to recorded answer
//! - `failure`: which [`Outcome`](fanfare_domain::outcome::Outcome) an error means

mod client;
mod connect;
mod failure;
mod sign;
mod tls;

pub use client::{Client, Exchange, MAX_RESPONSE_BODY, Request, Settings};
pub use sign::signature_headers;
pub use tls::SetupError;
