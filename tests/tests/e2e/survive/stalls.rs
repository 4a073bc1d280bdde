//! A process or a broker that stalls for a while, as on an overloaded or migrated machine.

use std::time::Duration;

use fanfare_tests::{
    metrics::metric,
    patience::until,
    receiver::Behaviour,
    servers::proxy::Proxy,
    world::{World, process::signal},
};
use serde_json::json;
use tokio::time::sleep;

/// Answer time of the receiver, and duration of the stop: longer than an attempt's timeout, shorter than a lease.
const ANSWER: Duration = Duration::from_millis(500);
const STILL: Duration = Duration::from_secs(5);

#[tokio::test]
async fn an_answer_that_came_while_the_dispatcher_stood_still_is_no_failure() {
    const EVENTS: usize = 5;
    let world = World::new().await;
    world.endpoint("slow", &["*"]).await;
    world.receiver.script("slow", &[Behaviour::Answer(200, ANSWER)]);
    let dispatcher = world.dispatcher().await;
    for number in 0..EVENTS {
        world.publish(&json!({ "type": "a", "data": number })).await;
    }
    world.receiver.wait_for("slow", EVENTS).await;
    signal("STOP", dispatcher.id());
    // The duration of the stop.
    sleep(STILL).await;
    signal("CONT", dispatcher.id());
    until("all events to be delivered at the first attempt", async || {
        let ended = "SELECT count(*) FROM all_deliveries WHERE state = 'delivered' AND attempt = 1 AND failures = 0";
        (usize::try_from(world.count(ended).await) == Ok(EVENTS)).then_some(())
    })
    .await;
    assert_eq!(world.receiver.received("slow").len(), EVENTS, "an event was sent twice");
}

/// The caller hears that the outcome is unknown. The connection is kept, so that the broker gets no message twice.
#[tokio::test]
async fn a_late_confirm_is_no_reason_to_leave_the_connection() {
    const EVENTS: usize = 3;
    let mut world = World::new().await;
    drop(world.take_ingest());
    let (way, url) = Proxy::before(&world.variables["AMQP_URL"]).await;
    world.start_ingest_with(&[("AMQP_URL", &url)]).await;
    world.endpoint("a", &["*"]).await;
    let _dispatcher = world.dispatcher().await;
    // The publish and its confirm together take 6 s.
    way.delay(Duration::from_secs(3));
    for number in 0..EVENTS {
        let answer = world.client().post("events", &json!({ "type": "a", "data": number })).await;
        assert_eq!((answer.status, answer.code()), (503, "outcome_unknown"), "{}", answer.body);
    }
    world.receiver.wait_for("a", EVENTS).await;
    way.delay(Duration::ZERO);
    until("ingest to accept an event", async || {
        let answer = world.client().post("events", &json!({ "type": "a", "data": EVENTS })).await;
        (answer.status == 202).then_some(())
    })
    .await;
    let connections = "fanfare_broker_connections_total{purpose=\"publish\"}";
    assert_eq!(metric(world.ingest(), connections).await, 1.0);
    world.receiver.wait_for("a", EVENTS + 1).await;
    world.wait_for_deliveries("state=delivered", EVENTS + 1).await;
    assert_eq!(world.receiver.received("a").len(), EVENTS + 1, "an event was sent twice");
}
