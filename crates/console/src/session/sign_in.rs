//! The sign-in: by an API key, a link that opens once, a proxy, or a provider of OpenID Connect.

#[cfg(feature = "oidc")]
mod attempt;
pub(crate) mod link;
#[cfg(feature = "oidc")]
pub(crate) mod provider;
pub(crate) mod proxy;

use askama::Template;
use axum::{
    body::Body,
    extract::{Query, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{AppendHeaders, IntoResponse, Redirect, Response},
};
use fanfare_api::{
    Author,
    http::{
        authentication::key_of_text,
        error::{ApiError, ErrorCode},
    },
};
use fanfare_domain::{
    access::{
        api_key::Role,
        session::{self, Face, Rights, SessionToken},
    },
    ids::{ApplicationId, KeyId, SessionId},
};
use fanfare_store::NewSession;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use url::form_urlencoded;

use crate::{
    Console,
    frame::{
        bare::{Bare, html},
        form,
        marks::{self, filters},
    },
    session::{cookie, guard::check_origin, home::Home},
};

/// The largest form of a sign-in, in bytes. Anybody can send the form.
const MAX_KEY_FORM: usize = 8 * 1024;

#[derive(Template)]
#[template(path = "session/sign_in/sign_in.html")]
struct SignIn {
    bare: Bare,
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
pub(crate) async fn by_key(State((console, _)): State<(Console, Face)>, parts: Parts, body: Body) -> Response {
    let form = match key_form(&console, &parts.headers, body).await {
        Ok(form) => form,
        Err(error) => return sign_in_page(&console, &parts.headers, None, Some(error)),
    };
    match of_key(&console, &parts, &form).await {
        Ok(token) => signed_in(&console, Home::Console, &token, &local(form.to)),
        Err(error) => sign_in_page(&console, &parts.headers, form.to, Some(error)),
    }
}

async fn key_form(console: &Console, headers: &HeaderMap, body: Body) -> Result<KeyForm, ApiError> {
    check_origin(&console.settings, headers)?;
    let body = form::read(headers, body, MAX_KEY_FORM).await?;
    serde_urlencoded::from_bytes(&body).map_err(|error| ApiError::new(ErrorCode::MissingField, format!("{error}")))
}

async fn of_key(console: &Console, parts: &Parts, form: &KeyForm) -> Result<SessionToken, ApiError> {
    let caller = key_of_text(&console.api.directory, form.key.trim()).await?;
    if caller.role == Role::Publish {
        let message = "this key may only publish: sign in with a key with the role manage or admin";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    let rights = if form.look_only.is_some() { Rights::look_only() } else { Rights::all() };
    let name = caller.key.to_string();
    let new = NewSession::of_console(name, session::SignIn::Key, caller.application, rights);
    begin(console, parts, NewSession { key: Some(caller.key), ..new }).await
}

/// A session that begins or ends. The audit log shows the id.
#[derive(Serialize)]
pub(crate) struct OfSession {
    pub(crate) id: SessionId,
}

/// Begins a session of the console, with an entry in the audit log, and ends the former session of the browser.
pub(super) async fn begin(console: &Console, parts: &Parts, new: NewSession) -> Result<SessionToken, ApiError> {
    let store = console.api.store.clone();
    let token = SessionToken::from_random(SessionId::new(store.now(), rand::random()), rand::random());
    let who = (new.application, new.key, new.name.clone());
    let author = author(console, parts, who, "/console/sign-in".to_owned());
    let made = token.clone();
    let work = async move {
        store.create_session(&made, &new, None).await?;
        Ok(OfSession { id: made.session })
    };
    console.audit.around(author, "sign_in", Value::Null, work).await?;
    end_former(console, Home::Console, &parts.headers).await;
    Ok(token)
}

/// The author of a sign-in: application, key and name of the session.
fn author(
    console: &Console,
    parts: &Parts,
    (application, key, visitor): (Option<ApplicationId>, Option<KeyId>, String),
    path: String,
) -> Author {
    Author { application, key, visitor, origin: console.audit.origin(parts), path }
}

/// Ends the session of the browser's cookie, which another session replaces.
async fn end_former(console: &Console, home: Home, headers: &HeaderMap) {
    let Some(former) = cookie::token(&console.settings, home, headers) else { return };
    if let Err(error) = console.api.store.end_session_of(&former).await {
        tracing::warn!(%error, session = %former.session, "cannot end a replaced session: it ends when idle");
    }
}

fn signed_in(console: &Console, home: Home, token: &SessionToken, to: &str) -> Response {
    let cookie = [(header::SET_COOKIE, cookie::of_token(&console.settings, home, token))];
    (AppendHeaders(cookie), Redirect::to(to)).into_response()
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
        bare: Bare::new(Face::Console, headers),
        query: form_urlencoded::Serializer::new(String::new()).append_pair("to", &to).finish(),
        to,
        error: error.map(|error| error.message),
        is_private: console.settings.is_private(),
        has_proxy: console.settings.proxy.is_some(),
        provider: console.settings.provider.as_ref().map(|provider| marks::host(&provider.issuer)),
    };
    html(&page).map_or_else(IntoResponse::into_response, |page| (status, page).into_response())
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
