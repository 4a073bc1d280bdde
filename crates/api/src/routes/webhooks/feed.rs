//! `/api/v1/webhooks/{id}/feed`: the deliveries of a webhook, for a receiver that reads.

use std::time::Duration;

use axum::{
    Json,
    extract::State,
    response::{IntoResponse, Response},
};
use fanfare_domain::{
    delivery::feed::FeedPlace,
    dialect::Sending,
    endpoint::{Endpoint, Feed},
    ids::{DeliveryId, EventId},
};
use fanfare_outbound::attempt_headers;
use fanfare_store::{EndpointRow, EndpointSettings, FeedEntry, FeedPage, FeedRange};
use http::HeaderMap;
use jiff::{Timestamp, civil::Date};
use serde::{Deserialize, Serialize};
use tokio::{task::spawn_blocking, time::Instant};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        authentication::AuthorizedApplication,
        error::{ApiError, ErrorCode, Failures},
        paging::page_size,
        parameters::{Path, Query},
    },
    routes::webhooks::{digest, settings::TEMPORARY},
    state::ApiState,
};

/// Longest wait for an entry.
const MAX_WAIT: u64 = 20;

/// Remaining time of a temporary webhook at which a read defers its deletion. Each change makes all processes load the
/// webhook again.
const DEFERRED_AT: Duration = Duration::from_secs(55 * 60);

/// Place and size of a page.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Place {
    /// The `next` of the previous page. Default: the oldest entry.
    pub after: Option<String>,
    /// Seconds to wait for an entry, 0 to 20. Default: 0.
    pub wait: Option<u64>,
    /// 1 to 100. Default: 50. A page ends early at 1 MiB of bodies.
    pub limit: Option<usize>,
    /// Only entries whose events were accepted on this UTC day, such as `2026-11-27`.
    pub day: Option<String>,
}

/// Deliveries in the order of the feed.
#[derive(Serialize, ToSchema)]
#[schema(as = FeedPage)]
pub struct FeedAnswer {
    #[schema(example = true)]
    success: bool,
    pub data: Vec<Entry>,
    /// The erased events of the page. Digests count them.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>, required = false)]
    pub erased: Vec<EventId>,
    /// `after` of the next request; `null` before the first entry. Keep the value when the entries are handled.
    pub next: Option<String>,
}

/// A delivery of the feed, signed now. The webhook's own headers are left out.
#[derive(Serialize, ToSchema)]
#[schema(as = FeedEntry)]
pub struct Entry {
    #[schema(value_type = String)]
    pub delivery: DeliveryId,
    #[schema(value_type = String)]
    pub event: EventId,
    #[serde(rename = "type")]
    pub event_type: String,
    #[schema(value_type = String, format = DateTime)]
    pub accepted_at: Timestamp,
    /// The day whose digest counts the delivery, as in `webhook-digest-day`.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = Date)]
    pub digest_day: Option<Date>,
    /// Names and values of the headers that a POST would have.
    #[schema(value_type = Vec<Vec<String>>)]
    pub headers: Vec<(String, String)>,
    /// The bytes of the body, as text.
    pub body: String,
}

impl IntoResponse for FeedAnswer {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

/// Lists the deliveries of a webhook with a feed, oldest first, with bodies and signatures. A receiver finds by the
/// feed deliveries that it missed, or reads all of them, without an inbound port. No delivery appears later before a
/// place that was read. Of erased events only the ids are listed.
#[utoipa::path(get, path = "/webhooks/{id}/feed", operation_id = "read_feed", tag = "webhooks",
    params(("id" = String, Path), Place), responses((status = 200, body = FeedAnswer), Failures))]
