//! The management API, checked against the APIs of the five platforms that Fanfare replaces and against the OpenAPI
//! document. A file for each subject.

mod applications;
mod checked_client;
mod configs;
mod conformance;
mod event_types;
mod filters;
mod headers;
mod history;
mod lists;
mod logs;
mod overrides;
mod paused;
mod resend;
mod schemas;
mod templates;
mod test_sends;
mod webhooks;

/// Explanations for customers: why an event did not arrive, why a signature does not verify.
mod explanations {
    mod request_headers;
    mod verify;
    mod why;
}

use fanfare_tests::{
    clients::api::Answer,
    patience::until,
    world::{Setup, World, dialects::Waits},
};
use serde_json::Value;

/// A retry wait longer than any test: a second attempt is always a resend.
const NEVER: &str = "24h";

/// An expected refusal: status, code, and the field if the error names a field.
type Refusal<'a> = (u16, &'a str, &'a str);

pub(crate) fn assert_refused(what: &str, answer: &Answer, refusal: Refusal<'_>) {
    assert_eq!((answer.status, answer.code(), answer.field()), refusal, "{what}: {}", answer.body);
    assert_eq!(answer.body["success"], false, "{what}");
    assert_ne!(answer.body["error"]["message"].as_str().unwrap_or_default(), "", "{what}: the error has no message");
}

/// The text of a member; empty if the member is no text.
fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

/// The items of a list; empty if the value is no list.
fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// Settings with retries that never become due, so that only a resend makes a further attempt.
fn patient(variables: &[(&str, &str)]) -> Setup {
    Setup { waits: Waits::of(&[NEVER; 5].join(",")), ..Setup::new(variables) }
}

/// Waits until an event is persisted. Returns the event as the API shows it.
async fn event(world: &World, id: &str) -> Value {
    until("the event to be persisted", async || {
        let answer = world.client().get(&format!("events/{id}")).await;
        (answer.status == 200).then(|| answer.data().clone())
    })
    .await
}

/// Waits until a delivery is in this state. Returns the delivery with all attempts.
async fn delivery_in(world: &World, id: &str, state: &str) -> Value {
    until(&format!("{id} to be {state}"), async || {
        let delivery = world.delivery(id).await;
        (delivery["state"] == state).then_some(delivery)
    })
    .await
}

/// The attempt numbers of a delivery.
fn numbers(delivery: &Value) -> Vec<u64> {
    list(&delivery["attempts"]).iter().filter_map(|attempt| attempt["attempt"].as_u64()).collect()
}
