//! `/api/v1/webhooks/filter-test`: tries a filter on the last events of the application.

use axum::extract::State;
use fanfare_domain::{
    expression::{Explanation, Outcome},
    ids::EventId,
};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::{settings::parsed_filter, tried::Tried};
use crate::{
    http::{
        answer::Answer,
        authentication::AuthorizedApplication,
        body::JsonBody,
        error::{ApiError, Failures},
    },
    routes::events::why::Evidence,
    state::{ApiState, beside_others},
};

/// The maximum number of tried events.
pub const MAX_TRIED: usize = 20;

/// Filter to try.
#[derive(Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewFilterTest)]
pub struct New {
    #[schema(example = "data.amount > 100")]
    pub filter: String,
    /// Subscriptions. Default: all types.
    pub events: Option<Vec<String>>,
    /// At most 20. Default: the last events.
    pub event_ids: Option<Vec<String>>,
}

/// Results of a filter.
#[derive(Debug, Serialize, ToSchema)]
pub struct FilterTest {
    /// `events`, or `samples` without events.
    pub tried_on: &'static str,
    pub passed: usize,
    pub results: Vec<FilterResult>,
}

/// Result of a filter for an event.
#[derive(Debug, Serialize, ToSchema)]
pub struct FilterResult {
    #[schema(value_type = Option<String>)]
    pub event: Option<EventId>,
    pub r#type: String,
    #[schema(value_type = Option<String>, format = DateTime)]
    pub accepted_at: Option<Timestamp>,
    /// `true`, `false`, or `error`: no result, which counts as `false`.
    pub result: &'static str,
    /// The part of the filter that decided.
    pub part: Option<String>,
    /// The position of the part, in characters from 1.
    pub position: Option<usize>,
    pub error: Option<String>,
    /// The members that the part looked at. The value may be `missing` or `hidden`.
    pub values: Vec<Evidence>,
}

/// Tries a filter on the last 20 events, or on samples. With a redacted member, there is no result here.
#[utoipa::path(post, path = "/webhooks/filter-test", operation_id = "test_filter", tag = "webhooks",
    request_body = New, responses((status = 200, body = Answer<FilterTest>), Failures))]
pub async fn run(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    JsonBody(new): JsonBody<New>,
) -> Result<Answer<FilterTest>, ApiError> {
    api.test_filter(&authorized, new).await.map(Answer::of)
}

impl ApiState {
    /// Tries a filter.
    ///
    /// # Errors
    /// For a filter that cannot be used, with the place and the reason.
    pub async fn test_filter(&self, authorized: &AuthorizedApplication, new: New) -> Result<FilterTest, ApiError> {
        let filter = parsed_filter(&new.filter)?;
        let asked = (new.events.as_deref(), new.event_ids.as_deref());
        let (tried_on, tried) = self.to_try(authorized, asked, MAX_TRIED).await?;
        let application = self.known_application(authorized)?;
        let permit = self.test_sends.begin(authorized.application)?;
        let trying = move || {
            let result = |tried: Tried| FilterResult::of(&tried, filter.explain(&tried.filtered(&application)));
            let results: Vec<FilterResult> = tried.into_iter().map(result).collect();
            drop(permit);
            results
        };
        let results = beside_others(trying).await?;
        let passed = results.iter().filter(|result| result.result == Outcome::True.as_str()).count();
        Ok(FilterTest { tried_on, passed, results })
    }
}

impl FilterResult {
    fn of(tried: &Tried, explained: Explanation) -> Self {
        let values = explained.values.into_iter().map(|(name, value)| Evidence { name: name.into(), value }).collect();
        Self {
            event: tried.event,
            r#type: tried.event_type.to_string(),
            accepted_at: tried.accepted_at,
            result: explained.outcome.as_str(),
            position: explained.part.as_ref().map(|_| explained.position),
            part: explained.part,
            error: explained.error,
            values,
        }
    }
}
