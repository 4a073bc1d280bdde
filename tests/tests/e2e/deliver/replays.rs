//! Replays: failed, skipped and unmatched events are sent again, at a rate, with the header `fanfare-replay`.

use fanfare_tests::{
    patience::until,
    receiver::{Behaviour, Received, signature::is_signed},
    world::{Endpoint, World},
};
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

const EVENTS: usize = 5;

fn an_hour_ago() -> String {
    (Timestamp::now() - SignedDuration::from_hours(1)).to_string()
}

async fn publish(world: &World, event_type: &str, count: usize) {
    for number in 0..count {
        world.publish(&json!({ "type": event_type, "data": number })).await;
    }
}

async fn replay(world: &World, new: &Value) -> Value {
    let answer = world.client().post("replays", new).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.data().clone()
}

/// Waits until a replay is in this state. Returns the replay.
async fn wait_for_state(world: &World, replay: &Value, state: &str) -> Value {
    let path = format!("replays/{}", replay["id"].as_str().expect("an id"));
    until(&format!("the replay to be {state}"), async || {
        let now = world.client().get(&path).await.data().clone();
        (now["state"] == state).then_some(now)
    })
    .await
}

fn of_replay<'a>(received: &'a [Received], replay: &Value) -> Vec<&'a Received> {
    received
        .iter()
        .filter(|request| request.header("fanfare-replay") == replay["id"].as_str().expect("an id"))
        .collect()
}

async fn control(world: &World, replay: &Value, verb: &str) -> u16 {
    let path = format!("replays/{}/{verb}", replay["id"].as_str().expect("an id"));
    world.client().send(Method::POST, &path, &[], "").await.expect("an answer").status
}

#[tokio::test]
async fn failed_skipped_and_unmatched_events_are_replayed_and_marked() {
    let world = World::of_waits("1s", &[]).await;
    let failing = world.endpoint("failing", &["a"]).await;
    let disabled = world.endpoint("disabled", &["a"]).await;
    let healthy = world.endpoint("healthy", &["a", "order"]).await;
    world.receiver.script(&failing.path, &[Behaviour::FAIL]);
    let _dispatcher = world.dispatcher().await;
    world.change(&disabled, &json!({ "status": "disabled" })).await;
    publish(&world, "a", EVENTS).await;
    publish(&world, "order", 1).await;
    world.wait_for_deliveries("state=failed", EVENTS).await;
    world.wait_for_deliveries("state=delivered", EVENTS + 1).await;
    world.receiver.script(&failing.path, &[Behaviour::OK]);
    world.change(&disabled, &json!({ "status": "enabled" })).await;
    let later = world.endpoint("later", &["a"]).await;

    let new = json!({ "since": an_hour_ago(), "types": ["a"], "rate_per_second": 1000 });
    let counted = world.client().post("replays/dry-run", &new).await.data().clone();
    assert_eq!(counted, json!({ "events": EVENTS + 1, "deliveries": 3 * EVENTS, "has_more": false }));
    let failed_before = world.receiver.received(&failing.path).len();

    let first = replay(&world, &new).await;
    let done = wait_for_state(&world, &first, "done").await;
    assert_eq!((&done["events"], &done["deliveries"]), (&json!(EVENTS + 1), &json!(3 * EVENTS)));
    world.wait_for_deliveries("state=delivered", 4 * EVENTS + 1).await;
    let bodies = |endpoint: &Endpoint, received: &[&Received]| {
        assert!(received.iter().all(|request| is_signed(request, &endpoint.secret)), "{}", endpoint.path);
        let mut bodies: Vec<Vec<u8>> = received.iter().map(|request| request.body.clone()).collect();
        bodies.sort();
        bodies.dedup();
        bodies
    };
    let straight = world.receiver.received(&healthy.path);
    assert_eq!(straight.len(), EVENTS + 1, "a delivered event was replayed");
    assert!(straight.iter().all(|request| request.header("fanfare-replay").is_empty()));
    let events: Vec<&str> = straight.iter().map(|request| request.event()).collect();
    for endpoint in [&failing, &disabled, &later] {
        let received = world.receiver.received(&endpoint.path);
        let replayed = of_replay(&received, &first);
        assert_eq!(replayed.len(), EVENTS, "{}", endpoint.path);
        assert!(replayed.iter().all(|request| events.contains(&request.event())), "a replayed event has another id");
        assert_eq!(bodies(endpoint, &replayed).len(), EVENTS);
    }
    assert_eq!(world.receiver.received(&failing.path).len(), failed_before + EVENTS);

    // A replay of delivered events of a single webhook sends exactly these events again.
    let only = json!({ "since": an_hour_ago(), "webhook": later.id, "states": ["delivered"] });
    let second = replay(&world, &only).await;
    assert_eq!(wait_for_state(&world, &second, "done").await["deliveries"], EVENTS);
    until("the second replay to send all events", async || {
        (of_replay(&world.receiver.received(&later.path), &second).len() == EVENTS).then_some(())
    })
    .await;
    let third = replay(&world, &new).await;
    assert_eq!(wait_for_state(&world, &third, "done").await["deliveries"], 0, "a third replay found deliveries");
}

