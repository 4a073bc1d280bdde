//! Explains why an event did, or did not, arrive at a webhook: steps in the order of the event's way.
//!
//! [`arrival`] explains the way before any webhook, [`of_webhook`] the way to a single webhook. The readers are the
//! customers of the application and the operators: a step names the side at fault, and the remedy.

mod attempts;
mod ending;
mod matching;
mod waiting;

#[cfg(test)]
mod tests;

use std::sync::Arc;

use jiff::Timestamp;

use crate::{
    delivery::{
        FailureReason, QueueReason, State,
        outcome::{Outcome, OutcomeRules},
    },
    endpoint::{EndpointStatus, Feed, filter::Filter},
    event::{EventType, subscription::Subscription},
    expression::Explanation,
    ids::{ApplicationId, AuditId, DeliveryId, EndpointId, EventId, ParkedId, ReplayId},
};

/// A step of an explanation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Step {
    /// Code for programs, such as `accepted` or `created_later`.
    pub code: &'static str,
    /// Meaning for the delivery.
    pub state: StepState,
    /// Plain sentence.
    pub sentence: String,
    /// Names and values: ids, counts, words, and times in RFC 3339 under names that end with `_at`.
    pub evidence: Vec<(&'static str, String)>,
    /// Side at fault, if any.
    pub fault: Option<Fault>,
    /// Next action of the reader, if any.
    pub remedy: Option<Remedy>,
}

/// Meaning of a step for the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StepState {
    /// The event passed the step.
    Done,
    /// The step kept the event from the webhook.
    Problem,
    /// The step is in progress.
    Pending,
    /// Background of the other steps.
    Info,
}

impl StepState {
    /// Name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Problem => "problem",
            Self::Pending => "pending",
            Self::Info => "info",
        }
    }
}

/// Side at fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// Fanfare.
    Ours,
    /// The receiver, or the settings of the webhook.
    Theirs,
    /// The publisher of the event.
    Publisher,
}

impl Fault {
    /// Name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Theirs => "theirs",
            Self::Publisher => "publisher",
        }
    }
}

/// Next action of the reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Remedy {
    /// Resume the paused webhook.
    Resume(EndpointId),
    /// Enable the disabled webhook.
    Enable(EndpointId),
    /// Resend the finished delivery.
    Resend(DeliveryId),
    /// Wait until this time.
    WaitUntil(Timestamp),
    /// Send the event to a webhook without a delivery of the event.
    SendThere(EventId, EndpointId),
    /// Change the subscriptions of the webhook.
    ChangeSubscriptions(EndpointId),
    /// Change the filter of the webhook.
    ChangeFilter(EndpointId),
    /// Resume the parked ordering key of the webhook.
    ResumeKey(EndpointId),
    /// Repair the token server, or change the authentication of the webhook.
    ChangeAuthentication(EndpointId),
    /// Change the URL of the webhook.
    ChangeUrl(EndpointId),
    /// Repair the certificate or the TLS settings of the receiver.
    RepairCertificate(EndpointId),
    /// Find the fault in the receiver's check of signatures.
    CheckSignature(EndpointId),
    /// Send another test event.
    Test(EndpointId),
    /// Publish the event again.
    PublishAgain,
    /// Edit the parked message, and put the message back.
    PutBack(ParkedId),
}

impl Remedy {
    /// Name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Resume(_) => "resume",
            Self::Enable(_) => "enable",
            Self::Resend(_) => "resend",
            Self::WaitUntil(_) => "wait",
            Self::SendThere(..) => "send",
            Self::ChangeSubscriptions(_) => "change_subscriptions",
            Self::ChangeFilter(_) => "change_filter",
            Self::ResumeKey(_) => "resume_key",
            Self::ChangeAuthentication(_) => "change_authentication",
            Self::ChangeUrl(_) => "change_url",
            Self::RepairCertificate(_) => "repair_certificate",
            Self::CheckSignature(_) => "check_signature",
            Self::Test(_) => "test",
            Self::PublishAgain => "publish_again",
            Self::PutBack(_) => "put_back",
        }
    }
}

