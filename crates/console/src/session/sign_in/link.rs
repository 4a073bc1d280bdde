//! Links that open a session once, of the console and of the portal.

use askama::Template;
use axum::{
    extract::{Path, State},
    http::{HeaderMap, StatusCode, header, request::Parts},
    response::{AppendHeaders, IntoResponse, Response},
};
use fanfare_api::http::error::ApiError;
use fanfare_domain::access::session::{Face, Session, SessionToken};
use serde_json::Value;

use crate::{
    Console,
    frame::{
        bare::{Bare, html},
        fault::Fault,
        marks::filters,
    },
    session::{
        cookie,
        guard::check_origin,
        home::Home,
        sign_in::{OfSession, author, end_former, signed_in},
    },
};

/// The page of a link.
#[derive(Template)]
#[template(path = "session/sign_in/open.html")]
struct Open {
    bare: Bare,
    opens: Option<Opens>,
    token: String,
    parents: String,
    /// True for a page in a frame, where the script opens the session without a click. Only sites that the operator
    /// names may frame the page. Elsewhere a click is needed: another site could sign a browser in unnoticed.
    is_framed: bool,
}

/// A link that still opens.
struct Opens {
    /// Name of the person who gets the session.
    person: String,
    /// Name of the application; `None` for all applications.
    application: Option<String>,
}

/// The page of a browser that keeps no cookie: the link is not used up.
#[derive(Template)]
#[template(path = "session/sign_in/no_cookie.html")]
struct NoCookie {
    bare: Bare,
    token: String,
    parents: String,
}

#[derive(Template)]
#[template(path = "session/sign_in/ended.html")]
struct Ended {
    bare: Bare,
    parents: String,
}

/// Shows the button of a link. A program that fetches the link in advance does not open the session.
pub(crate) async fn show(
    State((console, face)): State<(Console, Face)>,
    Path(text): Path<String>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let session = match text.parse() {
        Ok(token) => console.api.store.linked_session(&token).await.map_err(ApiError::from)?,
        Err(_) => None,
    };
    let opens = match session.filter(|session| session.face == face) {
        Some(session) => Some(opens(&console, session).await?),
        None => None,
    };
    let status = if opens.is_some() { StatusCode::OK } else { StatusCode::NOT_FOUND };
    let page = Open {
        bare: Bare::new(face, &headers),
        opens,
        token: text,
        parents: parents(&console, face),
        is_framed: headers.get("sec-fetch-dest").is_some_and(|target| target == "iframe"),
    };
    let trial = (face == Face::Portal).then(|| (header::SET_COOKIE, cookie::trial(&console.settings)));
    Ok((status, AppendHeaders(trial), html(&page)?).into_response())
}

async fn opens(console: &Console, session: Session) -> Result<Opens, ApiError> {
    let application = match session.application {
        Some(id) => Some(console.api.store.application(id).await?.map_or_else(|| id.to_string(), |row| row.name)),
        None => None,
    };
    Ok(Opens { person: session.name, application })
}

/// Opens the session of a link. Leaves the link of a portal unused if the browser has not kept the cookie of [`show`]:
/// the session's cookie would be lost, too.
pub(crate) async fn open(
    State((console, face)): State<(Console, Face)>,
    Path(text): Path<String>,
    parts: Parts,
) -> Result<Response, Fault> {
    check_origin(&console.settings, &parts.headers)?;
    if face == Face::Portal && !cookie::passed_trial(&parts.headers) {
        let bare = Bare::new(face, &parts.headers);
        return Ok(html(&NoCookie { bare, token: text, parents: parents(&console, face) })?.into_response());
    }
    let opened = match text.parse() {
        Ok(link) => opened(&console, face, &link, &parts).await?,
        Err(_) => None,
    };
    match opened {
        Some((home, token)) => {
            end_former(&console, home, &parts.headers).await;
            Ok(signed_in(&console, home, &token, &format!("{}/", home.path())))
        }
        None => show(State((console, face)), Path(text), parts.headers).await,
    }
}

/// Opens the session with an entry in the audit log. `None` for a link that does not open.
async fn opened(
    console: &Console,
    face: Face,
    link: &SessionToken,
    parts: &Parts,
) -> Result<Option<(Home, SessionToken)>, ApiError> {
    let Some(session) = console.api.store.linked_session(link).await? else { return Ok(None) };
    let Some(home) = Home::of_session(&session).filter(|home| home.face() == face) else { return Ok(None) };
    // The path of the request holds the link's secret.
    let path = format!("{}/open", face.root());
    let author = author(console, parts, (session.application, session.key, session.name), path);
    let token = SessionToken::from_random(link.session, rand::random());
    let (store, link, new) = (console.api.store.clone(), link.clone(), token.clone());
    let work = async move {
        let gone = || ApiError::not_found("link", "the link was opened just now, has expired, or was revoked");
        store.open_session(&link, &new).await?.map(|session| OfSession { id: session.id }).ok_or_else(gone)
    };
    match console.audit.around(author, "open_link", Value::Null, work).await {
        Ok(_) => Ok(Some((home, token))),
        Err(error) if error.is_not_found() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Tells that the portal's session has ended. The script tells the parent of a frame.
pub(crate) async fn ended(
    State((console, face)): State<(Console, Face)>,
    headers: HeaderMap,
) -> Result<Response, Fault> {
    let page = Ended { bare: Bare::new(face, &headers), parents: parents(&console, face) };
    Ok(html(&page)?.into_response())
}

/// Origins that get messages of the pages' script, separated by spaces.
pub(crate) fn parents(console: &Console, face: Face) -> String {
    if face == Face::Portal { console.settings.portal_origins.join(" ") } else { String::new() }
}
