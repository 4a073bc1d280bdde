//! A filled application for the tests of pages: all states of deliveries, a replay, a parked message, and texts that
//! others wrote.

use serde_json::{Value, json};

use crate::{
    clients::api::Client,
    patience::until,
    receiver::Behaviour,
    world::{Endpoint, World},
};

/// A secret of an endpoint, which no page may show.
pub const SECRET: &str = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";

/// A header's value of an endpoint, which no page may show.
pub const HEADER: &str = "Bearer s3cret-of-the-header";

/// A name with a right-to-left override.
pub const OVERRIDE: &str = "invoice\u{202e}gpj.exe";

/// An Arabic name.
pub const ARABIC: &str = "متجر النور";

/// A name that would be a script, were it not escaped.
pub const SCRIPT: &str = "<script>alert(1)</script>\"'><img src=x onerror=alert(2)>";

/// Key of the event `order.created` that failed.
pub const KEY: &str = "order-1001";

/// Ids of a filled application.
#[derive(Debug, Clone)]
pub struct Scene {
    /// Takes all deliveries.
    pub well: Endpoint,
    /// Answers 500 to all deliveries.
    pub failing: Endpoint,
    /// Is paused, and holds deliveries.
    pub paused: Endpoint,
    /// The event of [`KEY`].
    pub event: String,
    /// A failed delivery of the event.
    pub failed: String,
}

impl Scene {
    /// Fills the world's application, also with texts that others wrote. The world needs a dispatcher.
    ///
    /// # Panics
    /// If the API refuses a request.
    pub async fn fill(world: &World) -> Self {
        create_foreign(world).await;
        Self::shop(world).await
    }

    /// Fills the world's application with the data of a shop. The world needs a dispatcher.
    ///
    /// # Panics
    /// If the API refuses a request.
    pub async fn shop(world: &World) -> Self {
        let client = world.client();
        let described = json!({ "name": "order.paid", "category": "Tests", "description": "For tests",
            "sample": { "n": 1 }, "schema": { "type": "object" } });
        client.post("event-types", &described).await.data();
        let well = world.endpoint("shop", &["order.*"]).await;
        let failing = world.endpoint("billing", &["order.*"]).await;
        let paused = world.endpoint("archive", &["*"]).await;
        world.receiver.script("billing", &[Behaviour::FAIL]);
        rename(client, &well, "shop").await;
        rename(client, &failing, "billing").await;
        rename(client, &paused, "archive").await;
        client.patch(&format!("webhooks/{}", failing.id), &json!({ "fifo": "park" })).await.data();
        client.post(&format!("webhooks/{}/pause", paused.id), &json!({})).await.data();
        world.known().await;
        let event = publish_all(world).await;
        client.post(&format!("webhooks/{}/rotate-secret", well.id), &json!({})).await.data();
        client.post(&format!("webhooks/{}/test", well.id), &json!({ "type": "order.created" })).await.data();
        let failed = world.wait_for_deliveries(&format!("state=failed&webhook={}", failing.id), 5).await;
        world.wait_for_deliveries(&format!("state=delivered&webhook={}", well.id), 5).await;
        let replay = json!({ "since": "2020-01-01T00:00:00Z", "webhook": well.id, "types": ["order.paid"] });
        client.post("replays", &replay).await.data();
        // A page and its text twin are asked one after the other.
        until("the replay to be done", async || {
            let replays = client.get("replays").await;
            (replays.data()[0]["state"] == "done").then_some(())
        })
        .await;
        let of_event = |delivery: &&Value| delivery["event"] == json!(event);
        let failed = failed.iter().find(of_event).expect("a failed delivery of the event");
        let failed = failed["id"].as_str().expect("an id").to_owned();
        Self { well, failing, paused, event, failed }
    }
}

/// Endpoints with a long URL, a secret, headers, and names of others.
async fn create_foreign(world: &World) {
    let client = world.client();
    world.receiver.script("foreign", &[Behaviour::Echo]);
    let long = format!("{}?{}", world.receiver.url("foreign"), "x".repeat(1_900));
    for name in [SCRIPT, ARABIC, OVERRIDE] {
        let new = json!({
            "url": long, "events": ["*"], "name": name, "secret": SECRET,
            "headers": { "authorization": HEADER },
        });
        client.post("webhooks", &new).await.data();
    }
    let disabled = json!({ "url": world.receiver.url("old"), "events": ["*"], "name": "old", "status": "disabled" });
    client.post("webhooks", &disabled).await.data();
}

async fn rename(client: &Client, endpoint: &Endpoint, name: &str) {
    client.patch(&format!("webhooks/{}", endpoint.id), &json!({ "name": name })).await.data();
}

/// Publishes events of several types and sizes. Returns the id of the event of [`KEY`].
async fn publish_all(world: &World) -> String {
    for number in 0..3 {
        world.publish(&json!({ "type": "order.paid", "data": { "order": number } })).await;
    }
    world.publish(&json!({ "type": "invoice.paid", "data": { "note": SCRIPT, "name": ARABIC } })).await;
    world.publish(&json!({ "type": "order.shipped", "data": { "large": "x".repeat(200 * 1024) } })).await;
    let data = json!({ "order": 1001, "total": 49.9, "note": SCRIPT });
    // The failing endpoint parks the ordering key.
    let event = json!({ "type": "order.created", "id": KEY, "data": data, "ordering_key": "order-1001" });
    world.publish(&event).await
}

/// Publishes a message that cannot be read, and waits until the message is parked. Returns the message's id.
///
/// # Panics
/// If the broker refuses the message.
pub async fn park(world: &World, admin: &Client) -> String {
    let routing_key = format!("{}.order.created", world.application);
    let body = format!("{{\"data\": \"{SCRIPT}");
    let sent = world.broker().await.publish(&routing_key, None, &[("tenant", SCRIPT)], body).await;
    assert!(sent.expect("the broker answers"), "the broker refused a message");
    until("the message to be parked", async || {
        let answer = admin.get("parked").await;
        answer.data()[0]["id"].as_str().map(str::to_owned)
    })
    .await
}
