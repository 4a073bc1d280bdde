//! How an error looks: `{"success": false, "error": {"code", "message", "field"?, "id"?}}`.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use fanfare_domain::event::{EventFault, FaultCode};
use fanfare_store::StoreError;
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

/// What went wrong, for programs: a code does not change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs)] // `meaning` says it
pub enum ErrorCode {
    MalformedJson,
    NotAnObject,
    TooDeep,
    IncompleteBody,
    InvalidQuery,
    InvalidPath,
    MissingApplication,
    MissingKey,
    InvalidKey,
    Forbidden,
    NotFound,
    MethodNotAllowed,
    RotationUnderWay,
    EndpointDisabled,
    NotResendable,
    ReplayEnded,
    AmbiguousUrl,
    EventErased,
    EventUnderWay,
    TooManyWebhooks,
    BodyTooSlow,
    BodyTooLarge,
    UnsupportedContentType,
    MissingField,
    UnknownField,
    DuplicateField,
    WrongType,
    FieldTooLong,
    InvalidField,
    InvalidUrl,
    InvalidBatch,
    InfiniteNumber,
    UnknownEventType,
    TooManyTests,
    TooManyReplays,
    TooManyEvents,
    InternalError,
    ApplicationUnavailable,
    BrokerUnavailable,
    BrokerRefused,
    OutcomeUnknown,
    DatabaseUnavailable,
}

impl ErrorCode {
    /// All of them.
    pub const ALL: [Self; 42] = [
        Self::MalformedJson,
        Self::NotAnObject,
        Self::TooDeep,
        Self::IncompleteBody,
        Self::InvalidQuery,
        Self::InvalidPath,
        Self::MissingApplication,
        Self::MissingKey,
        Self::InvalidKey,
        Self::Forbidden,
        Self::NotFound,
        Self::MethodNotAllowed,
        Self::RotationUnderWay,
        Self::EndpointDisabled,
        Self::NotResendable,
        Self::ReplayEnded,
        Self::AmbiguousUrl,
        Self::EventErased,
        Self::EventUnderWay,
        Self::TooManyWebhooks,
        Self::BodyTooSlow,
        Self::BodyTooLarge,
        Self::UnsupportedContentType,
        Self::MissingField,
        Self::UnknownField,
        Self::DuplicateField,
        Self::WrongType,
        Self::FieldTooLong,
        Self::InvalidField,
        Self::InvalidUrl,
        Self::InvalidBatch,
        Self::InfiniteNumber,
        Self::UnknownEventType,
        Self::TooManyTests,
        Self::TooManyReplays,
        Self::TooManyEvents,
        Self::InternalError,
        Self::ApplicationUnavailable,
        Self::BrokerUnavailable,
        Self::BrokerRefused,
        Self::OutcomeUnknown,
        Self::DatabaseUnavailable,
    ];

    /// The status of an answer with it, and what it means.
    pub fn meaning(self) -> (u16, &'static str) {
        match self {
            Self::MalformedJson => (400, "the body is not JSON"),
            Self::NotAnObject => (400, "the body is JSON, but not an object"),
            Self::TooDeep => (400, "arrays and objects are nested deeper than 100 levels"),
            Self::IncompleteBody => (400, "the body ended before it was complete"),
            Self::InvalidQuery => (400, "a parameter of the query is unknown, or cannot be read"),
            Self::InvalidPath => (400, "the path cannot be read"),
            Self::MissingApplication => (400, "the key belongs to no application, and the query names none"),
            Self::MissingKey => (401, "there is no API key"),
            Self::InvalidKey => (401, "the API key is not valid"),
            Self::Forbidden => (403, "the key may not do this"),
            Self::NotFound => (404, "there is nothing of this id or path, or not for this key"),
            Self::MethodNotAllowed => (405, "the path has other methods"),
            Self::RotationUnderWay => (409, "the secret before the current one still signs, too"),
            Self::EndpointDisabled => (409, "the endpoint is disabled"),
            Self::NotResendable => (409, "the delivery is being sent at this moment"),
            Self::ReplayEnded => (409, "the replay is done or cancelled"),
            Self::AmbiguousUrl => (409, "several endpoints have this URL: name one by its id"),
            Self::EventErased => (409, "the event has been erased"),
            Self::EventUnderWay => (409, "the event is being sent at this moment"),
            Self::TooManyWebhooks => (409, "the application has as many webhooks as it may"),
            Self::BodyTooSlow => (408, "the body came too slowly"),
            Self::BodyTooLarge => (413, "the body has more bytes than are allowed"),
            Self::UnsupportedContentType => (415, "the body is not application/json"),
            Self::MissingField => (422, "a field that is required is missing"),
            Self::UnknownField => (422, "there is no such field"),
            Self::DuplicateField => (422, "a field is given twice"),
            Self::WrongType => (422, "a field has another JSON type"),
            Self::FieldTooLong => (422, "a field is too long"),
            Self::InvalidField => (422, "a field has a value that cannot be taken"),
            Self::InvalidUrl => (422, "an endpoint cannot have this URL"),
            Self::InvalidBatch => (422, "a list has none, or more entries than are allowed"),
            Self::InfiniteNumber => (422, "a number is beyond what a receiver's JSON parser can read"),
            Self::UnknownEventType => (422, "the event type is not described"),
            Self::TooManyTests => (429, "as many tests of the application are under way as may be"),
            Self::TooManyReplays => (429, "as many replays of the application are under way as may be"),
            Self::TooManyEvents => (429, "the application publishes more in a second than it may"),
            Self::InternalError => (500, "a fault of Fanfare, which has been logged"),
            Self::ApplicationUnavailable => (503, "the application's settings cannot be read at the moment"),
            Self::BrokerUnavailable => (503, "no events can be taken at the moment"),
            Self::BrokerRefused => (503, "the broker refused the event"),
            Self::OutcomeUnknown => (503, "the event may have been taken: send it again under the id in the answer"),
            Self::DatabaseUnavailable => (503, "the database does not answer at the moment"),
        }
    }

