//! An endpoint's rate applies to all dispatchers together.

use fanfare_tests::world::World;
use jiff::{SignedDuration, Timestamp};
use serde_json::json;

const EVENTS: i64 = 24;
const RATE: i64 = 4;

#[tokio::test]
async fn a_rate_holds_across_dispatchers_and_delays_nobody_else() {
    let world = World::new().await;
    let limited = world.endpoint("limited", &["*"]).await;
    let free = world.endpoint("free", &["*"]).await;
    world.change(&limited, &json!({ "rate_per_second": RATE })).await;
    let _dispatchers = [world.dispatcher().await, world.dispatcher().await];
    for number in 0..EVENTS {
        world.publish(&json!({ "type": "a", "data": number })).await;
    }
    let all = EVENTS.unsigned_abs() as usize;
    world.wait_for_deliveries(&format!("webhook={}&state=delivered", free.id), all).await;
    let limited_ones = world.wait_for_deliveries(&format!("webhook={}&state=delivered", limited.id), all).await;

    let mut started: Vec<Timestamp> = Vec::new();
    for delivery in &limited_ones {
        let shown = world.delivery(delivery["id"].as_str().expect("an id")).await;
        let attempts = shown["attempts"].as_array().expect("attempts").clone();
        assert_eq!(attempts.len(), 1, "a wait for the rate used up an attempt: {shown}");
        started.push(attempts[0]["started_at"].as_str().expect("a time").parse().expect("a time"));
    }
    started.sort_unstable();
    // Each dispatcher may begin with a token of the rate; all further attempts follow the rate.
    let span = started[all - 1].duration_since(started[0]);
    assert!(span >= SignedDuration::from_secs((EVENTS - 3) / RATE), "{EVENTS} at {RATE} a second took only {span:?}");
}
