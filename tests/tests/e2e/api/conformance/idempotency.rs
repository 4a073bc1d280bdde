//! Idempotency keys: a key means a single event over HTTP and AMQP. A key with other content is parked.

use fanfare_tests::{
    metrics::{counted, metric},
    patience::until,
    receiver::Behaviour,
    world::World,
};
use hyper::Method;
use serde_json::{Value, json};

use crate::api::{assert_refused, checked_client::JSON, event, text};

/// Publishes a raw body over HTTP, with an optional `Idempotency-Key`.
async fn publish(world: &World, key: Option<&str>, body: &str) -> fanfare_tests::clients::api::Answer {
    let headers: Vec<_> = [JSON].into_iter().chain(key.map(|key| ("idempotency-key", key))).collect();
    world.client().send(Method::POST, "events", &headers, body.to_owned()).await.expect("an answer")
}

/// The parked messages: message id, reason, explanation and body.
async fn parked(world: &World, count: usize) -> Vec<(String, String, String, String)> {
    let database = world.database().await;
    let rows = until(&format!("{count} parked messages"), async || {
        let statement = "SELECT coalesce(message_id, ''), reason, message, convert_from(body, 'UTF8') FROM parked
                         ORDER BY parked_at, id";
        let rows = database.query(statement, &[]).await.expect("the parked messages");
        (rows.len() >= count).then_some(rows)
    })
    .await;
    rows.iter().map(|row| (row.get(0), row.get(1), row.get(2), row.get(3))).collect()
}

