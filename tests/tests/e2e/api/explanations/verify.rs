//! `POST /webhooks/{id}/verify`: finds the mistake in a receiver's check of signatures.

use base64::{Engine, engine::general_purpose::STANDARD};
use fanfare_tests::{receiver::Received, world::World};
use hmac::{Hmac, KeyInit, Mac};
use hyper::Method;
use serde_json::{Value, json};
use sha2::Sha256;

use crate::api::{assert_refused, checked_client::CheckedClient, list, text};

fn hmac(key: &[u8], message: &[u8]) -> Vec<u8> {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("any key");
    mac.update(message);
    mac.finalize().into_bytes().to_vec()
}

fn codes(value: &Value) -> Vec<&str> {
    list(&value["mistakes"]).iter().map(|mistake| text(mistake, "code")).collect()
}

/// A webhook that received an event: id, secret and request.
async fn received(world: &World) -> (String, String, Received) {
    let new = json!({ "url": world.receiver.url("a"), "events": ["*"], "headers": { "x-token": "s3cr3t" } });
    let webhook = world.client().post("webhooks", &new).await.data().clone();
    world.known().await;
    world.publish(&json!({ "type": "a", "data": { "n": [1, 2], "z": "ü" } })).await;
    let request = world.receiver.wait_for("a", 1).await.remove(0);
    (text(&webhook, "id").to_owned(), text(&webhook, "secret").to_owned(), request)
}

#[tokio::test]
async fn a_request_as_received_verifies_and_mistakes_are_named() {
    let world = World::shared().await;
    let client = CheckedClient::new(&world);
    let (webhook, secret, request) = received(&world).await;
    let body = String::from_utf8(request.body.clone()).expect("text");
    let path = format!("/api/v1/webhooks/{webhook}/verify");
    let verify = async |given: Value| {
        let mut asked = json!({ "headers": request.headers });
        asked.as_object_mut().expect("an object").extend(given.as_object().expect("an object").clone());
        let answer = client.call(Method::POST, &path, &asked).await;
        assert_eq!(answer.status, 200, "{asked}: {}", answer.text);
        assert!(!answer.text.contains(&secret[6..]), "the secret is shown: {}", answer.text);
        answer.data().clone()
    };
    for given in [json!({ "body": body }), json!({ "body_base64": STANDARD.encode(&request.body) })] {
        let found = verify(given).await;
        assert_eq!(
            (&found["verifies"], text(&found, "header"), text(&found, "secret"), &found["out_of_tolerance"]),
            (&json!(true), "webhook-signature", "current", &json!(false)),
            "{found}"
        );
    }
    let late = verify(json!({ "body": body, "received_at": "2020-01-01T00:00:00Z" })).await;
    assert!(late["verifies"] == true && late["out_of_tolerance"] == true, "{late}");
    assert!(late["age_seconds"].as_i64() < Some(-300), "{late}");
    for (given, mistake) in [
        (format!("{body}\n"), "body_with_newline"),
        (body.replace("\":", "\": "), "body_printed_again"),
        (body.replace("[1,2]", "[1,3]"), "body_changed"),
    ] {
        let found = verify(json!({ "body": given })).await;
        assert_eq!((&found["verifies"], codes(&found)), (&json!(false), vec![mistake]), "{given}");
        assert!(!text(&found, "remedy").is_empty());
    }

    let key = STANDARD.decode(&secret[6..]).expect("base64");
    let signed =
        [request.event().as_bytes(), b".", request.header("webhook-timestamp").as_bytes(), b".", &request.body]
            .concat();
    let hex = |digest: Vec<u8>| digest.iter().map(|byte| format!("{byte:02x}")).collect::<String>();
    for (computed, header, mistakes) in [
        (STANDARD.encode(hmac(&key, &signed)), "webhook-signature", vec![]),
        (STANDARD.encode(hmac(secret.as_bytes(), &signed)), "webhook-signature", vec!["secret_as_text"]),
        (STANDARD.encode(hmac(&key, &request.body)), "webhook-signature", vec!["body_alone"]),
        (hex(hmac(&key, &signed)), "webhook-signature", vec!["hex_for_base64"]),
        (hex(hmac(secret.as_bytes(), &request.body)), "x-webhook-signature", vec![]),
        (hex(hmac(&secret.as_bytes()[6..], &request.body)), "x-webhook-signature", vec!["secret_without_prefix"]),
    ] {
        let found = verify(json!({ "body": body, "computed": computed })).await["computed"].clone();
        assert_eq!((codes(&found), text(&found, "header")), (mistakes.clone(), header), "{found}");
        assert_eq!(found["right"], mistakes.is_empty(), "{found}");
    }
    let unknown = verify(json!({ "body": body, "computed": hex(hmac(b"another", &request.body)) })).await;
    assert_eq!(unknown["computed"], json!({ "right": false, "header": null, "mistakes": [] }));
}

#[tokio::test]
async fn a_request_that_cannot_be_examined_is_refused() {
    let world = World::shared().await;
    let client = CheckedClient::new(&world);
    let endpoint = world.endpoint("a", &["*"]).await;
    let path = format!("/api/v1/webhooks/{}/verify", endpoint.id);
    let headers = json!({ "webhook-id": "a" });
    for (what, asked, refusal) in [
        ("no JSON", json!({ "headers": headers, "body": "[object Object]" }), (422, "invalid_field", "body")),
        ("no body", json!({ "headers": headers }), (422, "missing_field", "body")),
        (
            "two",
            json!({ "headers": headers, "body": "1", "body_base64": "MQ==" }),
            (422, "invalid_field", "body_base64"),
        ),
        ("a header", json!({ "headers": { "a b": "c" }, "body": "1" }), (422, "invalid_field", "headers")),
    ] {
        assert_refused(what, &client.call(Method::POST, &path, &asked).await, refusal);
    }
    let logged = world.client().get("audit-log?limit=1").await.body.to_string();
    assert!(logged.contains("verify_signature") && !logged.contains("object Object"), "{logged}");
}

#[tokio::test]
async fn both_secrets_of_a_rotation_are_tried() {
    let world = World::shared().await;
    let client = CheckedClient::new(&world);
    let (webhook, _, request) = received(&world).await;
    let asked = json!({ "headers": request.headers, "body": String::from_utf8(request.body).expect("text") });
    let verify = async || {
        let answer = client.call(Method::POST, &format!("/api/v1/webhooks/{webhook}/verify"), &asked).await;
        (answer.data()["verifies"] == true, text(answer.data(), "secret").to_owned())
    };
    assert_eq!(verify().await, (true, "current".to_owned()));
    world.client().post(&format!("webhooks/{webhook}/rotate-secret"), &json!({})).await.data();
    assert_eq!(verify().await, (true, "previous".to_owned()));
    world.client().post(&format!("webhooks/{webhook}/end-rotation"), &Value::Null).await.data();
    assert_eq!(verify().await, (false, String::new()));
}
