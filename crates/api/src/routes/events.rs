//! `/api/v1/events`: lists, shows and erases events.

pub mod cancel;
mod cloud_events;
pub mod publish;
pub mod send;
pub mod why;

use axum::extract::State;
use fanfare_domain::{
    event::check_key,
    ids::{ApplicationId, EventId},
};
use fanfare_store::{DeliveryFilter, Erasure, EventFilter, EventPlace, EventRow};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::{Answer, Page, readable},
        authentication::AuthorizedApplication,
        error::{ApiError, ErrorCode, Failures},
        paging::page_size,
        parameters::{Path, Query, id, timestamp},
    },
    routes::deliveries::{Delivery, filter::event_types},
    state::ApiState,
};

/// The maximum number of deliveries shown with an event.
const MAX_DELIVERIES: usize = 100;

/// An accepted event.
#[derive(Serialize, ToSchema)]
pub struct Event {
    #[schema(value_type = String, example = "evt_01h455vb4pex5vsknk084sn02q")]
    pub id: EventId,
    #[serde(rename = "type")]
    pub event_type: String,
    /// The publisher's id of the event.
    pub key: Option<String>,
    /// The ordering key of the event.
    pub ordering_key: Option<String>,
    /// The publisher's time of the event.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub time: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    pub accepted_at: Timestamp,
    /// The number of matching webhooks.
    pub matched_webhooks: i32,
    /// The time of delivery of a delayed event.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub deliver_at: Option<Timestamp>,
    /// `delayed`: not yet due; `cancelled`: before it was due;
    /// `unmatched`: no webhook matched, and the event is kept; `fanning_out`: deliveries are being created;
    /// `fanned_out`: all deliveries exist.
    #[schema(example = "fanned_out")]
    pub status: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub cancelled_at: Option<Timestamp>,
    /// A key, `console` or `portal`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub cancelled_by: Option<String>,
    /// True for a test event.
    pub test: bool,
    /// The body of the deliveries, without redacted members; in a list `null` for a body above 64 KiB.
    #[schema(value_type = Value)]
    pub payload: Option<Box<RawValue>>,
    /// The time of the erasure.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub erased_at: Option<Timestamp>,
}

impl From<EventRow> for Event {
    fn from(row: EventRow) -> Self {
        let status = match (row.matches, row.fanned_out) {
            _ if row.cancelled_at.is_some() => "cancelled",
            _ if row.is_delayed => "delayed",
            (0, _) => "unmatched",
            (_, false) => "fanning_out",
            (_, true) => "fanned_out",
        };
        Self {
            id: row.id,
            event_type: row.event_type,
            key: row.key,
            ordering_key: row.ordering_key,
            time: row.occurred_at,
            accepted_at: row.accepted_at,
            matched_webhooks: row.matches,
            deliver_at: row.deliver_at,
            cancelled_at: row.cancelled_at,
            cancelled_by: row.cancelled_by,
            status,
            test: row.is_test,
            payload: row.body.and_then(|body| readable(&body)),
            erased_at: row.erased_at,
        }
    }
}

/// An event with deliveries.
#[derive(Serialize, ToSchema)]
pub struct EventDetail {
    #[serde(flatten)]
    pub event: Event,
    /// At most 100 deliveries of the event. `GET /api/v1/deliveries?event=…` lists all deliveries.
    pub deliveries: Vec<Delivery>,
}

/// Selects the events of a list. An event must meet all conditions.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// Only events of this type, or of types such as `order.*`.
    pub r#type: Option<String>,
    /// Only the event with this publisher's id.
    pub key: Option<String>,
    /// Only events accepted at or after this time.
    pub since: Option<String>,
    /// Only events accepted before this time.
    pub until: Option<String>,
    /// `true` for events that no webhook matched.
    pub unmatched: Option<bool>,
    /// `true` for events that are not yet due.
    pub delayed: Option<bool>,
    /// `true` for cancelled events.
    pub cancelled: Option<bool>,
    /// The `next` of the previous page.
    pub before: Option<String>,
    /// Only events newer than this event.
    pub after: Option<String>,
    /// 1 to 100. Default: 50.
    pub limit: Option<usize>,
}

