//! Authentication, the application of a request, and the parameters of path and query.

use std::str::FromStr;

use axum::{
    extract::{FromRequestParts, Request, State, rejection::PathRejection},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::Response,
};
use fanfare_domain::{
    access::{Caller, Role},
    ids::{ApplicationId, NotAnId},
    label,
};
use fanfare_store::Directory;
use serde::{Deserialize, de::DeserializeOwned};
use url::form_urlencoded;
use utoipa::IntoParams;

use crate::{ApiError, Console, ErrorCode};

/// An alternative header for the API key, for clients of some replaced systems.
const X_API_TOKEN: &str = "x-api-token";

/// The query parameter for the application. An admin key belongs to no application.
const APPLICATION: &str = "application";

/// The parameters in the path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
pub(crate) struct Path<T>(pub(crate) T);

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(ErrorCode::InvalidPath, rejection.body_text())
    }
}

/// The parameters in the query, except `application`. Unknown parameters are errors: otherwise a misspelt filter would
/// find everything.
pub(crate) struct Query<T>(pub(crate) T);

impl<S: Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self, ApiError> {
        let query = parts.uri.query().unwrap_or_default();
        let mut others = form_urlencoded::Serializer::new(String::new());
        others.extend_pairs(form_urlencoded::parse(query.as_bytes()).filter(|(name, _)| name != APPLICATION));
        let others = others.finish();
        let pairs = serde_urlencoded::Deserializer::new(form_urlencoded::parse(others.as_bytes()));
        serde_path_to_error::deserialize(pairs).map(Self).map_err(|error| {
            let field = error.path().to_string();
            let problem = ApiError::new(ErrorCode::InvalidQuery, format!("the query: {}", error.into_inner()));
            if field == "." { problem } else { problem.at(&field) }
        })
    }
}

/// The application of a request by a caller with a `manage` or `admin` key.
pub(crate) struct Manager {
    pub(crate) application: ApplicationId,
}

impl FromRequestParts<Console> for Manager {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, ApiError> {
        let caller = authenticate(&parts.headers, &console.directory, &[Role::Manage, Role::Admin])?;
        Ok(Self { application: application_of(&caller, parts.uri.query())? })
    }
}

/// Like [`Manager`], but `None` if an administrator names no application: all applications.
pub(crate) struct Scope(pub(crate) Option<ApplicationId>);

impl FromRequestParts<Console> for Scope {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, ApiError> {
        let caller = authenticate(&parts.headers, &console.directory, &[Role::Manage, Role::Admin])?;
        let query = parts.uri.query().unwrap_or_default();
        let names_one = form_urlencoded::parse(query.as_bytes()).any(|(name, _)| name == APPLICATION);
        if caller.application.is_none() && !names_one {
            return Ok(Self(None));
        }
        application_of(&caller, parts.uri.query()).map(|application| Self(Some(application)))
    }
}

/// A caller with an `admin` key.
pub(crate) struct Administrator;

impl FromRequestParts<Console> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, ApiError> {
        authenticate(&parts.headers, &console.directory, &[Role::Admin]).map(|_| Self)
    }
}

/// Refreshes the directory after a change and before the answer. An event published after the answer then carries the
/// new version of the configuration. A dispatcher with an older copy detects the gap by the version.
pub async fn in_force(State(directory): State<Directory>, request: Request, next: Next) -> Response {
    let is_change = !request.method().is_safe();
    let response = next.run(request).await;
    if is_change && response.status().is_success() {
        // While the database is away, the refresh fails. The directory then refreshes when the database returns.
        directory.refresh().await;
    }
    response
}

/// Authenticates the caller by `Authorization: Bearer <key>` or `x-api-token: <key>`, and checks the role of the key.
///
/// # Errors
/// 401 without a valid key, 403 for a role outside `roles`.
pub fn authenticate(headers: &HeaderMap, directory: &Directory, roles: &[Role]) -> Result<Caller, ApiError> {
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
    let caller = directory
        .authenticate(key.trim())
        .ok_or_else(|| ApiError::new(ErrorCode::InvalidKey, "the API key is unknown, expired or revoked"))?;
    if !roles.contains(&caller.role) {
        let needed: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        let message =
            format!("use a key with the role {}: this key has the role {}", needed.join(" or "), caller.role.as_str());
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    Ok(caller)
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

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// The `next` of the previous page.
    before: Option<String>,
    /// 1 to 100. Default: 50.
    limit: Option<usize>,
}

impl Paging {
    /// The item before the page, and the size of the page.
    pub(crate) fn parse<T: FromStr<Err = NotAnId>>(&self) -> Result<(Option<T>, PageSize), ApiError> {
        let before = self.before.as_deref().map(|text| id("before", text)).transpose()?;
        Ok((before, page_size(self.limit)?))
    }
}

/// The maximum number of items on a page.
#[derive(Clone, Copy)]
pub(crate) struct PageSize(usize);

impl PageSize {
    pub(crate) fn items(self) -> usize {
        self.0
    }

    /// The number of rows to query. The additional row proves another page.
    pub(crate) fn rows(self) -> usize {
        self.0 + 1
    }
}

/// Checks the requested size of a page: 1 to 100, by default 50.
pub(crate) fn page_size(asked: Option<usize>) -> Result<PageSize, ApiError> {
    const MOST: usize = 100;
    match asked.unwrap_or(50) {
        size @ 1..=MOST => Ok(PageSize(size)),
        _ => Err(ApiError::invalid("limit", format!("must be between 1 and {MOST}"))),
    }
}

/// Parses an id in a path, query or body.
pub(crate) fn id<T: FromStr<Err = NotAnId>>(field: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error| ApiError::invalid(field, format!("is not valid: {error}")))
}

/// Checks a display name.
pub(crate) fn check_label(field: &str, text: &str) -> Result<(), ApiError> {
    label::check_label(text).map_err(|fault| ApiError::invalid(field, fault))
}
