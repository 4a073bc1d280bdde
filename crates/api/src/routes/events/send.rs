//! `/api/v1/events/{id}/send`: sends an event to a webhook without a delivery of the event.

use axum::extract::State;
use fanfare_domain::{
    endpoint::Feed,
    ids::{EndpointId, EventId},
};
use fanfare_store::Opened;
use serde::Deserialize;
use utoipa::ToSchema;

use crate::{
    http::{
        answer::Answer,
        authentication::AuthorizedApplication,
        body::JsonBody,
        error::{ApiError, ErrorCode, Failures},
        parameters::{Path, id},
    },
    routes::{deliveries::resend::Resent, webhooks::feed::read_by_feed},
    state::ApiState,
};

/// The webhook for an event.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = SendEvent)]
pub struct New {
    pub webhook: String,
}

/// Sends an event to a webhook that did not get the event: the webhook is newer than the event, or wants other types.
/// The webhook's subscriptions stay. A repeated request opens no second delivery. For an existing delivery, resend the
/// delivery instead.
#[utoipa::path(post, path = "/events/{id}/send", operation_id = "send_event", tag = "events",
    params(("id" = String, Path)), request_body = New,
    responses((status = 200, body = Answer<Resent>), Failures))]
pub async fn send(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(event): Path<String>,
    JsonBody(new): JsonBody<New>,
) -> Result<Answer<Resent>, ApiError> {
    let event: EventId = id("id", &event)?;
    let webhook: EndpointId = id("webhook", &new.webhook)?;
    let (lifetimes, otherwise) = api.lifetimes(&authorized);
    let lifetime = lifetimes.get(&webhook).copied().unwrap_or(otherwise);
    let refused = |message: String| Err(ApiError::new(ErrorCode::NotResendable, message));
    match api.store.send_event(authorized.application, event, webhook, lifetime).await? {
        Opened::Queued(delivery) => Ok(Answer::of(Resent { id: delivery, event, webhook, attempt: 1 })),
        Opened::Known(delivery) => {
            refused(format!("the event has the delivery {delivery} to the webhook: resend the delivery"))
        }
        Opened::NotSendable => {
            refused("the event is a test, or past its retention: publish the event again".to_owned())
        }
        Opened::Delayed => refused("the event is not yet due: its deliveries are created then".to_owned()),
        Opened::Cancelled => refused("the event was cancelled: publish the event again with a new id".to_owned()),
        Opened::NoSuchEvent => Err(ApiError::not_found("id", "no event has this id: if just published, try again")),
        Opened::Erased => Err(ApiError::new(ErrorCode::EventErased, "the event is erased: publish the event again")),
        Opened::FanningOut => {
            let message = "the deliveries of the event are being created: try again in a few seconds";
            Err(ApiError::new(ErrorCode::EventUnderWay, message).retry_after(5))
        }
        Opened::NoSuchEndpoint => match api.store.endpoint(authorized.application, webhook).await? {
            Some(row) if row.feed == Feed::Only => Err(read_by_feed()),
            Some(_) => {
                let message = "the webhook is disabled: enable the webhook first";
                Err(ApiError::new(ErrorCode::EndpointDisabled, message).at("webhook"))
            }
            None => Err(ApiError::not_found("webhook", "the application has no webhook with this id")),
        },
    }
}
