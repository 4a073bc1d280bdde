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
        event_types::{self, DescribedType, schemas::SchemaVersion},
        webhooks::Webhook,
    },
};
use fanfare_domain::{
    access::session::Right,
    event::{EventType, subscription::Subscription},
    ids::EndpointId,
};
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    Console,
    application::webhooks::{form::picker::fits, title},
    frame::{
        Frame,
        body::indented,
        fault::Fault,
        form::Fields,
        marks::{self, filters, size},
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
#[template(path = "application/event_types/schema.html")]
struct ShownSchema {
    frame: Frame,
    name: String,
    schema: SchemaVersion,
    /// Indented, or the text without line breaks if the indented text is too large.
    text: String,
    /// The newest version.
    newest: u32,
}

/// Largest indented schema, in bytes.
const MAX_INDENTED: usize = 128 * 1024;

#[derive(Deserialize)]
pub(crate) struct OfVersion {
    name: String,
    version: u32,
}

/// Shows a version of the schema of a type.
pub(crate) async fn schema(
    State(console): State<Console>,
    place: Place,
    Path(OfVersion { name, version }): Path<OfVersion>,
) -> Result<Response, Fault> {
    let known = event_types::show(State(console.api.clone()), place.authorized(), Path(name.clone())).await?.data;
    let shown = event_types::schemas::show(State(console.api), place.authorized(), Path((name.clone(), version)));
    let schema = shown.await?.data;
    let compact = schema.schema.as_ref().map(|schema| schema.get().to_owned()).unwrap_or_default();
    let text = Some(indented(&compact)).filter(|text| text.len() <= MAX_INDENTED).unwrap_or(compact);
    let shown = ShownSchema {
        frame: place
            .frame(format!("Schema of {name}"))
            .call(format!("/event-types/{}/schemas/{version}", name.replace('/', "%2F"))),
        newest: known.described.schema_version.unwrap_or(version),
        name,
        schema,
        text,
    };
    page(&place.visitor, &shown)
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
        let json = |value: Option<Box<RawValue>>| value.map(|value| indented(value.get())).unwrap_or_default();
        fields = fields
            .with("category", known.described.category.unwrap_or_default())
            .with("description", known.described.description.unwrap_or_default())
            .with("sample", json(known.described.sample))
            .with("schema", json(known.schema));
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
    for name in ["sample", "schema"] {
        if let Some(text) = fields.given(name) {
            let parsed = serde_json::from_str(text);
            asked[name] = parsed.map_err(|error| ApiError::invalid(name, format!("must be JSON: {error}")))?;
        }
    }
    if fields.given("schema").is_none() {
        // An empty field removes the schemas.
        asked["schema"] = Value::Null;
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
