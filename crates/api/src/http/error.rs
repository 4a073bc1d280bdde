//! The envelope of an error: `{"success": false, "error": {"code", "message", "field"?, "id"?}}`.

use std::time::Duration;

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use fanfare_domain::event::{EventFault, FaultCode};
use fanfare_store::StoreError;
use serde::Serialize;
use utoipa::{IntoResponses, ToSchema};

/// The code of an error, for programs. Codes are stable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
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
    NoFeed,
    NoDigest,
    FeedOnly,
    NotResendable,
    ReplayEnded,
    AmbiguousUrl,
    EventErased,
    EventUnderWay,
    EventDue,
    SettingsChanged,
    TooManyWebhooks,
    PlanInUse,
    PagesOff,
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
    DataMismatch,
    TooFarAhead,
    TooManyRequests,
    TooManyTests,
    TooManyReplays,
    TooManyEvents,
    QuotaExceeded,
    StorageQuotaExceeded,
    InternalError,
    ApplicationUnavailable,
    BrokerUnavailable,
    BrokerRefused,
    OutcomeUnknown,
    DatabaseUnavailable,
    EgressUnavailable,
    TokenUnavailable,
    Overloaded,
}

/// Longest descriptions of codes.
const NOT_RESENDABLE: &str =
    "the delivery is being sent or exists already, or the event is past its retention, delayed or cancelled";
const OTHER_CONTENT: &str = "the request does not take this content type: most requests take `application/json`";

impl ErrorCode {
    /// All codes, in the order of the API's documentation.
    pub const ALL: [Self; 57] = [
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
        Self::NoFeed,
        Self::NoDigest,
        Self::FeedOnly,
        Self::NotResendable,
        Self::ReplayEnded,
        Self::AmbiguousUrl,
        Self::EventErased,
        Self::EventUnderWay,
        Self::EventDue,
        Self::SettingsChanged,
        Self::TooManyWebhooks,
        Self::PlanInUse,
        Self::PagesOff,
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
        Self::DataMismatch,
        Self::TooFarAhead,
        Self::TooManyRequests,
        Self::TooManyTests,
        Self::TooManyReplays,
        Self::TooManyEvents,
        Self::QuotaExceeded,
        Self::StorageQuotaExceeded,
        Self::InternalError,
        Self::ApplicationUnavailable,
        Self::BrokerUnavailable,
        Self::BrokerRefused,
        Self::OutcomeUnknown,
        Self::DatabaseUnavailable,
        Self::EgressUnavailable,
        Self::TokenUnavailable,
        Self::Overloaded,
    ];

    /// The HTTP status of an answer with this code, and the description in the API's documentation.
    pub fn meaning(self) -> (u16, &'static str) {
        match self {
            Self::MalformedJson => (400, "the body is not JSON"),
            Self::NotAnObject => (400, "the body is not a JSON object"),
            Self::TooDeep => (400, "arrays and objects are nested deeper than 100 levels"),
            Self::IncompleteBody => (400, "the body is incomplete"),
            Self::InvalidQuery => (400, "a query parameter is unknown or invalid"),
            Self::InvalidPath => (400, "a path parameter is invalid"),
            Self::MissingApplication => (400, "a request with an admin key lacks the parameter `application`"),
            Self::MissingKey => (401, "the request has no API key"),
            Self::InvalidKey => (401, "the API key is unknown, expired or revoked"),
            Self::Forbidden => (403, "the role or the application of the key does not allow the request"),
            Self::NotFound => (404, "the path or the id is unknown, or belongs to another application"),
            Self::MethodNotAllowed => (405, "the path does not support the method"),
            Self::RotationUnderWay => (409, "the previous secret still signs: end the rotation first"),
            Self::EndpointDisabled => (409, "the webhook is disabled or deleted"),
            Self::NoFeed => (409, "the webhook has no feed"),
            Self::NoDigest => (409, "the webhook has no digests"),
            Self::FeedOnly => (409, "nothing is sent to the webhook: its receiver reads the feed"),
            Self::NotResendable => (409, NOT_RESENDABLE),
            Self::ReplayEnded => (409, "the replay is done or cancelled"),
            Self::AmbiguousUrl => (409, "several webhooks have this URL: select a webhook by `id`"),
            Self::EventErased => (409, "the event is erased"),
            Self::EventUnderWay => (409, "the event is being sent: try again later"),
            Self::EventDue => (409, "the event is due, or was never delayed: nothing is left to cancel"),
            Self::SettingsChanged => (409, "the authentication was changed meanwhile: send the request again"),
            Self::TooManyWebhooks => (409, "the application has the maximum number of webhooks"),
            Self::PlanInUse => (409, "applications are in the plan: give each another plan first, or none"),
            Self::PagesOff => (409, "Fanfare serves no web pages: the operator sets `FANFARE_CONSOLE_URL`"),
            Self::BodyTooSlow => (408, "the body arrived too slowly"),
            Self::BodyTooLarge => (413, "the body is too large"),
            Self::UnsupportedContentType => (415, OTHER_CONTENT),
            Self::MissingField => (422, "a required field is missing"),
            Self::UnknownField => (422, "a field is unknown"),
            Self::DuplicateField => (422, "a field is given twice"),
            Self::WrongType => (422, "a field has the wrong JSON type"),
            Self::FieldTooLong => (422, "a field is too long"),
            Self::InvalidField => (422, "a field has an invalid value"),
            Self::InvalidUrl => (422, "a webhook cannot have this URL"),
            Self::InvalidBatch => (422, "a list is empty or too long"),
            Self::InfiniteNumber => (422, "a number is beyond the range of receivers' JSON parsers"),
            Self::UnknownEventType => (422, "the event type is not described"),
            Self::DataMismatch => (422, "the data of the event does not fit the schema of its type"),
            Self::TooFarAhead => (422, "the time of delivery is too far ahead"),
            Self::TooManyRequests => (429, "the caller exceeds its share of the management API, or of the portal"),
            Self::TooManyTests => (429, "the application runs the maximum number of tests"),
            Self::TooManyReplays => (429, "the application has the maximum number of unfinished replays"),
            Self::TooManyEvents => (429, "the application exceeds its publish rate"),
            Self::QuotaExceeded => (429, "the application has published its quota of events of this UTC day"),
            Self::StorageQuotaExceeded => (429, "the application has stored its quota of bytes"),
            Self::InternalError => (500, "an internal fault of Fanfare, logged for the operator"),
            Self::ApplicationUnavailable => (503, "the settings of the application cannot be read now"),
            Self::BrokerUnavailable => (503, "the broker is unavailable: send the event again later"),
            Self::BrokerRefused => (503, "the broker refused the event: send the event again later"),
            Self::OutcomeUnknown => (503, "the event may be accepted: send the event again with the answer's `id`"),
            Self::Overloaded => (503, "the process is at its limit of memory: send the request again later"),
            Self::EgressUnavailable => (503, "Fanfare can make no connections now: test again later"),
            Self::TokenUnavailable => (503, "the token server of the webhook gives no token: test again later"),
            Self::DatabaseUnavailable => (503, "the database is unavailable: try again later"),
        }
    }

