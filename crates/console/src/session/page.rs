//! The page of the visitor's own session, with the preferences and the sign-out.

use askama::Template;
use axum::{
    Form,
    extract::State,
    http::header,
    response::{AppendHeaders, IntoResponse, Redirect, Response},
};
use fanfare_domain::access::session::SignIn;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        marks::{self, filters},
        respond::page,
    },
    session::{
        cookie::{self, Preferences, SCHEMES},
        home::Home,
        sign_in::OfSession,
        visitor::Visitor,
    },
};

#[derive(Template)]
#[template(path = "session/session.html")]
struct SessionPage<'a> {
    frame: Frame,
    application: Option<&'a str>,
    rights: String,
    created_at: &'a Timestamp,
    ends_at: &'a Timestamp,
    idle: String,
    schemes: [&'static str; 3],
    /// True if the visitor may have several sessions: a link opens one.
    has_others: bool,
}

/// Shows session, preferences and sign-out.
pub(crate) async fn show(visitor: Visitor) -> Result<Response, Fault> {
    let application = visitor.session.application.map(|id| id.to_string());
    let page_of_session = SessionPage {
        frame: Frame::new(&visitor, "Your session"),
        application: application.as_deref(),
        rights: visitor.session.rights.names().join(", "),
        created_at: &visitor.session.created_at,
        ends_at: &visitor.session.ends_at,
        idle: marks::took(visitor.session.idle.as_secs() * 1000),
        schemes: SCHEMES,
        has_others: visitor.session.sign_in != SignIn::Link,
    };
    page(&visitor, &page_of_session)
}

/// Ends the visitor's session, or all sessions of the same visitor.
pub(crate) async fn sign_out(
    State(console): State<Console>,
    visitor: Visitor,
    Form(form): Form<SignOut>,
) -> Result<Response, Fault> {
    let (store, session, is_everywhere) =
        (console.api.store.clone(), visitor.session.clone(), form.everywhere.is_some());
    let work = async move {
        if is_everywhere {
            store.end_sessions_of(&session).await?;
        } else {
            store.end_session(session.id, None).await?;
        }
        Ok(OfSession { id: session.id })
    };
    console.audit.around(visitor.author(visitor.session.application), "sign_out", Value::Null, work).await?;
    let cookie = [(header::SET_COOKIE, cookie::without_token(&console.settings, visitor.home))];
    let to = if visitor.home == Home::Console { "/console/sign-in" } else { "/portal/ended" };
    Ok((AppendHeaders(cookie), Redirect::to(to)).into_response())
}

#[derive(Deserialize)]
pub(crate) struct SignOut {
    everywhere: Option<String>,
}

/// The visitor's preferences, as a form sends them.
#[derive(Deserialize)]
pub(crate) struct PreferenceForm {
    scheme: String,
    time: String,
    shortcuts: Option<String>,
}

/// Keeps the visitor's preferences in the browser.
pub(crate) async fn prefer(
    State(console): State<Console>,
    visitor: Visitor,
    Form(form): Form<PreferenceForm>,
) -> Response {
    let preferences = Preferences {
        scheme: SCHEMES.into_iter().find(|known| *known == form.scheme).unwrap_or("auto"),
        is_local_time: form.time == "local",
        has_shortcuts: form.shortcuts.is_some(),
    };
    let to = format!("{}/session?done=preferences", visitor.home.path());
    let kept = preferences.header(&console.settings, visitor.session.face);
    (AppendHeaders([(header::SET_COOKIE, kept)]), Redirect::to(&to)).into_response()
}