/// Facts about an accepted event.
#[derive(Debug, Clone)]
pub struct EventFacts {
    /// Id of the event.
    pub id: EventId,
    /// Type of the event.
    pub event_type: EventType,
    /// Moment of acceptance.
    pub accepted_at: Timestamp,
    /// True for a test event.
    pub is_test: bool,
    /// Time of erasure.
    pub erased_at: Option<Timestamp>,
    /// False if the event is past its retention: no delivery of the event is opened any more.
    pub is_retained: bool,
    /// True if all deliveries have been inserted.
    pub is_fanned_out: bool,
    /// Number of webhooks that matched.
    pub matches: i32,
    /// Delay of the event, if its publisher set a time of delivery.
    pub delay: Option<DelayFacts>,
}

/// Facts about the delay of an event.
#[derive(Debug, Clone)]
pub struct DelayFacts {
    /// Time of delivery.
    pub deliver_at: Timestamp,
    /// State of the event.
    pub state: DelayState,
}

/// State of a delayed event.
#[derive(Debug, Clone)]
pub enum DelayState {
    /// The event is not yet due.
    Waiting,
    /// The event was cancelled before it was due, at this time, by this author.
    Cancelled(Timestamp, String),
    /// The event was due.
    Due,
}

impl EventFacts {
    /// Time of the match with subscriptions.
    fn matched_at(&self) -> Timestamp {
        self.delay.as_ref().map_or(self.accepted_at, |delay| delay.deliver_at)
    }

    /// True for a delayed event that was not matched: the event is not yet due, or was cancelled.
    fn is_unmatched_yet(&self) -> bool {
        self.delay.as_ref().is_some_and(|delay| !matches!(delay.state, DelayState::Due))
    }
}

/// Facts about a message that could not be read.
#[derive(Debug, Clone)]
pub struct ParkedFacts {
    /// Id of the parked message.
    pub id: ParkedId,
    /// Time of parking.
    pub parked_at: Timestamp,
    /// Code of the fault.
    pub reason: String,
    /// Description of the fault.
    pub message: String,
    /// Routing key of the message.
    pub routing_key: Option<String>,
}

/// Reader of an explanation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reader {
    /// An administrator, who may read parked messages.
    Administrator,
    /// A customer of the application.
    Customer,
}

/// Facts about a webhook.
#[derive(Debug, Clone)]
pub struct WebhookFacts {
    /// Id of the webhook.
    pub id: EndpointId,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of deletion.
    pub deleted_at: Option<Timestamp>,
    /// Present status.
    pub status: EndpointStatus,
    /// Reason of a status set by Fanfare itself.
    pub status_reason: Option<String>,
    /// Whether the receiver reads its deliveries from a feed.
    pub feed: Feed,
    /// Present subscriptions.
    pub subscriptions: Vec<Subscription>,
    /// Present filter.
    pub filter: Option<Arc<Filter>>,
    /// Result of the present filter for the event.
    pub filtered: FilterResult,
    /// Why the template has no body for the event.
    pub template_fault: Option<String>,
    /// Failure of the token server; `None` with a usable token, and if the last fetch brought a token.
    pub token_failure: Option<TokenFailure>,
    /// True if the webhook has authentication.
    pub has_authentication: bool,
    /// End of the client certificate.
    pub certificate_ends_at: Option<Timestamp>,
    /// Classes of outcomes; `None` if unknown to the process.
    pub rules: Option<OutcomeRules>,
    /// Changes since shortly before the acceptance of the event, newest first.
    pub changes: Vec<ChangeFacts>,
    /// Delivery of the event to the webhook.
    pub delivery: Option<DeliveryFacts>,
    /// Last attempts of the delivery, first to last.
    pub attempts: Vec<AttemptFacts>,
    /// Backlog of the webhook.
    pub backlog: Option<BacklogFacts>,
}

/// Failed fetches of a token in a row.
#[derive(Debug, Clone)]
pub struct TokenFailure {
    /// Reason of the last failure, behind "the token server".
    pub error: String,
    /// Beginning of the failures.
    pub since: Timestamp,
}

