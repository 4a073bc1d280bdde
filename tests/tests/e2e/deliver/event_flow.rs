//! The main path: an event published over HTTP reaches every subscribed endpoint, signed and recorded, and is retried
//! after failures.

use std::time::Duration;

use fanfare_tests::{
    receiver::{Behaviour, signature::is_signed},
    world::World,
};
use serde_json::json;

#[tokio::test]
async fn an_event_over_http_reaches_every_subscribed_endpoint() {
    let world = World::shared().await;
    let exact = world.endpoint("exact", &["order.created"]).await;
    let prefix = world.endpoint("prefix", &["order.*"]).await;
    let all = world.endpoint("all", &["*"]).await;
    let other = world.endpoint("other", &["invoice.*", "order"]).await;
    let id = world.publish(&json!({ "type": "order.created", "data": { "total": 1.50, "b": [1, 2] } })).await;

    for endpoint in [&exact, &prefix, &all] {
        let received = world.receiver.wait_for(&endpoint.path, 1).await.remove(0);
        assert_eq!(received.event(), id);
        assert!(is_signed(&received, &endpoint.secret), "{received:?}");
        let body: serde_json::Value = serde_json::from_slice(&received.body).expect("JSON");
        assert_eq!(body["event"], "order.created");
        assert_eq!(body["data"], json!({ "total": 1.5, "b": [1, 2] }));
    }
    let delivered = world.wait_for_deliveries(&format!("event={id}&state=delivered"), 3).await;
    assert_eq!(delivered.len(), 3);
    assert!(world.receiver.received(&other.path).is_empty());
    let detail = world.delivery(delivered[0]["id"].as_str().expect("an id")).await;
    assert_eq!(detail["attempts"].as_array().expect("attempts").len(), 1);
    assert_eq!(detail["attempts"][0]["outcome"], "answered");
    assert_eq!(detail["attempts"][0]["status"], 200);
    assert_eq!(detail["attempts"][0]["response_body"], "noted");
}

#[tokio::test]
async fn a_failing_endpoint_is_retried_until_it_recovers() {
    let world = World::shared().await;
    let endpoint = world.endpoint("flaky", &["*"]).await;
    world
        .receiver
        .script("flaky", &[Behaviour::FAIL, Behaviour::Reset, Behaviour::Answer(302, Duration::ZERO), Behaviour::OK]);
    let id = world.publish(&json!({ "type": "a", "data": {} })).await;
    let received = world.receiver.wait_for("flaky", 4).await;
    assert!(received.iter().all(|request| request.event() == id && is_signed(request, &endpoint.secret)));
    assert!(received.iter().all(|request| request.body == received[0].body), "a retry has another body");
    let delivery = world.wait_for_deliveries("state=delivered", 1).await.remove(0);
    let attempts = world.delivery(delivery["id"].as_str().expect("an id")).await["attempts"].clone();
    let outcomes: Vec<_> = attempts
        .as_array()
        .expect("attempts")
        .iter()
        .map(|attempt| (attempt["outcome"].clone(), attempt["status"].clone()))
        .collect();
    assert_eq!(
        outcomes,
        [
            (json!("answered"), json!(500)),
            (json!("connection_closed"), json!(null)),
            (json!("answered"), json!(302)),
            (json!("answered"), json!(200))
        ]
    );
}
