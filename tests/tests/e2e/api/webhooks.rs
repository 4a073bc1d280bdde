//! Life cycle of webhooks: created with a generated secret that is shown once, named, changed, switched and deleted (as
//! in the APIs of Incenta, Incentable, Reward and Ploints).

use fanfare_tests::{receiver::signature::is_signed, world::World};
use hyper::Method;
use serde_json::{Value, json};

use crate::api::{
    assert_refused,
    checked_client::{CheckedClient, JSON},
    list, text,
};

/// The request in Ploints' documentation, byte for byte.
const PRINTED: &str = r#"{
    "url": "https://yoursite.com/webhooks/ploints",
    "events": ["points.earned", "customer.created"]
  }"#;

#[tokio::test]
async fn the_request_of_ploints_documentation_is_answered_as_documented() {
    let world = World::shared_of_dialect("ploints").await;
    let client = CheckedClient::new(&world);
    let made = client.send(Method::POST, "/api/v1/webhooks", &[JSON], PRINTED).await;
    assert_eq!((made.status, &made.headers["content-type"]), (201, &"application/json".parse().expect("a value")));
    let webhook = made.data().clone();
    let (id, secret) = (text(&webhook, "id"), text(&webhook, "secret"));
    assert!(id.starts_with("wh_") && secret.starts_with("whsec_") && secret.len() == 50, "{}", made.text);
    // Members come in the documented order.
    let start = format!(
        r#"{{"success":true,"data":{{"id":"{id}","url":"https://yoursite.com/webhooks/ploints","events":["points.earned","customer.created"],"secret":"{secret}","#
    );
    assert!(made.text.starts_with(&start), "{}", made.text);

    let again = client.send(Method::POST, "/api/v1/webhooks", &[JSON], PRINTED).await.data().clone();
    let listed = world.client().get("webhooks").await.data().clone();
    let ids: Vec<&str> = list(&listed).iter().map(|webhook| text(webhook, "id")).collect();
    assert_eq!(ids, [text(&again, "id"), id], "two webhooks, newest first");
}

#[tokio::test]
async fn a_secret_is_shown_when_it_is_made_and_never_again() {
    let world = World::shared().await;
    let client = CheckedClient::new(&world);
    let endpoint = world.endpoint("a", &["*"]).await;
    let event = world.publish(&json!({ "type": "a", "data": 1 })).await;
    let delivery = world.wait_for_deliveries("state=delivered", 1).await.remove(0);

    // A secret set by a rotation is hidden, too.
    let given = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8G";
    let path = format!("webhooks/{}/rotate-secret", endpoint.id);
    let rotated = world.client().post(&path, &json!({ "secret": given })).await;
    assert_eq!(rotated.data()["secret"], given);
    assert_refused("a second one", &world.client().post(&path, &json!({})).await, (409, "rotation_under_way", ""));
    let shown = client.everything(&endpoint.id, text(&delivery, "id"), &event).await;
    let made = world.client().post(&path, &json!({ "overlap_seconds": 0 })).await.data()["secret"].clone();
    let made = made.as_str().expect("a secret");
    for (what, answer) in shown.iter().chain(&client.everything(&endpoint.id, text(&delivery, "id"), &event).await) {
        for secret in [endpoint.secret.as_str(), given, made] {
            assert!(!answer.contains(secret), "{what} shows {secret}");
        }
    }
    let database = world.database().await;
    for row in database.query("SELECT ciphertext, e::text FROM endpoint_secrets e", &[]).await.expect("rows") {
        let (stored, all): (Vec<u8>, String) = (row.get(0), row.get(1));
        for secret in [&endpoint.secret, given, made] {
            let bytes = secret.as_bytes();
            assert!(!stored.windows(bytes.len()).any(|window| window == bytes) && !all.contains(secret), "{all}");
        }
    }
}

