//! The form for a new application.

use askama::Template;
use axum::{body::Bytes, extract::State, response::Response};
use fanfare_api::{
    http::{authentication::KeyApplication, body::from_value, error::ApiError},
    routes::applications::{self, Application, ListedDialect},
};
use fanfare_domain::{access::session::Right, dialect::DEFAULT_DIALECT, ids::ApplicationId};
use serde_json::json;

use crate::{
    Console,
    frame::{
        Frame,
        fault::Fault,
        form::Fields,
        marks::filters,
        respond::{back_to, page, page_with},
    },
    session::visitor::Visitor,
};

#[derive(Template)]
#[template(path = "operations/applications/create.html")]
struct New {
    frame: Frame,
    fields: Fields,
    dialects: Vec<ListedDialect>,
}

impl New {
    async fn of(console: &Console, visitor: &Visitor, fields: Fields) -> Self {
        let dialects = applications::dialects(State(console.api.clone()), KeyApplication(None)).await.data;
        Self { frame: Frame::new(visitor, "Create an application").call("/dialects"), fields, dialects }
    }
}

/// Shows the form.
pub(super) async fn form(State(console): State<Console>, visitor: Visitor) -> Result<Response, Fault> {
    visitor.administrator()?;
    visitor.require(Right::Operate)?;
    let id = ApplicationId::new(console.api.store.now(), rand::random());
    let fields = Fields::default().with("id", id.to_string()).with("dialect", DEFAULT_DIALECT);
    page(&visitor, &New::of(&console, &visitor, fields).await)
}

/// Creates the application, and leads to its overview.
pub(super) async fn create(State(console): State<Console>, visitor: Visitor, body: Bytes) -> Result<Response, Fault> {
    visitor.administrator()?;
    let fields = Fields::of_body(&body);
    match made(&console, &visitor, &fields).await {
        Ok(application) => Ok(back_to(format!("/console/{}/?done=created", application.id))),
        Err(error) => {
            let status = error.status();
            page_with(status, &visitor, &New::of(&console, &visitor, fields.refused(error)).await)
        }
    }
}

async fn made(console: &Console, visitor: &Visitor, fields: &Fields) -> Result<Application, ApiError> {
    let asked = json!({
        "name": fields.value("name").trim(),
        "dialect": fields.value("dialect"),
        "strict": fields.has("strict", "yes"),
        "email": fields.given("email"),
    });
    let new: applications::New = from_value(&asked)?;
    let application: ApplicationId = fields.value("id").parse().map_err(|error| ApiError::invalid("id", error))?;
    let api = console.api.clone();
    let work = async move { applications::create_as(&api, application, new).await };
    // The entry gets the application by the answer: the application does not exist before.
    visitor.change(console, Right::Operate, ("create_application", asked), None, work).await
}
