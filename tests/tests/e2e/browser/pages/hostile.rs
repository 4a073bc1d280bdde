//! Texts of others in every field, and many endpoints: no script runs, no page is wide or large.

use std::collections::BTreeMap;

use fanfare_domain::access::session::Face;
use fanfare_tests::{
    clients::browser::{Manner, Visit},
    patience::until,
    scene::{ARABIC, OVERRIDE, SCRIPT, Scene},
    world::World,
};
use hyper::body::Bytes;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
};

use crate::console::{crawl::crawl, visitor::Visitor};

/// The largest page, in bytes.
const LARGEST: usize = 100_000;

/// Endpoints of an application.
const MANY: i32 = 5000;

/// A markup that begins within an attribute.
const MARKUP: &str = "\"><img src=x onerror=alert(3)><script>alert(4)</script>";

/// Answers each request with markup in headers and body, or with bytes that are no text.
async fn hostile_receiver() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("an address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(answer(stream));
        }
    });
    format!("http://{address}")
}

async fn answer(stream: TcpStream) -> std::io::Result<()> {
    let mut stream = BufReader::new(stream);
    let (mut first, mut line, mut length) = (String::new(), String::new(), 0);
    stream.read_line(&mut first).await?;
    while stream.read_line(&mut line).await? > 2 {
        let value = line.to_ascii_lowercase().strip_prefix("content-length:").map(|value| value.trim().parse());
        length = value.and_then(Result::ok).unwrap_or(length);
        line.clear();
    }
    stream.read_exact(&mut vec![0; length]).await?;
    let body = if first.contains("/binary") { (0..=255).collect() } else { format!("{MARKUP}{OVERRIDE}").into_bytes() };
    let head = format!(
        "HTTP/1.1 500 {MARKUP}\r\ncontent-type: text/html{MARKUP}\r\nx-markup: {MARKUP}\r\ncontent-length: {}\r\n\
         connection: close\r\n\r\n",
        body.len()
    );
    stream.write_all(&[head.into_bytes(), body].concat()).await
}

/// Fills the application with texts of others, beside those of [`Scene::fill`].
async fn fill(world: &World) {
    let (client, admin) = (world.client(), world.admin().await);
    world.release.fanfare(&world.variables, &["app", "create", ARABIC]);
    world.release.fanfare(&world.variables, &["app", "create", SCRIPT]);
    let application = format!("applications/{}", world.application);
    admin.patch(&application, &json!({ "name": format!("{OVERRIDE}{MARKUP}") })).await.data();
    let described = json!({
        "name": "markup.sent", "category": MARKUP, "description": MARKUP, "sample": { MARKUP: MARKUP },
    });
    client.post("event-types", &described).await.data();
    client.post("portal-links", &json!({ "name": MARKUP, "rights": ["view"] })).await.data();
    let receiver = hostile_receiver().await;
    for path in ["markup", "binary"] {
        let new = json!({
            "url": format!("{receiver}/{path}?{}", MARKUP.replace(' ', "%20")), "events": ["markup.*"], "name": format!("{MARKUP}{path}"),
        });
        let webhook = client.post("webhooks", &new).await.data()["id"].as_str().expect("an id").to_owned();
        client.post(&format!("webhooks/{webhook}/test"), &json!({ "type": "markup.sent" })).await.data();
    }
    world.known().await;
    let large = "x".repeat(250 * 1024);
    world.publish(&json!({ "type": "markup.large", "id": MARKUP, "data": { MARKUP: large } })).await;
    // A line without a place to break.
    world.publish(&json!({ "type": "a".repeat(60), "id": "k".repeat(200), "data": "w".repeat(2000) })).await;
    world.wait_for_deliveries("state=failed&type=markup.large", 2).await;
    park(world).await;
}

/// Publishes messages that cannot be read: markup in the routing key, the id, a header and the body, and bytes.
async fn park(world: &World) {
    let (broker, admin) = (world.broker().await, world.admin().await);
    let key = format!("{}.{MARKUP}{OVERRIDE}", world.application);
    let bytes: Vec<u8> = (0..=255).collect();
    for body in [Bytes::from(MARKUP), Bytes::from(bytes)] {
        let sent = broker.publish(&key, Some(MARKUP), &[(MARKUP, MARKUP)], body).await;
        assert!(sent.expect("the broker answers"), "the broker refused a message");
    }
    until("the messages to be parked", async || {
        let parked = admin.get("parked").await;
        parked.data().as_array().is_some_and(|parked| parked.len() == 2).then_some(())
    })
    .await;
}

