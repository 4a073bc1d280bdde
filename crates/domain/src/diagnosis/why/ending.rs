//! Steps about a finished delivery: the reason of the end, and the next action.

use crate::{
    delivery::{FailureReason, State},
    diagnosis::why::{DeliveryFacts, EventFacts, Fault, Remedy, Step, WebhookFacts},
    endpoint::{EndpointStatus, Feed},
};

/// Maximum number of changes in the evidence.
const SHOWN: usize = 5;

/// Steps of a finished delivery; none for an open delivery.
pub(super) fn steps(event: &EventFacts, webhook: &WebhookFacts, delivery: &DeliveryFacts) -> Vec<Step> {
    let end = match delivery.state {
        State::Delivered => {
            let step = Step::done("delivered", "The webhook has the event.");
            return vec![step.with("finished_at", delivery.since)];
        }
        State::Skipped if webhook.feed == Feed::Only => {
            let sentence = "Fanfare sends nothing to the webhook: its receiver reads the feed, which lists the event.";
            return vec![Step::done("in_feed", sentence).with("listed_at", delivery.since)];
        }
        State::Skipped => skipped(webhook),
        State::Failed => match delivery.failed {
            Some(reason) => failed(reason, webhook),
            None => Step::problem("failed", "Fanfare gave the delivery up."),
        },
        State::Sending | State::Scheduled | State::Queued | State::Held => return Vec::new(),
    };
    let end = end.with("finished_at", delivery.since);
    changed(event, webhook).into_iter().chain([end.mend(again(event, webhook, delivery))]).collect()
}

fn skipped(webhook: &WebhookFacts) -> Step {
    let step = match webhook.status_reason.as_deref() {
        Some("endpoint_gone") => {
            let sentence = "Fanfare had disabled the webhook: an answer told that no more events are wanted.";
            Step::problem("skipped", sentence).with("status_reason", "endpoint_gone")
        }
        Some("disabled_by_receiver") => {
            let sentence = "Fanfare had disabled the webhook: an answer asked for it, by webhook-action: disable.";
            Step::problem("skipped", sentence).with("status_reason", "disabled_by_receiver")
        }
        _ => Step::problem("skipped", "The webhook was disabled, and the delivery was skipped."),
    };
    step.by(Fault::Theirs)
}

fn failed(reason: FailureReason, webhook: &WebhookFacts) -> Step {
    // An attempt that Fanfare lost is no failure of the receiver.
    let was_answered = webhook.attempts.iter().any(|attempt| attempt.outcome.code() != "unknown");
    let (sentence, fault) = match reason {
        FailureReason::AttemptsExhausted => {
            ("Every attempt of the schedule failed, and Fanfare gave up.", Some(Fault::Theirs))
        }
        FailureReason::Expired if was_answered => {
            ("The delivery was unfinished for longer than permitted, and expired.", Some(Fault::Theirs))
        }
        FailureReason::Expired => ("The delivery expired before the webhook got an attempt.", Some(Fault::Ours)),
        FailureReason::Aborted => {
            ("Fanfare gave up: each process that attempted the delivery died.", Some(Fault::Ours))
        }
        FailureReason::EndpointDeleted => ("The webhook was deleted before the delivery.", Some(Fault::Theirs)),
        FailureReason::Rejected => {
            ("The webhook refused the event for good: the answer ends a delivery at once.", Some(Fault::Theirs))
        }
        FailureReason::EndpointGone => {
            ("The webhook answered that no more events are wanted. Fanfare disabled the webhook.", Some(Fault::Theirs))
        }
        FailureReason::StoppedByReceiver => {
            ("The webhook answered webhook-action: stop, which ends the delivery.", Some(Fault::Theirs))
        }
        FailureReason::DisabledByReceiver => {
            ("The webhook answered webhook-action: disable. Fanfare disabled the webhook.", Some(Fault::Theirs))
        }
        FailureReason::HeldTooLong => {
            ("The webhook was paused for longer than deliveries are held.", Some(Fault::Theirs))
        }
        FailureReason::TooManyHeld => {
            ("The webhook was paused, and more deliveries came than are held.", Some(Fault::Theirs))
        }
        FailureReason::TestFailed => ("The test failed: a test is sent once.", Some(Fault::Theirs)),
        FailureReason::Erased => ("The event was erased on request before the delivery.", None),
        FailureReason::NotRendered => {
            ("The webhook's template has no body for the event, and nothing was sent.", Some(Fault::Theirs))
        }
    };
    let step = Step { fault, ..Step::problem(reason.as_str(), sentence) };
    match &webhook.template_fault {
        Some(fault) if reason == FailureReason::NotRendered => step.with("fault", fault),
        _ => step,
    }
}

/// The changes of the webhook since the acceptance.
fn changed(event: &EventFacts, webhook: &WebhookFacts) -> Option<Step> {
    let changes = webhook.changes.iter().filter(|change| change.at >= event.accepted_at);
    let step = Step::info("changed_since", "The webhook was changed since Fanfare accepted the event.");
    let step = changes.take(SHOWN).fold(step, |step, change| {
        step.with("change", format_args!("{} {}", change.id, change.action)).with("changed_at", change.at)
    });
    (!step.evidence.is_empty()).then_some(step)
}

/// The way to another attempt; `None` if no way is left.
fn again(event: &EventFacts, webhook: &WebhookFacts, delivery: &DeliveryFacts) -> Option<Remedy> {
    if webhook.deleted_at.is_some() || webhook.feed == Feed::Only {
        return None;
    }
    if event.erased_at.is_some() || !event.is_retained {
        return Some(Remedy::PublishAgain);
    }
    if event.is_test {
        return Some(Remedy::Test(webhook.id));
    }
    Some(match webhook.status {
        EndpointStatus::Disabled => Remedy::Enable(webhook.id),
        // A resend to a paused webhook is held until the webhook is resumed.
        EndpointStatus::Enabled | EndpointStatus::Paused => Remedy::Resend(delivery.id),
    })
}
