//! Answers without a route.

use crate::http::error::{ApiError, ErrorCode};

/// Answers a request for an unknown route.
pub async fn not_found() -> ApiError {
    ApiError::not_found("route", "unknown route: see the description of the API at /api/v1/openapi.json or /docs")
}

/// Answers a request with a method that the route does not support.
pub async fn method_not_allowed() -> ApiError {
    ApiError::new(ErrorCode::MethodNotAllowed, "this route does not support the method: see /docs")
}
