//! How an answer looks: `{"success": true, "data": …}`, and a list with where it goes on.

use axum::{
    Json,
    http::StatusCode,
    response::{IntoResponse, Response},
};
use fanfare_domain::json;
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use crate::request::PageSize;

/// A body that is sent, as it is shown: half a surrogate pair in it, which strict parsers refuse, would make a whole
/// answer unreadable for them.
pub(crate) fn readable(body: &str) -> Option<Box<RawValue>> {
    RawValue::from_string(json::readable(body).into_owned()).ok()
}

/// An answer.
#[derive(Debug, Serialize, ToSchema)]
pub struct Answer<T> {
    #[schema(example = true)]
    success: bool,
    data: T,
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub(crate) struct Page<T> {
    #[schema(example = true)]
    success: bool,
    data: Vec<T>,
    /// `before` of the next page; `null` on the last one.
    next: Option<String>,
}

impl<T: Serialize> Answer<T> {
    /// 200 with this.
    pub fn of(data: T) -> Self {
        Self { success: true, data }
    }

    /// This with another status.
    pub fn with(self, status: StatusCode) -> Response {
        (status, self).into_response()
    }
}

impl<T: Serialize> IntoResponse for Answer<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}

impl<T: Serialize> Page<T> {
    /// A page of the items that were found, one more than it has room for: there is another page where there was one
    /// more. It goes on after the last item, which is told by its `key`.
    pub(crate) fn of(mut data: Vec<T>, size: PageSize, key: impl Fn(&T) -> String) -> Self {
        let goes_on = data.len() > size.items();
        data.truncate(size.items());
        let next = data.last().filter(|_| goes_on).map(key);
        Self { success: true, data, next }
    }
}

impl<T> Page<T> {
    /// This page, with another place to go on at where it ended before it was full.
    pub(crate) fn or_next(self, next: Option<String>) -> Self {
        Self { next: self.next.or(next), ..self }
    }
}

impl<T: Serialize> IntoResponse for Page<T> {
    fn into_response(self) -> Response {
        Json(self).into_response()
    }
}
