//! `/api/v1/webhooks`: an application's endpoints, under the name that the documents give them.

use std::{collections::BTreeMap, time::Duration};

use axum::{extract::State, http::StatusCode, response::Response};
use fanfare_domain::{
    application::EndpointStatus,
    catalogue::Catalogue,
    dialect::Dialect,
    endpoint_url::check_url,
    header,
    ids::{EndpointId, SecretId},
    policy::{RATES, Schedule, TIMEOUTS},
    secret::SigningSecret,
};
use fanfare_store::{EndpointRow, EndpointSettings, NewEndpoint, OwnHeaders};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    ApiError, Console, ErrorCode, Failures,
    answer::{Answer, Page},
    applications::checked_email,
    request::{Fields, Manager, Path, Query, check_label, given, id, page_size},
};

/// Headers of an endpoint's own.
const MAX_HEADERS: usize = 20;

/// How far the deliveries that are held for an endpoint are counted.
const MAX_COUNTED: i64 = 100_000;

/// A webhook. The first four members are those that document 004 prints, in its order.
#[derive(Serialize, ToSchema)]
pub(crate) struct Webhook {
    #[schema(value_type = String, example = "wh_01h455vb4pex5vsknk084sn02q")]
    id: EndpointId,
    url: String,
    events: Vec<String>,
    /// Shown once: when the webhook is created or its secret rotated.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    name: Option<String>,
    /// `enabled`; `paused`: deliveries are held until it is resumed; `disabled`: they are recorded as skipped.
    #[schema(example = "enabled")]
    status: &'static str,
    /// Why, where nobody set the status by hand: `endpoint_gone` where it answered that it wants nothing any more.
    status_reason: Option<String>,
    /// Its own deadline of an attempt.
    timeout_ms: Option<u128>,
    /// Its own waits after each failed attempt.
    schedule: Option<Vec<String>>,
    /// Its own limit of attempts in a second.
    rate_per_second: Option<u32>,
    /// Who is told of failed deliveries, where that is somebody else than the application's address.
    email: Option<String>,
    /// The names of the headers of its own; their values are not shown.
    headers: Vec<String>,
    /// Until when the secret before the current one signs, too.
    previous_secret_expires_at: Option<String>,
    /// What is held for it, when it is paused; only where one webhook is shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    held: Option<HeldDeliveries>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    updated_at: Timestamp,
}

#[derive(Serialize, ToSchema)]
struct HeldDeliveries {
    /// Counted up to 100,000.
    deliveries: i64,
    #[schema(value_type = Option<String>, format = DateTime)]
    oldest_accepted_at: Option<Timestamp>,
}

