//! Maps an error to an outcome.
//!
//! The types in the chain of causes decide, never the texts, which change with each version of the libraries.

use std::{error::Error, io, iter};

use fanfare_domain::delivery::outcome::Outcome;
use rustls::pki_types::InvalidDnsNameError;

use crate::network::{
    connect::DialError,
    egress::{TunnelError, WRONG_CREDENTIALS},
    evidence::Suspect,
    names::NameError,
};

/// No connection was made for a reason of ours. The receiver is not at fault, and the attempt does not count.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct EgressUnavailable(pub(crate) String);

/// Errors of the operating system for missing descriptors, buffers and memory: EMFILE, ENFILE, ENOBUFS and ENOMEM.
const MACHINE: [i32; 4] = [24, 23, 105, 12];

/// The part of ours that may be the cause of an error; `None` if the receiver is at fault.
pub(crate) fn suspect(error: &(dyn Error + 'static)) -> Option<Suspect> {
    match causes(error).find_map(|cause| cause.downcast_ref::<DialError>())? {
        DialError::LookupFailed(NameError::NoAnswer(_)) => Some(Suspect::Names),
        DialError::NoTunnel { error, authority } => match error {
            TunnelError::Refused(_) => None,
            TunnelError::Unreachable(_) | TunnelError::Failed(WRONG_CREDENTIALS) => Some(Suspect::Certain),
            _ => Some(Suspect::Proxy(Some(authority.clone()))),
        },
        DialError::ConnectFailed(error) if error.raw_os_error().is_some_and(|code| MACHINE.contains(&code)) => {
            Some(Suspect::Certain)
        }
        DialError::Unroutable { address, .. } => Some(Suspect::Route(address.to_string())),
        _ => None,
    }
}

/// Longest recorded text of a cause, in characters. A certificate can name a hundred hosts.
const MAX_TEXT: usize = 300;

/// Outcome of an exchange that ended before a response head, and a text for people.
pub(crate) fn classify(error: &(dyn Error + 'static)) -> (Outcome, String) {
    // Any other error ended the connection, or a response would have arrived.
    let outcome = causes(error).find_map(judge).unwrap_or(Outcome::ConnectionClosed);
    (outcome, describe(outcome, error))
}

/// Text of the innermost cause, the most specific text.
pub(crate) fn root_cause(error: &(dyn Error + 'static)) -> String {
    causes(error).last().unwrap_or(error).to_string().chars().take(MAX_TEXT).collect()
}

/// The error and the chain of causes, outermost first.
///
/// `source()` of an [`io::Error`] that wraps an error is the source *of the wrapped error*, and would skip the very
/// error that `rustls` reports.
fn causes<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    iter::successors(Some(error), |&error| match error.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
        Some(wrapped) => Some(wrapped),
        None => error.source(),
    })
}

/// The outcome of a single cause, if the cause alone determines an outcome.
fn judge(cause: &(dyn Error + 'static)) -> Option<Outcome> {
    if let Some(error) = cause.downcast_ref::<DialError>() {
        return match error {
            DialError::LookupFailed(_) => Some(Outcome::NameNotResolved),
            DialError::Forbidden(_) | DialError::NoTunnel { error: TunnelError::Refused(_), .. } => {
                Some(Outcome::AddressForbidden)
            }
            DialError::NoTunnel { error: TunnelError::TimedOut, .. } => Some(Outcome::TimedOut),
            DialError::NoTunnel { .. } | DialError::Unroutable { .. } => Some(Outcome::ConnectionFailed),
            DialError::ConnectFailed(error) => Some(match error.kind() {
                io::ErrorKind::TimedOut => Outcome::TimedOut,
                // The connection was accepted, and ended before the check.
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
        // The kernel gave up on a peer that acknowledges no packets.
        return (error.kind() == io::ErrorKind::TimedOut).then_some(Outcome::TimedOut);
    }
    let error = cause.downcast_ref::<hyper::Error>()?;
    let ended = error.is_incomplete_message() || error.is_closed() || error.is_canceled() || error.is_user();
    // An error without a cause on a connection that did not end: bytes arrived before any request.
    let unasked = error.source().is_none() && !ended;
    (error.is_parse() || unasked).then_some(Outcome::NotHttp)
}

fn describe(outcome: Outcome, error: &(dyn Error + 'static)) -> String {
    if let Some(error) = causes(error).find_map(|cause| cause.downcast_ref::<DialError>()) {
        return error.to_string();
    }
    let what = match outcome {
        Outcome::TlsFailed => "no TLS session",
        Outcome::NotHttp => "the answer was not readable HTTP",
        Outcome::NotSendable => "the request cannot be made",
        Outcome::TimedOut => "no answer in time",
        _ => "the connection ended before the response head",
    };
    format!("{what}: {}", root_cause(error))
}
