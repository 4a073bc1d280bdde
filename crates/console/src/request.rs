//! Who calls, for which application, and what the query says.

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

/// Where some systems' users put their key.
const X_API_TOKEN: &str = "x-api-token";

/// The parameter by which an admin key, which is bound to no application, names one.
const APPLICATION: &str = "application";

/// The parameters in a request's path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
pub(crate) struct Path<T>(pub(crate) T);

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(ErrorCode::InvalidPath, rejection.body_text())
    }
}

/// The parameters in a request's query, but for `application`. One that there is not is an error: a misspelt
/// filter would otherwise find everything.
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

/// Somebody who may manage an application, and which one the request is about.
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

/// Somebody who may manage, and which application is meant: none for all, where an administrator names none.
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

/// Somebody who may manage all applications.
pub(crate) struct Administrator;

impl FromRequestParts<Console> for Administrator {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, console: &Console) -> Result<Self, ApiError> {
        authenticate(&parts.headers, &console.directory, &[Role::Admin]).map(|_| Self)
    }
}

/// Lets a change be known to this process before it is answered: whoever publishes after the answer must meet it, and
/// the event carries the version by which a dispatcher sees what it has missed.
pub async fn in_force(State(directory): State<Directory>, request: Request, next: Next) -> Response {
    let is_change = !request.method().is_safe();
    let response = next.run(request).await;
    if is_change && response.status().is_success() {
        // Where the database is away by now, the change comes with its return.
        directory.refresh().await;
    }
    response
}

/// Finds out who calls, by `Authorization: Bearer <key>` or `x-api-token: <key>`, and whether the key may do
/// what takes a role.
///
/// # Errors
/// 401 without a valid key, 403 where the key has another role.
pub fn authenticate(headers: &HeaderMap, directory: &Directory, roles: &[Role]) -> Result<Caller, ApiError> {
    let missing = || ApiError::new(ErrorCode::MissingKey, "give an API key: Authorization: Bearer <key>");
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
        .ok_or_else(|| ApiError::new(ErrorCode::InvalidKey, "this API key is not valid"))?;
    if !roles.contains(&caller.role) {
        let needed: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        let message =
            format!("this takes a key with the role {}; this one has {}", needed.join(" or "), caller.role.as_str());
        return Err(ApiError::new(ErrorCode::Forbidden, message));
    }
    Ok(caller)
}

/// The application that a request is about: the key's, or the one that an admin names in the query.
///
/// # Errors
/// 400 where an admin names none, 403 where a bound key names another.
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
            let message = "this key belongs to no application: name one with ?application=app_…";
            Err(ApiError::new(ErrorCode::MissingApplication, message).at(APPLICATION))
        }
    }
}

/// Which page of a list.
#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub(crate) struct Paging {
    /// The `next` of the page before.
    before: Option<String>,
    /// 1 to 100, 50 where it is left out.
    limit: Option<usize>,
}

impl Paging {
    /// After which item it begins, and how many it has at the most.
    pub(crate) fn parse<T: FromStr<Err = NotAnId>>(&self) -> Result<(Option<T>, PageSize), ApiError> {
        let before = self.before.as_deref().map(|text| id("before", text)).transpose()?;
        Ok((before, page_size(self.limit)?))
    }
}

/// How many items a page of a list has at the most.
#[derive(Clone, Copy)]
pub(crate) struct PageSize(usize);

impl PageSize {
    pub(crate) fn items(self) -> usize {
        self.0
    }

    /// How many are looked for: one more, to know whether there is another page.
    pub(crate) fn rows(self) -> usize {
        self.0 + 1
    }
}

/// Reads how many items a page is to have.
pub(crate) fn page_size(asked: Option<usize>) -> Result<PageSize, ApiError> {
    const MOST: usize = 100;
    match asked.unwrap_or(50) {
        size @ 1..=MOST => Ok(PageSize(size)),
        _ => Err(ApiError::invalid("limit", format!("must be between 1 and {MOST}"))),
    }
}

/// An id in a path, query or body.
pub(crate) fn id<T: FromStr<Err = NotAnId>>(field: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error| ApiError::invalid(field, format!("is not valid: {error}")))
}

/// A name that people give.
pub(crate) fn check_label(field: &str, text: &str) -> Result<(), ApiError> {
    label::check_label(text).map_err(|fault| ApiError::invalid(field, fault))
}
