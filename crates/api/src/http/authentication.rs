//! Authentication, and the application of a request.

use axum::{
    extract::{FromRef, FromRequestParts, Request, State},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::Response,
};
use fanfare_domain::{
    access::{
        api_key::{Caller, Role},
        session::Session,
    },
    ids::{ApplicationId, KeyId, SessionId},
};
use fanfare_store::Directory;
use url::form_urlencoded;

use crate::http::{
    error::{ApiError, ErrorCode},
    parameters::{APPLICATION, id},
};

/// Answer to an invalid key, with the next step.
const INVALID_KEY: &str = "the API key is unknown, expired or revoked: send the whole key as it was printed; \
                           `fanfare key list` shows the keys";

/// An alternative header for the API key, for clients of some replaced systems.
const X_API_TOKEN: &str = "x-api-token";

/// The application of a request by a caller with a `manage` or `admin` key.
pub struct AuthorizedApplication {
    /// The application.
    pub application: ApplicationId,
    /// False for a visitor of the pages without the right. Every key of the API may see payloads.
    pub may_see_payloads: bool,
}

impl<S: Send + Sync> FromRequestParts<S> for AuthorizedApplication
where
    Directory: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let caller = authenticate(&parts.headers, &Directory::from_ref(state), &[Role::Manage, Role::Admin])?;
        Ok(Self { application: application_of(&caller, parts.uri.query())?, may_see_payloads: true })
    }
}

/// The application of a request by a caller with a key of any role, such as a publisher.
pub struct PublishingApplication {
    /// The application.
    pub application: ApplicationId,
    /// The key of the request.
    pub key: KeyId,
}

impl<S: Send + Sync> FromRequestParts<S> for PublishingApplication
where
    Directory: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let caller = authenticate(&parts.headers, &Directory::from_ref(state), &Role::ALL)?;
        Ok(Self { application: application_of(&caller, parts.uri.query())?, key: caller.key })
    }
}

/// The creator of a link to the portal. The link's session ends with the creator.
pub struct Creator {
    /// The key of the request, or of the visitor's session.
    pub key: Option<KeyId>,
    /// The visitor's session, if the session has no key.
    pub session: Option<SessionId>,
}

impl Creator {
    /// A visitor of the web pages.
    pub fn of_session(session: &Session) -> Self {
        Self { key: session.key, session: session.key.is_none().then_some(session.id) }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Creator
where
    Directory: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let roles = [Role::Manage, Role::Admin];
        let caller = authenticate(&parts.headers, &Directory::from_ref(state), &roles)?;
        Ok(Self { key: Some(caller.key), session: None })
    }
}

/// Like [`AuthorizedApplication`], but `None` if an administrator names no application: all applications.
pub struct Scope(pub Option<ApplicationId>);

impl<S: Send + Sync> FromRequestParts<S> for Scope
where
    Directory: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let caller = authenticate(&parts.headers, &Directory::from_ref(state), &[Role::Manage, Role::Admin])?;
        let query = parts.uri.query().unwrap_or_default();
        let names_application = form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == APPLICATION);
        if caller.application.is_none() && !names_application {
            return Ok(Self(None));
        }
        application_of(&caller, parts.uri.query()).map(|application| Self(Some(application)))
    }
}

/// The application of a key. `None` for an admin key: all applications.
pub struct KeyApplication(pub Option<ApplicationId>);

impl<S: Send + Sync> FromRequestParts<S> for KeyApplication
where
    Directory: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let roles = [Role::Manage, Role::Admin];
        Ok(Self(authenticate(&parts.headers, &Directory::from_ref(state), &roles)?.application))
    }
}

/// A caller with an `admin` key.
pub struct Administrator;

impl<S: Send + Sync> FromRequestParts<S> for Administrator
where
    Directory: FromRef<S>,
{
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        authenticate(&parts.headers, &Directory::from_ref(state), &[Role::Admin]).map(|_| Self)
    }
}

/// Authenticates the caller by `Authorization: Bearer <key>` or `x-api-token: <key>`, and checks the role of the key.
///
/// # Errors
/// 401 without a valid key, 403 for a role outside `roles`.
pub fn authenticate(headers: &HeaderMap, directory: &Directory, roles: &[Role]) -> Result<Caller, ApiError> {
    let key = key_of(headers)?;
    let caller = directory.authenticate(key).ok_or_else(|| ApiError::new(ErrorCode::InvalidKey, INVALID_KEY))?;
    if !roles.contains(&caller.role) {
        let needed: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        let message =
            format!("use a key with the role {}: this key has the role {}", needed.join(" or "), caller.role.as_str());
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    Ok(caller)
}

/// Authenticates a text as a key of any role. Looks up an unknown key first.
///
/// # Errors
/// 401 for an unknown, expired or revoked key.
pub async fn key_of_text(directory: &Directory, key: &str) -> Result<Caller, ApiError> {
    directory.look_for_key(key).await;
    directory.authenticate(key).ok_or_else(|| ApiError::new(ErrorCode::InvalidKey, INVALID_KEY))
}

/// Looks up an unknown key before the routes refuse the key: a key works at once after its creation.
pub async fn look_up_key(State(directory): State<Directory>, request: Request, next: Next) -> Response {
    if let Ok(key) = key_of(request.headers()) {
        directory.look_for_key(key).await;
    }
    next.run(request).await
}

fn key_of(headers: &HeaderMap) -> Result<&str, ApiError> {
    let missing = || ApiError::new(ErrorCode::MissingKey, "no API key: send the header `Authorization: Bearer <key>`");
    let key = match (headers.get(header::AUTHORIZATION), headers.get(X_API_TOKEN)) {
        (Some(header), _) => {
            let (scheme, key) = header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
            if !scheme.eq_ignore_ascii_case("bearer") {
                return Err(missing());
            }
            key
        }
        (None, Some(header)) => header.to_str().map_err(|_| missing())?,
        (None, None) => return Err(missing()),
    };
    Ok(key.trim())
}

/// The application of a request: the key's application, or for an admin key the application in the query.
///
/// # Errors
/// 400 if an admin key comes without an application, or the query has two; 403 if a key's application differs from the
/// query; 422 for an invalid id.
pub fn application_of(caller: &Caller, query: Option<&str>) -> Result<ApplicationId, ApiError> {
    let mut named = form_urlencoded::parse(query.unwrap_or_default().as_bytes())
        .filter(|(name, _)| name == APPLICATION)
        .map(|(_, value)| id::<ApplicationId>(APPLICATION, &value));
    let first = named.next().transpose()?;
    if named.next().is_some() {
        return Err(ApiError::new(ErrorCode::InvalidQuery, "`application` is given twice").at(APPLICATION));
    }
    match (caller.application, first) {
        (Some(own), Some(named)) if own != named => {
            Err(ApiError::new(ErrorCode::Forbidden, "this key belongs to another application").at(APPLICATION))
        }
        (Some(own), _) => Ok(own),
        (None, Some(named)) => Ok(named),
        (None, None) => {
            let message = "this key belongs to no application: name the application by ?application=app_…";
            Err(ApiError::new(ErrorCode::MissingApplication, message).at(APPLICATION))
        }
    }
}