pub async fn read(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(webhook): Path<String>,
    Query(place): Query<Place>,
) -> Result<FeedAnswer, ApiError> {
    let size = page_size(place.limit)?;
    let wait = place.wait.unwrap_or_default();
    if wait > MAX_WAIT {
        return Err(ApiError::invalid("wait", format!("must be between 0 and {MAX_WAIT} seconds")));
    }
    let after: Option<FeedPlace> = place
        .after
        .map(|text| text.parse().map_err(|_| ApiError::invalid("after", "must be the `next` of a previous page")))
        .transpose()?;
    let day = place
        .day
        .map(|text| digest::parsed(&text).ok_or_else(|| ApiError::invalid("day", "must be a day such as 2026-11-27")));
    let range = FeedRange { after, day: day.transpose()? };
    let row = api.endpoint(&authorized, &webhook).await?;
    if row.feed == Feed::None {
        let message = "the webhook has no feed: set `feed` to `copy`; the feed lists deliveries from then on";
        return Err(ApiError::new(ErrorCode::NoFeed, message));
    }
    api.defer_deletion(&authorized, &row).await?;
    let page = api.page_of_feed(&row, range, size.items(), Duration::from_secs(wait)).await?;
    if page.is_ahead {
        let message = "is a place of another database, or of a time before a restore: read from the beginning";
        return Err(ApiError::invalid("after", message));
    }
    let next = page.next.or(after).map(|place| place.to_string());
    if page.entries.is_empty() {
        return Ok(FeedAnswer { success: true, data: Vec::new(), erased: Vec::new(), next });
    }
    let known = api.directory.application(authorized.application);
    let endpoint = known.as_ref().and_then(|known| known.endpoint(row.id)).ok_or_else(|| {
        let message = "the settings of the webhook cannot be read now: try again in a few seconds";
        ApiError::new(ErrorCode::ApplicationUnavailable, message).retry_after(2)
    })?;
    // The own headers and the authentication are credentials of the URL.
    let endpoint = Endpoint { headers: HeaderMap::new(), authentication: None, ..Endpoint::clone(endpoint) };
    let now = api.store.now();
    let erased = page.entries.iter().filter(|entry| entry.content.is_none()).map(|entry| entry.event).collect();
    let data = signed(endpoint, page.entries, now).await?;
    Ok(FeedAnswer { success: true, data, erased, next })
}

async fn signed(endpoint: Endpoint, entries: Vec<FeedEntry>, now: Timestamp) -> Result<Vec<Entry>, ApiError> {
    let is_slow = endpoint.signing_keys.is_some();
    let sign = move || entries.into_iter().filter_map(|entry| Entry::of(&endpoint, entry, now)).collect();
    if !is_slow {
        return Ok(sign());
    }
    // An Ed25519 signature takes up to forty times as long as an HMAC: a page of them would hold up other requests.
    let ended = |_| ApiError::new(ErrorCode::InternalError, "internal fault while signing, logged: try again");
    spawn_blocking(sign).await.map_err(ended)
}

impl Entry {
    /// Signs an entry; `None` for an erased event.
    fn of(endpoint: &Endpoint, entry: FeedEntry, now: Timestamp) -> Option<Self> {
        let (event_type, body) = entry.content?;
        let sending = Sending {
            event: entry.event,
            event_type: &event_type,
            application: endpoint.application,
            delivery: entry.place.delivery,
            attempt: 1,
            replay: None,
            sequence: entry.sequence.as_ref(),
            trace: None,
            at: now,
        };
        let headers = attempt_headers(endpoint, &sending, body.as_bytes());
        Some(Self {
            delivery: entry.place.delivery,
            event: entry.event,
            event_type: event_type.to_string(),
            accepted_at: entry.accepted_at,
            digest_day: endpoint.digest_day(entry.place.delivery, &event_type),
            headers,
            body,
        })
    }
}

impl ApiState {
    /// The entries behind a place. Waits for the first.
    async fn page_of_feed(
        &self,
        row: &EndpointRow,
        range: FeedRange,
        limit: usize,
        wait: Duration,
    ) -> Result<FeedPage, ApiError> {
        let end = Instant::now() + wait;
        let mut page = self.store.feed(row.id, range, limit).await?;
        let place = self.feed_waits.begin(row.application);
        while page.next.is_none()
            && !page.is_ahead
            && place.is_some()
            && Instant::now() < end
            && self.feed_waits.goes_on().await
        {
            page = self.store.feed(row.id, range, limit).await?;
        }
        Ok(page)
    }

    /// Defers the deletion of a temporary webhook.
    async fn defer_deletion(&self, authorized: &AuthorizedApplication, row: &EndpointRow) -> Result<(), ApiError> {
        let now = self.store.now();
        let left = row.expires_at.and_then(|end| Duration::try_from(end.duration_since(now)).ok());
        if row.expires_at.is_some() && left.unwrap_or_default() < DEFERRED_AT {
            let settings = EndpointSettings { lifetime: Some(TEMPORARY), ..EndpointSettings::default() };
            self.store.change_endpoint(authorized.application, row.id, &settings).await?;
        }
        Ok(())
    }
}

/// Refusal of a request to send something to a webhook whose receiver reads the feed.
pub(crate) fn read_by_feed() -> ApiError {
    let message =
        "nothing is sent to the webhook: its receiver reads the feed, and can read again from an earlier place";
    ApiError::new(ErrorCode::FeedOnly, message)
}
