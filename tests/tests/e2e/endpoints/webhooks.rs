//! Valid and invalid webhooks in the management API, and the error of each refusal.

use fanfare_tests::world::World;
use hyper::Method;
use serde_json::{Value, json};

use crate::endpoints::{NO_WEBHOOK, Refusal, assert_refused};

#[tokio::test]
async fn a_webhook_is_made_shown_changed_and_deleted() {
    let world = World::shared().await;
    let client = world.client();
    let url = world.receiver.url("a?b=c");
    let made = client.post("webhooks", &json!({ "url": url, "events": ["order.*", "*"] })).await;
    assert_eq!(made.status, 201);
    let mut webhook = made.data().clone();
    let secret = webhook.as_object_mut().expect("an object").remove("secret").expect("a secret");
    assert!(secret.as_str().is_some_and(|text| text.starts_with("whsec_") && text.len() == 50), "{secret}");
    assert_eq!((&webhook["url"], &webhook["events"]), (&json!(url), &json!(["order.*", "*"])));
    assert_eq!((&webhook["status"], &webhook["timeout_ms"]), (&json!("enabled"), &Value::Null));

    let path = format!("webhooks/{}", webhook["id"].as_str().expect("an id"));
    assert_eq!(client.get(&path).await.data(), &webhook, "the secret is shown again");
    assert_eq!(client.get("webhooks").await.data(), &json!([webhook]));

    let other = world.receiver.url("other");
    let change = json!({ "url": other, "events": ["a"], "status": "paused", "timeout_ms": 100 });
    let changed = client.patch(&path, &change).await.data().clone();
    for (field, value) in change.as_object().expect("an object") {
        assert_eq!(&changed[field], value, "{field}");
    }
    assert!(changed["updated_at"].as_str() > webhook["updated_at"].as_str());
    let kept = client.patch(&path, &json!({ "timeout_ms": null })).await.data().clone();
    assert_eq!(
        (&kept["timeout_ms"], &kept["status"]),
        (&Value::Null, &json!("paused")),
        "a change of another field changed the status"
    );

    assert_eq!(client.delete(&path).await.data()["deleted"], true);
    for answer in [client.get(&path).await, client.delete(&path).await, client.patch(&path, &json!({})).await] {
        assert_refused("deleted", &answer, (404, "not_found", "id"));
    }
    assert_eq!(client.get("webhooks").await.data(), &json!([]));
}

#[tokio::test]
async fn an_invalid_webhook_is_refused_with_code_and_field() {
    let world = World::shared().await;
    let url = world.receiver.url("a");
    let at = |url: &str| json!({ "url": url, "events": ["*"] });
    let on = |events: Value| json!({ "url": url, "events": events });
    let long = format!("https://example.com/{}", "a".repeat(2048));
    let invalid_url = (422, "invalid_url", "url");
    let created: Vec<(&str, Value, Refusal)> = vec![
        ("a list", json!([]), (400, "not_an_object", "")),
        ("no url", json!({ "events": ["*"] }), (422, "missing_field", "url")),
        ("a url that is a number", json!({ "url": 1, "events": ["*"] }), (422, "wrong_type", "url")),
        ("no events", json!({ "url": url }), (422, "missing_field", "events")),
        ("a misspelt field", json!({ "url": url, "events": ["*"], "event": 1 }), (422, "unknown_field", "event")),
        ("no URL", at("example.com/webhooks"), invalid_url),
        ("another scheme", at("ftp://example.com/"), invalid_url),
        ("a password", at("https://user:password@example.com/"), invalid_url),
        ("a fragment", at("https://example.com/#a"), invalid_url),
        ("a space", at("https://example.com/a b"), invalid_url),
        ("port 0", at("https://example.com:0/"), invalid_url),
        ("too long", at(&long), invalid_url),
        ("a private address", at("https://10.0.0.1/"), invalid_url),
        ("a cloud's metadata", at("http://169.254.169.254/latest/"), invalid_url),
        ("a private address as a number", at("https://0x0a000001/"), invalid_url),
        ("a mapped address", at("https://[::ffff:10.0.0.1]/"), invalid_url),
        ("events as a text", on(json!("*")), (422, "wrong_type", "events")),
        ("events of numbers", on(json!([1])), (422, "wrong_type", "events[0]")),
        ("none", on(json!([])), (422, "invalid_field", "events")),
        ("very many", on(json!(vec!["a"; 201])), (422, "invalid_field", "events")),
        ("a wildcard in the middle", on(json!(["a.*.b"])), (422, "invalid_field", "events")),
        ("an empty event type", on(json!([""])), (422, "invalid_field", "events")),
    ];
    for (what, body, refusal) in created {
        assert_refused(what, &world.client().post("webhooks", &body).await, refusal);
    }
    let raw = async |headers: &[(&str, &str)], body: String| {
        world.client().send(Method::POST, "webhooks", headers, body).await.expect("an answer")
    };
    let json_type = ("content-type", "application/json");
    assert_refused("no JSON", &raw(&[json_type], "{".to_owned()).await, (400, "malformed_json", ""));
    assert_refused("a text", &raw(&[], at(&url).to_string()).await, (415, "unsupported_content_type", ""));
    assert_refused("too large", &raw(&[json_type], " ".repeat(513 * 1024)).await, (413, "body_too_large", ""));
    assert_eq!(world.client().get("webhooks").await.data(), &json!([]), "a refused webhook was created");
}

#[tokio::test]
async fn a_change_that_cannot_be_made_is_refused() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["*"]).await;
    let path = format!("webhooks/{}", endpoint.id);
    let before = world.client().get(&path).await.data().clone();
    for (what, change, refusal) in [
        ("no status", json!({ "status": "off" }), (422, "invalid_field", "status")),
        ("a number as status", json!({ "status": 1 }), (422, "wrong_type", "status")),
        ("too short a timeout", json!({ "timeout_ms": 99 }), (422, "invalid_field", "timeout_ms")),
        ("too long a timeout", json!({ "timeout_ms": 60_001 }), (422, "invalid_field", "timeout_ms")),
        ("a timeout in words", json!({ "timeout_ms": "1s" }), (422, "wrong_type", "timeout_ms")),
        ("a fraction", json!({ "timeout_ms": 100.5 }), (422, "wrong_type", "timeout_ms")),
        ("no URL", json!({ "url": "a" }), (422, "invalid_url", "url")),
        ("no events", json!({ "events": [] }), (422, "invalid_field", "events")),
        ("its id", json!({ "id": "wh_1" }), (422, "unknown_field", "id")),
        ("half of it good", json!({ "status": "paused", "secret": "x" }), (422, "unknown_field", "secret")),
    ] {
        assert_refused(what, &world.client().patch(&path, &change).await, refusal);
    }
    assert_eq!(world.client().get(&path).await.data(), &before, "a refused change took effect");
    let change = json!({ "status": "paused" });
    assert_refused("no id", &world.client().patch("webhooks/1", &change).await, (422, "invalid_field", "id"));
    assert_refused("no webhook", &world.client().patch(NO_WEBHOOK, &change).await, (404, "not_found", "id"));
}
