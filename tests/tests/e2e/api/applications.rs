//! Applications: dialect, strictness and e-mail address; creation by the command or an admin; changes over the API and
//! the effect on further events.

use fanfare_tests::{
    patience::until,
    world::{
        Setup, World,
        process::{fanfare, try_fanfare},
    },
};
use serde_json::{Value, json};

use crate::api::{assert_refused, delivery_in, list, text};

#[tokio::test]
async fn an_application_is_made_by_the_command_and_changed_over_the_api() {
    let arguments = ["--strict", "--email", "owner@example.com"].map(str::to_owned).to_vec();
    let world = World::of(Setup { dialect: "reward".to_owned(), arguments, ..Setup::new(&[]) }).await;
    let (client, path) = (world.client(), format!("applications/{}", world.application));
    let made = client.get(&path).await.data().clone();
    assert_eq!((text(&made, "id"), text(&made, "name")), (world.application.as_str(), "test"));
    assert_eq!((text(&made, "dialect"), &made["strict"]), ("reward", &json!(true)));
    assert_eq!(text(&made, "email"), "owner@example.com");
    let plain = fanfare(&world.variables, &["app", "create", "plain"]);
    let administrator = world.admin().await;
    let plain = administrator.get(&format!("applications/{plain}")).await.data().clone();
    assert_eq!((text(&plain, "dialect"), &plain["strict"], &plain["email"]), ("incenta", &json!(false), &Value::Null));

    let mut expected = made.clone();
    for (change, member, value) in [
        (json!({}), "name", json!("test")),
        (json!({ "name": "Zürich" }), "name", json!("Zürich")),
        (json!({ "dialect": "standard" }), "dialect", json!("standard")),
        (json!({ "strict": false }), "strict", json!(false)),
        (json!({ "email": "other@example.com" }), "email", json!("other@example.com")),
        (json!({ "email": null }), "email", Value::Null),
    ] {
        expected[member] = value;
        assert_eq!(client.patch(&path, &change).await.data(), &expected, "{change}: another field has changed");
        assert_eq!(client.get(&path).await.data(), &expected);
    }
    for (change, refusal) in [
        (json!({ "email": "nobody" }), (422, "invalid_field", "email")),
        (json!({ "email": "a@example.com, b@example.com" }), (422, "invalid_field", "email")),
        (json!({ "email": "a@example.com\r\nBcc: b@example.com" }), (422, "invalid_field", "email")),
        (json!({ "email": "" }), (422, "invalid_field", "email")),
        (json!({ "name": "" }), (422, "invalid_field", "name")),
        (json!({ "strict": "yes" }), (422, "wrong_type", "strict")),
        (json!({ "id": world.application }), (422, "unknown_field", "id")),
        (json!({ "name": "good", "dialect": "bad" }), (422, "invalid_field", "dialect")),
    ] {
        assert_refused(&change.to_string(), &client.patch(&path, &change).await, refusal);
        assert_eq!(client.get(&path).await.data(), &expected, "{change}: a refused change took effect");
    }
    let (_, other) = world.other_application().await;
    assert_refused("another", &other.get(&path).await, (404, "not_found", "id"));
    assert_refused("another", &other.patch(&path, &json!({ "strict": true })).await, (404, "not_found", "id"));
    assert_eq!(client.get(&path).await.data(), &expected);
}

