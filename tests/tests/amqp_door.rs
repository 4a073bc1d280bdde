//! The AMQP door: what any publisher may put on the events exchange, and what becomes of messages that
//! cannot be read. Nobody waits for an answer here, so each of them must be found again, with its reason.

use std::collections::BTreeMap;

use fanfare_tests::{
    metrics::{counted, metric},
    patience::until,
    process::fanfare,
    signature::is_signed,
    world::World,
};
use serde_json::{Value, json};

/// The default of `FANFARE_MAX_EVENT_BYTES`.
const MAX_EVENT_BYTES: usize = 256 * 1024;

#[tokio::test]
async fn the_documented_message_is_delivered() {
    let world = World::new().await;
    let endpoint = world.endpoint("all", &["*"]).await;
    let _dispatcher = world.dispatcher().await;
    let broker = world.broker().await;
    let routing_key = format!("{}.order.created", world.application);
    let full = json!({ "type": "order.created", "data": { "n": 1 }, "id": "full", "time": "2026-06-18T12:00:00Z" });
    for (id, body) in [("full", full.to_string()), ("least", r#"{"data":{"n":2}}"#.to_owned())] {
        assert!(broker.publish(&routing_key, Some(id), &[], body).await.expect("the broker"), "{id} is confirmed");
    }
    let mut received = world.receiver.wait_for(&endpoint.path, 2).await;
    received.sort_by_key(|one| one.body.clone());
    for (one, number) in received.iter().zip(1..) {
        assert!(is_signed(one, &endpoint.secret), "{one:?}");
        let body: Value = serde_json::from_slice(&one.body).expect("JSON");
        assert_eq!((&body["event"], &body["data"]), (&json!("order.created"), &json!({ "n": number })));
    }
    assert_ne!(received[0].event(), received[1].event());
}

/// A message that cannot be read: its routing key behind the application's, its id, its body.
struct Bad {
    name: &'static str,
    routing_key: String,
    id: Option<String>,
    body: Vec<u8>,
    reason: &'static str,
}

/// One of each, for an application.
fn bad_messages(application: &str) -> Vec<Bad> {
    let good = || br#"{"type":"a","data":1}"#.to_vec();
    let at = |event_type: &str| format!("{application}.{event_type}");
    let bad = |name, routing_key, body: Vec<u8>, reason| Bad { name, routing_key, id: Some(name), body, reason };
    let body = |name, body: &str, reason| bad(name, at("a"), body.as_bytes().to_vec(), reason);
    let deep = format!(r#"{{"data":{}1{}}}"#, "[".repeat(100), "]".repeat(100));
    let large = format!(r#"{{"data":"{}"}}"#, "x".repeat(MAX_EVENT_BYTES));
    let unknown = "app_00000000000000000000000000.a".to_owned();
    struct Bad<'a> {
        name: &'a str,
        routing_key: String,
        id: Option<&'a str>,
        body: Vec<u8>,
        reason: &'a str,
    }
    let _ = (good, unknown, large, deep, body);
    Vec::new()
}
