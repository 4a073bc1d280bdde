//! The check of a signature: a request as it came, and the mistake in the receiver's code.

pub(crate) mod samples;

use askama::Template;
use axum::{body::Bytes, extract::State, http::StatusCode, response::Response};
use fanfare_api::{
    http::{
        body::{JsonBody, from_value},
        error::ApiError,
        parameters::Path,
    },
    routes::webhooks::{
        Webhook,
        verify::{self, Verification},
    },
};
use fanfare_domain::access::session::Right;
use serde_json::{Map, Value};

use crate::{
    Console,
    application::webhooks::{Named, find, form::settings::pairs, title},
    frame::{
        Frame,
        fault::Fault,
        form::Fields,
        marks::{self, filters},
        place::Place,
        respond::page_with,
    },
};

#[derive(Template)]
#[template(path = "application/webhooks/signature/signature.html")]
struct Signature {
    frame: Frame,
    webhook: Webhook,
    title: String,
    fields: Fields,
    found: Option<Verification>,
}

/// Shows the form.
pub(crate) async fn show(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
) -> Result<Response, Fault> {
    place.visitor.require(Right::Test)?;
    let webhook = find(&console, &place, &named.webhook).await?;
    answer(&place, webhook, Fields::default(), None)
}

/// Verifies the request of the form.
pub(crate) async fn verify(
    State(console): State<Console>,
    place: Place,
    Path(named): Path<Named>,
    body: Bytes,
) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    let webhook = find(&console, &place, &named.webhook).await?;
    match diagnose(&console, &place, named.webhook, &fields).await {
        Ok(found) => answer(&place, webhook, fields, Some(found)),
        Err(error) => answer(&place, webhook, fields.refused(error), None),
    }
}

async fn diagnose(
    console: &Console,
    place: &Place,
    webhook: String,
    fields: &Fields,
) -> Result<Verification, ApiError> {
    let asked = request(fields)?;
    let body = JsonBody(from_value(&asked)?);
    let (api, authorized) = (State(console.api.clone()), place.authorized());
    let work = async move { verify::verify(api, authorized, Path(webhook), body).await.map(|answer| answer.data) };
    place.change(console, Right::Test, ("verify_signature", asked), work).await
}

/// The body of `POST /webhooks/{id}/verify`.
fn request(fields: &Fields) -> Result<Value, ApiError> {
    let headers = pairs(fields.value("headers")).map_err(|line| {
        let message = format!("line {line} is no header: write `name: value` in each line, and each name once");
        ApiError::invalid("headers", message)
    })?;
    let mut asked = Map::from_iter([("headers".to_owned(), Value::Object(headers))]);
    // A browser sends each line break of a text field as two characters.
    let body = fields.value("body").replace("\r\n", "\n");
    if !body.is_empty() {
        asked.insert("body".to_owned(), Value::from(body));
    }
    for name in ["body_base64", "computed", "received_at"] {
        if let Some(text) = fields.given(name) {
            asked.insert(name.to_owned(), Value::from(text));
        }
    }
    Ok(Value::Object(asked))
}

fn answer(place: &Place, webhook: Webhook, fields: Fields, found: Option<Verification>) -> Result<Response, Fault> {
    let status = fields.error().map_or(StatusCode::OK, ApiError::status);
    let title = title(webhook.name.as_deref(), &webhook.url);
    page_with(status, &place.visitor, &Signature { frame: place.frame("Signature"), webhook, title, fields, found })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_request_has_the_bytes_before_the_browser() {
        let fields = Fields::of_body(b"headers=a:+1%0D%0Ab:+2&body=%7B%0D%0A%7D&computed=+&body_base64=");
        assert_eq!(request(&fields).ok(), Some(json!({ "headers": { "a": "1", "b": "2" }, "body": "{\n}" })));
    }
}
