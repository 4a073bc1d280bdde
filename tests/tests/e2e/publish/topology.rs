//! Messages published while a queue or a binding is missing.

use fanfare_tests::{metrics::counted, patience::until, receiver::Behaviour, world::World};
use serde_json::json;

#[tokio::test]
async fn an_event_without_a_binding_is_sent_on_once_the_topology_is_declared_again() {
    let world = World::new().await;
    let dispatcher = world.dispatcher().await;
    let endpoint = world.endpoint("all", &["*"]).await;
    world.broker().await.unbind("events", "events", "#").await.expect("the broker");
    let mut events = Vec::new();
    for number in 0..20 {
        events.push(world.publish(&json!({ "type": "a", "data": number })).await);
    }
    let received = world.receiver.wait_for(&endpoint.path, events.len()).await;
    let mut delivered: Vec<&str> = received.iter().map(|request| request.event()).collect();
    delivered.sort_unstable();
    events.sort_unstable();
    assert_eq!(delivered, events);
    let logged = dispatcher
        .logged(
            "a message went to no queue: a binding or a queue was gone; declaring the topology again and sending it on",
        )
        .await;
    assert_eq!(logged["level"], "ERROR");
    assert_eq!(world.broker().await.depth("unrouted").await.expect("the queue"), 0);
    // Only messages published before the repair pass the alternate exchange.
    world.publish(&json!({ "type": "a", "data": "later" })).await;
    world.receiver.wait_for(&endpoint.path, events.len() + 1).await;
}

#[tokio::test]
async fn a_retry_without_its_delay_queue_is_not_lost() {
    let world = World::new().await;
    let dispatcher = world.dispatcher().await;
    let endpoint = world.endpoint("all", &["*"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::FAIL, Behaviour::OK]);
    world.broker().await.delete_queue("delay.1s").await.expect("the broker");
    let event = world.publish(&json!({ "type": "a", "data": 1 })).await;
    let received = world.receiver.wait_for(&endpoint.path, 2).await;
    assert!(received.iter().all(|request| request.event() == event));
    counted(&dispatcher, "fanfare_unrouted_total", 1).await;
    until("the delivery to have ended", async || (world.deliveries("state=delivered").await.len() == 1).then_some(()))
        .await;
}
