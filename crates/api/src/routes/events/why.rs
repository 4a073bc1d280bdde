//! `/api/v1/events/{id}/why`, and `/api/v1/events/why` by the publisher's key: explains why an event did, or did not,
//! arrive at a webhook.

use std::borrow::Cow;

use axum::extract::State;
use fanfare_domain::{
    diagnosis::why::{self, DelayFacts, DelayState, EventFacts, FilterResult, Reader, WebhookFacts},
    endpoint::filter::{Filter, FilteredEvent, MAX_STEPS_OF_EVENT},
    event::{EventType, check_key},
    ids::{DeliveryId, EndpointId, EventId, ParkedId},
};
use fanfare_store::{DeliveryFilter, EndpointFilter, EventRow, ExplainedWebhook};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::Answer,
        authentication::{AuthorizedApplication, KeyApplication},
        error::{ApiError, ErrorCode, Failures},
        parameters::{Path, Query, id},
    },
    state::{ApiState, beside_others},
};

/// The maximum number of webhooks in an explanation.
const MAX_WEBHOOKS: usize = 20;

/// The maximum number of parked messages in an explanation.
const MAX_PARKED: usize = 5;

/// The explanation of an event's way.
#[derive(Serialize, ToSchema)]
#[schema(as = Explanation)]
pub struct Why {
    /// The event; `null` if only an unreadable message has the key.
    #[schema(value_type = Option<String>)]
    pub event: Option<EventId>,
    /// The way of the event before any webhook, in order.
    pub steps: Vec<Step>,
    /// The way to each webhook: first webhooks with a delivery of the event, then others, at most 20.
    pub webhooks: Vec<WebhookWay>,
    /// True if the application has more webhooks.
    pub has_more: bool,
}

/// The way of an event to a webhook.
#[derive(Serialize, ToSchema)]
pub struct WebhookWay {
    #[schema(value_type = String)]
    pub webhook: EndpointId,
    pub name: Option<String>,
    /// The present URL.
    pub url: String,
    /// The delivery of the event; `null` without a delivery.
    #[schema(value_type = Option<String>)]
    pub delivery: Option<DeliveryId>,
    /// The state of the delivery.
    #[schema(example = "failed")]
    pub state: Option<&'static str>,
    /// The steps, in order. The last step tells the present state.
    pub steps: Vec<Step>,
}

/// A step of an explanation.
#[derive(Serialize, ToSchema)]
#[schema(as = ExplanationStep)]
pub struct Step {
    /// A code for programs, such as `accepted`, `other_types`, `held`, or the outcome of attempts.
    #[schema(example = "other_types")]
    pub code: &'static str,
    /// `done`: the event passed the step; `problem`: the step kept the event from the webhook; `pending`: in progress;
    /// `info`: background.
    #[schema(example = "problem")]
    pub state: &'static str,
    /// The step in plain words.
    pub sentence: String,
    pub evidence: Vec<Evidence>,
    /// The side at fault: `ours` (Fanfare), `theirs` (the receiver, or the webhook's settings), `publisher`.
    pub fault: Option<&'static str>,
    /// The next action, if any.
    pub remedy: Option<Remedy>,
}

/// A fact behind a step or a result.
#[derive(Debug, Serialize, ToSchema)]
pub struct Evidence {
    /// The name. A name that ends with `_at` has an RFC 3339 time as the value.
    #[schema(example = "created_at")]
    #[schema(value_type = String)]
    pub name: Cow<'static, str>,
    pub value: String,
}

/// The next action of the reader.
#[derive(Serialize, ToSchema)]
pub struct Remedy {
    /// `resume`, `enable`, `resend`, `wait`, `send`, `change_subscriptions`, `change_filter`, `resume_key`,
    /// `change_url`, `repair_certificate`, `check_signature`, `test`, `publish_again` or `put_back`.
    #[schema(example = "resend")]
    pub action: &'static str,
    #[schema(value_type = Option<String>)]
    pub webhook: Option<EndpointId>,
    #[schema(value_type = Option<String>)]
    pub delivery: Option<DeliveryId>,
    #[schema(value_type = Option<String>)]
    pub event: Option<EventId>,
    /// The parked message to put back.
    #[schema(value_type = Option<String>)]
    pub parked: Option<ParkedId>,
    /// The end of the wait.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub until: Option<Timestamp>,
}