/// Opens a page of each route in a window of 320 px. Returns the faults.
async fn faults(world: &World, visitor: &Visitor, face: Face, first: &str) -> Vec<String> {
    let (mut pages, mut faults) = (BTreeMap::new(), Vec::new());
    for page in crawl(visitor, face, first).await {
        if page.text.len() > LARGEST && !page.address.contains("body=whole") {
            faults.push(format!("{}: {} bytes", page.address, page.text.len()));
        }
        // Of the pages of a route, the largest.
        let largest = pages.entry(page.route).or_insert((0, String::new()));
        if page.text.len() > largest.0 {
            *largest = (page.text.len(), page.address);
        }
    }
    let visit = Visit::begin(world, "hostile", &visitor.cookie, Manner::NARROW).await;
    for (_, address) in pages.into_values() {
        visit.open(&address).await;
        let wide = visit.act("wide", json!({})).await;
        faults.extend(wide.as_array().into_iter().flatten().map(|fault| format!("{address}: {fault}")));
    }
    // A script of others would have opened a dialog; the policy would have told of its refusal.
    visit.end().await;
    faults
}

#[tokio::test]
async fn texts_of_others_are_texts() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    Scene::fill(&world).await;
    fill(&world).await;
    let administrator = Visitor::by_link(&world, &[]).await;
    let mut found = faults(&world, &administrator, Face::Console, "/console/").await;
    let first = format!("/console/{}/", world.application);
    found.extend(faults(&world, &administrator, Face::Console, &first).await);
    let customer = Visitor::of_portal(&world, &["payloads", "test", "resend", "endpoints", "replay"]).await;
    let first = format!("/portal/{}/", world.application);
    found.extend(faults(&world, &customer, Face::Portal, &first).await);
    assert!(found.is_empty(), "{} faults:\n{}", found.len(), found.join("\n"));
}

/// Endpoints that fail, without secrets: nothing is sent.
const FAILING: &str = r"
INSERT INTO endpoints (id, application_id, url, event_types)
    SELECT gen_random_uuid(), id, 'https://hook' || number || '.example/' || repeat('in', 20), '{*}'
    FROM (SELECT id FROM applications LIMIT 1) a, generate_series(1, $MANY) number;
DO $$ DECLARE names text; zeros text; BEGIN
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum), string_agg('0', ', ') INTO names, zeros
    FROM pg_attribute WHERE attrelid = 'rollups'::regclass AND attnum > 0
      AND attname NOT IN ('subject', 'at', 'kind', 'failed_5xx');
    EXECUTE format('INSERT INTO rollups (subject, at, kind, failed_5xx, %s)
        SELECT id, date_bin(''5 minutes'', now() - interval ''20 minutes'', ''epoch''), 2, 3, %s FROM endpoints',
        names, zeros);
END $$";

#[tokio::test]
async fn thousands_of_endpoints_fit_on_the_pages() {
    let world = World::new().await;
    let event = {
        let _dispatcher = world.dispatcher().await;
        let event = world.publish(&json!({ "type": "a", "data": {} })).await;
        until("the event to be stored", async || {
            (world.client().get(&format!("events/{event}")).await.status == 200).then_some(())
        })
        .await;
        event
    };
    let failing = FAILING.replace("$MANY", &MANY.to_string());
    world.database().await.batch_execute(&failing).await.expect("endpoints");
    let visitor = Visitor::by_link(&world, &[]).await;
    let visit = Visit::begin(&world, "many", &visitor.cookie, Manner::NARROW).await;
    let base = format!("/console/{}", world.application);
    let mut faults = Vec::new();
    for page in [
        "/console/".to_owned(),
        "/console/endpoints".to_owned(),
        "/console/search?q=hook".to_owned(),
        format!("{base}/"),
        format!("{base}/webhooks"),
        format!("{base}/why?event={event}"),
        format!("{base}/search?q=hook"),
        format!("{base}/event-types"),
        format!("{base}/deliveries"),
    ] {
        let size = visitor.get(&page).await.text.len();
        assert_eq!(visit.open(&page).await, 200, "{page}");
        let wide: Value = visit.act("wide", json!({})).await;
        if size > LARGEST || wide != json!([]) {
            faults.push(format!("{page}: {size} bytes, {wide}"));
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
    visit.open(&format!("{base}/webhooks")).await;
    let shown = visit.count("tbody tr").await;
    visit.follow("Older").await;
    assert_eq!(visit.count("tbody tr").await, shown);
    visit.open(&format!("{base}/webhooks?contains=hook4321")).await;
    assert_eq!(visit.count("tbody tr").await, 1);
    visit.end().await;
}
