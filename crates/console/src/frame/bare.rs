//! The parts of a page without a session.

use askama::Template;
use axum::{http::HeaderMap, response::Html};
use fanfare_domain::access::session::Face;

use crate::{assets, frame::fault::Fault, session::cookie::Preferences};

/// The parts that `frame/bare.html` shows.
pub(crate) struct Bare {
    /// Path before the pages.
    pub(crate) root: &'static str,
    pub(crate) style: &'static str,
    pub(crate) script: &'static str,
    pub(crate) scheme: &'static str,
}

impl Bare {
    pub(crate) fn new(face: Face, headers: &HeaderMap) -> Self {
        Self {
            root: face.root(),
            style: &assets::STYLE.address,
            script: &assets::SCRIPT.address,
            scheme: Preferences::of(headers).scheme,
        }
    }
}

/// Renders a page without a session.
pub(crate) fn html(page: &impl Template) -> Result<Html<String>, Fault> {
    page.render().map(Html).map_err(Fault::of_template)
}