impl From<why::Step> for Step {
    fn from(step: why::Step) -> Self {
        Self {
            code: step.code,
            state: step.state.as_str(),
            sentence: step.sentence,
            evidence: step.evidence.into_iter().map(|(name, value)| Evidence { name: name.into(), value }).collect(),
            fault: step.fault.map(why::Fault::as_str),
            remedy: step.remedy.map(Remedy::from),
        }
    }
}

impl From<why::Remedy> for Remedy {
    fn from(remedy: why::Remedy) -> Self {
        let nothing =
            Self { action: remedy.as_str(), webhook: None, delivery: None, event: None, parked: None, until: None };
        match remedy {
            why::Remedy::Resume(webhook)
            | why::Remedy::Enable(webhook)
            | why::Remedy::ChangeSubscriptions(webhook)
            | why::Remedy::ChangeFilter(webhook)
            | why::Remedy::ResumeKey(webhook)
            | why::Remedy::ChangeAuthentication(webhook)
            | why::Remedy::ChangeUrl(webhook)
            | why::Remedy::RepairCertificate(webhook)
            | why::Remedy::CheckSignature(webhook)
            | why::Remedy::Test(webhook) => Self { webhook: Some(webhook), ..nothing },
            why::Remedy::SendThere(event, webhook) => Self { event: Some(event), webhook: Some(webhook), ..nothing },
            why::Remedy::Resend(delivery) => Self { delivery: Some(delivery), ..nothing },
            why::Remedy::WaitUntil(until) => Self { until: Some(until), ..nothing },
            why::Remedy::PutBack(parked) => Self { parked: Some(parked), ..nothing },
            why::Remedy::PublishAgain => nothing,
        }
    }
}

/// Selects the webhooks of an explanation.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Asked {
    /// Only this webhook, which may be deleted.
    pub webhook: Option<String>,
}

/// Selects the event and the webhooks of an explanation.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AskedByKey {
    /// The publisher's id of the event: `id`, `Idempotency-Key`, or AMQP's `message_id`.
    pub key: String,
    /// Only this webhook, which may be deleted.
    pub webhook: Option<String>,
}

/// Rights of the reader of an explanation.
#[derive(Clone, Copy)]
pub struct Asking {
    pub reader: Reader,
    /// False for a visitor of the pages without the right.
    pub may_see_payloads: bool,
}

impl Asking {
    /// Every key of the API may see payloads.
    fn with(KeyApplication(own): &KeyApplication) -> Self {
        let reader = if own.is_none() { Reader::Administrator } else { Reader::Customer };
        Self { reader, may_see_payloads: true }
    }
}

/// Explains why an event did, or did not, arrive at the webhooks: each step with evidence, the side at fault, and a
/// remedy.
#[utoipa::path(get, path = "/events/{id}/why", operation_id = "explain_event", tag = "events",
    params(("id" = String, Path), Asked), responses((status = 200, body = Answer<Why>), Failures))]
pub async fn by_id(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    key: KeyApplication,
    Path(event): Path<String>,
    Query(asked): Query<Asked>,
) -> Result<Answer<Why>, ApiError> {
    api.why_of_id(&authorized, Asking::with(&key), &event, &asked).await.map(Answer::of)
}

/// Explains why the event with the publisher's key did, or did not, arrive at the webhooks.
#[utoipa::path(get, path = "/events/why", operation_id = "explain_event_by_key", tag = "events",
    params(AskedByKey), responses((status = 200, body = Answer<Why>), Failures))]
pub async fn by_key(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    key: KeyApplication,
    Query(asked): Query<AskedByKey>,
) -> Result<Answer<Why>, ApiError> {
    api.why_of_key(&authorized, Asking::with(&key), asked).await.map(Answer::of)
}