impl Webhook {
    pub(crate) fn new(row: EndpointRow, secret: Option<&SigningSecret>) -> Self {
        Self {
            id: row.id,
            url: row.url,
            events: row.event_types,
            secret: secret.map(|secret| secret.text().to_owned()),
            name: row.name,
            status: row.status.as_str(),
            status_reason: row.status_reason,
            timeout_ms: row.timeout.map(|timeout| timeout.as_millis()),
            schedule: row.schedule.as_ref().map(Schedule::names),
            rate_per_second: row.rate,
            email: row.email,
            headers: row.header_names,
            previous_secret_expires_at: row.rotation_ends_at.map(|end| end.to_string()),
            held: None,
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

/// What of a webhook can be given when it is created.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewWebhook)]
pub(crate) struct New {
    url: String,
    /// Event types; `points.*` stands for all that begin with `points.`, `*` for all.
    #[schema(example = json!(["points.earned", "customer.*"]))]
    events: Vec<String>,
    name: Option<String>,
    /// A secret that receivers already know. It is made where it is left out.
    secret: Option<String>,
    /// `enabled`, `paused` or `disabled`; `enabled` where it is left out.
    status: Option<String>,
    /// The deadline of one attempt, 100 to 60000; the dialect's where it is left out.
    timeout_ms: Option<u64>,
    /// The waits after each failed attempt; the dialect's where it is left out.
    #[schema(example = json!(["60s", "5m", "24h"]))]
    schedule: Option<Vec<String>>,
    /// How many attempts are made in a second, 1 to 10000; the dialect's limit, or none, where it is left out.
    rate_per_second: Option<u32>,
    /// Who is told of failed deliveries; the application's address where it is left out.
    email: Option<String>,
    /// Headers that deliveries carry, at most 20. Their values are stored encrypted, and not shown again.
    headers: Option<BTreeMap<String, String>>,
}

/// What of a webhook is to change.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = WebhookChange)]
pub(crate) struct Change {
    pub(crate) url: Option<String>,
    pub(crate) events: Option<Vec<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub(crate) name: Option<Option<String>>,
    pub(crate) status: Option<String>,
    /// `null` for the dialect's.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u64>)]
    pub(crate) timeout_ms: Option<Option<u64>>,
    /// `null` for the dialect's. Deliveries that wait already go on by it after their next attempt.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<Vec<String>>)]
    pub(crate) schedule: Option<Option<Vec<String>>>,
    /// `null` for the dialect's limit, or none.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<u32>)]
    pub(crate) rate_per_second: Option<Option<u32>>,
    /// `null` for the application's.
    #[serde(default, deserialize_with = "given")]
    #[schema(value_type = Option<String>)]
    pub(crate) email: Option<Option<String>>,
    /// All headers of its own, instead of those that it had.
    pub(crate) headers: Option<BTreeMap<String, String>>,
}

impl From<New> for Change {
    fn from(new: New) -> Self {
        Self {
            url: Some(new.url),
            events: Some(new.events),
            name: new.name.map(Some),
            status: new.status,
            timeout_ms: new.timeout_ms.map(Some),
            schedule: new.schedule.map(Some),
            rate_per_second: new.rate_per_second.map(Some),
            email: new.email.map(Some),
            headers: new.headers,
        }
    }
}

/// Creates a webhook. Its secret is in the answer, and is not shown again.
#[utoipa::path(post, path = "/webhooks", operation_id = "create_webhook", tag = "webhooks",
    request_body = New, responses((status = 201, body = Answer<Webhook>), Failures))]
pub(crate) async fn create(
    State(console): State<Console>,
    manager: Manager,
    Fields(mut new): Fields<New>,
) -> Result<Response, ApiError> {
    let secret = console.secret(new.secret.take())?;
    let settings = console.check(&manager, new.into()).await?;
    let new = NewEndpoint {
        id: EndpointId::new(Timestamp::now(), rand::random()),
        application: manager.application,
        settings,
        secret_id: SecretId::new(Timestamp::now(), rand::random()),
        secret,
    };
    let row = console.store.create_endpoint(&new).await?;
    Ok(Answer::of(Webhook::new(row, Some(&new.secret))).with(StatusCode::CREATED))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// The `next` of the page before.
    before: Option<String>,
    /// 1 to 100, 50 where it is left out.
    limit: Option<usize>,
}

/// Lists the webhooks, newest first.
#[utoipa::path(get, path = "/webhooks", operation_id = "list_webhooks", tag = "webhooks",
    params(Filter), responses((status = 200, body = Page<Webhook>), Failures))]
pub(crate) async fn list(
    State(console): State<Console>,
    manager: Manager,
    Query(filter): Query<Filter>,
) -> Result<Page<Webhook>, ApiError> {
    let before = filter.before.as_deref().map(|text| id("before", text)).transpose()?;
    let limit = page_size(filter.limit)?;
    let rows = console.store.endpoints(manager.application, before, limit).await?;
    let webhooks = rows.into_iter().map(|row| Webhook::new(row, None)).collect();
    Ok(Page::of(webhooks, limit, |webhook| webhook.id.to_string()))
}

/// Shows a webhook.
#[utoipa::path(get, path = "/webhooks/{id}", operation_id = "show_webhook", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Webhook>), Failures))]
pub(crate) async fn show(
    State(console): State<Console>,
    manager: Manager,
    Path(webhook): Path<String>,
) -> Result<Answer<Webhook>, ApiError> {
    let row = console.endpoint(&manager, &webhook).await?;
    let held = console.store.held(row.id, MAX_COUNTED).await?;
    let held = (held.deliveries > 0)
        .then_some(HeldDeliveries { deliveries: held.deliveries, oldest_accepted_at: held.oldest_accepted_at });
    Ok(Answer::of(Webhook { held, ..Webhook::new(row, None) }))
}

