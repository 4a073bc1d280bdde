//! Disabled and paused webhooks. Skipped deliveries can be resent. Held deliveries are bounded by age and number, and
//! are sent at the endpoint's rate.

use std::time::Duration;

use fanfare_tests::{patience::until, receiver::Behaviour, world::World};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::{delivery_in, list, numbers, text};

async fn show(world: &World, webhook: &str) -> Value {
    world.client().get(&format!("webhooks/{webhook}")).await.data().clone()
}

/// Publishes `count` events one after the other, with different acceptance times: Fanfare drops the oldest first.
async fn publish(world: &World, count: usize) -> Vec<String> {
    let mut events = Vec::new();
    for number in 0..count {
        let before = world.deliveries("").await.len();
        events.push(world.publish(&json!({ "type": "a", "data": number })).await);
        world.wait_for_deliveries("", before + 1).await;
    }
    events
}

#[tokio::test]
async fn deliveries_skipped_for_a_disabled_webhook_can_be_resent() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["*"]).await;
    world.client().post(&format!("webhooks/{}/disable", endpoint.id), &json!({})).await.data();
    world.known().await;
    let events = publish(&world, 3).await;
    let skipped = world.wait_for_deliveries("state=skipped", 3).await;
    for delivery in &skipped {
        let shown = world.delivery(text(delivery, "id")).await;
        assert_eq!((&shown["attempts"], &shown["next_attempt_at"]), (&json!([]), &Value::Null));
        assert!(!text(&shown, "finished_at").is_empty() && !text(&shown, "body").is_empty(), "{shown}");
    }
    assert_eq!(show(&world, &endpoint.id).await.get("held"), None, "a disabled endpoint holds deliveries");
    world.client().post(&format!("webhooks/{}/enable", endpoint.id), &json!({})).await.data();
    world.known().await;
    let filter = json!({ "webhook": endpoint.id, "state": "skipped" });
    let resent = world.client().post("deliveries/resend", &filter).await.data().clone();
    assert_eq!((&resent["resent"], &resent["has_more"]), (&json!(3), &json!(false)));
    for delivery in world.wait_for_deliveries("state=delivered", 3).await {
        assert_eq!(
            numbers(&world.delivery(text(&delivery, "id")).await),
            [1],
            "a skipped delivery starts with attempt 1"
        );
    }
    let mut received: Vec<_> = world.receiver.received("a").iter().map(|request| request.event().to_owned()).collect();
    let mut expected = events;
    received.sort();
    expected.sort();
    assert_eq!(received, expected);
}

#[tokio::test]
async fn a_paused_webhook_holds_a_limited_number_and_releases_at_its_rate() {
    let world = World::of_variables(&[("FANFARE_MAX_HELD", "6")]).await;
    let endpoint = world.endpoint("a", &["*"]).await;
    let other = world.endpoint("other", &["*"]).await;
    let _dispatcher = world.dispatcher().await;
    for webhook in [&endpoint, &other] {
        world.change(webhook, &json!({ "rate_per_second": 1 })).await;
        world.client().post(&format!("webhooks/{}/pause", webhook.id), &json!({})).await.data();
    }
    world.known().await;
    let before = Timestamp::now();
    let events = publish(&world, 9).await;
    // Each endpoint holds at most six deliveries; the oldest beyond six fail.
    let of = |webhook: &str, state: &str| format!("webhook={webhook}&state={state}");
    let failed = world.wait_for_deliveries(&of(&endpoint.id, "failed"), 3).await;
    let given_up: Vec<_> = failed.iter().rev().map(|delivery| text(delivery, "event").to_owned()).collect();
    assert_eq!(given_up, &events[..3], "the failed deliveries are not the oldest");
    for delivery in &failed {
        let shown = world.delivery(text(delivery, "id")).await;
        assert_eq!((text(&shown, "reason"), &shown["attempts"]), ("too_many_held", &json!([])));
        assert_ne!(text(&shown, "finished_at"), "");
    }
    let held = show(&world, &endpoint.id).await["held"].clone();
    assert_eq!(held["deliveries"], 6);
    let oldest: Timestamp = text(&held, "oldest_accepted_at").parse().expect("a timestamp");
    assert!(oldest >= before && oldest <= Timestamp::now(), "{held}");
    let of_oldest = world.deliveries(&format!("event={}&webhook={}", events[3], endpoint.id)).await.remove(0);
    assert_eq!(
        (text(&of_oldest, "state"), text(&of_oldest, "accepted_at")),
        ("held", text(&held, "oldest_accepted_at"))
    );
    assert!(world.receiver.all().is_empty(), "a paused endpoint got a request");

    // The rate delays the last deliveries: some are still queued after the first success.
    world.client().post(&format!("webhooks/{}/enable", endpoint.id), &json!({})).await.data();
    world.wait_for_deliveries(&of(&endpoint.id, "delivered"), 1).await;
    assert!(
        list(&json!(world.deliveries(&of(&endpoint.id, "queued")).await)).len() >= 2,
        "the held deliveries were sent without a rate"
    );
    world.wait_for_deliveries(&of(&endpoint.id, "delivered"), 6).await;
    let received: Vec<_> = world.receiver.received("a").iter().map(|request| request.event().to_owned()).collect();
    let mut sorted = received.clone();
    sorted.sort();
    sorted.dedup();
    let mut expected = events[3..].to_vec();
    expected.sort();
    assert_eq!((received.len(), sorted), (6, expected), "a delivery is missing or repeated");
    assert_eq!(show(&world, &endpoint.id).await.get("held"), None);
    assert_eq!(show(&world, &other.id).await["held"]["deliveries"], 6, "the other endpoint is still paused");
}

