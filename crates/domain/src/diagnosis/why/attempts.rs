//! Steps about attempts: attempts in a row with the same result are one step.

use crate::{
    delivery::{
        State,
        outcome::{Outcome, OutcomeClass, OutcomeRules},
    },
    diagnosis::why::{AttemptFacts, DeliveryFacts, Fault, Remedy, Step, WebhookFacts},
};

/// Steps of the attempts, first to last. Only the last step of an unfinished or failed delivery has a remedy.
pub(super) fn steps(webhook: &WebhookFacts, delivery: &DeliveryFacts) -> Vec<Step> {
    let rules = webhook.rules.clone().unwrap_or_default();
    let runs: Vec<&[AttemptFacts]> = webhook.attempts.chunk_by(is_same).collect();
    let last = runs.len().saturating_sub(1);
    let step = |(place, run): (usize, &&[AttemptFacts])| {
        let mut step = step(&rules, webhook, run, place > 0)?;
        if place != last || delivery.state == State::Delivered || webhook.deleted_at.is_some() {
            step.remedy = None;
        }
        Some(step)
    };
    runs.iter().enumerate().filter_map(step).collect()
}

fn is_same(left: &AttemptFacts, right: &AttemptFacts) -> bool {
    left.outcome == right.outcome && left.digest == right.digest && left.url == right.url
}

fn step(rules: &OutcomeRules, webhook: &WebhookFacts, run: &[AttemptFacts], is_change: bool) -> Option<Step> {
    let (first, last) = (run.first()?, run.last()?);
    let attempts = match run.len() {
        1 => format!("Attempt {}", first.number),
        _ => format!("Attempts {} to {}, each with the same result", first.number, last.number),
    };
    let is_success = rules.of(last.outcome) == OutcomeClass::Delivered;
    let (sentence, fault, remedy) =
        if is_success { (taken(last.outcome), None, None) } else { described(last, webhook) };
    let sentence = format!("{attempts}: {sentence}");
    let step = if is_success { Step::done("taken", sentence) } else { Step::problem(last.outcome.code(), sentence) };
    let mut step = step.with("first_started_at", first.started_at);
    if run.len() > 1 {
        step = step.with("last_started_at", last.started_at);
    }
    if let Some(status) = last.outcome.status() {
        step = step.with("status", status);
    }
    if let Some(duration) = last.duration_ms {
        step = step.with("duration_ms", duration);
    }
    if let Some(error) = &last.error {
        step = step.with("error", error);
    }
    if let Some(url) = &last.url {
        step = step.with("url", url);
    }
    if is_change {
        step = step.with("compared", "another result than before");
    }
    Some(Step { fault, ..step.mend(remedy) })
}

fn taken(outcome: Outcome) -> String {
    let status = outcome.status().unwrap_or_default();
    format!("the webhook took the event with status {status}.")
}

/// The outcome of a failed attempt in words, the side at fault, and the remedy.
fn described(attempt: &AttemptFacts, webhook: &WebhookFacts) -> (String, Option<Fault>, Option<Remedy>) {
    let outcome = attempt.outcome;
    let has_ended = webhook.certificate_ends_at.is_some_and(|end| end <= attempt.started_at);
    let change_url = Remedy::ChangeUrl(webhook.id);
    let (words, remedy) = match outcome {
        Outcome::Answered { status, .. } => {
            let (words, remedy) = answered(status, webhook);
            return (format!("the webhook answered with status {status}: {words}."), Some(Fault::Theirs), remedy);
        }
        Outcome::TimedOut => ("the webhook did not answer within the deadline.", None),
        Outcome::ConnectionFailed => ("no connection: nothing listens at the address, or no route leads there.", None),
        Outcome::ConnectionClosed => ("the connection ended before an answer.", None),
        Outcome::NameNotResolved => ("the name of the host has no address.", Some(change_url)),
        Outcome::AddressForbidden => {
            ("the name of the host leads to an address that may not be called.", Some(change_url))
        }
        Outcome::TlsFailed => {
            ("the TLS handshake failed: certificate, name or protocol.", Some(Remedy::RepairCertificate(webhook.id)))
        }
        Outcome::NotHttp => ("the answer was no HTTP.", Some(change_url)),
        Outcome::NotSendable if has_ended => (
            "nothing was sent: the client certificate of the webhook has ended.",
            Some(Remedy::ChangeAuthentication(webhook.id)),
        ),
        Outcome::NotSendable => ("the saved URL and headers give no valid request.", Some(change_url)),
        Outcome::Unknown => {
            let words = "Fanfare's process ended before recording the result. The webhook may have the event.";
            return (words.to_owned(), Some(Fault::Ours), None);
        }
    };
    (words.to_owned(), Some(Fault::Theirs), remedy)
}

/// The usual meaning of a status that is a failure.
fn answered(status: u16, webhook: &WebhookFacts) -> (&'static str, Option<Remedy>) {
    let (change_url, check) = (Some(Remedy::ChangeUrl(webhook.id)), Some(Remedy::CheckSignature(webhook.id)));
    match status {
        200..300 => ("the rules of the application count the status as a failure", None),
        300..400 => ("a redirect, and Fanfare follows no redirect", change_url),
        401 if webhook.has_authentication => {
            ("the authentication was refused", Some(Remedy::ChangeAuthentication(webhook.id)))
        }
        401 | 403 => ("the signature or the credentials were refused", check),
        404 | 405 => ("the URL takes no such request", change_url),
        408 | 504 => ("the receiver gave up waiting", None),
        410 => ("the receiver wants no more events", None),
        413 => ("the body is too large for the receiver", None),
        429 => ("the receiver gets too many requests", None),
        400..500 => ("the receiver refused the event", None),
        502 | 503 => ("the receiver is not available behind its proxy", None),
        _ => ("the receiver failed", None),
    }
}
