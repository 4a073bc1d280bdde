//! The request of a delivery: the body as a file, and the command that sends the request, signed now.

use std::path::Path;

use fanfare_tests::{folder::Folder, receiver::signature::is_signed_as_standard, world::World};
use serde_json::json;
use tokio::process::Command;

use super::{html::Html, visitor::Visitor};

#[tokio::test]
async fn a_body_is_downloaded_and_the_command_sends_a_valid_request() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["*"]).await;
    let visitor = Visitor::by_key(&world, &world.key).await;
    for data in [json!({ "quote": "it's $HOME \u{e9}" }), json!("x".repeat(20_000))] {
        world.publish(&json!({ "type": "a", "data": data })).await;
    }
    let received = world.receiver.wait_for("a", 2).await;
    let deliveries = world.wait_for_deliveries("state=delivered", 2).await;
    for (count, delivery) in deliveries.iter().enumerate() {
        let delivery = delivery["id"].as_str().expect("an id");
        let page = format!("/console/{}/deliveries/{delivery}", world.application);
        let file = visitor.get(&format!("{page}/body")).await;
        let sent = received.iter().find(|received| received.body == file.text.as_bytes());
        let sent = sent.unwrap_or_else(|| panic!("no request had the body {}", file.text));
        let kept = format!("attachment; filename=\"{delivery}.json\"");
        assert_eq!(file.headers["content-disposition"], kept);

        let html = Html::parse(&visitor.get(&format!("{page}/request")).await.text);
        let command = html.all("pre").next().expect("a command").text.clone();
        let folder = Folder::new("request");
        let written = folder.write(&format!("{delivery}.json"), &file.text);
        let within = Path::new(&written).parent().expect("a folder");
        let status = Command::new("bash").args(["-c", &command]).current_dir(within).status().await;
        assert!(status.expect("bash").success(), "{command}");
        let again = world.receiver.wait_for("a", 3 + count).await.pop().expect("a request");
        assert_eq!(again.body, sent.body);
        assert_eq!(again.header("webhook-id"), sent.header("webhook-id"));
        assert!(is_signed_as_standard(&again, &endpoint.secret), "{command}");
    }
}

#[tokio::test]
async fn a_request_of_hidden_values_is_not_signed() {
    let world = World::shared().await;
    world.endpoint("a", &["*"]).await;
    let change = json!({ "redacted": ["password"] });
    let admin = world.admin().await;
    assert_eq!(admin.patch(&format!("applications/{}", world.application), &change).await.status, 200);
    world.known().await;
    world.publish(&json!({ "type": "a", "data": { "password": "1" } })).await;
    let delivery = world.wait_for_deliveries("state=delivered", 1).await.remove(0);
    let delivery = delivery["id"].as_str().expect("an id");
    let visitor = Visitor::by_key(&world, &world.key).await;
    let page = format!("/console/{}/deliveries/{delivery}/request", world.application);
    assert_eq!(visitor.get(&page).await.status, 403);
    assert_eq!(world.client().get(&format!("deliveries/{delivery}/request")).await.status, 403);
}
