//! A schedule and a timeout set on an endpoint override the dialect's values.

use std::time::Duration;

use fanfare_tests::{receiver::Behaviour, world::World};
use jiff::Timestamp;
use serde_json::{Value, json};

use crate::api::{assert_refused, delivery_in, list, numbers, patient, text};

/// Checks each wait up to the next attempt, in seconds, plus at most 30 s for the attempt itself.
fn assert_waits(delivery: &Value, expected: &[i64]) {
    let moment = |text: &str| text.parse::<Timestamp>().expect("a timestamp");
    let wait = |attempt: &Value| {
        let next = attempt["next_attempt_at"].as_str()?;
        Some(moment(next).duration_since(moment(text(attempt, "started_at"))).as_secs())
    };
    let waits: Vec<i64> = list(&delivery["attempts"]).iter().filter_map(wait).collect();
    let is_right = |(wait, least): (&i64, &i64)| (*least..least + 30).contains(wait);
    assert!(waits.len() == expected.len() && waits.iter().zip(expected).all(is_right), "{waits:?}: {delivery}");
}

#[tokio::test]
async fn retries_follow_the_endpoints_own_schedule_and_then_the_dialects_again() {
    let world = World::shared_of(patient(&[])).await;
    let mut endpoints = Vec::new();
    for (path, schedule) in
        [("dialect", Value::Null), ("own", json!(["1s", "2s"])), ("once", json!([])), ("later", json!(["90m"]))]
    {
        world.receiver.script(path, &[Behaviour::FAIL]);
        let new = json!({ "url": world.receiver.url(path), "events": ["*"], "schedule": schedule });
        let made = world.client().post("webhooks", &new).await.data().clone();
        assert_eq!(made["schedule"], schedule);
        endpoints.push(text(&made, "id").to_owned());
    }
    world.publish(&json!({ "type": "a", "data": 1 })).await;
    let ended = async |endpoint: &str, state: &str| {
        let found = world.wait_for_deliveries(&format!("webhook={endpoint}&state={state}"), 1).await.remove(0);
        world.delivery(text(&found, "id")).await
    };
    let failed = ended(&endpoints[1], "failed").await;
    assert_eq!((text(&failed, "reason"), numbers(&failed)), ("attempts_exhausted", vec![1, 2, 3]));
    assert_waits(&failed, &[1, 2]);
    let failed = ended(&endpoints[2], "failed").await;
    assert_eq!((text(&failed, "reason"), numbers(&failed)), ("attempts_exhausted", vec![1]));
    assert_waits(&ended(&endpoints[3], "scheduled").await, &[90 * 60]);
    assert_waits(&ended(&endpoints[0], "scheduled").await, &[24 * 3600]);

    // A scheduled delivery follows the changed schedule.
    let shorter = world.client().patch(&format!("webhooks/{}", endpoints[0]), &json!({ "schedule": ["1s"] })).await;
    assert_eq!(shorter.data()["schedule"], json!(["1s"]));
    world.known().await;
    let waiting = ended(&endpoints[0], "scheduled").await;
    let resend = world.client().post(&format!("deliveries/{}/resend", text(&waiting, "id")), &json!({})).await;
    assert_eq!(resend.data()["attempt"], 2);
    let failed = delivery_in(&world, text(&waiting, "id"), "failed").await;
    assert_eq!((text(&failed, "reason"), numbers(&failed)), ("attempts_exhausted", vec![1, 2]));

    let path = format!("webhooks/{}", endpoints[1]);
    let unchanged = world.client().patch(&path, &json!({ "name": "own" })).await.data().clone();
    assert_eq!(unchanged["schedule"], json!(["1s", "2s"]), "a change of another field changed the schedule");
    assert_eq!(world.client().patch(&path, &json!({ "schedule": null })).await.data()["schedule"], Value::Null);
    world.known().await;
    world.publish(&json!({ "type": "a", "data": 2 })).await;
    // The dialect's schedule applies again.
    assert_waits(&ended(&endpoints[1], "scheduled").await, &[24 * 3600]);
}

#[tokio::test]
async fn a_null_timeout_restores_the_timeout_of_the_dialect() {
    let world = World::shared().await;
    world.receiver.script("slow", &[Behaviour::Answer(200, Duration::from_millis(700))]);
    let new = json!({ "url": world.receiver.url("slow"), "events": ["*"], "timeout_ms": 100, "schedule": [] });
    let endpoint = world.client().post("webhooks", &new).await.data().clone();
    let outcome = async |state: &str| {
        let id = world.publish(&json!({ "type": "a", "data": 1 })).await;
        let found = world.wait_for_deliveries(&format!("event={id}&state={state}"), 1).await.remove(0);
        world.delivery(text(&found, "id")).await["attempts"][0]["outcome"].clone()
    };
    assert_eq!(outcome("failed").await, "timed_out");
    let path = format!("webhooks/{}", text(&endpoint, "id"));
    assert_eq!(world.client().patch(&path, &json!({ "timeout_ms": null })).await.data()["timeout_ms"], Value::Null);
    world.known().await;
    assert_eq!(outcome("delivered").await, "answered", "the dialect's timeout of two seconds applies");
}

#[tokio::test]
async fn invalid_schedules_and_timeouts_are_refused() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["*"]).await;
    let path = format!("webhooks/{}", endpoint.id);
    let invalid = (422, "invalid_field");
    for (what, field, value, (status, code), place) in [
        ("a text", "schedule", json!("60s"), (422, "wrong_type"), "schedule"),
        ("a number", "schedule", json!(["60s", 60]), (422, "wrong_type"), "schedule[1]"),
        ("null", "schedule", json!([null]), (422, "wrong_type"), "schedule[0]"),
        ("no unit", "schedule", json!(["60"]), invalid, "schedule"),
        ("milliseconds", "schedule", json!(["1500ms"]), invalid, "schedule"),
        ("no time", "schedule", json!(["0s"]), invalid, "schedule"),
        ("more than a day", "schedule", json!(["25h"]), invalid, "schedule"),
        ("a huge number", "schedule", json!(["99999999999999999999h"]), invalid, "schedule"),
        ("nothing", "schedule", json!([""]), invalid, "schedule"),
        ("NUL", "schedule", json!(["1s\0"]), invalid, "schedule"),
        ("too many", "schedule", json!(vec!["1s"; 51]), invalid, "schedule"),
        ("longer than what is kept", "schedule", json!(vec!["24h"; 50]), invalid, "schedule"),
        ("too short", "timeout_ms", json!(99), invalid, "timeout_ms"),
        ("too long", "timeout_ms", json!(60_001), invalid, "timeout_ms"),
        ("negative", "timeout_ms", json!(-1), (422, "wrong_type"), "timeout_ms"),
        ("words", "timeout_ms", json!("10s"), (422, "wrong_type"), "timeout_ms"),
    ] {
        let change = json!({ field: value });
        assert_refused(what, &world.client().patch(&path, &change).await, (status, code, place));
        let new = json!({ "url": world.receiver.url("b"), "events": ["*"], field: value });
        assert_refused(what, &world.client().post("webhooks", &new).await, (status, code, place));
    }
    let most = json!({ "schedule": vec!["12h"; 50], "timeout_ms": 60_000 });
    let taken = world.client().patch(&path, &most).await.data().clone();
    assert_eq!((list(&taken["schedule"]).len(), &taken["timeout_ms"]), (50, &json!(60_000)));
}
