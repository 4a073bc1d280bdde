//! Changes of an application.

use askama::Template;
use axum::{extract::State, response::Response};
use fanfare_api::{
    http::{authentication::Scope, parameters::Query},
    routes::audit_log,
};

use crate::{
    Console,
    frame::{
        Frame,
        changes::list::{Change, Reader, rows},
        fault::Fault,
        form::{self, Fields},
        marks::{self, filters},
        place::Place,
        respond::page,
    },
};

#[derive(Template)]
#[template(path = "application/changes.html")]
struct Changes {
    frame: Frame,
    changes: Vec<Change>,
    shows_application: bool,
    filter: Fields,
    /// The id of the only object whose changes are shown.
    subject: Option<String>,
    next: Option<String>,
}

/// Lists who changed what, newest first.
pub(crate) async fn list(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    let address = &place.visitor.address;
    let scope = Scope(Some(place.application));
    let filter: audit_log::Filter = form::query(address)?;
    let subject = filter.subject.clone();
    let found = audit_log::list(State(console.api.clone()), scope, Query(filter)).await?;
    let reader = Reader {
        face: place.visitor.session.face,
        is_administrator: place.visitor.is_administrator(),
        application: Some(place.application),
    };
    let shown = Changes {
        frame: place.frame("Changes").live().call(form::call("/audit-log", address)),
        changes: rows(&console.api, reader, found.data).await?,
        shows_application: false,
        filter: Fields::of_address(address),
        subject,
        next: found.next.map(|before| form::with_parameter(address, "before", &before)),
    };
    page(&place.visitor, &shown)
}
