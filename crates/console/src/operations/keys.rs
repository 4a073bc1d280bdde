//! API keys: list, create, a key, rotate, revoke.

mod create;
mod rotate;
mod show;

use askama::Template;
use axum::{
    extract::State,
    response::Response,
    routing::{get, post},
};
use fanfare_api::{
    http::{authentication::Scope, parameters::Query},
    routes::{
        keys::{self, Filter, Shown},
        search::names::{Names, names},
    },
};
use fanfare_domain::{access::session::Right, ids::ApplicationId};
use jiff::Timestamp;
use serde::Deserialize;

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form,
        marks::{self, filters},
        respond::page,
    },
    operations::audit::chosen,
    routes::list::Routes,
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

/// The pages below `/console/keys`.
pub(crate) fn routes() -> Routes<Console> {
    Routes::new()
        .route("/keys", get(list))
        .route("/keys/new", get(create::form).post(create::create))
        .route("/keys/{key}", get(show::show))
        .route("/keys/{key}/rotate", post(rotate::rotate))
        .route("/keys/{key}/revoke", get(show::ask_revoke).post(show::revoke))
}

#[derive(Template)]
#[template(path = "operations/keys.html")]
struct Keys {
    frame: Frame,
    keys: Vec<Shown>,
    names: Names,
    /// Name and id of the application of the filter.
    chosen: Option<(String, String)>,
    next: Option<String>,
}

impl Keys {
    fn state(&self, key: &Shown) -> &'static str {
        state(key, self.frame.now)
    }

    fn name(&self, application: &ApplicationId) -> String {
        let id = application.to_string();
        self.names.get(&id).cloned().unwrap_or(id)
    }
}

/// The state of a key.
fn state(key: &Shown, now: Timestamp) -> &'static str {
    match (key.revoked_at, key.expires_at) {
        (Some(_), _) => "revoked",
        (None, Some(end)) if end <= now => "expired",
        (None, _) => "valid",
    }
}

/// Lists the keys, newest first.
async fn list(State(console): State<Console>, visitor: Visitor) -> Result<Response, Fault> {
    let administrator = visitor.administrator()?;
    let Asked { application, before, limit } = form::query(&visitor.address)?;
    let paging = Query(Filter { before, limit });
    let found = keys::list(State(console.api.clone()), administrator, Scope(application), paging).await?;
    let applications = found.data.iter().filter_map(|key| key.application).map(|id| id.to_string());
    let shown = Keys {
        names: names(&console.api, None, applications).await?,
        frame: Frame::new(&visitor, "Keys").live().call(form::call("/keys", &visitor.address)),
        chosen: chosen(&console, application).await?,
        next: found.next.map(|before| form::with_parameter(&visitor.address, "before", &before)),
        keys: found.data,
    };
    page(&visitor, &shown)
}
