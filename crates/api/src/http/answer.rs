//! The envelope of an answer: `{"success": true, "data": …}`. A list adds `next`, the cursor of the next page.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use fanfare_domain::json;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::http::paging::PageSize;

/// Prepares a delivery's body for an answer. Replaces unpaired surrogates: strict parsers refuse an answer with an
/// unpaired surrogate.
pub(crate) fn readable(body: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json::readable(body).into_owned()).ok()
}

/// A successful answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Answer<T> {
    #[schema(example = true)]
    success: bool,
    /// The content.
    pub data: T,
}

/// A successful answer with status 201.
#[derive(Debug)]
pub struct Created<T>(pub T);

/// An answer with status 202.
pub struct Accepted<T>(pub T);

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T> {
    #[schema(example = true)]
    success: bool,
    /// The items.
    pub data: Vec<T>,
    /// `before` of the next page; `null` on the last page.
    pub next: Option<String>,
    /// The time back to which a bounded search looked. `next` goes on from there; absent when all was looked through.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub searched_until: Option<Timestamp>,
}

impl<T: Serialize> Answer<T> {
    /// An answer with status 200.
    pub fn of(data: T) -> Self {
        Self { success: true, data }
    }

    /// Replaces the status.
    pub fn with(self, status: StatusCode) -> Response {
        (status, self).into_response()
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

impl<T: Serialize> IntoResponse for Created<T> {
    fn into_response(self) -> Response {
        Answer::of(self.0).with(StatusCode::CREATED)
    }
}

impl<T: Serialize> IntoResponse for Accepted<T> {
    fn into_response(self) -> Response {
        Answer::of(self.0).with(StatusCode::ACCEPTED)
    }
}

impl<T: Serialize> Page<T> {
    /// Creates a page from at most [`PageSize::rows`] items. Drops an item beyond the page's size: another page
    /// follows, and `next` is the `key` of the last item on this page.
    pub(crate) fn of(mut data: Vec<T>, size: PageSize, key: impl Fn(&T) -> String) -> Self {
        let goes_on = data.len() > size.items();
        data.truncate(size.items());
        let next = data.last().filter(|_| goes_on).map(key);
        Self { success: true, data, next, searched_until: None }
    }
}

impl<T> Page<T> {
    /// Sets `next` if the page has none: a search with a limit may end before the page is full.
    pub(crate) fn or_next(self, next: Option<String>) -> Self {
        Self { next: self.next.or(next), ..self }
    }

    /// Sets the time back to which a search looked.
    pub(crate) fn searched_until(self, searched_until: Option<Timestamp>) -> Self {
        Self { searched_until, ..self }
    }
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}
