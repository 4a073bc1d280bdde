//! Scenarios 2, 3, 5 and 8: a new endpoint, tests that fail in each phase, a pause, a rotation.

mod signature;

use fanfare_tests::{
    clients::browser::{Manner, Visit},
    folder::Folder,
    patience::until,
    receiver::{
        Behaviour, Received,
        signature::{is_signed, is_signed_as_standard},
    },
    world::World,
};
use serde_json::json;
use tokio::{net::TcpListener, process::Command};

use crate::console::visitor::Visitor;

/// Deliveries that a paused endpoint holds.
const HELD: usize = 50;

async fn begin(world: &World, name: &str, manner: Manner) -> Visit {
    let visitor = Visitor::by_key(world, &world.key).await;
    Visit::begin(world, name, &visitor.cookie, manner).await
}

/// Runs the page's code sample in Node. Returns the printed result.
async fn run_sample(code: &str, secret: &str, received: &Received) -> String {
    let folder = Folder::new("sample");
    let body = String::from_utf8(received.body.clone()).expect("UTF-8");
    let call = format!(
        "{code}\nconsole.log(verify({}, {}, Buffer.from({})))\n",
        json!(secret),
        json!(received.headers),
        json!(body)
    );
    let output = Command::new("node").arg(folder.write("verify.mjs", &call)).output().await.expect("Node");
    String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).trim().to_owned()
}

async fn an_endpoint_is_added(manner: Manner) {
    let world = World::shared().await;
    world.describe("order.paid").await;
    let visit = begin(&world, "add", manner).await;
    visit.open(&format!("/console/{}/webhooks", world.application)).await;
    visit.follow("Add endpoint").await;
    visit.fill("Name", "shop").await;
    visit.fill("URL", "ftp://example.com/").await;
    visit.act("check", json!({ "label": "These" })).await;
    visit
        .act("run", json!({ "script": "document.querySelectorAll('details').forEach(part => { part.open = true })" }))
        .await;
    visit.act("check", json!({ "label": "order.paid" })).await;
    visit.follow("Add endpoint").await;
    visit.finds("#error-summary").await;
    visit.fill("URL", &world.receiver.url("shop")).await;
    visit.follow("Add endpoint").await;
    visit.sees("Copy the secret now").await;
    let secret = visit.text(".facts code.copy").await;
    let code = visit.text("details[open] pre").await;
    visit.follow("Send test event").await;
    let received = world.receiver.wait_for("shop", 1).await;
    assert!(is_signed(&received[0], &secret));
    assert_eq!(run_sample(&code, &secret, &received[0]).await, "true", "{code}");
    assert_eq!(run_sample(&code, "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw", &received[0]).await, "false");
    let webhooks = world.client().get("webhooks").await;
    assert_eq!(webhooks.data().as_array().map(Vec::len), Some(1));
    assert_eq!(webhooks.data()[0]["events"], json!(["order.paid"]));
    let id = webhooks.data()[0]["id"].as_str().expect("an id").to_owned();
    for page in ["", "/secret", "/edit"] {
        visit.open(&format!("/console/{}/webhooks/{id}{page}", world.application)).await;
        let shown = visit.text("body").await;
        assert!(!shown.contains(&secret), "the secret is shown twice, at {page}");
    }
    visit.end().await;
}

#[tokio::test]
async fn is_added() {
    an_endpoint_is_added(Manner::USUAL).await;
}

#[tokio::test]
async fn is_added_without_scripts() {
    an_endpoint_is_added(Manner::WITHOUT_SCRIPTS).await;
}

#[tokio::test]
async fn is_added_over_a_slow_network() {
    an_endpoint_is_added(Manner::SLOW).await;
}

