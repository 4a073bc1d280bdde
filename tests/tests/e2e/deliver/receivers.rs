//! Failing, slow, hanging and misbehaving receivers: requests, times, and the effect on other endpoints.

use std::time::Duration;

use fanfare_tests::{
    patience::{until, until_within},
    receiver::{Behaviour, Received},
    world::World,
};
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    time::{MissedTickBehavior, interval},
};

/// Tolerance for early requests, in seconds: the broker's timers are inexact, and the two clocks are read at different
/// times.
const EARLY: f64 = 0.6;

/// Tolerance for early retries, in seconds.
const TOLERANCE: f64 = 1.0;

/// Stored length of a successful answer, at most.
const MAX_KEPT_OF_SUCCESS: usize = 1024;

/// The attempts of a delivery, as shown by the API.
async fn attempts(world: &World, delivery: &Value) -> Vec<Value> {
    let detail = world.delivery(delivery["id"].as_str().expect("an id")).await;
    detail["attempts"].as_array().expect("attempts").clone()
}

fn outcomes(attempts: &[Value]) -> Vec<(&str, Option<u64>)> {
    attempts
        .iter()
        .map(|attempt| (attempt["outcome"].as_str().unwrap_or_default(), attempt["status"].as_u64()))
        .collect()
}

fn time(value: &Value) -> Timestamp {
    value.as_str().and_then(|text| text.parse().ok()).unwrap_or_else(|| panic!("{value} is no time"))
}

/// Seconds between consecutive requests.
fn gaps(received: &[Received]) -> Vec<f64> {
    received.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at).as_secs_f64()).collect()
}

fn assert_at_least(gaps: &[f64], waits: &[f64]) {
    assert_eq!(gaps.len(), waits.len(), "{gaps:?}");
    let kept = gaps.iter().zip(waits).all(|(gap, wait)| *gap >= wait - EARLY);
    assert!(kept, "expected waits of at least {waits:?} s, got {gaps:?}");
}

#[tokio::test]
async fn each_kind_of_failure_is_recorded_and_retried_until_it_ends() {
    let world = World::shared().await;
    world.endpoint("flaky", &["*"]).await;
    let behaviours = [
        Behaviour::FAIL,
        Behaviour::Reset,
        Behaviour::Hang,
        Behaviour::RetryAfter(429, 1),
        Behaviour::RetryAfter(503, 4),
        Behaviour::OK,
    ];
    world.receiver.script("flaky", &behaviours);
    world.publish(&json!({ "type": "a", "data": {} })).await;

    let delivery = world.wait_for_deliveries("state=delivered", 1).await.remove(0);
    let attempts = attempts(&world, &delivery).await;
    let expected = [
        ("answered", Some(500)),
        ("connection_closed", None),
        ("timed_out", None),
        ("answered", Some(429)),
        ("answered", Some(503)),
        ("answered", Some(200)),
    ];
    assert_eq!(outcomes(&attempts), expected);
    assert_eq!(attempts[4]["response_headers"]["retry-after"], "4");
    // A hanging receiver has the request 2 s before the attempt ends: the timeout of a World.
    assert_at_least(&gaps(&world.receiver.received("flaky")), &[1.0, 1.0, 3.0, 1.0, 4.0]);
    for pair in attempts.windows(2) {
        let early = time(&pair[0]["next_attempt_at"]).duration_since(time(&pair[1]["started_at"])).as_secs_f64();
        assert!(early < TOLERANCE, "an attempt began {early} s before `next_attempt_at`");
    }
    assert!(attempts[5]["next_attempt_at"].is_null());
    assert_eq!((&delivery["attempt"], &delivery["reason"]), (&json!(6), &Value::Null));
}