/// Result of a webhook's present filter for the event.
#[derive(Debug, Clone)]
pub enum FilterResult {
    /// The webhook has no filter, or the event has no body any more.
    Unknown,
    /// The reader may not see payloads. Each result would tell something about the body: the reader may change the
    /// filter, and ask again.
    Withheld,
    /// The filters of the explanation's webhooks take too many steps together.
    TooLong,
    /// The result, with the part that decided.
    Explained(Explanation),
}

/// Facts about a delivery.
#[derive(Debug, Clone)]
pub struct DeliveryFacts {
    /// Id of the delivery.
    pub id: DeliveryId,
    /// State of the delivery.
    pub state: State,
    /// Reason of an open delivery's wait.
    pub queued: Option<QueueReason>,
    /// Reason of a failure.
    pub failed: Option<FailureReason>,
    /// Beginning of the state.
    pub since: Timestamp,
    /// Time of the next attempt of a scheduled delivery.
    pub due_at: Option<Timestamp>,
    /// Time at which an open delivery fails as expired.
    pub expires_at: Option<Timestamp>,
    /// First open delivery of the ordering key, for a delivery that waits in order.
    pub first_in_order: Option<DeliveryId>,
    /// The given-up delivery that parked the ordering key.
    pub parked_by: Option<DeliveryId>,
    /// Replay that requested the delivery last.
    pub replay: Option<ReplayId>,
}

/// Facts about an attempt.
#[derive(Debug, Clone)]
pub struct AttemptFacts {
    /// Number of the attempt.
    pub number: u32,
    /// Start of the attempt.
    pub started_at: Timestamp,
    /// Duration in milliseconds.
    pub duration_ms: Option<i32>,
    /// Outcome of the attempt.
    pub outcome: Outcome,
    /// Description of the outcome.
    pub error: Option<String>,
    /// URL of the request.
    pub url: Option<String>,
    /// Digest of the response's body.
    pub digest: Option<String>,
}

/// Facts about a backlog.
#[derive(Debug, Clone)]
pub struct BacklogFacts {
    /// Beginning of the backlog.
    pub since: Timestamp,
    /// Consecutive failed attempts.
    pub failures: u32,
    /// Time of the next probe; `None` if the breaker is closed.
    pub next_probe: Option<Timestamp>,
    /// End of the rest that the webhook asked for, perhaps in the past.
    pub rests_until: Option<Timestamp>,
}

/// A change of a webhook.
#[derive(Debug, Clone)]
pub struct ChangeFacts {
    /// Entry of the audit log.
    pub id: AuditId,
    /// Time of the change.
    pub at: Timestamp,
    /// Operation or command.
    pub action: String,
    /// True if the request named subscriptions or the filter.
    pub names_events: bool,
}

impl ChangeFacts {
    /// Reads an entry of the audit log. `request` is the request as JSON.
    pub fn of(id: AuditId, at: Timestamp, action: String, request: Option<&str>) -> Self {
        let request = request.and_then(|text| serde_json::from_str::<serde_json::Value>(text).ok());
        let names = |request: &serde_json::Value| {
            ["events", "event_types", "filter"].iter().any(|name| request.get(name).is_some())
        };
        let names_events = request.is_some_and(|request| match &request {
            serde_json::Value::Array(items) => items.iter().any(names),
            request => names(request),
        });
        Self { id, at, action, names_events }
    }
}

/// Explains the way of an event before any webhook.
pub fn arrival(event: &EventFacts) -> Vec<Step> {
    let accepted = Step::done("accepted", "Fanfare accepted the event.")
        .with("event", event.id)
        .with("type", &event.event_type)
        .with("accepted_at", event.accepted_at);
    let mut steps = vec![accepted];
    if event.is_test {
        steps.push(Step::info("test", "The event is a test of a single webhook: a test is sent once."));
    }
    if let Some(at) = event.erased_at {
        let sentence = "The content of the event was erased on request. Nothing of the event is sent any more.";
        steps.push(Step::problem("erased", sentence).with("erased_at", at).mend(Remedy::PublishAgain));
    } else if !event.is_retained {
        let sentence = "The event is past its retention. No delivery of the event can be requested any more.";
        steps.push(Step::info("past_retention", sentence));
    }
    steps.extend(event.delay.as_ref().map(delay));
    if event.is_unmatched_yet() {
        return steps;
    }
    if !event.is_fanned_out {
        let sentence = "Fanfare is still creating deliveries: the event goes to very many webhooks.";
        steps.push(Step::pending("fanning_out", sentence).by(Fault::Ours));
    } else if event.matches == 0 {
        steps.push(Step::info("unmatched", "No webhook wanted the event at the time of the match."));
    }
    steps
}