#[tokio::test]
async fn an_unknown_dialect_is_refused_with_the_list_of_dialects() {
    let world = World::new().await;
    let administrator = world.admin().await;
    let own = format!("applications/{}", world.application);
    let dialects = world.client().get("dialects").await.data().clone();
    let names: Vec<&str> = list(&dialects).iter().map(|dialect| text(dialect, "name")).collect();
    assert_eq!(names, ["cloudevents", "incenta", "incentable", "nudj", "ploints", "reward", "standard"]);
    for unknown in ["ploint", "", "Incenta", "../incenta", "incenta.toml", "a\0", "a".repeat(10_000).as_str()] {
        for answer in [
            world.client().patch(&own, &json!({ "dialect": unknown })).await,
            administrator.post("applications", &json!({ "name": "a", "dialect": unknown })).await,
        ] {
            assert_refused(unknown, &answer, (422, "invalid_field", "dialect"));
            let message = text(&answer.body["error"], "message");
            assert!(names.iter().all(|name| message.contains(name)), "{message}");
        }
    }
    let (printed, failed) = try_fanfare(&world.variables, &["app", "create", "a", "--dialect", "ploint"]);
    let failed = failed.unwrap_or_default();
    assert!(printed.is_empty() && failed.contains("--dialect") && failed.contains("\"ploint\""), "{printed} {failed}");
    let listed = fanfare(&world.variables, &["dialect", "list"]);
    assert!(names.iter().all(|name| listed.contains(name)), "{listed}");
    let (_, failed) = try_fanfare(&world.variables, &["app", "create", "a", "--email", "nobody"]);
    assert!(failed.unwrap_or_default().contains("--email"), "the error names --email");
    assert_eq!(world.count("SELECT count(*) FROM applications").await, 1, "a refused application was created");

    let new = json!({ "name": "by an admin", "dialect": "nudj", "strict": true, "email": "owner@example.com" });
    let made = administrator.post("applications", &new).await.data().clone();
    for member in ["name", "dialect", "strict", "email"] {
        assert_eq!(made[member], new[member], "{member}");
    }
    let client = world.client_of(&["--role", "manage", "--application", text(&made, "id")]).await;
    // Only admin keys see labels.
    let mut seen = made.clone();
    seen.as_object_mut().expect("an object").remove("labels");
    assert_eq!(client.get(&format!("applications/{}", text(&made, "id"))).await.data(), &seen);
    let refused = client.post("events", &json!({ "type": "user.authenticatd", "data": 1 })).await;
    assert_refused("strict", &refused, (422, "unknown_event_type", "type"));
    let webhook = json!({ "url": world.receiver.url("a"), "events": ["user.authenticatd"] });
    let refused = client.post("webhooks", &webhook).await;
    assert_refused("a misspelt event", &refused, (422, "unknown_event_type", "events"));
}

/// Events accepted before keep their bodies. Signatures and schedule follow the new dialect.
#[tokio::test]
async fn another_dialect_is_that_of_the_next_events() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["order.created"]).await;
    let new = json!({ "type": "order.created", "data": { "n": 1.50 }, "time": "2026-06-18T12:00:00Z" });
    let before = world.publish(&new).await;
    let first = world.receiver.wait_for("a", 1).await.remove(0);
    let body = String::from_utf8(first.body.clone()).expect("text");
    assert_eq!(body, r#"{"event":"order.created","data":{"n":1.5},"timestamp":"2026-06-18T12:00:00.000Z"}"#);
    let subscription = json!({ "url": world.receiver.url("b"), "events": ["campaign.conversion"] });
    let unknown = world.client().post("webhooks", &subscription).await;
    assert_eq!(list(&unknown.data()["warnings"]).len(), 1, "a type of the next dialect: {}", unknown.body);
    world.client().delete(&format!("webhooks/{}", text(unknown.data(), "id"))).await.data();

    let change = json!({ "dialect": "ploints" });
    world.client().patch(&format!("applications/{}", world.application), &change).await.data();
    world.known().await;
    let after = world.publish(&new).await;
    let second = world.receiver.wait_for("a", 2).await.remove(1);
    let body = String::from_utf8(second.body.clone()).expect("text");
    let expected =
        format!(r#"{{"id":"{after}","type":"order.created","timestamp":"2026-06-18T12:00:00Z","data":{{"n":1.5}}}}"#);
    let is_as_published = body == expected || body == expected.replace("1.5}", "1.50}");
    assert!(is_as_published, "{body}");
    assert_eq!((second.header("x-ploints-signature").len(), second.header("x-webhook-signature")), (64, ""));
    assert_eq!(world.client().post("webhooks", &subscription).await.status, 201, "the new dialect has the event type");

    let delivery = world.deliveries(&format!("event={before}&webhook={}", endpoint.id)).await.remove(0);
    delivery_in(&world, text(&delivery, "id"), "delivered").await;
    world.client().post(&format!("deliveries/{}/resend", text(&delivery, "id")), &json!({})).await.data();
    let again = until("the resent delivery", async || {
        world.receiver.received("a").into_iter().filter(|request| request.event() == before).nth(1)
    })
    .await;
    assert_eq!(again.body, first.body, "the same bytes");
    assert_eq!((again.header("x-ploints-signature").len(), again.header("x-webhook-signature")), (64, ""));
}