/// Changes a webhook; what is left out stays.
#[utoipa::path(method(patch, put), path = "/webhooks/{id}", operation_id = "change_webhook", tag = "webhooks",
    params(("id" = String, Path)), request_body = Change,
    responses((status = 200, body = Answer<Webhook>), Failures))]
pub(crate) async fn change(
    State(console): State<Console>,
    manager: Manager,
    Path(webhook): Path<String>,
    Fields(change): Fields<Change>,
) -> Result<Answer<Webhook>, ApiError> {
    let webhook = id("id", &webhook)?;
    let settings = console.check(&manager, change).await?;
    console.change(&manager, webhook, &settings).await
}

/// Lets a webhook have its deliveries; what was held while it was paused is let go at a pace.
#[utoipa::path(post, path = "/webhooks/{id}/enable", operation_id = "enable_webhook", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Webhook>), Failures))]
pub(crate) async fn enable(
    State(console): State<Console>,
    manager: Manager,
    Path(webhook): Path<String>,
) -> Result<Answer<Webhook>, ApiError> {
    console.set_status(&manager, &webhook, EndpointStatus::Enabled).await
}

/// Disables a webhook: its deliveries are recorded as skipped, and can be sent again later.
#[utoipa::path(post, path = "/webhooks/{id}/disable", operation_id = "disable_webhook", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Webhook>), Failures))]
pub(crate) async fn disable(
    State(console): State<Console>,
    manager: Manager,
    Path(webhook): Path<String>,
) -> Result<Answer<Webhook>, ApiError> {
    console.set_status(&manager, &webhook, EndpointStatus::Disabled).await
}

/// Pauses a webhook: its deliveries are held, bounded by age and number, until it is enabled again.
#[utoipa::path(post, path = "/webhooks/{id}/pause", operation_id = "pause_webhook", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Webhook>), Failures))]
pub(crate) async fn pause(
    State(console): State<Console>,
    manager: Manager,
    Path(webhook): Path<String>,
) -> Result<Answer<Webhook>, ApiError> {
    console.set_status(&manager, &webhook, EndpointStatus::Paused).await
}

#[derive(Serialize, ToSchema)]
pub(crate) struct Deleted {
    #[schema(value_type = String)]
    id: EndpointId,
    #[schema(example = true)]
    deleted: bool,
}

/// Deletes a webhook. Its deliveries that have not ended fail.
#[utoipa::path(delete, path = "/webhooks/{id}", operation_id = "delete_webhook", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Deleted>), Failures))]
pub(crate) async fn delete(
    State(console): State<Console>,
    manager: Manager,
    Path(webhook): Path<String>,
) -> Result<Answer<Deleted>, ApiError> {
    let webhook: EndpointId = id("id", &webhook)?;
    if !console.store.delete_endpoint(manager.application, webhook).await? {
        return Err(no_such_webhook());
    }
    Ok(Answer::of(Deleted { id: webhook, deleted: true }))
}

impl Console {
    /// An endpoint of the manager's application.
    pub(crate) async fn endpoint(&self, manager: &Manager, webhook: &str) -> Result<EndpointRow, ApiError> {
        let webhook = id("id", webhook)?;
        self.store.endpoint(manager.application, webhook).await?.ok_or_else(no_such_webhook)
    }

    async fn change(
        &self,
        manager: &Manager,
        webhook: EndpointId,
        settings: &EndpointSettings,
    ) -> Result<Answer<Webhook>, ApiError> {
        let row = self.store.change_endpoint(manager.application, webhook, settings).await?;
        Ok(Answer::of(Webhook::new(row.ok_or_else(no_such_webhook)?, None)))
    }

    async fn set_status(
        &self,
        manager: &Manager,
        webhook: &str,
        status: EndpointStatus,
    ) -> Result<Answer<Webhook>, ApiError> {
        let settings = EndpointSettings { status: Some(status), ..EndpointSettings::default() };
        self.change(manager, id("id", webhook)?, &settings).await
    }

