//! Which outcome an error means.
//!
//! Decided by the types in the chain of causes, never by their texts, which change with each version of
//! the libraries.

use std::{error::Error, io, iter};

use fanfare_domain::outcome::Outcome;
use rustls::pki_types::InvalidDnsNameError;

use crate::{connect::DialError, egress::TunnelError};

/// Longest text of a cause that is kept, in characters. A certificate can name a hundred hosts.
const MAX_TEXT: usize = 300;

/// What an exchange came to that ended before a response head, and a text for people.
pub(crate) fn classify(error: &(dyn Error + 'static)) -> (Outcome, String) {
    // Whatever is not recognised ended the connection, or we would have got an answer.
    let outcome = causes(error).find_map(judge).unwrap_or(Outcome::ConnectionClosed);
    (outcome, describe(outcome, error))
}

/// The text of the innermost cause, which is the one that says something.
pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
    causes(error).last().unwrap_or(error).to_string().chars().take(MAX_TEXT).collect()
}

/// The error and what caused it, the outermost first.
///
/// `source()` of an [`io::Error`] that wraps an error is the source *of that error*, and would skip the very
/// one that `rustls` reports.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    })
}

/// What one link of the chain means, if it means anything by itself.
fn judge(cause: &(dyn Error + 'static)) -> Option<Outcome> {
    if let Some(error) = cause.downcast_ref::<DialError>() {
        return match error {
            DialError::LookupFailed(_) => Some(Outcome::NameNotResolved),
            DialError::Forbidden(_) | DialError::NoTunnel(TunnelError::Refused(_)) => Some(Outcome::AddressForbidden),
            DialError::NoTunnel(_) => Some(Outcome::ConnectionFailed),
            DialError::ConnectFailed(error) => Some(match error.kind() {
                io::ErrorKind::TimedOut => Outcome::TimedOut,
                // It was accepted and ended before we looked.
                io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected => Outcome::ConnectionClosed,
                _ => Outcome::ConnectionFailed,
            }),
            DialError::TimedOut => Some(Outcome::TimedOut),
        };
    }
    if cause.is::<rustls::Error>() {
        return Some(Outcome::TlsFailed);
    }
    // A host name that no certificate can hold.
    if cause.is::<InvalidDnsNameError>() {
        return Some(Outcome::NotSendable);
    }
    if let Some(error) = cause.downcast_ref::<io::Error>() {
        // The kernel gave up on a peer that acknowledges nothing.
        return (error.kind() == io::ErrorKind::TimedOut).then_some(Outcome::TimedOut);
    }
    let error = cause.downcast_ref::<hyper::Error>()?;
    let ended = error.is_incomplete_message() || error.is_closed() || error.is_canceled() || error.is_user();
    // What has no cause and did not end the connection is bytes that came before anything was asked.
    let unasked = error.source().is_none() && !ended;
    (error.is_parse() || unasked).then_some(Outcome::NotHttp)
}

fn describe(outcome: Outcome, error: &(dyn Error + 'static)) -> String {
    if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<DialError>()) {
        return error.to_string();
    }
    let what = match outcome {
        Outcome::TlsFailed => "no TLS session",
        Outcome::NotHttp => "the answer was not HTTP that we can read",
        Outcome::NotSendable => "the request cannot be made",
        Outcome::TimedOut => "no answer in time",
        _ => "the connection ended before the response head",
    };
    format!("{what}: {}", root_cause(error))
}
