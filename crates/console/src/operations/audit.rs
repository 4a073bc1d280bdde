//! Changes of all applications.

use askama::Template;
use axum::{extract::State, response::Response};
use fanfare_api::{
    http::{authentication::Scope, error::ApiError, parameters::Query},
    routes::{audit_log, search::names::names},
};
use fanfare_domain::{access::session::Face, ids::ApplicationId};
use serde::Deserialize;

use crate::{
    Console,
    frame::{
        Frame,
        changes::list::{Change, Reader, rows},
        fault::Fault,
        form,
        marks::{self, filters},
        respond::page,
    },
    session::visitor::Visitor,
};

/// The address of the page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    application: Option<ApplicationId>,
    before: Option<String>,
    limit: Option<usize>,
}

#[derive(Template)]
#[template(path = "operations/audit.html")]
struct Changes {
    frame: Frame,
    changes: Vec<Change>,
    shows_application: bool,
    has_filter: bool,
    /// Name and id of the chosen application.
    chosen: Option<(String, String)>,
    next: Option<String>,
}

/// Lists who changed what, newest first.
pub(crate) async fn list(State(console): State<Console>, visitor: Visitor) -> Result<Response, Fault> {
    visitor.administrator()?;
    let Asked { application, before, limit } = form::query(&visitor.address)?;
    let paging = audit_log::Filter { subject: None, before, limit };
    let found = audit_log::list(State(console.api.clone()), Scope(application), Query(paging)).await?;
    let reader = Reader { face: Face::Console, is_administrator: true, application: None };
    let call = match application {
        Some(id) => format!("/audit-log?application={id}"),
        None => "/audit-log".to_owned(),
    };
    let shown = Changes {
        frame: Frame::new(&visitor, "Changes").live().call(call),
        changes: rows(&console.api, reader, found.data).await?,
        shows_application: application.is_none(),
        has_filter: application.is_some(),
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
