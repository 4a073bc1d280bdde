//! Findings on endpoints: failing, held, expiring, and rotations that end.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    Finding, Severity, Subject, Whose,
    text::{bounded, duration, time},
};
use crate::{
    diagnosis::changes::may_have_caused,
    endpoint::health::FAILING_AFTER,
    ids::{ApplicationId, EndpointId},
    time::saturating_add,
};

/// Bound of the count of an endpoint's waiting deliveries.
pub const MAX_WAITING: u64 = 1000;

/// Bound of the count of an endpoint's held deliveries: half of the usual maximum of held deliveries.
pub const MAX_HELD: u64 = 50_000;

/// An expiry or an end of a rotation within this time is a finding.
const SOON: Duration = Duration::from_secs(3600);

/// Time before the end of a client certificate from which the end is a finding.
pub const CERTIFICATE_ENDS_SOON: Duration = Duration::from_secs(14 * 86_400);

/// An endpoint that fails, or that has an open breaker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndpointFact {
    /// Application of the endpoint.
    pub application: ApplicationId,
    /// Id of the endpoint.
    pub endpoint: EndpointId,
    /// Host of the URL.
    pub host: String,
    /// Time since which each attempt failed.
    pub since: Option<Timestamp>,
    /// Status or outcome of the last failed attempt.
    pub cause: Option<String>,
    /// Queued deliveries, counted up to [`MAX_WAITING`].
    pub waiting: u64,
    /// Time of the next probe; `None` if the breaker is closed.
    pub next_probe: Option<Timestamp>,
    /// The last change of the endpoint before the failure.
    pub change: Option<ChangeFact>,
}

/// A change in the audit log.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ChangeFact {
    /// Time of the change.
    pub at: Timestamp,
    /// Operation in the API's description, or the command.
    pub action: String,
    /// Visitor, key or origin of the change. Only operators may see the author.
    pub by: String,
}

/// Deliveries held for a paused endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeldFact {
    /// Application of the endpoint.
    pub application: ApplicationId,
    /// Id of the endpoint.
    pub endpoint: EndpointId,
    /// Host of the URL.
    pub host: String,
    /// Held deliveries, counted up to [`MAX_HELD`].
    pub held: u64,
    /// Longest time of a delivery in the backlog.
    pub since: Timestamp,
    /// Maximum of held deliveries; `None` if no dispatcher runs.
    pub max_held: Option<u64>,
    /// Longest time for which deliveries are held.
    pub max_age: Option<Duration>,
}

/// The oldest queued delivery of an endpoint, with its expiry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiringFact {
    /// Application of the endpoint.
    pub application: ApplicationId,
    /// Id of the endpoint.
    pub endpoint: EndpointId,
    /// Host of the URL.
    pub host: String,
    /// Time of the expiry.
    pub expires_at: Timestamp,
}

/// A rotation of a signing secret with a previous secret that still signs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RotationFact {
    /// Application of the endpoint.
    pub application: ApplicationId,
    /// Id of the endpoint.
    pub endpoint: EndpointId,
    /// Host of the URL.
    pub host: String,
    /// End of the previous secret.
    pub ends_at: Timestamp,
}

/// A client certificate that ends soon, or has ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CertificateFact {
    /// Application of the endpoint.
    pub application: ApplicationId,
    /// Id of the endpoint.
    pub endpoint: EndpointId,
    /// Host of the URL.
    pub host: String,
    /// End of the certificate.
    pub ends_at: Timestamp,
}

/// The reader of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Reader {
    /// The operators of Fanfare.
    Operator,
    /// The owner of an application, who must not see names and addresses of others.
    Customer,
}

/// Endpoints that have failed for ten minutes, or behind an open breaker.
pub(super) fn failing(endpoints: &[EndpointFact], now: Timestamp, reader: Reader) -> Vec<Finding> {
    let is_failing = |fact: &&EndpointFact| {
        fact.next_probe.is_some() || fact.since.is_some_and(|since| saturating_add(since, FAILING_AFTER) <= now)
    };
    endpoints.iter().filter(is_failing).map(|fact| fails(fact, now, reader)).collect()
}

fn fails(fact: &EndpointFact, now: Timestamp, reader: Reader) -> Finding {
    let mut sentence = format!("{} fails", fact.host);
    if let Some(since) = fact.since {
        sentence = format!("{} has failed since {}", fact.host, time(since, now));
    }
    if let Some(cause) = &fact.cause {
        sentence += &format!(" ({})", cause.replace('_', " "));
    }
    let is_likely = |change: &&ChangeFact| fact.since.is_some_and(|since| may_have_caused(change.at, since));
    let change = fact.change.as_ref().filter(is_likely);
    if let Some(change) = change {
        let author = if reader == Reader::Operator { format!(", by {}", change.by) } else { String::new() };
        sentence += &format!(", right after {} ({}{author})", described(&change.action), time(change.at, now));
    }
    sentence += ".";
    if fact.waiting > 0 {
        sentence += &format!(" {}", bounded(fact.waiting, MAX_WAITING, "delivery waits", "deliveries wait"));
        if let Some(next) = fact.next_probe {
            sentence += &format!(", the next is tried at {}", time(next, now));
        }
        sentence += ".";
    }
    let action = match change {
        Some(_) => "Look at the change and at the last attempts; undo the change, or tell the owner of the endpoint.",
        None => "Look at the last attempts, and tell the owner of the endpoint; pause the webhook to hold deliveries.",
    };
    let subject = Subject::Webhook(fact.application, fact.endpoint);
    Finding::new(Severity::Warning, Whose::Theirs, subject, (sentence, action)).since(fact.since)
}

