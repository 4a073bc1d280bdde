//! `/api/v1/webhooks/{id}/attempts`: the last attempts of a webhook.

use axum::extract::State;
use fanfare_domain::ids::{AttemptId, DeliveryId, EndpointId, EventId};
use fanfare_store::LoggedAttempt;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::{Answer, readable},
        authentication::AuthorizedApplication,
        error::{ApiError, Failures},
        paging::page_size,
        parameters::{Path, Query},
    },
    state::ApiState,
};

/// The default number of attempts in a webhook's list, as in Incenta's documentation.
const LAST_ATTEMPTS: usize = 5;

/// An attempt, with the request and the response.
#[derive(Serialize, ToSchema)]
#[schema(as = WebhookLog)]
pub struct AttemptLog {
    #[schema(value_type = String, example = "att_01h455vb4pex5vsknk084sn02q")]
    pub id: AttemptId,
    #[schema(value_type = String)]
    pub config_id: EndpointId,
    #[schema(value_type = String)]
    pub delivery_id: DeliveryId,
    #[schema(value_type = String)]
    pub event_id: EventId,
    pub event_type: String,
    /// The number of the attempt, from 1.
    pub attempt: u32,
    /// The URL of the request; `null` if the dispatcher died before the result was recorded.
    pub url: Option<String>,
    /// The body of the request; `null` for a body above 64 KiB: `GET /api/v1/deliveries/{id}` shows the body.
    #[schema(value_type = Value)]
    pub payload: Option<Box<RawValue>>,
    /// `answered`, or the kind of failure, such as `timed_out`.
    #[schema(example = "answered")]
    pub outcome: String,
    pub response_status: Option<i32>,
    pub response_body: Option<String>,
    /// The cause of a missing or incomplete response.
    pub error: Option<String>,
    pub duration_ms: Option<i32>,
    #[schema(value_type = String, format = DateTime)]
    pub created_at: Timestamp,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub next_attempt_at: Option<Timestamp>,
    /// The list's cursor at this attempt.
    #[serde(skip)]
    pub place: String,
}

impl AttemptLog {
    pub(crate) fn new(logged: LoggedAttempt) -> Self {
        let LoggedAttempt { delivery, event, event_type, endpoint, body, place, attempt } = logged;
        Self {
            id: AttemptId::derive(delivery, attempt.attempt),
            config_id: endpoint,
            delivery_id: delivery,
            event_id: event,
            event_type,
            attempt: attempt.attempt,
            url: attempt.url,
            payload: body.and_then(|body| readable(&body)),
            outcome: attempt.outcome,
            response_status: attempt.status,
            response_body: attempt.response_body.map(|body| String::from_utf8_lossy(&body).into_owned()),
            error: attempt.error,
            duration_ms: attempt.duration_ms,
            created_at: attempt.started_at,
            next_attempt_at: attempt.next_due_at,
            place: place.to_string(),
        }
    }
}

/// Number of attempts.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AttemptsQuery {
    /// 1 to 100. Default: 5.
    pub limit: Option<usize>,
}

/// Lists the newest attempts of a webhook, across all deliveries. `/webhooks/logs` lists all attempts.
#[utoipa::path(get, path = "/webhooks/{id}/attempts", operation_id = "list_webhook_attempts", tag = "webhooks",
    params(("id" = String, Path), AttemptsQuery), responses((status = 200, body = Answer<Vec<AttemptLog>>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
    Query(query): Query<AttemptsQuery>,
) -> Result<Answer<Vec<AttemptLog>>, ApiError> {
    let endpoint = api.endpoint(&authorized, &webhook).await?;
    let size = page_size(query.limit.or(Some(LAST_ATTEMPTS)))?;
    let rows = api.store.last_attempts(authorized.application, endpoint.id, size.items()).await?;
    Ok(Answer::of(rows.into_iter().map(AttemptLog::new).collect()))
}
