//! `/api/v1/deliveries/{id}/resend`, and `/api/v1/deliveries/resend` for many deliveries.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::extract::State;
use fanfare_domain::{
    application::{Endpoint, EndpointStatus},
    delivery::State as DeliveryState,
    ids::{DeliveryId, EndpointId, EventId},
};
use fanfare_service::crash_point;
use fanfare_store::{ResendFilter, ResentDelivery};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    http::{
        answer::Answer,
        authentication::AuthorizedApplication,
        body::JsonBody,
        error::{ApiError, ErrorCode, Failures},
        parameters::{Path, id, timestamp},
    },
    routes::deliveries::{delivery_state, no_such_delivery},
    state::ApiState,
};

/// The maximum number of deliveries in a request.
const MAX_RESENT: usize = 1000;

/// The assumed length of an unreadable schedule.
const UNKNOWN_SCHEDULE: Duration = Duration::from_secs(86400);

/// States that permit a resend.
const RESENDABLE: [DeliveryState; 6] = [
    DeliveryState::Scheduled,
    DeliveryState::Queued,
    DeliveryState::Held,
    DeliveryState::Delivered,
    DeliveryState::Failed,
    DeliveryState::Skipped,
];

/// A delivery that was requested again.
#[derive(Serialize, ToSchema)]
pub struct Resent {
    #[schema(value_type = String)]
    pub id: DeliveryId,
    #[schema(value_type = String)]
    pub event: EventId,
    #[schema(value_type = String)]
    pub webhook: EndpointId,
    /// The number of the next attempt.
    pub attempt: u32,
}

impl From<&ResentDelivery> for Resent {
    fn from(resent: &ResentDelivery) -> Self {
        Self { id: resent.delivery, event: resent.event, webhook: resent.endpoint, attempt: resent.attempt }
    }
}

/// Resends a delivery: a new attempt with the same event and the same id, as soon as the webhook can take deliveries. A
/// finished delivery restarts the schedule. A scheduled delivery keeps the position in the schedule.
#[utoipa::path(post, path = "/deliveries/{id}/resend", operation_id = "resend_delivery", tag = "deliveries",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Resent>), Failures))]
pub async fn delivery(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(delivery): Path<String>,
) -> Result<Answer<Resent>, ApiError> {
    let delivery: DeliveryId = id("id", &delivery)?;
    let (row, _) = api.store.delivery(authorized.application, delivery).await?.ok_or_else(no_such_delivery)?;
    let endpoint = api.store.endpoint(authorized.application, row.endpoint).await?;
    if endpoint.is_none_or(|endpoint| endpoint.status == EndpointStatus::Disabled) {
        let message = "the webhook of the delivery is disabled or deleted: enable the webhook first";
        return Err(ApiError::new(ErrorCode::EndpointDisabled, message));
    }
    if row.body.is_none() {
        return Err(ApiError::new(ErrorCode::EventErased, "the event is erased: publish the event again"));
    }
    let filter = ResendFilter {
        deliveries: Some(vec![delivery]),
        states: RESENDABLE.to_vec(),
        limit: 1,
        ..ResendFilter::default()
    };
    let resent = api.resend(&authorized, &filter).await?;
    let resent = resent.first().ok_or_else(|| {
        let message =
            "the delivery is being sent, or the event is past its retention: wait, or publish the event again";
        ApiError::new(ErrorCode::NotResendable, message)
    })?;
    Ok(Answer::of(resent.into()))
}

/// Selects the deliveries to resend, newest first. A delivery must meet all conditions.
#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Resend)]
pub struct Filter {
    /// Only deliveries with these ids, 1 to 1000.
    pub deliveries: Option<Vec<String>>,
    /// Only deliveries to this webhook.
    pub webhook: Option<String>,
    /// Only deliveries of this event.
    pub event: Option<String>,
    /// Only deliveries in this state: `failed`, `skipped`, `delivered`, `scheduled`, `queued` or `held`. Default:
    /// `failed`; with `deliveries`, any of these states.
    pub state: Option<String>,
    /// Only deliveries of events accepted at or after this time.
    #[schema(format = DateTime)]
    pub since: Option<String>,
    /// Only deliveries of events accepted before this time.
    #[schema(format = DateTime)]
    pub until: Option<String>,
    /// 1 to 1000. Default: 1000.
    pub limit: Option<usize>,
}

