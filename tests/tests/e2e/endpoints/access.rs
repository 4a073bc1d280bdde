//! Visibility of deliveries, and creation of applications, keys and endpoints.

use fanfare_tests::{
    clients::api::Client,
    receiver::Behaviour,
    world::{
        World,
        process::{fanfare, try_fanfare},
    },
};
use serde_json::json;

use crate::endpoints::{NO_APPLICATION, assert_refused};

#[tokio::test]
async fn deliveries_are_found_by_filters_and_page_by_page() {
    let world = World::shared().await;
    let good = world.endpoint("good", &["*"]).await;
    let bad = world.endpoint("bad", &["*"]).await;
    world.receiver.script("bad", &[Behaviour::FAIL]);
    let mut events = Vec::new();
    for number in 0..7 {
        events.push(world.publish(&json!({ "type": "a", "data": number, "id": number.to_string() })).await);
    }
    world.wait_for_deliveries(&format!("webhook={}&state=delivered", good.id), 7).await;
    world.wait_for_deliveries(&format!("webhook={}", bad.id), 7).await;
    let of_one = world.deliveries(&format!("event={}", events[0])).await;
    assert_eq!(of_one.len(), 2);
    assert!(of_one.iter().all(|delivery| delivery["event"] == events[0].as_str()));
    assert_eq!(world.deliveries(&format!("event={}&webhook={}&state=delivered", events[3], good.id)).await.len(), 1);
    assert_eq!(world.deliveries(&format!("webhook={}&state=delivered", bad.id)).await.len(), 0);

    let mut paged: Vec<String> = Vec::new();
    let mut path = "deliveries?limit=4".to_owned();
    loop {
        let answer = world.client().get(&path).await;
        let page = answer.data().as_array().expect("a page");
        assert!(page.len() <= 4);
        paged.extend(page.iter().map(|delivery| delivery["id"].as_str().expect("an id").to_owned()));
        let Some(next) = answer.body["next"].as_str() else { break };
        path = format!("deliveries?limit=4&before={next}");
    }
    assert!(paged.is_sorted_by(|newer, older| newer > older), "newest first: {paged:?}");
    assert_eq!(paged.len(), 14);

    for (query, field) in [
        ("limit=0", "limit"),
        ("limit=101", "limit"),
        ("state=lost", "state"),
        ("webhook=1", "webhook"),
        ("event=1", "event"),
        ("before=1", "before"),
    ] {
        let answer = world.client().get(&format!("deliveries?{query}")).await;
        assert_refused(query, &answer, (422, "invalid_field", field));
    }
    for (query, field) in [("limit=many", "limit"), ("limt=1", "limt")] {
        let answer = world.client().get(&format!("deliveries?{query}")).await;
        assert_refused(query, &answer, (400, "invalid_query", field));
    }
    let unknown = "event=evt_00000000000000000000000000";
    assert_eq!(world.deliveries(unknown).await.len(), 0);
}

/// Creates an application and a key over the API. Returns a client with the key.
async fn application_by_api(world: &World, admin: &Client, name: &str) -> Client {
    let made = admin.post("applications", &json!({ "name": name })).await;
    assert_eq!((made.status, made.data()["name"].as_str()), (201, Some(name)));
    let key = admin.post("keys", &json!({ "role": "manage", "application": made.data()["id"] })).await;
    assert_eq!((key.status, &key.data()["application"]), (201, &made.data()["id"]));
    let client = world.client().with_key(key.data()["key"].as_str().expect("a key"));
    client.accepted().await;
    client
}