impl ApiState {
    /// The explanation of the event with an id.
    ///
    /// # Errors
    /// For an id without an event.
    pub async fn why_of_id(
        &self,
        authorized: &AuthorizedApplication,
        asking: Asking,
        event: &str,
        asked: &Asked,
    ) -> Result<Why, ApiError> {
        let event: EventId = id("id", event)?;
        let found = self.why(authorized, asking, event, &event.to_string(), asked.webhook.as_deref()).await?;
        found.ok_or_else(|| ApiError::not_found("id", "no event has this id: if just published, try again"))
    }

    /// The explanation of the event with a publisher's key.
    ///
    /// # Errors
    /// For a key without an event.
    pub async fn why_of_key(
        &self,
        authorized: &AuthorizedApplication,
        asking: Asking,
        asked: AskedByKey,
    ) -> Result<Why, ApiError> {
        let name = check_key("key", asked.key)?;
        let event = EventId::from_key(authorized.application, &name);
        let found = self.why(authorized, asking, event, &name, asked.webhook.as_deref()).await?;
        found.ok_or_else(|| {
            let message =
                "no event with this key reached Fanfare within the retention: check the key, or publish again";
            ApiError::not_found("key", message)
        })
    }

    /// The explanation; `None` if neither an event nor a message for the reader exists.
    async fn why(
        &self,
        authorized: &AuthorizedApplication,
        asking: Asking,
        event: EventId,
        key: &str,
        webhook: Option<&str>,
    ) -> Result<Option<Why>, ApiError> {
        let webhook = webhook.map(|text| id::<EndpointId>("webhook", text)).transpose()?;
        let Some(row) = self.store.event(authorized.application, event).await? else {
            let messages = self.store.parked_under(key, MAX_PARKED).await?;
            let steps = why::parked(&messages, authorized.application, asking.reader);
            let steps: Vec<Step> = steps.into_iter().map(Step::from).collect();
            let why = Why { event: None, steps, webhooks: Vec::new(), has_more: false };
            return Ok(Some(why).filter(|why| !why.steps.is_empty()));
        };
        let mut asked = match webhook {
            Some(webhook) => vec![webhook],
            None => self.webhooks_around(authorized, &row).await?,
        };
        let has_more = asked.len() > MAX_WEBHOOKS;
        asked.truncate(MAX_WEBHOOKS);
        let of = (row.id, row.accepted_at);
        let mut explained = self.store.explained(authorized.application, of, &asked).await?;
        if webhook.is_some() && explained.webhooks.is_empty() {
            return Err(ApiError::not_found("webhook", "the application has no webhook with this id"));
        }
        let event = facts(&row, explained.is_retained)?;
        if asking.may_see_payloads {
            self.ask_filters(authorized, &event, row.body, &mut explained.webhooks).await?;
        } else {
            explained.webhooks.iter_mut().for_each(|found| found.facts.filtered = FilterResult::Withheld);
        }
        let steps = why::arrival(&event).into_iter().map(Step::from).collect();
        let way = |found| self.way(authorized, &event, found);
        let webhooks = explained.webhooks.into_iter().map(way).collect();
        Ok(Some(Why { event: Some(row.id), steps, webhooks, has_more }))
    }

    /// The webhooks with a delivery of the event, then others, up to one more than an explanation has.
    async fn webhooks_around(
        &self,
        authorized: &AuthorizedApplication,
        event: &EventRow,
    ) -> Result<Vec<EndpointId>, ApiError> {
        let limit = MAX_WEBHOOKS + 1;
        let filter = DeliveryFilter { event: Some(event.id), limit, ..DeliveryFilter::default() };
        let deliveries = self.store.deliveries(authorized.application, &filter).await?.deliveries;
        let mut webhooks: Vec<EndpointId> = deliveries.iter().map(|delivery| delivery.endpoint).collect();
        // A test is of a single webhook.
        if !event.is_test && webhooks.len() < limit {
            // One more for each webhook that is listed already.
            let filter = EndpointFilter { limit: limit + webhooks.len(), ..EndpointFilter::default() };
            let others = self.store.endpoints(authorized.application, &filter).await?;
            let known = webhooks.clone();
            webhooks.extend(others.iter().map(|row| row.id).filter(|webhook| !known.contains(webhook)));
        }
        Ok(webhooks)
    }

