//! A valid request for each documented route.

use fanfare_tests::{patience::until, world::World};
use serde_json::{Value, json};

use crate::api::{checked_client::CheckedClient, conformance::contract::Route, text};

/// Objects that the requests refer to: an object of each kind, all of the same application.
#[derive(Debug, Clone)]
pub(crate) struct Things {
    pub(crate) application: String,
    pub(crate) webhook: String,
    pub(crate) delivery: String,
    pub(crate) event: String,
    pub(crate) event_type: String,
    pub(crate) parked: String,
    pub(crate) replay: String,
    /// The id of a key that no client uses.
    pub(crate) key: String,
    /// The id of a session that nobody has opened.
    pub(crate) session: String,
    /// A plan without applications.
    pub(crate) plan: String,
    /// The URL for a new webhook.
    pub(crate) url: String,
}

/// Text in every field that another application must not read.
pub(crate) const CONFIDENTIAL: &str = "confidential";

impl Things {
    /// Creates a webhook with a delivered event, and the other objects. Needs a running dispatcher.
    pub(crate) async fn of(world: &World) -> Self {
        let event_type = format!("{CONFIDENTIAL}.happened");
        world.describe(&event_type).await;
        let new = json!({
            "url": world.receiver.url(CONFIDENTIAL), "events": [event_type], "name": CONFIDENTIAL,
            "headers": { "x-confidential": CONFIDENTIAL }, "email": "confidential@example.com",
            "feed": "copy", "digest": true,
        });
        let webhook = text(world.client().post("webhooks", &new).await.data(), "id").to_owned();
        // Today has a digest on request. The webhook gets a digest tomorrow.
        let today = "UPDATE endpoints SET digest_from = (now() AT TIME ZONE 'UTC')::date WHERE digest_from IS NOT NULL";
        world.database().await.execute(today, &[]).await.expect("an update");
        world.known().await;
        let event = world.publish(&json!({ "type": event_type, "data": CONFIDENTIAL, "id": CONFIDENTIAL })).await;
        let delivery = text(&world.wait_for_deliveries("state=delivered", 1).await[0], "id").to_owned();
        let (parked, replay, key) = (park(world).await, replay(world).await, key(world));
        let link = world.client().post("portal-links", &json!({ "name": CONFIDENTIAL })).await;
        let session = text(link.data(), "id").to_owned();
        let plan = CONFIDENTIAL.to_owned();
        let made = "INSERT INTO plans (name, events_per_day) VALUES ($1, 1000000) ON CONFLICT DO NOTHING";
        world.database().await.execute(made, &[&plan]).await.expect("a plan");
        let (application, url) = (world.application.clone(), world.receiver.url("another"));
        Self { application, webhook, delivery, event, event_type, parked, replay, key, session, plan, url }
    }

    /// Ids of objects that do not exist.
    pub(crate) fn unknown() -> Self {
        let id = |prefix: &str| format!("{prefix}_00000000000000000000000000");
        Self {
            application: id("app"),
            webhook: id("wh"),
            delivery: id("dlv"),
            event: id("evt"),
            event_type: "nobody.described.it".to_owned(),
            parked: id("prk"),
            replay: id("rpl"),
            key: id("key"),
            session: id("ses"),
            plan: "nobody-made-this".to_owned(),
            url: "https://example.com/".to_owned(),
        }
    }

    /// The path of a route with the matching id.
    pub(crate) fn path(&self, route: &Route) -> String {
        let Some((kind, _)) = route.path.split_once("/{") else { return route.path.to_owned() };
        let id = match kind.rsplit('/').next().unwrap_or_default() {
            "applications" => &self.application,
            "webhooks" => &self.webhook,
            "deliveries" => &self.delivery,
            "events" => &self.event,
            "event-types" => &self.event_type,
            "parked" => &self.parked,
            "replays" => &self.replay,
            "keys" => &self.key,
            "sessions" => &self.session,
            "plans" => &self.plan,
            other => panic!("the test has no id for {other}: add one to Things"),
        };
        route.path.replace("{id}", id).replace("{name}", id).replace("{version}", "1")
    }

