//! Event types: the catalogue of the application, descriptions, and samples as real events.

use askama::Template;
use axum::{body::Bytes, extract::State, response::Response};
use fanfare_api::{
    http::{
        body::{JsonBody, from_value},
        error::ApiError,
        paging::PageQuery,
        parameters::{Path, Query},
    },
    routes::{
        event_types::{self, DescribedType},
        webhooks::Webhook,
    },
};
use fanfare_domain::{
    access::session::Right,
    event::{EventType, subscription::Subscription},
    ids::EndpointId,
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Console,
    application::webhooks::{form::picker::fits, title},
    frame::{
        Frame,
        body::indented,
        fault::Fault,
        form::Fields,
        marks::{filters, size},
        place::Place,
        respond::{back_to, page, page_with},
    },
};

/// The types of a category.
struct Group {
    category: Option<String>,
    types: Vec<Row>,
}

/// A type, and the first webhooks that want the type.
struct Row {
    described: DescribedType,
    sample: Sample,
    webhooks: Vec<(EndpointId, String)>,
    /// Number of further webhooks.
    more: usize,
}

/// The most webhooks beside a type.
const MAX_WEBHOOKS: usize = 3;

impl Row {
    fn new(described: DescribedType, left: &mut usize, webhooks: &[Subscriber]) -> Self {
        let text = described.sample.as_ref().map(|sample| indented(sample.get()));
        let sample = match text {
            Some(text) if fits(&text, left) => Sample::Shown(text),
            Some(text) => Sample::Large(size(text.len())),
            None => Sample::None,
        };
        let name = EventType::parse(&described.name).ok();
        let wants = |subscriber: &&Subscriber| {
            name.as_ref().is_some_and(|name| subscriber.wants.iter().any(|wanted| wanted.covers(name)))
        };
        let mut webhooks: Vec<_> =
            webhooks.iter().filter(wants).map(|webhook| (webhook.id, webhook.title.clone())).collect();
        let more = webhooks.len().saturating_sub(MAX_WEBHOOKS);
        webhooks.truncate(MAX_WEBHOOKS);
        Self { described, sample, webhooks, more }
    }
}

/// A webhook with its subscriptions.
struct Subscriber {
    id: EndpointId,
    title: String,
    wants: Vec<Subscription>,
}

impl Subscriber {
    fn new(webhook: &Webhook) -> Self {
        Self {
            id: webhook.id,
            title: title(webhook.name.as_deref(), &webhook.url),
            wants: webhook.events.iter().filter_map(|text| Subscription::parse(text).ok()).collect(),
        }
    }
}

#[derive(Template)]
#[template(path = "application/event_types/list.html")]
struct List {
    frame: Frame,
    groups: Vec<Group>,
    next: Option<String>,
}

/// Largest sum of the samples on a page, in bytes. The page of a test event has each sample.
const MAX_SAMPLES: usize = 40 * 1024;

/// The sample of a type.
enum Sample {
    None,
    Shown(String),
    /// The size of a sample that is too large for the page.
    Large(String),
}

/// Lists the event types by category.
pub(crate) async fn list(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    let before = Fields::of_address(&place.visitor.address).given("before").map(str::to_owned);
    let paging = PageQuery { before, limit: Some(100) };
    let found = event_types::list(State(console.api.clone()), place.authorized(), Query(paging)).await?;
    let webhooks: Vec<Subscriber> = place.webhooks(&console).await?.iter().map(Subscriber::new).collect();
    let shown = List {
        frame: place.frame("Event types").call("/event-types"),
        next: found.next.map(|before| crate::frame::form::with_parameter(&place.visitor.address, "before", &before)),
        groups: grouped(found.data, &webhooks),
    };
    page(&place.visitor, &shown)
}

/// Groups types by category, in the order of the first type of each category.
fn grouped(types: Vec<DescribedType>, webhooks: &[Subscriber]) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut left = MAX_SAMPLES;
    for described in types {
        let category = described.category.clone();
        let row = Row::new(described, &mut left, webhooks);
        match groups.iter_mut().find(|group| group.category == category) {
            Some(group) => group.types.push(row),
            None => groups.push(Group { category, types: vec![row] }),
        }
    }
    groups
}

#[derive(Template)]
#[template(path = "application/event_types/describe.html")]
struct Describe {
    frame: Frame,
    fields: Fields,
}

/// Shows the form for a description.
pub(crate) async fn ask(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    place.visitor.require(Right::Operate)?;
    let mut fields = Fields::of_address(&place.visitor.address);
    if let Some(name) = fields.given("name").map(str::to_owned) {
        let known = event_types::show(State(console.api), place.authorized(), Path(name)).await?.data;
        let sample = known.sample.map(|sample| indented(sample.get())).unwrap_or_default();
        fields = fields
            .with("category", known.category.unwrap_or_default())
            .with("description", known.description.unwrap_or_default())
            .with("sample", sample);
    }
    form(&place, fields)
}

fn form(place: &Place, fields: Fields) -> Result<Response, Fault> {
    let shown = Describe { frame: place.frame("Describe an event type"), fields };
    page_with(shown.fields.status(), &place.visitor, &shown)
}

/// Describes an event type.
pub(crate) async fn describe(State(console): State<Console>, place: Place, body: Bytes) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    let done = match request(&fields) {
        Ok((asked, new)) => {
            let (api, authorized) = (console.api.clone(), place.authorized());
            let work =
                async move { event_types::create(State(api), authorized, JsonBody(new)).await.map(|made| made.0) };
            place.change(&console, Right::Operate, ("describe_event_type", asked), work).await.map(|_| ())
        }
        Err(error) => Err(error),
    };
    match done {
        Ok(()) => Ok(back_to(format!("{}/event-types?done=described", place.base))),
        Err(error) => form(&place, fields.refused(error)),
    }
}

fn request(fields: &Fields) -> Result<(Value, event_types::New), ApiError> {
    let mut asked = json!({ "name": fields.value("name").trim() });
    for name in ["category", "description"] {
        if let Some(text) = fields.given(name) {
            asked[name] = Value::from(text);
        }
    }
    if let Some(sample) = fields.given("sample") {
        let parsed = serde_json::from_str(sample);
        asked["sample"] = parsed.map_err(|error| ApiError::invalid("sample", format!("must be JSON: {error}")))?;
    }
    let new = from_value(&asked)?;
    Ok((asked, new))
}

#[derive(Deserialize)]
pub(crate) struct Named {
    name: String,
}

/// Removes a description.
pub(crate) async fn remove(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    let (api, authorized) = (console.api.clone(), place.authorized());
    let work = async move { event_types::delete(State(api), authorized, Path(named.name)).await.map(|done| done.data) };
    place.change(&console, Right::Operate, ("remove_event_type", Value::Null), work).await?;
    Ok(back_to(format!("{}/event-types?done=removed", place.base)))
}

/// Publishes the sample of a type as a real event.
pub(crate) async fn publish(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    let (api, authorized) = (console.api.clone(), place.authorized());
    let work = async move { event_types::publish(State(api), authorized, Path(named.name)).await.map(|done| done.0) };
    place.change(&console, Right::Operate, ("publish_sample", Value::Null), work).await?;
    Ok(back_to(format!("{}/events?done=published", place.base)))
}
