//! `/api/v1/events/{id}/cancel`, and `/api/v1/events/cancel` by the publisher's key: cancels a delayed event.

use axum::extract::State;
use fanfare_domain::{
    event::check_key,
    ids::{ApplicationId, EventId},
};
use fanfare_store::Cancellation;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::Answer,
        authentication::PublishingApplication,
        error::{ApiError, ErrorCode, Failures},
        parameters::{Path, Query, id},
    },
    state::ApiState,
};

/// Result of a cancellation.
#[derive(Serialize, ToSchema)]
#[schema(as = CancelledEvent)]
pub struct Cancelled {
    #[schema(value_type = String)]
    pub id: EventId,
    #[schema(value_type = String, format = DateTime)]
    pub cancelled_at: Timestamp,
    /// True after an earlier request.
    pub already_cancelled: bool,
}

/// Names the event of a cancellation.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct ByKey {
    /// The publisher's id of the event.
    pub key: String,
}

/// Cancels a delayed event that is not yet due. A repeated request changes nothing.
#[utoipa::path(post, path = "/events/{id}/cancel", operation_id = "cancel_event", tag = "events",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Cancelled>), Failures))]
pub async fn by_id(
    State(api): State<ApiState>,
    authorized: PublishingApplication,
    Path(event): Path<String>,
) -> Result<Answer<Cancelled>, ApiError> {
    let event: EventId = id("id", &event)?;
    api.cancel_event(authorized.application, (event, "id"), &authorized.key.to_string()).await.map(Answer::of)
}

/// Cancels the delayed event with the publisher's id.
#[utoipa::path(post, path = "/events/cancel", operation_id = "cancel_event_by_key", tag = "events",
    params(ByKey), responses((status = 200, body = Answer<Cancelled>), Failures))]
pub async fn by_key(
    State(api): State<ApiState>,
    authorized: PublishingApplication,
    Query(asked): Query<ByKey>,
) -> Result<Answer<Cancelled>, ApiError> {
    let key = check_key("key", asked.key)?;
    let event = EventId::from_key(authorized.application, &key);
    api.cancel_event(authorized.application, (event, "key"), &authorized.key.to_string()).await.map(Answer::of)
}

impl ApiState {
    /// Cancels an event. `field` names the event in the request. `author` is shown with the event.
    ///
    /// # Errors
    /// 404 for an unknown event, 409 for an event that is due.
    pub async fn cancel_event(
        &self,
        application: ApplicationId,
        (event, field): (EventId, &'static str),
        author: &str,
    ) -> Result<Cancelled, ApiError> {
        let cancelled = |cancelled_at, already_cancelled| Cancelled { id: event, cancelled_at, already_cancelled };
        match self.store.cancel_event(application, event, author).await? {
            Cancellation::Done(at) => Ok(cancelled(at, false)),
            Cancellation::Before(at) => Ok(cancelled(at, true)),
            Cancellation::TooLate => {
                let message = "the event is due, or was never delayed: its deliveries exist or are being created";
                Err(ApiError::new(ErrorCode::EventDue, message).at(field))
            }
            Cancellation::NoSuchEvent => {
                let message = "the application has no such event: if just published, try again";
                Err(ApiError::not_found(field, message))
            }
        }
    }
}
