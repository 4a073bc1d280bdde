//! The guard of all requests: session, origin, form token, rights to change, and headers of the answer.

use axum::{
    body::Body,
    extract::{OriginalUri, Request, State},
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, Uri, header, request::Parts},
    middleware::Next,
    response::{IntoResponse, Redirect, Response},
};
use fanfare_api::http::error::{ApiError, ErrorCode};
use fanfare_domain::access::session::{Face, Session, SessionToken, SignIn};
use percent_encoding::{NON_ALPHANUMERIC, utf8_percent_encode};

use crate::{
    Console, Settings,
    frame::{fault::Fault, form},
    session::{
        cookie::{self, Preferences},
        home::Home,
        sign_in::{link::parents, proxy},
        visitor::{LIVE, Visitor, Wanted},
    },
};

/// The largest form, in bytes: the largest request of the API, percent-encoded.
const MAX_FORM: usize = 3 * 512 * 1024;

/// Name of the form's field with the session's form token.
pub(crate) const FORM_TOKEN: &str = "_form";

/// Lets a request with a session pass to the page, and leads a visitor without a session to the sign-in.
pub(crate) async fn guard(State((console, face)): State<(Console, Face)>, request: Request, next: Next) -> Response {
    let (parts, body) = request.into_parts();
    // `parts.uri` has only the rest of the path behind the nested routes.
    let whole = parts.extensions.get().map_or_else(|| parts.uri.clone(), |OriginalUri(whole)| whole.clone());
    let Some(home) = Home::of_path(face, whole.path()) else { return without_session(face, &parts.headers, &whole) };
    let Entered { session, token, is_new } = match enter(&console, home, &parts).await {
        Ok(Some(entered)) => entered,
        Ok(None) => return without_session(face, &parts.headers, &whole),
        Err(error) => return Fault::from(error).without_session(face, &parts.headers),
    };
    // Held until the answer.
    let _places = match console.places.take(&session).await {
        Ok(places) => places,
        Err(error) => return Fault::from(error).without_session(face, &parts.headers),
    };
    let visitor = Visitor {
        session,
        home,
        form_token: token.form_token(),
        preferences: Preferences::of(&parts.headers),
        wanted: wanted(&parts.headers, &whole),
        address: whole.path_and_query().map_or_else(String::new, ToString::to_string),
        origin: console.audit.origin(&parts),
        now: console.api.store.now(),
        is_private: console.settings.is_private(),
        api: console.settings.api(),
        parents: parents(&console, face),
    };
    let mut request = Request::from_parts(parts, body);
    if !request.method().is_safe() {
        request = match checked(request, &console.settings, &token, &visitor).await {
            Ok(request) => request,
            Err(error) => return Fault::from(error).into_page(&visitor),
        };
    }
    // A live part asks again and again by itself: only other requests keep the session.
    if !matches!(visitor.wanted, Wanted::Live { .. })
        && let Err(error) = console.api.store.touch_session(visitor.session.id).await
    {
        tracing::warn!(%error, session = %visitor.session.id, "cannot extend a session: the session may end early");
    }
    request.extensions_mut().insert(visitor.clone());
    let mut response = next.run(request).await;
    if let Some(fault) = response.extensions_mut().remove::<Fault>() {
        let allowed = response.headers_mut().remove(header::ALLOW);
        response = fault.into_page(&visitor);
        if let Some(allowed) = allowed.filter(|_| response.status() == StatusCode::METHOD_NOT_ALLOWED) {
            response.headers_mut().insert(header::ALLOW, allowed);
        }
    }
    if is_new && let Ok(cookie) = cookie::of_token(&console.settings, home, &token).parse() {
        response.headers_mut().append(header::SET_COOKIE, cookie);
    }
    response
}

/// The session of a request.
struct Entered {
    session: Session,
    token: SessionToken,
    /// True if the answer gives the token to the browser.
    is_new: bool,
}

/// Finds the session of the request's cookie, or begins a session of the visitor whom a trusted proxy names.
async fn enter(console: &Console, home: Home, parts: &Parts) -> Result<Option<Entered>, ApiError> {
    let store = &console.api.store;
    let mut known = None;
    if let Some(token) = cookie::token(&console.settings, home, &parts.headers)
        && let Some(session) = store.session(&token).await?
        // A browser can send the token of a portal in the console's cookie.
        && Home::of_session(&session) == Some(home)
    {
        known = Some(Entered { session, token, is_new: false });
    }
    if home != Home::Console || known.as_ref().is_some_and(|known| known.session.sign_in != SignIn::Proxy) {
        return Ok(known);
    }
    let Some(named) = proxy::named(console, parts)? else { return Ok(None) };
    if let Some(known) = known {
        if named.owns(&known.session) {
            return Ok(Some(known));
        }
        // The proxy names another visitor, or another access.
        store.end_session(known.session.id, None).await?;
    }
    if !is_visit(parts) {
        return Ok(None);
    }
    let token = named.begin(console, parts).await?;
    let session = store.session(&token).await?;
    Ok(session.map(|session| Entered { session, token, is_new: true }))
}

