//! Who calls, for which application, and what the body says.

use std::error::Error;

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{
        FromRequestParts,
        rejection::{PathRejection, QueryRejection},
    },
    http::{HeaderMap, header},
};
use fanfare_domain::{
    access::{Caller, Role},
    ids::ApplicationId,
};
use fanfare_store::Directory;
use http_body_util::LengthLimitError;
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::ApiError;

/// Bytes of a management request.
const MAX_MANAGEMENT_BODY: usize = 64 * 1024;

/// The query of a request; one that cannot be read is an error like any other.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Query), rejection(ApiError))]
pub struct Query<T>(pub T);

/// The parameters in a request's path.
#[derive(FromRequestParts)]
#[from_request(via(axum::extract::Path), rejection(ApiError))]
pub(crate) struct Path<T>(pub(crate) T);

impl From<QueryRejection> for ApiError {
    fn from(rejection: QueryRejection) -> Self {
        Self::new(400, "invalid_query", rejection.body_text())
    }
}

impl From<PathRejection> for ApiError {
    fn from(rejection: PathRejection) -> Self {
        Self::new(400, "invalid_path", rejection.body_text())
    }
}

/// The query by which an admin key, which is bound to none, says which application it means.
#[derive(Debug, Deserialize)]
pub struct ApplicationQuery {
    application: Option<String>,
}

/// Finds out who calls, by `Authorization: Bearer <key>`, and whether the key may do what takes a role.
///
/// # Errors
/// 401 without a valid key, 403 where the key has another role.
pub fn authenticate(headers: &HeaderMap, directory: &Directory, roles: &[Role]) -> Result<Caller, ApiError> {
    let missing = || ApiError::new(401, "missing_key", "give an API key: Authorization: Bearer <key>");
    let header = headers.get(header::AUTHORIZATION).ok_or_else(missing)?;
    let (scheme, key) = header.to_str().ok().and_then(|text| text.split_once(' ')).ok_or_else(missing)?;
    if !scheme.eq_ignore_ascii_case("bearer") {
        return Err(missing());
    }
    let caller = directory
        .snapshot()
        .keys
        .authenticate(key.trim())
        .ok_or_else(|| ApiError::new(401, "invalid_key", "this API key is not valid"))?;
    if !roles.contains(&caller.role) {
        let needed: Vec<&str> = roles.iter().map(|role| role.as_str()).collect();
        let message =
            format!("this takes a key with the role {}; this one has {}", needed.join(" or "), caller.role.as_str());
        return Err(ApiError::new(403, "forbidden", message));
    }
    Ok(caller)
}

impl ApplicationQuery {
    /// The application that the request is about: the key's, or the one that an admin names.
    ///
    /// # Errors
    /// 400 where an admin names none, 403 where a bound key names another.
    pub fn of(&self, caller: &Caller) -> Result<ApplicationId, ApiError> {
        let named = self
            .application
            .as_deref()
            .map(|text| {
                text.parse::<ApplicationId>()
                    .map_err(|error| ApiError::invalid("application", format!("is not valid: {error}")))
            })
            .transpose()?;
        match (caller.application, named) {
            (Some(own), Some(named)) if own != named => {
                Err(ApiError::new(403, "forbidden", "this key belongs to another application").at("application"))
            }
            (Some(own), _) => Ok(own),
            (None, Some(named)) => Ok(named),
            (None, None) => Err(ApiError::new(
                400,
                "missing_application",
                "this key belongs to no application: name one with ?application=app_…",
            )
            .at("application")),
        }
    }
}

/// Reads a JSON body of at most so many bytes.
///
/// # Errors
/// 415 for another content type, 413 for more bytes, 400 where the body breaks off.
pub async fn read_body(headers: &HeaderMap, body: Body, max_bytes: usize) -> Result<Bytes, ApiError> {
    let content_type = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let media_type = content_type.split(';').next().unwrap_or_default().trim();
    if !media_type.eq_ignore_ascii_case("application/json") {
        return Err(ApiError::new(415, "unsupported_content_type", "send JSON with Content-Type: application/json"));
    }
    to_bytes(body, max_bytes).await.map_err(|error| {
        if error.source().is_some_and(|source| source.is::<LengthLimitError>()) {
            return ApiError::new(
                413,
                "body_too_large",
                format!("the body has more than the {max_bytes} bytes that are allowed"),
            );
        }
        ApiError::new(400, "incomplete_body", "the body ended before it was complete")
    })
}

