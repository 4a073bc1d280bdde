//! The rebuilt headers of an attempt, and tests with another URL.

use std::collections::HashMap;

use fanfare_tests::{receiver::Behaviour, world::World};
use hyper::Method;
use serde_json::{Value, json};

use crate::api::{assert_refused, checked_client::CheckedClient, delivery_in, list, text};

async fn shown(client: &CheckedClient, delivery: &str) -> Value {
    client.get(&format!("/api/v1/deliveries/{delivery}")).await.data().clone()
}

#[tokio::test]
async fn the_headers_of_each_attempt_are_rebuilt_until_the_secret_changes() {
    let world = World::of_waits("1s", &[]).await;
    let client = CheckedClient::new(&world);
    let _dispatcher = world.dispatcher().await;
    let new = json!({ "url": world.receiver.url("a"), "events": ["*"], "headers": { "x-token": "s3cr3t" } });
    let webhook = text(world.client().post("webhooks", &new).await.data(), "id").to_owned();
    world.receiver.script("a", &[Behaviour::FAIL, Behaviour::OK]);
    world.known().await;
    world.publish(&json!({ "type": "a", "data": "ü" })).await;
    let delivery = text(&world.wait_for_deliveries("state=delivered", 1).await[0], "id").to_owned();
    let received = world.receiver.wait_for("a", 2).await;
    let found = shown(&client, &delivery).await;
    assert_eq!(list(&found["attempts"]).len(), 2);
    for (attempt, request) in list(&found["attempts"]).iter().zip(&received) {
        let pair = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()));
        let rebuilt: HashMap<String, String> = list(&attempt["request_headers"]).iter().filter_map(pair).collect();
        for name in [
            "webhook-id",
            "webhook-timestamp",
            "webhook-signature",
            "x-webhook-signature",
            "content-type",
            "user-agent",
        ] {
            assert_eq!(rebuilt[name], request.header(name), "{name}");
        }
        assert_eq!(rebuilt["x-token"], "…", "a credential is shown");
    }
    // Signatures that the attempts did not have are not invented.
    world.client().patch(&format!("webhooks/{webhook}"), &json!({ "asymmetric": true })).await.data();
    world.client().post(&format!("webhooks/{webhook}/test"), &json!({ "type": "a", "data": 1 })).await.data();
    let signed = shown(&client, &delivery).await["attempts"].to_string();
    assert!(signed.contains("v1,") && !signed.contains("v1a,"), "{signed}");
    world.client().post(&format!("webhooks/{webhook}/rotate-secret"), &json!({})).await.data();
    // The process learns of the new secret within a second; a test reads the settings at once.
    world.client().post(&format!("webhooks/{webhook}/test"), &json!({ "type": "a", "data": 1 })).await.data();
    let found = shown(&client, &delivery).await;
    assert!(list(&found["attempts"]).iter().all(|attempt| attempt["request_headers"].is_null()), "{found}");
}

#[tokio::test]
async fn a_redacted_body_is_not_signed_for_readers() {
    let world = World::new().await;
    let client = CheckedClient::new(&world);
    let _dispatcher = world.dispatcher().await;
    let path = format!("applications/{}", world.application);
    assert_eq!(world.client().patch(&path, &json!({ "redacted": ["pin"] })).await.status, 200);
    world.endpoint("a", &["*"]).await;
    world.publish(&json!({ "type": "a", "data": { "pin": "1234" } })).await;
    let delivery = text(&world.wait_for_deliveries("state=delivered", 1).await[0], "id").to_owned();
    let found = shown(&client, &delivery).await;
    assert_eq!(found["attempts"][0]["request_headers"], Value::Null, "{found}");
}

#[tokio::test]
async fn a_test_may_try_another_url_that_is_not_saved() {
    let world = World::shared().await;
    let client = CheckedClient::new(&world);
    let endpoint = world.endpoint("old", &["*"]).await;
    let path = format!("/api/v1/webhooks/{}/test", endpoint.id);
    let new = world.receiver.url("new?a=b");
    let tried = json!({ "type": "a", "data": 1, "url": new });
    let result = client.call(Method::POST, &path, &tried).await.data().clone();
    assert_eq!((&result["delivered"], text(&result["request"], "url")), (&json!(true), new.as_str()), "{result}");
    assert_eq!((world.receiver.received("new").len(), world.receiver.received("old").len()), (1, 0));
    let kept = delivery_in(&world, text(&result, "delivery"), "delivered").await;
    assert_eq!(text(&kept["attempts"][0], "url"), new, "the attempt tells the URL");
    let webhook = client.get(&format!("/api/v1/webhooks/{}", endpoint.id)).await.data().clone();
    assert_eq!(text(&webhook, "url"), world.receiver.url("old"));
    for url in ["http://10.0.0.1/", "ftp://example.com/", "nope", "http://user:password@example.com/"] {
        let answer = client.call(Method::POST, &path, &json!({ "type": "a", "data": 1, "url": url })).await;
        assert_refused(url, &answer, (422, "invalid_url", "url"));
    }
}
