//! `/api/v1/deliveries/{id}/resend`, and `/api/v1/deliveries/resend` for many deliveries.

use std::{collections::HashMap, sync::Arc, time::Duration};

use axum::extract::State;
use fanfare_domain::{
    delivery::State as DeliveryState,
    endpoint::{Endpoint, EndpointStatus, Feed},
    ids::{DeliveryId, EndpointId, EventId},
};
use fanfare_service::crash_point;
use fanfare_store::{DeliveryFilter, ResendFilter, ResentDelivery};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    http::{
        answer::Answer,
        authentication::AuthorizedApplication,
        body::JsonBody,
        error::{ApiError, ErrorCode, Failures},
        parameters::{Path, id},
    },
    routes::{
        deliveries::{self, no_such_delivery},
        webhooks::feed::read_by_feed,
    },
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
    if endpoint.as_ref().is_some_and(|endpoint| endpoint.feed == Feed::Only) {
        return Err(read_by_feed());
    }
    if endpoint.is_none_or(|endpoint| endpoint.status == EndpointStatus::Disabled) {
        let message = "the webhook of the delivery is disabled or deleted: enable the webhook first";
        return Err(ApiError::new(ErrorCode::EndpointDisabled, message));
    }
    // A delivery whose template had no body has none, and is rendered anew.
    if row.body.is_none() && row.fault.is_none() {
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
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = Resend)]
pub struct Filter {
    /// Only deliveries with these ids, 1 to 1000.
    pub deliveries: Option<Vec<String>>,
    /// Only deliveries to this webhook.
    pub webhook: Option<String>,
    /// Only deliveries of this event.
    pub event: Option<String>,
    /// Only deliveries in this state, or in one of several states separated by commas: `failed`, `skipped`,
    /// `delivered`, `scheduled`, `queued` or `held`. Default: `failed`; with `deliveries`, any of these states.
    pub state: Option<String>,
    /// Only deliveries of events of this type, or of types such as `order.*`.
    pub r#type: Option<String>,
    /// Only deliveries whose last response has this status, such as `503`, or a status of this class, such as `5xx`.
    pub status: Option<String>,
    /// Only deliveries whose last attempt has this outcome, such as `timed_out`.
    pub outcome: Option<String>,
    /// Only deliveries with this reason.
    pub reason: Option<String>,
    /// Only deliveries with this text in the body or in a response, as in the list of deliveries.
    #[schema(write_only)]
    pub contains: Option<String>,
    /// Only deliveries of events accepted at or after this time.
    #[schema(format = DateTime)]
    pub since: Option<String>,
    /// Only deliveries of events accepted before this time.
    #[schema(format = DateTime)]
    pub until: Option<String>,
    /// The `next` of an earlier answer: only older deliveries.
    pub before: Option<String>,
    /// Only deliveries newer than this delivery.
    pub after: Option<String>,
    /// 1 to 1000. Default: 1000.
    pub limit: Option<usize>,
    /// True to send nothing: the answer then has the deliveries that would be resent.
    pub count_only: Option<bool>,
}

/// Deliveries that were requested again.
#[derive(Serialize, ToSchema)]
pub struct ManyResent {
    /// The number of `deliveries`.
    pub resent: usize,
    /// True if more deliveries may match: the request reached the limit, or the bound of a search.
    pub has_more: bool,
    /// `before` of a request that goes on; `null` if `has_more` is false.
    pub next: Option<String>,
    /// The time back to which a bounded search looked; `null` when all was looked through, or without a search.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub searched_until: Option<Timestamp>,
    /// The deliveries; with `count_only`, the deliveries that would be resent.
    pub deliveries: Vec<Resent>,
}

/// Resends the selected deliveries; by default the failed deliveries.
///
/// A request by `type`, `status`, `outcome`, `reason` or `contains` is a search, as in the list of deliveries: the
/// request resends no delivery beyond the bound of the search.
#[utoipa::path(post, path = "/deliveries/resend", operation_id = "resend_deliveries", tag = "deliveries",
    request_body = Filter, responses((status = 200, body = Answer<ManyResent>), Failures))]
