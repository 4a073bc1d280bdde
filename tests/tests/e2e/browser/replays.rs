//! Scenario 13: a dry run, a replay, its pause, its resumption, and its end.

use fanfare_tests::{
    clients::browser::{Manner, Visit},
    patience::until,
    world::World,
};
use serde_json::json;

use crate::console::visitor::Visitor;

/// Past events.
const EVENTS: usize = 30;

async fn past_events_are_replayed(manner: Manner) {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["a"]).await;
    for number in 0..EVENTS {
        world.publish(&json!({ "type": "a", "data": { "n": number } })).await;
    }
    world.wait_for_deliveries("state=delivered", EVENTS).await;
    let visitor = Visitor::by_key(&world, &world.key).await;
    let visit = Visit::begin(&world, "replay", &visitor.cookie, manner).await;
    let base = format!("/console/{}", world.application);
    visit.open(&format!("{base}/replays")).await;
    visit.follow("New replay").await;
    visit.fill("Events accepted since", "2020-01-01T00:00:00Z").await;
    visit.act("check", json!({ "label": "delivered" })).await;
    visit.fill("Deliveries per second", "1").await;
    visit.follow("Dry run").await;
    visit.sees(&format!("{EVENTS} deliveries of {EVENTS} events would be sent")).await;
    assert_eq!(world.receiver.received(&endpoint.path).len(), EVENTS, "a dry run sends nothing");

    visit.follow("Start").await;
    visit.finds("h1:has-text('running')").await;
    world.receiver.wait_for(&endpoint.path, EVENTS + 1).await;
    visit.follow("Pause").await;
    visit.sees("The replay is paused.").await;
    visit.follow("Resume").await;
    visit.sees("The replay runs.").await;
    visit.follow("Cancel for good").await;
    visit.sees("The replay is cancelled.").await;
    until("the replay to end", async || {
        let replays = world.client().get("replays").await;
        (replays.data()[0]["state"] == "cancelled").then_some(())
    })
    .await;
    assert!(world.receiver.received(&endpoint.path).len() < 2 * EVENTS, "a cancelled replay sends no more");
    visit.end().await;
}

#[tokio::test]
async fn with_dry_run_pause_and_cancel() {
    past_events_are_replayed(Manner::USUAL).await;
}

#[tokio::test]
async fn with_dry_run_pause_and_cancel_without_scripts() {
    past_events_are_replayed(Manner::WITHOUT_SCRIPTS).await;
}
