//! Endpoints that are slow, hang or fail delay nobody else, and are themselves served again once they are back.

use std::time::Duration;

use fanfare_domain::ids::ApplicationId;
use fanfare_tests::{
    metrics::{counted, metric},
    patience::until,
    receiver::Behaviour,
    world::{Endpoint, Setup, World},
};
use serde_json::{Value, json};

const IN_FLIGHT: &str = "fanfare_attempts_in_flight";
const OPEN: &str = r#"fanfare_lanes{state="open"}"#;

/// What a process keeps for slow attempts, and how much of that one application may use.
const SLOW_BUDGET: (&str, &str) = ("FANFARE_MAX_SLOW_ATTEMPTS", "8");
const SHARE: usize = 4;

/// A world whose attempts may take a minute.
async fn patient_world(variables: &[(&str, &str)]) -> World {
    World::of(Setup { timeout: Some("60s".to_owned()), ..Setup::new(variables) }).await
}

async fn hanging(world: &World, count: usize) -> Vec<Endpoint> {
    let mut endpoints = Vec::new();
    for number in 0..count {
        let endpoint = world.endpoint(&format!("hanging/{number}"), &["order"]).await;
        world.receiver.script(&endpoint.path, &[Behaviour::Hang]);
        endpoints.push(endpoint);
    }
    endpoints
}

async fn publish(world: &World, event_type: &str, count: usize) {
    for number in 0..count {
        world.publish(&json!({ "type": event_type, "data": number })).await;
    }
}

/// Requests that endpoints have had.
fn reached(world: &World, endpoints: &[Endpoint]) -> usize {
    endpoints.iter().map(|one| world.receiver.received(&one.path).len()).sum()
}

/// Waits until an application has used up its share of the slow budget for endpoints that hang.
async fn some_hang_and_others_wait(world: &World, hanging: &[Endpoint]) {
    until("some to hang", async || (reached(world, hanging) == SHARE).then_some(())).await;
    until("others to be put off", async || {
        let waiting = world.deliveries("state=waiting").await;
        waiting.iter().any(|one| one["reason"] == "application_busy").then_some(())
    })
    .await;
}

/// The numbers of a delivery's attempts.
fn numbers(delivery: &Value) -> Vec<u64> {
    let attempts = delivery["attempts"].as_array().expect("attempts");
    attempts.iter().map(|one| one["attempt"].as_u64().expect("a number")).collect()
}

#[tokio::test]
async fn slow_attempts_do_not_use_up_what_the_broker_hands_over() {
    let world = patient_world(&[("FANFARE_PREFETCH", "2")]).await;
    let hanging = hanging(&world, 4).await;
    let healthy = world.endpoint("healthy", &["a"]).await;
    let dispatcher = world.dispatcher().await;
    publish(&world, "order", 1).await;
    for endpoint in &hanging {
        world.receiver.wait_for(&endpoint.path, 1).await;
    }
    publish(&world, "order", 1).await;
    publish(&world, "a", 20).await;
    world.receiver.wait_for(&healthy.path, 20).await;
    assert!(metric(&dispatcher, IN_FLIGHT).await >= 4.0, "they still hang");
}

#[tokio::test]
async fn endpoints_that_hang_use_up_no_more_than_is_kept_for_the_slow() {
    let world = patient_world(&[SLOW_BUDGET]).await;
    let healthy = world.endpoint("healthy", &["a"]).await;
    let hanging = hanging(&world, 8).await;
    let dispatcher = world.dispatcher().await;
    publish(&world, "a", 1).await;
    world.receiver.wait_for(&healthy.path, 1).await;
    publish(&world, "order", 3).await;
    some_hang_and_others_wait(&world, &hanging).await;
    publish(&world, "a", 20).await;
    world.receiver.wait_for(&healthy.path, 21).await;
    assert_eq!((reached(&world, &hanging), metric(&dispatcher, IN_FLIGHT).await), (SHARE, SHARE as f64));
}

#[tokio::test]
async fn an_application_whose_endpoints_hang_leaves_half_to_another_one() {
    let world = patient_world(&[SLOW_BUDGET]).await;
    let hanging = hanging(&world, 2 * SHARE).await;
    let (application, other) = world.other_application().await;
    let paths: Vec<String> = (0..SHARE).map(|number| format!("other/{number}")).collect();
    for path in &paths {
        other.post("webhooks", &json!({ "url": world.receiver.url(path), "events": ["a"] })).await.data();
    }
    let _dispatcher = world.dispatcher().await;
    publish(&world, "order", 3).await;
    some_hang_and_others_wait(&world, &hanging).await;
    // Nobody knows these endpoints yet: they have what is left of the same budget.
    other.post("events", &json!({ "type": "a", "data": 1 })).await.data();
    for path in &paths {
        world.receiver.wait_for(path, 1).await;
    }
    let application = application.parse::<ApplicationId>().expect("an id").0;
    let deferred = format!("SELECT count(*) FROM deliveries WHERE application_id = '{application}' AND deferrals > 0");
    assert_eq!(world.count(&deferred).await, 0, "they waited for others");
    assert_eq!(reached(&world, &hanging), SHARE);
}

#[tokio::test]
async fn a_breaker_spares_an_endpoint_that_fails_and_lets_it_back_in() {
    const EVENTS: usize = 30;
    let world = World::of(Setup {
        waits: fanfare_tests::dialects::Waits::of(&["1s"; 40].join(",")),
        ..Setup::new(&[("FANFARE_BREAKER_AFTER", "5")])
    })
    .await;
    let endpoint = world.endpoint("failing", &["a"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::FAIL]);
    let dispatcher = world.dispatcher().await;
    publish(&world, "a", EVENTS).await;
    counted(&dispatcher, OPEN, 1).await;
    let deferred = until("deliveries that are put off", async || {
        let waiting = world.deliveries("state=waiting").await;
        let deferred: Vec<_> = waiting.into_iter().filter(|one| one["reason"] == "breaker_open").collect();
        (deferred.len() > EVENTS / 2).then_some(deferred)
    })
    .await;
    world.receiver.script(&endpoint.path, &[Behaviour::OK]);
    world.wait_for_deliveries("state=delivered", EVENTS).await;
    until("the breaker to close", async || (metric(&dispatcher, OPEN).await == 0.0).then_some(())).await;
    for one in deferred {
        let delivery = world.delivery(one["id"].as_str().expect("an id")).await;
        let numbers = numbers(&delivery);
        assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "a deferral used up an attempt: {numbers:?}");
    }
}

#[tokio::test]
async fn a_slow_endpoint_is_recorded_once_and_its_claim_does_nothing() {
    let world = patient_world(&[]).await;
    let endpoint = world.endpoint("slow", &["a"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::Answer(200, Duration::from_millis(1500))]);
    let _dispatcher = world.dispatcher().await;
    publish(&world, "a", 3).await;
    let delivered = world.wait_for_deliveries("state=delivered", 3).await;
    for one in delivered {
        assert_eq!(numbers(&world.delivery(one["id"].as_str().expect("an id")).await), [1]);
    }
    assert_eq!(world.receiver.received(&endpoint.path).len(), 3);
}
