//! Backlogs of endpoints, as shown by the API and the metrics.

use std::time::Duration;

use fanfare_tests::{
    clients::api::Client,
    metrics::metric,
    patience::until,
    receiver::Behaviour,
    world::{Endpoint, Setup, World, dialects::Waits},
};
use jiff::Timestamp;
use serde_json::{Value, json};

const OWNED: &str = r#"fanfare_backlogs{state="owned"}"#;
const SLOW: &str = r#"fanfare_lanes{state="slow"}"#;
const OPEN: &str = r#"fanfare_lanes{state="open"}"#;
const PLACES_USED: &str = r#"fanfare_places{state="used"}"#;

/// The backlog of an endpoint; null without a backlog.
async fn backlog_of(client: &Client, endpoint: &Endpoint) -> Value {
    client.get(&format!("webhooks/{}/backlog", endpoint.id)).await.data().clone()
}

/// Waits until the endpoint has a backlog that fulfils `is_so`.
async fn backlog(world: &World, endpoint: &Endpoint, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    until(&format!("a backlog that {what}"), async || {
        Some(backlog_of(world.client(), endpoint).await).filter(|backlog| !backlog.is_null() && is_so(backlog))
    })
    .await
}

async fn no_backlog(world: &World, endpoint: &Endpoint) {
    until("no backlog", async || backlog_of(world.client(), endpoint).await.is_null().then_some(())).await;
    assert_eq!(world.count("SELECT count(*) FROM endpoint_backlogs").await, 0);
}

async fn publish(world: &World, count: usize) {
    for number in 0..count {
        world.publish(&json!({ "type": "a", "data": number })).await;
    }
}

#[tokio::test]
async fn a_backlog_is_shown_until_all_deliveries_are_sent() {
    const EVENTS: usize = 16;
    let world = World::of_variables(&[("FANFARE_LANE_BOUND", "1")]).await;
    let endpoint = world.endpoint("one", &["a"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::Answer(200, Duration::from_millis(1500))]);
    publish(&world, EVENTS).await;
    assert_eq!(backlog_of(world.client(), &endpoint).await, Value::Null);
    let dispatcher = world.dispatcher().await;
    let is_full = |backlog: &Value| backlog["queued"].as_u64() > Some(8) && backlog["reason"] == "lane_full";
    until("a backlog in the API and in the metrics", async || {
        let shown = backlog(&world, &endpoint, "is full", is_full).await;
        assert_eq!((&shown["webhook"], shown["owner"].is_string()), (&json!(endpoint.id), true), "{shown}");
        (metric(&dispatcher, OWNED).await == 1.0).then_some(())
    })
    .await;
    world.receiver.script(&endpoint.path, &[Behaviour::OK]);
    world.wait_for_deliveries("state=delivered", EVENTS).await;
    no_backlog(&world, &endpoint).await;
    until("no owned backlog in the metrics", async || (metric(&dispatcher, OWNED).await == 0.0).then_some(())).await;
}

#[tokio::test]
async fn an_endpoint_that_hangs_is_counted_as_slow_until_it_is_back() {
    let world = World::of(Setup { timeout: Some("6s".to_owned()), ..Setup::new(&[]) }).await;
    let endpoint = world.endpoint("one", &["a"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::Hang]);
    let dispatcher = world.dispatcher().await;
    publish(&world, 6).await;
    until("the metrics to count a slow lane and used places", async || {
        let (slow, used) = (metric(&dispatcher, SLOW).await, metric(&dispatcher, PLACES_USED).await);
        (slow == 1.0 && used >= 2.0).then_some(())
    })
    .await;
    world.receiver.script(&endpoint.path, &[Behaviour::OK]);
    world.wait_for_deliveries("state=delivered", 6).await;
    no_backlog(&world, &endpoint).await;
    until("no place to be used", async || (metric(&dispatcher, PLACES_USED).await == 0.0).then_some(())).await;
}

#[tokio::test]
async fn an_open_breaker_is_shown_across_dispatchers_until_the_endpoint_is_back() {
    let setup = Setup { waits: Waits::of(&["1s"; 40].join(",")), ..Setup::new(&[("FANFARE_BREAKER_AFTER", "3")]) };
    let world = World::of(setup).await;
    let endpoint = world.endpoint("failing", &["a"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::FAIL]);
    let dispatcher = world.dispatcher().await;
    publish(&world, 5).await;
    let is_open = |backlog: &Value| {
        let probe = backlog["next_probe_at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        let failures = backlog["failures"].as_u64();
        backlog["reason"] == "breaker_open" && failures >= Some(3) && probe > Some(Timestamp::now())
    };
    let first = backlog(&world, &endpoint, "is open", is_open).await;
    until("the metrics to count an open breaker", async || (metric(&dispatcher, OPEN).await == 1.0).then_some(()))
        .await;

    assert_eq!(first["rate_per_second"], Value::Null);
    world.change(&endpoint, &json!({ "rate_per_second": 10 })).await;
    backlog(&world, &endpoint, "has a rate", |backlog| backlog["rate_per_second"] == 10).await;
    let (_, other) = world.other_application().await;
    assert_eq!(other.get(&format!("webhooks/{}/backlog", endpoint.id)).await.status, 404);

    // The next owner continues with the stored breaker.
    dispatcher.kill();
    let next = world.dispatcher().await;
    let owner_changed = |backlog: &Value| is_open(backlog) && backlog["owner"] != first["owner"];
    let second = backlog(&world, &endpoint, "has another owner", owner_changed).await;
    assert!(second["failures"].as_u64() >= first["failures"].as_u64(), "{first} {second}");

    world.receiver.script(&endpoint.path, &[Behaviour::OK]);
    world.wait_for_deliveries("state=delivered", 5).await;
    no_backlog(&world, &endpoint).await;
    until("the breaker to be closed", async || (metric(&next, OPEN).await == 0.0).then_some(())).await;
}

#[tokio::test]
async fn a_dispatcher_that_ends_leaves_its_backlogs_to_the_next() {
    let world = World::of_variables(&[("FANFARE_LANE_BOUND", "1")]).await;
    let endpoint = world.endpoint("slow", &["a"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::Answer(200, Duration::from_millis(1500)), Behaviour::OK]);
    let dispatcher = world.dispatcher().await;
    publish(&world, 8).await;
    backlog(&world, &endpoint, "has an owner", |backlog| backlog["owner"].is_string()).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, 0);
    let left = backlog_of(world.client(), &endpoint).await;
    assert_eq!(left["owner"], Value::Null, "{left}");
    assert_eq!(world.count("SELECT count(*) FROM processes WHERE kind = 'dispatcher'").await, 0);
    let _next = world.dispatcher().await;
    world.wait_for_deliveries("state=delivered", 8).await;
    no_backlog(&world, &endpoint).await;
    assert_eq!(world.receiver.received(&endpoint.path).len(), 8, "each event is sent once");
}
