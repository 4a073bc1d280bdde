//! The crash table of `crates/dispatcher/README.md`: kills a process at each crash point, and checks that all accepted
//! events are delivered.

use std::{
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use fanfare_tests::{
    clients::load::Load,
    ledger::{Allowed, Ledger, Subscriber, flaky},
    patience::until,
    receiver::Behaviour,
    world::{Setup, World},
};
use hyper::Method;
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::features::operational::{Operations, looked};

/// Time between two events of a publisher.
const PACE: Duration = Duration::from_millis(10);

/// Events of a load. After a kill, each request of the load may be sent again.
const EVENTS: usize = 20;

/// A world with a short attempt timeout, hence short leases.
async fn world(variables: &[(&str, &str)]) -> World {
    World::of(Setup { timeout: Some("500ms".to_owned()), ..Setup::new(variables) }).await
}

/// Starts a dispatcher with a crash point, and waits for the crash.
async fn kill_dispatcher_at(world: &World, place: &str) {
    world.process_with("dispatcher", &[("FANFARE_CRASH_AT", place)]).crashed().await;
}

/// An endpoint that always succeeds, and an endpoint that fails one of seven requests.
async fn subscribers(world: &World) -> [Subscriber; 2] {
    let quick = Subscriber::new(world, "quick", vec![Behaviour::OK]).await;
    [quick, Subscriber::new(world, "flaky", flaky(7, 4000)).await]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_killed_at_each_step_of_an_event_loses_nothing() {
    // Later occurrences of a crash point, too: by then, further deliveries are in flight.
    const PLACES: [&str; 16] = [
        "event.received",
        "event.received:5",
        "event.persisted",
        "event.persisted:2",
        "attempt.answered",
        "attempt.answered:7",
        "attempt.recorded",
        "attempt.recorded:3",
        "retry.received",
        "retry.taken",
        "retry.confirmed",
        "retry.confirmed:4",
        "delivery.leased",
        "backlog.ended",
        "message.acked",
        "message.acked:6",
    ];
    let world = world(&[]).await;
    let subscribers = subscribers(&world).await;
    let mut accepted = Vec::new();
    for place in PLACES {
        // A dispatcher reaches its crash point only with events. The messages of the killed dispatcher come first.
        accepted.extend(Load::start(&world, EVENTS, PACE).finish().await);
        let dispatcher = world.process_with("dispatcher", &[("FANFARE_CRASH_AT", place)]);
        let is_killed = AtomicBool::new(false);
        let killed = async {
            dispatcher.crashed().await;
            is_killed.store(true, Ordering::Relaxed);
        };
        // A single commit may write all events: a second occurrence of the crash point needs further events.
        let more = async {
            while !is_killed.load(Ordering::Relaxed) {
                accepted.extend(Load::start(&world, EVENTS, PACE).finish().await);
            }
        };
        tokio::join!(killed, more);
    }
    let _dispatcher = world.dispatcher().await;
    let allowed = Allowed { repeats: 2 * EVENTS * PLACES.len(), unknown: i64::MAX, ..Allowed::default() };
    Ledger::read(&world, &accepted, &subscribers).await.check(allowed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_killed_in_the_fan_out_of_a_wide_event_loses_nothing() {
    const PLACES: [&str; 3] = ["event.persisted", "fan_out.begun", "fan_out.written"];
    const ENDPOINTS: usize = 101;
    let world = world(&[]).await;
    let mut paths = Vec::new();
    for number in 0..ENDPOINTS {
        let path = format!("wide{number}");
        let fields = json!({ "url": world.receiver.url(&path), "events": ["a"] });
        assert_eq!(world.client().post("webhooks", &fields).await.status, 201);
        paths.push(path);
    }
    for (place, count) in PLACES.iter().zip(1..) {
        world.publish(&json!({ "type": "a", "data": count })).await;
        kill_dispatcher_at(&world, place).await;
    }
    let _dispatcher = world.dispatcher().await;
    let expected = i64::try_from(ENDPOINTS * PLACES.len()).expect("a small number");
    until("all deliveries of the wide events", async || {
        let delivered = "SELECT count(*) FROM all_deliveries WHERE state = 'delivered'";
        (world.count(delivered).await == expected).then_some(())
    })
    .await;
    for path in &paths {
        let received = world.receiver.received(path);
        let mut events: Vec<&str> = received.iter().map(|request| request.event()).collect();
        events.sort_unstable();
        events.dedup();
        assert_eq!(events.len(), PLACES.len(), "{path}");
    }
    assert_eq!(world.count("SELECT count(*) FROM all_deliveries").await, expected);
}

/// Kills a dispatcher after the commit that lets the next delivery of a key go: the order stays.
#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_killed_while_it_advances_keys_keeps_the_order() {
    let world = world(&[]).await;
    let endpoint = world.endpoint("one", &["a"]).await;
    world.change(&endpoint, &json!({ "fifo": "block" })).await;
    for number in 1..=EVENTS {
        world.publish(&json!({ "type": "a", "data": number, "ordering_key": "key" })).await;
    }
    for place in ["key.advanced", "key.advanced:3", "key.advanced:5"] {
        kill_dispatcher_at(&world, place).await;
    }
    let _dispatcher = world.dispatcher().await;
    let delivered = "SELECT count(*) FROM all_deliveries WHERE state = 'delivered'";
    let all = i64::try_from(EVENTS).expect("a small number");
    until("all deliveries", async || (world.count(delivered).await == all).then_some(())).await;
    let requests = world.receiver.received("one");
    let numbers: Vec<usize> =
        requests.iter().map(|request| request.header("webhook-sequence").parse().expect("a number")).collect();
    assert!(numbers.is_sorted(), "{numbers:?}");
}

/// Kills dispatchers between the due time and the first attempts: no event is lost, and none has a second delivery.
#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_killed_while_it_opens_due_events_loses_nothing() {
    let world = world(&[]).await;
    let first = world.dispatcher().await;
    let endpoint = world.endpoint("one", &["a"]).await;
    let due = Timestamp::now() + Duration::from_secs(4);
    for number in 0..EVENTS {
        world.publish(&json!({ "type": "a", "data": number, "deliver_at": due })).await;
    }
    let delayed = "SELECT count(*) FROM delayed_events";
    let all = i64::try_from(EVENTS).expect("a small number");
    until("the delayed events", async || (world.count(delayed).await == all).then_some(())).await;
    first.terminate();
    assert_eq!(first.ended().await, 0);
    // A death before the commit leaves the events leased; after the commit, the leases of the deliveries end.
    kill_dispatcher_at(&world, "due.taken").await;
    assert_eq!(world.count(delayed).await, all);
    kill_dispatcher_at(&world, "due.opened").await;
    assert_eq!(world.count(delayed).await, 0);
    assert_eq!(world.receiver.received("one").len(), 0);
    let _dispatcher = world.dispatcher().await;
    world.wait_for_deliveries("state=delivered", EVENTS).await;
    assert_eq!(world.receiver.received(&endpoint.path).len(), EVENTS);
    assert_eq!(world.count("SELECT count(*) FROM all_deliveries").await, all);
}

/// Kills dispatchers around the commit of a digest: the webhook gets one digest.
#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_killed_while_it_tells_a_digest_tells_it_once() {
    let world = world(&[]).await;
    let new = json!({ "url": world.receiver.url("told"), "events": ["a"], "feed": "copy", "digest": true });
    world.client().post("webhooks", &new).await.data();
    let from = fanfare_domain::delivery::digest::last_ended(Timestamp::now());
    let began = format!("UPDATE endpoints SET digest_from = '{from}'");
    world.database().await.execute(&began, &[]).await.expect("an update");
    let digests = "SELECT count(*) FROM events WHERE type = 'fanfare.digest'";
    kill_dispatcher_at(&world, "digest.counted").await;
    assert_eq!(world.count(digests).await, 0);
    kill_dispatcher_at(&world, "digest.told").await;
    assert_eq!(world.count(digests).await, 1);
    let _dispatcher = world.dispatcher().await;
    world.receiver.wait_for("told", 1).await;
    // The next looks of the job find nothing to tell.
    let runs = "SELECT count(*) FROM job_runs WHERE job = 'digests' AND ended_at > now() - interval '1 s'";
    for _ in 0..2 {
        tokio::time::sleep(Duration::from_secs(1)).await;
        until("a run of the job", async || (world.count(runs).await == 1).then_some(())).await;
    }
    assert_eq!((world.count(digests).await, world.receiver.received("told").len()), (1, 1));
}

/// Kills dispatchers around each commit of the job of operational events: the operator gets each event once.
#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_killed_while_it_tells_operational_events_tells_each_once() {
    let mut world = world(&[]).await;
    let operations = Operations::new(&mut world).await;
    let first = world.dispatcher().await;
    looked(&world).await;
    let endpoint = world.endpoint("off", &["a"]).await;
    let replay = json!({ "since": "2020-01-01T00:00:00Z", "states": ["unmatched"] });
    world.client().post("replays", &replay).await.data();
    let done = "SELECT count(*) FROM replays WHERE finished_at IS NOT NULL";
    until("the end of the replay", async || (world.count(done).await == 1).then_some(())).await;
    first.kill();
    world.client().patch(&format!("webhooks/{}", endpoint.id), &json!({ "status": "disabled" })).await.data();
    // Occurrences are counted at an age of 20 s.
    let aged = "SELECT count(*) FROM replays WHERE finished_at < now() - interval '21 s'";
    until("the age of the replay", async || (world.count(aged).await == 1).then_some(())).await;
    let (states, events) = ("SELECT count(*) FROM operational_states", "SELECT count(*) FROM events");
    kill_dispatcher_at(&world, "operational.counted").await;
    assert_eq!((world.count(states).await, world.count(events).await), (1, 0), "the replay");
    kill_dispatcher_at(&world, "operational.seen").await;
    assert_eq!((world.count(states).await, world.count(events).await), (2, 0));
    kill_dispatcher_at(&world, "operational.told").await;
    assert_eq!((world.count(states).await, world.count(events).await), (2, 2));
    let _dispatchers = [world.dispatcher().await, world.dispatcher().await];
    for _ in 0..2 {
        looked(&world).await;
    }
    until("both events", async || (operations.told(&world).len() == 2).then_some(())).await;
    let mut names: Vec<_> = operations.told(&world).into_iter().map(|(name, _)| name).collect();
    names.sort_unstable();
    assert_eq!(names, ["fanfare.endpoint.disabled", "fanfare.replay.finished"]);
    assert_eq!(world.count(events).await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_killed_around_the_confirm_loses_no_accepted_event() {
    let mut world = world(&[]).await;
    let subscribers = [Subscriber::new(&world, "quick", vec![Behaviour::OK]).await];
    let _dispatcher = world.dispatcher().await;
    let mut accepted = Vec::new();
    for place in ["ingest.checked:4", "ingest.confirmed:4"] {
        world.take_ingest().kill();
        world.start_ingest_with(&[("FANFARE_CRASH_AT", place)]).await;
        let load = Load::start(&world, EVENTS, PACE);
        world.take_ingest().crashed().await;
        world.start_ingest().await;
        load.use_client(world.client());
        accepted.extend(load.finish().await);
    }
    // Publishers repeat an unanswered event under the same key, and Fanfare persists a single event.
    Ledger::read(&world, &accepted, &subscribers).await.check(Allowed::default());
}

/// Publishes an event to a single endpoint. Returns the event id, and the delivery in state `scheduled`.
async fn scheduled(world: &World, behaviours: &[Behaviour]) -> (String, Value) {
    let endpoint = world.endpoint("one", &["a"]).await;
    world.receiver.script("one", behaviours);
    let event = world.publish(&json!({ "type": "a", "data": 1 })).await;
    let scheduled = world.wait_for_deliveries("state=scheduled", 1).await.remove(0);
    assert_eq!(scheduled["webhook"], endpoint.id.as_str());
    (event, scheduled)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_resend_committed_without_an_answer_is_sent_by_the_next_dispatcher() {
    let mut world = World::of_waits(&["1h"; 5].join(","), &[]).await;
    let first = world.dispatcher().await;
    let (event, delivery) = scheduled(&world, &[Behaviour::FAIL, Behaviour::OK]).await;
    first.terminate();
    assert_eq!(first.ended().await, 0);

    // The process commits the resend as `queued`, and dies before the answer.
    world.take_ingest().kill();
    world.start_ingest_with(&[("FANFARE_CRASH_AT", "resend.committed")]).await;
    let path = format!("deliveries/{}/resend", delivery["id"].as_str().expect("an id"));
    let client = world.client().clone();
    let json = [("content-type", "application/json")];
    let asking = tokio::spawn(async move { client.send(Method::POST, &path, &json, "{}").await });
    world.take_ingest().crashed().await;
    assert!(asking.await.expect("the request ends").is_err(), "a killed ingest answered");
    world.start_ingest().await;
    // A dispatcher takes the backlog, and dies once it owns the backlog.
    kill_dispatcher_at(&world, "backlog.taken").await;
    assert_eq!(world.receiver.received("one").len(), 1);
    let _dispatcher = world.dispatcher().await;
    let received = world.receiver.wait_for("one", 2).await;
    assert!(received.iter().all(|request| request.event() == event));
    world.wait_for_deliveries("state=delivered", 1).await;
    assert_eq!(world.receiver.received("one").len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_killed_while_it_releases_held_deliveries_loses_nothing() {
    let world = world(&[]).await;
    let first = world.dispatcher().await;
    let endpoint = world.endpoint("one", &["a"]).await;
    world.change(&endpoint, &json!({ "status": "paused" })).await;
    for number in 0..EVENTS {
        world.publish(&json!({ "type": "a", "data": number })).await;
    }
    world.wait_for_deliveries("state=held", EVENTS).await;
    first.terminate();
    assert_eq!(first.ended().await, 0);
    let answer = world.client().post(&format!("webhooks/{}/enable", endpoint.id), &json!({})).await;
    assert_eq!(answer.status, 200);
    kill_dispatcher_at(&world, "backlog.taken").await;
    let _dispatcher = world.dispatcher().await;
    world.wait_for_deliveries("state=delivered", EVENTS).await;
    assert_eq!(world.receiver.received("one").len(), EVENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_killed_while_it_replays_loses_nothing() {
    let world = world(&[]).await;
    let first = world.dispatcher().await;
    for number in 0..EVENTS {
        world.publish(&json!({ "type": "a", "data": number })).await;
    }
    let persisted = "SELECT count(*) FROM events";
    until("the events", async || (world.count(persisted).await == 20).then_some(())).await;
    first.terminate();
    assert_eq!(first.ended().await, 0);
    let endpoint = world.endpoint("later", &["a"]).await;
    let new = json!({ "since": "2020-01-01T00:00:00Z", "rate_per_second": 10 });
    assert_eq!(world.client().post("replays", &new).await.status, 201);
    kill_dispatcher_at(&world, "replay.committed").await;
    let _dispatcher = world.dispatcher().await;
    world.wait_for_deliveries("state=delivered", EVENTS).await;
    assert_eq!(world.receiver.received(&endpoint.path).len(), EVENTS);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_killed_while_it_gives_back_loses_nothing() {
    // A lane with a single slot, used by a slow attempt: the other leased deliveries wait, and are given back at
    // SIGTERM.
    let bounds = [("FANFARE_LANE_BOUND", "1")];
    let world = World::of_variables(&bounds).await;
    let endpoint = world.endpoint("slow", &["a"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::Answer(200, Duration::from_millis(1500)), Behaviour::OK]);
    let mut events = Vec::new();
    for number in 0..5 {
        events.push(world.publish(&json!({ "type": "a", "data": number })).await);
    }
    let dispatcher = world.process_with("dispatcher", &[("FANFARE_CRASH_AT", "delivery.given_back")]);
    world.receiver.wait_for(&endpoint.path, 1).await;
    dispatcher.terminate();
    dispatcher.crashed().await;
    let _dispatcher = world.dispatcher().await;
    world.wait_for_deliveries("state=delivered", events.len()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_killed_in_a_slow_attempt_or_in_its_recovery_loses_nothing() {
    let world = World::of(Setup { timeout: Some("3s".to_owned()), ..Setup::new(&[]) }).await;
    let endpoint = world.endpoint("one", &["a"]).await;
    world.receiver.script(&endpoint.path, &[Behaviour::Hang, Behaviour::OK]);
    let dispatcher = world.dispatcher().await;
    let event = world.publish(&json!({ "type": "a", "data": 1 })).await;
    world.receiver.wait_for(&endpoint.path, 1).await;
    dispatcher.kill();
    assert_eq!(world.count("SELECT count(*) FROM all_deliveries WHERE state = 'sending'").await, 1);
    kill_dispatcher_at(&world, "recovery.committed").await;
    let _dispatcher = world.dispatcher().await;
    let received = world.receiver.wait_for(&endpoint.path, 2).await;
    assert!(received.iter().all(|request| request.event() == event));
    let delivered = world.wait_for_deliveries("state=delivered", 1).await.remove(0);
    let delivery = world.delivery(delivered["id"].as_str().expect("an id")).await;
    assert_eq!(outcomes(&delivery), ["unknown", "answered"]);
}

fn outcomes(delivery: &Value) -> Vec<&str> {
    let attempts = delivery["attempts"].as_array().expect("attempts");
    attempts.iter().map(|attempt| attempt["outcome"].as_str().expect("an outcome")).collect()
}

/// Kills two dispatchers after an ordinary attempt, and two further dispatchers that lease the delivery as a suspect.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_kills_each_process_is_given_up_and_holds_up_no_other() {
    let world = world(&[]).await;
    let endpoint = world.endpoint("one", &["a"]).await;
    world.publish(&json!({ "type": "a", "data": 1 })).await;
    let end_lease = async || {
        let database = world.database().await;
        let now = "UPDATE open_deliveries SET lease_until = now() WHERE state = 'sending'";
        assert_eq!(database.execute(now, &[]).await.expect("the lease"), 1);
    };
    for place in ["attempt.answered", "attempt.answered", "suspect.leased", "suspect.leased"] {
        kill_dispatcher_at(&world, place).await;
        end_lease().await;
    }
    let other = world.endpoint("other", &["order"]).await;
    let _dispatcher = world.dispatcher().await;
    world.publish(&json!({ "type": "order", "data": 1 })).await;
    world.receiver.wait_for(&other.path, 1).await;
    let failed = world.wait_for_deliveries("state=failed", 1).await.remove(0);
    assert_eq!((&failed["reason"], &failed["webhook"]), (&json!("aborted"), &json!(endpoint.id)));
    let delivery = world.delivery(failed["id"].as_str().expect("an id")).await;
    assert_eq!(outcomes(&delivery), ["unknown"; 4]);
    assert_eq!(world.receiver.received(&endpoint.path).len(), 2);
}

/// Kills each dispatcher that sends the poison, as a fault of the process would. The bystanders die with it.
#[tokio::test(flavor = "multi_thread")]
async fn a_delivery_that_kills_each_process_ends_no_delivery_beside_it() {
    const BYSTANDERS: usize = 50;
    let world = world(&[]).await;
    let poison = world.endpoint("poison", &["poison"]).await;
    let beside = world.endpoint("beside", &["beside"]).await;
    world.receiver.script(&poison.path, &[Behaviour::Hang]);
    world.receiver.script(&beside.path, &[Behaviour::Answer(200, Duration::from_millis(300))]);
    for number in 0..BYSTANDERS {
        world.publish(&json!({ "type": "beside", "data": number })).await;
    }
    world.publish(&json!({ "type": "poison", "data": 0 })).await;
    let mut deaths = 0;
    let ended = async || world.deliveries("state=failed").await.pop();
    let failed = loop {
        let dispatcher = world.dispatcher().await;
        let sent = until("the poison to be sent, or given up", async || {
            let sent = world.receiver.received(&poison.path).len() > deaths;
            (sent || ended().await.is_some()).then_some(sent)
        })
        .await;
        if !sent {
            // The last dispatcher lives on.
            world.wait_for_deliveries("state=delivered", BYSTANDERS).await;
            break ended().await.expect("the poison");
        }
        deaths += 1;
        dispatcher.kill();
        let now = "UPDATE open_deliveries SET lease_until = now() WHERE state = 'sending'";
        world.database().await.execute(now, &[]).await.expect("the leases");
    };
    assert_eq!((&failed["reason"], &failed["webhook"]), (&json!("aborted"), &json!(poison.id)));
    assert_eq!(world.deliveries("state=failed").await.len(), 1);
    assert_eq!(deaths, 4, "two deaths among others, and two alone");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_killed_while_it_parks_or_sends_on_loses_nothing() {
    let world = world(&[]).await;
    let broker = world.broker().await;
    let routing_key = format!("{}.a", world.application);
    for (place, count) in ["park.confirmed", "park.kept"].into_iter().zip(1..) {
        assert!(broker.publish(&routing_key, None, &[], format!(r#"{{"data":{count}}}"#)).await.expect("the broker"));
        kill_dispatcher_at(&world, place).await;
    }
    broker.unbind("events", "events", "#").await.expect("the broker");
    assert!(broker.publish(&routing_key, Some("lost"), &[], r#"{"data":1}"#).await.expect("the broker"));
    kill_dispatcher_at(&world, "unrouted.confirmed").await;

    let endpoint = world.endpoint("one", &["a"]).await;
    let _dispatcher = world.dispatcher().await;
    world.receiver.wait_for(&endpoint.path, 1).await;
    // Messages may be kept twice, but none is lost.
    let kept = "SELECT count(DISTINCT body) FROM parked";
    until("both unreadable messages to be kept", async || (world.count(kept).await == 2).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_killed_while_it_returns_exhausted_messages_loses_nothing() {
    let world = world(&[]).await;
    let endpoint = world.endpoint("one", &["a"]).await;
    let event = world.publish(&json!({ "type": "a", "data": 1 })).await;
    assert!(world.broker().await.exhaust("events").await.expect("the queue") >= 20);
    kill_dispatcher_at(&world, "park.returned").await;
    let _dispatcher = world.dispatcher().await;
    let received = world.receiver.wait_for(&endpoint.path, 1).await;
    assert_eq!(received[0].event(), event);
    world.wait_for_deliveries("state=delivered", 1).await;
    assert_eq!(world.count("SELECT count(*) FROM parked").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_ingest_killed_during_a_put_back_loses_nothing() {
    let mut world = world(&[]).await;
    let endpoint = world.endpoint("one", &["a"]).await;
    let _dispatcher = world.dispatcher().await;
    let routing_key = format!("{}.a", world.application);
    let nameless = world.broker().await.publish(&routing_key, None, &[], r#"{"data":1}"#).await;
    assert!(nameless.expect("the broker"));
    until("the message to be parked", async || (world.count("SELECT count(*) FROM parked").await == 1).then_some(()))
        .await;
    world.take_ingest().kill();
    world.start_ingest_with(&[("FANFARE_CRASH_AT", "put_back.confirmed")]).await;
    let key = world.create_key(&["--role", "admin"]);
    let admin = world.client().with_key(&key);
    let parked = until("ingest to accept the admin key", async || {
        admin.get("parked").await.body["data"][0]["id"].as_str().map(str::to_owned)
    })
    .await;
    let path = format!("parked/{parked}/put-back");
    let json = [("content-type", "application/json")];
    let edit = r#"{"message_id":"mended"}"#;
    let again = path.clone();
    let asking = tokio::spawn(async move { admin.send(Method::POST, &path, &json, edit).await });
    world.take_ingest().crashed().await;
    assert!(asking.await.expect("the request ends").is_err(), "a killed ingest answered");
    world.start_ingest().await;
    world.receiver.wait_for(&endpoint.path, 1).await;

    let again = world.client().with_key(&key).post(&again, &json!({ "message_id": "mended" })).await;
    assert_eq!(again.status, 200);
    until("the parked message to be removed", async || {
        (world.count("SELECT count(*) FROM parked").await == 0).then_some(())
    })
    .await;
    world.wait_for_deliveries("state=delivered", 1).await;
    assert_eq!(world.receiver.received("one").len(), 1);
}
