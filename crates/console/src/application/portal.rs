//! The portal of an application: links, open sessions, and the sites that may frame the portal.

use askama::Template;
use axum::{
    body::Bytes,
    extract::State,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use fanfare_api::{
    http::{
        authentication::{Creator, Scope},
        body::{JsonBody, from_value},
        error::ApiError,
        parameters::{Path, Query},
    },
    routes::sessions::{
        self, Filter, Shown,
        portal_links::{self, PortalLink},
    },
};
use fanfare_domain::access::session::Right;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form::{self, Fields},
        marks::{self, filters},
        place::Place,
        respond::{back_to, page_with},
    },
};

/// Rights of a link, and their words.
const RIGHTS: [(Right, &str); 8] = [
    (Right::View, "see webhooks, events and deliveries (always)"),
    (Right::Payloads, "see payloads and answers"),
    (Right::Keys, "see the publisher's keys of events"),
    (Right::Test, "send test events, and check signatures"),
    (Right::Resend, "resend deliveries"),
    (Right::Endpoints, "create, change and delete webhooks, and rotate their secrets"),
    (Right::Replay, "start and steer replays"),
    (Right::Cancel, "cancel delayed events"),
];

const LIFETIMES: [(&str, &str); 4] =
    [("", "12 hours"), ("14400", "4 hours"), ("3600", "1 hour"), ("600", "10 minutes")];
const FONTS: [(&str, &str); 3] = [("", "of the system"), ("serif", "with serifs"), ("mono", "of equal width")];
const SCHEMES: [(&str, &str); 3] = [("", "of the visitor's system"), ("light", "light"), ("dark", "dark")];
const DENSITIES: [(&str, &str); 2] = [("", "usual"), ("compact", "compact")];

/// Texts of the theme in the form. The radius is a number.
const THEME_WORDS: [&str; 4] = ["accent", "font", "scheme", "density"];

#[derive(Template)]
#[template(path = "application/portal.html")]
struct Portal {
    frame: Frame,
    /// Origins whose pages may frame the portal.
    parents: Vec<String>,
    /// The link that the form has just made. The page is its only place.
    link: Option<PortalLink>,
    fields: Fields,
    sessions: Vec<Shown>,
    next: Option<String>,
    api: String,
    rights: [(Right, &'static str); 8],
    lifetimes: [(&'static str, &'static str); 4],
    fonts: [(&'static str, &'static str); 3],
    schemes: [(&'static str, &'static str); 3],
    densities: [(&'static str, &'static str); 2],
}

/// Shows the portal's sessions, and the form for a link.
pub(super) async fn show(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    let usual = [Right::View, Right::Payloads, Right::Test, Right::Resend];
    let fields = usual.iter().fold(Fields::default(), |fields, right| fields.with("rights", right.as_str()));
    shown(StatusCode::OK, &console, &place, None, fields).await
}

/// Makes a link.
pub(super) async fn create(State(console): State<Console>, place: Place, body: Bytes) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    match link(&console, &place, &fields).await {
        Ok(link) => shown(StatusCode::OK, &console, &place, Some(link), fields).await,
        Err(error) => shown(error.status(), &console, &place, None, fields.refused(error)).await,
    }
}

async fn link(console: &Console, place: &Place, fields: &Fields) -> Result<PortalLink, ApiError> {
    let asked = asked(fields)?;
    let new = from_value(&asked)?;
    let (api, application) = (console.api.clone(), place.authorized());
    let creator = Creator::of_session(&place.visitor.session);
    let work = async move {
        portal_links::create(State(api), application, creator, JsonBody(new)).await.map(|created| created.0)
    };
    place.change(console, Right::Operate, ("create_portal_link", asked), work).await
}

/// The API's request for the values of the form.
fn asked(fields: &Fields) -> Result<Value, ApiError> {
    let mut theme = Map::new();
    for word in THEME_WORDS {
        if let Some(value) = fields.given(&format!("theme.{word}")) {
            theme.insert(word.to_owned(), value.into());
        }
    }
    let radius = fields.number("theme.radius")?;
    if !radius.is_null() {
        theme.insert("radius".to_owned(), radius);
    }
    Ok(json!({
        "name": fields.value("name").trim(),
        "rights": fields.values("rights"),
        "expires_in_seconds": fields.number("expires_in_seconds")?,
        "back": fields.given("back"),
        "theme": (!theme.is_empty()).then_some(theme),
    }))
}

#[derive(Deserialize)]
pub(super) struct Named {
    session: String,
}

/// Ends a session, or revokes a link.
pub(super) async fn end(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    let (api, scope) = (console.api.clone(), Scope(Some(place.application)));
    let work = async move { sessions::end(State(api), scope, Path(named.session)).await.map(|ended| ended.data) };
    place.change(&console, Right::Operate, ("end_session", Value::Null), work).await?;
    Ok(back_to(format!("{}/portal?done=ended", place.base)))
}

async fn shown(
    status: StatusCode,
    console: &Console,
    place: &Place,
    link: Option<PortalLink>,
    fields: Fields,
) -> Result<Response, Fault> {
    // A session of the console that may only look sees the sessions. No session of the portal has the right.
    if place.visitor.is_of_portal() {
        place.visitor.require(Right::Operate)?;
    }
    let filter = Filter { pages: Some("portal".to_owned()), ..form::query(&place.visitor.address)? };
    let found = sessions::list(State(console.api.clone()), Scope(Some(place.application)), Query(filter)).await?;
    let page = Portal {
        frame: place.frame("Portal").call("/sessions?pages=portal"),
        parents: console.settings.portal_origins.clone(),
        link,
        fields,
        next: found.next.map(|before| form::with_parameter(&place.visitor.address, "before", &before)),
        sessions: found.data,
        api: console.settings.api(),
        rights: RIGHTS,
        lifetimes: LIFETIMES,
        fonts: FONTS,
        schemes: SCHEMES,
        densities: DENSITIES,
    };
    page_with(status, &place.visitor, &page).map(IntoResponse::into_response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_form_asks_for_the_link_of_its_values() {
        let empty = "name=+Ada+&expires_in_seconds=&back=&theme.accent=&theme.radius=&theme.font=";
        let expected = json!({ "name": "Ada", "rights": [], "expires_in_seconds": null, "back": null, "theme": null });
        assert_eq!(asked(&Fields::of_body(empty.as_bytes())).ok(), Some(expected));
        let full = "name=Ada&rights=view&rights=test&expires_in_seconds=600&theme.accent=%23ffcc00&theme.radius=0";
        let asked = asked(&Fields::of_body(full.as_bytes())).expect("numbers");
        assert_eq!(asked["theme"], json!({ "accent": "#ffcc00", "radius": 0 }));
        assert_eq!((&asked["rights"], &asked["expires_in_seconds"]), (&json!(["view", "test"]), &json!(600)));
    }
}
