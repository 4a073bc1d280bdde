//! Receivers that answer back: a wait for the endpoint, the end of a delivery, the end of all deliveries.

use fanfare_tests::{
    patience::until,
    receiver::Behaviour,
    world::{Endpoint, World},
};
use jiff::Timestamp;
use serde_json::{Value, json};

/// The wait that the receiver asks for, in seconds.
const ASKED: u32 = 6;

/// Tolerance for early requests, in seconds: the two clocks are read at different times.
const EARLY: f64 = 0.2;

async fn publish(world: &World, count: usize) {
    for number in 0..count {
        world.publish(&json!({ "type": "a", "data": number })).await;
    }
}

async fn resting_backlog(world: &World, endpoint: &Endpoint) -> Value {
    until("the backlog of a resting endpoint", async || {
        let answer = world.client().get(&format!("webhooks/{}/backlog", endpoint.id)).await;
        let backlog = answer.data().clone();
        let end = backlog["rests_until_at"].as_str().and_then(|at| at.parse::<Timestamp>().ok());
        (backlog["reason"] == "retry_after" && end > Some(Timestamp::now())).then_some(backlog)
    })
    .await
}

/// Checks the requests to an endpoint that rested after its first answer: each event once, none during the rest.
fn assert_rested(world: &World, endpoint: &Endpoint, events: usize) {
    let received = world.receiver.received(&endpoint.path);
    let first = &received[0];
    let early = received[1..].iter().map(|request| request.at.duration_since(first.at).as_secs_f64());
    let early: Vec<f64> = early.filter(|after| *after < f64::from(ASKED) - EARLY).collect();
    assert!(early.is_empty(), "requests came {early:?} s after a Retry-After of {ASKED} s");
    assert_eq!(received.len(), events + 1, "each event once, and the first twice");
}

#[tokio::test]
async fn a_retry_after_holds_all_deliveries_to_the_endpoint_and_to_no_other() {
    let world = World::new().await;
    let asking = world.endpoint("asking", &["*"]).await;
    let other = world.endpoint("other", &["*"]).await;
    world.receiver.script(&asking.path, &[Behaviour::RetryAfter(429, ASKED), Behaviour::OK]);
    let _dispatcher = world.dispatcher().await;
    publish(&world, 1).await;
    world.wait_for_deliveries(&format!("webhook={}&state=scheduled", asking.id), 1).await;

    publish(&world, 5).await;
    world.wait_for_deliveries(&format!("webhook={}&state=delivered", other.id), 6).await;
    let queued = world.wait_for_deliveries(&format!("webhook={}&state=queued", asking.id), 5).await;
    assert!(queued.iter().all(|delivery| ["retry_after", "backlog"].map(Value::from).contains(&delivery["reason"])));
    let event = queued[0]["event"].as_str().expect("an event");
    let why = world.client().get(&format!("events/{event}/why?webhook={}", asking.id)).await;
    assert!(why.data().to_string().contains("Retry-After"), "{why:?}");
    resting_backlog(&world, &asking).await;
    world.wait_for_deliveries(&format!("webhook={}&state=delivered", asking.id), 6).await;
    assert_rested(&world, &asking, 6);
}

#[tokio::test]
async fn the_next_owner_of_a_backlog_keeps_the_rest() {
    let world = World::new().await;
    let endpoint = world.endpoint("asking", &["*"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::RetryAfter(503, ASKED), Behaviour::OK]);
    let dispatcher = world.dispatcher().await;
    publish(&world, 1).await;
    world.wait_for_deliveries("state=scheduled", 1).await;
    publish(&world, 3).await;
    resting_backlog(&world, &endpoint).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, 0);
    let _next = world.dispatcher().await;
    world.wait_for_deliveries("state=delivered", 4).await;
    assert_rested(&world, &endpoint, 4);
}

#[tokio::test]
async fn a_receiver_stops_a_delivery_and_gets_the_next() {
    let world = World::shared().await;
    let endpoint = world.endpoint("stopping", &["*"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::Action(500, "stop"), Behaviour::OK]);
    publish(&world, 1).await;
    let stopped = world.wait_for_deliveries("state=failed", 1).await.remove(0);
    assert_eq!((&stopped["reason"], &stopped["attempt"]), (&json!("stopped_by_receiver"), &json!(1)));
    let detail = world.delivery(stopped["id"].as_str().expect("an id")).await;
    assert_eq!(detail["attempts"][0]["response_headers"]["webhook-action"], "stop", "{detail}");
    publish(&world, 1).await;
    world.wait_for_deliveries("state=delivered", 1).await;
    assert_eq!(world.receiver.received(&endpoint.path).len(), 2);
}

#[tokio::test]
async fn a_receiver_disables_its_endpoint_by_a_success_or_a_failure() {
    let world = World::shared().await;
    let pleased = world.endpoint("pleased", &["*"]).await;
    let refusing = world.endpoint("refusing", &["*"]).await;
    world.receiver.script(&pleased.path, &[Behaviour::Action(200, "disable")]);
    world.receiver.script(&refusing.path, &[Behaviour::Action(500, "Disable")]);
    publish(&world, 1).await;
    world.wait_for_deliveries(&format!("webhook={}&state=delivered", pleased.id), 1).await;
    let failed = world.wait_for_deliveries(&format!("webhook={}&state=failed", refusing.id), 1).await;
    assert_eq!(failed[0]["reason"], "disabled_by_receiver");
    for endpoint in [&pleased, &refusing] {
        until("the endpoint to be disabled", async || {
            let webhook = world.client().get(&format!("webhooks/{}", endpoint.id)).await;
            let webhook = webhook.data();
            (webhook["status"] == "disabled" && webhook["status_reason"] == "disabled_by_receiver").then_some(())
        })
        .await;
    }
    world.known().await;
    publish(&world, 1).await;
    world.wait_for_deliveries("state=skipped", 2).await;
    let requests = [&pleased, &refusing].map(|endpoint| world.receiver.received(&endpoint.path).len());
    assert_eq!(requests, [1, 1]);
    for endpoint in [&pleased, &refusing] {
        let logged = format!(
            "SELECT count(*) FROM audit_log WHERE action = 'disable_webhook' AND origin = 'fanfare'
             AND subject = '{}' AND request::text LIKE '%disabled_by_receiver%'",
            endpoint.id
        );
        assert_eq!(world.count(&logged).await, 1);
    }
}
