//! Events with an ordering key: the numbers that receivers see.

use std::{
    collections::{BTreeMap, HashSet},
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use fanfare_tests::{
    patience::until,
    receiver::{Behaviour, Received},
    world::World,
};
use serde_json::{Value, json};

use crate::api::assert_refused;

/// Time between two batches of the publisher.
const PACE: Duration = Duration::from_millis(20);

/// The numbers that an endpoint has received, by ordering key, each with the data. A repetition must have the number of
/// the first request.
fn received(requests: &[Received]) -> BTreeMap<String, BTreeMap<u64, Value>> {
    let mut numbers: BTreeMap<String, BTreeMap<u64, Value>> = BTreeMap::new();
    for request in requests {
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        let number = request.header("webhook-sequence").parse().expect("a number");
        let of_key = numbers.entry(request.header("webhook-ordering-key").to_owned()).or_default();
        let first = of_key.entry(number).or_insert_with(|| body["data"].clone());
        assert_eq!(*first, body["data"], "two events have the number {number}");
    }
    numbers
}

/// Checks that the events of each key have the numbers from 1 on, in the order of publishing. The data of an event is
/// its key and its place.
fn assert_in_order(requests: &[Received], keys: usize, events: usize) {
    let numbers = received(requests);
    assert_eq!(numbers.len(), keys);
    for (key, of_key) in numbers {
        let places: Vec<(u64, Value)> = of_key.into_iter().collect();
        let expected: Vec<_> = (1..=events).map(|place| (place as u64, json!([key, place]))).collect();
        assert_eq!(places, expected, "{key}");
    }
}

fn event(key: &str, place: usize) -> Value {
    json!({ "type": "a", "data": [key, place], "ordering_key": key, "id": format!("{key}-{place}") })
}

/// Publishes the events of keys in order, at the same time for all keys, until `ends`. Returns the number of each key's
/// events.
async fn publish_all(world: &World, keys: usize, ends: &AtomicBool) -> usize {
    let mut published = 0;
    let mut pace = tokio::time::interval(PACE);
    while !ends.load(Ordering::Relaxed) {
        pace.tick().await;
        let place = published + 1;
        let batch: Vec<Value> = (0..keys).map(|key| event(&format!("key-{key}"), place)).collect();
        // A repetition after an unknown outcome changes nothing.
        until("the batch to be accepted", async || {
            let answer = world.client().post("events/batch", &json!(batch)).await;
            (answer.status == 202).then_some(())
        })
        .await;
        published = place;
    }
    published
}

#[tokio::test(flavor = "multi_thread")]
async fn numbers_have_no_gap_and_no_repeat_while_dispatchers_are_killed() {
    const KEYS: usize = 10;
    let world = World::of_waits("1s", &[]).await;
    let endpoints = [world.endpoint("one", &["*"]).await, world.endpoint("two", &["*"]).await];
    world.receiver.script("two", &[Behaviour::Answer(500, Duration::ZERO), Behaviour::OK, Behaviour::OK]);
    let mut dispatchers = vec![world.dispatcher().await, world.dispatcher().await];
    let ends = AtomicBool::new(false);
    let publishing = publish_all(&world, KEYS, &ends);
    let killing = async {
        for round in 0..4 {
            let seen = world.receiver.received("one").len();
            until("further deliveries", async || (world.receiver.received("one").len() > seen + 20).then_some(()))
                .await;
            dispatchers.remove(0).kill();
            if round % 2 == 0 {
                dispatchers.push(world.dispatcher().await);
            } else {
                let stopping = dispatchers.remove(0);
                dispatchers.push(world.dispatcher().await);
                dispatchers.push(world.dispatcher().await);
                stopping.terminate();
                assert_eq!(stopping.ended().await, 0);
            }
        }
        ends.store(true, Ordering::Relaxed);
    };
    let (events, ()) = tokio::join!(publishing, killing);
    for endpoint in &endpoints {
        let distinct = |requests: &[Received]| {
            requests.iter().map(|request| request.event().to_owned()).collect::<HashSet<_>>().len()
        };
        until("all events", async || {
            (distinct(&world.receiver.received(&endpoint.path)) == KEYS * events).then_some(())
        })
        .await;
        assert_in_order(&world.receiver.received(&endpoint.path), KEYS, events);
    }
    assert_eq!(world.count("SELECT count(*) FROM delivery_sequences").await, (2 * KEYS * events) as i64);
}

#[tokio::test]
async fn a_number_stays_with_its_delivery() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["*"]).await;
    let feed = world.client().post("webhooks", &json!({ "events": ["a"], "feed": "only" })).await.data().clone();
    world.known().await;
    for place in 1..=2 {
        world.publish(&event("order-7", place)).await;
    }
    let plain = world.publish(&json!({ "type": "a", "data": 1 })).await;
    world.receiver.wait_for(&endpoint.path, 3).await;
    let delivery = until("the second delivery", async || {
        let listed = world.deliveries("state=delivered").await;
        listed.into_iter().find(|delivery| delivery["sequence"] == 2)
    })
    .await;
    let shown = world.client().get(&format!("events/{}", delivery["event"].as_str().expect("an id"))).await;
    assert_eq!(shown.data()["ordering_key"], "order-7");
    assert_eq!(world.client().get(&format!("events/{plain}")).await.data()["ordering_key"], Value::Null);

    let id = delivery["id"].as_str().expect("an id");
    world.client().post(&format!("deliveries/{id}/resend"), &json!({})).await.data();
    let requests = world.receiver.wait_for(&endpoint.path, 4).await;
    assert_eq!(requests[3].header("webhook-sequence"), "2");
    assert_eq!(requests[3].header("webhook-ordering-key"), "order-7");
    let without = requests.iter().find(|request| request.event() == plain).expect("the event without a key");
    assert_eq!((without.header("webhook-sequence"), without.header("webhook-ordering-key")), ("", ""));

    let path = format!("webhooks/{}/feed?wait=5", feed["id"].as_str().expect("an id"));
    let entries = until("the feed", async || {
        let page = world.client().get(&path).await.data().clone();
        page.as_array().filter(|entries| entries.len() == 3).cloned()
    })
    .await;
    let number = |entry: &Value| {
        let headers = entry["headers"].as_array().expect("headers").iter();
        headers.filter(|header| header[0] == "webhook-sequence").map(|header| header[1].clone()).next()
    };
    // The event without a key comes by another queue.
    let numbers: Vec<_> = entries.iter().filter_map(number).collect();
    assert_eq!(numbers, ["1", "2"]);
}

