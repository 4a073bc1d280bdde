//! Applications of several dialects in a single world.

use std::time::Duration;

use fanfare_tests::{
    clients::api::Client,
    patience::{patience, until_within},
    world::{Setup, World, dialects::Waits, process::fanfare},
};
use hyper::Method;
use serde_json::{Value, json};

/// A world with the built-in dialects, timeouts and waits.
pub(crate) async fn shipped_world() -> World {
    // An empty value counts as no folder.
    let setup = Setup::new(&[("FANFARE_DIALECTS", "")]);
    World::of(Setup { waits: Waits::Real, timeout: None, ..setup }).await
}

/// An application of a dialect, with a client that manages the application.
pub(crate) struct Tenant {
    pub(crate) dialect: &'static str,
    pub(crate) application: String,
    pub(crate) client: Client,
}

#[derive(Debug, Clone)]
pub(crate) struct Webhook {
    pub(crate) id: String,
    pub(crate) secret: String,
}

impl Tenant {
    /// Creates the application and a key, as an operator does.
    pub(crate) async fn new(world: &World, dialect: &'static str) -> Self {
        let application = fanfare(&world.variables, &["app", "create", dialect, "--dialect", dialect]);
        let client = world.client_of(&["--role", "manage", "--application", &application]).await;
        Self { dialect, application, client }
    }

    /// Creates a webhook, and waits until the dispatchers have loaded the change.
    pub(crate) async fn webhook(&self, world: &World, url: &str, events: &[&str]) -> Webhook {
        self.webhook_of(world, &json!({ "url": url, "events": events })).await
    }

    /// Creates a webhook with these fields, and waits until the dispatchers have loaded the change.
    pub(crate) async fn webhook_of(&self, world: &World, fields: &Value) -> Webhook {
        let answer = self.client.post("webhooks", fields).await;
        world.known().await;
        let text = |name: &str| answer.data()[name].as_str().expect("a text").to_owned();
        Webhook { id: text("id"), secret: text("secret") }
    }

    /// Publishes an event. Fails if ingest refuses the event. Returns the event id.
    pub(crate) async fn publish(&self, event: &Value) -> String {
        let answer = self.client.post("events", event).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.data()["id"].as_str().expect("an id").to_owned()
    }

    /// Like [`Self::publish`], with the exact bytes of the event.
    pub(crate) async fn publish_as_it_is(&self, event: &'static str) -> String {
        let headers = [("content-type", "application/json")];
        let answer = self.client.send(Method::POST, "events", &headers, event).await.expect("an answer");
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.data()["id"].as_str().expect("an id").to_owned()
    }

    /// Resends a delivery. Returns the number of the new attempt.
    pub(crate) async fn resend(&self, delivery: &Value) -> u64 {
        let path = format!("deliveries/{}/resend", delivery["id"].as_str().expect("an id"));
        self.client.post(&path, &json!({})).await.data()["attempt"].as_u64().expect("a number")
    }

    /// Waits until the delivery of an event to a webhook is in this state. Returns the delivery with all attempts.
    pub(crate) async fn delivery(&self, event: &str, webhook: &Webhook, state: &str) -> Value {
        // Upper bound of the longest schedule with short waits and jitter.
        let schedule = Duration::from_secs(15);
        let path = format!("deliveries?event={event}&webhook={}&state={state}", webhook.id);
        let what = format!("the delivery of {event} in {} to be {state}", self.dialect);
        let id = until_within(patience() + schedule, &what, async || {
            let found = self.client.get(&path).await;
            found.data()[0]["id"].as_str().map(str::to_owned)
        })
        .await;
        self.client.get(&format!("deliveries/{id}")).await.data().clone()
    }
}

pub(crate) fn attempts(delivery: &Value) -> &[Value] {
    delivery["attempts"].as_array().expect("attempts")
}
