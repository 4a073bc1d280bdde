//! Daily digests: a receiver keeps a book of a day, and finds in the feed what the book lacks.

use std::{collections::BTreeSet, time::Duration};

use fanfare_domain::{
    delivery::digest::last_ended,
    ids::{ApplicationId, EventId},
    time::day_of,
};
use fanfare_tests::{
    patience::until,
    receiver::{Behaviour, Received, signature::is_signed},
    world::World,
};
use jiff::{Span, Timestamp, civil::Date, tz::TimeZone};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The lock of the job: no dispatcher tells a digest meanwhile.
const HOLD_UP: &str = "SELECT pg_advisory_lock(6683, 12)";

/// The hash that a receiver computes, as `sort | sha256sum` does.
fn hash_of(book: &BTreeSet<String>) -> String {
    let lines: String = book.iter().map(|id| format!("{id}\n")).collect();
    Sha256::digest(lines).iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Publishes an event that was accepted on a day: a publisher sends again under the id of the first answer.
async fn publish_on(world: &World, day: Date, hour: i64, data: &Value) -> String {
    let application: ApplicationId = world.application.parse().expect("an id");
    let begin = day.to_zoned(TimeZone::UTC).expect("a day").timestamp();
    let at = begin + Duration::from_secs(hour.unsigned_abs() * 3600);
    let id = EventId::new(application, at, rand::random()).to_string();
    assert_eq!(world.publish(&json!({ "id": id, "type": "a", "data": data })).await, id);
    id
}

/// Creates a webhook whose digests begin with a day in the past.
async fn create(world: &World, path: &str, from: Date) -> (String, String) {
    let new = json!({ "url": world.receiver.url(path), "events": ["a"], "feed": "copy", "digest": true });
    let webhook = world.client().post("webhooks", &new).await.data().clone();
    let text = |name: &str| webhook[name].as_str().expect("a text").to_owned();
    let next: Date = text("digest_from").parse().expect("a day");
    assert!(next > day_of(Timestamp::now()), "{webhook}");
    let statement = format!("UPDATE endpoints SET digest_from = '{from}' WHERE digest_from = '{next}'");
    assert_eq!(world.database().await.execute(&statement, &[]).await.expect("an update"), 1);
    world.known().await;
    (text("id"), text("secret"))
}

fn is_digest(request: &Received) -> bool {
    // The name of the type in the dialect `incenta`.
    serde_json::from_slice::<Value>(&request.body).is_ok_and(|body| body["event"] == "fanfare.digest")
}

/// The ids that the receiver took, of a day.
fn book_of(received: &[Received], day: &str) -> BTreeSet<String> {
    let taken = received.iter().filter(|request| request.behaviour.succeeds());
    taken
        .filter(|request| request.header("webhook-digest-day") == day)
        .map(|request| request.event().to_owned())
        .collect()
}

/// Reads the range of an entry in the feed. Without later deliveries, the range ends with the feed of the day.
async fn read_range(world: &World, webhook: &str, entry: &Value) -> BTreeSet<String> {
    let (day, last) = (entry["day"].as_str().expect("a day"), entry["last"].as_str().expect("a place"));
    let (mut after, mut found) = (entry["first"].as_str().expect("a place").to_owned(), BTreeSet::new());
    while after != last {
        let page = world.client().get(&format!("webhooks/{webhook}/feed?day={day}&limit=3&after={after}")).await;
        for listed in page.data().as_array().expect("a list") {
            assert_eq!(listed["digest_day"], day, "{listed}");
            let headers = listed["headers"].as_array().expect("headers");
            assert!(headers.contains(&json!(["webhook-digest-day", day])), "{listed}");
            found.insert(listed["event"].as_str().expect("an id").to_owned());
        }
        let erased = page.body["erased"].as_array().into_iter().flatten();
        found.extend(erased.map(|event| event.as_str().expect("an id").to_owned()));
        assert_ne!(page.body["next"], json!(after), "the range has no end");
        page.body["next"].as_str().expect("a place").clone_into(&mut after);
    }
    found
}

#[tokio::test]
async fn a_receiver_learns_from_a_digest_what_it_missed() {
    let world = World::of_waits("1s", &[]).await;
    let hold_up = world.database().await;
    hold_up.execute(HOLD_UP, &[]).await.expect("the lock");
    let _dispatcher = world.dispatcher().await;
    let day = last_ended(Timestamp::now());
    let (webhook, secret) = create(&world, "away", day).await;

    let mut published = BTreeSet::new();
    for number in 0..4 {
        published.insert(publish_on(&world, day, number, &json!(number)).await);
    }
    world.wait_for_deliveries("state=delivered", 4).await;
    world.receiver.script("away", &[Behaviour::FAIL]);
    for number in 4..10 {
        published.insert(publish_on(&world, day, number, &json!(number)).await);
    }
    world.wait_for_deliveries("state=failed", 6).await;
    world.receiver.script("away", &[Behaviour::OK]);
    let erased = publish_on(&world, day, 11, &json!("erased")).await;
    world.wait_for_deliveries("state=delivered", 5).await;
    world.client().delete(&format!("events/{erased}")).await.data();
    published.insert(erased);
    world.publish(&json!({ "type": "a", "data": "today" })).await;
    world.client().post(&format!("webhooks/{webhook}/test"), &json!({ "type": "a", "data": 1 })).await.data();
    world.wait_for_deliveries("state=delivered", 7).await;

    drop(hold_up);
    let told = until("the digest", async || world.receiver.received("away").into_iter().find(is_digest)).await;
    assert!(is_signed(&told, &secret));
    assert_eq!(told.header("webhook-digest-day"), "", "no digest counts a digest");
    let body: Value = serde_json::from_slice(&told.body).expect("JSON");
    assert_eq!(body["data"]["webhook"], webhook.as_str());
    let days = body["data"]["days"].as_array().expect("days");
    let (entry, day) = (&days[0], day.to_string());
    assert_eq!((days.len(), &entry["day"], &entry["count"]), (1, &json!(day), &json!(11)), "{body}");

    // The receiver compares, and reads what its book lacks.
    let received = world.receiver.received("away");
    let mut book = book_of(&received, &day);
    assert_eq!(book.len(), 5);
    assert_ne!(entry["hash"], json!(hash_of(&book)));
    book.extend(read_range(&world, &webhook, entry).await);
    assert_eq!((&book, &entry["hash"]), (&published, &json!(hash_of(&published))));

    // The same on demand, and today up to now: neither the test nor the digest counts.
    let asked = world.client().get(&format!("webhooks/{webhook}/digest?day={day}")).await.data().clone();
    assert_eq!(&asked, entry);
    let today = day_of(Timestamp::now()).to_string();
    let of_today = book_of(&received, &today);
    let asked = world.client().get(&format!("webhooks/{webhook}/digest?day={today}")).await.data().clone();
    assert_eq!((&asked["count"], &asked["hash"]), (&json!(1), &json!(hash_of(&of_today))), "{asked}");
    let shown = world.client().get(&format!("webhooks/{webhook}")).await.data().clone();
    assert_eq!((&shown["last_digest"]["day"], &shown["last_digest"]["count"]), (&json!(day), &json!(11)), "{shown}");
    assert_eq!(shown["last_digest"]["event"], told.event());
}

/// Without a dispatcher for three days, the next digest tells each day. A day without deliveries is told, too.
#[tokio::test]
async fn missed_days_are_told_by_the_next_digest() {
    let world = World::new().await;
    let hold_up = world.database().await;
    hold_up.execute(HOLD_UP, &[]).await.expect("the lock");
    let _dispatcher = world.dispatcher().await;
    let day = last_ended(Timestamp::now());
    let before = |days: i64| day.saturating_sub(Span::new().days(days));
    let (webhook, _) = create(&world, "later", before(1)).await;
    publish_on(&world, day, 1, &json!(1)).await;
    world.wait_for_deliveries("state=delivered", 1).await;
    world.client().post(&format!("webhooks/{webhook}/pause"), &json!({})).await.data();
    world.known().await;
    drop(hold_up);

    // The digest waits with the other deliveries of the paused webhook.
    let held = world.wait_for_deliveries("state=held", 1).await.remove(0);
    world.client().post(&format!("webhooks/{webhook}/enable"), &json!({})).await.data();
    let told = until("the digest", async || world.receiver.received("later").into_iter().find(is_digest)).await;
    assert_eq!(told.event(), held["event"]);
    let body: Value = serde_json::from_slice(&told.body).expect("JSON");
    let days = body["data"]["days"].as_array().expect("days").iter();
    let days: Vec<(String, i64)> = days
        .map(|entry| (entry["day"].as_str().expect("a day").to_owned(), entry["count"].as_i64().expect("a number")))
        .collect();
    assert_eq!(days, [(before(1).to_string(), 0), (day.to_string(), 1)]);
}

#[tokio::test]
async fn an_event_that_a_webhook_gets_later_is_in_its_feed_and_counts() {
    let world = World::new().await;
    let hold_up = world.database().await;
    hold_up.execute(HOLD_UP, &[]).await.expect("the lock");
    let _dispatcher = world.dispatcher().await;
    let day = last_ended(Timestamp::now());
    let (webhook, _) = create(&world, "later", day).await;
    world.client().patch(&format!("webhooks/{webhook}"), &json!({ "events": ["b"] })).await.data();
    world.known().await;
    let sent = publish_on(&world, day, 1, &json!(1)).await;
    let replayed = publish_on(&world, day, 2, &json!(2)).await;
    until("the events", async || (world.count("SELECT count(*) FROM events").await == 2).then_some(())).await;
    world.client().patch(&format!("webhooks/{webhook}"), &json!({ "events": ["a"] })).await.data();
    world.known().await;
    world.client().post(&format!("events/{sent}/send"), &json!({ "webhook": webhook })).await.data();
    world.wait_for_deliveries("state=delivered", 1).await;
    let replay = json!({ "since": "2020-01-01T00:00:00Z", "states": ["unmatched"] });
    world.client().post("replays", &replay).await.data();
    world.wait_for_deliveries("state=delivered", 2).await;
    let book = book_of(&world.receiver.received("later"), &day.to_string());
    assert_eq!(book, BTreeSet::from([sent, replayed]));
    let entry = until("the entries", async || {
        let entry = world.client().get(&format!("webhooks/{webhook}/digest?day={day}")).await.data().clone();
        (entry["count"] == 2).then_some(entry)
    })
    .await;
    assert_eq!(entry["hash"], json!(hash_of(&book)));
}

#[tokio::test]
async fn a_digest_says_what_is_wrong() {
    let world = World::new().await;
    let url = world.receiver.url("sent");
    for new in [
        json!({ "url": url, "events": ["a"], "digest": true }),
        json!({ "url": url, "events": ["a"], "digest": true, "feed": "none" }),
    ] {
        let refused = world.client().post("webhooks", &new).await;
        assert_eq!((refused.status, refused.field()), (422, "digest"), "{}", refused.body);
    }
    let created = world.client().post("webhooks", &json!({ "url": url, "events": ["a"], "feed": "copy" })).await;
    let webhook = created.data()["id"].as_str().expect("an id").to_owned();
    let refused = world.client().get(&format!("webhooks/{webhook}/digest")).await;
    assert_eq!((refused.status, refused.code()), (409, "no_digest"));
    let change = async |change: Value| world.client().patch(&format!("webhooks/{webhook}"), &change).await;
    let on = change(json!({ "digest": true })).await.data().clone();
    let off = change(json!({ "feed": "none" })).await;
    assert_eq!((off.status, off.field()), (422, "digest"), "{}", off.body);
    assert_eq!(change(json!({ "digest": true, "name": "x" })).await.data()["digest_from"], on["digest_from"]);
    for day in ["x", "2026-02-30", "2020-01-01", "2999-01-01", ""] {
        let refused = world.client().get(&format!("webhooks/{webhook}/digest?day={day}")).await;
        assert_eq!((refused.status, refused.field()), (422, "day"), "{day}: {}", refused.body);
    }
    let refused = world.client().get(&format!("webhooks/{webhook}/feed?day=x")).await;
    assert_eq!((refused.status, refused.field()), (422, "day"), "{}", refused.body);
    let none = change(json!({ "digest": false, "feed": "none" })).await.data().clone();
    assert_eq!((&none["digest"], none.get("digest_from")), (&json!(false), None));
    let reader = json!({ "events": ["a"], "feed": "only", "digest": true });
    assert_eq!(world.client().post("webhooks", &reader).await.data()["digest"], true);
    // The type is Fanfare's own.
    let refused = world.client().post("events", &json!({ "type": "fanfare.digest", "data": 1 })).await;
    assert_eq!((refused.status, refused.field()), (422, "type"), "{}", refused.body);
}
