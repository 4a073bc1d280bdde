//! Delivery history of a webhook: payload, response status and retry count of each delivery, and the last five attempts
//! (as in Incenta's API).

use fanfare_tests::{patience::until, receiver::Behaviour, world::World};
use hyper::Method;
use serde_json::{Value, json};

use crate::api::{checked_client::CheckedClient, list, patient, text};

/// Waits until a webhook's only delivery has this state and number of retries. Returns its entry.
async fn history(world: &World, webhook: &str, state: &str, retries: u64) -> Value {
    until(&format!("a delivery that is {state} after {retries} retries"), async || {
        let answer = world.client().get(&format!("webhooks/{webhook}/deliveries")).await;
        let entry = list(answer.data()).first()?.clone();
        (entry["state"] == state && entry["retry_count"] == retries).then_some(entry)
    })
    .await
}

async fn resend(world: &World, delivery: &Value) {
    let answer = world.client().post(&format!("deliveries/{}/resend", text(delivery, "id")), &json!({})).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
}

#[tokio::test]
async fn the_history_of_a_webhook_tells_payload_response_and_retries() {
    let world = World::shared_of(patient(&[])).await;
    let (bad, good) = (world.endpoint("bad", &["*"]).await, world.endpoint("good", &["*"]).await);
    world.receiver.script("bad", &[Behaviour::FAIL, Behaviour::Reset, Behaviour::OK]);
    let client = world.client();
    assert_eq!(client.get(&format!("webhooks/{}/deliveries", bad.id)).await.data(), &json!([]));
    // A body that changes when a program parses and prints the JSON.
    let event = r#"{ "type": "order.created", "data": { "z": 1.50, "a": [1e2, "ü\u00fc"], "b": {} } }"#;
    let event =
        client.send(Method::POST, "events", &[crate::api::checked_client::JSON], event).await.expect("an answer");
    let event = text(event.data(), "id").to_owned();

    let waiting = history(&world, &bad.id, "scheduled", 0).await;
    assert_eq!((&waiting["response_status"], &waiting["attempt"]), (&json!(500), &json!(2)), "{waiting}");
    assert!(text(&waiting, "next_attempt_at") > text(&waiting, "accepted_at"), "{waiting}");
    assert_eq!(waiting["finished_at"], Value::Null);
    resend(&world, &waiting).await;
    let unanswered = history(&world, &bad.id, "scheduled", 1).await;
    assert_eq!(unanswered["response_status"], Value::Null, "the last attempt got no answer: {unanswered}");
    resend(&world, &waiting).await;
    let delivered = history(&world, &bad.id, "delivered", 2).await;
    assert_eq!((&delivered["response_status"], &delivered["attempt"]), (&json!(200), &json!(3)), "{delivered}");
    assert_eq!((text(&delivered, "event"), text(&delivered, "type")), (event.as_str(), "order.created"));
    assert_eq!(
        (text(&delivered, "webhook"), text(&delivered, "url")),
        (bad.id.as_str(), world.receiver.url("bad").as_str())
    );
    assert_eq!(delivered["next_attempt_at"], Value::Null);
    assert!(text(&delivered, "finished_at") > text(&delivered, "accepted_at"));
    let first = history(&world, &good.id, "delivered", 0).await;
    assert_eq!(first["response_status"], 200);

    let received = world.receiver.wait_for("bad", 3).await;
    let body = std::str::from_utf8(&received[0].body).expect("text");
    assert!(
        received.iter().all(|request| request.body == received[0].body && request.event() == event),
        "{received:?}"
    );
    let raw = CheckedClient::new(&world);
    let path = format!("/api/v1/webhooks/{}/deliveries", bad.id);
    let shown = raw.send(Method::GET, &path, &[], "").await.text;
    assert!(shown.contains(&format!(r#""payload":{body}"#)), "{shown} lacks the exact bytes of {body}");
    for (state, count) in [("delivered", 1), ("failed", 0), ("scheduled", 0)] {
        let filtered = client.get(&format!("webhooks/{}/deliveries?state={state}", bad.id)).await;
        assert_eq!(list(filtered.data()).len(), count, "{state}");
    }
}

#[tokio::test]
async fn the_last_five_attempts_of_a_webhook_are_shown() {
    let world = World::shared_of(patient(&[])).await;
    let (busy, other) = (world.endpoint("busy", &["a"]).await, world.endpoint("other", &["order"]).await);
    world
        .receiver
        .script("busy", &[Behaviour::FAIL, Behaviour::FAIL, Behaviour::Reset, Behaviour::FAIL, Behaviour::OK]);
    world.publish(&json!({ "type": "order", "data": "to the other" })).await;
    world.wait_for_deliveries(&format!("webhook={}&state=delivered", other.id), 1).await;
    let attempts =
        async |query: &str| world.client().get(&format!("webhooks/{}/attempts{query}", busy.id)).await.data().clone();
    assert_eq!(attempts("").await, json!([]));
    // Published in sequence, so that the order is known: four deliveries with one attempt, one delivery with three.
    let mut event = String::new();
    for number in 1..=5 {
        event = world.publish(&json!({ "type": "a", "data": number })).await;
        until("the attempt of the event", async || (list(&attempts("?limit=100").await).len() == number).then_some(()))
            .await;
    }
    let fifth = world.deliveries(&format!("event={event}")).await.remove(0);
    for number in 6..=7 {
        resend(&world, &fifth).await;
        until("the resent attempt", async || (list(&attempts("?limit=100").await).len() == number).then_some(())).await;
    }

    let shown = attempts("").await;
    let shown = list(&shown);
    let numbers: Vec<_> = shown.iter().map(|attempt| (&attempt["payload"]["data"], &attempt["attempt"])).collect();
    let expected = [(5, 3), (5, 2), (5, 1), (4, 1), (3, 1)].map(|(data, attempt)| (json!(data), json!(attempt)));
    assert_eq!(numbers, expected.iter().map(|(data, attempt)| (data, attempt)).collect::<Vec<_>>());
    for attempt in shown {
        assert_eq!((text(attempt, "config_id"), text(attempt, "event_type")), (busy.id.as_str(), "a"));
        assert_eq!(text(attempt, "url"), world.receiver.url("busy"));
        assert!(attempt["duration_ms"].is_u64() && text(attempt, "id").starts_with("att_"), "{attempt}");
    }
    let (ok, failed, reset) = (&shown[0], &shown[3], &shown[4]);
    assert_eq!((&ok["response_status"], text(ok, "response_body"), &ok["error"]), (&json!(200), "noted", &Value::Null));
    assert_eq!((&failed["response_status"], text(failed, "outcome")), (&json!(500), "answered"));
    assert!(text(failed, "next_attempt_at") > text(failed, "created_at"), "{failed}");
    assert_eq!((&reset["response_status"], text(reset, "response_body")), (&Value::Null, ""), "{reset}");
    assert!(text(reset, "outcome") == "connection_closed" && !text(reset, "error").is_empty(), "{reset}");
    assert!(shown.is_sorted_by(|newer, older| text(newer, "created_at") > text(older, "created_at")));
    assert_eq!(list(&attempts("?limit=2").await), &shown[..2]);
}
