//! `/api/v1/deliveries`, and the deliveries and attempts of a webhook.

use axum::extract::State;
use fanfare_domain::{
    delivery::State as DeliveryState,
    ids::{AttemptId, DeliveryId, EndpointId, EventId},
};
use fanfare_store::{AttemptRow, DeliveryFilter, DeliveryRow};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::{Answer, Page, readable},
        authentication::AuthorizedApplication,
        error::{ApiError, Failures},
        paging::{PageSize, page_size},
        parameters::{Path, Query, id},
    },
    state::ApiState,
};

/// A delivery: one event to one webhook.
#[derive(Serialize, ToSchema)]
pub struct Delivery {
    #[schema(value_type = String, example = "dlv_01h455vb4pex5vsknk084sn02q")]
    pub id: DeliveryId,
    #[schema(value_type = String)]
    pub event: EventId,
    #[serde(rename = "type")]
    pub event_type: String,
    #[schema(value_type = String)]
    pub webhook: EndpointId,
    pub url: String,
    /// `sending`; `scheduled`: waits for a retry; `queued`: the webhook cannot take the delivery now; `held`: queued,
    /// and the webhook is paused; `delivered`, `failed` or `skipped`.
    #[schema(example = "delivered")]
    pub state: &'static str,
    /// The reason for the state `queued` or `failed`.
    pub reason: Option<String>,
    /// The number of the current attempt; else of the next attempt; for a finished delivery, of the last attempt.
    pub attempt: u32,
    /// The number of attempts after the first.
    pub retry_count: u32,
    /// The status of the last response.
    pub response_status: Option<i32>,
    /// The time of the next attempt of a scheduled delivery.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_attempt_at: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    pub accepted_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
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
            retry_count: row.attempts.saturating_sub(1),
            response_status: row.response_status,
            next_attempt_at: row.due_at.filter(|_| row.state == DeliveryState::Scheduled),
            accepted_at: row.accepted_at,
            finished_at: row.finished_at,
        }
    }
}

/// An attempt of a delivery.
#[derive(Serialize, ToSchema)]
pub struct Attempt {
    #[schema(value_type = String)]
    pub id: AttemptId,
    pub attempt: u32,
    pub url: Option<String>,
    #[schema(value_type = String, format = DateTime)]
    pub started_at: Timestamp,
    pub duration_ms: Option<i32>,
    /// `answered`, or the kind of failure, such as `timed_out`.
    pub outcome: String,
    pub status: Option<i32>,
    pub error: Option<String>,
    #[schema(value_type = Option<Object>)]
    pub response_headers: Option<Box<RawValue>>,
    /// The stored part of the response's body. Invalid UTF-8 is replaced.
    pub response_body: Option<String>,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_attempt_at: Option<Timestamp>,
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

/// A delivery with body and attempts.
#[derive(Serialize, ToSchema)]
pub struct DeliveryDetail {
    #[serde(flatten)]
    pub delivery: Delivery,
    /// The body of the request. Each attempt sends the same bytes.
    pub body: String,
    pub attempts: Vec<Attempt>,
}

/// Selects the deliveries of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only deliveries to this webhook.
    pub webhook: Option<String>,
    /// Only deliveries of this event.
    pub event: Option<String>,
    /// Only deliveries in this state.
    pub state: Option<String>,
    /// The `next` of the previous page.
    pub before: Option<String>,
    /// 1 to 100. Default: 50.
    pub limit: Option<usize>,
}

impl Filter {
    fn parse(&self) -> Result<(DeliveryFilter, PageSize), ApiError> {
        let size = page_size(self.limit)?;
        let filter = DeliveryFilter {
            endpoint: self.webhook.as_deref().map(|text| id("webhook", text)).transpose()?,
            event: self.event.as_deref().map(|text| id("event", text)).transpose()?,
            state: self.state.as_deref().map(|text| delivery_state("state", text)).transpose()?,
            before: self.before.as_deref().map(|text| id("before", text)).transpose()?,
            with_bodies: false,
            limit: size.rows(),
        };
        Ok((filter, size))
    }
}

