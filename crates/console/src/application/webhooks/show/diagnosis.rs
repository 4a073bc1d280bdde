//! The state of a webhook in words: the diagnosis, and the time of a drain. All is pure.

use fanfare_api::routes::{
    audit_log::Shown as Change,
    deliveries::attempts::AttemptLog,
    webhooks::{MAX_COUNTED, Webhook, backlog::Backlog, health::WebhookHealth},
};
use fanfare_domain::diagnosis::changes::may_have_caused;

use crate::{
    application::webhooks::test_send::result::in_words,
    frame::marks::{self, bounded, exactly},
};

/// The facts of a diagnosis.
pub(crate) struct Facts<'a> {
    pub(crate) webhook: &'a Webhook,
    pub(crate) health: &'a WebhookHealth,
    pub(crate) backlog: Option<&'a Backlog>,
    /// The last attempts, newest first.
    pub(crate) attempts: &'a [AttemptLog],
    /// Changes, newest first.
    pub(crate) changes: &'a [Change],
}

/// The troubles of a webhook, as sentences. Empty for a webhook in good health.
pub(crate) fn diagnosis(facts: &Facts<'_>) -> Vec<String> {
    let mut sentences = Vec::new();
    if let Some(reason) = &facts.webhook.status_reason {
        sentences.push(match reason.as_str() {
            "endpoint_gone" => "Fanfare disabled the webhook: it answered that it wants no more events.".to_owned(),
            "disabled_by_receiver" => "Fanfare disabled the webhook: an answer had webhook-action: disable.".to_owned(),
            other => format!("Fanfare disabled the webhook: {}.", other.replace('_', " ")),
        });
    }
    if let Some(since) = facts.health.failing_since {
        let last = last_results(facts.attempts);
        sentences.push(format!("Each attempt has failed since {}{last}.", exactly(&since)));
        if let Some(change) = facts.changes.iter().find(|change| may_have_caused(change.at, since)) {
            let action = change.action.replace('_', " ");
            sentences.push(format!("Changed just before: {action}, at {}.", exactly(&change.at)));
        }
    }
    if let Some(until) = facts.backlog.and_then(|backlog| backlog.rests_until_at) {
        sentences
            .push(format!("The webhook asked for a wait by Retry-After. Fanfare sends again at {}.", exactly(&until)));
    }
    if let Some(probe) = facts.backlog.and_then(|backlog| backlog.next_probe_at) {
        let failures = facts.backlog.map_or(0, |backlog| backlog.failures);
        sentences.push(format!(
            "After {failures} failures in a row Fanfare only probes the webhook, next at {}. The first success sends \
             all waiting deliveries.",
            exactly(&probe)
        ));
    }
    sentences
}

/// The result that the last attempts share, for the end of a sentence.
fn last_results(attempts: &[AttemptLog]) -> String {
    let result = |attempt: &AttemptLog| attempt_in_words(attempt);
    let Some(first) = attempts.first().map(result) else { return String::new() };
    let same = attempts.iter().take_while(|attempt| result(attempt) == first).count();
    match same {
        1 => format!("; the last attempt: {first}"),
        _ => format!("; the last {same} attempts: {first}"),
    }
}

/// The result of an attempt in few words.
pub(crate) fn attempt_in_words(attempt: &AttemptLog) -> String {
    match attempt.response_status {
        Some(status) => format!("answered {status}"),
        None => in_words(&attempt.outcome).to_owned(),
    }
}

/// The time that held deliveries take after a resume: at the rate, or at most one after the other.
pub(crate) fn drain_in_words(held: i64, rate: Option<u32>, answer_ms: Option<f64>) -> String {
    let held_count = held.max(0).unsigned_abs();
    let things =
        if held == 1 { "1 delivery is".to_owned() } else { format!("{} deliveries are", bounded(&held, MAX_COUNTED)) };
    match (rate, answer_ms) {
        (Some(rate), _) if rate > 0 => {
            let seconds = held_count.div_ceil(rate.into());
            format!("{things} held. At {rate} attempts in a second they take {}.", marks::took(seconds * 1000))
        }
        (_, Some(answer_ms)) => {
            // Durations and counts are far below the limits of the numbers.
            let total = (answer_ms.max(1.0) * held_count as f64) as u64;
            let answer = marks::took(answer_ms.max(1.0) as u64);
            format!("{things} held. At the present answer time of {answer} they take at most {}.", marks::took(total))
        }
        (_, None) => format!("{things} held. They are sent as fast as the webhook takes them."),
    }
}

/// The progress of a drain: the number at the resume, and the number that still waits.
#[derive(Debug, PartialEq)]
pub(crate) struct Drain {
    pub(crate) total: i64,
    pub(crate) sent: i64,
}

impl Drain {
    /// The progress after a resume with `held` deliveries; `None` if nothing was held.
    pub(crate) fn new(held: i64, queued: i64) -> Option<Self> {
        (held > 0).then(|| Self { total: held, sent: (held - queued.max(0)).clamp(0, held) })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_drain_goes_from_nothing_to_all(held in -5_i64..20_000, queued in -5_i64..20_000) {
            match Drain::new(held, queued) {
                Some(drain) => prop_assert!((0..=drain.total).contains(&drain.sent) && drain.total == held),
                None => prop_assert!(held <= 0),
            }
        }

        #[test]
        fn a_drain_has_a_time(held in 0_i64..1_000_000, rate in proptest::option::of(0_u32..10_000), answer in proptest::option::of(0.0_f64..60_000.0)) {
            prop_assert!(drain_in_words(held, rate, answer).contains(" held. "));
        }
    }

    #[test]
    fn the_time_of_a_drain_follows_the_rate_before_the_answer_time() {
        let words = drain_in_words(50, Some(5), Some(40.0));
        assert_eq!(words, "50 deliveries are held. At 5 attempts in a second they take 10.0 s.");
        let words = drain_in_words(1, None, Some(40.0));
        assert_eq!(words, "1 delivery is held. At the present answer time of 40 ms they take at most 40 ms.");
    }
}
