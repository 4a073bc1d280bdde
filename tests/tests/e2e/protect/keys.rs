//! API keys: created, listed, rotated with an overlap, expired, revoked, and the time of last use.

use fanfare_tests::{
    clients::api::Client,
    patience::until,
    world::{
        World,
        process::{fanfare, try_fanfare},
    },
};
use hyper::Method;
use serde_json::{Value, json};

async fn is_shut(client: &Client) {
    until("ingest to refuse the ended key", async || (client.get("webhooks").await.status == 401).then_some(())).await;
}

async fn listed(admin: &Client, id: &Value) -> Value {
    let keys = admin.get("keys?limit=100").await.data().clone();
    keys.as_array().expect("keys").iter().find(|key| key["id"] == *id).expect("the key").clone()
}

async fn rotate(admin: &Client, id: &Value, overlap: u64) -> Value {
    let path = format!("keys/{}/rotate", id.as_str().expect("an id"));
    let answer = admin.post(&path, &json!({ "overlap_seconds": overlap })).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    answer.data().clone()
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

#[tokio::test]
async fn a_rotated_key_works_until_the_overlap_ends_and_a_revoked_key_does_not() {
    let world = World::new().await;
    let admin = world.admin().await;
    let new = json!({ "role": "manage", "application": world.application });
    let first = admin.post("keys", &new).await.data().clone();
    let first_client = admin.with_key(text(&first["key"]));
    first_client.accepted().await;
    let shown = until("the time of last use", async || {
        let shown = listed(&admin, &first["id"]).await;
        (!shown["last_used_at"].is_null()).then_some(shown)
    })
    .await;
    assert!(shown["expires_at"].is_null() && shown["revoked_at"].is_null(), "{shown}");
    assert!(shown.get("key").is_none() && !shown.to_string().contains(&text(&first["key"])[40..]), "{shown}");

    let second = rotate(&admin, &first["id"], 3600).await;
    let second_client = admin.with_key(text(&second["key"]));
    second_client.accepted().await;
    assert_eq!((&second["role"], &second["application"]), (&json!("manage"), &json!(world.application)));
    assert_eq!(first_client.get("webhooks").await.status, 200, "both are valid");
    assert!(!listed(&admin, &first["id"]).await["expires_at"].is_null());

    let third = rotate(&admin, &second["id"], 0).await;
    is_shut(&second_client).await;
    let again = admin.post(&format!("keys/{}/rotate", text(&second["id"])), &json!({})).await;
    assert_eq!((again.status, again.code()), (404, "not_found"), "an ended key was rotated");

    let third_client = admin.with_key(text(&third["key"]));
    third_client.accepted().await;
    let path = format!("keys/{}", text(&third["id"]));
    let revoked = admin.delete(&path).await.data()["revoked_at"].clone();
    assert!(!revoked.is_null());
    is_shut(&third_client).await;
    assert_eq!(admin.delete(&path).await.data()["revoked_at"], revoked, "a second revocation changed the time");
}

#[tokio::test]
async fn a_key_with_a_lifetime_ends_by_itself() {
    let world = World::new().await;
    let admin = world.admin().await;
    let new =
        |seconds: u64| json!({ "role": "manage", "application": world.application, "expires_in_seconds": seconds });
    for seconds in [0, 59, 31_622_401] {
        let answer = admin.post("keys", &new(seconds)).await;
        assert_eq!((answer.status, answer.code(), answer.field()), (422, "invalid_field", "expires_in_seconds"));
    }
    let short = admin.post("keys", &new(60)).await.data().clone();
    let client = admin.with_key(text(&short["key"]));
    client.accepted().await;
    assert!(!short["expires_at"].is_null());
    let sooner = "UPDATE api_keys SET expires_at = now() + interval '1 second' WHERE expires_at IS NOT NULL";
    world.database().await.batch_execute(sooner).await.expect("sooner");
    is_shut(&client).await;
}

#[tokio::test]
async fn the_command_lists_rotates_and_revokes() {
    let world = World::new().await;
    let run = |arguments: &[&str]| fanfare(&world.variables, arguments);
    let key = world.create_key(&["--role", "publish", "--application", &world.application, "--expires-in", "3600"]);
    let id = format!("key_{}", key.split('_').nth(1).expect("an id"));
    let line = |list: &str| list.lines().find(|line| line.contains(&id)).expect("the key").to_owned();
    let shown = line(&run(&["key", "list"]));
    assert!(shown.contains("publish") && shown.contains(&world.application) && shown.ends_with('-'), "{shown}");
    let other = run(&["key", "rotate", &id, "--overlap", "60"]);
    assert!(other.starts_with("fanfare_") && other != key, "{other}");
    run(&["key", "revoke", &id]);
    assert!(line(&run(&["key", "list"])).contains("revoked"));
    for verb in ["rotate", "revoke"] {
        let nobody = "key_00000000000000000000000000";
        let (_, complaint) = try_fanfare(&world.variables, &["key", verb, nobody]);
        assert!(complaint.is_some_and(|text| text.contains("no such key")), "{verb}");
    }
}

#[tokio::test]
async fn keys_are_for_administrators_alone() {
    let world = World::new().await;
    let id = "key_00000000000000000000000000";
    for (method, path) in [
        (Method::GET, "keys".to_owned()),
        (Method::POST, "keys".to_owned()),
        (Method::POST, format!("keys/{id}/rotate")),
        (Method::DELETE, format!("keys/{id}")),
    ] {
        let answer = world.client().send(method, &path, &[], "{}").await.expect("an answer");
        assert_eq!((answer.status, answer.code()), (403, "forbidden"), "{path}");
    }
}
