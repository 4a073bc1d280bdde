//! Findings on endpoints that stopped: parked ordering keys, and endpoints that an answer disabled.

use jiff::Timestamp;

use super::{
    Finding, Severity, Subject, Whose,
    text::{bounded, time},
};
use crate::ids::{ApplicationId, EndpointId};

/// Bound of the count of an endpoint's parked keys.
pub const MAX_PARKED_KEYS: u64 = 100;

/// An endpoint that gets nothing, or nothing of some ordering keys, until its owner acts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoppedFact {
    /// Application of the endpoint.
    pub application: ApplicationId,
    /// Id of the endpoint.
    pub endpoint: EndpointId,
    /// Host of the URL.
    pub host: String,
    /// Beginning.
    pub since: Timestamp,
    /// Cause of the stop.
    pub cause: Stop,
}

/// The cause of a stop.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Stop {
    /// Given-up deliveries parked this number of ordering keys, counted up to [`MAX_PARKED_KEYS`].
    ParkedKeys(u64),
    /// An answer disabled the endpoint.
    DisabledByAnswer,
}

/// Endpoints that stopped.
pub(super) fn stopped(facts: &[StoppedFact], now: Timestamp) -> Vec<Finding> {
    facts.iter().map(|fact| stops(fact, now)).collect()
}

fn stops(fact: &StoppedFact, now: Timestamp) -> Finding {
    let (host, since) = (&fact.host, time(fact.since, now));
    let (sentence, action) = match fact.cause {
        Stop::ParkedKeys(keys) => {
            let keys = bounded(keys, MAX_PARKED_KEYS, "ordering key is", "ordering keys are");
            let sentence =
                format!("{keys} parked at {host} since {since}: deliveries wait behind a given-up delivery.");
            (sentence, "Resend the given-up deliveries, if the receiver needs them; then resume the keys.")
        }
        Stop::DisabledByAnswer => {
            let sentence = format!("An answer of {host} disabled the webhook at {since}.");
            (sentence, "Ask the owner of the receiver; enable the webhook, and resend or replay the deliveries since.")
        }
    };
    let subject = Subject::Webhook(fact.application, fact.endpoint);
    Finding::new(Severity::Warning, Whose::Theirs, subject, (sentence, action)).since(Some(fact.since))
}