#[tokio::test]
async fn a_schedule_that_is_used_up_ends_as_failed() {
    let world = World::new().await;
    world.endpoint("dead", &["*"]).await;
    let _dispatcher = world.dispatcher().await;
    world.receiver.script("dead", &[Behaviour::FAIL]);
    world.publish(&json!({ "type": "a", "data": {} })).await;

    let delivery = world.wait_for_deliveries("state=failed", 1).await.remove(0);
    assert_eq!(delivery["reason"], "attempts_exhausted");
    assert_eq!(outcomes(&attempts(&world, &delivery).await), [("answered", Some(500)); 6]);
    assert!(!delivery["finished_at"].is_null() && delivery["next_attempt_at"].is_null(), "{delivery}");
    let received = world.receiver.received("dead");
    assert_at_least(&gaps(&received), &[1.0; 5]);
    assert!(received.iter().all(|request| request.body == received[0].body && request.event() == received[0].event()));
    let broker = world.broker().await;
    for queue in ["events", "deliveries", "delay.1s"] {
        until(&format!("{queue} to be empty"), async || (broker.depth(queue).await.ok()? == 0).then_some(())).await;
    }
    assert_eq!(world.receiver.received("dead").len(), 6);
}

/// Only the status decides about success, not the body or the headers.
#[tokio::test]
async fn a_2xx_is_a_success_with_any_body_and_headers() {
    let world = World::shared().await;
    world.endpoint("endless", &["*"]).await;
    world.endpoint("slow", &["*"]).await;
    world.endpoint("created", &["*"]).await;
    let binary = receiver_of_garbage().await;
    let answer = world.client().post("webhooks", &json!({ "url": binary, "events": ["*"] })).await;
    let binary = answer.data()["id"].as_str().expect("an id").to_owned();
    world.receiver.script("endless", &[Behaviour::EndlessBody]);
    world.receiver.script("slow", &[Behaviour::Answer(200, Duration::from_secs(1))]);
    world.receiver.script("created", &[Behaviour::Answer(201, Duration::ZERO)]);
    world.publish(&json!({ "type": "a", "data": {} })).await;

    for delivery in world.wait_for_deliveries("state=delivered", 4).await {
        let attempts = attempts(&world, &delivery).await;
        assert_eq!(attempts.len(), 1, "{attempts:?}");
        let body = attempts[0]["response_body"].as_str().unwrap_or_default();
        let url = delivery["url"].as_str().unwrap_or_default();
        match url.rsplit('/').next() {
            Some("endless") => assert_eq!(body.len(), MAX_KEPT_OF_SUCCESS),
            Some("slow") => assert!(attempts[0]["duration_ms"].as_u64() >= Some(1000), "{}", attempts[0]),
            Some("created") => assert_eq!(attempts[0]["status"], 201),
            _ => {
                assert_eq!(delivery["webhook"], binary.as_str());
                assert_eq!(body, "a\0b\u{fffd}c", "bytes that are not UTF-8 must be replaced");
                assert_eq!(attempts[0]["response_headers"]["server"], "caf\u{fffd}");
            }
        }
    }
}

/// The URL of a receiver whose answers contain bytes that no text column can store.
async fn receiver_of_garbage() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", listener.local_addr().expect("a local address"));
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 64 * 1024]).await;
            let answer =
                b"HTTP/1.1 200 OK\r\nserver: caf\xe9\r\ncontent-length: 5\r\nconnection: close\r\n\r\na\0b\xffc";
            let _ = stream.write_all(answer).await;
        }
    });
    url
}

/// Measures a wait of a minute in real time. Other tests of this file use waits of seconds.
#[tokio::test]
async fn a_wait_of_sixty_seconds_takes_sixty_seconds() {
    let world = World::of_waits("60s", &[]).await;
    world.endpoint("minute", &["*"]).await;
    let _dispatcher = world.dispatcher().await;
    world.receiver.script("minute", &[Behaviour::FAIL, Behaviour::OK]);
    world.publish(&json!({ "type": "a", "data": {} })).await;
    let failed = world.wait_for_deliveries("state=scheduled", 1).await.remove(0);
    let promised = time(&failed["next_attempt_at"]);

    let received = until_within(Duration::from_secs(80), "the retry", async || {
        let received = world.receiver.received("minute");
        (received.len() == 2).then_some(received)
    })
    .await;
    assert_at_least(&gaps(&received), &[60.0]);
    let late = received[1].at.duration_since(promised).as_secs_f64();
    assert!((-TOLERANCE..5.0).contains(&late), "the retry came {late} s after `next_attempt_at`");
    world.wait_for_deliveries("state=delivered", 1).await;
}

