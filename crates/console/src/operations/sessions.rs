//! Open sessions of the web pages, and links that nobody has opened yet.

use askama::Template;
use axum::{
    extract::State,
    response::Response,
    routing::{get, post},
};
use fanfare_api::{
    http::{
        authentication::Scope,
        parameters::{Path, Query},
    },
    routes::{
        search::names::{Names, names},
        sessions::{self, Shown},
    },
};
use fanfare_domain::{
    access::session::Right,
    ids::{ApplicationId, KeyId, SessionId},
};
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Console,
    frame::{
        Frame, changes,
        fault::Fault,
        form,
        marks::{self, filters},
        respond::{back_to, page},
    },
    operations::audit::chosen,
    routes::list::Routes,
    session::visitor::Visitor,
};

/// The pages below `/console/sessions`.
pub(crate) fn routes() -> Routes<Console> {
    Routes::new().route("/sessions", get(list)).route("/sessions/{session}/end", post(end))
}

/// The address of the page.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asked {
    application: Option<ApplicationId>,
    before: Option<String>,
    limit: Option<usize>,
}

#[derive(Template)]
#[template(path = "operations/sessions.html")]
struct Sessions {
    frame: Frame,
    sessions: Vec<Shown>,
    names: Names,
    own: SessionId,
    /// Name and id of the application of the filter.
    chosen: Option<(String, String)>,
    next: Option<String>,
}

impl Sessions {
    fn application(&self, application: &ApplicationId) -> String {
        let id = application.to_string();
        self.names.get(&id).cloned().unwrap_or(id)
    }

    fn visitor(&self, session: &Shown) -> String {
        let is_key = session.name.parse::<KeyId>().is_ok();
        if is_key { changes::short(&session.name) } else { session.name.clone() }
    }
}

/// Lists sessions and links, newest first.
async fn list(State(console): State<Console>, visitor: Visitor) -> Result<Response, Fault> {
    visitor.administrator()?;
    let Asked { application, before, limit } = form::query(&visitor.address)?;
    let paging = Query(sessions::Filter { pages: None, before, limit });
    let found = sessions::list(State(console.api.clone()), Scope(application), paging).await?;
    let applications = found.data.iter().filter_map(|session| session.application).map(|id| id.to_string());
    let shown = Sessions {
        names: names(&console.api, None, applications).await?,
        frame: Frame::new(&visitor, "Sessions and links").live().call(form::call("/sessions", &visitor.address)),
        own: visitor.session.id,
        chosen: chosen(&console, application).await?,
        next: found.next.map(|before| form::with_parameter(&visitor.address, "before", &before)),
        sessions: found.data,
    };
    page(&visitor, &shown)
}

/// Ends a session, or revokes a link.
async fn end(State(console): State<Console>, visitor: Visitor, Path(session): Path<String>) -> Result<Response, Fault> {
    visitor.administrator()?;
    let api = console.api.clone();
    let work = async move { sessions::end(State(api), Scope(None), Path(session)).await.map(|answer| answer.data) };
    visitor.change(&console, Right::Operate, ("end_session", Value::Null), None, work).await?;
    Ok(back_to("/console/sessions?done=ended"))
}
