//! Scenario 10: a live page shows a new row within 5 s, asks nothing while hidden, and ends when idle.

use std::time::Duration;

use fanfare_tests::{
    clients::browser::{Manner, Visit},
    patience::until_within,
    world::World,
};
use serde_json::json;

use crate::console::visitor::Visitor;

#[tokio::test]
async fn a_row_appears_and_a_hidden_page_asks_nothing() {
    let world = World::shared().await;
    world.endpoint("a", &["*"]).await;
    world.publish(&json!({ "type": "a", "data": {} })).await;
    world.wait_for_deliveries("state=delivered", 1).await;
    let visitor = Visitor::by_key(&world, &world.key).await;
    let page = format!("/console/{}/deliveries", world.application);
    let visit = Visit::begin(&world, "live", &visitor.cookie, Manner::USUAL).await;
    visit.open(&page).await;
    assert_eq!(visit.count("tbody tr").await, 1);
    world.publish(&json!({ "type": "order.created", "data": {} })).await;
    world.wait_for_deliveries("state=delivered", 2).await;
    until_within(Duration::from_secs(5), "the button of new rows", async || {
        (visit.count("#news").await == 1).then_some(())
    })
    .await;
    assert_eq!(visit.count("tbody tr").await, 1, "no row moves under the pointer");
    visit.click("1 new").await;
    assert_eq!(visit.count("tbody tr").await, 2);
    assert!(visit.text("tbody tr:first-child").await.contains("order.created"));

    visit.act("hide", json!({ "hidden": true })).await;
    visit.requests().await;
    // Twice the pace of the page: a hidden page asks nothing.
    tokio::time::sleep(Duration::from_secs(4)).await;
    assert_eq!(visit.requests().await, Vec::<String>::new());
    visit.act("hide", json!({ "hidden": false })).await;
    until_within(Duration::from_secs(5), "a request", async || visit.requests().await.contains(&page).then_some(()))
        .await;
    visit.press("l").await;
    visit.finds("#live[aria-pressed=false]").await;
    visit.end().await;
}

#[tokio::test]
async fn an_idle_page_ends_its_requests() {
    let world = World::shared().await;
    let visitor = Visitor::by_key(&world, &world.key).await;
    let page = format!("/console/{}/deliveries", world.application);
    let visit = Visit::begin(&world, "idle", &visitor.cookie, Manner { has_clock: true, ..Manner::USUAL }).await;
    visit.open(&page).await;
    // The pace grows up to 30 s. Each request is answered before the next wait begins.
    for _ in 0..40 {
        visit.act("forward", json!({ "seconds": 31 })).await;
        if visit.count("#live[aria-pressed=false]").await == 1 {
            break;
        }
    }
    visit.finds("#live[aria-pressed=false]").await;
    assert_eq!(visit.text("#said").await, "Live has ended after 15 minutes.");
    visit.requests().await;
    visit.act("forward", json!({ "seconds": 120 })).await;
    assert_eq!(visit.requests().await, Vec::<String>::new());
    visit.end().await;
}
