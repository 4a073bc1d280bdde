//! `/api/v1/webhooks/health`: the webhooks of an application with their last day, for a list.

use axum::extract::State;
use fanfare_domain::{
    diagnosis::rollup::{HOUR, floor},
    endpoint::health::Health,
    ids::{DeliveryId, EndpointId},
    time::{saturating_add, saturating_sub},
};
use fanfare_store::{EndpointHealth, EndpointRow, LastFailed};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        answer::{Answer, Page},
        authentication::AuthorizedApplication,
        error::{ApiError, Failures},
        parameters::{Path, Query},
    },
    routes::webhooks::Filter,
    state::ApiState,
};

/// The highest count of queued deliveries of a webhook.
pub const MAX_COUNTED: usize = 1000;

/// The hours of the chart.
const HOURS: u32 = 24;

/// A webhook with its last day.
#[derive(Debug, Serialize, ToSchema)]
pub struct WebhookHealth {
    #[schema(value_type = String, example = "wh_01h455vb4pex5vsknk084sn02q")]
    pub webhook: EndpointId,
    pub name: Option<String>,
    pub url: String,
    /// The subscribed event types.
    pub events: Vec<String>,
    /// `enabled`, `failing`, `paused` or `disabled`. Failing: enabled, and each attempt has failed for ten minutes, or
    /// so many in a row that deliveries wait.
    #[schema(example = "failing")]
    pub state: &'static str,
    /// The time since which each attempt failed, to five minutes; `null` if the last attempt was taken.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub failing_since: Option<Timestamp>,
    /// The last 24 hours, the oldest first.
    pub hours: Vec<HealthHour>,
    /// The queued deliveries, held if the webhook is paused, counted up to 1,000.
    pub queued: i64,
    /// The reason of the queue, such as `breaker_open`; `null` without a queue.
    pub queue_reason: Option<String>,
    /// The time of the next attempt after many consecutive failures; `null` without such a wait.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_probe_at: Option<Timestamp>,
    /// The newest failed delivery.
    pub last_failed: Option<LastFailedDelivery>,
}

/// Attempts of an hour.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct HealthHour {
    /// The beginning of the hour.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The attempts that were taken.
    pub taken: u64,
    /// The failed attempts.
    pub failed: u64,
}

/// A failed delivery.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LastFailedDelivery {
    #[schema(value_type = String)]
    pub delivery: DeliveryId,
    /// `null` if the event is past the retention.
    pub event_type: Option<String>,
    /// The reason of the failure, such as `attempts_exhausted`.
    pub reason: Option<String>,
    /// `answered`, or the kind of failure of the last attempt; `null` without an attempt.
    pub outcome: Option<String>,
    /// The status of the last answer.
    pub response_status: Option<i32>,
    #[schema(value_type = String, format = DateTime)]
    pub failed_at: Timestamp,
}

impl WebhookHealth {
    /// Joins a webhook and its day.
    pub(crate) fn new(row: EndpointRow, found: EndpointHealth, now: Timestamp) -> Self {
        let state = Health::of(row.status, found.is_breaker_open(), found.failing_since, now);
        let first = saturating_sub(floor(now, HOUR), HOUR * (HOURS - 1));
        let hour = |number: u32| {
            let at = saturating_add(first, HOUR * number);
            let (taken, failed) = found.hours.get(&at).copied().unwrap_or_default();
            HealthHour { at, taken, failed }
        };
        Self {
            webhook: row.id,
            name: row.name,
            url: row.url,
            events: row.event_types,
            state: state.as_str(),
            failing_since: found.failing_since,
            hours: (0..HOURS).map(hour).collect(),
            queued: found.queued,
            queue_reason: found.reason,
            next_probe_at: found.next_probe,
            last_failed: found.last_failed.map(LastFailedDelivery::new),
        }
    }
}

impl LastFailedDelivery {
    fn new(last: LastFailed) -> Self {
        let LastFailed { delivery, event_type, reason, outcome, status, at } = last;
        Self { delivery, event_type, reason, outcome, response_status: status, failed_at: at }
    }
}

/// Lists the webhooks with their last 24 hours, newest first.
#[utoipa::path(get, path = "/webhooks/health", operation_id = "list_webhook_health", tag = "webhooks",
    params(Filter), responses((status = 200, body = Page<WebhookHealth>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Query(filter): Query<Filter>,
) -> Result<Page<WebhookHealth>, ApiError> {
    let (filter, size) = filter.parse()?;
    let rows = api.store.endpoints(authorized.application, &filter).await?;
    let ids: Vec<EndpointId> = rows.iter().map(|row| row.id).collect();
    let mut found = api.store.endpoint_health(authorized.application, &ids, MAX_COUNTED).await?;
    let now = api.store.now();
    let webhooks = rows.into_iter().map(|row| {
        let health = found.remove(&row.id).unwrap_or_default();
        WebhookHealth::new(row, health, now)
    });
    Ok(Page::of(webhooks.collect(), size, |webhook| webhook.webhook.to_string()))
}

/// Shows a webhook with its last 24 hours.
#[utoipa::path(get, path = "/webhooks/{id}/health", operation_id = "show_webhook_health", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Answer<WebhookHealth>), Failures))]
pub async fn show(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
) -> Result<Answer<WebhookHealth>, ApiError> {
    let row = api.endpoint(&authorized, &webhook).await?;
    let mut found = api.store.endpoint_health(authorized.application, &[row.id], MAX_COUNTED).await?;
    let health = found.remove(&row.id).unwrap_or_default();
    Ok(Answer::of(WebhookHealth::new(row, health, api.store.now())))
}