    /// A Markdown table of all codes, for the OpenAPI document.
    pub fn table() -> String {
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
            FaultCode::DataMismatch => Self::DataMismatch,
            FaultCode::TooFarAhead => Self::TooFarAhead,
        }
    }
}

/// The error of a request.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Error)]
pub struct ApiError {
    pub code: ErrorCode,
    /// The fault and the next step, for people.
    pub message: String,
    /// The field, parameter or header at fault.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub field: Option<String>,
    /// The `id` for publishing the event again.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub id: Option<String>,
    #[serde(skip)]
    pub retry_after: Option<u32>,
}

/// The answer to a failed request.
#[derive(Serialize, ToSchema)]
pub struct Failure {
    #[schema(example = false)]
    pub success: bool,
    pub error: ApiError,
}

/// Error responses of all routes.
#[derive(IntoResponses)]
pub enum Failures {
    /// The request is at fault. `error` says how to correct the request.
    #[response(status = "4XX")]
    Request(#[to_schema] Failure),
    /// Fanfare cannot serve the request now. `Retry-After`, if present, says when to try again.
    #[response(status = "5XX")]
    Service(#[to_schema] Failure),
}

impl ApiError {
    /// An error without a field, an id or `Retry-After`.
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self { code, message: message.into(), field: None, id: None, retry_after: None }
    }

    /// An invalid value. The message begins with the name of the field.
    pub fn invalid(field: &str, message: impl std::fmt::Display) -> Self {
        Self::new(ErrorCode::InvalidField, format!("`{field}` {message}")).at(field)
    }

    /// An unknown object, or an object of another application. `what` is the field at fault.
    pub fn not_found(what: &str, message: impl Into<String>) -> Self {
        Self::new(ErrorCode::NotFound, message).at(what)
    }

    /// True for an unknown object, or an object of another application.
    pub fn is_not_found(&self) -> bool {
        self.code == ErrorCode::NotFound
    }

    /// The HTTP status of the answer.
    pub fn status(&self) -> StatusCode {
        StatusCode::from_u16(self.code.meaning().0).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }

    /// An application with settings that this process cannot read. The log has the cause.
    pub fn unreadable_application() -> Self {
        let message = "the settings of the application cannot be read: the operator finds the cause in the log";
        Self::new(ErrorCode::ApplicationUnavailable, message).retry_after(30)
    }

    /// Sets the field at fault.
    #[must_use]
    pub fn at(mut self, field: &str) -> Self {
        self.field = Some(field.to_owned());
        self
    }

    /// Prefixes the field at fault with a position in a list.
    #[must_use]
    pub fn within(mut self, place: &str) -> Self {
        self.field = Some(match self.field {
            Some(field) => format!("{place}.{field}"),
            None => place.to_owned(),
        });
        self
    }

    /// Sets the header `Retry-After`, in seconds.
    #[must_use]
    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    /// Sets the header `Retry-After` to the seconds of a wait, rounded up.
    #[must_use]
    pub fn retry_in(self, wait: Duration) -> Self {
        let seconds = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
        self.retry_after(u32::try_from(seconds).unwrap_or(u32::MAX))
    }

    /// Sets the id of the published event. A second publish with the same id is the same event.
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
        if matches!(error, StoreError::Busy) {
            let message = "other requests of the application or admin key use all its connections: wait for answers";
            return Self::new(ErrorCode::TooManyRequests, message).retry_after(2);
        }
        if error.is_transient() {
            tracing::warn!(%error, "the database is unavailable for a request; the client may try again");
            let message = "the database is unavailable: try again later";
            return Self::new(ErrorCode::DatabaseUnavailable, message).retry_after(5);
        }
        tracing::error!(%error, "a request failed: the database refused a statement, or holds an unreadable value");
        Self::new(ErrorCode::InternalError, "internal fault, logged: report the request to the operator")
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let status = self.status();
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
