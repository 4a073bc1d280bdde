//! Scenario 14: the portal in a frame of another origin; its rights; the message of its end; a parent that is refused.

use fanfare_tests::{
    clients::browser::{Manner, Visit},
    patience::until,
    world::World,
};
use serde_json::json;

/// The origin that may frame the portal. The driver serves its page.
const PARENT: &str = "http://127.0.0.1:1111";

/// The parent's page with a frame, which keeps the messages of the frame.
fn parent(link: &str) -> String {
    format!(
        "<!DOCTYPE html><title>parent</title><iframe src=\"{link}\" width=\"800\" height=\"600\"></iframe>
         <script>window.told = []; onmessage = event => window.told.push(event.data)</script>"
    )
}

async fn told(visit: &Visit) -> String {
    visit.act("run", json!({ "script": "JSON.stringify(window.told)" })).await.as_str().unwrap_or_default().to_owned()
}

#[tokio::test]
async fn in_a_frame_of_another_origin() {
    let world = World::of_variables(&[("FANFARE_PORTAL_ORIGINS", PARENT)]).await;
    world.endpoint("a", &["a"]).await;
    let address = world.ingest().address("serving the API").await;
    let link = async || {
        let made = world.client().post("portal-links", &json!({ "name": "Ada", "rights": ["view"] })).await;
        let text = |name: &str| made.data()[name].as_str().expect("a text").to_owned();
        let (_, path) = text("url").split_once("127.0.0.1").map(|(a, b)| (a.to_owned(), b.to_owned())).expect("a URL");
        (text("id"), format!("http://{address}{path}"))
    };
    let visit = Visit::begin(&world, "portal", "", Manner::USUAL).await;
    let (session, url) = link().await;
    visit.act("foreign", json!({ "address": format!("{PARENT}/"), "html": parent(&url) })).await;
    until("the messages of height and path", async || {
        let told = told(&visit).await;
        (told.contains("\"height\"") && told.contains(&format!("/portal/{}/", world.application))).then_some(())
    })
    .await;
    let frame = visit.act("frame", json!({})).await.as_str().unwrap_or_default().to_owned();
    assert!(frame.contains("Webhooks") && !frame.contains("Add endpoint"), "{frame}");
    assert_eq!(world.client().delete(&format!("sessions/{session}")).await.status, 200);
    until("the message of the end", async || {
        visit.act("reload_frame", json!({})).await;
        told(&visit).await.contains("\"expired\"").then_some(())
    })
    .await;

    // A parent that is not named gets no page.
    let other = Visit::begin(&world, "portal-refused", "", Manner::USUAL).await;
    let (_, url) = link().await;
    other.act("foreign", json!({ "address": "http://127.0.0.1:1112/", "html": parent(&url) })).await;
    let frame = other.act("frame", json!({})).await.as_str().unwrap_or_default().to_owned();
    assert!(!frame.contains("Webhooks") && !frame.contains("Open"), "{frame}");
    assert_eq!(told(&other).await, "[]");
    visit.end().await;
}
