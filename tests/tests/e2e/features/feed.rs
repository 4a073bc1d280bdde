//! Feeds: receivers that read their deliveries, and `fanfare listen`.

use std::{collections::HashSet, time::Instant};

use fanfare_tests::{
    clients::api::Answer,
    patience::until,
    receiver::{Behaviour, Received, signature::is_signed},
    servers::proxy::Proxy,
    world::World,
};
use jiff::Timestamp;
use serde_json::{Value, json};

/// A webhook as the API created it.
struct Webhook {
    id: String,
    secret: String,
}

async fn create(world: &World, new: &Value) -> Webhook {
    let answer = world.client().post("webhooks", new).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    world.known().await;
    let text = |name: &str| answer.data()[name].as_str().expect("a text").to_owned();
    Webhook { id: text("id"), secret: text("secret") }
}

async fn read(world: &World, webhook: &Webhook, query: &str) -> Answer {
    world.client().get(&format!("webhooks/{}/feed?{query}", webhook.id)).await
}

/// Reads a feed until `count` deliveries have come. Returns the deliveries and the last place.
async fn read_all(world: &World, webhook: &Webhook, count: usize, limit: usize) -> (Vec<Value>, String) {
    let (mut read_so_far, mut after) = (Vec::new(), String::new());
    until("the deliveries in the feed", async || {
        let page = read(world, webhook, &format!("wait=1&limit={limit}{after}")).await;
        let entries = page.data().as_array().expect("a list");
        assert!(entries.len() <= limit);
        read_so_far.extend(entries.iter().cloned());
        if let Some(next) = page.body["next"].as_str() {
            after = format!("&after={next}");
        }
        (read_so_far.len() >= count).then_some(())
    })
    .await;
    (read_so_far, after)
}

/// A delivery of the feed as a request.
fn request(entry: &Value) -> Received {
    let headers = entry["headers"].as_array().expect("headers").iter();
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    Received {
        at: Timestamp::now(),
        path: String::new(),
        headers: headers.map(|pair| (text(&pair[0]), text(&pair[1]))).collect(),
        body: text(&entry["body"]).into_bytes(),
        behaviour: Behaviour::OK,
    }
}

