//! `/api/v1/webhooks/{id}/backlog`: the queued deliveries of a webhook.

use axum::extract::State;
use fanfare_domain::ids::{EndpointId, ProcessId};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    ApiError, Console, Failures,
    answer::Answer,
    request::{Manager, Path},
};

/// Queued deliveries are counted up to this number.
const MAX_COUNTED: usize = 10_000;

/// The queued deliveries of a webhook: it cannot take them now.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookBacklog)]
pub(crate) struct Backlog {
    #[schema(value_type = String)]
    webhook: EndpointId,
    /// Counted up to 10,000.
    #[schema(example = 120)]
    queued: i64,
    /// Why deliveries are queued: `breaker_open`, `rate_limited`, `lane_full`, `paused` and others.
    #[schema(example = "breaker_open")]
    reason: String,
    /// When the backlog began.
    #[schema(value_type = String, format = DateTime)]
    since: Timestamp,
    /// The dispatcher that sends them. Each start of a process has an id of its own, which is in its log. `null` where no
    /// dispatcher does so now.
    #[schema(value_type = Option<String>)]
    owner: Option<ProcessId>,
    /// Failed attempts in a row.
    failures: u32,
    /// When the webhook is tried again after many failures in a row. `null` where it is not waited for.
    #[schema(value_type = Option<String>, format = DateTime)]
    next_probe_at: Option<Timestamp>,
    /// Attempts a second, in all dispatchers together: the webhook's own rate, or its dialect's. `null` for no limit.
    rate_per_second: Option<u32>,
}

/// Shows a webhook's backlog: how many deliveries are queued, and why. `data` is `null` where none are.
#[utoipa::path(get, path = "/webhooks/{id}/backlog", operation_id = "get_webhook_backlog", tag = "webhooks",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Option<Backlog>>), Failures))]
pub(crate) async fn show(
    State(console): State<Console>,
    manager: Manager,
    Path(webhook): Path<String>,
) -> Result<Answer<Option<Backlog>>, ApiError> {
    let endpoint = console.endpoint(&manager, &webhook).await?;
    let application = console.directory.application(endpoint.application);
    let in_force = application.and_then(|known| known.endpoint(endpoint.id)?.policy.rate_per_second);
    let found = console.store.backlog(endpoint.id, MAX_COUNTED).await?;
    Ok(Answer::of(found.map(|row| Backlog {
        webhook: endpoint.id,
        queued: row.queued,
        reason: row.reason,
        since: row.since,
        owner: row.owner,
        failures: row.failures,
        next_probe_at: row.next_probe,
        rate_per_second: endpoint.rate.or(in_force),
    })))
}