/// True if a person opens a page, by an own page, the address or a bookmark. Other requests begin no session: another
/// site, or a page that asks by itself, would begin one session after another.
fn is_visit(parts: &Parts) -> bool {
    let is = |name: &str, wanted: &str| parts.headers.get(name).is_none_or(|value| value == wanted);
    let is_foreign = parts.headers.get("sec-fetch-site").is_some_and(|site| site == "cross-site");
    parts.method == Method::GET && is("sec-fetch-mode", "navigate") && !is_foreign && !parts.headers.contains_key(LIVE)
}

/// Adds the security headers to each answer.
pub(crate) async fn headers(State((console, face)): State<(Console, Face)>, request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let framed_by = match face {
        Face::Portal if !console.settings.portal_origins.is_empty() => console.settings.portal_origins.join(" "),
        _ => "'none'".to_owned(),
    };
    let policy = format!(
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
         form-action 'self'; base-uri 'none'; frame-ancestors {framed_by}"
    );
    let answer = response.headers_mut();
    if let Ok(policy) = HeaderValue::from_str(&policy) {
        answer.insert(header::CONTENT_SECURITY_POLICY, policy);
    }
    let fixed: [(HeaderName, &str); 3] = [
        // With `no-referrer`, browsers send forms of the pages with `Origin: null` (Fetch, "append a request `Origin`
        // header"), and a form over plain http has no `Sec-Fetch-Site`.
        (header::REFERRER_POLICY, "same-origin"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    for (name, value) in fixed {
        answer.insert(name, HeaderValue::from_static(value));
    }
    // Over plain http from another machine, browsers ignore the header with an error in the console of each page.
    if console.settings.is_private() {
        let name = HeaderName::from_static("cross-origin-opener-policy");
        answer.insert(name, HeaderValue::from_static("same-origin"));
    }
    answer.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Leads a visitor without a session to the sign-in, or tells a script that the session has ended.
fn without_session(face: Face, headers: &HeaderMap, uri: &Uri) -> Response {
    if headers.contains_key(LIVE) {
        return StatusCode::UNAUTHORIZED.into_response();
    }
    match face {
        Face::Console => {
            let to = uri.path_and_query().map_or("/console/", |path| path.as_str());
            Redirect::to(&format!("/console/sign-in?to={}", utf8_percent_encode(to, NON_ALPHANUMERIC))).into_response()
        }
        Face::Portal => Redirect::to("/portal/ended").into_response(),
    }
}

fn wanted(headers: &HeaderMap, uri: &Uri) -> Wanted {
    let is_text = uri.query().is_some_and(|query| query.split('&').any(|pair| pair == "as=text"));
    match headers.get(LIVE).and_then(|known| known.to_str().ok()) {
        Some(known) => Wanted::Live { known: known.to_owned() },
        None if is_text => Wanted::Text,
        None => Wanted::Page,
    }
}

/// Checks a request that changes something: origin, form token, and the right to change at all.
async fn checked(
    request: Request,
    settings: &Settings,
    token: &SessionToken,
    visitor: &Visitor,
) -> Result<Request, ApiError> {
    check_origin(settings, request.headers())?;
    let (parts, body) = request.into_parts();
    let body = form::read(&parts.headers, body, MAX_FORM).await?;
    let mut fields = url::form_urlencoded::parse(&body);
    if !fields.any(|(name, value)| name == FORM_TOKEN && token.accepts(&value)) {
        let message = "the form is not of this session: open the page again, and send the form again";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    let path = visitor.address.split('?').next().unwrap_or_default();
    let is_of_session =
        ["/session/preferences", "/sign-out"].iter().any(|own| path == format!("{}{own}", visitor.home.path()));
    if visitor.session.rights.are_look_only() && !is_of_session {
        let message = "this session may only look: sign in again without `look only` to change something";
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    Ok(Request::from_parts(parts, Body::from(body)))
}

/// Refuses a request that another site caused. Browsers send at least one of the headers.
pub(crate) fn check_origin(settings: &Settings, headers: &HeaderMap) -> Result<(), ApiError> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let is_own = match (text("sec-fetch-site"), text("origin")) {
        (Some(site), _) => site == "same-origin",
        (None, Some(origin)) => origin == settings.origin(),
        (None, None) => false,
    };
    if is_own {
        return Ok(());
    }
    let message = format!(
        "the request comes from another site, or FANFARE_CONSOLE_URL ({}) is not the address in the browser",
        settings.origin()
    );
    Err(ApiError::new(ErrorCode::Forbidden, message))
}
