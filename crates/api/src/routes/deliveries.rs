//! `/api/v1/deliveries`, and the deliveries and attempts of a webhook.

pub mod attempts;
pub mod counts;
pub mod filter;
pub mod request;
pub mod resend;

use axum::extract::State;
use fanfare_domain::{
    delivery::State as DeliveryState,
    ids::{AttemptId, DeliveryId, EndpointId, EventId},
};
use fanfare_store::{AttemptRow, DeliveryFilter, DeliveryPage, DeliveryRow};
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::{
    http::{
        answer::{Answer, Page, readable},
        authentication::AuthorizedApplication,
        error::{ApiError, Failures},
        paging::PageSize,
        parameters::{Path, Query, id},
    },
    routes::deliveries::filter::{Filter, HistoryFilter},
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
    /// The name of the webhook.
    pub webhook_name: Option<String>,
    pub url: String,
    /// `sending`; `scheduled`: waits for a retry; `queued`: the webhook cannot take the delivery now; `held`: queued,
    /// and the webhook is paused; `delivered`, `failed` or `skipped`.
    #[schema(example = "delivered")]
    pub state: &'static str,
    /// The reason for the state `queued` or `failed`; `feed` for a skipped delivery whose receiver reads the feed.
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
    /// The number of the delivery for the webhook and the ordering key of the event.
    pub sequence: Option<u64>,
    #[schema(value_type = String, format = DateTime)]
    pub accepted_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub finished_at: Option<Timestamp>,
    /// The time of the last mail to an owner that reported a failure of the delivery.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub mailed_at: Option<Timestamp>,
}

impl From<DeliveryRow> for Delivery {
    fn from(row: DeliveryRow) -> Self {
        Self {
            id: row.id,
            event: row.event,
            event_type: row.event_type,
            webhook: row.endpoint,
            webhook_name: row.endpoint_name,
            url: row.url,
            state: row.state.as_str(),
            reason: row.reason,
            attempt: row.attempt,
            retry_count: row.attempts.saturating_sub(1),
            response_status: row.response_status,
            next_attempt_at: row.due_at.filter(|_| row.state == DeliveryState::Scheduled),
            sequence: row.sequence.map(|sequence| sequence.number),
            accepted_at: row.accepted_at,
            finished_at: row.finished_at,
            mailed_at: row.mailed.map(|(at, _)| at),
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
    /// Names and values of the request's headers, rebuilt from the settings and secrets now in force. The values of the
    /// webhook's own headers are hidden; `traceparent`, `tracestate`, `fanfare-replay` and signatures `v1a` are left
    /// out. `null` if the secrets were changed since, if the body is long or redacted, or if the webhook is deleted or
    /// unreadable.
    pub request_headers: Option<Vec<(String, String)>>,
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
            request_headers: None,
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
    /// The address of the last mail that reported a failure.
    pub mailed_to: Option<String>,
    /// The body of the request. Each attempt sends the same bytes.
    pub body: String,
    /// Why the webhook's template had no body for the event, of a delivery that failed as `not_rendered`.
    pub template_error: Option<String>,
    pub attempts: Vec<Attempt>,
}

/// Lists the deliveries, newest first. During the first attempt, a delivery may be missing for 2 seconds.
///
/// A list by `type`, `status`, `outcome`, `reason` or `contains` is a search: a page looks through the newest 15,000
/// deliveries that meet the other conditions; 10,000 by `type` and answer together, and 5,000 by `contains`. The page
/// may have few deliveries or none, and still a `next`.
#[utoipa::path(get, path = "/deliveries", operation_id = "list_deliveries", tag = "deliveries",
    params(Filter), responses((status = 200, body = Page<Delivery>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Query(filter): Query<Filter>,
) -> Result<Page<Delivery>, ApiError> {
    let (filter, size) = filter.parse()?;
    let page = api.store.deliveries(authorized.application, &filter).await?;
    Ok(of_page(page, &filter, size, Delivery::from, |delivery| delivery.id))
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
    let mut attempts: Vec<Attempt> = attempts.into_iter().map(|row| Attempt::new(delivery, row)).collect();
    api.rebuild_headers(&authorized, &row, &mut attempts).await?;
    let body = row.body.clone().unwrap_or_default();
    let mailed_to = row.mailed.as_ref().map(|(_, address)| address.clone());
    let template_error = row.fault.clone();
    Ok(Answer::of(DeliveryDetail { delivery: row.into(), mailed_to, body, template_error, attempts }))
}

/// The page of a list or of a search.
fn of_page<T: Serialize>(
    page: DeliveryPage,
    filter: &DeliveryFilter,
    size: PageSize,
    item: impl Fn(DeliveryRow) -> T,
    delivery: impl Fn(&T) -> DeliveryId,
) -> Page<T> {
    let items = page.deliveries.into_iter().map(item).collect();
    let page = Page::of(items, size, |item| delivery(item).to_string()).or_next(page.passed.map(|id| id.to_string()));
    let next: Option<DeliveryId> = page.next.as_deref().filter(|_| filter.is_search()).and_then(|id| id.parse().ok());
    page.searched_until(next.map(DeliveryId::accepted_at))
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
    let (filter, size) = Filter::from(filter).parse()?;
    let filter = DeliveryFilter { endpoint: Some(endpoint.id), with_bodies: true, ..filter };
    let page = api.store.deliveries(authorized.application, &filter).await?;
    let entry = |mut row: DeliveryRow| {
        let payload = row.body.take().and_then(|body| readable(&body));
        HistoryEntry { delivery: row.into(), payload }
    };
    Ok(of_page(page, &filter, size, entry, |entry| entry.delivery.id))
}
