//! Steps about an open delivery: the reason of the wait, and its end.

use jiff::{SignedDuration, Timestamp};

use crate::{
    delivery::{QueueReason, State},
    diagnosis::why::{BacklogFacts, DeliveryFacts, Fault, Remedy, Step, WebhookFacts},
};

/// Lateness from which an overdue retry is a fault of Fanfare.
const OVERDUE: SignedDuration = SignedDuration::from_secs(30);

/// Steps of an open delivery; none for a finished delivery.
pub(super) fn steps(webhook: &WebhookFacts, delivery: &DeliveryFacts, now: Timestamp) -> Vec<Step> {
    let step = match delivery.state {
        State::Sending => Step::pending("sending", "An attempt is in flight."),
        State::Scheduled => scheduled(delivery, now),
        State::Queued => match delivery.queued {
            Some(QueueReason::InOrder) => in_order(webhook, delivery),
            Some(QueueReason::TokenUnavailable) => token_unavailable(webhook),
            Some(reason) => queued(reason),
            None => Step::pending("queued", "The delivery waits for its turn.").by(Fault::Ours),
        },
        State::Held => {
            let sentence = "The webhook is paused: the delivery is held until the webhook is resumed.";
            Step::problem("held", sentence).by(Fault::Theirs).mend(Remedy::Resume(webhook.id))
        }
        State::Delivered | State::Failed | State::Skipped => return Vec::new(),
    };
    let mut step = step.with("since_at", delivery.since);
    // The lifetime of a delivery that waits in order begins with its turn.
    let is_in_order = delivery.queued == Some(QueueReason::InOrder);
    if let Some(end) = delivery.expires_at.filter(|_| !is_in_order) {
        step = step.with("expires_at", end);
    }
    let is_queued = delivery.state == State::Queued;
    let backlog = webhook.backlog.as_ref().filter(|_| is_queued);
    let (rest, breaker) = (backlog.and_then(|backlog| rest(backlog, now)), backlog.and_then(breaker));
    let lacks_token = is_queued && delivery.queued != Some(QueueReason::TokenUnavailable);
    let token = webhook.token_failure.as_ref().filter(|_| lacks_token).map(|_| token_unavailable(webhook));
    [step].into_iter().chain(token).chain(rest).chain(breaker).collect()
}

fn scheduled(delivery: &DeliveryFacts, now: Timestamp) -> Step {
    let Some(due) = delivery.due_at else {
        return Step::pending("scheduled", "The delivery waits for the next attempt.");
    };
    if now.duration_since(due) > OVERDUE {
        let sentence = "The next attempt is overdue: Fanfare is late.";
        return Step::pending("overdue", sentence).with("due_at", due).by(Fault::Ours);
    }
    let sentence =
        "The next attempt follows after the wait of the schedule, or after the wait that the webhook asked for.";
    Step::pending("scheduled", sentence).with("due_at", due).by(Fault::Theirs).mend(Remedy::WaitUntil(due))
}

/// The wait for the delivery before, of the same ordering key.
fn in_order(webhook: &WebhookFacts, delivery: &DeliveryFacts) -> Step {
    let reason = QueueReason::InOrder.as_str();
    if let Some(parked_by) = delivery.parked_by.filter(|_| webhook.deleted_at.is_none()) {
        let sentence = "The ordering key is parked: a delivery before was given up. The others wait until the key is \
                        resumed.";
        let step = Step::problem("key_parked", sentence).with("parked_by", parked_by);
        return step.by(Fault::Theirs).mend(Remedy::ResumeKey(webhook.id));
    }
    match delivery.first_in_order.filter(|first| *first != delivery.id) {
        Some(first) => {
            let sentence = "An earlier delivery of the same ordering key has not ended, and goes first.";
            Step::pending(reason, sentence).with("first", first).by(Fault::Theirs)
        }
        None => Step::pending(reason, "The turn of the delivery has come.").by(Fault::Ours),
    }
}