/// A change in words.
fn described(action: &str) -> String {
    match action {
        "rotate_secret" => "its secret was rotated".to_owned(),
        "end_rotation" => "the rotation of its secret was ended".to_owned(),
        "change_webhook" | "put_webhook" | "put_webhook_configs" => "its settings were changed".to_owned(),
        "enable_webhook" => "it was enabled".to_owned(),
        "create_webhook" => "it was created".to_owned(),
        other => format!("the change `{other}`"),
    }
}

/// Endpoints whose held deliveries reach half of a bound, or the bound of the count.
pub(super) fn held(facts: &[HeldFact], now: Timestamp) -> Vec<Finding> {
    let found = |fact: &HeldFact| {
        let age = Duration::try_from(now.duration_since(fact.since)).unwrap_or_default();
        let is_many = fact.max_held.is_some_and(|most| most > 0 && fact.held >= most.div_ceil(2).min(MAX_HELD));
        let is_old = fact.max_age.is_some_and(|most| age >= most / 2);
        if !is_many && !is_old || fact.held == 0 {
            return None;
        }
        let held = bounded(fact.held, MAX_HELD, "delivery is", "deliveries are");
        let mut sentence = format!("{held} held for {}, paused for {}", fact.host, duration(age));
        match (is_old.then_some(fact.max_age).flatten(), fact.max_held) {
            (Some(most), _) => sentence += &format!(": deliveries fail after {}.", duration(most)),
            (None, Some(most)) => sentence += &format!(": the oldest fail beyond {most}."),
            (None, None) => sentence += ".",
        }
        let subject = Subject::Webhook(fact.application, fact.endpoint);
        let action = "Enable the webhook, or tell its owner: held deliveries fail at the bound.";
        let finding = Finding::new(Severity::Warning, Whose::Theirs, subject, (sentence, action));
        Some(finding.since(Some(fact.since)))
    };
    facts.iter().filter_map(found).collect()
}

/// Endpoints whose oldest queued delivery expires within the hour.
pub(super) fn expiring(facts: &[ExpiringFact], now: Timestamp) -> Vec<Finding> {
    let is_soon = |fact: &&ExpiringFact| fact.expires_at <= saturating_add(now, SOON);
    let found = |fact: &ExpiringFact| {
        let sentence = format!("Queued deliveries to {} expire from {} on.", fact.host, time(fact.expires_at, now));
        let subject = Subject::Webhook(fact.application, fact.endpoint);
        let action = "Find out why the endpoint takes no deliveries; resend the failed deliveries afterwards.";
        Finding::new(Severity::Warning, Whose::Theirs, subject, (sentence, action))
    };
    facts.iter().filter(is_soon).map(found).collect()
}

/// Rotations that end within the hour.
pub(super) fn rotations(facts: &[RotationFact], now: Timestamp) -> Vec<Finding> {
    let is_soon = |fact: &&RotationFact| fact.ends_at > now && fact.ends_at <= saturating_add(now, SOON);
    let found = |fact: &RotationFact| {
        let sentence = format!("The previous secret of {} signs until {}.", fact.host, time(fact.ends_at, now));
        let subject = Subject::Webhook(fact.application, fact.endpoint);
        let action = "Make sure that the receiver verifies with the new secret: send a test event.";
        Finding::new(Severity::Notice, Whose::Theirs, subject, (sentence, action))
    };
    facts.iter().filter(is_soon).map(found).collect()
}

/// Client certificates that end within 14 days, or have ended.
pub(super) fn certificates(facts: &[CertificateFact], now: Timestamp) -> Vec<Finding> {
    let is_soon = |fact: &&CertificateFact| fact.ends_at <= saturating_add(now, CERTIFICATE_ENDS_SOON);
    let found = |fact: &CertificateFact| {
        let has_ended = fact.ends_at <= now;
        let (word, severity) =
            if has_ended { ("has ended at", Severity::Warning) } else { ("ends at", Severity::Notice) };
        let sentence = format!("The client certificate for {} {word} {}.", fact.host, time(fact.ends_at, now));
        let subject = Subject::Webhook(fact.application, fact.endpoint);
        let action = "Give the webhook a renewed certificate: after the end no delivery is sent.";
        Finding::new(severity, Whose::Theirs, subject, (sentence, action))
    };
    facts.iter().filter(is_soon).map(found).collect()
}
