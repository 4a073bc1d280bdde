//! Test events: type, editable sample, and the result by phase.

pub(crate) mod result;

use askama::Template;
use axum::{body::Bytes, response::Response};
use fanfare_api::{
    http::{
        body::OptionalJsonBody,
        error::{ApiError, ErrorCode},
    },
    routes::{
        event_types::DescribedType,
        webhooks::{
            Webhook,
            test_sends::{self, New, TestResult},
        },
    },
};
use fanfare_domain::{
    access::session::Right,
    event::{EventType, subscription::Subscription},
};
use serde::Deserialize;
use serde_json::{json, value::RawValue};

use crate::{
    application::webhooks::{subject::Subject, test_send::result::TestView},
    frame::{
        Frame,
        fault::Fault,
        form::{self, Fields},
        marks::{self, filters},
        respond::page_with,
    },
};

#[derive(Template)]
#[template(path = "application/webhooks/test_send/form.html")]
struct TestSend {
    frame: Frame,
    webhook: Webhook,
    title: String,
    /// Types that the webhook gets.
    wanted: Vec<String>,
    /// Other described types.
    others: Vec<String>,
    fields: Fields,
    test: Option<TestView>,
}

/// The chosen type.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Choice {
    r#type: Option<String>,
}

/// Shows the form with the sample of the chosen type.
pub(crate) async fn show(subject: Subject) -> Result<Response, Fault> {
    subject.place.visitor.require(Right::Test)?;
    let choice: Choice = form::query(&subject.place.visitor.address)?;
    answer(subject, Sent { chosen: choice.r#type, ..Sent::default() }).await
}

/// Sends the test event to the webhook's URL, and shows the result.
pub(crate) async fn send(subject: Subject, body: Bytes) -> Result<Response, Fault> {
    let fields = Fields::of_body(&body);
    let chosen = fields.given("type").map(str::to_owned);
    let sent = match try_out(&subject, &fields, None).await {
        Ok(result) => Sent { chosen, fields, test: Some(TestView::new(result)) },
        Err(error) => Sent { chosen, fields: fields.refused(error), test: None },
    };
    answer(subject, sent).await
}

/// Sends a test event with the fields `type` and `data`, each optional. Another URL than the webhook's needs the right
/// to change webhooks.
pub(crate) async fn try_out(subject: &Subject, fields: &Fields, url: Option<&str>) -> Result<TestResult, ApiError> {
    let data = match fields.given("data") {
        Some(text) => Some(RawValue::from_string(text.to_owned()).map_err(|error| {
            ApiError::new(ErrorCode::MalformedJson, format!("the data is not JSON: {error}")).at("data")
        })?),
        None => None,
    };
    let new = New { r#type: fields.given("type").map(str::to_owned), data, url: url.map(str::to_owned) };
    let right = if url.is_some() { Right::Endpoints } else { Right::Test };
    // The audit log hides the data in any case.
    let asked = json!({ "type": new.r#type, "url": new.url });
    let (api, authorized, path) = subject.arguments();
    let work =
        async move { test_sends::send(api, authorized, path, OptionalJsonBody(new)).await.map(|answer| answer.data) };
    subject.change(right, ("test_webhook", asked), work).await
}

/// The state of the page.
#[derive(Default)]
struct Sent {
    chosen: Option<String>,
    fields: Fields,
    test: Option<TestView>,
}

async fn answer(subject: Subject, sent: Sent) -> Result<Response, Fault> {
    let described = subject.place.event_types(&subject.console).await?;
    let (wanted, others) = types(&subject.webhook.events, &described);
    let Sent { chosen, mut fields, test } = sent;
    let chosen = chosen.or_else(|| wanted.first().or(others.first()).cloned()).unwrap_or_default();
    if fields.given("type").is_none() {
        fields = fields.with("type", &chosen);
    }
    if fields.given("data").is_none() {
        let sample = described.iter().find(|described| described.name == chosen);
        let sample = sample.and_then(|described| described.sample.as_ref());
        fields = fields.with("data", sample.map_or("{}", |sample| sample.get().trim()));
    }
    let (frame, title) = (subject.place.frame("Test event"), subject.title());
    let shown = TestSend { frame, title, webhook: subject.webhook, wanted, others, fields, test };
    page_with(shown.fields.status(), &subject.place.visitor, &shown)
}

/// The types that the webhook gets, described types first, and the other described types.
fn types(events: &[String], described: &[DescribedType]) -> (Vec<String>, Vec<String>) {
    let subscriptions: Vec<Subscription> = events.iter().filter_map(|text| Subscription::parse(text).ok()).collect();
    let is_wanted = |name: &str| {
        EventType::parse(name).is_ok_and(|name| subscriptions.iter().any(|subscription| subscription.covers(&name)))
    };
    let names = described.iter().map(|described| described.name.clone());
    let (mut wanted, others): (Vec<String>, Vec<String>) = names.partition(|name| is_wanted(name));
    for subscription in &subscriptions {
        if let Subscription::Exact(name) = subscription
            && !wanted.iter().any(|known| known == name.as_str())
        {
            wanted.push(name.to_string());
        }
    }
    (wanted, others)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn described_types_come_before_other_subscriptions() {
        let described = ["a.b", "c", "d"].map(|name| DescribedType {
            name: name.to_owned(),
            category: None,
            description: None,
            sample: None,
            schema_version: None,
            source: "dialect",
        });
        let events = ["z", "a.*", "d"].map(str::to_owned);
        let (wanted, others) = types(&events, &described);
        assert_eq!(wanted, ["a.b", "d", "z"]);
        assert_eq!(others, ["c"]);
    }
}
