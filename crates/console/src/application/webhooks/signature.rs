//! The check of a signature: a request as it came, and the mistake in the receiver's code.

pub(crate) mod samples;

use askama::Template;
use axum::{body::Bytes, response::Response};
use fanfare_api::{
    http::{
        body::{JsonBody, from_value},
        error::ApiError,
    },
    routes::webhooks::{
        Webhook,
        verify::{self, Verification},
    },
};
use fanfare_domain::access::session::Right;
use serde_json::{Map, Value};

use crate::{
    application::webhooks::{form::settings::pairs, subject::Subject},
    frame::{
        Frame,
        fault::Fault,
        form::Fields,
        marks::{self, filters},
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
pub(crate) async fn show(subject: Subject) -> Result<Response, Fault> {
    require(&subject)?;
    answer(subject, Fields::default(), None)
}

/// Verifies the request of the form.
pub(crate) async fn verify(subject: Subject, body: Bytes) -> Result<Response, Fault> {
    require(&subject)?;
    let fields = Fields::of_body(&body);
    match diagnose(&subject, &fields).await {
        Ok(found) => answer(subject, fields, Some(found)),
        Err(error) => answer(subject, fields.refused(error), None),
    }
}

/// Checks the rights. A verified signature confirms a body, which the right to payloads permits to see.
fn require(subject: &Subject) -> Result<(), ApiError> {
    subject.place.visitor.require(Right::Test)?;
    subject.place.visitor.require(Right::Payloads)
}

async fn diagnose(subject: &Subject, fields: &Fields) -> Result<Verification, ApiError> {
    let asked = request(fields)?;
    let body = JsonBody(from_value(&asked)?);
    let (api, authorized, path) = subject.arguments();
    let work = async move { verify::verify(api, authorized, path, body).await.map(|answer| answer.data) };
    subject.change(Right::Test, ("verify_signature", asked), work).await
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
    for name in ["body_base64", "computed", "public_key", "received_at"] {
        if let Some(text) = fields.given(name) {
            asked.insert(name.to_owned(), Value::from(text));
        }
    }
    Ok(Value::Object(asked))
}

fn answer(subject: Subject, fields: Fields, found: Option<Verification>) -> Result<Response, Fault> {
    let (frame, title) = (subject.place.frame("Signature"), subject.title());
    let shown = Signature { frame, title, webhook: subject.webhook, fields, found };
    page_with(shown.fields.status(), &subject.place.visitor, &shown)
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