#[tokio::test]
async fn another_applications_webhooks_and_deliveries_are_not_there() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["*"]).await;
    world.publish(&json!({ "type": "a", "data": 1 })).await;
    let delivery = world.wait_for_deliveries("state=delivered", 1).await.remove(0);
    let admin = world.admin().await;
    let other = application_by_api(&world, &admin, "other").await;

    let webhook = format!("webhooks/{}", endpoint.id);
    let delivery = format!("deliveries/{}", delivery["id"].as_str().expect("an id"));
    for answer in [
        other.get(&webhook).await,
        other.patch(&webhook, &json!({ "status": "disabled" })).await,
        other.delete(&webhook).await,
        other.get(&delivery).await,
    ] {
        assert_refused("another's", &answer, (404, "not_found", "id"));
    }
    assert_eq!(other.get("webhooks").await.data(), &json!([]));
    assert_eq!(other.get("deliveries").await.data(), &json!([]));
    let by_query = other.get(&format!("{webhook}?application={}", world.application)).await;
    assert_refused("by query", &by_query, (403, "forbidden", "application"));
    let by_admin = admin.get(&format!("{webhook}?application={}", world.application)).await;
    assert_eq!(by_admin.data()["status"], "enabled", "a refused change took effect");
}

#[tokio::test]
async fn applications_and_keys_are_made_by_admins() {
    let world = World::new().await;
    let admin = world.admin().await;
    for name in ["second", "third"] {
        application_by_api(&world, &admin, name).await;
    }
    let newest = admin.get("applications?limit=1").await.data().clone();
    assert_eq!(newest[0]["name"], "third");
    let before = newest[0]["id"].as_str().expect("an id");
    let rest = admin.get(&format!("applications?before={before}")).await.data().clone();
    assert_eq!((&rest[0]["name"], &rest[1]["id"]), (&json!("second"), &json!(world.application)));

    let own = json!(world.application);
    for (what, path, body, refusal) in [
        ("no name", "applications", json!({}), (422, "missing_field", "name")),
        ("a blank name", "applications", json!({ "name": " " }), (422, "invalid_field", "name")),
        ("NUL in a name", "applications", json!({ "name": "a\0" }), (422, "invalid_field", "name")),
        ("a long name", "applications", json!({ "name": "a".repeat(201) }), (422, "invalid_field", "name")),
        ("no role", "keys", json!({ "application": own }), (422, "missing_field", "role")),
        ("another role", "keys", json!({ "role": "root" }), (422, "invalid_field", "role")),
        ("a key of none", "keys", json!({ "role": "publish" }), (422, "missing_field", "application")),
        (
            "a bound admin",
            "keys",
            json!({ "role": "admin", "application": own }),
            (422, "invalid_field", "application"),
        ),
        ("no id", "keys", json!({ "role": "manage", "application": "a" }), (422, "invalid_field", "application")),
        (
            "no application",
            "keys",
            json!({ "role": "manage", "application": NO_APPLICATION }),
            (422, "invalid_field", "application"),
        ),
    ] {
        assert_refused(what, &admin.post(path, &body).await, refusal);
        assert_refused("a manager", &world.client().post(path, &body).await, (403, "forbidden", ""));
        assert_refused("nobody", &world.client().with_key("").post(path, &body).await, (401, "missing_key", ""));
    }
}

#[tokio::test]
async fn the_command_reports_mistakes() {
    let world = World::new().await;
    let application = world.application.as_str();
    assert_eq!(fanfare(&world.variables, &["migrate"]), "the schema is up to date");

    let key = |role, application| ["key", "create", "--role", role, "--application", application];
    let wrong: [(&[&str], &str); 3] = [
        (&key("manage", NO_APPLICATION), "no application has the id"),
        (&key("admin", application), "an admin key has none"),
        (&key("root", application), "publish, manage, admin"),
    ];
    for (arguments, expected) in wrong {
        let (printed, failed) = try_fanfare(&world.variables, arguments);
        let failed = failed.unwrap_or_else(|| panic!("{arguments:?} succeeded: {printed}"));
        assert!(failed.contains(expected), "{arguments:?} prints another error: {failed}");
    }
    for name in ["DATABASE_URL", "FANFARE_SECRET_KEYS"] {
        let mut variables = world.variables.clone();
        variables.remove(name);
        let (_, failed) = try_fanfare(&variables, &["reencrypt"]);
        assert!(failed.is_some_and(|text| text.contains(&format!("{name} is not set"))), "{name}");
    }
}