    /// The body of a request to a route; `None` for a route without a body.
    pub(crate) fn body(&self, route: &Route) -> Option<Value> {
        let event = json!({ "type": "order.created", "data": { "n": 1 } });
        let Self { application, webhook, delivery, event_type, parked, url, .. } = self;
        Some(match route.name() {
            "create_application" => json!({ "name": "another" }),
            "change_application" => json!({ "name": "renamed" }),
            "put_plan" => json!({ "events_per_day": 1_000_000 }),
            "create_key" => json!({ "role": "publish", "application": application }),
            "describe_event_type" => json!({ "name": event_type, "category": "a", "description": "b", "sample": 1,
                "schema": { "type": "integer" } }),
            "import_event_types" => json!({ "openapi": "3.1.0", "webhooks": { event_type: { "post": { "requestBody": {
                "content": { "application/json": { "schema": { "type": "integer" } } } } } } } }),
            "publish_event" => event,
            "publish_events" => json!([event]),
            "create_webhook" => json!({ "url": url, "events": ["order.created"] }),
            "preview_webhook" => json!({ "url": url, "events": ["order.created"] }),
            "test_filter" => json!({ "filter": "data.a == 1", "events": ["order.created"] }),
            "test_template" => json!({ "template": { "text": "{{ type }}" }, "events": ["order.created"] }),
            "put_webhook_configs" => json!({ "id": webhook, "name": "renamed" }),
            "create_portal_link" => json!({ "name": "another" }),
            "resume_ordering_keys" => json!({ "key": "parked" }),
            "rotate_key" => json!({ "overlap_seconds": 60 }),
            "rotate_signing_key" | "rotate_secret" => json!({ "overlap_seconds": 0 }),
            "test_webhook" => json!({ "data": { "n": 1 } }),
            "verify_signature" => json!({ "headers": { "webhook-id": event_type }, "body": "{}" }),
            "send_event" => json!({ "webhook": webhook }),
            "put_back_parked" => json!({ "message_id": "mended" }),
            "put_back_many_parked" | "discard_many_parked" => json!({ "ids": [parked] }),
            "create_replay" | "count_replay" => json!({ "since": "2020-01-01T00:00:00Z", "types": [event_type] }),
            "resend_deliveries" => json!({ "deliveries": [delivery] }),
            // PATCH and PUT share the path.
            _ if route.path == "/api/v1/webhooks/{id}" && route.body().is_some() => json!({ "name": "renamed" }),
            other => {
                assert!(route.body().is_none(), "the test has no body for {other}: add one to Things::body");
                return None;
            }
        })
    }
}

/// Creates a key. Returns the id, which is a part of the key.
fn key(world: &World) -> String {
    let token = world.create_key(&["--role", "publish", "--application", &world.application]);
    format!("key_{}", token.split('_').nth(1).expect("an id"))
}

/// Starts and pauses a replay. Returns the id.
pub(crate) async fn replay(world: &World) -> String {
    let new = json!({ "since": "2020-01-01T00:00:00Z", "types": [format!("{CONFIDENTIAL}.happened")] });
    until("a replay that waits", async || {
        let replay = text(world.client().post("replays", &new).await.data(), "id").to_owned();
        // A replay may be done before the pause.
        let paused = world.client().post(&format!("replays/{replay}/pause"), &Value::Null).await;
        (paused.status == 200).then_some(replay)
    })
    .await
}

/// Publishes a message that a dispatcher parks. Returns the id. Needs a running dispatcher.
pub(crate) async fn park(world: &World) -> String {
    let admin = CheckedClient::admin(world).await;
    let newest = async || text(&admin.get("/api/v1/parked?limit=1").await.data()[0], "id").to_owned();
    let before = newest().await;
    let routing_key = format!("{}.{CONFIDENTIAL}", world.application);
    world.broker().await.publish(&routing_key, None, &[], r#"{"data":1}"#).await.expect("the broker");
    until("the message to be parked", async || Some(newest().await).filter(|now| *now != before)).await
}
