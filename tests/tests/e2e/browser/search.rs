//! Scenario 6: search by the publisher's key, by the header `webhook-id`, and by an id, by keyboard alone.

use fanfare_tests::{
    clients::browser::{Manner, Visit},
    scene::KEY,
    world::World,
};
use serde_json::json;

use crate::console::visitor::Visitor;

async fn the_search_leads_on(manner: Manner) {
    let world = World::shared().await;
    world.endpoint("a", &["*"]).await;
    let event = world.publish(&json!({ "type": "a", "id": KEY, "data": {} })).await;
    let delivery = world.wait_for_deliveries("state=delivered", 1).await[0]["id"].as_str().expect("an id").to_owned();
    let visitor = Visitor::by_key(&world, &world.key).await;
    let visit = Visit::begin(&world, "search", &visitor.cookie, manner).await;
    let base = format!("/console/{}", world.application);
    let webhook_id = world.receiver.received("a")[0].header("webhook-id").to_owned();
    for (text, place) in [
        (KEY, format!("{base}/events/{event}")),
        (&webhook_id, format!("{base}/events/{event}")),
        (&delivery, format!("{base}/deliveries/{delivery}")),
    ] {
        visit.open(&format!("{base}/deliveries")).await;
        if manner.without_scripts {
            visit.fill("Search by id, key or URL", "").await;
        } else {
            visit.press("/").await;
        }
        visit.act("type", json!({ "text": text })).await;
        visit.enter("Enter").await;
        assert_eq!(visit.address().await, place, "{text}");
    }
    visit.open(&format!("{base}/search?q=nothing-of-this-name")).await;
    visit.sees("nothing-of-this-name").await;
    visit.end().await;
}

#[tokio::test]
async fn by_keyboard() {
    the_search_leads_on(Manner::USUAL).await;
}

#[tokio::test]
async fn without_scripts() {
    the_search_leads_on(Manner::WITHOUT_SCRIPTS).await;
}
