//! The sign-in: by an API key, or by a link that opens once. And the sign-out.

#[cfg(feature = "oidc")]
mod attempt;
#[cfg(feature = "oidc")]
pub(crate) mod provider;
pub(crate) mod proxy;

use std::time::Duration;

use askama::Template;
use axum::{
    Form,
    extract::{Path, Query, State},
    http::{HeaderMap, StatusCode, header},
    response::{AppendHeaders, IntoResponse, Redirect, Response},
};
use fanfare_api::http::{
    authentication::key_of_text,
    error::{ApiError, ErrorCode},
};
use fanfare_domain::{
    access::{
        api_key::Role,
        session::{self, Face, Rights, SessionToken},
    },
    ids::SessionId,
};
use fanfare_store::NewSession;
use serde::Deserialize;
use url::form_urlencoded;

use crate::{
    Console, assets,
    frame::{
        fault::Fault,
        marks::{self, filters},
    },
    session::{
        cookie::{self, Preferences, SCHEMES},
        guard::check_origin,
        home::Home,
        visitor::Visitor,
    },
};

/// Time from the last request to the end of a session of the console.
pub(crate) const IDLE: Duration = Duration::from_secs(2 * 3600);

/// Time from the sign-in to the end of a session of the console.
pub(crate) const LIFETIME: Duration = Duration::from_secs(12 * 3600);

#[derive(Template)]
#[template(path = "session/sign_in/sign_in.html")]
struct SignIn {
    root: &'static str,
    style: &'static str,
    script: &'static str,
    scheme: &'static str,
    to: String,
    error: Option<String>,
    is_private: bool,
    /// True if the next page signs in with the name that a proxy tells.
    has_proxy: bool,
    /// Host of the provider of OpenID Connect. The policy of the pages lets no form lead to another site, only a link.
    provider: Option<String>,
    /// The page after the sign-in, as a query.
    query: String,
}

#[derive(Template)]
#[template(path = "session/sign_in/open.html")]
struct Open {
    root: &'static str,
    style: &'static str,
    script: &'static str,
    scheme: &'static str,
    error: Option<&'static str>,
    face: &'static str,
    token: String,
    parents: String,
}

/// The page of a browser that keeps no cookie: the link is not used up.
#[derive(Template)]
#[template(path = "session/sign_in/no_cookie.html")]
struct NoCookie {
    root: &'static str,
    style: &'static str,
    script: &'static str,
    scheme: &'static str,
    token: String,
    parents: String,
}

#[derive(Deserialize)]
pub(crate) struct To {
    pub(super) to: Option<String>,
}

/// Shows the form for an API key.
pub(crate) async fn show(
    State((console, _)): State<(Console, Face)>,
    Query(query): Query<To>,
    headers: HeaderMap,
) -> Response {
    sign_in_page(&console, &headers, query.to, None)
}

#[derive(Deserialize)]
pub(crate) struct KeyForm {
    key: String,
    look_only: Option<String>,
    to: Option<String>,
}

/// Begins a session by an API key.
pub(crate) async fn by_key(
    State((console, _)): State<(Console, Face)>,
    headers: HeaderMap,
    Form(form): Form<KeyForm>,
) -> Response {
    match begin(&console, &headers, &form).await {
        Ok(token) => signed_in(&console, Home::Console, &token, &local(form.to)),
        Err(error) => sign_in_page(&console, &headers, form.to, Some(error)),
    }
}

