//! Bodies of requests: limits of size and time, and parsing by schema.

use std::{collections::HashSet, time::Duration};

use axum::{
    body::{Body, Bytes, HttpBody},
    extract::{FromRequest, Request},
    http::{HeaderMap, header},
};
use bytes::BytesMut;
use fanfare_domain::json::{self, JsonFault};
use http_body_util::BodyExt;
use serde::{
    Deserialize,
    de::{DeserializeOwned, MapAccess, Visitor},
};
use serde_json::{Value, value::RawValue};
use tokio::time::{Instant, timeout_at};
use utoipa::{
    PartialSchema, ToSchema,
    openapi::{RefOr, Schema, schema::Object},
};

use crate::http::error::{ApiError, ErrorCode};

/// The largest body of a management request, in bytes.
pub const MAX_MANAGEMENT_BODY: usize = 512 * 1024;

/// The time for a body: [`BODY_TIME`], and a second more for each [`BYTES_PER_SECOND`] received. A slower client would
/// occupy a connection for too long.
const BODY_TIME: Duration = Duration::from_secs(15);
const BYTES_PER_SECOND: usize = 16 * 1024;

/// Limits in bytes and time to [`discard`] the rest of a refused body.
const MAX_DISCARDED: usize = 16 * 1024 * 1024;
const DISCARD_TIME: Duration = Duration::from_secs(1);

/// Reads a JSON body of at most `max_bytes`.
///
/// # Errors
/// 415 for another content type, 413 for a larger body, 408 for a body that arrives too slowly, 400 for an incomplete
/// body.
pub async fn read_body(headers: &HeaderMap, body: Body, max_bytes: usize) -> Result<Bytes, ApiError> {
    if media_type(headers) != "application/json" {
        let message = "send JSON with Content-Type: application/json";
        return Err(ApiError::new(ErrorCode::UnsupportedContentType, message));
    }
    read_bytes(body, max_bytes).await
}

