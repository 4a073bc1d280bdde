//! The deletion of a webhook: a page of its own, confirmed by the host's name.

use askama::Template;
use axum::{body::Bytes, response::Response};
use fanfare_api::routes::webhooks::{self, Webhook, backlog};
use fanfare_domain::access::session::Right;
use serde_json::Value;

use crate::{
    application::webhooks::subject::Subject,
    frame::{
        Frame,
        fault::Fault,
        form::Fields,
        marks::{self, filters},
        respond::{back_to, page_with},
    },
};

#[derive(Template)]
#[template(path = "application/webhooks/deletion/deletion.html")]
struct Deletion {
    frame: Frame,
    webhook: Webhook,
    title: String,
    host: String,
    /// Queued deliveries, which fail.
    queued: i64,
    fields: Fields,
}

/// Tells the consequences, and asks for the host's name.
pub(crate) async fn show(subject: Subject) -> Result<Response, Fault> {
    subject.place.visitor.require(Right::Endpoints)?;
    ask(subject, Fields::default()).await
}

/// Deletes the webhook.
pub(crate) async fn delete(subject: Subject, body: Bytes) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    if let Err(error) = subject.check_host(&fields, "delete the webhook") {
        return ask(subject, fields.refused(error)).await;
    }
    let (api, authorized, path) = subject.arguments();
    let work = async move { webhooks::delete(api, authorized, path).await.map(|answer| answer.data) };
    subject.change(Right::Endpoints, ("delete_webhook", Value::Null), work).await?;
    Ok(back_to(format!("{}/webhooks?done=deleted", subject.place.base)))
}

async fn ask(subject: Subject, fields: Fields) -> Result<Response, Fault> {
    let (api, authorized, path) = subject.arguments();
    let backlog = backlog::show(api, authorized, path).await?.data;
    let shown = Deletion {
        frame: subject.place.frame("Delete webhook"),
        title: subject.title(),
        host: subject.host(),
        queued: backlog.map_or(0, |backlog| backlog.queued),
        webhook: subject.webhook,
        fields,
    };
    page_with(shown.fields.status(), &subject.place.visitor, &shown)
}