async fn a_filter_is_added(manner: Manner) {
    let world = World::shared().await;
    let endpoint = world.endpoint("filtered", &["*"]).await;
    for amount in [50, 150] {
        world.publish(&json!({ "type": "order.paid", "data": { "amount": amount } })).await;
    }
    world.receiver.wait_for("filtered", 2).await;
    let visit = begin(&world, "filter", manner).await;
    visit.open(&format!("/console/{}/webhooks/{}/edit", world.application, endpoint.id)).await;
    visit
        .act("run", json!({ "script": "document.querySelectorAll('details').forEach(part => { part.open = true })" }))
        .await;
    visit.fill("Member", "amount").await;
    visit.fill("Value", "50").await;
    visit.follow("Add the condition").await;
    visit.follow("Try on the last events").await;
    visit.sees("1 of the 2 last events pass.").await;
    visit.sees("data.amount = 150").await;
    visit.follow("Save").await;
    visit.sees("Before and after").await;
    visit.follow("Save").await;
    visit.sees("data.amount == 50").await;
    let webhook = world.client().get(&format!("webhooks/{}", endpoint.id)).await;
    assert_eq!(webhook.data()["filter"], json!("data.amount == 50"));
    visit.end().await;
}

#[tokio::test]
async fn is_filtered() {
    a_filter_is_added(Manner::USUAL).await;
}

#[tokio::test]
async fn is_filtered_without_scripts() {
    a_filter_is_added(Manner::WITHOUT_SCRIPTS).await;
}

async fn tests_name_the_failing_phase(manner: Manner) {
    let world = World::shared().await;
    let closed = {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        listener.local_addr().expect("an address").port()
    };
    let visit = begin(&world, "phases", manner).await;
    world.receiver.script("hanging", &[Behaviour::Hang]);
    world.receiver.script("failing", &[Behaviour::FAIL]);
    let plain = world.receiver.url("tls").replace("http://", "https://");
    for (url, phase) in [
        ("http://no-such-host.invalid/".to_owned(), "name"),
        (format!("http://127.0.0.1:{closed}/"), "onnection"),
        (plain, "TLS"),
        (world.receiver.url("hanging"), "timeout"),
        (world.receiver.url("failing"), "500"),
    ] {
        let new = json!({ "url": url, "events": ["a"] });
        let webhook = world.client().post("webhooks", &new).await.data()["id"].as_str().expect("an id").to_owned();
        visit.open(&format!("/console/{}/webhooks/{webhook}", world.application)).await;
        visit.follow("Send test event").await;
        visit.finds("#result .notice.bad").await;
        let result = visit.text("#result").await;
        assert!(result.contains(phase), "{url}: {result}");
    }
    visit.end().await;
}

#[tokio::test]
async fn tests_name_the_phase() {
    tests_name_the_failing_phase(Manner::USUAL).await;
}

#[tokio::test]
async fn tests_name_the_phase_without_scripts() {
    tests_name_the_failing_phase(Manner::WITHOUT_SCRIPTS).await;
}

async fn a_forbidden_address_is_named(manner: Manner) {
    let mut world = World::new().await;
    let endpoint = world.endpoint("a", &["a"]).await;
    // The guard of a deployment on the internet: loopback is forbidden.
    world.start_ingest_with(&[("FANFARE_ALLOW_ADDRESSES", "10.0.0.0/8")]).await;
    let visit = begin(&world, "forbidden", manner).await;
    let base = format!("/console/{}/webhooks", world.application);
    visit.open(&format!("{base}/{}", endpoint.id)).await;
    visit.follow("Send test event").await;
    visit.finds("#result .notice.bad").await;
    let result = visit.text("#result").await;
    for text in ["the host's address may not be called", "Only public addresses may be called"] {
        assert!(result.contains(text), "{text}: {result}");
    }
    assert_eq!(world.receiver.received("a").len(), 0);

    visit.open(&format!("{base}/new")).await;
    visit.act("check", json!({ "label": "All, also future ones" })).await;
    for address in ["169.254.169.254", "[::1]", "2130706433"] {
        visit.fill("URL", &format!("http://{address}/latest/meta-data")).await;
        visit.follow("Add endpoint").await;
        visit.finds("#error-summary").await;
        assert!(visit.text("#url-error").await.contains("address"), "{address}");
    }
    visit.end().await;
}

#[tokio::test]
async fn a_forbidden_address() {
    a_forbidden_address_is_named(Manner::USUAL).await;
}

#[tokio::test]
async fn a_forbidden_address_without_scripts() {
    a_forbidden_address_is_named(Manner::WITHOUT_SCRIPTS).await;
}