#[tokio::test]
async fn an_event_with_a_key_is_written_with_all_deliveries() {
    let world = World::shared().await;
    for number in 0..120 {
        let new = json!({ "url": world.receiver.url(&format!("wide-{number}")), "events": ["a"] });
        world.client().post("webhooks", &new).await.data();
    }
    world.known().await;
    for place in 1..=3 {
        world.publish(&event("wide", place)).await;
    }
    for number in 0..120 {
        let path = format!("wide-{number}");
        world.receiver.wait_for(&path, 3).await;
        assert_in_order(&world.receiver.received(&path), 1, 3);
    }
}

#[tokio::test]
async fn an_invalid_key_is_refused() {
    let world = World::shared().await;
    let long = "a".repeat(256);
    for (key, code) in [
        (json!(""), "invalid_field"),
        (json!("a b"), "invalid_field"),
        (json!("ä"), "invalid_field"),
        (json!(long), "field_too_long"),
        (json!(7), "wrong_type"),
        (json!(null), "wrong_type"),
    ] {
        let answer = world.client().post("events", &json!({ "type": "a", "data": 1, "ordering_key": key })).await;
        assert_refused(&key.to_string(), &answer, (422, code, "ordering_key"));
    }
    let cloud_event = json!({ "specversion": "1.0", "id": "1", "source": "/s", "type": "a", "orderingkey": "a b" });
    let answer = world.client().post("events", &cloud_event).await;
    assert_refused("a CloudEvent", &answer, (422, "invalid_field", "orderingkey"));
}

#[tokio::test]
async fn publishers_over_amqp_use_an_exchange_of_their_own() {
    let world = World::new().await;
    let endpoint = world.endpoint("a", &["*"]).await;
    let _dispatchers = [world.dispatcher().await, world.dispatcher().await];
    let broker = world.broker().await;
    let routing_key = format!("{}.a", world.application);
    for place in 1..=20 {
        for key in ["key-0", "key-1", "key-2"] {
            let id = format!("{key}-{place}");
            let body = json!({ "data": [key, place] }).to_string();
            let headers = [("ordering-key", key)];
            let published = broker.publish_to("ordered-by-key", &routing_key, Some(&id), &headers, &body).await;
            assert!(published.expect("the broker"));
        }
    }
    world.receiver.wait_for(&endpoint.path, 60).await;
    assert_in_order(&world.receiver.received(&endpoint.path), 3, 20);

    // Another exchange keeps no order. Put back, the event goes to the queue of its key.
    let body = json!({ "data": ["key-0", 21] }).to_string();
    let headers = [("ordering-key", "key-0")];
    assert!(broker.publish(&routing_key, Some("late"), &headers, &body).await.expect("the broker"));
    let in_body = json!({ "data": ["key-0", 22], "ordering_key": "key-0" }).to_string();
    assert!(broker.publish(&routing_key, Some("in-body"), &[], &in_body).await.expect("the broker"));
    let mismatch = json!({ "data": 1, "ordering_key": "other" }).to_string();
    let published = broker.publish_to("ordered-by-key", &routing_key, Some("mismatch"), &headers, &mismatch).await;
    assert!(published.expect("the broker"));
    let parked = "SELECT count(*) FROM parked WHERE reason = 'not_ordered'";
    until("the parked messages", async || (world.count(parked).await == 3).then_some(())).await;
    let admin = world.admin().await;
    let listed = admin.get("parked").await.data().clone();
    for (message_id, count) in [("late", 61), ("in-body", 62)] {
        let mut messages = listed.as_array().into_iter().flatten();
        let message = messages.find(|message| message["message_id"] == message_id).expect("the message");
        let id = message["id"].as_str().expect("an id");
        admin.post(&format!("parked/{id}/put-back"), &json!({})).await.data();
        world.receiver.wait_for(&endpoint.path, count).await;
    }
    let received = world.receiver.received(&endpoint.path).into_iter();
    let of_key = received.filter(|request| request.header("webhook-ordering-key") == "key-0");
    assert_in_order(&of_key.collect::<Vec<_>>(), 1, 22);
}
