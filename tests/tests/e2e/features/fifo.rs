//! FIFO per ordering key: the order in which a receiver sees the deliveries of a key.

use std::{
    collections::{BTreeMap, HashSet},
    time::Duration,
};

use fanfare_tests::{
    patience::until,
    receiver::{Behaviour, Received},
    world::{Endpoint, World},
};
use serde_json::{Value, json};

use crate::api::assert_refused;

async fn endpoint(world: &World, path: &str, fifo: &str) -> Endpoint {
    let endpoint = world.endpoint(path, &["*"]).await;
    world.change(&endpoint, &json!({ "fifo": fifo })).await;
    endpoint
}

fn event(key: &str, place: usize) -> Value {
    json!({ "type": "a", "data": place, "ordering_key": key, "id": format!("{key}-{place}") })
}

/// The numbers of each key's requests, in the order of arrival.
fn numbers(requests: &[Received]) -> BTreeMap<String, Vec<u64>> {
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for request in requests {
        let number = request.header("webhook-sequence").parse().expect("a number");
        numbers.entry(request.header("webhook-ordering-key").to_owned()).or_default().push(number);
    }
    numbers
}

fn expected(numbers: &[(&str, &[u64])]) -> BTreeMap<String, Vec<u64>> {
    numbers.iter().map(|(key, numbers)| ((*key).to_owned(), numbers.to_vec())).collect()
}

#[tokio::test]
async fn a_failing_delivery_holds_up_its_key_only() {
    let world = World::of_waits("1s,1s", &[]).await;
    let endpoint = endpoint(&world, "a", "block").await;
    world.receiver.script("a", &[Behaviour::FAIL, Behaviour::OK]);
    let _dispatchers = [world.dispatcher().await, world.dispatcher().await];
    world.publish(&event("a", 1)).await;
    world.receiver.wait_for("a", 1).await;
    world.receiver.script("a", &[Behaviour::OK]);
    for (key, place) in [("a", 2), ("a", 3), ("b", 1), ("b", 2)] {
        world.publish(&event(key, place)).await;
    }
    let requests = world.receiver.wait_for("a", 6).await;
    assert_eq!(numbers(&requests), expected(&[("a", &[1, 1, 2, 3]), ("b", &[1, 2])]));
    let of_b = |request: &Received| request.header("webhook-ordering-key") == "b";
    let second_of_a = requests.iter().filter(|request| !of_b(request)).nth(1).expect("a retry");
    let first_of_b = requests.iter().find(|request| of_b(request)).expect("a delivery");
    assert!(first_of_b.at < second_of_a.at, "another key does not wait");
    let delivered = world.wait_for_deliveries("state=delivered", 5).await;
    assert!(delivered.iter().all(|delivery| delivery["endpoint"] != endpoint.id || delivery["sequence"].is_number()));
}

#[tokio::test]
async fn a_delivery_that_failed_often_is_skipped() {
    let world = World::of_waits("1s,5m", &[]).await;
    endpoint(&world, "a", "skip:2").await;
    world.receiver.script("a", &[Behaviour::FAIL]);
    let _dispatcher = world.dispatcher().await;
    world.publish(&event("a", 1)).await;
    world.receiver.wait_for("a", 2).await;
    world.receiver.script("a", &[Behaviour::OK]);
    world.publish(&event("a", 2)).await;
    world.publish(&event("a", 3)).await;
    assert_eq!(numbers(&world.receiver.wait_for("a", 4).await), expected(&[("a", &[1, 1, 2, 3])]));
    let scheduled = world.wait_for_deliveries("state=scheduled", 1).await;
    assert_eq!(scheduled[0]["sequence"], 1, "the skipped delivery goes on");
}

#[tokio::test]
async fn a_parked_key_waits_until_it_is_resumed() {
    let world = World::of_waits("1s", &[]).await;
    let endpoint = endpoint(&world, "a", "park").await;
    world.receiver.script("a", &[Behaviour::FAIL]);
    let _dispatcher = world.dispatcher().await;
    for place in 1..=3 {
        world.publish(&event("a", place)).await;
    }
    let failed = world.wait_for_deliveries("state=failed", 1).await;
    world.receiver.script("a", &[Behaviour::OK]);
    let path = format!("webhooks/{}/ordering-keys", endpoint.id);
    let keys = until("the parked key", async || {
        let keys = world.client().get(&path).await.data().clone();
        (keys[0]["state"] == "parked").then_some(keys)
    })
    .await;
    assert_eq!((&keys[0]["key"], &keys[0]["open"], &keys[0]["sequence"]), (&json!("a"), &json!(2), &json!(2)));
    assert_eq!(keys[0]["parked_by"], failed[0]["id"]);
    let waiting = world.wait_for_deliveries("state=queued", 2).await;
    assert!(waiting.iter().all(|delivery| delivery["reason"] == "in_order"), "{waiting:?}");
    let event_id = waiting[0]["event"].as_str().expect("an id");
    let why = world.client().get(&format!("events/{event_id}/why")).await.data().clone();
    assert!(why.to_string().contains("resume_key"), "{why}");
    // Another key goes on.
    world.publish(&event("b", 1)).await;
    until("the other key", async || numbers(&world.receiver.received("a")).contains_key("b").then_some(())).await;

    // A resend stands outside the order.
    let id = failed[0]["id"].as_str().expect("an id");
    world.client().post(&format!("deliveries/{id}/resend"), &json!({})).await.data();
    world.wait_for_deliveries("state=delivered", 2).await;
    assert_eq!(numbers(&world.receiver.received("a"))["a"], [1, 1, 1]);
    let resume = format!("{path}/resume");
    assert_eq!(world.client().post(&resume, &json!({})).await.data()["resumed"], 1);
    assert_eq!(world.client().post(&resume, &json!({})).await.data()["resumed"], 0);
    world.wait_for_deliveries("state=delivered", 4).await;
    assert_eq!(numbers(&world.receiver.received("a"))["a"], [1, 1, 1, 2, 3]);
    let again = world.client().post(&resume, &json!({ "key": "a" })).await;
    assert_refused("not parked", &again, (404, "not_found", "key"));
    let empty = world.client().post(&resume, &json!({ "key": "" })).await;
    assert_refused("no key", &empty, (422, "invalid_field", "key"));
}

