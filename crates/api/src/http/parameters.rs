//! The parameters of path and query, and the parsing of values in path, query and body.

use std::str::FromStr;

use axum::{
    extract::{FromRequestParts, rejection::PathRejection},
    http::request::Parts,
};
use fanfare_domain::{display_name, ids::InvalidId};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use url::form_urlencoded;

use crate::http::error::{ApiError, ErrorCode};

/// The query parameter for the application. An admin key belongs to no application.
pub const APPLICATION: &str = "application";

/// The parameters in the path.
pub struct Path<T>(pub T);

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = ApiError;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self, ApiError> {
        let path = axum::extract::Path::from_request_parts(parts, state).await;
        let invalid = |rejection: PathRejection| ApiError::new(ErrorCode::InvalidPath, rejection.body_text());
        path.map(|axum::extract::Path(value)| Self(value)).map_err(invalid)
    }
}

/// The parameters in the query, except `application`. Unknown parameters are errors: otherwise a misspelt filter would
/// find everything.
pub struct Query<T>(pub T);

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

/// Parses an id in a path, query or body.
pub fn id<T: FromStr<Err = InvalidId>>(field: &str, text: &str) -> Result<T, ApiError> {
    text.parse().map_err(|error| ApiError::invalid(field, format!("is not valid: {error}")))
}

/// Checks a display name.
pub fn check_display_name(field: &str, text: &str) -> Result<(), ApiError> {
    display_name::check_display_name(text).map_err(|fault| ApiError::invalid(field, fault))
}

/// Parses a time in a query or body. A time before 1970 becomes the first moment of 1970: nothing here is older, and
/// PostgreSQL has no time before 4714 BC.
pub fn timestamp(field: &str, text: &str) -> Result<Timestamp, ApiError> {
    let fault = || ApiError::invalid(field, "must be an RFC 3339 time with an offset, such as 2026-06-18T12:00:00Z");
    text.parse().map(|at: Timestamp| at.max(Timestamp::UNIX_EPOCH)).map_err(|_| fault())
}