/// Parses the state of a delivery in a query or body.
pub(crate) fn delivery_state(field: &str, text: &str) -> Result<DeliveryState, ApiError> {
    let words: Vec<&str> = DeliveryState::ALL.iter().map(|state| state.as_str()).collect();
    DeliveryState::parse(text).ok_or_else(|| ApiError::invalid(field, format!("must be one of {}", words.join(", "))))
}

/// Lists the deliveries, newest first. During the first attempt, a delivery may be missing for 2 seconds.
#[utoipa::path(get, path = "/deliveries", operation_id = "list_deliveries", tag = "deliveries",
    params(Filter), responses((status = 200, body = Page<Delivery>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Query(filter): Query<Filter>,
) -> Result<Page<Delivery>, ApiError> {
    let (filter, size) = filter.parse()?;
    let rows = api.store.deliveries(authorized.application, &filter).await?;
    Ok(Page::of(rows.into_iter().map(Delivery::from).collect(), size, |delivery| delivery.id.to_string()))
}

/// Shows a delivery with body and attempts.
#[utoipa::path(get, path = "/deliveries/{id}", operation_id = "show_delivery", tag = "deliveries",
    params(("id" = String, Path)), responses((status = 200, body = Answer<DeliveryDetail>), Failures))]
pub async fn show(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(delivery): Path<String>,
) -> Result<Answer<DeliveryDetail>, ApiError> {
    let delivery: DeliveryId = id("id", &delivery)?;
    let found = api.store.delivery(authorized.application, delivery).await?;
    let (row, attempts) = found.ok_or_else(no_such_delivery)?;
    let attempts = attempts.into_iter().map(|row| Attempt::new(delivery, row)).collect();
    let body = row.body.clone().unwrap_or_default();
    Ok(Answer::of(DeliveryDetail { delivery: row.into(), body, attempts }))
}

pub(crate) fn no_such_delivery() -> ApiError {
    ApiError::not_found("id", "the application has no delivery with this id")
}

/// A delivery of a webhook, with its body.
#[derive(Serialize, ToSchema)]
pub struct HistoryEntry {
    #[serde(flatten)]
    pub delivery: Delivery,
    /// The body of the request; `null` for a body above 64 KiB: `GET /api/v1/deliveries/{id}` shows the body.
    #[schema(value_type = Value)]
    pub payload: Option<Box<RawValue>>,
}

/// Selects the deliveries of a webhook's list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct HistoryFilter {
    /// Only deliveries in this state.
    pub state: Option<String>,
    /// The `next` of the previous page.
    pub before: Option<String>,
    /// 1 to 100. Default: 50.
    pub limit: Option<usize>,
}

/// Lists the delivery history of a webhook, newest first: payload, last response status and retries of each delivery.
#[utoipa::path(get, path = "/webhooks/{id}/deliveries", operation_id = "list_webhook_deliveries", tag = "webhooks",
    params(("id" = String, Path), HistoryFilter),
    responses((status = 200, body = Page<HistoryEntry>), Failures))]
pub async fn history(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
    Query(filter): Query<HistoryFilter>,
) -> Result<Page<HistoryEntry>, ApiError> {
    let endpoint = api.endpoint(&authorized, &webhook).await?;
    let HistoryFilter { state, before, limit } = filter;
    let (filter, size) = Filter { webhook: None, event: None, state, before, limit }.parse()?;
    let filter = DeliveryFilter { endpoint: Some(endpoint.id), with_bodies: true, ..filter };
    let rows = api.store.deliveries(authorized.application, &filter).await?;
    let entry = |mut row: DeliveryRow| {
        let payload = row.body.take().and_then(|body| readable(&body));
        HistoryEntry { delivery: row.into(), payload }
    };
    Ok(Page::of(rows.into_iter().map(entry).collect(), size, |entry| entry.delivery.id.to_string()))
}
