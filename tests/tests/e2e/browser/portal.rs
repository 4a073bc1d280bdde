//! Scenario 14: the portal in a frame of another origin and of another site, its rights, the message of the session's
//! end, and a refused parent.

use fanfare_tests::{
    clients::browser::{Front, Manner, Visit},
    patience::until,
    world::World,
};
use serde_json::json;

/// The origin that may frame the portal. The driver serves its page.
const PARENT: &str = "http://127.0.0.1:1111";

/// The site of another company, and a site without permission to frame the portal.
const SHOP: &str = "https://shop.test";
const STRANGER: &str = "https://stranger.test";

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

/// The text of the page in the frame.
async fn frame(visit: &Visit) -> String {
    visit.act("frame", json!({})).await.as_str().unwrap_or_default().to_owned()
}

/// Waits until the page in the frame has a text.
async fn frame_has(visit: &Visit, wanted: &str) {
    until(&format!("{wanted:?} in the frame"), async || frame(visit).await.contains(wanted).then_some(())).await;
}

async fn a_frame_of_another_site_keeps_its_session(manner: Manner) {
    let front = Front::open("https").await;
    let variables = [("FANFARE_PORTAL_ORIGINS", SHOP), ("FANFARE_CONSOLE_URL", &front.origin)];
    let world = World::of_variables(&variables).await;
    front.lead_to(&world).await;
    world.endpoint("a", &["a"]).await;
    let link = async || {
        let new = json!({ "name": "Ada", "rights": ["view", "test"] });
        let url = world.client().post("portal-links", &new).await.data()["url"].as_str().expect("a URL").to_owned();
        assert!(url.starts_with(&front.origin), "{url}");
        url
    };
    let visit = Visit::at(&front.origin, "portal-site", "", manner).await;
    visit.act("foreign", json!({ "address": format!("{SHOP}/"), "html": parent(&link().await) })).await;
    if manner.without_scripts {
        frame_has(&visit, "The link opens the pages of").await;
        visit.act("click_in_frame", json!({ "name": "Open" })).await;
    }
    frame_has(&visit, "Webhooks").await;
    let kept = visit.act("partitioned", json!({ "site": SHOP })).await;
    let session = format!("__Host-fanfare-portal-{}", world.application);
    assert!(kept.as_array().is_some_and(|kept| kept.contains(&json!(session))), "{kept}");

    visit.act("click_in_frame", json!({ "name": "Webhooks" })).await;
    frame_has(&visit, "Send test event").await;
    visit.act("reload_frame", json!({})).await;
    frame_has(&visit, "Send test event").await;
    visit.act("click_in_frame", json!({ "name": "Send test event" })).await;
    frame_has(&visit, "The webhook took the event: it answered 200.").await;
    assert_eq!(world.receiver.received("a").len(), 1);
    visit.end().await;

    let other = Visit::at(&front.origin, "portal-stranger", "", manner).await;
    other.act("foreign", json!({ "address": format!("{STRANGER}/"), "html": parent(&link().await) })).await;
    let shown = frame(&other).await;
    assert!(!shown.contains("Webhooks") && !shown.contains("Open"), "{shown}");
}

#[tokio::test]
async fn in_a_frame_of_another_site() {
    a_frame_of_another_site_keeps_its_session(Manner::USUAL).await;
}

#[tokio::test]
async fn in_a_frame_of_another_site_without_scripts() {
    a_frame_of_another_site_keeps_its_session(Manner::WITHOUT_SCRIPTS).await;
}
