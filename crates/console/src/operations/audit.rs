//! Changes of all applications.

use askama::Template;
use axum::{extract::State, response::Response};
use fanfare_api::{
    http::{
        authentication::Scope,
        error::ApiError,
        parameters::{Query, id},
    },
    routes::{audit_log, search::names::names},
};
use fanfare_domain::{access::session::Face, ids::ApplicationId};

use crate::{
    Console,
    frame::{
        Frame,
        changes::list::{Change, Reader, rows},
        fault::Fault,
        form::{self, Fields},
        marks::{self, filters},
        respond::page,
    },
    session::visitor::Visitor,
};

#[derive(Template)]
#[template(path = "operations/audit.html")]
struct Changes {
    frame: Frame,
    changes: Vec<Change>,
    shows_application: bool,
    filter: Fields,
    /// Name and id of the chosen application.
    chosen: Option<(String, String)>,
    next: Option<String>,
}

/// Lists who changed what, newest first.
pub(crate) async fn list(State(console): State<Console>, visitor: Visitor) -> Result<Response, Fault> {
    visitor.administrator()?;
    let fields = Fields::of_address(&visitor.address);
    let application = fields.given("application").map(|text| id("application", text)).transpose()?;
    let filter = form::query_besides(&visitor.address, &["application"])?;
    let found = audit_log::list(State(console.api.clone()), Scope(application), Query(filter)).await?;
    let reader = Reader { face: Face::Console, is_administrator: true, application: None };
    let shown = Changes {
        frame: Frame::new(&visitor, "Changes").live().call(form::call("/audit-log", &visitor.address)),
        changes: rows(&console.api, reader, found.data).await?,
        shows_application: application.is_none(),
        filter: fields,
        chosen: chosen(&console, application).await?,
        next: found.next.map(|before| form::with_parameter(&visitor.address, "before", &before)),
    };
    page(&visitor, &shown)
}

/// Name and id of the application of a filter.
pub(crate) async fn chosen(
    console: &Console,
    application: Option<ApplicationId>,
) -> Result<Option<(String, String)>, Fault> {
    let Some(application) = application else { return Ok(None) };
    let id = application.to_string();
    let missing = || ApiError::not_found("application", "no application has this id");
    let name = names(&console.api, None, [id.clone()]).await?.remove(&id).ok_or_else(missing)?;
    Ok(Some((name, id)))
}