    /// Asks the present filters of the webhooks without a delivery.
    async fn ask_filters(
        &self,
        authorized: &AuthorizedApplication,
        event: &EventFacts,
        body: Option<String>,
        webhooks: &mut [ExplainedWebhook],
    ) -> Result<(), ApiError> {
        let is_asked = |found: &&mut ExplainedWebhook| found.facts.delivery.is_none();
        let asked = webhooks.iter_mut().filter(is_asked).map(|found| found.facts.filter.clone());
        let filters: Vec<_> = asked.collect();
        let application = self.directory.application(authorized.application);
        let (Some(body), Some(application)) = (body, application) else { return Ok(()) };
        if filters.iter().all(Option::is_none) {
            return Ok(());
        }
        let event_type = event.event_type.clone();
        let explaining = move || {
            let event = FilteredEvent::shown(&application.dialect, &application.redaction, &event_type, &body);
            let mut left = MAX_STEPS_OF_EVENT;
            let mut explain = |filter: &Filter| {
                filter.explain_within(&event, &mut left).map_or(FilterResult::TooLong, FilterResult::Explained)
            };
            let explained = filters.iter().map(|filter| filter.as_deref().map_or(FilterResult::Unknown, &mut explain));
            explained.collect::<Vec<_>>()
        };
        let explanations = beside_others(explaining).await?;
        for (found, explanation) in webhooks.iter_mut().filter(is_asked).zip(explanations) {
            found.facts.filtered = explanation;
        }
        Ok(())
    }

    fn way(&self, authorized: &AuthorizedApplication, event: &EventFacts, found: ExplainedWebhook) -> WebhookWay {
        let application = self.directory.application(authorized.application);
        let rules = application.map(|application| {
            let policy = application.endpoint(found.facts.id).map(|endpoint| &endpoint.policy);
            policy.unwrap_or(&application.dialect.policy).rules.clone()
        });
        let facts = WebhookFacts { rules, ..found.facts };
        let steps = why::of_webhook(event, &facts, self.store.now());
        WebhookWay {
            webhook: facts.id,
            name: found.name,
            url: found.url,
            delivery: facts.delivery.as_ref().map(|delivery| delivery.id),
            state: facts.delivery.as_ref().map(|delivery| delivery.state.as_str()),
            steps: steps.into_iter().map(Step::from).collect(),
        }
    }
}

/// The delay of an event; `None` for an event erased before it was due.
fn delay(row: &EventRow) -> Option<DelayFacts> {
    let deliver_at = row.deliver_at?;
    let state = match row.cancelled_at {
        Some(at) => DelayState::Cancelled(at, row.cancelled_by.clone().unwrap_or_default()),
        None if row.is_delayed => DelayState::Waiting,
        None if row.erased_at.is_some_and(|erased_at| erased_at < deliver_at) => return None,
        None => DelayState::Due,
    };
    Some(DelayFacts { deliver_at, state })
}

fn facts(row: &EventRow, is_retained: bool) -> Result<EventFacts, ApiError> {
    let invalid = |_| {
        tracing::error!(event = %row.id, "the stored type of an event is invalid");
        ApiError::new(ErrorCode::InternalError, "internal fault, logged: report the request to the operator")
    };
    Ok(EventFacts {
        id: row.id,
        event_type: EventType::parse(&row.event_type).map_err(invalid)?,
        accepted_at: row.accepted_at,
        is_test: row.is_test,
        erased_at: row.erased_at,
        is_retained,
        is_fanned_out: row.fanned_out,
        matches: row.matches,
        delay: delay(row),
    })
}
