//! `/api/v1/events`, looked at.

use axum::extract::State;
use fanfare_domain::{event::EventType, ids::EventId};
use fanfare_store::{DeliveryFilter, Erasure, EventRow};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use utoipa::{IntoParams, ToSchema};

use crate::{
    ApiError, Console, ErrorCode, Failures,
    answer::{Answer, Page, readable},
    deliveries::Delivery,
    request::{Manager, Path, Query, id, page_size},
};

/// Deliveries that are shown with an event.
const MAX_DELIVERIES: usize = 100;

#[derive(Serialize, ToSchema)]
pub(crate) struct Event {
    #[schema(value_type = String, example = "evt_01h455vb4pex5vsknk084sn02q")]
    id: EventId,
    #[serde(rename = "type")]
    event_type: String,
    /// The publisher's own id of the event.
    key: Option<String>,
    /// The publisher's own time of the event.
    #[schema(value_type = Option<String>, format = DateTime)]
    time: Option<Timestamp>,
    #[schema(value_type = String, format = DateTime)]
    accepted_at: Timestamp,
    /// The number of webhooks that matched.
    matched_webhooks: i32,
    /// `unmatched`: no webhook matched, and the event is kept; `fanning_out`: its deliveries are being created;
    /// `fanned_out`: all of them exist.
    #[schema(example = "fanned_out")]
    status: &'static str,
    /// Whether it tested a webhook.
    test: bool,
    /// The body that is sent, without redacted members; in a list `null` where it has more than 64 KiB.
    #[schema(value_type = Value)]
    payload: Option<Box<RawValue>>,
    /// Since when its content is erased.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    erased_at: Option<Timestamp>,
}

impl From<EventRow> for Event {
    fn from(row: EventRow) -> Self {
        let status = match (row.matches, row.fanned_out) {
            (0, _) => "unmatched",
            (_, false) => "fanning_out",
            (_, true) => "fanned_out",
        };
        Self {
            id: row.id,
            event_type: row.event_type,
            key: row.key,
            time: row.occurred_at,
            accepted_at: row.accepted_at,
            matched_webhooks: row.matches,
            status,
            test: row.is_test,
            payload: row.body.and_then(|body| readable(&body)),
            erased_at: row.erased_at,
        }
    }
}

#[derive(Serialize, ToSchema)]
pub(crate) struct EventDetail {
    #[serde(flatten)]
    event: Event,
    /// Its deliveries, at most 100; all of them are in `GET /api/v1/deliveries?event=…`.
    deliveries: Vec<Delivery>,
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Filter {
    /// Events of this type.
    r#type: Option<String>,
    /// The `next` of the page before.
    before: Option<String>,
    /// 1 to 100, 50 where it is left out.
    limit: Option<usize>,
}

/// Lists the events, newest first. A list by type reads 10,000 events a page at the most: such a page may have few events,
/// or none, and a `next`.
#[utoipa::path(get, path = "/events", operation_id = "list_events", tag = "events",
    params(Filter), responses((status = 200, body = Page<Event>), Failures))]
pub(crate) async fn list(
    State(console): State<Console>,
    manager: Manager,
    Query(filter): Query<Filter>,
) -> Result<Page<Event>, ApiError> {
    let size = page_size(filter.limit)?;
    let before = filter.before.as_deref().map(|text| id("before", text)).transpose()?;
    let event_type = filter.r#type.as_deref().map(EventType::parse).transpose()?;
    let event_type = event_type.as_ref().map(EventType::as_str);
    let page = console.store.events(manager.application, event_type, before, size.rows()).await?;
    let page = page.ok_or_else(|| ApiError::invalid("before", "is not the `next` of a page"))?;
    let events = page.events.into_iter().map(Event::from).collect();
    Ok(Page::of(events, size, |event| event.id.to_string()).or_next(page.passed.map(|event| event.to_string())))
}

/// Shows an event with its deliveries.
#[utoipa::path(get, path = "/events/{id}", operation_id = "show_event", tag = "events",
    params(("id" = String, Path)), responses((status = 200, body = Answer<EventDetail>), Failures))]
pub(crate) async fn show(
    State(console): State<Console>,
    manager: Manager,
    Path(event): Path<String>,
) -> Result<Answer<EventDetail>, ApiError> {
    let event: EventId = id("id", &event)?;
    let missing = || ApiError::not_found("id", "there is no such event, or it was taken in this moment");
    let row = console.store.event(manager.application, event).await?.ok_or_else(missing)?;
    let filter = DeliveryFilter { event: Some(event), limit: MAX_DELIVERIES, ..DeliveryFilter::default() };
    let deliveries = console.store.deliveries(manager.application, &filter).await?;
    let deliveries = deliveries.into_iter().map(Delivery::from).collect();
    Ok(Answer::of(EventDetail { event: row.into(), deliveries }))
}

#[derive(Serialize, ToSchema)]
#[schema(as = ErasedEvent)]
pub(crate) struct Erased {
    #[schema(value_type = String)]
    id: EventId,
    #[schema(example = true)]
    erased: bool,
}

/// Erases the content of an event: its body, its publisher's id, and the answers of webhooks. The event's type and the
/// states of its deliveries stay on record. Deliveries that have not ended fail as `erased`, and none can be sent again.
#[utoipa::path(delete, path = "/events/{id}", operation_id = "erase_event", tag = "events",
    params(("id" = String, Path)), responses((status = 200, body = Answer<Erased>), Failures))]
pub(crate) async fn erase(
    State(console): State<Console>,
    manager: Manager,
    Path(event): Path<String>,
) -> Result<Answer<Erased>, ApiError> {
    let event: EventId = id("id", &event)?;
    match console.store.erase_event(manager.application, event).await? {
        Erasure::Done => Ok(Answer::of(Erased { id: event, erased: true })),
        Erasure::NoSuchEvent => {
            Err(ApiError::not_found("id", "there is no such event, or it was taken in this moment"))
        }
        Erasure::UnderWay => {
            let message = "it is being sent at this moment: try again when that has ended";
            Err(ApiError::new(ErrorCode::EventUnderWay, message).retry_after(5))
        }
    }
}