#[tokio::test]
async fn one_key_is_one_event_over_both_entrances() {
    let world = World::new().await;
    let endpoint = world.endpoint("once", &["*"]).await;
    let dispatcher = world.dispatcher().await;
    let broker = world.broker().await;
    let first = publish(&world, None, r#"{"type":"a","data":{"n":[1,2]},"id":"k 1"}"#).await;
    let id = text(first.data(), "id").to_owned();
    // Whitespace in the data and the `time` are ignored: a publisher may set the time anew at each try.
    for (key, body) in [
        (None, r#"{"type":"a","data":{"n":[1,2]},"id":"k 1"}"#),
        (Some("k 1"), r#"{"type":"a","data":{"n":[1,2]}}"#),
        (Some("k 1"), r#"{"id":"k 1","data": { "n" : [ 1 , 2 ] } ,"type":"a"}"#),
        (Some("k 1"), "{\"type\":\"a\",\"data\":\n\t{\"n\":[1,\r\n2]},\"time\":\"2026-06-18T12:00:00Z\"}"),
    ] {
        let again = publish(&world, key, body).await;
        assert_eq!((again.status, text(again.data(), "id")), (202, id.as_str()), "{body}");
    }
    for body in [r#"{"data":{"n":[1,2]}}"#, r#"{"data": {"n": [1, 2]}, "type": "a", "id": "k 1"}"#] {
        let taken = broker.publish(&format!("{}.a", world.application), Some("k 1"), &[], body).await;
        assert!(taken.expect("the broker"));
    }
    counted(&dispatcher, r#"fanfare_events_total{result="known"}"#, 6).await;
    world.wait_for_deliveries("state=delivered", 1).await;
    assert_eq!(
        world.receiver.received(&endpoint.path).iter().map(|request| request.event()).collect::<Vec<_>>(),
        [id.as_str()]
    );
    assert_eq!(
        (world.count("SELECT count(*) FROM parked").await, world.count("SELECT count(*) FROM events").await),
        (0, 1)
    );
    assert_eq!(text(&event(&world, &id).await, "key"), "k 1");
    // Events without a key are different events.
    let body = r#"{"type":"a","data":{"n":[1,2]}}"#;
    let (one, other) = (publish(&world, None, body).await, publish(&world, None, body).await);
    assert_ne!(text(one.data(), "id"), text(other.data(), "id"));
    world.receiver.wait_for(&endpoint.path, 3).await;

    for (key, body) in [("k 1", r#"{"type":"a","data":1,"id":"k 2"}"#), ("K 1", r#"{"type":"a","data":1,"id":"k 1"}"#)]
    {
        assert_refused("two keys", &publish(&world, Some(key), body).await, (422, "invalid_field", "id"));
    }
}

#[tokio::test]
async fn a_key_of_another_event_is_parked_and_delivered_to_nobody() {
    let world = World::new().await;
    let endpoint = world.endpoint("a", &["*"]).await;
    let dispatcher = world.dispatcher().await;
    let broker = world.broker().await;
    let id = world.publish(&json!({ "type": "a", "data": { "n": 1 }, "id": "key" })).await;
    world.receiver.wait_for(&endpoint.path, 1).await;

    // Ingest accepts the event without a look at the database, and cannot detect the reused key.
    let other = r#"{"type":"a","data":{"n":2},"id":"key"}"#;
    let answer = publish(&world, None, other).await;
    assert_eq!((answer.status, text(answer.data(), "id")), (202, id.as_str()));
    let another_type = r#"{"type":"order","data":{"n":1}}"#;
    assert_eq!(publish(&world, Some("key"), another_type).await.status, 202);
    let over_amqp = r#"{"data":{"n":3}}"#;
    assert!(
        broker.publish(&format!("{}.a", world.application), Some("key"), &[], over_amqp).await.expect("the broker")
    );

    let messages = parked(&world, 3).await;
    let mut bodies: Vec<&str> = messages.iter().map(|(.., body)| body.as_str()).collect();
    let mut expected = [other, another_type, over_amqp];
    bodies.sort_unstable();
    expected.sort_unstable();
    assert_eq!(bodies, expected, "the parked bodies differ from the published bodies");
    for (key, reason, sentence, body) in &messages {
        assert_eq!((key.as_str(), reason.as_str()), ("key", "key_reused"), "{body}");
        assert!(sentence.contains(&id), "the explanation does not name the event of the key: {sentence}");
    }
    assert_eq!(metric(&dispatcher, r#"fanfare_parked_total{reason="key_reused"}"#).await, 3.0);
    // The next event passes the same queue after the parked messages.
    let last = world.publish(&json!({ "type": "a", "data": "last" })).await;
    world.receiver.wait_for(&endpoint.path, 2).await;
    let received = world.receiver.received(&endpoint.path);
    assert_eq!(received.iter().map(|request| request.event()).collect::<Vec<_>>(), [id.as_str(), last.as_str()]);
    let kept: Value = event(&world, &id).await;
    assert_eq!((&kept["payload"]["data"], list_len(&kept)), (&json!({ "n": 1 }), 1), "the first event has changed");
}

fn list_len(event: &Value) -> usize {
    event["deliveries"].as_array().map_or(0, Vec::len)
}

/// A message redelivered after a dispatcher's death belongs to a persisted event, and is acked.
#[tokio::test]
async fn a_message_that_comes_again_is_not_parked() {
    let world = World::new().await;
    let endpoint = world.endpoint("a", &["*"]).await;
    world.receiver.script("a", &[Behaviour::Hang, Behaviour::OK]);
    let dispatcher = world.dispatcher().await;
    let broker = world.broker().await;
    let spaced = r#"{ "data" : { "n" : 1.0 } }"#;
    let routing_key = format!("{}.a", world.application);
    assert!(broker.publish(&routing_key, Some("key"), &[], spaced).await.expect("the broker"));
    world.receiver.wait_for(&endpoint.path, 1).await;
    dispatcher.kill();
    assert!(broker.publish(&routing_key, Some("key"), &[], spaced).await.expect("the broker"));
    let next = world.dispatcher().await;
    counted(&next, r#"fanfare_events_total{result="known"}"#, 1).await;
    until("the message to be settled", async || (broker.depth("events").await.expect("the queue") == 0).then_some(()))
        .await;
    assert_eq!(world.count("SELECT count(*) FROM parked").await, 0);
    let delivery = world.deliveries("").await.remove(0);
    assert_eq!(
        (text(&delivery, "state"), &delivery["attempt"]),
        ("sending", &json!(1)),
        "the delivery must wait until the lease of the killed dispatcher ends"
    );
}