#[tokio::test]
async fn a_receiver_finds_in_the_feed_deliveries_that_it_missed() {
    const EVENTS: usize = 7;
    let world = World::of_waits("1s", &[]).await;
    let _dispatcher = world.dispatcher().await;
    let new =
        json!({ "url": world.receiver.url("away"), "events": ["a"], "feed": "copy", "headers": { "x-own": "1" } });
    let webhook = create(&world, &new).await;
    let mut events = Vec::new();
    for number in 0..EVENTS {
        events.push(world.publish(&json!({ "type": "a", "data": number })).await);
        world.wait_for_deliveries("state=delivered", number + 1).await;
    }
    let (entries, after) = read_all(&world, &webhook, EVENTS, 3).await;
    let listed: Vec<&str> = entries.iter().map(|entry| entry["event"].as_str().expect("an id")).collect();
    assert_eq!(listed, events);
    let sent = world.receiver.received("away");
    for (entry, sent) in entries.iter().zip(&sent) {
        let request = request(entry);
        assert!(is_signed(&request, &webhook.secret), "{entry}");
        assert_eq!(request.body, sent.body);
        assert_eq!((request.header("x-own"), sent.header("x-own")), ("", "1"), "own headers are credentials");
    }
    // The feed goes on while the webhook is disabled.
    world.client().post(&format!("webhooks/{}/disable", webhook.id), &json!({})).await.data();
    world.known().await;
    let missed = world.publish(&json!({ "type": "a", "data": "missed" })).await;
    let page = read(&world, &webhook, &format!("wait=20{after}")).await;
    assert_eq!(page.data()[0]["event"], missed.as_str());
    assert_eq!(page.data().as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn a_webhook_may_be_read_only() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let webhook = create(&world, &json!({ "events": ["a"], "feed": "only" })).await;
    let shown = world.client().get(&format!("webhooks/{}", webhook.id)).await.data().clone();
    assert_eq!((&shown["feed"], &shown["url"]), (&json!("only"), &json!("https://feed.invalid/")));
    let empty = read(&world, &webhook, "wait=0").await;
    assert_eq!(empty.body, json!({ "success": true, "data": [], "next": null }));

    // The reader waits for the event.
    let started = Instant::now();
    let new = json!({ "type": "a", "data": 1 });
    let (page, event) = tokio::join!(read(&world, &webhook, "wait=20"), world.publish(&new));
    assert!(started.elapsed().as_secs() < 15, "{:?}", started.elapsed());
    let entry = &page.data()[0];
    assert_eq!((&entry["event"], &entry["type"]), (&json!(event), &json!("a")));
    assert!(is_signed(&request(entry), &webhook.secret));

    let delivery = world.wait_for_deliveries("state=skipped", 1).await.remove(0);
    assert_eq!((&delivery["id"], &delivery["reason"]), (&entry["delivery"], &json!("feed")));
    let why = world.client().get(&format!("events/{event}/why")).await.data().clone();
    let steps = why["webhooks"][0]["steps"].as_array().expect("steps").clone();
    assert_eq!(steps.last().expect("a step")["code"], "in_feed");
    let id = delivery["id"].as_str().expect("an id");
    for path in [format!("deliveries/{id}/resend"), format!("webhooks/{}/test", webhook.id)] {
        let refused = world.client().post(&path, &json!({})).await;
        assert_eq!((refused.status, refused.code()), (409, "feed_only"), "{path}");
    }
    let resent = world.client().post("deliveries/resend", &json!({ "state": "skipped" })).await.data().clone();
    assert_eq!(resent["resent"], 0, "{resent}");
    let since = json!({ "since": "2020-01-01T00:00:00Z", "states": ["skipped", "unmatched"] });
    let counted = world.client().post("replays/dry-run", &since).await.data().clone();
    assert_eq!(counted["deliveries"], 0, "{counted}");
    let later = create(&world, &json!({ "events": ["b"], "feed": "only" })).await;
    let refused = world.client().post(&format!("events/{event}/send"), &json!({ "webhook": later.id })).await;
    assert_eq!(refused.code(), "feed_only");
}

#[tokio::test]
async fn a_feed_says_what_is_wrong() {
    let world = World::new().await;
    let url = world.receiver.url("sent");
    let sent = create(&world, &json!({ "url": url, "events": ["a"] })).await;
    let only = create(&world, &json!({ "events": ["a"], "feed": "only", "temporary": true })).await;
    let shown = world.client().get(&format!("webhooks/{}", only.id)).await.data().clone();
    assert!(shown["expires_at"].is_string(), "{shown}");
    let no_feed = read(&world, &sent, "").await;
    assert_eq!((no_feed.status, no_feed.code()), (409, "no_feed"));
    for query in ["after=x", "after=1.evt_01h455vb4pex5vsknk084sn02q", "wait=21", "limit=0", "wait=x", "before=1"] {
        let refused = read(&world, &only, query).await;
        assert!(matches!(refused.status, 400 | 422), "{query}: {}", refused.body);
    }
    let future = read(&world, &only, "after=9000000000000000000.dlv_01h455vb4pex5vsknk084sn02q").await;
    assert_eq!((future.status, future.field()), (422, "after"), "{}", future.body);
    for (new, field) in [
        (json!({ "events": ["a"] }), "url"),
        (json!({ "events": ["a"], "feed": "copy" }), "url"),
        (json!({ "url": url, "events": ["a"], "feed": "only" }), "url"),
        (json!({ "url": url, "events": ["a"], "feed": "both" }), "feed"),
        (json!({ "url": url, "events": ["a"], "temporary": true }), "temporary"),
        (json!({ "events": ["a"], "feed": "only", "status": "paused" }), "status"),
    ] {
        let refused = world.client().post("webhooks", &new).await;
        assert_eq!((refused.status, refused.field()), (422, field), "{new}: {}", refused.body);
    }
    for (webhook, change, field) in [
        (&sent, json!({ "feed": "only" }), "feed"),
        (&only, json!({ "feed": "none" }), "feed"),
        (&only, json!({ "url": url }), "url"),
        (&only, json!({ "status": "paused" }), "status"),
    ] {
        let refused = world.client().patch(&format!("webhooks/{}", webhook.id), &change).await;
        assert_eq!((refused.status, refused.field()), (422, field), "{change}: {}", refused.body);
    }
    let refused = world.client().post(&format!("webhooks/{}/pause", only.id), &json!({})).await;
    assert_eq!(refused.field(), "status");
    world.client().patch(&format!("webhooks/{}", sent.id), &json!({ "feed": "copy" })).await.data();
    world.client().patch(&format!("webhooks/{}", sent.id), &json!({ "feed": "none" })).await.data();
}

/// The connection to the API is reset again and again.
#[tokio::test]
async fn listen_brings_each_delivery_once_and_in_order() {
    const EVENTS: usize = 20;
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let api = world.ingest().address("serving the API").await;
    let proxy = Proxy::start(api).await;
    let key = world.create_key(&["--role", "manage", "--application", &world.application]);
    let command = format!("fanfare listen {} --events a,order.*", world.receiver.url("laptop"));
    let variables = [("FANFARE_API", &*format!("http://{}", proxy.address())), ("FANFARE_KEY", key.trim())];
    let listening = world.process_with(command.leak(), &variables);
    let says = async |part: &str| {
        until(&format!("listen to say {part}"), async || {
            let lines = listening.logs();
            lines.iter().filter_map(Value::as_str).find(|line| line.contains(part)).map(str::to_owned)
        })
        .await
    };
    let told = says("; secret whsec_").await;
    let secret = told.rsplit(' ').next().expect("a secret").to_owned();
    world.known().await;
    let mut events = Vec::new();
    for number in 0..EVENTS {
        events.push(world.publish(&json!({ "type": "order.paid", "data": number })).await);
        world.receiver.wait_for("laptop", number / 5 * 5).await;
        if number % 5 == 2 {
            proxy.reset();
        }
    }
    let received = world.receiver.wait_for("laptop", EVENTS).await;
    assert_eq!(received.iter().map(Received::event).collect::<Vec<_>>(), events);
    assert!(received.iter().all(|request| is_signed(request, &secret)));
    says("trying again").await;
    let shown: HashSet<String> = listening.logs().iter().filter_map(Value::as_str).map(str::to_owned).collect();
    let results = shown.iter().filter(|line| line.contains("200 OK") && line.contains("order.paid")).count();
    assert_eq!(results, EVENTS, "{shown:?}");
    assert_eq!(world.client().get("webhooks").await.data().as_array().map(Vec::len), Some(1));
    listening.terminate();
    assert_eq!(listening.ended().await, 0);
    assert_eq!(world.client().get("webhooks").await.data(), &json!([]));
}
