//! The page of the visitor's own session.

use askama::Template;
use axum::response::Response;
use jiff::Timestamp;

use crate::{
    frame::{
        Frame,
        fault::Fault,
        marks::{self, filters},
        respond::page,
    },
    session::{cookie::SCHEMES, visitor::Visitor},
};

#[derive(Template)]
#[template(path = "session/session.html")]
struct SessionPage<'a> {
    frame: Frame,
    application: Option<&'a str>,
    rights: String,
    created_at: &'a Timestamp,
    ends_at: &'a Timestamp,
    idle: String,
    schemes: [&'static str; 3],
}

/// Shows session, preferences and sign-out.
pub(crate) async fn show(visitor: Visitor) -> Result<Response, Fault> {
    let application = visitor.session.application.map(|id| id.to_string());
    let page_of_session = SessionPage {
        frame: Frame::new(&visitor, "Your session"),
        application: application.as_deref(),
        rights: visitor.session.rights.names().join(", "),
        created_at: &visitor.session.created_at,
        ends_at: &visitor.session.ends_at,
        idle: marks::took(visitor.session.idle.as_secs() * 1000),
        schemes: SCHEMES,
    };
    page(&visitor, &page_of_session)
}
