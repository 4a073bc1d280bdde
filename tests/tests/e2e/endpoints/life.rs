//! Effects of an endpoint's status, timeout and deletion on its deliveries.

use std::{collections::BTreeSet, time::Duration};

use fanfare_tests::{
    patience::until,
    receiver::{Behaviour, signature::is_signed},
    world::{Endpoint, World},
};
use futures_util::{StreamExt, stream};
use serde_json::{Value, json};

/// Publishes events until a delivery is in this state, as a dispatcher's configuration may be a second old. Returns the
/// ids of all published events.
async fn publish_until(world: &World, state: &str) -> Vec<String> {
    let mut published = Vec::new();
    until(&format!("a delivery that is {state}"), async || {
        let id = world.publish(&json!({ "type": "a", "data": 1 })).await;
        published.push(id.clone());
        let ended = until("the attempt of the delivery to end", async || {
            let delivery = world.deliveries(&format!("event={id}")).await.into_iter().next()?;
            (delivery["state"] != "sending").then_some(delivery)
        });
        (ended.await["state"] == state).then_some(())
    })
    .await;
    published
}

async fn set_status(world: &World, endpoint: &Endpoint, status: &str) {
    let answer = world.client().patch(&format!("webhooks/{}", endpoint.id), &json!({ "status": status })).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn a_resumed_endpoint_gets_held_events_and_a_disabled_endpoint_gets_none() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["*"]).await;
    set_status(&world, &endpoint, "paused").await;
    let mut published = publish_until(&world, "held").await;
    let held = world.wait_for_deliveries("state=held", 1).await.remove(0);
    assert_eq!((&held["attempt"], &held["next_attempt_at"]), (&json!(1), &Value::Null));

    set_status(&world, &endpoint, "enabled").await;
    world.wait_for_deliveries("state=delivered", published.len()).await;
    set_status(&world, &endpoint, "disabled").await;
    published.extend(publish_until(&world, "skipped").await);
    let skipped = world.wait_for_deliveries("state=skipped", 1).await;
    assert_eq!(skipped.len(), 1);

    let received: Vec<_> = world.receiver.received("a").iter().map(|request| request.event().to_owned()).collect();
    let missing = published.pop().expect("the last, which was skipped");
    assert_eq!(received.iter().collect::<BTreeSet<_>>(), published.iter().collect());
    assert_eq!(received.len(), published.len(), "an event was sent twice");
    assert_eq!(skipped[0]["event"], missing.as_str());
}

/// A scheduled retry follows the endpoint's current status.
#[tokio::test]
async fn a_scheduled_retry_follows_the_status_of_its_endpoint() {
    let world = World::of_waits("3s,3s,3s", &[]).await;
    let mut endpoints = Vec::new();
    for path in ["deleted", "disabled", "paused"] {
        world.receiver.script(path, &[Behaviour::FAIL, Behaviour::OK]);
        endpoints.push(world.endpoint(path, &["*"]).await);
    }
    let _dispatcher = world.dispatcher().await;
    world.publish(&json!({ "type": "a", "data": 1 })).await;
    world.wait_for_deliveries("state=scheduled", 3).await;
    assert_eq!(world.client().delete(&format!("webhooks/{}", endpoints[0].id)).await.status, 200);
    set_status(&world, &endpoints[1], "disabled").await;
    set_status(&world, &endpoints[2], "paused").await;

    for (endpoint, state, reason) in [
        (&endpoints[0], "failed", json!("endpoint_deleted")),
        (&endpoints[1], "skipped", Value::Null),
        (&endpoints[2], "held", json!("retry")),
    ] {
        let query = format!("webhook={}&state={state}", endpoint.id);
        let delivery = world.wait_for_deliveries(&query, 1).await.remove(0);
        assert_eq!(delivery["reason"], reason, "{delivery}");
        let attempts = world.delivery(delivery["id"].as_str().expect("an id")).await["attempts"].clone();
        assert_eq!(attempts.as_array().map(Vec::len), Some(1), "{state}: the failed attempt stays on record");
    }
    set_status(&world, &endpoints[2], "enabled").await;
    let delivered = world.wait_for_deliveries("state=delivered", 1).await.remove(0);
    assert_eq!((&delivered["webhook"], &delivered["attempt"]), (&json!(endpoints[2].id), &json!(2)));
    for (path, count) in [("deleted", 1), ("disabled", 1), ("paused", 2)] {
        assert_eq!(world.receiver.received(path).len(), count, "{path}");
    }
}