/// Watches a page until all held deliveries were sent. Returns true if the page told a number between none and all.
async fn progress_to_none(visit: &Visit, manner: Manner) -> bool {
    let (resumed, mut is_seen) = (visit.address().await, false);
    until("the end of the drain", async || {
        if manner.without_scripts {
            visit.open(&resumed).await;
        }
        let told = visit.text(".notice:has(progress)").await;
        let sent = told.split(' ').next().and_then(|number| number.parse::<usize>().ok());
        assert!(told.contains(&format!("of {HELD} held deliveries were sent")), "{told}");
        is_seen |= sent.is_some_and(|sent| (1..HELD).contains(&sent));
        (sent == Some(HELD)).then_some(())
    })
    .await;
    is_seen
}

async fn a_pause_holds_and_a_resumption_sends(manner: Manner) {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["a"]).await;
    // The drain takes some seconds, so that its progress is seen.
    world.change(&endpoint, &json!({ "rate_per_second": HELD / 4 })).await;
    let visit = begin(&world, "pause", manner).await;
    let page = format!("/console/{}/webhooks/{}", world.application, endpoint.id);
    visit.open(&page).await;
    visit.follow("Pause").await;
    visit.finds("h1:has-text('paused')").await;
    world.known().await;
    for number in 0..HELD {
        world.publish(&json!({ "type": "a", "data": { "n": number } })).await;
    }
    world.wait_for_deliveries("state=held", HELD).await;
    visit.open(&page).await;
    visit.sees(&format!("{HELD} deliveries are held.")).await;
    assert_eq!(world.receiver.received("a").len(), 0);
    visit.follow("Resume").await;
    assert!(progress_to_none(&visit, manner).await, "no number between none and all is seen");
    assert_eq!(world.receiver.received("a").len(), HELD);
    world.wait_for_deliveries("state=delivered", HELD).await;
    visit.open(&page).await;
    visit.finds("h1:has-text('enabled')").await;
    visit.end().await;
}

#[tokio::test]
async fn a_pause_holds() {
    a_pause_holds_and_a_resumption_sends(Manner::USUAL).await;
}

#[tokio::test]
async fn a_pause_holds_without_scripts() {
    a_pause_holds_and_a_resumption_sends(Manner::WITHOUT_SCRIPTS).await;
}

async fn both_secrets_verify_until_the_end(manner: Manner) {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["a"]).await;
    let visit = begin(&world, "rotate", manner).await;
    let page = format!("/console/{}/webhooks/{}", world.application, endpoint.id);
    visit.open(&page).await;
    visit.follow("Secret").await;
    visit.follow("Rotate the secret").await;
    let fresh = visit.text(".facts code.copy").await;
    assert_ne!(fresh, endpoint.secret);
    world.known().await;
    world.publish(&json!({ "type": "a", "data": {} })).await;
    let received = world.receiver.wait_for("a", 1).await;
    assert!(
        is_signed_as_standard(&received[0], &fresh) && is_signed_as_standard(&received[0], &endpoint.secret),
        "both secrets sign"
    );

    visit.open(&page).await;
    visit.sees("A rotation is running").await;
    visit.follow("End now").await;
    visit.fill("Type the host's name", "127.0.0.1").await;
    visit.follow("End the rotation").await;
    visit.sees("The previous secret no longer signs.").await;
    world.known().await;
    world.publish(&json!({ "type": "a", "data": {} })).await;
    let received = world.receiver.wait_for("a", 2).await;
    assert!(is_signed_as_standard(&received[1], &fresh) && !is_signed_as_standard(&received[1], &endpoint.secret));
    visit.open(&page).await;
    visit.sees("rotate secret").await;
    // The changes of the hour, in the bar of the hour.
    let mark = visit.act("title", json!({ "selector": "svg.chart .mark title" })).await;
    assert!(mark.as_str().is_some_and(|mark| mark.contains("rotate secret")), "{mark}");
    visit.end().await;
}

#[tokio::test]
async fn both_secrets_verify() {
    both_secrets_verify_until_the_end(Manner::USUAL).await;
}

#[tokio::test]
async fn both_secrets_verify_without_scripts() {
    both_secrets_verify_until_the_end(Manner::WITHOUT_SCRIPTS).await;
}