    /// The codes of an OpenAPI document, as a table in Markdown.
    pub(crate) fn table() -> String {
        let row = |code: &Self| {
            let (status, meaning) = code.meaning();
            format!("| `{}` | {status} | {meaning} |\n", code.as_text())
        };
        let rows: String = Self::ALL.iter().map(row).collect();
        format!("| code | status | meaning |\n|---|---|---|\n{rows}")
    }

    fn as_text(self) -> String {
        serde_json::to_value(self).ok().and_then(|code| code.as_str().map(str::to_owned)).unwrap_or_default()
    }
}

impl From<FaultCode> for ErrorCode {
    fn from(code: FaultCode) -> Self {
        match code {
            FaultCode::MalformedJson => Self::MalformedJson,
            FaultCode::NotAnObject => Self::NotAnObject,
            FaultCode::MissingField => Self::MissingField,
            FaultCode::UnknownField => Self::UnknownField,
            FaultCode::DuplicateField => Self::DuplicateField,
            FaultCode::WrongType => Self::WrongType,
            FaultCode::FieldTooLong => Self::FieldTooLong,
            FaultCode::InvalidField => Self::InvalidField,
            FaultCode::TooDeep => Self::TooDeep,
            FaultCode::InfiniteNumber => Self::InfiniteNumber,
            FaultCode::UnknownEventType => Self::UnknownEventType,
        }
    }
}

/// An error that a caller gets.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ApiError {
    code: ErrorCode,
    /// For people: what was wrong, and what to do.
    message: String,
    /// The field at fault, where it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    field: Option<String>,
    /// The id under which an event is to be sent again.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[serde(skip)]
    retry_after: Option<u32>,
}

/// The answer to what could not be done.
#[derive(Serialize, ToSchema)]
pub struct Failure {
    #[schema(example = false)]
    success: bool,
    error: ApiError,
}

/// The answers with an error that every route may give.
#[derive(IntoResponses)]
#[allow(dead_code)] // for the OpenAPI document
pub enum Failures {
    /// What was wrong with the request.
    #[response(status = "4XX")]
    Request(#[to_schema] Failure),
    /// Why it cannot be done now; `Retry-After` says when to try again.
    #[response(status = "5XX")]
    Service(#[to_schema] Failure),
}

impl ApiError {
    /// An error with its code.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None, id: None, retry_after: None }
    }

    /// A value that cannot be taken.
    pub fn invalid(field: &str, message: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidField, format!("`{field}` {message}")).at(field)
    }

    /// Something that there is not, or not for this caller.
    pub fn not_found(what: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message).at(what)
    }

    /// Whether it says that there is no such thing.
    pub(crate) fn is_not_found(&self) -> bool {
        self.code == ErrorCode::NotFound
    }

    /// The application's settings are not such as this process can read: its log says why.
    pub fn unreadable_application() -> Self {
        let message = "the application's settings cannot be read; the log of this process says why";
        Self::new(ErrorCode::ApplicationUnavailable, message).retry_after(30)
    }

    /// Names the field at fault.
    #[must_use]
    pub fn at(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }

    /// Puts the field at fault into its place in a list.
    #[must_use]
    pub(crate) fn within(mut self, place: &str) -> Self {
        self.field = Some(match self.field {
            Some(field) => format!("{place}.{field}"),
            None => place.to_owned(),
        });
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
}

impl From<EventFault> for ApiError {
    fn from(fault: EventFault) -> Self {
        let error = Self::new(fault.code.into(), fault.to_string());
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
            let message = "the database is not available; try again";
            return Self::new(ErrorCode::DatabaseUnavailable, message).retry_after(5);
        }
        tracing::error!(%error, "a request failed");
        Self::new(ErrorCode::InternalError, "this is our fault, and has been logged")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let (status, _) = self.code.meaning();
        let status = StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let retry_after = self.retry_after;
        let mut response = (status, Json(Failure { success: false, error: self })).into_response();
        if let Some(seconds) = retry_after {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if status == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response
    }
}
