//! An error as a page.

use askama::Template;
use axum::{
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::{Html, IntoResponse, Response},
};
use fanfare_api::http::error::{ApiError, ErrorCode};
use fanfare_domain::access::session::Face;

use crate::{
    frame::{Frame, bare::Bare, marks::filters, respond::page_with},
    session::visitor::{LIVE, Visitor},
};

/// The error of a page. The guard shows the error within the frame of the visitor.
#[derive(Debug, Clone)]
pub(crate) struct Fault(ApiError);

impl Fault {
    /// A template that cannot be rendered.
    pub(crate) fn of_template(error: askama::Error) -> Self {
        tracing::error!(%error, "a page cannot be rendered");
        Self(ApiError::new(ErrorCode::InternalError, "internal fault, logged: report the page to the operator"))
    }

    /// The page of the error.
    pub(crate) fn into_page(self, visitor: &Visitor) -> Response {
        let status = self.0.status();
        let (title, advice) = words(&self.0);
        let page = FaultPage { frame: Frame::new(visitor, title), message: &self.0.message, advice };
        let response = page_with(status, visitor, &page).unwrap_or_else(|fault| fault.0.into_response());
        self.with_retry_after(response)
    }

    fn with_retry_after(&self, mut response: Response) -> Response {
        let is_brief = self.0.status() == StatusCode::SERVICE_UNAVAILABLE;
        if let Some(seconds) = self.0.retry_after.or(is_brief.then_some(5)) {
            response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        response
    }

    /// The page of the error, for a request whose session cannot be read.
    pub(crate) fn without_session(self, face: Face, headers: &HeaderMap) -> Response {
        let status = self.0.status();
        if headers.contains_key(LIVE) {
            return self.with_retry_after(status.into_response());
        }
        let (title, advice) = words(&self.0);
        let page = BareFault { bare: Bare::new(face, headers), title, message: &self.0.message, advice };
        let response = match page.render() {
            Ok(page) => (status, Html(page)).into_response(),
            Err(_) => status.into_response(),
        };
        self.with_retry_after(response)
    }
}

/// Title and advice of an error's page.
fn words(error: &ApiError) -> (&'static str, &'static str) {
    match error.status() {
        StatusCode::NOT_FOUND => (
            "Not found",
            "The event may be erased or older than the retention, or the address belongs to another application.",
        ),
        StatusCode::FORBIDDEN => ("Not permitted", "Nothing was changed."),
        StatusCode::SERVICE_UNAVAILABLE if error.code == ErrorCode::DatabaseUnavailable => (
            "The database is away",
            "Events are still accepted and kept. Deliveries wait. Open the page again in a few seconds.",
        ),
        StatusCode::SERVICE_UNAVAILABLE => ("Not available now", "Try again in a few seconds."),
        StatusCode::TOO_MANY_REQUESTS => ("Too many requests", "Wait a few seconds, and try again."),
        status if status.is_server_error() => ("A fault of Fanfare", "The log of ingest has the cause. Try again."),
        _ => ("The request was refused", "Nothing was changed. Go back, correct the form, and send the form again."),
    }
}

#[derive(Template)]
#[template(path = "frame/fault/fault.html")]
struct FaultPage<'a> {
    frame: Frame,
    message: &'a str,
    advice: &'static str,
}

#[derive(Template)]
#[template(path = "frame/fault/bare.html")]
struct BareFault<'a> {
    bare: Bare,
    title: &'static str,
    message: &'a str,
    advice: &'static str,
}

impl<E: Into<ApiError>> From<E> for Fault {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl IntoResponse for Fault {
    /// An empty answer that carries the error to the guard.
    fn into_response(self) -> Response {
        let mut response = self.0.status().into_response();
        response.extensions_mut().insert(self);
        response
    }
}
