//! `/api/v1/attempts`, and the last attempts of a webhook.

use axum::extract::State;
use fanfare_domain::ids::{AttemptId, DeliveryId, EndpointId, EventId};
use fanfare_store::{AttemptFilter, LoggedAttempt};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::{Answer, Page, readable},
        authentication::AuthorizedApplication,
        error::{ApiError, Failures},
        paging::page_size,
        parameters::{Path, Query, id, timestamp},
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

/// Selects the attempts of a list. An attempt must meet all conditions.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct LogFilter {
    /// Only attempts to this webhook.
    pub webhook: Option<String>,
    /// Only attempts of this event.
    pub event: Option<String>,
    /// Only attempts that started at or after this time.
    pub since: Option<String>,
    /// Only attempts that started before this time.
    pub until: Option<String>,
    /// `false` for no attempts of test events: charts and statistics count no test events.
    pub tests: Option<bool>,
    /// The `next` of the previous page.
    pub before: Option<String>,
    /// 1 to 100. Default: 50.
    pub limit: Option<usize>,
}

/// Lists the attempts of an application, newest first. A successful first attempt that began within 10 seconds of the
/// acceptance is sorted by the acceptance.
#[utoipa::path(get, path = "/attempts", operation_id = "list_attempts", tag = "deliveries",
    params(LogFilter), responses((status = 200, body = Page<AttemptLog>), Failures))]
pub async fn log(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Query(filter): Query<LogFilter>,
) -> Result<Page<AttemptLog>, ApiError> {
    let size = page_size(filter.limit)?;
    let before = filter.before.as_deref().map(str::parse).transpose();
    let filter = AttemptFilter {
        endpoint: filter.webhook.as_deref().map(|text| id("webhook", text)).transpose()?,
        event: filter.event.as_deref().map(|text| id("event", text)).transpose()?,
        since: filter.since.as_deref().map(|text| timestamp("since", text)).transpose()?,
        until: filter.until.as_deref().map(|text| timestamp("until", text)).transpose()?,
        without_tests: filter.tests == Some(false),
        before: before.map_err(|fault| ApiError::invalid("before", fault))?,
        limit: size.rows(),
    };
    let rows = api.store.attempt_log(authorized.application, &filter).await?;
    let logs = rows.into_iter().map(AttemptLog::new).collect();
    Ok(Page::of(logs, size, |log: &AttemptLog| log.place.clone()))
}

/// Number of attempts.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct AttemptsQuery {
    /// 1 to 100. Default: 5.
    pub limit: Option<usize>,
}

/// Lists the newest attempts of a webhook, across all deliveries. `/attempts` lists all attempts.
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