#[tokio::test]
async fn without_fifo_waiting_deliveries_go_at_once() {
    let world = World::of_waits("5m", &[]).await;
    let endpoint = endpoint(&world, "a", "block").await;
    world.receiver.script("a", &[Behaviour::FAIL]);
    let _dispatcher = world.dispatcher().await;
    world.publish(&event("a", 1)).await;
    world.wait_for_deliveries("state=scheduled", 1).await;
    world.receiver.script("a", &[Behaviour::OK]);
    world.publish(&event("a", 2)).await;
    world.wait_for_deliveries("state=queued", 1).await;
    world.change(&endpoint, &json!({ "fifo": null })).await;
    world.wait_for_deliveries("state=delivered", 1).await;
    assert_eq!(numbers(&world.receiver.received("a"))["a"], [1, 2]);
    for fifo in ["", "skip", "skip:0", "skip:101", "fifo"] {
        let answer = world.client().patch(&format!("webhooks/{}", endpoint.id), &json!({ "fifo": fifo })).await;
        assert_refused(fifo, &answer, (422, "invalid_field", "fifo"));
    }
}

/// No receiver sees a key out of order, whatever is killed: a request never has a smaller number than an earlier
/// request.
#[tokio::test(flavor = "multi_thread")]
async fn the_order_of_each_key_survives_kills_and_stops() {
    const KEYS: usize = 8;
    const EVENTS: usize = 12;
    let world = World::of_waits("1s,1s,1s", &[]).await;
    let endpoint = endpoint(&world, "a", "block").await;
    // Not in step with the keys: each key has failures.
    let mut behaviours = vec![Behaviour::OK; 10];
    behaviours[9] = Behaviour::FAIL;
    world.receiver.script("a", &behaviours);
    let mut dispatchers = vec![world.dispatcher().await, world.dispatcher().await];
    let publishing = async {
        for place in 1..=EVENTS {
            let batch: Vec<Value> = (0..KEYS).map(|key| event(&format!("key-{key}"), place)).collect();
            until("the batch to be accepted", async || {
                (world.client().post("events/batch", &json!(batch)).await.status == 202).then_some(())
            })
            .await;
        }
    };
    let killing = async {
        for round in 0..3 {
            let seen = world.receiver.received("a").len();
            until("further deliveries", async || (world.receiver.received("a").len() > seen + 10).then_some(())).await;
            let ended = dispatchers.remove(0);
            dispatchers.push(world.dispatcher().await);
            if round == 1 {
                ended.terminate();
                assert_eq!(ended.ended().await, 0);
            } else {
                ended.kill();
            }
        }
    };
    tokio::join!(publishing, killing);
    let distinct = async || {
        let received = world.receiver.received("a");
        received.iter().map(|request| request.event().to_owned()).collect::<HashSet<_>>().len()
    };
    until("all events", async || (distinct().await == KEYS * EVENTS).then_some(())).await;
    for (key, numbers) in numbers(&world.receiver.received(&endpoint.path)) {
        assert!(numbers.is_sorted(), "{key}: {numbers:?}");
        let distinct: HashSet<u64> = numbers.iter().copied().collect();
        assert_eq!(distinct, (1..=EVENTS as u64).collect(), "{key}");
    }
    until("the end of all deliveries", async || {
        (world.count("SELECT count(*) FROM open_deliveries").await == 0).then_some(())
    })
    .await;
    assert_eq!(world.count("SELECT count(*) FROM ordering_signals").await, 0);
}

#[tokio::test]
async fn unordered_events_and_other_endpoints_do_not_wait() {
    let world = World::of_waits("5m", &[]).await;
    endpoint(&world, "fifo", "block").await;
    world.endpoint("free", &["*"]).await;
    world.receiver.script("fifo", &[Behaviour::FAIL]);
    let _dispatcher = world.dispatcher().await;
    world.publish(&event("a", 1)).await;
    world.wait_for_deliveries("state=scheduled", 1).await;
    world.receiver.script("fifo", &[Behaviour::OK]);
    world.publish(&event("a", 2)).await;
    world.publish(&json!({ "type": "a", "data": 1 })).await;
    world.receiver.wait_for("free", 3).await;
    world.receiver.wait_for("fifo", 2).await;
    tokio::time::timeout(Duration::from_secs(5), world.wait_for_deliveries("state=queued", 1))
        .await
        .expect("one waits");
    let received = world.receiver.received("fifo");
    assert_eq!(received.iter().filter(|request| request.header("webhook-sequence").is_empty()).count(), 1);
}