#[tokio::test]
async fn a_replay_can_be_paused_resumed_and_cancelled() {
    let world = World::shared().await;
    publish(&world, "a", EVENTS).await;
    until("the events", async || (world.rows("events", "true").await == 5).then_some(())).await;
    let endpoint = world.endpoint("later", &["a"]).await;
    let new = json!({ "since": an_hour_ago(), "rate_per_second": 1 });
    let first = replay(&world, &new).await;
    world.receiver.wait_for(&endpoint.path, 1).await;
    assert_eq!(control(&world, &first, "pause").await, 200);
    let paused = wait_for_state(&world, &first, "paused").await;
    assert!(paused["deliveries"].as_u64() < Some(EVENTS as u64), "{paused}");
    assert_eq!(control(&world, &first, "resume").await, 200);
    wait_for_state(&world, &first, "done").await;
    world.receiver.wait_for(&endpoint.path, EVENTS).await;
    assert_eq!(control(&world, &first, "resume").await, 409);

    let all = json!({ "since": an_hour_ago(), "rate_per_second": 1, "states": ["delivered"] });
    let second = replay(&world, &all).await;
    assert_eq!(control(&world, &second, "cancel").await, 200);
    assert_eq!(control(&world, &second, "resume").await, 409);
    let cancelled = wait_for_state(&world, &second, "cancelled").await;
    assert!(cancelled["finished_at"].is_string(), "{cancelled}");
}

#[tokio::test]
async fn an_endpoint_that_is_dead_does_not_hold_up_a_replay() {
    const MANY: usize = 60;
    let world = World::of_waits("1h", &[]).await;
    let _dispatcher = world.dispatcher().await;
    let events: Vec<_> = (0..MANY).map(|number| json!({ "type": "a", "data": number })).collect();
    assert_eq!(world.client().post("events/batch", &json!(events)).await.status, 202);
    until("the events", async || (world.count("SELECT count(*) FROM events").await == 60).then_some(())).await;
    let dead = world.endpoint("dead", &["a"]).await;
    world.receiver.script(&dead.path, &[Behaviour::FAIL]);
    let healthy = world.endpoint("healthy", &["a"]).await;
    // A replay has at most 10 s of its rate queued: 40 deliveries, fewer than the dead endpoint alone would queue.
    let started = replay(&world, &json!({ "since": an_hour_ago(), "rate_per_second": 4 })).await;
    wait_for_state(&world, &started, "done").await;
    assert_eq!(world.receiver.wait_for(&healthy.path, MANY).await.len(), MANY);
}

#[tokio::test]
async fn an_invalid_replay_is_refused_with_its_field() {
    let world = World::new().await;
    let since = an_hour_ago();
    for (new, field) in [
        (json!({}), "since"),
        (json!({ "since": "yesterday" }), "since"),
        (json!({ "since": "2099-01-01T00:00:00Z" }), "since"),
        (json!({ "since": since, "until": since }), "since"),
        (json!({ "since": since, "until": 1 }), "until"),
        (json!({ "since": since, "webhook": "wh_01h455vb4pex5vsknk084sn02q" }), "webhook"),
        (json!({ "since": since, "webhook": "all" }), "webhook"),
        (json!({ "since": since, "types": ["a b"] }), "types"),
        (json!({ "since": since, "types": vec!["a"; 101] }), "types"),
        (json!({ "since": since, "states": [] }), "states"),
        (json!({ "since": since, "states": ["scheduled"] }), "states"),
        (json!({ "since": since, "rate_per_second": 0 }), "rate_per_second"),
        (json!({ "since": since, "rate_per_second": 1001 }), "rate_per_second"),
        (json!({ "since": since, "speed": 1 }), "speed"),
    ] {
        for path in ["replays", "replays/dry-run"] {
            let answer = world.client().post(path, &new).await;
            assert_eq!((answer.status, answer.field()), (422, field), "{path} {new}: {}", answer.body);
        }
    }
    for _ in 0..10 {
        replay(&world, &json!({ "since": since })).await;
    }
    let answer = world.client().post("replays", &json!({ "since": since })).await;
    assert_eq!((answer.status, answer.code(), answer.retry_after().is_some()), (429, "too_many_replays", true));
}