#[tokio::test]
async fn an_endpoint_may_have_a_timeout_of_its_own() {
    let world = World::shared().await;
    let slow = Behaviour::Answer(200, Duration::from_secs(3));
    for (path, timeout) in [("patient", 10_000), ("hasty", 300)] {
        world.receiver.script(path, &[slow, Behaviour::OK]);
        let endpoint = world.endpoint(path, &["*"]).await;
        let change = json!({ "timeout_ms": timeout });
        assert_eq!(world.client().patch(&format!("webhooks/{}", endpoint.id), &change).await.status, 200);
    }
    world.publish(&json!({ "type": "a", "data": 1 })).await;
    for delivery in world.wait_for_deliveries("state=delivered", 2).await {
        let attempts = world.delivery(delivery["id"].as_str().expect("an id")).await["attempts"].clone();
        let outcomes: Vec<_> =
            attempts.as_array().expect("attempts").iter().map(|attempt| &attempt["outcome"]).collect();
        let took = attempts[0]["duration_ms"].as_u64().expect("a duration");
        if delivery["url"] == world.receiver.url("hasty") {
            assert_eq!(outcomes, ["timed_out", "answered"]);
            assert!((300..1500).contains(&took), "{took} ms");
        } else {
            assert_eq!(outcomes, ["answered"]);
            assert!((3000..5000).contains(&took), "{took} ms: expected the endpoint's own timeout, not 2 s");
        }
    }
}

/// More endpoints than a dispatcher attempts directly after persisting the event: the rest is fanned out.
#[tokio::test]
async fn an_event_reaches_each_of_very_many_endpoints_once() {
    const ENDPOINTS: usize = 250;
    let world = World::new().await;
    let made = stream::iter(0..ENDPOINTS).map(async |number| world.endpoint(&format!("wide/{number}"), &["*"]).await);
    let endpoints: Vec<Endpoint> = made.buffer_unordered(8).collect().await;
    set_status(&world, &endpoints[0], "paused").await;
    set_status(&world, &endpoints[1], "disabled").await;
    let _dispatcher = world.dispatcher().await;
    let id = world.publish(&json!({ "type": "a", "data": 1 })).await;

    let delivered = "SELECT count(*) FROM all_deliveries WHERE state = 'delivered'";
    until("all deliveries", async || (world.count(delivered).await == ENDPOINTS as i64 - 2).then_some(())).await;
    for (position, endpoint) in endpoints.iter().enumerate() {
        let received = world.receiver.received(&endpoint.path);
        assert_eq!(received.len(), usize::from(position > 1), "{}", endpoint.path);
        assert!(received.iter().all(|request| request.event() == id && is_signed(request, &endpoint.secret)));
    }
    assert_eq!(world.deliveries("state=held").await[0]["webhook"], endpoints[0].id.as_str());
    assert_eq!(world.deliveries("state=skipped").await[0]["webhook"], endpoints[1].id.as_str());
    assert_eq!(world.count("SELECT count(*) FROM all_attempts").await, ENDPOINTS as i64 - 2);
}

/// An event published after the answer to a change follows the change, without a wait for the processes.
#[tokio::test]
async fn a_change_applies_to_the_next_event_after_the_answer() {
    let world = World::new().await;
    let _dispatchers = (world.dispatcher().await, world.dispatcher().await);
    let client = world.client();
    for round in 0..15 {
        let (path, moved) = (format!("at{round}"), format!("moved{round}"));
        let new = json!({ "url": world.receiver.url(&path), "events": [format!("round.{round}")] });
        let described = json!({ "name": format!("round.{round}"), "category": "a", "description": "b", "sample": 1 });
        assert_eq!(client.post("event-types", &described).await.status, 201);
        let webhook = client.post("webhooks", &new).await.data()["id"].as_str().expect("an id").to_owned();
        // Publishes right after each change, and waits for the delivery before the next change.
        let becomes = async |state: &str| {
            let event = world.publish(&json!({ "type": format!("round.{round}"), "data": round })).await;
            world.wait_for_deliveries(&format!("event={event}&state={state}"), 1).await;
        };
        becomes("delivered").await;
        let change = json!({ "url": world.receiver.url(&moved) });
        assert_eq!(client.patch(&format!("webhooks/{webhook}"), &change).await.status, 200);
        becomes("delivered").await;
        assert_eq!(client.post(&format!("webhooks/{webhook}/disable"), &json!({})).await.status, 200);
        becomes("skipped").await;
        assert_eq!(client.post(&format!("webhooks/{webhook}/enable"), &json!({})).await.status, 200);
        becomes("delivered").await;
        assert_eq!((world.receiver.received(&path).len(), world.receiver.received(&moved).len()), (1, 2));
    }
    let admin = world.admin().await;
    for _ in 0..10 {
        let application = admin.post("applications", &json!({ "name": "new" })).await.data()["id"].clone();
        let new = json!({ "role": "publish", "application": application });
        let key = admin.post("keys", &new).await.data()["key"].as_str().expect("a key").to_owned();
        let published = client.with_key(&key).post("events", &json!({ "type": "a", "data": 1 })).await;
        assert_eq!(published.status, 202, "{}", published.body);
    }
}
