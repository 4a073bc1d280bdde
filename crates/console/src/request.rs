//! Who calls, for which application, and what the query and the body say.

use std::{collections::HashSet, str::FromStr, time::Duration};

use axum::{
    body::{Body, Bytes},
    extract::{FromRequest, FromRequestParts, Request, State, rejection::PathRejection},
    http::{HeaderMap, header, request::Parts},
    middleware::Next,
    response::Response,
};
use bytes::BytesMut;
use fanfare_domain::{
    access::{Caller, Role},
    ids::{ApplicationId, NotAnId},
    json::{self, JsonFault},
    label,
};
use fanfare_store::Directory;
use http_body_util::BodyExt;
use serde::{
    Deserialize,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::value::RawValue;
use url::form_urlencoded;
use utoipa::{
    IntoParams, PartialSchema, ToSchema,
    openapi::{RefOr, Schema, schema::Object},
};

use crate::{ApiError, Console, ErrorCode};

/// Bytes of a management request.
const MAX_MANAGEMENT_BODY: usize = 512 * 1024;

/// How much of a body that is too large is read and thrown away, and for how long.
const MAX_DISCARDED: usize = 16 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(1);

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
        .snapshot()
        .keys
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

/// Reads a JSON body of at most so many bytes.
///
/// # Errors
/// 415 for another content type, 413 for more bytes, 400 where the body breaks off.
pub async fn read_body(headers: &HeaderMap, mut body: Body, max_bytes: usize) -> Result<Bytes, ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        let message = "send JSON with Content-Type: application/json";
        return Err(ApiError::new(ErrorCode::UnsupportedContentType, message));
    }
    let mut bytes = BytesMut::new();
    while let Some(frame) = body.frame().await {
        let incomplete = |_| ApiError::new(ErrorCode::IncompleteBody, "the body ended before it was complete");
        let data = frame.map_err(incomplete)?.into_data().unwrap_or_default();
        if bytes.len() + data.len() > max_bytes {
            let _ = tokio::time::timeout(DISCARD_TIME, discard(body)).await;
            let message = format!("the body has more than the {max_bytes} bytes that are allowed");
            return Err(ApiError::new(ErrorCode::BodyTooLarge, message));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

/// Reads what nobody wants. A connection that is closed while its client still sends takes the answer with it.
async fn discard(mut body: Body) {
    let mut left = MAX_DISCARDED;
    while let Some(Ok(frame)) = body.frame().await {
        left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
        if left == 0 {
            return;
        }
    }
}

/// The body of a management request, read into what its schema describes.
pub(crate) struct Fields<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + ToSchema> FromRequest<S> for Fields<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        from_json(&read_body(&parts.headers, body, MAX_MANAGEMENT_BODY).await?).map(Self)
    }
}

/// The body of a management request that may be left out.
pub(crate) struct OptionalFields<T>(pub(crate) T);

impl<S: Send + Sync, T: DeserializeOwned + ToSchema + Default> FromRequest<S> for OptionalFields<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        use axum::body::HttpBody;
        if request.body().is_end_stream() {
            return Ok(Self(T::default()));
        }
        Fields::from_request(request, state).await.map(|Fields(fields)| Self(fields))
    }
}

/// The bytes of a management request's body.
pub(crate) struct Bare(pub(crate) Bytes);

impl<S: Send + Sync> FromRequest<S> for Bare {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        read_body(&parts.headers, body, MAX_MANAGEMENT_BODY).await.map(Self)
    }
}

/// Reads a JSON object. What its schema requires must be there, and what it does not know must not: a
/// misspelt field would otherwise be ignored silently.
pub(crate) fn from_json<T: DeserializeOwned + ToSchema>(bytes: &[u8]) -> Result<T, ApiError> {
    let whole: &RawValue = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
    let Ok(given) = serde_json::from_str::<Members>(whole.get()) else {
        return Err(ApiError::new(ErrorCode::NotAnObject, "the body must be a JSON object"));
    };
    for (field, value) in &given.0 {
        if let Err(fault @ JsonFault::TooDeep { .. }) = json::check(value.get()) {
            return Err(ApiError::new(ErrorCode::TooDeep, format!("`{field}`: {fault}")).at(field));
        }
    }
    check_fields::<T>(&given)?;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let field = error.path().to_string();
        ApiError::new(ErrorCode::WrongType, format!("`{field}`: {}", error.into_inner())).at(&field)
    })
}

/// The members of a JSON object, in their order, also those of one name.
struct Members<'a>(Vec<(String, &'a RawValue)>);

impl<'de> Deserialize<'de> for Members<'de> {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(MembersVisitor)
    }
}

struct MembersVisitor;

impl<'de> Visitor<'de> for MembersVisitor {
    type Value = Members<'de>;

    fn expecting(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members<'de>, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(Members(members))
    }
}

pub(crate) fn malformed(error: &serde_json::Error) -> ApiError {
    ApiError::new(ErrorCode::MalformedJson, format!("the body is not JSON: {error}"))
}

fn check_fields<T: PartialSchema>(Members(given): &Members<'_>) -> Result<(), ApiError> {
    let given: Vec<&String> = given.iter().map(|(name, _)| name).collect();
    let RefOr::T(Schema::Object(Object { properties, required, .. })) = T::schema() else { return Ok(()) };
    if let Some(field) = given.iter().find(|field| !properties.contains_key(field.as_str())) {
        let known: Vec<&str> = properties.keys().map(String::as_str).collect();
        let message = format!("`{field}` is no field of this request; these are: {}", known.join(", "));
        return Err(ApiError::new(ErrorCode::UnknownField, message).at(field));
    }
    let mut seen = HashSet::new();
    if let Some(field) = given.iter().find(|field| !seen.insert(*field)) {
        return Err(ApiError::new(ErrorCode::DuplicateField, format!("`{field}` is given twice")).at(field));
    }
    match required.iter().find(|field| !given.contains(field)) {
        Some(field) => Err(missing(field)),
        None => Ok(()),
    }
}

pub(crate) fn missing(field: &str) -> ApiError {
    ApiError::new(ErrorCode::MissingField, format!("`{field}` is missing")).at(field)
}

/// Tells `null` from absence: `Some(None)` from `None`.
pub(crate) fn given<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
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