const ENDPOINTS: usize = 10;
const EVENTS: usize = 80;

/// Eighty events a second to ten endpoints; a single endpoint hangs. Healthy endpoints get all events at once. The
/// surplus of the hanging endpoint is queued without using up attempts of the schedule.
#[tokio::test]
async fn a_hanging_endpoint_delays_nobody_else() {
    let world = World::new().await;
    let hanging = world.endpoint("hanging", &["*"]).await;
    for number in 1..ENDPOINTS {
        world.endpoint(&format!("healthy/{number}"), &["*"]).await;
    }
    world.receiver.script("hanging", &[Behaviour::Hang]);
    let _dispatcher = world.dispatcher().await;

    let sent = publish_at_a_pace(&world).await;
    let mut delays = until("the healthy endpoints' events", async || {
        let delays = delays(&world, &sent);
        (delays.len() >= EVENTS * (ENDPOINTS - 1)).then_some(delays)
    })
    .await;
    delays.sort_by(f64::total_cmp);
    assert_eq!(delays.len(), EVENTS * (ENDPOINTS - 1), "an event is missing or repeated");
    let (typical, slow) = (delays[delays.len() / 2], delays[delays.len() * 95 / 100]);
    assert!(typical < 0.5 && slow < 1.5, "healthy endpoints got events after {typical} s at p50 and {slow} s at p95");

    let query = format!("webhook={}", hanging.id);
    let queued = world.wait_for_deliveries(&format!("{query}&state=queued"), EVENTS / 2).await;
    world.receiver.script("hanging", &[Behaviour::OK]);
    world.wait_for_deliveries(&format!("{query}&state=delivered"), EVENTS).await;
    for delivery in queued {
        let delivery = world.delivery(delivery["id"].as_str().expect("an id")).await;
        let attempts = delivery["attempts"].as_array().expect("attempts");
        let numbers: Vec<_> = attempts.iter().map(|attempt| attempt["attempt"].as_u64().unwrap_or_default()).collect();
        assert!(numbers.iter().copied().eq(1..=numbers.len() as u64), "the backlog used up an attempt: {numbers:?}");
    }
    assert_eq!(
        world.count("SELECT count(*) FROM all_deliveries WHERE attempt <> failures + 1").await,
        0,
        "an attempt was counted that the endpoint did not fail"
    );
}

/// Publishes numbered events, eighty a second. Returns the publish time of each event.
async fn publish_at_a_pace(world: &World) -> Vec<Timestamp> {
    let broker = world.broker().await;
    let routing_key = format!("{}.a", world.application);
    let mut pace = interval(Duration::from_millis(1000 / 80));
    pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut sent = Vec::new();
    for number in 0..EVENTS {
        pace.tick().await;
        sent.push(Timestamp::now());
        let (id, body) = (number.to_string(), json!({ "data": number }).to_string());
        assert!(broker.publish(&routing_key, Some(&id), &[], body).await.expect("the broker"));
    }
    sent
}

/// Seconds from publish to arrival, for each event at each healthy endpoint so far.
fn delays(world: &World, sent: &[Timestamp]) -> Vec<f64> {
    let healthy = world.receiver.all().into_iter().filter(|request| request.path.starts_with("/healthy/"));
    healthy
        .map(|request| {
            let body: Value = serde_json::from_slice(&request.body).expect("JSON");
            let number = body["data"].as_u64().expect("the event's number");
            request.at.duration_since(sent[usize::try_from(number).expect("a number")]).as_secs_f64()
        })
        .collect()
}