/// The rest that the webhook asked for.
fn rest(backlog: &BacklogFacts, now: Timestamp) -> Option<Step> {
    let until = backlog.rests_until.filter(|until| *until > now)?;
    let sentence = "The webhook answered 429 or 503 with Retry-After: Fanfare sends nothing to it before that time.";
    let step = Step::pending("resting", sentence).with("backlog_since_at", backlog.since).with("rests_until_at", until);
    Some(step.by(Fault::Theirs).mend(Remedy::WaitUntil(until)))
}

/// The wait for a token of the webhook's token server.
fn token_unavailable(webhook: &WebhookFacts) -> Step {
    let reason = QueueReason::TokenUnavailable.as_str();
    match &webhook.token_failure {
        Some(failure) => {
            let sentence = format!("The webhook has no token: the token server {}.", failure.error);
            let step = Step::problem(reason, sentence).with("failing_since_at", failure.since);
            step.by(Fault::Theirs).mend(Remedy::ChangeAuthentication(webhook.id))
        }
        None => Step::pending(reason, "Fanfare fetches a token of the webhook's token server.").by(Fault::Ours),
    }
}

/// The open breaker of a backlog.
fn breaker(backlog: &BacklogFacts) -> Option<Step> {
    let probe = backlog.next_probe?;
    let sentence = "The webhook failed many times in a row. Until an attempt succeeds, Fanfare makes single attempts.";
    let step = Step::pending("probing", sentence).with("failures", backlog.failures);
    let step = step.with("backlog_since_at", backlog.since).with("next_probe_at", probe);
    Some(step.by(Fault::Theirs).mend(Remedy::WaitUntil(probe)))
}

fn queued(reason: QueueReason) -> Step {
    let (sentence, fault) = match reason {
        QueueReason::LaneFull => {
            ("The webhook answers no faster: the maximum of attempts is in flight.", Some(Fault::Theirs))
        }
        QueueReason::ApplicationBusy => {
            ("The maximum of attempts to the application's webhooks is in flight.", Some(Fault::Theirs))
        }
        QueueReason::ProcessBusy => ("Fanfare deferred the delivery: all places are in use.", Some(Fault::Ours)),
        QueueReason::RateLimited => ("The rate of the webhook permits no attempt yet.", Some(Fault::Theirs)),
        QueueReason::BreakerOpen => {
            ("The webhook failed many times in a row, and gets only single attempts.", Some(Fault::Theirs))
        }
        QueueReason::RetryAfter => ("The webhook asked for a wait, by Retry-After.", Some(Fault::Theirs)),
        QueueReason::EgressUnavailable => {
            ("Fanfare deferred the delivery: it can make no connections now.", Some(Fault::Ours))
        }
        QueueReason::InOrder | QueueReason::TokenUnavailable | QueueReason::Backlog => {
            ("Earlier deliveries to the webhook wait, and go first.", Some(Fault::Theirs))
        }
        QueueReason::Paused => ("The webhook was paused. The delivery waits for its turn.", Some(Fault::Theirs)),
        QueueReason::Retry => ("The time of the retry has come. The delivery waits for its turn.", Some(Fault::Ours)),
        QueueReason::ShuttingDown => {
            ("Fanfare deferred the delivery: a process stopped before the attempt.", Some(Fault::Ours))
        }
        QueueReason::LeaseExpired => {
            ("Fanfare deferred the delivery: a process recorded no result in time.", Some(Fault::Ours))
        }
        QueueReason::Resent => ("The delivery was requested, and waits for its turn.", None),
        QueueReason::Replayed => ("A replay sends the delivery, behind all other deliveries.", None),
        QueueReason::ApplicationUnreadable => {
            ("Fanfare deferred the delivery: a process cannot read the application's settings.", Some(Fault::Ours))
        }
        QueueReason::Isolated => {
            ("Fanfare deferred the delivery: another delivery is sent alone first.", Some(Fault::Ours))
        }
    };
    Step { fault, ..Step::pending(reason.as_str(), sentence) }
}