/// The fields of a management request, taken one by one. What is left over is an error.
pub(crate) struct Fields(Map<String, Value>);

impl Fields {
    pub(crate) async fn read(headers: &HeaderMap, body: Body) -> Result<Self, ApiError> {
        let bytes = read_body(headers, body, MAX_MANAGEMENT_BODY).await?;
        let value: Value = serde_json::from_slice(&bytes)
            .map_err(|error| ApiError::new(400, "malformed_json", format!("the body is not JSON: {error}")))?;
        match value {
            Value::Object(fields) => Ok(Self(fields)),
            _ => Err(ApiError::new(400, "not_an_object", "the body must be a JSON object")),
        }
    }

    /// A text, if it is given.
    pub(crate) fn text(&mut self, field: &str) -> Result<Option<String>, ApiError> {
        match self.0.remove(field) {
            None => Ok(None),
            Some(Value::String(text)) => Ok(Some(text)),
            Some(_) => Err(wrong_type(field, "a string")),
        }
    }

    /// A text that must be given.
    pub(crate) fn required_text(&mut self, field: &str) -> Result<String, ApiError> {
        self.text(field)?.ok_or_else(|| missing(field))
    }

    /// A list of texts, if it is given.
    pub(crate) fn texts(&mut self, field: &str) -> Result<Option<Vec<String>>, ApiError> {
        let wrong = || wrong_type(field, "a list of strings");
        let list = match self.0.remove(field) {
            None => return Ok(None),
            Some(Value::Array(list)) => list,
            Some(_) => return Err(wrong()),
        };
        let text = |value| match value {
            Value::String(text) => Ok(text),
            _ => Err(wrong()),
        };
        list.into_iter().map(text).collect::<Result<Vec<_>, _>>().map(Some)
    }

    /// A number of milliseconds, or `null` for none, if it is given.
    pub(crate) fn milliseconds(&mut self, field: &str) -> Result<Option<Option<u64>>, ApiError> {
        match self.0.remove(field) {
            None => Ok(None),
            Some(Value::Null) => Ok(Some(None)),
            Some(value) => {
                value.as_u64().map(|number| Some(Some(number))).ok_or_else(|| wrong_type(field, "a whole number"))
            }
        }
    }

    /// Refuses what was not asked for: a misspelt field would otherwise be ignored silently.
    pub(crate) fn finish(self) -> Result<(), ApiError> {
        match self.0.keys().next() {
            None => Ok(()),
            Some(field) => {
                Err(ApiError::new(422, "unknown_field", format!("`{field}` is no field of this request")).at(field))
            }
        }
    }
}

pub(crate) fn missing(field: &str) -> ApiError {
    ApiError::new(422, "missing_field", format!("`{field}` is missing")).at(field)
}

fn wrong_type(field: &str, expected: &str) -> ApiError {
    ApiError::new(422, "wrong_type", format!("`{field}` must be {expected}")).at(field)
}

/// Items on one page of a list.
pub(crate) fn page_size(asked: Option<usize>) -> Result<usize, ApiError> {
    const MOST: usize = 100;
    match asked.unwrap_or(50) {
        size @ 1..=MOST => Ok(size),
        _ => Err(ApiError::invalid("limit", format!("must be between 1 and {MOST}"))),
    }
}

/// An id in a path or query.
pub(crate) fn id<T: std::str::FromStr<Err = fanfare_domain::ids::NotAnId>>(
    field: &str,
    text: &str,
) -> Result<T, ApiError> {
    text.parse().map_err(|error| ApiError::invalid(field, format!("is not valid: {error}")))
}