async fn begin(console: &Console, headers: &HeaderMap, form: &KeyForm) -> Result<SessionToken, ApiError> {
    check_origin(&console.settings, headers)?;
    let caller = key_of_text(&console.api.directory, form.key.trim()).await?;
    if caller.role == Role::Publish {
        let message = "this key may only publish: sign in with a key with the role manage or admin";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    let rights = if form.look_only.is_some() { Rights::look_only() } else { Rights::all() };
    let new = NewSession {
        face: Face::Console,
        application: caller.application,
        rights,
        key: Some(caller.key),
        name: caller.key.to_string(),
        sign_in: session::SignIn::Key,
        lifetime: LIFETIME,
        idle: IDLE,
        back: None,
        theme: None,
    };
    let token = new_token(console);
    console.api.store.create_session(&token, &new, None).await?;
    Ok(token)
}

pub(crate) fn new_token(console: &Console) -> SessionToken {
    SessionToken::from_random(SessionId::new(console.api.store.now(), rand::random()), rand::random())
}

/// Shows the button of a link. A program that fetches the link in advance does not open the session.
pub(crate) async fn show_link(
    State((console, face)): State<(Console, Face)>,
    Path(text): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let session = match text.parse() {
        Ok(token) => console.api.store.linked_session(&token).await.map_err(ApiError::from)?,
        Err(_) => None,
    };
    let is_known = session.is_some_and(|session| session.face == face);
    let error = (!is_known).then_some("This link was used, has expired, or was revoked. Ask for another link.");
    let page = Open {
        root: face.root(),
        style: &assets::STYLE.address,
        script: &assets::SCRIPT.address,
        scheme: Preferences::of(&headers).scheme,
        error,
        face: face.as_str(),
        token: text,
        parents: parents(&console, face),
    };
    let status = if is_known { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let trial = (face == Face::Portal).then(|| (header::SET_COOKIE, cookie::trial(&console.settings)));
    Ok((status, AppendHeaders(trial), html(&page)?).into_response())
}

/// Opens the session of a link. Leaves the link of a portal unused if the browser has not kept the cookie of
/// [`show_link`]: the session's cookie would be lost, too.
pub(crate) async fn open_link(
    State((console, face)): State<(Console, Face)>,
    Path(text): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    check_origin(&console.settings, &headers)?;
    if face == Face::Portal && !cookie::passed_trial(&headers) {
        return no_cookie(&console, text, &headers);
    }
    let Ok(link) = text.parse::<SessionToken>() else {
        return show_link(State((console, face)), Path(text), headers).await;
    };
    let token = SessionToken::from_random(link.session, rand::random());
    let opened = console.api.store.open_session(&link, &token).await.map_err(ApiError::from)?;
    match opened.and_then(|session| Home::of_session(&session)) {
        Some(home) if home.face() == face => Ok(signed_in(&console, home, &token, &format!("{}/", home.path()))),
        _ => show_link(State((console, face)), Path(text), headers).await,
    }
}

fn no_cookie(console: &Console, token: String, headers: &HeaderMap) -> Result<Response, Fault> {
    let page = NoCookie {
        root: Face::Portal.root(),
        style: &assets::STYLE.address,
        script: &assets::SCRIPT.address,
        scheme: Preferences::of(headers).scheme,
        token,
        parents: parents(console, Face::Portal),
    };
    Ok(html(&page)?.into_response())
}

/// Origins that get messages of the pages' script, separated by spaces.
pub(crate) fn parents(console: &Console, face: Face) -> String {
    if face == Face::Portal { console.settings.portal_origins.join(" ") } else { String::new() }
}

fn signed_in(console: &Console, home: Home, token: &SessionToken, to: &str) -> Response {
    let cookie = [(header::SET_COOKIE, cookie::of_token(&console.settings, home, token))];
    (AppendHeaders(cookie), Redirect::to(to)).into_response()
}

/// Ends the visitor's session, or all sessions of the same visitor.
pub(crate) async fn sign_out(
    State(console): State<Console>,
    visitor: Visitor,
    Form(form): Form<SignOut>,
) -> Result<Response, Fault> {
    let store = &console.api.store;
    let ended = match form.everywhere {
        Some(_) => store.end_sessions_of(&visitor.session).await.map(|_| true),
        None => store.end_session(visitor.session.id, None).await,
    };
    ended.map_err(ApiError::from)?;
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

/// The page of the sign-in, with the error of an attempt.
pub(super) fn sign_in_page(
    console: &Console,
    headers: &HeaderMap,
    to: Option<String>,
    error: Option<ApiError>,
) -> Response {
    let status = error.as_ref().map_or(StatusCode::OK, ApiError::status);
    let to = local(to);
    let page = SignIn {
        root: Face::Console.root(),
        style: &assets::STYLE.address,
        script: &assets::SCRIPT.address,
        scheme: Preferences::of(headers).scheme,
        query: form_urlencoded::Serializer::new(String::new()).append_pair("to", &to).finish(),
        to,
        error: error.map(|error| error.message),
        is_private: console.settings.is_private(),
        has_proxy: console.settings.proxy.is_some(),
        provider: console.settings.provider.as_ref().map(|provider| marks::host(&provider.issuer)),
    };
    html(&page).map_or_else(IntoResponse::into_response, |page| (status, page).into_response())
}

fn html(page: &impl Template) -> Result<axum::response::Html<String>, Fault> {
    page.render().map(axum::response::Html).map_err(Fault::of_template)
}

/// The page after the sign-in: an address of the console only, since the parameter may come from another site.
pub(super) fn local(to: Option<String>) -> String {
    let is_local = |to: &String| to.starts_with("/console/") && !to.contains(['\\', '\r', '\n']);
    to.filter(is_local).unwrap_or_else(|| "/console/".to_owned())
}

#[cfg(test)]
mod tests {
    use super::local;

    #[test]
    fn leads_only_to_the_console() {
        for foreign in ["//evil.example", "https://evil.example", "/console", "/console/\\evil", "/portal/", ""] {
            assert_eq!(local(Some(foreign.to_owned())), "/console/", "{foreign}");
        }
        assert_eq!(local(Some("/console/parked?reason=x".to_owned())), "/console/parked?reason=x");
        assert_eq!(local(None), "/console/");
    }
}