    /// The secret that somebody gives, or a new one.
    pub(crate) fn secret(&self, given: Option<String>) -> Result<SigningSecret, ApiError> {
        match given {
            Some(text) => SigningSecret::parse(&text).map_err(|fault| ApiError::invalid("secret", fault)),
            None => Ok(SigningSecret::from_random(rand::random())),
        }
    }

    async fn check(&self, manager: &Manager, change: Change) -> Result<EndpointSettings, ApiError> {
        let dialect = self.dialect_of(manager).await?;
        let catalogue = self.catalogue(manager).await?;
        self.settings("events", change, &dialect, &catalogue)
    }

    /// Checks what of an endpoint is to be set; `events` is what the request calls the list of event types.
    pub(crate) fn settings(
        &self,
        events_field: &'static str,
        change: Change,
        dialect: &Dialect,
        catalogue: &Catalogue,
    ) -> Result<EndpointSettings, ApiError> {
        if let Some(events) = &change.events {
            catalogue.check_subscriptions(events_field, events)?;
        }
        if let Some(Some(name)) = &change.name {
            check_label("name", name)?;
        }
        let schedule = |waits: Vec<String>| {
            Schedule::parse(&waits).map_err(|fault| ApiError::invalid("schedule", fault.to_string()))
        };
        Ok(EndpointSettings {
            url: change.url.map(|url| self.check_url(&url)).transpose()?,
            event_types: change.events,
            name: change.name,
            status: change.status.map(|status| check_status(&status)).transpose()?,
            timeout: change.timeout_ms.map(check_timeout).transpose()?,
            schedule: change.schedule.map(|waits| waits.map(schedule).transpose()).transpose()?,
            rate: change.rate_per_second.map(check_rate).transpose()?,
            email: change.email.map(|email| email.map(checked_email).transpose()).transpose()?,
            headers: change.headers.map(|headers| check_headers(headers, dialect)).transpose()?,
        })
    }

    fn check_url(&self, url: &str) -> Result<String, ApiError> {
        let checked = check_url(url, &self.url_policy());
        checked.map(String::from).map_err(|fault| ApiError::new(ErrorCode::InvalidUrl, fault.to_string()).at("url"))
    }
}

fn check_status(status: &str) -> Result<EndpointStatus, ApiError> {
    EndpointStatus::parse(status).ok_or_else(|| ApiError::invalid("status", "must be one of enabled, paused, disabled"))
}

fn check_timeout(milliseconds: Option<u64>) -> Result<Option<Duration>, ApiError> {
    match milliseconds.map(Duration::from_millis) {
        Some(timeout) if !TIMEOUTS.contains(&timeout) => {
            Err(ApiError::invalid("timeout_ms", "must be between 100 and 60000"))
        }
        timeout => Ok(timeout),
    }
}

fn check_rate(rate: Option<u32>) -> Result<Option<u32>, ApiError> {
    match rate {
        Some(rate) if !RATES.contains(&rate) => {
            Err(ApiError::invalid("rate_per_second", "must be between 1 and 10000"))
        }
        rate => Ok(rate),
    }
}

pub(crate) fn check_headers(headers: BTreeMap<String, String>, dialect: &Dialect) -> Result<OwnHeaders, ApiError> {
    if headers.len() > MAX_HEADERS {
        return Err(ApiError::invalid("headers", format!("must be {MAX_HEADERS} at the most")));
    }
    let mut checked = OwnHeaders::new();
    for (name, value) in headers {
        let fault = |fault: &dyn std::fmt::Display| ApiError::invalid("headers", format!("cannot be sent: {fault}"));
        let name = header::check_name(&name).map_err(|reason| fault(&reason))?;
        if dialect.sets_header(&name) {
            return Err(fault(&format_args!("{name} is set by the dialect {}", dialect.name)));
        }
        header::check_value(&name, &value).map_err(|reason| fault(&reason))?;
        if checked.insert(name.to_string(), value).is_some() {
            return Err(fault(&format_args!("{name} is given twice")));
        }
    }
    Ok(checked)
}

pub(crate) fn no_such_webhook() -> ApiError {
    ApiError::not_found("id", "there is no such webhook")
}
