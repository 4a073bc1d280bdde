//! `GET /webhooks/logs` (Nudj's configuration API): every attempt, with payload, URL, status, response body and error.

use std::{collections::BTreeSet, time::Duration};

use fanfare_tests::{
    patience::until,
    receiver::Behaviour,
    world::{Setup, World},
};
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::{assert_refused, checked_client::CheckedClient, list, text};

const LOGS: &str = "/webhooks/logs";

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "one list of attempts, compared entry by entry")]
async fn every_attempt_is_in_the_log_with_request_and_response() {
    let setup = Setup { dialect: "nudj".to_owned(), timeout: Some("300ms".to_owned()), ..Setup::new(&[]) };
    let world = World::of(setup).await;
    let client = CheckedClient::new(&world);
    assert_eq!(client.get(LOGS).await.data(), &json!([]));
    // A server error, a final client error, a closed connection, and a timeout.
    let mut endpoints = Vec::new();
    for (path, script) in [
        ("flaky", vec![Behaviour::FAIL, Behaviour::OK]),
        ("rude", vec![Behaviour::Answer(422, Duration::ZERO)]),
        ("closing", vec![Behaviour::Reset, Behaviour::OK]),
        ("hanging", vec![Behaviour::Hang, Behaviour::OK]),
    ] {
        world.receiver.script(path, &script);
        endpoints.push(world.endpoint(path, &["user.*"]).await);
    }
    let _dispatcher = world.dispatcher().await;
    let events = [
        world.publish(&json!({ "type": "user.authenticated", "data": { "n": 1.0 } })).await,
        world.publish(&json!({ "type": "user.opt_in_changed", "data": { "n": 2 } })).await,
    ];
    // Two deliveries for each endpoint; three deliveries have a second attempt.
    let all = until("every attempt", async || {
        let all = client.get(&format!("{LOGS}?limit=100")).await.data().clone();
        (list(&all).len() == 11).then_some(all)
    })
    .await;

    let of = |path: &str, attempt: usize| {
        let url = world.receiver.url(path);
        list(&all).iter().filter(|log| log["url"] == *url && log["attempt"] == attempt).collect::<Vec<_>>()
    };
    let with = |logs: Vec<&Value>, status: Value, outcome: &str| {
        let is = |log: &&&Value| log["response_status"] == status && log["outcome"] == outcome;
        logs.iter().filter(is).map(|log| (*log).clone()).collect::<Vec<_>>()
    };
    let failed = with(of("flaky", 1), json!(500), "answered").remove(0);
    assert_eq!((text(&failed, "response_body"), &failed["error"]), ("noted", &Value::Null), "{failed}");
    assert!(text(&failed, "next_attempt_at") > text(&failed, "created_at"), "{failed}");
    let ended = with(of("rude", 1), json!(422), "answered");
    assert!(ended.len() == 2 && ended.iter().all(|log| log["next_attempt_at"].is_null()), "{ended:?}");
    for (path, outcome) in [("closing", "connection_closed"), ("hanging", "timed_out")] {
        let without = with(of(path, 1), Value::Null, outcome).remove(0);
        assert_ne!(text(&without, "error"), "", "{without}");
        assert_eq!(with(of(path, 2), json!(200), "answered").len(), 1, "{path}");
    }
    for log in list(&all) {
        let endpoint = endpoints.iter().find(|endpoint| log["url"] == world.receiver.url(&endpoint.path));
        assert_eq!(text(log, "config_id"), endpoint.expect("the endpoint of the attempt").id);
        let number = events.iter().position(|event| log["event_id"] == **event).expect("the event of the attempt");
        assert_eq!(log["payload"]["data"]["n"].as_f64(), Some(number as f64 + 1.0), "{log}");
        assert!(text(log, "id").starts_with("att_") && text(log, "delivery_id").starts_with("dlv_"), "{log}");
    }
    let sent = world.receiver.received("flaky").iter().map(|request| request.body.clone()).collect::<BTreeSet<_>>();
    let shown = client.send(Method::GET, &format!("{LOGS}?limit=100"), &[], "").await.text;
    for body in sent {
        let body = String::from_utf8(body).expect("text");
        assert!(shown.contains(&format!(r#""payload":{body}"#)), "{shown} lacks the exact bytes of {body}");
    }

    assert_eq!(client.walk(LOGS, 2).await, list(&all), "the pages differ from the whole list");
    assert_eq!(client.walk("/api/v2/admin/webhooks/logs", 4).await, list(&all));
    let began: Vec<Timestamp> =
        list(&all).iter().map(|log| text(log, "created_at").parse().expect("a timestamp")).collect();
    // A prompt success is sorted by the acceptance of its event, at most ten seconds earlier.
    let slack = SignedDuration::from_secs(10);
    assert!(began.is_sorted_by(|newer, older| *newer + slack >= *older), "newest attempts first: {began:?}");
    let numbers: Vec<_> = list(&all).iter().map(|log| (text(log, "delivery_id"), log["attempt"].as_u64())).collect();
    let seconds = numbers.iter().position(|(_, attempt)| *attempt == Some(1)).expect("first attempts");
    assert_eq!(seconds, 3, "the three second attempts are not listed first: {numbers:?}");
    for endpoint in &endpoints {
        let found = client.walk(&format!("{LOGS}?config={}", endpoint.id), 1).await;
        let expected: Vec<_> = list(&all).iter().filter(|log| log["config_id"] == endpoint.id).cloned().collect();
        assert_eq!(found, expected, "{}", endpoint.path);
        let found = client.walk(&format!("{LOGS}?event={}&config={}", events[0], endpoint.id), 1).await;
        assert!(!found.is_empty() && found.iter().all(|log| log["event_id"] == *events[0]), "{found:?}");
    }
    for (query, refusal) in [
        ("config=1", (422, "invalid_field", "config")),
        ("event=evt_1", (422, "invalid_field", "event")),
        ("before=dlv_1.1", (422, "invalid_field", "before")),
        ("before=dlv_00000000000000000000000000.1", (422, "invalid_field", "before")),
        ("before=1.dlv_00000000000000000000000000.4294967295", (422, "invalid_field", "before")),
        ("webhook=wh_1", (400, "invalid_query", "webhook")),
    ] {
        assert_refused(query, &client.get(&format!("{LOGS}?{query}")).await, refusal);
    }
}
