//! The form for a new key, and the answer with the key's text.

use askama::Template;
use axum::{body::Bytes, extract::State, http::StatusCode, response::Response};
use fanfare_api::{
    http::{body::from_value, error::ApiError},
    routes::keys::{self, Key},
};
use fanfare_domain::{
    access::session::Right,
    ids::{ApplicationId, KeyId},
};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form::{self, Fields},
        marks::{self, filters},
        respond::{page, page_with},
    },
    session::visitor::Visitor,
};

/// The roles, with their words.
const ROLES: [(&str, &str); 3] = [
    ("publish", "publish: publish events of an application"),
    ("manage", "manage: everything of an application"),
    ("admin", "admin: everything of all applications"),
];

/// Lifetimes in seconds; empty for a key without an end.
const LIFETIMES: [(&str, &str); 5] = [
    ("", "until the key is revoked"),
    ("3600", "an hour"),
    ("86400", "a day"),
    ("2592000", "30 days"),
    ("31536000", "365 days"),
];

#[derive(Template)]
#[template(path = "operations/keys/create.html")]
struct New {
    frame: Frame,
    fields: Fields,
    roles: [(&'static str, &'static str); 3],
    lifetimes: [(&'static str, &'static str); 5],
}

impl New {
    fn of(visitor: &Visitor, fields: Fields) -> Self {
        Self { frame: Frame::new(visitor, "Create a key"), fields, roles: ROLES, lifetimes: LIFETIMES }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    application: Option<ApplicationId>,
}

/// Shows the form.
pub(super) async fn form(State(console): State<Console>, visitor: Visitor) -> Result<Response, Fault> {
    visitor.administrator()?;
    visitor.require(Right::Operate)?;
    let asked: Asked = form::query(&visitor.address)?;
    let fields = Fields::default()
        .with("id", KeyId::new(console.api.store.now(), rand::random()).to_string())
        .with("role", "publish")
        .with("application", asked.application.map(|id| id.to_string()).unwrap_or_default());
    page(&visitor, &New::of(&visitor, fields))
}

/// The answer to the form: the only page with the text of a key.
#[derive(Template)]
#[template(path = "operations/keys/created.html")]
pub(super) struct Created {
    frame: Frame,
    key: Key,
    /// The key that the new key replaces.
    replaced: Option<String>,
}

impl Created {
    pub(super) fn of(visitor: &Visitor, key: Key, replaced: Option<String>) -> Self {
        Self { frame: Frame::new(visitor, "The new key"), key, replaced }
    }
}

/// Creates a key.
pub(super) async fn create(State(console): State<Console>, visitor: Visitor, body: Bytes) -> Result<Response, Fault> {
    visitor.administrator()?;
    let fields = Fields::of_body(&body);
    match made(&console, &visitor, &fields).await {
        Ok(key) => page_with(StatusCode::CREATED, &visitor, &Created::of(&visitor, key, None)),
        Err(error) => {
            let status = error.status();
            page_with(status, &visitor, &New::of(&visitor, fields.refused(error)))
        }
    }
}

async fn made(console: &Console, visitor: &Visitor, fields: &Fields) -> Result<Key, ApiError> {
    let mut asked = json!({ "role": fields.value("role"), "expires_in_seconds": fields.number("expires_in_seconds")? });
    if let Some(application) = fields.given("application") {
        asked["application"] = Value::from(application);
    }
    let new: keys::New = from_value(&asked)?;
    let key: KeyId = fields.value("id").parse().map_err(|error| ApiError::invalid("id", error))?;
    let application = fields.given("application").and_then(|text| text.parse().ok());
    let api = console.api.clone();
    let work = async move { keys::create_as(&api, key, new).await };
    visitor.change(console, Right::Operate, ("create_key", asked), application, work).await
}
