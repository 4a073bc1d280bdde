//! The deletion of a webhook: a page of its own, confirmed by the host's name.

use askama::Template;
use axum::{body::Bytes, extract::State, response::Response};
use fanfare_api::{
    http::{error::ApiError, parameters::Path},
    routes::webhooks::{self, Webhook, backlog},
};
use fanfare_domain::access::session::Right;
use serde_json::Value;

use crate::{
    Console,
    application::webhooks::{Named, find, title},
    frame::{
        Frame,
        fault::Fault,
        form::Fields,
        marks::{self, filters},
        place::Place,
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
pub(crate) async fn show(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    place.visitor.require(Right::Endpoints)?;
    ask(&console, &place, &named.webhook, Fields::default()).await
}

/// Deletes the webhook.
pub(crate) async fn delete(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
    body: Bytes,
) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    let webhook = find(&console, &place, &named.webhook).await?;
    let host = marks::host(&webhook.url);
    if fields.given("host") != Some(&host) {
        let error = ApiError::invalid("host", format!("must be `{host}`: type the host's name to delete the webhook"));
        return ask(&console, &place, &named.webhook, fields.refused(error)).await;
    }
    let (api, authorized, path) = (State(console.api.clone()), place.authorized(), Path(named.webhook));
    let work = async move { webhooks::delete(api, authorized, path).await.map(|answer| answer.data) };
    place.change(&console, Right::Endpoints, ("delete_webhook", Value::Null), work).await?;
    Ok(back_to(format!("{}/webhooks?done=deleted", place.base)))
}

async fn ask(console: &Console, place: &Place, webhook: &str, fields: Fields) -> Result<Response, Fault> {
    let path = Path(webhook.to_owned());
    let backlog = backlog::show(State(console.api.clone()), place.authorized(), path).await?.data;
    let webhook = find(console, place, webhook).await?;
    let status = fields.error().map_or(http::StatusCode::OK, ApiError::status);
    let shown = Deletion {
        frame: place.frame("Delete webhook"),
        title: title(webhook.name.as_deref(), &webhook.url),
        host: marks::host(&webhook.url),
        queued: backlog.map_or(0, |backlog| backlog.queued),
        webhook,
        fields,
    };
    page_with(status, &place.visitor, &shown)
}
