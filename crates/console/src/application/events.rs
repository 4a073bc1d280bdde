//! Events: the list, an event with its deliveries, the cancellation and the erasure.

use askama::Template;
use axum::{body::Bytes, extract::State, response::Response};
use fanfare_api::{
    http::{
        error::ApiError,
        parameters::{Path, Query, id},
    },
    routes::{
        deliveries::Delivery,
        events::{self, Event, EventDetail},
        webhooks::Webhook,
    },
};
use fanfare_domain::{
    access::session::Right,
    event::{EventType, subscription::Subscription},
    ids::{EndpointId, EventId},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Console,
    application::webhooks::{in_words, title},
    frame::{
        Frame,
        body::BodyView,
        fault::Fault,
        form::{self, Fields, with_parameter},
        marks::{self, filters, words},
        place::Place,
        respond::{back_to, page, page_with},
    },
};

#[derive(Template)]
#[template(path = "application/events/events.html")]
struct Events {
    frame: Frame,
    events: Vec<Event>,
    filter: Fields,
    searched_until: Option<jiff::Timestamp>,
    next: Option<String>,
    command: String,
}

impl Events {
    fn is_filtered(&self) -> bool {
        self.filter.gives_any(&["type", "key", "since", "until", "unmatched", "delayed", "cancelled"])
    }
}

/// Lists events.
pub(crate) async fn list(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    let address = &place.visitor.address;
    let found = events::list(State(console.api), place.authorized(), Query(form::query(address)?)).await?;
    let frame = place.frame("Events").live().call(form::call("/events", address));
    let shown = Events {
        command: publish_command(&frame),
        frame,
        filter: Fields::of_address(address),
        searched_until: found.searched_until,
        next: found.next.map(|before| with_parameter(address, "before", &before)),
        events: found.data,
    };
    page(&place.visitor, &shown)
}

/// The command to publish an event, for a page without events.
pub(crate) fn publish_command(frame: &Frame) -> String {
    let (api, application) = (&frame.api, frame.application.as_ref().map_or("", |shown| shown.id.as_str()));
    format!(
        "curl '{api}/events?application={application}' -H \"Authorization: Bearer $KEY\" \\\n  \
         -H 'Content-Type: application/json' -d '{{\"type\": \"order.created\", \"data\": {{\"order\": 1}}}}'"
    )
}

#[derive(Deserialize)]
pub(crate) struct Named {
    event: String,
}

#[derive(Template)]
#[template(path = "application/events/event.html")]
struct Shown {
    frame: Frame,
    event: Event,
    deliveries: Vec<Delivery>,
    /// The first webhooks without a delivery of the event.
    unsent: Vec<Unsent>,
    body: Option<BodyView>,
}

/// The most webhooks without a delivery on the page.
const MAX_UNSENT: usize = 20;

/// A webhook without a delivery of the event.
struct Unsent {
    id: EndpointId,
    title: String,
    reason: String,
}

impl Unsent {
    /// The first webhooks without a delivery.
    async fn find(
        console: &Console,
        place: &Place,
        (event, deliveries): (&Event, &[Delivery]),
    ) -> Result<Vec<Self>, ApiError> {
        let known = place.webhooks(console).await?;
        let has = |webhook: &Webhook| deliveries.iter().any(|delivery| delivery.webhook == webhook.id);
        let unsent = known.into_iter().filter(|webhook| !has(webhook)).take(MAX_UNSENT);
        let shown = unsent.map(|webhook| Self {
            reason: unsent_because(event, &webhook),
            id: webhook.id,
            title: title(webhook.name.as_deref(), &webhook.url),
        });
        Ok(shown.collect())
    }
}

