//! The signing secret: rotation with an overlap, the new secret, and the end of the overlap.

use askama::Template;
use axum::{body::Bytes, response::Response};
use fanfare_api::{
    http::{
        body::{OptionalJsonBody, from_value},
        error::ApiError,
    },
    routes::webhooks::{self, Webhook, secrets::Rotated},
};
use fanfare_domain::access::session::Right;
use jiff::Timestamp;
use serde_json::{Map, Value};

use crate::{
    application::webhooks::{
        signature::samples::{self, Samples},
        subject::Subject,
    },
    frame::{
        Frame,
        fault::Fault,
        form::Fields,
        marks::{self, filters},
        respond::{back_to, page, page_with},
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
pub(crate) async fn show(subject: Subject) -> Result<Response, Fault> {
    subject.place.visitor.require(Right::Endpoints)?;
    answer(subject, Fields::default().with("overlap_seconds", (24 * HOUR).to_string())).await
}

/// Rotates the secret, and shows the new secret: the answer to the request itself, as no other address may show it.
pub(crate) async fn rotate(subject: Subject, body: Bytes) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    let rotated = match begin(&subject, &fields).await {
        Ok(rotated) => rotated,
        Err(error) => return answer(subject, fields.refused(error)).await,
    };
    let shown = NewSecret {
        frame: subject.place.frame("New secret"),
        title: subject.title(),
        samples: samples::of_application(&subject.console, &subject.place).await?,
        webhook: subject.webhook,
        rotated,
    };
    page(&subject.place.visitor, &shown)
}

async fn begin(subject: &Subject, fields: &Fields) -> Result<Rotated, ApiError> {
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
    let (api, authorized, path) = subject.arguments();
    let work = async move { webhooks::secrets::rotate(api, authorized, path, body).await.map(|answer| answer.data) };
    subject.change(Right::Endpoints, ("rotate_secret", asked), work).await
}

async fn answer(subject: Subject, fields: Fields) -> Result<Response, Fault> {
    let shown = Secret {
        frame: subject.place.frame("Secret"),
        title: subject.title(),
        overlap: overlap(&subject.webhook),
        samples: samples::of_application(&subject.console, &subject.place).await?,
        webhook: subject.webhook,
        fields,
    };
    page_with(shown.fields.status(), &subject.place.visitor, &shown)
}

/// The end of a running overlap.
pub(crate) fn overlap(webhook: &Webhook) -> Option<Timestamp> {
    webhook.previous_secret_expires_at.as_ref()?.parse().ok()
}

/// Tells the consequences of the end of the overlap, and asks for the host's name.
pub(crate) async fn ask_end(subject: Subject) -> Result<Response, Fault> {
    subject.place.visitor.require(Right::Endpoints)?;
    confirm_end(subject, Fields::default())
}

/// Ends the overlap at once.
pub(crate) async fn end(subject: Subject, body: Bytes) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    let checked = subject.check_host(&fields, "end the overlap");
    if let (Some(_), Err(error)) = (overlap(&subject.webhook), checked) {
        return confirm_end(subject, fields.refused(error));
    }
    let (api, authorized, path) = subject.arguments();
    let work = async move { webhooks::secrets::end(api, authorized, path).await.map(|answer| answer.data) };
    subject.change(Right::Endpoints, ("end_rotation", Value::Null), work).await?;
    Ok(back_to(subject.path("/secret?done=rotation-ended")))
}

fn confirm_end(subject: Subject, fields: Fields) -> Result<Response, Fault> {
    let Some(overlap) = overlap(&subject.webhook) else {
        return Ok(back_to(subject.path("/secret")));
    };
    let shown = EndRotation {
        frame: subject.place.frame("End the rotation"),
        title: subject.title(),
        host: subject.host(),
        overlap,
        webhook: subject.webhook,
        fields,
    };
    page_with(shown.fields.status(), &subject.place.visitor, &shown)
}
