//! `/api/v1/webhooks/{id}/backlog`: the queued deliveries of a webhook.

use axum::extract::State;
use fanfare_domain::ids::{EndpointId, ProcessId};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        answer::Answer,
        authentication::AuthorizedApplication,
        error::{ApiError, Failures},
        parameters::Path,
    },
    state::ApiState,
};

/// The highest count of queued deliveries.
pub const MAX_COUNTED: usize = 10_000;

/// The backlog of a webhook: deliveries are queued because the webhook cannot take more now.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookBacklog)]
pub struct Backlog {
    #[schema(value_type = String)]
    pub webhook: EndpointId,
    /// The number of queued deliveries, counted up to 10,000.
    #[schema(example = 120)]
    pub queued: i64,
    /// The reason for the backlog: `breaker_open`, `retry_after`, `rate_limited`, `lane_full`, `paused` and others.
    #[schema(example = "breaker_open")]
    pub reason: String,
    /// The start of the backlog.
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    /// The dispatcher that sends the backlog; `null` if no dispatcher does now. A dispatcher gets a new id at each
    /// start, and logs the id.
    #[schema(value_type = Option<String>)]
    pub owner: Option<ProcessId>,
    /// The number of consecutive failed attempts.
    pub failures: u32,
    /// The time of the next attempt after many consecutive failures; `null` without such a wait.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_probe_at: Option<Timestamp>,
    /// The end of the wait that the webhook asked for by `Retry-After`; `null` without such a wait.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub rests_until_at: Option<Timestamp>,
    /// The maximum of attempts per second over all dispatchers, from the webhook or the dialect; `null` for no limit.
    pub rate_per_second: Option<u32>,
}

/// Shows the backlog of a webhook: the number of queued deliveries, and the reason. `data` is `null` without a backlog.
#[utoipa::path(get, path = "/webhooks/{id}/backlog", operation_id = "get_webhook_backlog", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Option<Backlog>>), Failures))]
pub async fn show(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
) -> Result<Answer<Option<Backlog>>, ApiError> {
    let endpoint = api.endpoint(&authorized, &webhook).await?;
    let application = api.directory.application(endpoint.application);
    let current_rate = application.and_then(|known| known.endpoint(endpoint.id)?.policy.rate_per_second);
    let found = api.store.backlog(endpoint.id, MAX_COUNTED).await?;
    Ok(Answer::of(found.map(|row| Backlog {
        webhook: endpoint.id,
        queued: row.queued,
        reason: row.reason,
        since: row.since,
        owner: row.owner,
        failures: row.failures,
        next_probe_at: row.next_probe,
        rests_until_at: row.rests_until.filter(|until| *until > api.store.now()),
        rate_per_second: endpoint.rate.or(current_rate),
    })))
}