/// The content type of a request in lower case, without parameters. Empty without a content type.
pub(crate) fn media_type(headers: &HeaderMap) -> String {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Reads a body of at most `max_bytes`, of any content type.
///
/// # Errors
/// 413 for a larger body, 408 for a body that arrives too slowly, 400 for an incomplete body.
pub async fn read_bytes(mut body: Body, max_bytes: usize) -> Result<Bytes, ApiError> {
    let mut bytes = BytesMut::new();
    let started = Instant::now();
    let too_slow = |_| {
        let message = "the body arrived too slowly: send the request again";
        ApiError::new(ErrorCode::BodyTooSlow, message)
    };
    // The announced length, before anything is read.
    if body.size_hint().lower() > max_bytes as u64 {
        return Err(too_large(body, max_bytes).await);
    }
    loop {
        let deadline = started + BODY_TIME + Duration::from_secs((bytes.len() / BYTES_PER_SECOND) as u64);
        let Some(frame) = timeout_at(deadline, body.frame()).await.map_err(too_slow)? else { break };
        let incomplete = |_| ApiError::new(ErrorCode::IncompleteBody, "the body is incomplete: send the request again");
        let data = frame.map_err(incomplete)?.into_data().unwrap_or_default();
        if bytes.len() + data.len() > max_bytes {
            return Err(too_large(body, max_bytes).await);
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}

async fn too_large(body: Body, max_bytes: usize) -> ApiError {
    discard(body).await;
    ApiError::new(ErrorCode::BodyTooLarge, format!("the body is larger than {max_bytes} bytes: send less data"))
}

/// Reads and drops the rest of a refused body, within limits. If the connection closes while the client still sends,
/// the client loses the answer.
pub async fn discard(mut body: Body) {
    let reading = async {
        let mut left = MAX_DISCARDED;
        while let Some(Ok(frame)) = body.frame().await {
            left = left.saturating_sub(frame.data_ref().map_or(0, Bytes::len));
            if left == 0 {
                return;
            }
        }
    };
    let _ = tokio::time::timeout(DISCARD_TIME, reading).await;
}

/// The JSON body of a management request, checked against the schema of `T`.
pub struct JsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + ToSchema> FromRequest<S> for JsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        from_json(&read_body(&parts.headers, body, MAX_MANAGEMENT_BODY).await?).map(Self)
    }
}

/// The optional JSON body of a management request. Without a body, the default of `T`.
pub struct OptionalJsonBody<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + ToSchema + Default> FromRequest<S> for OptionalJsonBody<T> {
    type Rejection = ApiError;

    async fn from_request(request: Request, state: &S) -> Result<Self, ApiError> {
        if request.body().is_end_stream() {
            return Ok(Self(T::default()));
        }
        JsonBody::from_request(request, state).await.map(|JsonBody(body)| Self(body))
    }
}

/// The unparsed body of a management request.
pub struct RawJson(pub Bytes);

impl<S: Send + Sync> FromRequest<S> for RawJson {
    type Rejection = ApiError;

    async fn from_request(request: Request, _: &S) -> Result<Self, ApiError> {
        let (parts, body) = request.into_parts();
        read_body(&parts.headers, body, MAX_MANAGEMENT_BODY).await.map(Self)
    }
}

/// Parses the JSON object of a page's form, like the body of the same request to the API.
///
/// # Errors
/// The errors of a body: a missing, unknown or invalid field.
pub fn from_value<T: DeserializeOwned + ToSchema>(asked: &Value) -> Result<T, ApiError> {
    from_json(asked.to_string().as_bytes())
}

/// Parses a JSON object by the schema of `T`. Required fields must be present. Unknown fields are errors: otherwise a
/// misspelt field would be ignored silently.
pub(crate) fn from_json<T: DeserializeOwned + ToSchema>(bytes: &[u8]) -> Result<T, ApiError> {
    let whole: &RawValue = serde_json::from_slice(bytes).map_err(|error| malformed(&error))?;
    let Ok(members) = serde_json::from_str::<Members>(whole.get()) else {
        return Err(ApiError::new(ErrorCode::NotAnObject, "the body must be a JSON object"));
    };
    for (field, value) in &members.0 {
        if let Err(fault @ JsonFault::TooDeep { .. }) = json::check(value.get()) {
            return Err(ApiError::new(ErrorCode::TooDeep, format!("`{field}`: {fault}")).at(field));
        }
    }
    check_fields::<T>(&members)?;
    let mut deserializer = serde_json::Deserializer::from_slice(bytes);
    serde_path_to_error::deserialize(&mut deserializer).map_err(|error| {
        let field = error.path().to_string();
        ApiError::new(ErrorCode::WrongType, format!("`{field}`: {}", error.into_inner())).at(&field)
    })
}

/// The members of a JSON object in order, with duplicate names.
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

fn check_fields<T: PartialSchema>(Members(members): &Members<'_>) -> Result<(), ApiError> {
    let names: Vec<&String> = members.iter().map(|(name, _)| name).collect();
    let RefOr::T(Schema::Object(Object { properties, required, .. })) = T::schema() else { return Ok(()) };
    if let Some(field) = names.iter().find(|field| !properties.contains_key(field.as_str())) {
        let known: Vec<&str> = properties.keys().map(String::as_str).collect();
        let message = format!("`{field}` is no field of this request: use {}", known.join(", "));
        return Err(ApiError::new(ErrorCode::UnknownField, message).at(field));
    }
    let mut seen = HashSet::new();
    if let Some(field) = names.iter().find(|field| !seen.insert(*field)) {
        return Err(ApiError::new(ErrorCode::DuplicateField, format!("`{field}` is given twice")).at(field));
    }
    match required.iter().find(|field| !names.contains(field)) {
        Some(field) => Err(missing(field)),
        None => Ok(()),
    }
}

pub(crate) fn missing(field: &str) -> ApiError {
    ApiError::new(ErrorCode::MissingField, format!("`{field}` is missing")).at(field)
}

/// Deserializes any JSON value: reads `null` as data. serde would read `null` as an absent field.
pub(crate) fn even_null<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<Option<Box<RawValue>>, D::Error> {
    Box::deserialize(deserializer).map(Some)
}

/// Refuses `null`. With `serde(default)`, an absent field is `None`.
pub(crate) fn not_null<'de, D, T>(deserializer: D) -> Result<Option<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    T::deserialize(deserializer).map(Some)
}

/// Parses `null` as `Some(None)`. With `serde(default)`, an absent field is `None`.
pub(crate) fn nullable<'de, D, T>(deserializer: D) -> Result<Option<Option<T>>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: Deserialize<'de>,
{
    Option::deserialize(deserializer).map(Some)
}
