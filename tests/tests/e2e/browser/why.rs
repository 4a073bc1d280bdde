//! Scenario 4: an event that matched no webhook; the change of the webhook; the event is sent there.

use fanfare_tests::{
    clients::browser::{Manner, Visit},
    world::World,
};
use serde_json::json;

use crate::console::visitor::Visitor;

async fn an_unmatched_event_is_explained_and_sent(manner: Manner) {
    let world = World::shared().await;
    let endpoint = world.endpoint("shop", &["order.created"]).await;
    let event = world.publish(&json!({ "type": "invoice.paid", "id": "invoice-7", "data": { "n": 1 } })).await;
    fanfare_tests::patience::until("the event to be stored", async || {
        (world.client().get(&format!("events/{event}")).await.status == 200).then_some(())
    })
    .await;
    let visitor = Visitor::by_key(&world, &world.key).await;
    let visit = Visit::begin(&world, "why", &visitor.cookie, manner).await;
    let base = format!("/console/{}", world.application);
    visit.open(&format!("{base}/why")).await;
    visit.fill("Event id, or the publisher's key", "invoice-7").await;
    visit.follow("Explain").await;
    visit.sees("invoice.paid").await;
    assert_eq!(world.receiver.received("shop").len(), 0);

    visit.follow("Send it there").await;
    visit.sees("The event will be sent to the webhook.").await;
    let received = world.receiver.wait_for(&endpoint.path, 1).await;
    assert_eq!(received[0].event(), event);
    world.wait_for_deliveries("state=delivered", 1).await;
    visit.open(&format!("{base}/why?event={event}")).await;
    visit.sees("delivered").await;
    visit.end().await;
}

#[tokio::test]
async fn is_explained_and_sent() {
    an_unmatched_event_is_explained_and_sent(Manner::USUAL).await;
}

#[tokio::test]
async fn is_explained_and_sent_without_scripts() {
    an_unmatched_event_is_explained_and_sent(Manner::WITHOUT_SCRIPTS).await;
}
