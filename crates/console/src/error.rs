//! How an error looks: `{"success": false, "error": {"code", "message", "field"?}}`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use fanfare_domain::event::{EventFault, FaultCode};
use fanfare_store::StoreError;
use serde_json::{Map, Value};

/// An error that a caller gets. The code is for programs and does not change; the message is for people.
#[derive(Debug)]
pub struct ApiError {
    status: StatusCode,
    code: &'static str,
    message: String,
    field: Option<String>,
    retry_after: Option<u32>,
    id: Option<String>,
}

impl ApiError {
    /// An error with a status and a code.
    pub fn new(status: u16, code: &'static str, message: impl Into<String>) -> Self {
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        Self { status, code, message: message.into(), field: None, retry_after: None, id: None }
    }

    /// A value that cannot be taken.
    pub fn invalid(field: &str, message: impl std::fmt::Display) -> Self {
        Self::new(422, "invalid_field", format!("`{field}` {message}")).at(field)
    }

    /// Something that there is not, or not for this caller.
    pub fn not_found(what: &str, message: impl Into<String>) -> Self {
        Self::new(404, "not_found", message).at(what)
    }

    /// Names the field at fault.
    #[must_use]
    pub fn at(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }

    /// Tells when to try again, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Tells the id of the event that the request was about: sent again under it, it is the same event.
    #[must_use]
    pub fn about(mut self, id: impl ToString) -> Self {
        self.id = Some(id.to_string());
        self
    }

    /// The object that stands under `error`.
    pub fn as_json(&self) -> Value {
        let mut error = Map::new();
        error.insert("code".to_owned(), self.code.into());
        error.insert("message".to_owned(), self.message.clone().into());
        for (name, value) in [("field", &self.field), ("id", &self.id)] {
            if let Some(value) = value {
                error.insert(name.to_owned(), value.clone().into());
            }
        }
        Value::Object(error)
    }
}

impl From<EventFault> for ApiError {
    fn from(fault: EventFault) -> Self {
        let status = match fault.code {
            FaultCode::MalformedJson | FaultCode::NotAnObject | FaultCode::TooDeep => 400,
            _ => 422,
        };
        let error = Self::new(status, fault.code.as_str(), fault.to_string());
        match &fault.field {
            Some(field) => error.at(field),
            None => error,
        }
    }
}

impl From<StoreError> for ApiError {
    fn from(error: StoreError) -> Self {
        if error.is_transient() {
            tracing::warn!(%error, "a request could not be served");
            return Self::new(503, "database_unavailable", "the database is not available; try again").retry_after(5);
        }
        tracing::error!(%error, "a request failed");
        Self::new(500, "internal_error", "this is our fault, and has been logged")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let body = serde_json::json!({ "success": false, "error": self.as_json() });
        let mut response = (self.status, Json(body)).into_response();
        if let Some(seconds) = self.retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if self.status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
