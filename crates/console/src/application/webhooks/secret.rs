//! The signing secret: rotation with an overlap, the new secret, and the end of the overlap.

use askama::Template;
use axum::{body::Bytes, extract::State, http::StatusCode, response::Response};
use fanfare_api::{
    http::{
        body::{OptionalJsonBody, from_value},
        error::ApiError,
        parameters::Path,
    },
    routes::webhooks::{self, Webhook, secrets::Rotated},
};
use fanfare_domain::access::session::Right;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{
    Console,
    application::webhooks::{
        Named, find,
        signature::samples::{self, Samples},
        title,
    },
    frame::{
        Frame,
        fault::Fault,
        form::Fields,
        marks::{self, filters},
        place::Place,
        respond::{back_to, page_with},
    },
};

const HOUR: u64 = 3600;

/// Overlaps to choose from, in seconds. The end of an overlap at once is a page of its own.
const OVERLAPS: [(u64, &str); 4] =
    [(HOUR, "1 hour"), (24 * HOUR, "1 day"), (7 * 24 * HOUR, "7 days"), (30 * 24 * HOUR, "30 days")];

#[derive(Template)]
#[template(path = "application/webhooks/secret/secret.html")]
struct Secret {
    frame: Frame,
    webhook: Webhook,
    title: String,
    /// End of the present overlap.
    overlap: Option<Timestamp>,
    fields: Fields,
    samples: Samples,
}

#[derive(Template)]
#[template(path = "application/webhooks/secret/rotated.html")]
struct NewSecret {
    frame: Frame,
    webhook: Webhook,
    title: String,
    rotated: Rotated,
    samples: Samples,
}

#[derive(Template)]
#[template(path = "application/webhooks/secret/end_rotation.html")]
struct EndRotation {
    frame: Frame,
    webhook: Webhook,
    title: String,
    host: String,
    overlap: Timestamp,
    fields: Fields,
}

/// Shows the rotation, and the form to rotate.
pub(crate) async fn show(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    place.visitor.require(Right::Endpoints)?;
    let webhook = find(&console, &place, &named.webhook).await?;
    let fields = Fields::default().with("overlap_seconds", (24 * HOUR).to_string());
    answer(&console, &place, webhook, fields).await
}

/// Rotates the secret, and shows the new secret: the answer to the request itself, as no other address may show it.
pub(crate) async fn rotate(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
    body: Bytes,
) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    let webhook = find(&console, &place, &named.webhook).await?;
    match begin(&console, &place, &named.webhook, &fields).await {
        Ok(rotated) => {
            let samples = samples::of_application(&console, &place).await?;
            let title = title(webhook.name.as_deref(), &webhook.url);
            let shown = NewSecret { frame: place.frame("New secret"), webhook, title, rotated, samples };
            page_with(StatusCode::OK, &place.visitor, &shown)
        }
        Err(error) => answer(&console, &place, webhook, fields.refused(error)).await,
    }
}

async fn begin(console: &Console, place: &Place, webhook: &str, fields: &Fields) -> Result<Rotated, ApiError> {
    let overlap = fields.number("overlap_seconds")?;
    // Without an overlap, a form that is sent twice would rotate twice.
    if !OVERLAPS.iter().any(|(seconds, _)| overlap == *seconds) {
        return Err(ApiError::invalid("overlap_seconds", "must be a choice of the form"));
    }
    let mut asked = Map::from_iter([("overlap_seconds".to_owned(), overlap)]);
    if let Some(secret) = fields.given("secret") {
        asked.insert("secret".to_owned(), Value::from(secret));
    }
    let asked = Value::Object(asked);
    let body = OptionalJsonBody(from_value(&asked)?);
    let (api, authorized, path) = (State(console.api.clone()), place.authorized(), Path(webhook.to_owned()));
    let work = async move { webhooks::secrets::rotate(api, authorized, path, body).await.map(|answer| answer.data) };
    place.change(console, Right::Endpoints, ("rotate_secret", asked), work).await
}

async fn answer(console: &Console, place: &Place, webhook: Webhook, fields: Fields) -> Result<Response, Fault> {
    let shown = Secret {
        frame: place.frame("Secret"),
        title: title(webhook.name.as_deref(), &webhook.url),
        overlap: overlap(&webhook),
        samples: samples::of_application(console, place).await?,
        webhook,
        fields,
    };
    let status = shown.fields.error().map_or(StatusCode::OK, ApiError::status);
    page_with(status, &place.visitor, &shown)
}

/// The end of a running overlap.
pub(crate) fn overlap(webhook: &Webhook) -> Option<Timestamp> {
    webhook.previous_secret_expires_at.as_ref()?.parse().ok()
}

/// Tells the consequences of the end of the overlap, and asks for the host's name.
pub(crate) async fn ask_end(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    place.visitor.require(Right::Endpoints)?;
    let webhook = find(&console, &place, &named.webhook).await?;
    confirm_end(&place, webhook, Fields::default())
}

/// Ends the overlap at once.
pub(crate) async fn end(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
    body: Bytes,
) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    let webhook = find(&console, &place, &named.webhook).await?;
    let host = marks::host(&webhook.url);
    if overlap(&webhook).is_some() && fields.given("host") != Some(&host) {
        let error = ApiError::invalid("host", format!("must be `{host}`: type the host's name to end the overlap"));
        return confirm_end(&place, webhook, fields.refused(error));
    }
    let (api, authorized, path) = (State(console.api.clone()), place.authorized(), Path(named.webhook.clone()));
    let work = async move { webhooks::secrets::end(api, authorized, path).await.map(|answer| answer.data) };
    place.change(&console, Right::Endpoints, ("end_rotation", Value::Null), work).await?;
    Ok(back_to(format!("{}/webhooks/{}/secret?done=rotation-ended", place.base, named.webhook)))
}

fn confirm_end(place: &Place, webhook: Webhook, fields: Fields) -> Result<Response, Fault> {
    let Some(overlap) = overlap(&webhook) else {
        return Ok(back_to(format!("{}/webhooks/{}/secret", place.base, webhook.id)));
    };
    let status = fields.error().map_or(StatusCode::OK, ApiError::status);
    let shown = EndRotation {
        frame: place.frame("End the rotation"),
        title: title(webhook.name.as_deref(), &webhook.url),
        host: marks::host(&webhook.url),
        overlap,
        webhook,
        fields,
    };
    page_with(status, &place.visitor, &shown)
}
