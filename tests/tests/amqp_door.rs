//! The AMQP door: what any publisher may put on the events exchange, and what becomes of messages that
//! cannot be read. Nobody waits for an answer here, so each of them must be found again, with its reason.

use std::collections::BTreeMap;

use fanfare_tests::{
    metrics::{counted, metric},
    patience::until,
    process::fanfare,
    signature::is_signed,
    world::World,
};
use serde_json::{Value, json};

/// The default of `FANFARE_MAX_EVENT_BYTES`.
const MAX_EVENT_BYTES: usize = 256 * 1024;

#[tokio::test]
async fn the_documented_message_is_delivered() {
    let world = World::new().await;
    let endpoint = world.endpoint("all", &["*"]).await;
    let _dispatcher = world.dispatcher().await;
    let broker = world.broker().await;
    let routing_key = format!("{}.order.created", world.application);
    let full = json!({ "type": "order.created", "data": { "n": 1 }, "id": "full", "time": "2026-06-18T12:00:00Z" });
    for (id, body) in [("full", full.to_string()), ("least", r#"{"data":{"n":2}}"#.to_owned())] {
        assert!(broker.publish(&routing_key, Some(id), &[], body).await.expect("the broker"), "{id} is confirmed");
    }
    let mut received = world.receiver.wait_for(&endpoint.path, 2).await;
    received.sort_by_key(|one| one.body.clone());
    for (one, number) in received.iter().zip(1..) {
        assert!(is_signed(one, &endpoint.secret), "{one:?}");
        let body: Value = serde_json::from_slice(&one.body).expect("JSON");
        assert_eq!((&body["event"], &body["data"]), (&json!("order.created"), &json!({ "n": number })));
    }
    assert_ne!(received[0].event(), received[1].event());
}

/// A message that cannot be read, and why.
struct Bad {
    name: &'static str,
    routing_key: String,
    message_id: Option<String>,
    body: Vec<u8>,
    reason: &'static str,
}

/// One of each kind, for an application.
fn bad_messages(application: &str) -> Vec<Bad> {
    let key = format!("{application}.a");
    let good = r#"{"type":"a","data":1}"#;
    let deep = format!(r#"{{"data":{}1{}}}"#, "[".repeat(100), "]".repeat(100));
    let large = format!(r#"{{"data":"{}"}}"#, "x".repeat(MAX_EVENT_BYTES));
    let long_type = format!("{application}.{}", "a".repeat(129));
    let by_key = [
        ("no dot", application, "invalid_routing_key"),
        ("nothing", "", "invalid_routing_key"),
        ("no event type", &format!("{application}."), "invalid_routing_key"),
        ("no event type's name", &format!("{application}.a b"), "invalid_routing_key"),
        ("a long event type", &long_type, "invalid_routing_key"),
        ("no application's id", "shop.a", "unknown_application"),
        ("no application", "app_00000000000000000000000000.a", "unknown_application"),
    ];
    let by_body: [(_, &[u8], _); 16] = [
        ("no bytes", b"", "malformed_json"),
        ("no JSON", b"<event/>", "malformed_json"),
        ("no UTF-8", b"{\"data\":\"\xff\0\"}", "malformed_json"),
        ("a list", b"[]", "not_an_object"),
        ("too large", large.as_bytes(), "body_too_large"),
        ("too deep", deep.as_bytes(), "too_deep"),
        ("an infinite number", br#"{"data":-1e400}"#, "infinite_number"),
        ("no data", b"{}", "missing_field"),
        ("a misspelt field", br#"{"data":1,"dta":1}"#, "unknown_field"),
        ("data twice", br#"{"data":1,"data":1}"#, "duplicate_field"),
        ("type a number", br#"{"data":1,"type":1}"#, "wrong_type"),
        ("no type's name", br#"{"data":1,"type":"a b"}"#, "invalid_field"),
        ("no time", br#"{"data":1,"time":"noon"}"#, "invalid_field"),
        ("a long id", &[br#"{"data":1,"id":""#.as_slice(), &[b'x'; 256], br#""}"#].concat(), "field_too_long"),
        ("another type", br#"{"data":1,"type":"b"}"#, "type_mismatch"),
        ("another id", br#"{"data":1,"id":"mine"}"#, "id_mismatch"),
    ];
    let by_id = [
        ("no id", None, "missing_message_id"),
        ("an empty id", Some(""), "missing_message_id"),
        ("a control character", Some("a\tb"), "invalid_field"),
    ];

    let bad = |name: &'static str, routing_key: &str, message_id: Option<&str>, body: &[u8], reason| {
        let (routing_key, message_id) = (routing_key.to_owned(), message_id.map(str::to_owned));
        Bad { name, routing_key, message_id, body: body.to_vec(), reason }
    };
    let by_key = by_key.map(|(name, key, reason)| bad(name, key, Some(name), good.as_bytes(), reason));
    let by_body = by_body.map(|(name, body, reason)| bad(name, &key, Some(name), body, reason));
    let by_id = by_id.map(|(name, id, reason)| bad(name, &key, id, good.as_bytes(), reason));
    by_key.into_iter().chain(by_body).chain(by_id).collect()
}

#[tokio::test]
async fn what_cannot_be_read_is_parked_as_it_was_with_its_reason() {
    let world = World::new().await;
    let endpoint = world.endpoint("all", &["*"]).await;
    let dispatcher = world.dispatcher().await;
    let broker = world.broker().await;
    let messages = bad_messages(&world.application);
    for bad in &messages {
        let headers = [("name", bad.name)];
        let published = broker.publish(&bad.routing_key, bad.message_id.as_deref(), &headers, &bad.body);
        assert!(published.await.expect("the broker"), "{}", bad.name);
    }
    let good = format!("{}.good", world.application);
    broker.publish(&good, Some("good"), &[], r#"{"data":1}"#).await.expect("the broker");
    world.receiver.wait_for(&endpoint.path, 1).await;

    let parked = parked(&world, messages.len()).await;
    for bad in &messages {
        let (reason, row) = parked.get(bad.name).unwrap_or_else(|| panic!("{} is not parked", bad.name));
        assert_eq!(reason, bad.reason, "{}", bad.name);
        let message: &str = row.get("message");
        assert!(message.len() > 10, "{}: nothing for people to read: {message:?}", bad.name);
        assert_eq!(row.get::<_, Option<String>>("routing_key").as_ref(), Some(&bad.routing_key), "{}", bad.name);
        assert_eq!(row.get::<_, Option<String>>("message_id"), bad.message_id, "{}", bad.name);
        assert_eq!(row.get::<_, Vec<u8>>("body"), bad.body, "{}: not as it was", bad.name);
    }
    assert_each_is_counted(&dispatcher, &messages).await;
    for queue in ["events", "parked", "unrouted"] {
        until(&format!("the queue {queue} to be empty"), async || {
            (broker.depth(queue).await.expect("the queue") == 0).then_some(())
        })
        .await;
    }
    assert_eq!(world.receiver.received(&endpoint.path).len(), 1, "only the good one is an event");
    assert_eq!(world.count("SELECT count(*) FROM events").await, 1);
}

/// The parked messages by the name in their headers, with their reasons, once there are so many.
async fn parked(world: &World, count: usize) -> BTreeMap<String, (String, tokio_postgres::Row)> {
    let database = world.database().await;
    let rows = until(&format!("{count} parked messages"), async || {
        let rows = database.query("SELECT * FROM parked", &[]).await.expect("the parked messages");
        (rows.len() >= count).then_some(rows)
    })
    .await;
    assert_eq!(rows.len(), count);
    rows.into_iter()
        .map(|row| {
            let headers: Value = serde_json::from_str(row.get("headers")).expect("headers are JSON");
            let name = headers["name"].as_str().unwrap_or_else(|| panic!("no readable header in {headers}"));
            (name.to_owned(), (row.get("reason"), row))
        })
        .collect()
}

async fn assert_each_is_counted(dispatcher: &fanfare_tests::process::Process, messages: &[Bad]) {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for bad in messages {
        *reasons.entry(bad.reason).or_default() += 1;
    }
    for (reason, count) in reasons {
        let series = format!("fanfare_parked_total{{reason=\"{reason}\"}}");
        assert_eq!(metric(dispatcher, &series).await as usize, count, "{series}");
    }
}

/// Its services may publish as soon as there is an application: no message of theirs may be parked
/// because a dispatcher has not heard of it yet.
#[tokio::test]
async fn an_application_is_known_as_soon_as_it_exists() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let broker = world.broker().await;
    for (name, published) in ["one", "two", "three"].into_iter().zip(1..) {
        let application = fanfare(&world.variables, &["app", "create", name]);
        broker.publish(&format!("{application}.a"), Some("1"), &[], r#"{"data":1}"#).await.expect("the broker");
        until("the event", async || (world.count("SELECT count(*) FROM events").await == published).then_some(()))
            .await;
    }
    assert_eq!(world.count("SELECT count(*) FROM parked").await, 0);
}

#[tokio::test]
async fn a_key_is_one_event_whichever_door_it_comes_through() {
    let world = World::new().await;
    let endpoint = world.endpoint("once", &["*"]).await;
    let dispatcher = world.dispatcher().await;
    let broker = world.broker().await;
    let routing_key = format!("{}.a", world.application);
    let body = r#"{"data":1}"#;

    let keyed = world.publish(&json!({ "type": "a", "data": 1, "id": "order-1" })).await;
    let named = world.publish(&json!({ "type": "a", "data": 1 })).await;
    for id in ["order-1", &named, "order-2", "order-2"] {
        broker.publish(&routing_key, Some(id), &[], body).await.expect("the broker");
    }
    let late = world.publish(&json!({ "type": "a", "data": 1, "id": "order-2" })).await;

    counted(&dispatcher, r#"fanfare_events_total{result="known"}"#, 4).await;
    world.wait_for_deliveries("state=delivered", 3).await;
    let mut received: Vec<_> =
        world.receiver.received(&endpoint.path).iter().map(|one| one.event().to_owned()).collect();
    let mut events = vec![keyed, named, late];
    received.sort();
    events.sort();
    assert_eq!(received, events, "each of them once");
}
