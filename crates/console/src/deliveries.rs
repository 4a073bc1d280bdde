//! `/api/v1/deliveries`

use axum::{extract::State, http::HeaderMap, response::Response};
use fanfare_domain::{
    access::Role,
    delivery::State as DeliveryState,
    ids::{AttemptId, DeliveryId, EndpointId, EventId},
};
use fanfare_store::{AttemptRow, DeliveryFilter, DeliveryRow};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    ApiError, ApplicationQuery, Console,
    request::{Path, Query, authenticate, id, page_size},
    success,
};

#[derive(Serialize)]
struct Delivery {
    id: DeliveryId,
    event: EventId,
    #[serde(rename = "type")]
    event_type: String,
    webhook: EndpointId,
    url: String,
    state: &'static str,
    /// Why it waits though the endpoint did not fail, or why it failed.
    reason: Option<String>,
    /// The number of the attempt that is being made, or is next, or was the last.
    attempt: u32,
    next_attempt_at: Option<Timestamp>,
    accepted_at: Timestamp,
    finished_at: Option<Timestamp>,
}

impl From<DeliveryRow> for Delivery {
    fn from(row: DeliveryRow) -> Self {
        Self {
            id: row.id,
            event: row.event,
            event_type: row.event_type,
            webhook: row.endpoint,
            url: row.url,
            state: row.state.as_str(),
            reason: row.reason,
            attempt: row.attempt,
            next_attempt_at: row.due_at.filter(|_| row.state == DeliveryState::Waiting),
            accepted_at: row.accepted_at,
            finished_at: row.finished_at,
        }
    }
}

#[derive(Serialize)]
struct Attempt {
    id: AttemptId,
    attempt: u32,
    url: Option<String>,
    started_at: Timestamp,
    duration_ms: Option<i32>,
    outcome: String,
    status: Option<i32>,
    error: Option<String>,
    response_headers: Option<Box<RawValue>>,
    /// What of the response's body is kept; bytes that are no UTF-8 are replaced.
    response_body: Option<String>,
    next_attempt_at: Option<Timestamp>,
}

impl Attempt {
    fn new(delivery: DeliveryId, row: AttemptRow) -> Self {
        Self {
            id: AttemptId::derive(delivery, row.attempt),
            attempt: row.attempt,
            url: row.url,
            started_at: row.started_at,
            duration_ms: row.duration_ms,
            outcome: row.outcome,
            status: row.status,
            error: row.error,
            response_headers: row.response_headers.and_then(|headers| RawValue::from_string(headers).ok()),
            response_body: row.response_body.map(|body| String::from_utf8_lossy(&body).into_owned()),
            next_attempt_at: row.next_due_at,
        }
    }
}

#[derive(Serialize)]
struct DeliveryDetail {
    #[serde(flatten)]
    delivery: Delivery,
    /// The body that is sent, the same at each attempt.
    body: String,
    attempts: Vec<Attempt>,
}

#[derive(Deserialize)]
pub(crate) struct Filter {
    webhook: Option<String>,
    event: Option<String>,
    state: Option<String>,
    before: Option<String>,
    limit: Option<usize>,
}

impl Filter {
    fn parse(&self) -> Result<DeliveryFilter, ApiError> {
        let state = |text: &str| {
            let words: Vec<&str> = DeliveryState::ALL.iter().map(|state| state.as_str()).collect();
            DeliveryState::parse(text)
                .ok_or_else(|| ApiError::invalid("state", format!("must be one of {}", words.join(", "))))
        };
        Ok(DeliveryFilter {
            endpoint: self.webhook.as_deref().map(|text| id("webhook", text)).transpose()?,
            event: self.event.as_deref().map(|text| id("event", text)).transpose()?,
            state: self.state.as_deref().map(state).transpose()?,
            before: self.before.as_deref().map(|text| id("before", text)).transpose()?,
            limit: page_size(self.limit)?,
        })
    }
}

pub(crate) async fn list(
    State(console): State<Console>,
    Query(query): Query<ApplicationQuery>,
    Query(filter): Query<Filter>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = authenticate(&headers, &console.directory, &[Role::Manage, Role::Admin])?;
    let rows = console.store.deliveries(query.of(&caller)?, &filter.parse()?).await?;
    Ok(success(rows.into_iter().map(Delivery::from).collect::<Vec<_>>()))
}

pub(crate) async fn show(
    State(console): State<Console>,
    Path(delivery): Path<String>,
    Query(query): Query<ApplicationQuery>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let caller = authenticate(&headers, &console.directory, &[Role::Manage, Role::Admin])?;
    let delivery: DeliveryId = id("id", &delivery)?;
    let found = console.store.delivery(query.of(&caller)?, delivery).await?;
    let (row, body) = found.ok_or_else(|| ApiError::not_found("id", "there is no such delivery"))?;
    let attempts = console.store.attempts(delivery).await?;
    let attempts = attempts.into_iter().map(|row| Attempt::new(delivery, row)).collect();
    Ok(success(DeliveryDetail { delivery: row.into(), body, attempts }))
}
