//! A process that stops for a while, as on an overloaded or migrated machine.

use std::time::Duration;

use fanfare_tests::{
    patience::until,
    receiver::Behaviour,
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