pub async fn deliveries(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    JsonBody(filter): JsonBody<Filter>,
) -> Result<Answer<ManyResent>, ApiError> {
    let count_only = filter.count_only.unwrap_or_default();
    let wanted = filter.parse()?;
    let (filter, searched) = api.looked_through(&authorized, wanted).await?;
    let resent = match count_only {
        true => api.store.resendable(authorized.application, &filter).await?,
        false => api.resend(&authorized, &filter).await?,
    };
    let last = resent.last().map(|resent| resent.delivery);
    // A search knows its own end. Another request goes on behind its last delivery.
    let next = searched.unwrap_or_else(|| last.filter(|_| resent.len() == filter.limit));
    let deliveries: Vec<Resent> = resent.iter().map(Resent::from).collect();
    Ok(Answer::of(ManyResent {
        resent: deliveries.len(),
        has_more: next.is_some(),
        next: next.map(|next| next.to_string()),
        searched_until: next.filter(|_| searched.is_some()).map(DeliveryId::accepted_at),
        deliveries,
    }))
}

impl Filter {
    /// The deliveries as in a list.
    fn parse(self) -> Result<DeliveryFilter, ApiError> {
        let limit = self.limit.unwrap_or(MAX_RESENT);
        if !(1..=MAX_RESENT).contains(&limit) {
            return Err(ApiError::invalid("limit", format!("must be between 1 and {MAX_RESENT}")));
        }
        if self.deliveries.as_ref().is_some_and(|ids| ids.is_empty() || ids.len() > MAX_RESENT) {
            return Err(ApiError::invalid("deliveries", format!("must have 1 to {MAX_RESENT} ids")));
        }
        let ids = |ids: Vec<String>| ids.iter().map(|text| id("deliveries", text)).collect::<Result<Vec<_>, _>>();
        let ids = self.deliveries.map(ids).transpose()?;
        let Self {
            webhook, event, state, r#type, status, outcome, reason, contains, since, until, before, after, ..
        } = self;
        let filter = deliveries::filter::Filter {
            webhook,
            event,
            state,
            r#type,
            status,
            outcome,
            reason,
            since,
            until,
            contains,
            ids: None,
            before,
            after,
            limit: None,
        };
        let (mut filter, _) = filter.parse()?;
        if filter.states.contains(&DeliveryState::Sending) {
            return Err(ApiError::invalid("state", "must not be sending: wait until these deliveries are sent"));
        }
        // Without a state, named deliveries are resent from any state, other deliveries only from `failed`.
        if filter.states.is_empty() {
            filter.states = if ids.is_some() { RESENDABLE.to_vec() } else { vec![DeliveryState::Failed] };
        }
        Ok(DeliveryFilter { ids, limit, ..filter })
    }
}

impl ApiState {
    /// Looks through the deliveries for a search. Returns the found deliveries as a filter of a resend, and of a search
    /// the delivery where the next request begins, if any.
    async fn looked_through(
        &self,
        authorized: &AuthorizedApplication,
        wanted: DeliveryFilter,
    ) -> Result<(ResendFilter, Option<Option<DeliveryId>>), ApiError> {
        let mut filter = ResendFilter {
            deliveries: wanted.ids.clone(),
            is_found: false,
            endpoint: wanted.endpoint,
            event: wanted.event,
            states: wanted.states.clone(),
            since: wanted.since,
            until: wanted.until,
            before: wanted.before,
            after: wanted.after,
            limit: wanted.limit,
        };
        if !wanted.is_search() {
            return Ok((filter, None));
        }
        let page = self.store.deliveries(authorized.application, &wanted).await?;
        let last = page.deliveries.last().map(|row| row.id).filter(|_| page.deliveries.len() == wanted.limit);
        filter.is_found = wanted.ids.is_none();
        filter.deliveries = Some(page.deliveries.iter().map(|row| row.id).collect());
        Ok((filter, Some(last.or(page.passed))))
    }

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
    pub(crate) fn lifetimes(&self, authorized: &AuthorizedApplication) -> (HashMap<EndpointId, Duration>, Duration) {
        let Some(application) = self.directory.application(authorized.application) else {
            return (HashMap::new(), UNKNOWN_SCHEDULE + self.expiry);
        };
        let of = |endpoint: &Arc<Endpoint>| (endpoint.id, endpoint.policy.lifetime(self.expiry));
        let lifetimes: HashMap<EndpointId, Duration> = application.endpoints().map(of).collect();
        let usual = application.dialect.policy.lifetime(self.expiry);
        let otherwise = lifetimes.values().copied().fold(usual, Duration::max);
        (lifetimes, otherwise)
    }
}