/// Lists the events, newest first. A list by `type`, `unmatched`, `delayed` or `cancelled` is a search: a page looks
/// through at most 10,000 events. The page may have few events or none, and still a `next`.
#[utoipa::path(get, path = "/events", operation_id = "list_events", tag = "events",
    params(Filter), responses((status = 200, body = Page<Event>), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Query(filter): Query<Filter>,
) -> Result<Page<Event>, ApiError> {
    let application = authorized.application;
    let size = page_size(filter.limit)?;
    let key = filter.key.map(|key| check_key("key", key)).transpose()?;
    let only = match key {
        None => None,
        Some(key) => match api.store.event_place(application, EventId::from_key(application, &key)).await? {
            Some(place) => Some(place),
            None => return Ok(Page::of(Vec::new(), size, |_| String::new())),
        },
    };
    let filter = EventFilter {
        event_type: filter.r#type.as_deref().map(event_types).transpose()?,
        only,
        since: filter.since.as_deref().map(|text| timestamp("since", text)).transpose()?,
        until: filter.until.as_deref().map(|text| timestamp("until", text)).transpose()?,
        is_unmatched: filter.unmatched.unwrap_or_default(),
        is_delayed: filter.delayed.unwrap_or_default(),
        is_cancelled: filter.cancelled.unwrap_or_default(),
        before: api.place(application, ("before", filter.before.as_deref())).await?,
        after: api.place(application, ("after", filter.after.as_deref())).await?,
        limit: size.rows(),
    };
    let page = api.store.events(application, &filter).await?;
    let passed = page.passed;
    let events: Vec<Event> = page.events.into_iter().map(Event::from).collect();
    let last = events.get(size.items().saturating_sub(1)).map(|event| event.accepted_at);
    let page = Page::of(events, size, |event| event.id.to_string());
    let searched_until = if page.next.is_some() { last } else { passed.map(|place| place.accepted_at) };
    let page = page.or_next(passed.map(|place| place.event.to_string()));
    Ok(if filter.is_search() { page.searched_until(searched_until) } else { page })
}

impl ApiState {
    /// The place of an event named by a query, such as a cursor.
    async fn place(
        &self,
        application: ApplicationId,
        (field, text): (&str, Option<&str>),
    ) -> Result<Option<EventPlace>, ApiError> {
        let Some(text) = text else { return Ok(None) };
        let place = self.store.event_place(application, id(field, text)?).await?;
        place.map(Some).ok_or_else(|| ApiError::invalid(field, "must be the id of an event of a previous page"))
    }
}

/// Shows an event with deliveries.
#[utoipa::path(get, path = "/events/{id}", operation_id = "show_event", tag = "events",
    params(("id" = String, Path)), responses((status = 200, body = Answer<EventDetail>), Failures))]
pub async fn show(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(event): Path<String>,
) -> Result<Answer<EventDetail>, ApiError> {
    let event: EventId = id("id", &event)?;
    let missing = || ApiError::not_found("id", "no event has this id: if just published, try again");
    let row = api.store.event(authorized.application, event).await?.ok_or_else(missing)?;
    let filter = DeliveryFilter { event: Some(event), limit: MAX_DELIVERIES, ..DeliveryFilter::default() };
    let deliveries = api.store.deliveries(authorized.application, &filter).await?;
    let deliveries = deliveries.deliveries.into_iter().map(Delivery::from).collect();
    Ok(Answer::of(EventDetail { event: row.into(), deliveries }))
}

/// Result of an erasure.
#[derive(Serialize, ToSchema)]
#[schema(as = ErasedEvent)]
pub struct Erased {
    #[schema(value_type = String)]
    pub id: EventId,
    #[schema(example = true)]
    pub erased: bool,
}

/// Erases the content of an event: the body, the publisher's id, and the responses of webhooks. The event's type and
/// the states of the deliveries stay. Unfinished deliveries fail as `erased`. No delivery of the event can be sent
/// again.
#[utoipa::path(delete, path = "/events/{id}", operation_id = "erase_event", tag = "events",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Erased>), Failures))]
pub async fn erase(
    State(api): State<ApiState>,
    authorized: AuthorizedApplication,
    Path(event): Path<String>,
) -> Result<Answer<Erased>, ApiError> {
    let event: EventId = id("id", &event)?;
    match api.store.erase_event(authorized.application, event).await? {
        Erasure::Done => Ok(Answer::of(Erased { id: event, erased: true })),
        Erasure::NoSuchEvent => Err(ApiError::not_found("id", "no event has this id: if just published, try again")),
        Erasure::UnderWay => {
            let message = "the event is being sent: try again in a few seconds";
            Err(ApiError::new(ErrorCode::EventUnderWay, message).retry_after(5))
        }
    }
}
