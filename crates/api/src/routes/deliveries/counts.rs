//! `/api/v1/deliveries/counts`: numbers of deliveries by state.

use axum::extract::State;
use fanfare_store::{CountFilter, StateCount};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::Answer,
        authentication::AuthorizedApplication,
        error::{ApiError, Failures},
        parameters::{Query, id, timestamp},
    },
    state::ApiState,
};

/// Selects the deliveries to count.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct CountQuery {
    /// Only deliveries to this webhook.
    pub webhook: Option<String>,
    /// Only deliveries of events accepted at or after this time.
    pub since: Option<String>,
    /// Only deliveries of events accepted before this time.
    pub until: Option<String>,
}

/// The number of deliveries in a state.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct Count {
    /// At most 10,000.
    pub deliveries: i64,
    /// True if there are, or may be, more deliveries.
    pub has_more: bool,
}

/// Numbers of deliveries by state. `delivered` is not counted.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DeliveryCounts {
    pub sending: Count,
    pub scheduled: Count,
    pub queued: Count,
    pub held: Count,
    pub failed: Count,
    pub skipped: Count,
}

/// Counts the deliveries by state, each up to 10,000.
#[utoipa::path(get, path = "/deliveries/counts", operation_id = "count_deliveries", tag = "deliveries",
    params(CountQuery), responses((status = 200, body = Answer<DeliveryCounts>), Failures))]
pub async fn show(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Query(query): Query<CountQuery>,
) -> Result<Answer<DeliveryCounts>, ApiError> {
    let filter = CountFilter {
        endpoint: query.webhook.as_deref().map(|text| id("webhook", text)).transpose()?,
        since: query.since.as_deref().map(|text| timestamp("since", text)).transpose()?,
        until: query.until.as_deref().map(|text| timestamp("until", text)).transpose()?,
    };
    let [sending, scheduled, queued, held, failed, skipped] =
        api.store.count_deliveries(authorized.application, &filter).await?.map(Count::from);
    Ok(Answer::of(DeliveryCounts { sending, scheduled, queued, held, failed, skipped }))
}

impl From<StateCount> for Count {
    fn from(count: StateCount) -> Self {
        Self { deliveries: count.deliveries, has_more: count.is_bounded }
    }
}
