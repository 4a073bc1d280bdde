//! The management API, held against what is promised of it: by the documents of the five systems that it
//! replaces, and by its own description. One file for each subject.

mod access;
mod applications;
mod bad_input;
mod configs;
mod contract;
mod door;
mod event_types;
mod generated;
mod headers;
mod history;
mod idempotency;
mod least_rights;
mod lists;
mod logs;
mod openapi;
mod overrides;
mod paused;
mod resend;
mod samples;
mod trials;
mod webhooks;

use fanfare_tests::{
    client::{Answer, Client},
    patience::until,
    world::World,
};
use serde_json::Value;

/// A wait that no test sees the end of: what is sent again in spite of it was sent again on request.
const NEVER: &str = "24h";

/// What a refusal must say: status, code and field, where it is about one.
type Refusal<'a> = (u16, &'a str, &'a str);

fn assert_refused(what: &str, answer: &Answer, refusal: Refusal<'_>) {
    assert_eq!((answer.status, answer.code(), answer.field()), refusal, "{what}: {}", answer.body);
    assert_eq!(answer.body["success"], false, "{what}");
    assert_ne!(answer.body["error"]["message"].as_str().unwrap_or_default(), "", "{what}: nothing for people to read");
}

/// The text of a member; empty where it is none.
fn text<'a>(value: &'a Value, member: &str) -> &'a str {
    value[member].as_str().unwrap_or_default()
}

/// The members of a list.
fn list(value: &Value) -> &[Value] {
    value.as_array().map(Vec::as_slice).unwrap_or_default()
}

/// What is sent to each endpoint again and again until somebody asks for it: an application whose retries
/// never come by themselves.
async fn patient_world(variables: &[(&str, &str)]) -> World {
    World::of_waits(&[NEVER; 5].join(","), variables).await
}

/// A client that manages all applications.
async fn admin(world: &World) -> Client {
    let admin = world.client().with_key(&world.create_key(&["--role", "admin"]));
    known(&admin, "applications").await;
    admin
}

/// The same, by whole paths.
async fn admin_door(world: &World) -> door::Door {
    let admin = door::Door::of(world).await.with_key(&world.create_key(&["--role", "admin"]));
    until("the key to be known", async || (admin.get("/api/v1/applications").await.status == 200).then_some(())).await;
    admin
}

/// Waits until a client's key is known: ingest hears of it a moment after it was made.
async fn known(client: &Client, path: &str) {
    until("the key to be known", async || (client.get(path).await.status == 200).then_some(())).await;
}

/// Waits until an event has been taken up, and gives it as the API shows it.
async fn event(world: &World, id: &str) -> Value {
    until("the event to be taken up", async || {
        let answer = world.client().get(&format!("events/{id}")).await;
        (answer.status == 200).then(|| answer.data().clone())
    })
    .await
}

/// Waits until a delivery is in a state, and gives it with its attempts.
async fn delivery_in(world: &World, id: &str, state: &str) -> Value {
    until(&format!("{id} to be {state}"), async || {
        let delivery = world.delivery(id).await;
        (delivery["state"] == state).then_some(delivery)
    })
    .await
}

/// The numbers of a delivery's attempts.
fn numbers(delivery: &Value) -> Vec<u64> {
    list(&delivery["attempts"]).iter().filter_map(|attempt| attempt["attempt"].as_u64()).collect()
}
