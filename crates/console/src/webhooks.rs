//! `/api/v1/webhooks`: an application's endpoints, under the name that the documents give them.

use std::time::Duration;

use axum::{
    body::Body,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use fanfare_domain::{
    access::{Caller, Role},
    application::EndpointStatus,
    endpoint_url::check_url,
    ids::{ApplicationId, EndpointId, SecretId},
    secret::SigningSecret,
    subscription::Subscription,
};
use fanfare_store::{EndpointChange, EndpointRow, NewEndpoint};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};

use crate::{
    ApiError, ApplicationQuery, Console,
    request::{Fields, Path, Query, authenticate, id, missing, page_size},
    success,
};

/// Entries in an endpoint's list of event types.
const MAX_SUBSCRIPTIONS: usize = 200;

#[derive(Serialize)]
struct Webhook {
    id: EndpointId,
    url: String,
    events: Vec<String>,
    /// Shown once, when the webhook is created.
    #[serde(skip_serializing_if = "Option::is_none")]
    secret: Option<String>,
    status: &'static str,
    timeout_ms: Option<u128>,
    created_at: Timestamp,
    updated_at: Timestamp,
}

impl Webhook {
    fn new(row: EndpointRow, secret: Option<&SigningSecret>) -> Self {
        Self {
            id: row.id,
            url: row.url,
            events: row.event_types,
            secret: secret.map(|secret| secret.text().to_owned()),
            status: row.status.as_str(),
            timeout_ms: row.timeout.map(|timeout| timeout.as_millis()),
            created_at: row.created_at,
            updated_at: row.updated_at,
        }
    }
}

fn manager(
    console: &Console,
    headers: &HeaderMap,
    query: &ApplicationQuery,
) -> Result<(Caller, ApplicationId), ApiError> {
    let caller = authenticate(headers, &console.directory, &[Role::Manage, Role::Admin])?;
    Ok((caller, query.of(&caller)?))
}

pub(crate) async fn create(
    State(console): State<Console>,
    Query(query): Query<ApplicationQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (_, application) = manager(&console, &headers, &query)?;
    let mut fields = Fields::read(&headers, body).await?;
    let url = fields.required_text("url")?;
    let events = fields.texts("events")?.ok_or_else(|| missing("events"))?;
    fields.finish()?;
    let new = NewEndpoint {
        id: EndpointId::new(Timestamp::now(), rand::random()),
        application,
        url: console.check_url(&url)?,
        event_types: check_subscriptions(events)?,
        secret_id: SecretId::new(Timestamp::now(), rand::random()),
        secret: SigningSecret::from_random(rand::random()),
    };
    if console.store.application(application).await?.is_none() {
        return Err(ApiError::not_found("application", "there is no such application"));
    }
    let row = console.store.create_endpoint(&new).await?;
    Ok((StatusCode::CREATED, success(Webhook::new(row, Some(&new.secret)))).into_response())
}

#[derive(Deserialize)]
pub(crate) struct Page {
    before: Option<String>,
    limit: Option<usize>,
}

pub(crate) async fn list(
    State(console): State<Console>,
    Query(query): Query<ApplicationQuery>,
    Query(page): Query<Page>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (_, application) = manager(&console, &headers, &query)?;
    let before = page.before.as_deref().map(|text| id("before", text)).transpose()?;
    let rows = console.store.endpoints(application, before, page_size(page.limit)?).await?;
    Ok(success(rows.into_iter().map(|row| Webhook::new(row, None)).collect::<Vec<_>>()))
}

pub(crate) async fn show(
    State(console): State<Console>,
    Path(webhook): Path<String>,
    Query(query): Query<ApplicationQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (_, application) = manager(&console, &headers, &query)?;
    let row = console.store.endpoint(application, id("id", &webhook)?).await?.ok_or_else(no_such_webhook)?;
    Ok(success(Webhook::new(row, None)))
}

pub(crate) async fn change(
    State(console): State<Console>,
    Path(webhook): Path<String>,
    Query(query): Query<ApplicationQuery>,
    headers: HeaderMap,
    body: Body,
) -> Result<Response, ApiError> {
    let (_, application) = manager(&console, &headers, &query)?;
    let webhook = id("id", &webhook)?;
    let mut fields = Fields::read(&headers, body).await?;
    let change = EndpointChange {
        url: fields.text("url")?.map(|url| console.check_url(&url)).transpose()?,
        event_types: fields.texts("events")?.map(check_subscriptions).transpose()?,
        status: fields.text("status")?.map(|status| check_status(&status)).transpose()?,
        timeout: fields.milliseconds("timeout_ms")?.map(check_timeout).transpose()?,
    };
    fields.finish()?;
    let row = console.store.change_endpoint(application, webhook, &change).await?.ok_or_else(no_such_webhook)?;
    Ok(success(Webhook::new(row, None)))
}

pub(crate) async fn delete(
    State(console): State<Console>,
    Path(webhook): Path<String>,
    Query(query): Query<ApplicationQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let (_, application) = manager(&console, &headers, &query)?;
    let webhook: EndpointId = id("id", &webhook)?;
    if !console.store.delete_endpoint(application, webhook).await? {
        return Err(no_such_webhook());
    }
    Ok(success(serde_json::json!({ "id": webhook, "deleted": true })))
}

impl Console {
    fn check_url(&self, url: &str) -> Result<String, ApiError> {
        let checked = check_url(url, &self.url_policy());
        checked.map(String::from).map_err(|fault| ApiError::new(422, "invalid_url", fault.to_string()).at("url"))
    }
}

fn check_subscriptions(events: Vec<String>) -> Result<Vec<String>, ApiError> {
    if events.is_empty() || events.len() > MAX_SUBSCRIPTIONS {
        return Err(ApiError::invalid(
            "events",
            format!("must name 1 to {MAX_SUBSCRIPTIONS} event types; * stands for all"),
        ));
    }
    for event in &events {
        Subscription::parse(event)
            .map_err(|fault| ApiError::invalid("events", format!("holds {event:?}, which {}", fault.message)))?;
    }
    Ok(events)
}

fn check_status(status: &str) -> Result<EndpointStatus, ApiError> {
    EndpointStatus::parse(status).ok_or_else(|| ApiError::invalid("status", "must be enabled, paused or disabled"))
}

fn check_timeout(milliseconds: Option<u64>) -> Result<Option<Duration>, ApiError> {
    match milliseconds {
        None => Ok(None),
        Some(milliseconds @ 100..=60_000) => Ok(Some(Duration::from_millis(milliseconds))),
        Some(_) => Err(ApiError::invalid("timeout_ms", "must be between 100 and 60000, or null for the deployment's")),
    }
}

fn no_such_webhook() -> ApiError {
    ApiError::not_found("id", "there is no such webhook")
}
