//! Scenario 15: the database goes away and comes back.

use fanfare_tests::{
    clients::browser::{Manner, Visit},
    patience::until,
    servers::instance::{Instance, Servers},
    world::World,
};
use serde_json::json;
use tokio::task::block_in_place;

use crate::console::visitor::Visitor;

#[tokio::test(flavor = "multi_thread")]
async fn pages_tell_the_outage_and_come_back() {
    let database = block_in_place(|| Instance::postgres("browser"));
    let servers = Servers { database_url: database.url(), ..Servers::given() };
    let world = World::with(servers, &[]).await;
    let visitor = Visitor::by_key(&world, &world.key).await;
    let page = format!("/console/{}/deliveries", world.application);
    let visit = Visit::begin(&world, "away", &visitor.cookie, Manner::USUAL).await;
    visit.open(&page).await;
    // A second window stays open during the outage, and asks for new rows.
    let open = Visit::begin(&world, "away-live", &visitor.cookie, Manner::USUAL).await;
    open.open(&page).await;
    block_in_place(|| database.kill());
    until("the page of an outage", async || (visit.open(&page).await == 503).then_some(())).await;
    visit.sees("Events are still accepted and kept. Deliveries wait.").await;
    let faults = visit.act("examine", json!({ "name": "away" })).await;
    assert_eq!(faults, json!([]));
    block_in_place(|| database.start());
    until("the page", async || (visit.open(&page).await == 200).then_some(())).await;
    visit.finds("h1:has-text('Delivery log')").await;
    visit.end().await;

    let endpoint = world.endpoint("a", &["*"]).await;
    let _dispatcher = world.dispatcher().await;
    world.publish(&json!({ "type": "a", "data": {} })).await;
    world.receiver.wait_for(&endpoint.path, 1).await;
    open.finds("tbody tr").await;
    open.end().await;
}
