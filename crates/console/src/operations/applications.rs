//! Applications: list and create.

mod create;

use askama::Template;
use axum::{extract::State, response::Response, routing::get};
use fanfare_api::{
    http::parameters::Query,
    routes::applications::{self, Application, ListFilter},
};
use fanfare_domain::access::session::Right;

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form,
        marks::{self, filters},
        respond::page,
    },
    routes::list::Routes,
    session::visitor::Visitor,
};

/// The pages below `/console/applications`.
pub(crate) fn routes() -> Routes<Console> {
    Routes::new().route("/applications", get(list)).route("/applications/new", get(create::form).post(create::create))
}

#[derive(Template)]
#[template(path = "operations/applications.html")]
struct Applications {
    frame: Frame,
    applications: Vec<Application>,
    name: Option<String>,
    label: Option<String>,
    plan: Option<String>,
    next: Option<String>,
}

/// Lists the applications.
async fn list(State(console): State<Console>, visitor: Visitor) -> Result<Response, Fault> {
    let filter: ListFilter = form::query(&visitor.address)?;
    let (name, label, plan) = (filter.name.clone(), filter.label.clone(), filter.plan.clone());
    let found = applications::list(State(console.api), visitor.administrator()?, Query(filter)).await?;
    let shown = Applications {
        frame: Frame::new(&visitor, "Applications").call(form::call("/applications", &visitor.address)),
        next: found.next.map(|before| form::with_parameter(&visitor.address, "before", &before)),
        applications: found.data,
        name,
        label,
        plan,
    };
    page(&visitor, &shown)
}
