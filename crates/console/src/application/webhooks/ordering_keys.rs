//! The ordering keys that wait at a webhook with FIFO.

use askama::Template;
use axum::{body::Bytes, extract::State, response::Response};
use fanfare_api::{
    http::{
        body::{JsonBody, from_value},
        parameters::Query,
    },
    routes::webhooks::{Webhook, ordering_keys},
};
use fanfare_domain::access::session::Right;
use serde_json::json;

use crate::{
    application::webhooks::subject::Subject,
    frame::{
        Frame,
        fault::Fault,
        form::{Fields, query, with_parameter},
        marks::{self, filters},
        respond::{back_to, page},
    },
};

#[derive(Template)]
#[template(path = "application/webhooks/ordering_keys/list.html")]
struct List {
    frame: Frame,
    title: String,
    webhook: Webhook,
    keys: Vec<ordering_keys::WaitingKey>,
    next: Option<String>,
}

impl List {
    fn has_parked(&self) -> bool {
        self.keys.iter().any(|key| key.state == "parked")
    }
}

/// Lists the keys.
pub(crate) async fn list(subject: Subject) -> Result<Response, Fault> {
    let (State(api), authorized, path) = subject.arguments();
    let address = subject.place.visitor.address.clone();
    let found = ordering_keys::list(State(api), authorized, path, Query(query(&address)?)).await?;
    let shown = List {
        frame: subject.place.frame("Ordering keys").live().call(subject.api_path("/ordering-keys")),
        title: subject.title(),
        next: found.next.map(|before| with_parameter(&address, "before", &before)),
        keys: found.data,
        webhook: subject.webhook,
    };
    page(&subject.place.visitor, &shown)
}

/// Resumes the parked key of the form's field `key`, or all parked keys without the field.
pub(crate) async fn resume(subject: Subject, body: Bytes) -> Result<Response, Fault> {
    let asked = Fields::of_body(&body).given("key").map_or_else(|| json!({}), |key| json!({ "key": key }));
    let (api, authorized, path) = subject.arguments();
    let key = from_value(&asked)?;
    let work =
        async move { ordering_keys::resume(api, authorized, path, JsonBody(key)).await.map(|answer| answer.data) };
    subject.change(Right::Endpoints, ("resume_ordering_keys", asked), work).await?;
    Ok(back_to(subject.path("/ordering-keys?done=key-resumed")))
}