/// The step of a delay.
fn delay(delay: &DelayFacts) -> Step {
    let at = delay.deliver_at;
    let step = match &delay.state {
        DelayState::Waiting => {
            let sentence = format!("The event is due at {at}, as its publisher set. Webhooks are matched then.");
            Step::pending("delayed", sentence).mend(Remedy::WaitUntil(at))
        }
        DelayState::Cancelled(cancelled_at, author) => {
            let sentence = format!("The event was cancelled by {author} at {cancelled_at}, before it was due.");
            Step::problem("cancelled", sentence)
                .with("cancelled_at", cancelled_at)
                .with("cancelled_by", author)
                .by(Fault::Publisher)
                .mend(Remedy::PublishAgain)
        }
        DelayState::Due => Step::done("due", format!("The event was due at {at}, as its publisher set.")),
    };
    step.with("deliver_at", at)
}

/// Explains unreadable messages with the key of an event of the application. An administrator reads of messages that
/// name no other application. A customer reads only that a message reached Fanfare, and only of a message that names
/// the application. Empty if the reader may read nothing.
pub fn parked(messages: &[ParkedFacts], application: ApplicationId, reader: Reader) -> Vec<Step> {
    let named = |message: &ParkedFacts| -> Option<ApplicationId> {
        message.routing_key.as_deref()?.split('.').next()?.parse().ok()
    };
    let step = |message: &ParkedFacts| match (reader, named(message)) {
        (Reader::Customer, Some(named)) if named == application => {
            let sentence = "A message with this key reached Fanfare, and could not be read.";
            let step = Step::problem("unreadable", sentence).with("parked_at", message.parked_at);
            Some(step.by(Fault::Publisher).mend(Remedy::PublishAgain))
        }
        (Reader::Administrator, named) if named.is_none_or(|named| named == application) => {
            let sentence = "A message with this key reached Fanfare, could not be read, and is parked.";
            let mut step = Step::problem("unreadable", sentence)
                .with("parked", message.id)
                .with("reason", &message.reason)
                .with("message", &message.message)
                .with("parked_at", message.parked_at);
            if let Some(routing_key) = &message.routing_key {
                step = step.with("routing_key", routing_key);
            }
            Some(step.by(Fault::Publisher).mend(Remedy::PutBack(message.id)))
        }
        _ => None,
    };
    messages.iter().filter_map(step).collect()
}

/// Explains the way of an event to a webhook, at the time `now`.
pub fn of_webhook(event: &EventFacts, webhook: &WebhookFacts, now: Timestamp) -> Vec<Step> {
    let Some(delivery) = &webhook.delivery else { return matching::without_delivery(event, webhook) };
    let mut steps = vec![matching::with_delivery(event, webhook, delivery)];
    steps.extend(attempts::steps(webhook, delivery));
    steps.extend(waiting::steps(webhook, delivery, now));
    steps.extend(ending::steps(event, webhook, delivery));
    steps
}

impl Step {
    fn new(code: &'static str, state: StepState, sentence: impl Into<String>) -> Self {
        Self { code, state, sentence: sentence.into(), evidence: Vec::new(), fault: None, remedy: None }
    }

    fn done(code: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(code, StepState::Done, sentence)
    }

    fn problem(code: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(code, StepState::Problem, sentence)
    }

    fn pending(code: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(code, StepState::Pending, sentence)
    }

    fn info(code: &'static str, sentence: impl Into<String>) -> Self {
        Self::new(code, StepState::Info, sentence)
    }

    fn with(mut self, name: &'static str, value: impl ToString) -> Self {
        self.evidence.push((name, value.to_string()));
        self
    }

    fn by(self, fault: Fault) -> Self {
        Self { fault: Some(fault), ..self }
    }

    fn mend(self, remedy: impl Into<Option<Remedy>>) -> Self {
        Self { remedy: remedy.into(), ..self }
    }
}
