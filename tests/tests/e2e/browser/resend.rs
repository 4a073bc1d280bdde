//! Scenario 7: one delivery is resent, and then exactly the deliveries that a list shows.

use fanfare_tests::{
    clients::browser::{Manner, Visit},
    receiver::Behaviour,
    world::World,
};
use serde_json::json;

use crate::console::visitor::Visitor;

/// Failed deliveries of the list.
const MANY: usize = 37;

async fn the_shown_deliveries_are_resent(manner: Manner) {
    let world = World::shared().await;
    let failing = world.endpoint("failing", &["order.created", "a"]).await;
    world.receiver.script("failing", &[Behaviour::FAIL]);
    for number in 0..MANY {
        world.publish(&json!({ "type": "order.created", "data": { "number": number } })).await;
    }
    world.publish(&json!({ "type": "a", "data": {} })).await;
    world.wait_for_deliveries("state=failed", MANY + 1).await;
    let before = world.receiver.received("failing").len();
    world.receiver.script("failing", &[Behaviour::OK]);

    let visitor = Visitor::by_key(&world, &world.key).await;
    let visit = Visit::begin(&world, "resend", &visitor.cookie, manner).await;
    let log = format!("/console/{}/deliveries", world.application);
    visit.open(&format!("{log}?state=failed&type=a")).await;
    visit.choose("tbody tr a[data-row]").await;
    visit.follow("Resend").await;
    visit.sees("1 delivery will be sent again").await;
    world.receiver.wait_for("failing", before + 1).await;
    world.wait_for_deliveries("state=delivered", 1).await;

    visit.open(&format!("{log}?state=failed&type=order.created")).await;
    visit.follow("Resend these").await;
    visit.fill("Type the number", &MANY.to_string()).await;
    visit.follow(&format!("Resend {MANY}")).await;
    visit.sees(&format!("{MANY} deliveries will be sent again")).await;
    world.wait_for_deliveries("state=delivered", MANY + 1).await;
    let received = world.receiver.received(&failing.path).len();
    assert_eq!(received, before + 1 + MANY, "exactly the shown deliveries are sent");
    visit.end().await;
}

#[tokio::test]
async fn exactly_the_shown() {
    the_shown_deliveries_are_resent(Manner::USUAL).await;
}

#[tokio::test]
async fn exactly_the_shown_without_scripts() {
    the_shown_deliveries_are_resent(Manner::WITHOUT_SCRIPTS).await;
}

#[tokio::test]
async fn exactly_the_shown_over_a_slow_network() {
    the_shown_deliveries_are_resent(Manner::SLOW).await;
}