#[tokio::test]
async fn a_webhook_may_bring_its_secret_its_status_and_a_name() {
    let world = World::shared().await;
    let client = world.client();
    let given = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSwMfKQ9r8G";
    let new = json!({
        "name": "Orders, Zürich", "url": world.receiver.url("a"), "events": ["a", "order.*"], "secret": given,
        "email": "owner@example.com",
    });
    let made = client.post("webhooks", &new).await.data().clone();
    assert_eq!((text(&made, "secret"), text(&made, "name")), (given, "Orders, Zürich"));
    assert_eq!((text(&made, "status"), text(&made, "email")), ("enabled", "owner@example.com"));
    for wanted in ["a", "order.created", "invoice.paid"] {
        world.publish(&json!({ "type": wanted, "data": 1 })).await;
    }
    let received = world.receiver.wait_for("a", 2).await;
    assert!(received.iter().all(|request| is_signed(request, given)), "{received:?}");

    let path = format!("webhooks/{}", text(&made, "id"));
    let raw = CheckedClient::new(&world);
    let renamed = client.patch(&path, &json!({ "name": "Invoices", "events": ["invoice.*"] })).await.data().clone();
    assert_eq!((text(&renamed, "name"), &renamed["events"]), ("Invoices", &json!(["invoice.*"])));
    let put = raw.put(&format!("/api/v1/{path}"), &json!({ "name": null, "email": null })).await.data().clone();
    assert_eq!((&put["name"], &put["email"]), (&Value::Null, &Value::Null), "null does not clear the fields");
    assert_eq!(put["events"], json!(["invoice.*"]), "PUT changed a field that the body does not name");
    for (change, field) in [
        (json!({ "name": "" }), "name"),
        (json!({ "name": "  " }), "name"),
        (json!({ "name": "a\nb" }), "name"),
        (json!({ "name": "a".repeat(201) }), "name"),
        (json!({ "email": "nobody" }), "email"),
    ] {
        assert_refused("PATCH", &client.patch(&path, &change).await, (422, "invalid_field", field));
        assert_refused("PUT", &raw.put(&format!("/api/v1/{path}"), &change).await, (422, "invalid_field", field));
    }
    for (status, body) in [("paused", json!({ "status": "paused" })), ("disabled", json!({ "status": "disabled" }))] {
        let made = client.post("webhooks", &merge(&new, &body)).await;
        assert_eq!(text(made.data(), "status"), status);
    }
    for (what, change, refusal) in [
        ("a secret too short", json!({ "secret": "short" }), (422, "invalid_field", "secret")),
        ("a secret that is no base64", json!({ "secret": "whsec_%%%" }), (422, "invalid_field", "secret")),
        ("a number as secret", json!({ "secret": 12345678 }), (422, "wrong_type", "secret")),
        ("an unknown status", json!({ "status": "on" }), (422, "invalid_field", "status")),
    ] {
        assert_refused(what, &client.post("webhooks", &merge(&new, &change)).await, refusal);
    }
}

/// A copy of an object with some members replaced.
fn merge(object: &Value, changed: &Value) -> Value {
    let mut merged = object.clone();
    for (name, value) in changed.as_object().expect("an object") {
        merged[name] = value.clone();
    }
    merged
}

/// The switches of Incenta's dashboard.
#[tokio::test]
async fn a_webhook_is_enabled_disabled_and_deleted_by_its_routes() {
    let world = World::shared().await;
    let (_, other) = world.other_application().await;
    let (first, second) = (world.endpoint("first", &["*"]).await, world.endpoint("second", &["*"]).await);
    let client = world.client();
    let path = format!("webhooks/{}", first.id);
    for (switch, status) in [
        ("disable", "disabled"),
        ("disable", "disabled"),
        ("pause", "paused"),
        ("enable", "enabled"),
        ("pause", "paused"),
    ] {
        let switched = client.post(&format!("{path}/{switch}"), &json!({})).await;
        assert_eq!((switched.status, text(switched.data(), "status")), (200, status));
        assert_eq!(switched.data()["status_reason"], Value::Null, "a manual change has no reason");
        assert_eq!(text(client.get(&path).await.data(), "status"), status);
        let refused = other.post(&format!("{path}/{switch}"), &json!({})).await;
        assert_refused("another application", &refused, (404, "not_found", "id"));
    }
    assert_eq!(text(client.get(&format!("webhooks/{}", second.id)).await.data(), "status"), "enabled");

    let deleted = client.delete(&path).await;
    assert_eq!(deleted.data(), &json!({ "id": first.id, "deleted": true }));
    for gone in ["", "/deliveries", "/attempts"] {
        assert_refused(gone, &client.get(&format!("{path}{gone}")).await, (404, "not_found", "id"));
    }
    for gone in ["enable", "disable", "pause", "rotate-secret", "end-rotation", "test"] {
        assert_refused(gone, &client.post(&format!("{path}/{gone}"), &json!({})).await, (404, "not_found", "id"));
    }
    let listed = client.get("webhooks").await.data().clone();
    assert_eq!(list(&listed).iter().map(|webhook| text(webhook, "id")).collect::<Vec<_>>(), [second.id]);
    assert_eq!(
        world.rows("endpoints JOIN endpoint_secrets secret ON endpoint_id = endpoints.id", "true").await,
        1,
        "the secret of the deleted webhook is left"
    );
}
