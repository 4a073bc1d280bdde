//! `/api/v1/webhooks/{id}/digest`: the deliveries of a day, counted now.

use axum::extract::State;
use fanfare_domain::{
    delivery::digest::{self, DayEntry},
    endpoint::Feed,
    time::day_of,
};
use fanfare_store::EndpointRow;
use jiff::civil::Date;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::Answer,
        authentication::AuthorizedApplication,
        error::{ApiError, ErrorCode, Failures},
        parameters::{Path, Query},
    },
    state::ApiState,
};

/// The day to count.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Day {
    /// A UTC day, such as `2026-11-27`; today is counted up to now. Default: the last day that was due.
    pub day: Option<String>,
}

/// The deliveries of a day, by the UTC day of acceptance.
#[derive(Serialize, ToSchema)]
pub struct DayDigest {
    #[schema(value_type = String, format = Date)]
    pub day: Date,
    /// The number of deliveries.
    pub count: usize,
    /// A place of the feed just before the first delivery; `null` without a delivery.
    pub first: Option<String>,
    /// The place of the last delivery.
    pub last: Option<String>,
    /// The SHA-256 in hex over the `webhook-id` of each delivery, sorted as bytes, each followed by a newline.
    pub hash: String,
}

impl DayDigest {
    fn of(entry: DayEntry) -> Self {
        let place = |place: Option<fanfare_domain::delivery::feed::FeedPlace>| place.map(|place| place.to_string());
        let DayEntry { day, count, first, last, hash } = entry;
        Self { day, count, first: place(first), last: place(last), hash }
    }
}

/// Counts the deliveries of a day, as the daily digest does. A receiver with another hash finds by the feed what it
/// missed.
#[utoipa::path(get, path = "/webhooks/{id}/digest", operation_id = "show_digest", tag = "webhooks",
    params(("id" = String, Path), Day), responses((status = 200, body = Answer<DayDigest>), Failures))]
pub async fn show(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
    Query(Day { day }): Query<Day>,
) -> Result<Answer<DayDigest>, ApiError> {
    let row = api.endpoint(&authorized, &webhook).await?;
    let day = api.day_to_count(&row, day.as_deref()).await?;
    let horizon = api.store.horizon().await?;
    Ok(Answer::of(DayDigest::of(api.store.count_day(row.id, day, horizon).await?)))
}

impl ApiState {
    /// The day of a request, if the digests of the webhook cover the day.
    async fn day_to_count(&self, row: &EndpointRow, text: Option<&str>) -> Result<Date, ApiError> {
        let Some(from) = row.digest_from.filter(|_| row.feed != Feed::None) else {
            let message = "the webhook has no digests: set `digest` to true, with a feed";
            return Err(ApiError::new(ErrorCode::NoDigest, message));
        };
        let now = self.store.now();
        let invalid = |message: String| ApiError::invalid("day", message);
        let day = match text {
            Some(text) => parsed(text).ok_or_else(|| invalid("must be a day such as 2026-11-27".to_owned()))?,
            None => digest::last_ended(now).max(from),
        };
        if day < from {
            return Err(invalid(format!("is before {from}, the first day of the webhook's digests")));
        }
        if day > day_of(now) {
            return Err(invalid(format!("has not begun: digests begin with {from}, and today is counted up to now")));
        }
        if let Some(line) = self.store.line().await?.filter(|line| day_of(*line) > day) {
            let kept = day_of(line);
            return Err(invalid(format!("is past the retention: entries are kept from {kept} on")));
        }
        Ok(day)
    }
}

/// Parses the form YYYY-MM-DD, and no other.
pub(super) fn parsed(text: &str) -> Option<Date> {
    text.parse().ok().filter(|day: &Date| day.to_string() == text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_day_has_one_form() {
        assert_eq!(parsed("2026-11-27"), Some(jiff::civil::date(2026, 11, 27)));
        for text in ["", "20261127", "2026-11-31", "2026-11-27T00:00:00Z", "+002026-11-27", " 2026-11-27"] {
            assert_eq!(parsed(text), None, "{text}");
        }
    }
}
