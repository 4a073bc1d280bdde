//! Isolation: slow, hanging or failing endpoints delay no other endpoint, and are served again after recovery.

use std::time::Duration;

use fanfare_tests::{
    metrics::{counted, metric},
    patience::until,
    receiver::Behaviour,
    world::{Endpoint, Setup, World},
};
use serde_json::{Value, json};

const IN_FLIGHT: &str = "fanfare_attempts_in_flight";
const OPEN: &str = r#"fanfare_lanes{state="open"}"#;

/// The places of a process, and the share of an application's endpoints that are not known to be fast: three quarters
/// of the application's half.
const PLACES: (&str, &str) = ("FANFARE_PLACES", "32");
const SHARE: usize = 12;

/// A world with an attempt timeout of 60 s.
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

/// Number of requests at these endpoints.
fn reached(world: &World, endpoints: &[Endpoint]) -> usize {
    endpoints.iter().map(|endpoint| world.receiver.received(&endpoint.path).len()).sum()
}

/// Waits until hanging endpoints use the application's whole share of the places, and further deliveries are queued.
async fn some_hang_and_others_wait(world: &World, hanging: &[Endpoint]) {
    until("the hanging endpoints to use the whole share", async || (reached(world, hanging) == SHARE).then_some(()))
        .await;
    until("further deliveries to be queued", async || {
        let queued = world.deliveries("state=queued").await;
        queued.iter().any(|delivery| delivery["reason"] == "application_busy").then_some(())
    })
    .await;
}

/// The attempt numbers of a delivery.
fn numbers(delivery: &Value) -> Vec<u64> {
    let attempts = delivery["attempts"].as_array().expect("attempts");
    attempts.iter().map(|attempt| attempt["attempt"].as_u64().expect("a number")).collect()
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
    assert!(metric(&dispatcher, IN_FLIGHT).await >= 4.0, "the slow attempts have ended");
}

#[tokio::test]
async fn endpoints_that_hang_leave_places_to_those_that_are_fast() {
    let world = patient_world(&[PLACES]).await;
    let healthy = world.endpoint("healthy", &["a"]).await;
    let hanging = hanging(&world, 8).await;
    let dispatcher = world.dispatcher().await;
    publish(&world, "a", 1).await;
    world.receiver.wait_for(&healthy.path, 1).await;
    publish(&world, "order", 3).await;
    some_hang_and_others_wait(&world, &hanging).await;
    publish(&world, "a", 20).await;
    world.receiver.wait_for(&healthy.path, 21).await;
    let in_flight = async || (metric(&dispatcher, IN_FLIGHT).await == SHARE as f64).then_some(());
    until("the fast endpoints to answer", in_flight).await;
    assert_eq!(reached(&world, &hanging), SHARE);
}

#[tokio::test]
async fn an_application_with_hanging_endpoints_leaves_half_of_the_places() {
    let world = patient_world(&[PLACES]).await;
    let hanging = hanging(&world, SHARE).await;
    let (_, other) = world.other_application().await;
    let paths: Vec<String> = (0..SHARE).map(|number| format!("other/{number}")).collect();
    for path in &paths {
        other.post("webhooks", &json!({ "url": world.receiver.url(path), "events": ["a"] })).await.data();
    }
    let dispatcher = world.dispatcher().await;
    publish(&world, "order", 3).await;
    some_hang_and_others_wait(&world, &hanging).await;
    // Endpoints of unknown pace use the remaining places.
    other.post("events", &json!({ "type": "a", "data": 1 })).await.data();
    for path in &paths {
        world.receiver.wait_for(path, 1).await;
    }
    let busy = metric(&dispatcher, r#"fanfare_queued_total{reason="process_busy"}"#).await;
    assert_eq!(busy, 0.0, "deliveries of the other application were queued");
    assert_eq!(reached(&world, &hanging), SHARE);
}

#[tokio::test]
async fn a_breaker_spares_an_endpoint_that_fails_and_lets_it_back_in() {
    const EVENTS: usize = 30;
    let world = World::of(Setup {
        waits: fanfare_tests::world::dialects::Waits::of(&["1s"; 40].join(",")),
        ..Setup::new(&[("FANFARE_BREAKER_AFTER", "5")])
    })
    .await;
    let endpoint = world.endpoint("failing", &["a"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::FAIL]);
    let dispatcher = world.dispatcher().await;
    publish(&world, "a", EVENTS).await;
    counted(&dispatcher, OPEN, 1).await;
    until("a backlog with an open breaker", async || {
        let backlog = world.client().get(&format!("webhooks/{}/backlog", endpoint.id)).await.data().clone();
        (backlog["reason"] == "breaker_open" && !backlog["next_probe_at"].is_null()).then_some(())
    })
    .await;
    let queued = world.wait_for_deliveries("state=queued", EVENTS / 2).await;
    world.receiver.script(&endpoint.path, &[Behaviour::OK]);
    world.wait_for_deliveries("state=delivered", EVENTS).await;
    until("the breaker to close", async || (metric(&dispatcher, OPEN).await == 0.0).then_some(())).await;
    for listed in queued {
        let delivery = world.delivery(listed["id"].as_str().expect("an id")).await;
        let numbers = numbers(&delivery);
        assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "the backlog used up an attempt: {numbers:?}");
    }
}

#[tokio::test]
async fn each_attempt_of_a_slow_endpoint_is_recorded_once() {
    let world = patient_world(&[]).await;
    let endpoint = world.endpoint("slow", &["a"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::Answer(200, Duration::from_millis(1500))]);
    let _dispatcher = world.dispatcher().await;
    publish(&world, "a", 3).await;
    let delivered = world.wait_for_deliveries("state=delivered", 3).await;
    for delivery in delivered {
        assert_eq!(numbers(&world.delivery(delivery["id"].as_str().expect("an id")).await), [1]);
    }
    assert_eq!(world.receiver.received(&endpoint.path).len(), 3);
}