/// Deliveries that were requested again.
#[derive(Serialize, ToSchema)]
pub struct ManyResent {
    pub resent: usize,
    /// True if more deliveries may match: the request reached the limit.
    pub has_more: bool,
    pub deliveries: Vec<Resent>,
}

/// Resends the selected deliveries; by default the failed deliveries.
#[utoipa::path(post, path = "/deliveries/resend", operation_id = "resend_deliveries", tag = "deliveries",
    request_body = Filter, responses((status = 200, body = Answer<ManyResent>), Failures))]
pub async fn deliveries(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    JsonBody(filter): JsonBody<Filter>,
) -> Result<Answer<ManyResent>, ApiError> {
    let filter = filter.parse()?;
    let resent = api.resend(&authorized, &filter).await?;
    let deliveries: Vec<Resent> = resent.iter().map(Resent::from).collect();
    Ok(Answer::of(ManyResent { resent: deliveries.len(), has_more: deliveries.len() == filter.limit, deliveries }))
}

impl Filter {
    fn parse(self) -> Result<ResendFilter, ApiError> {
        let limit = self.limit.unwrap_or(MAX_RESENT);
        if !(1..=MAX_RESENT).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("must be between 1 and {MAX_RESENT}")));
        }
        if self.deliveries.as_ref().is_some_and(|ids| ids.is_empty() || ids.len() > MAX_RESENT) {
            return Err(ApiError::invalid("deliveries", format!("must have 1 to {MAX_RESENT} ids")));
        }
        let ids = |ids: Vec<String>| ids.iter().map(|text| id("deliveries", text)).collect::<Result<Vec<_>, _>>();
        let state = self.state.as_deref().map(|text| delivery_state("state", text)).transpose()?;
        if state == Some(DeliveryState::Sending) {
            return Err(ApiError::invalid("state", "must not be sending: wait until these deliveries are sent"));
        }
        // Without a state, named deliveries are resent from any state, other deliveries only from `failed`.
        let states = match (state, &self.deliveries) {
            (Some(state), _) => vec![state],
            (None, Some(_)) => RESENDABLE.to_vec(),
            (None, None) => vec![DeliveryState::Failed],
        };
        Ok(ResendFilter {
            deliveries: self.deliveries.map(ids).transpose()?,
            endpoint: self.webhook.as_deref().map(|text| id("webhook", text)).transpose()?,
            event: self.event.as_deref().map(|text| id("event", text)).transpose()?,
            states,
            since: self.since.as_deref().map(|text| timestamp("since", text)).transpose()?,
            until: self.until.as_deref().map(|text| timestamp("until", text)).transpose()?,
            limit,
        })
    }
}

impl ApiState {
    /// Queues deliveries again. A dispatcher takes the new backlogs within a second.
    async fn resend(
        &self,
        authorized: &AuthorizedApplication,
        filter: &ResendFilter,
    ) -> Result<Vec<ResentDelivery>, ApiError> {
        let (lifetimes, otherwise) = self.lifetimes(authorized);
        let resent = self.store.resend(authorized.application, filter, &lifetimes, otherwise).await?;
        crash_point("resend.committed");
        Ok(resent)
    }

    /// The lifetime of a delivery from now on, by endpoint; and the lifetime for an endpoint missing in the directory.
    fn lifetimes(&self, authorized: &AuthorizedApplication) -> (HashMap<EndpointId, Duration>, Duration) {
        let Some(application) = self.directory.application(authorized.application) else {
            return (HashMap::new(), UNKNOWN_SCHEDULE + self.expiry);
        };
        let of = |endpoint: &Arc<Endpoint>| (endpoint.id, endpoint.policy.lifetime(self.expiry));
        let lifetimes: HashMap<EndpointId, Duration> = application.endpoints().iter().map(of).collect();
        let usual = application.dialect.policy.lifetime(self.expiry);
        let otherwise = lifetimes.values().copied().fold(usual, Duration::max);
        (lifetimes, otherwise)
    }
}
