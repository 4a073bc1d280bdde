//! Parked messages: listed, edited, put back and discarded, over the API and the command.

use fanfare_tests::{
    clients::api::Client,
    patience::until,
    world::{
        World,
        process::{fanfare, try_fanfare},
    },
};
use serde_json::{Value, json};

/// Publishes an unreadable message. Returns the message as listed, once parked.
async fn park(world: &World, admin: &Client, message_id: Option<&str>, body: &str) -> Value {
    let routing_key = format!("{}.order.created", world.application);
    let before = admin.get("parked").await.data().as_array().map_or(0, Vec::len);
    let headers = [("tenant", "blue"), ("x-odd", "no")];
    assert!(world.broker().await.publish(&routing_key, message_id, &headers, body).await.expect("the broker"));
    until("the message to be parked", async || {
        let answer = admin.get("parked").await;
        let all = answer.data().as_array().cloned().unwrap_or_default();
        (all.len() == before + 1).then(|| all[0].clone())
    })
    .await
}

fn id(parked: &Value) -> &str {
    parked["id"].as_str().expect("an id")
}

#[tokio::test]
async fn a_parked_message_is_shown_edited_and_put_back() {
    let world = World::new().await;
    let (admin, _dispatcher) = (world.admin().await, world.dispatcher().await);
    let endpoint = world.endpoint("all", &["*"]).await;
    let parked = park(&world, &admin, None, r#"{"data":{"n":1}}"#).await;
    assert_eq!((&parked["reason"], &parked["origin"]), (&json!("missing_message_id"), &json!("events")));
    let shown = admin.get(&format!("parked/{}", id(&parked))).await;
    assert_eq!(shown.data()["body"], r#"{"data":{"n":1}}"#);
    assert_eq!(shown.data()["headers"]["tenant"], "blue");

    // Put back without an edit, the message is parked again.
    let path = format!("parked/{}/put-back", id(&parked));
    assert_eq!(admin.post(&path, &json!({})).await.status, 200);
    let again = until("the message to be parked again", async || {
        let answer = admin.get("parked?reason=missing_message_id").await;
        let now = answer.data()[0].clone();
        (now.is_object() && now["id"] != parked["id"]).then_some(now)
    })
    .await;
    assert_eq!(admin.post(&path, &json!({})).await.code(), "not_found");

    let path = format!("parked/{}/put-back", id(&again));
    let edit = json!({ "message_id": "mended", "body": r#"{"data":{"n":2}}"# });
    assert_eq!(admin.post(&path, &edit).await.status, 200);
    let received = world.receiver.wait_for(&endpoint.path, 1).await;
    let body: Value = serde_json::from_slice(&received[0].body).expect("JSON");
    assert_eq!(body["data"], json!({ "n": 2 }));
    assert_eq!(admin.get("parked").await.data(), &json!([]));
}

#[tokio::test]
async fn many_are_put_back_or_discarded_at_once() {
    let world = World::new().await;
    let (admin, _dispatcher) = (world.admin().await, world.dispatcher().await);
    for number in 0..3 {
        park(&world, &admin, None, "{}").await;
        park(&world, &admin, Some(&format!("{number}")), "nope").await;
    }
    let discarded = admin.post("parked/discard", &json!({ "reason": "malformed_json" })).await;
    assert_eq!(discarded.data()["handled"].as_array().map(Vec::len), Some(3));
    let left = admin.get("parked").await;
    assert!(
        left.data().as_array().is_some_and(|left| left.iter().all(|message| message["reason"] == "missing_message_id"))
    );

    let ids: Vec<&Value> = left.data().as_array().expect("a list").iter().map(|message| &message["id"]).collect();
    let first = ids[0].as_str().expect("an id");
    assert_eq!(admin.delete(&format!("parked/{first}")).await.status, 200);
    assert_eq!(admin.delete(&format!("parked/{first}")).await.code(), "not_found");
    let put_back = admin.post("parked/put-back", &json!({ "ids": ids })).await;
    assert_eq!(put_back.data()["handled"].as_array().map(Vec::len), Some(2), "{}", put_back.body);
    assert_eq!(admin.post("parked/put-back", &json!({})).await.field(), "ids");
    assert_eq!(admin.post("parked/discard", &json!({ "ids": [] })).await.field(), "ids");
    assert_eq!(admin.get("parked?before=nonsense").await.field(), "before");
    let long = json!({ "routing_key": "a".repeat(256) });
    assert_eq!(admin.post(&format!("parked/{first}/put-back"), &long).await.field(), "routing_key");
    assert_eq!(world.client().get("parked").await.code(), "forbidden");
}

#[tokio::test]
async fn the_same_is_done_from_a_shell() {
    let world = World::new().await;
    let (admin, _dispatcher) = (world.admin().await, world.dispatcher().await);
    let endpoint = world.endpoint("all", &["*"]).await;
    let parked = park(&world, &admin, None, r#"{"data":1}"#).await;
    let id = id(&parked);
    let command = |arguments: &[&str]| fanfare(&world.variables, &[&["parked"], arguments].concat());
    let listed = command(&["list"]);
    assert!(listed.contains(id) && listed.contains("missing_message_id") && listed.contains("message_id is missing"));
    assert_eq!(command(&["list", "--reason", "other"]), "");
    assert_eq!(command(&["show", id]), r#"{"data":1}"#);
    assert_eq!(command(&["put-back", id, "--message-id", "mended"]), "1 put back");
    world.receiver.wait_for(&endpoint.path, 1).await;
    let (_, refused) = try_fanfare(&world.variables, &["parked", "put-back", id]);
    assert!(refused.is_some_and(|message| message.contains("no parked message has the id")));

    park(&world, &admin, None, "{}").await;
    park(&world, &admin, None, "{}").await;
    assert_eq!(command(&["discard", "--reason", "missing_message_id"]), "2 discarded");
    let (_, refused) = try_fanfare(&world.variables, &["parked", "discard"]);
    assert!(refused.is_some());
}