/// The reason, as far as the present settings tell, why a webhook has no delivery of an event.
fn unsent_because(event: &Event, webhook: &Webhook) -> String {
    let matched_at = event.deliver_at.unwrap_or(event.accepted_at);
    let is_wanted = EventType::parse(&event.event_type).is_ok_and(|event_type| {
        let subscriptions = webhook.events.iter().filter_map(|text| Subscription::parse(text).ok());
        subscriptions.into_iter().any(|subscription| subscription.covers(&event_type))
    });
    if webhook.created_at > matched_at {
        "newer than the event".to_owned()
    } else if !is_wanted {
        format!("wants {}", in_words(&webhook.events))
    } else if webhook.filter.is_some() {
        "its filter said no".to_owned()
    } else {
        "its settings have changed since".to_owned()
    }
}

/// Shows an event, its deliveries, and its body.
pub(crate) async fn show(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    let EventDetail { event, deliveries } =
        events::show(State(console.api.clone()), place.authorized(), Path(named.event)).await?.data;
    // A delayed event is not yet matched.
    let unsent = if event.test || matches!(event.status, "delayed" | "cancelled") {
        Vec::new()
    } else {
        Unsent::find(&console, &place, (&event, &deliveries)).await?
    };
    let address = &place.visitor.address;
    let payload = event.payload.as_ref().filter(|_| place.visitor.may(Right::Payloads));
    let shown = Shown {
        frame: place.frame("Event").live().call(format!("/events/{}", event.id)),
        body: payload.map(|payload| BodyView::new(payload.get(), address)),
        event,
        deliveries,
        unsent,
    };
    page(&place.visitor, &shown)
}

#[derive(Template)]
#[template(path = "application/events/cancel.html")]
struct Cancel {
    frame: Frame,
    event: Event,
}

/// Shows the consequences of a cancellation.
pub(crate) async fn ask_cancellation(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    place.visitor.require(Right::Cancel)?;
    let found = events::show(State(console.api.clone()), place.authorized(), Path(named.event)).await?.data;
    page(&place.visitor, &Cancel { frame: place.frame("Cancel the event"), event: found.event })
}

/// Cancels a delayed event. The event names the pages as the author: the audit log names the visitor.
pub(crate) async fn cancel(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    let event: EventId = id("id", &named.event)?;
    let (api, application, author) = (console.api.clone(), place.application, place.visitor.session.face.as_str());
    let work = async move { api.cancel_event(application, (event, "id"), author).await };
    place.change(&console, Right::Cancel, ("cancel_event", Value::Null), work).await?;
    Ok(back_to(format!("{}/events/{event}?done=event-cancelled", place.base)))
}

#[derive(Template)]
#[template(path = "application/events/erase.html")]
struct Erase {
    frame: Frame,
    event: Event,
    deliveries: usize,
    fields: Fields,
}

/// Shows the consequences of an erasure.
pub(crate) async fn ask_erasure(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    erasure_page(&console, &place, named.event, Fields::default()).await
}

async fn erasure_page(console: &Console, place: &Place, event: String, fields: Fields) -> Result<Response, Fault> {
    place.visitor.require(Right::Operate)?;
    let found = events::show(State(console.api.clone()), place.authorized(), Path(event)).await?.data;
    let shown =
        Erase { frame: place.frame("Erase the event"), event: found.event, deliveries: found.deliveries.len(), fields };
    let status = shown.fields.status();
    page_with(status, &place.visitor, &shown)
}

/// Erases an event whose type was typed.
pub(crate) async fn erase(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
    body: Bytes,
) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    let found = events::show(State(console.api.clone()), place.authorized(), Path(named.event.clone())).await?.data;
    if fields.value("confirm").trim() != found.event.event_type {
        let error = ApiError::invalid("confirm", "must be the event's type");
        return erasure_page(&console, &place, named.event, fields.refused(error)).await;
    }
    let (api, authorized, event) = (console.api.clone(), place.authorized(), named.event.clone());
    let work = async move { events::erase(State(api), authorized, Path(event)).await.map(|answer| answer.data) };
    place.change(&console, Right::Operate, ("erase_event", Value::Null), work).await?;
    Ok(back_to(format!("{}/events/{}?done=erased", place.base, named.event)))
}