#[tokio::test]
async fn deliveries_held_for_too_long_fail() {
    let world = World::of_variables(&[("FANFARE_MAX_HELD_AGE", "1s")]).await;
    let endpoint = world.endpoint("a", &["*"]).await;
    let _dispatcher = world.dispatcher().await;
    world.change(&endpoint, &json!({ "status": "paused" })).await;
    publish(&world, 2).await;
    for delivery in world.wait_for_deliveries("state=failed", 2).await {
        assert_eq!((text(&delivery, "reason"), &delivery["retry_count"]), ("held_too_long", &json!(0)), "{delivery}");
    }
    assert_eq!(show(&world, &endpoint.id).await.get("held"), None);
    // A delivery failed as `held_too_long` can be resent.
    world.change(&endpoint, &json!({ "status": "enabled" })).await;
    let resent = world.client().post("deliveries/resend", &json!({ "webhook": endpoint.id })).await;
    assert_eq!(resent.data()["resent"], 2);
    world.wait_for_deliveries("state=delivered", 2).await;
}

/// A released delivery keeps its position in the schedule, and its expiry starts anew.
#[tokio::test]
async fn a_released_delivery_keeps_its_attempts_and_gets_a_new_expiry() {
    let world = World::of_variables(&[("FANFARE_EXPIRY", "1s")]).await;
    let new = json!({
        "url": world.receiver.url("a"), "events": ["*"], "timeout_ms": 200, "schedule": ["1s"], "status": "paused",
    });
    let webhook = text(world.client().post("webhooks", &new).await.data(), "id").to_owned();
    world.receiver.script("a", &[Behaviour::FAIL]);
    let _dispatcher = world.dispatcher().await;
    let first = publish(&world, 1).await.remove(0);
    let held = world.wait_for_deliveries("state=held", 1).await.remove(0);
    let delivery = text(&held, "id");
    // The delivery expires after two timeouts, a wait and one second.
    let over = "SELECT count(*) FROM all_deliveries WHERE expires_at < now()";
    until("the delivery to expire", async || (world.count(over).await == 1).then_some(())).await;
    assert_eq!(world.delivery(delivery).await["state"], "held", "a held delivery has expired");
    let switch = async |switch: &str| {
        world.client().post(&format!("webhooks/{webhook}/{switch}"), &json!({})).await.data();
        world.known().await;
    };
    switch("enable").await;
    delivery_in(&world, delivery, "scheduled").await;
    // Paused again before the last attempt.
    switch("pause").await;
    let again = delivery_in(&world, delivery, "held").await;
    assert_eq!(numbers(&again), [1], "the first of two attempts has failed");
    switch("enable").await;
    let failed = delivery_in(&world, delivery, "failed").await;
    assert_eq!(
        (text(&failed, "reason"), numbers(&failed)),
        ("attempts_exhausted", vec![1, 2]),
        "the second attempt is the last"
    );
    assert!(world.receiver.received("a").iter().all(|request| request.event() == first));
}

/// Endpoints resumed at the same time are served side by side, whatever the size of each backlog.
#[tokio::test]
async fn a_large_backlog_does_not_delay_a_small_backlog() {
    let world = World::shared().await;
    let much = world.endpoint("much", &["a"]).await;
    let little = world.endpoint("little", &["order"]).await;
    world.receiver.script("much", &[Behaviour::Answer(200, Duration::from_millis(500))]);
    for endpoint in [&much, &little] {
        world.change(endpoint, &json!({ "status": "paused" })).await;
    }
    // The larger backlog is older, and its endpoint id comes first: a common queue would serve this backlog first.
    for (kind, count) in [("a", 30), ("order", 2)] {
        let events: Vec<_> = (0..count).map(|number| json!({ "type": kind, "data": number })).collect();
        assert_eq!(world.client().post("events/batch", &json!(events)).await.status, 202);
        let of_kind = format!("state = 'queued' AND event_id IN (SELECT id FROM events WHERE type = '{kind}')");
        until("all deliveries to be queued", async || {
            (world.rows("all_deliveries", &of_kind).await == count).then_some(())
        })
        .await;
    }
    for endpoint in [&much, &little] {
        world.client().post(&format!("webhooks/{}/enable", endpoint.id), &json!({})).await.data();
    }
    world.receiver.wait_for("little", 2).await;
    let before = world.receiver.received("much").len();
    assert!(before < 30, "the larger backlog was sent first");
    world.receiver.wait_for("much", before + 1).await;
}
