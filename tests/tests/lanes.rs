//! What the API and the metrics show of the lanes of endpoints, in each dispatcher.

use std::time::Duration;

use fanfare_tests::{
    client::Client,
    dialects::Waits,
    metrics::metric,
    patience::until,
    receiver::Behaviour,
    world::{Endpoint, Setup, World},
};
use jiff::Timestamp;
use serde_json::{Value, json};

const WAITING: &str = r#"fanfare_lanes{state="waiting"}"#;
const SLOW: &str = r#"fanfare_lanes{state="slow"}"#;
const OPEN: &str = r#"fanfare_lanes{state="open"}"#;
const SLOW_USED: &str = r#"fanfare_budget_used{budget="slow"}"#;

async fn lanes_of(client: &Client, endpoint: &Endpoint) -> Vec<Value> {
    let answer = client.get(&format!("webhooks/{}/lanes", endpoint.id)).await;
    answer.data()["lanes"].as_array().cloned().expect("a list")
}

/// Waits until the only dispatcher shows the endpoint's lane, and it is like this.
async fn lane(world: &World, endpoint: &Endpoint, what: &str, is_so: impl Fn(&Value) -> bool) -> Value {
    until(&format!("a lane that {what}"), async || {
        let mut lanes = lanes_of(world.client(), endpoint).await;
        assert!(lanes.len() <= 1, "{lanes:?}");
        lanes.pop().filter(&is_so)
    })
    .await
}

async fn no_lane(world: &World, endpoint: &Endpoint) {
    until("nothing to show", async || lanes_of(world.client(), endpoint).await.is_empty().then_some(())).await;
}

async fn publish(world: &World, count: usize) {
    for number in 0..count {
        world.publish(&json!({ "type": "a", "data": number })).await;
    }
}

#[tokio::test]
async fn what_waits_for_its_turn_is_shown_until_it_has_had_it() {
    const EVENTS: usize = 16;
    let world = World::on_shared(&[("FANFARE_LANE_BOUND", "1")]).await;
    let endpoint = world.endpoint("one", &["a"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::Answer(200, Duration::from_millis(500))]);
    publish(&world, EVENTS).await;
    let dispatcher = world.dispatcher().await;
    let is_full = |lane: &Value| lane["in_flight"] == 1 && lane["bound"] == 1 && lane["waiting"].as_u64() > Some(0);
    until("a lane that is full, in the metrics, too", async || {
        lane(&world, &endpoint, "is full", is_full).await;
        (metric(&dispatcher, WAITING).await == 1.0).then_some(())
    })
    .await;
    world.receiver.script(&endpoint.path, &[Behaviour::OK]);
    world.wait_for_deliveries("state=delivered", EVENTS).await;
    no_lane(&world, &endpoint).await;
    assert_eq!(metric(&dispatcher, WAITING).await, 0.0);
}

#[tokio::test]
async fn an_endpoint_that_hangs_is_shown_as_slow_until_it_is_back() {
    let world = World::of(Setup { timeout: Some("6s".to_owned()), ..Setup::new(&[]) }).await;
    let endpoint = world.endpoint("one", &["a"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::Hang]);
    let dispatcher = world.dispatcher().await;
    publish(&world, 6).await;
    let hangs = |lane: &Value| lane["in_flight"] == 2 && lane["bound"] == 2 && lane["pace"] == "slow";
    let shown = lane(&world, &endpoint, "hangs", hangs).await;
    assert_eq!((&shown["breaker"], &shown["breaker_open_until"]), (&json!("closed"), &Value::Null));
    until("the metrics to say so", async || {
        let (slow, used) = (metric(&dispatcher, SLOW).await, metric(&dispatcher, SLOW_USED).await);
        (slow == 1.0 && used == 2.0).then_some(())
    })
    .await;
    world.receiver.script(&endpoint.path, &[Behaviour::OK]);
    world.wait_for_deliveries("state=delivered", 6).await;
    no_lane(&world, &endpoint).await;
}

#[tokio::test]
async fn an_open_breaker_is_shown_until_the_endpoint_is_back_or_the_dispatcher_gone() {
    let setup = Setup { waits: Waits::of(&["1s"; 40].join(",")), ..Setup::new(&[("FANFARE_BREAKER_AFTER", "3")]) };
    let world = World::of(setup).await;
    let endpoint = world.endpoint("failing", &["a"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::FAIL]);
    let dispatcher = world.dispatcher().await;
    publish(&world, 5).await;
    let is_open = |lane: &Value| {
        let until = lane["breaker_open_until"].as_str().and_then(|until| until.parse::<Timestamp>().ok());
        lane["breaker"] == "open" && lane["failures"].as_u64() >= Some(3) && until > Some(Timestamp::now())
    };
    let first = lane(&world, &endpoint, "is open", is_open).await;
    assert_eq!(metric(&dispatcher, OPEN).await, 1.0);

    let path = format!("webhooks/{}/lanes", endpoint.id);
    assert_eq!(world.client().get(&path).await.data()["rate_per_second"], Value::Null);
    world.change(&endpoint, &json!({ "rate_per_second": 10 })).await;
    assert_eq!(world.client().get(&path).await.data()["rate_per_second"], 10);
    let (_, other) = world.other_application().await;
    assert_eq!(other.get(&path).await.status, 404);

    // A dispatcher that was killed writes no more.
    dispatcher.kill();
    let database = world.database().await;
    let later = "UPDATE lanes SET seen_at = seen_at - interval '31 seconds'";
    assert_eq!(database.execute(later, &[]).await.expect("the lane"), 1);
    no_lane(&world, &endpoint).await;
    let next = world.dispatcher().await;
    let second = lane(&world, &endpoint, "is open", is_open).await;
    assert_ne!(first["dispatcher"], second["dispatcher"]);
    let left = "SELECT count(*) FROM lanes WHERE seen_at < now() - interval '30 seconds'";
    until("what was left to be gone", async || (world.count(left).await == 0).then_some(())).await;

    world.receiver.script(&endpoint.path, &[Behaviour::OK]);
    world.wait_for_deliveries("state=delivered", 5).await;
    no_lane(&world, &endpoint).await;
    assert_eq!(metric(&next, OPEN).await, 0.0);
}

#[tokio::test]
async fn a_dispatcher_that_ends_takes_its_lanes_with_it() {
    let world = World::of_waits("1h", &[]).await;
    let endpoint = world.endpoint("failing", &["a"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::FAIL]);
    let dispatcher = world.dispatcher().await;
    publish(&world, 1).await;
    lane(&world, &endpoint, "fails", |lane| lane["failures"] == 1).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, 0);
    assert_eq!(world.count("SELECT count(*) FROM lanes").await, 0);
}
