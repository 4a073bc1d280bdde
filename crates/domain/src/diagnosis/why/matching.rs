//! Steps about the match: the event against the webhook's subscriptions and filter.

use crate::{
    diagnosis::why::{ChangeFacts, DeliveryFacts, EventFacts, Fault, FilterResult, Remedy, Step, WebhookFacts},
    endpoint::{EndpointStatus, Feed, filter::Filter},
    expression::Outcome,
};

/// Maximum number of subscriptions and of changes in the evidence.
const SHOWN: usize = 10;

/// Step of a webhook with a delivery.
pub(super) fn with_delivery(event: &EventFacts, webhook: &WebhookFacts, delivery: &DeliveryFacts) -> Step {
    let step = match delivery.replay {
        Some(replay) => Step::done("replayed", "A replay requested the event for the webhook.").with("replay", replay),
        None if event.is_test => Step::done("tested", "The test event was sent to the webhook."),
        None if webhook.created_at > event.matched_at() => {
            Step::done("requested", "The event is older than the webhook, and was sent on request.")
        }
        None => Step::done("matched", "The event was meant for the webhook."),
    };
    step.with("delivery", delivery.id)
}

/// Steps of a webhook without a delivery.
pub(super) fn without_delivery(event: &EventFacts, webhook: &WebhookFacts) -> Vec<Step> {
    if event.is_test {
        return vec![Step::info("test_of_another", "The event was a test of another webhook.")];
    }
    if event.is_unmatched_yet() {
        return vec![Step::info("not_matched", "The event was not matched with webhooks: see its way above.")];
    }
    if webhook.created_at <= event.matched_at() && !event.is_fanned_out && webhook.deleted_at.is_none() {
        let sentence = "Fanfare has not yet created all deliveries of the event.";
        return vec![Step::pending("fanning_out", sentence).by(Fault::Ours)];
    }
    let mut steps = vec![reason(event, webhook)];
    steps.extend(send_there(event, webhook));
    steps
}

fn reason(event: &EventFacts, webhook: &WebhookFacts) -> Step {
    if let Some(at) = webhook.deleted_at {
        let sentence = "The webhook is deleted.";
        return Step::problem("deleted", sentence).with("deleted_at", at).by(Fault::Theirs);
    }
    if webhook.created_at > event.matched_at() {
        let sentence = "The webhook was created after Fanfare accepted the event.";
        return Step::problem("created_later", sentence).with("created_at", webhook.created_at).by(Fault::Theirs);
    }
    let changed = webhook.changes.iter().filter(|change| change.names_events).take(SHOWN);
    if let Some(step) = filtered(event, webhook) {
        return changed.fold(step, changed_step).by(Fault::Theirs).mend(Remedy::ChangeFilter(webhook.id));
    }
    if webhook.subscriptions.iter().any(|subscription| subscription.covers(&event.event_type)) {
        let sentence = "The webhook wants the event now. At the time of the match, Fanfare knew no such subscription \
                        or filter: a change takes effect within seconds.";
        return changed.fold(Step::problem("changed_later", sentence), changed_step).by(Fault::Theirs);
    }
    let listed: Vec<String> = webhook.subscriptions.iter().take(SHOWN).map(ToString::to_string).collect();
    let more = if webhook.subscriptions.len() > SHOWN { ", …" } else { "" };
    let sentence = format!("The webhook does not want {}.", event.event_type);
    let step = Step::problem("other_types", sentence).with("subscriptions", listed.join(", ") + more);
    changed.fold(step, changed_step).by(Fault::Theirs).mend(Remedy::ChangeSubscriptions(webhook.id))
}

/// Step of a webhook that wants the type, and whose present filter is not met.
fn filtered(event: &EventFacts, webhook: &WebhookFacts) -> Option<Step> {
    let filter = webhook.filter.as_ref()?;
    webhook.subscriptions.iter().find(|subscription| subscription.covers(&event.event_type))?;
    let is_changed = webhook.changes.iter().any(|change| change.names_events);
    let now = if is_changed { " The webhook was changed since: this is the result of the present filter." } else { "" };
    let explained = match &webhook.filtered {
        FilterResult::Explained(explained) => explained,
        FilterResult::Withheld => return Some(withheld(filter, is_changed)),
        FilterResult::Unknown => {
            let sentence =
                "The webhook has a filter. The body of the event is gone, so that the filter's result is unknown.";
            return Some(Step::problem("filter_unknown", sentence).with("filter", filter.text()));
        }
        FilterResult::TooLong => {
            let sentence = "The webhook has a filter. The filters of these webhooks take too long together: ask for \
                            this webhook alone.";
            return Some(Step::problem("filter_unknown", sentence).with("filter", filter.text()));
        }
    };
    let part = explained.part.as_deref().unwrap_or_default();
    let step = match explained.outcome {
        Outcome::True => return None,
        Outcome::False => {
            Step::problem("filtered", format!("The webhook's filter said no: the event does not meet {part}.{now}"))
        }
        Outcome::Error => {
            let error = explained.error.as_deref().unwrap_or_default();
            // Evidence, since the error may quote the event: pages show it with the right to payloads only.
            let sentence = format!("The webhook's filter has no result for the event, which counts as no.{now}");
            Step::problem("filter_failed", sentence).with("error", error)
        }
    };
    let step = step.with("filter", filter.text()).with("part", part).with("position", explained.position);
    Some(explained.values.iter().fold(step, |step, (name, value)| step.with("value", format_args!("{name} = {value}"))))
}

/// Step for a reader who may not see payloads: tells only that there is no delivery. An unchanged filter must have
/// decided so.
fn withheld(filter: &Filter, is_changed: bool) -> Step {
    let step = if is_changed {
        let sentence = "The webhook has a filter, and was changed since. The result of the present filter for the event \
                        is only shown to readers of payloads.";
        Step::problem("filter_unknown", sentence)
    } else {
        Step::problem("filtered", "The event did not meet the webhook's filter.")
    };
    step.with("filter", filter.text())
}

fn changed_step(step: Step, change: &ChangeFacts) -> Step {
    step.with("change", format_args!("{} {}", change.id, change.action)).with("changed_at", change.at)
}

/// Step with the way to send the event to the webhook.
fn send_there(event: &EventFacts, webhook: &WebhookFacts) -> Option<Step> {
    if webhook.deleted_at.is_some() || event.erased_at.is_some() || webhook.feed == Feed::Only {
        return None;
    }
    if !event.is_retained {
        let sentence = "The event is past its retention, and cannot be sent to the webhook any more.";
        return Some(Step::info("too_old", sentence).mend(Remedy::PublishAgain));
    }
    Some(match webhook.status {
        EndpointStatus::Disabled => {
            let sentence = "The webhook is disabled. Enable the webhook, then send the event to the webhook.";
            Step::info("disabled", sentence).mend(Remedy::Enable(webhook.id))
        }
        EndpointStatus::Enabled | EndpointStatus::Paused => {
            let sentence = "The event can still be sent to this webhook alone.";
            Step::info("sendable", sentence).mend(Remedy::SendThere(event.id, webhook.id))
        }
    })
}
