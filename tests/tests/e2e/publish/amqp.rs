//! Publishing over AMQP: valid messages, and messages that cannot be read. A publisher gets no error here, so each
//! unreadable message must be parked with a reason.

use std::{collections::BTreeMap, time::Duration};

use fanfare_tests::{
    clients::{
        api::Client,
        raw_amqp::{BytePublisher, Message, header, nested_header},
    },
    metrics::{counted, metric},
    patience::{until, until_within},
    receiver::signature::is_signed,
    world::{
        World,
        process::{Process, fanfare, try_fanfare},
    },
};
use serde_json::{Value, json};

/// The default of `FANFARE_MAX_EVENT_BYTES`.
const MAX_EVENT_BYTES: usize = 256 * 1024;

/// Kept bytes of a body of more than 1 MiB.
const KEPT: usize = 64 * 1024;

#[tokio::test]
async fn the_documented_message_is_delivered() {
    let world = World::shared().await;
    let endpoint = world.endpoint("all", &["*"]).await;
    let broker = world.broker().await;
    let routing_key = format!("{}.order.created", world.application);
    let full = json!({ "type": "order.created", "data": { "n": 1 }, "id": "full", "time": "2026-06-18T12:00:00Z" });
    for (id, body) in [("full", full.to_string()), ("least", r#"{"data":{"n":2}}"#.to_owned())] {
        assert!(broker.publish(&routing_key, Some(id), &[], body).await.expect("the broker"), "{id} is confirmed");
    }
    let mut received = world.receiver.wait_for(&endpoint.path, 2).await;
    received.sort_by_key(|request| request.body.clone());
    for (request, number) in received.iter().zip(1..) {
        assert!(is_signed(request, &endpoint.secret), "{request:?}");
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        assert_eq!((&body["event"], &body["data"]), (&json!("order.created"), &json!({ "n": number })));
    }
    assert_ne!(received[0].event(), received[1].event());
}

/// An unreadable message with the expected reason code.
struct Bad {
    name: &'static str,
    routing_key: String,
    message_id: Option<String>,
    body: Vec<u8>,
    reason: &'static str,
}

/// A message for each kind of fault, addressed to an application.
fn bad_messages(application: &str) -> Vec<Bad> {
    let key = format!("{application}.a");
    let good = r#"{"type":"a","data":1}"#;
    let deep = format!(r#"{{"data":{}1{}}}"#, "[".repeat(100), "]".repeat(100));
    let large = format!(r#"{{"data":"{}"}}"#, "x".repeat(MAX_EVENT_BYTES));
    let huge = format!(r#"{{"data":"{}"}}"#, "x".repeat(4 * MAX_EVENT_BYTES));
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
    let by_body: [(_, &[u8], _); 17] = [
        ("no bytes", b"", "malformed_json"),
        ("no JSON", b"<event/>", "malformed_json"),
        ("no UTF-8", b"{\"data\":\"\xff\0\"}", "malformed_json"),
        ("a list", b"[]", "not_an_object"),
        ("too large", large.as_bytes(), "body_too_large"),
        ("far too large", huge.as_bytes(), "body_too_large"),
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
async fn invalid_messages_are_parked_unchanged_with_a_reason() {
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
        assert!(message.len() > 10, "{}: the parked message lacks an explanation: {message:?}", bad.name);
        assert_eq!(row.get::<_, Option<String>>("routing_key").as_ref(), Some(&bad.routing_key), "{}", bad.name);
        assert_eq!(row.get::<_, Option<String>>("message_id"), bad.message_id, "{}", bad.name);
        assert_eq!(row.get::<_, i32>("bytes"), i32::try_from(bad.body.len()).expect("a size"), "{}", bad.name);
        let kept = if bad.name == "far too large" { &bad.body[..KEPT] } else { &bad.body };
        assert_eq!(row.get::<_, Vec<u8>>("body"), kept, "{}: the body has changed", bad.name);
    }
    assert_each_is_counted(&dispatcher, &messages).await;
    for queue in ["events", "parked", "unrouted"] {
        until(&format!("the queue {queue} to be empty"), async || {
            (broker.depth(queue).await.expect("the queue") == 0).then_some(())
        })
        .await;
    }
    assert_eq!(world.receiver.received(&endpoint.path).len(), 1, "only the readable message is an event");
    assert_eq!(world.count("SELECT count(*) FROM events").await, 1);
}

/// The parked messages with their reasons, by the header `name`. Waits until `count` messages are parked.
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

async fn assert_each_is_counted(dispatcher: &Process, messages: &[Bad]) {
    let mut reasons: BTreeMap<&str, usize> = BTreeMap::new();
    for bad in messages {
        *reasons.entry(bad.reason).or_default() += 1;
    }
    for (reason, count) in reasons {
        let series = format!("fanfare_parked_total{{reason=\"{reason}\"}}");
        assert_eq!(metric(dispatcher, &series).await as usize, count, "{series}");
    }
}

/// Services may publish as soon as an application exists. No message may be parked because a dispatcher has not loaded
/// the application yet.
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
async fn a_key_is_one_event_over_both_entrances() {
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
        world.receiver.received(&endpoint.path).iter().map(|request| request.event().to_owned()).collect();
    let mut events = vec![keyed, named, late];
    received.sort();
    events.sort();
    assert_eq!(received, events, "each event exactly once");
}

/// Time limit for parking a message that is not UTF-8.
const SOON: Duration = Duration::from_secs(5);

/// A message that becomes an event.
fn sound(world: &World) -> Message {
    Message {
        exchange: format!("{}.events", world.variables["FANFARE_PREFIX"]),
        routing_key: format!("{}.a", world.application).into_bytes(),
        message_id: Some(b"sound".to_vec()),
        body: b"{\"data\":1}".to_vec(),
        ..Message::default()
    }
}

/// Messages with a single Latin-1 part each, and the name of the part.
fn latin_1(world: &World) -> Vec<(&'static str, Message)> {
    let latin_1 = || Some(b"caf\xe9-1".to_vec());
    let sound = sound(world);
    let routing_key = [&sound.routing_key[..], b"\xe9"].concat();
    let to_queue = |queue: &str| {
        let routing_key = format!("{}.{queue}", world.variables["FANFARE_PREFIX"]).into_bytes();
        Message { exchange: String::new(), routing_key, message_id: latin_1(), ..sound.clone() }
    };
    vec![
        ("the property message_id", Message { message_id: latin_1(), ..sound.clone() }),
        ("the name of a header", Message { headers: header(b"caf\xe9-1", "1"), ..sound.clone() }),
        ("the routing key", Message { routing_key, ..sound.clone() }),
        ("the property app_id", Message { app_id: latin_1(), ..sound.clone() }),
        ("the property type", Message { kind: latin_1(), ..sound.clone() }),
        ("the property message_id", to_queue("parked")),
        ("the property message_id", to_queue("deliveries")),
    ]
}

/// Waits until exactly `count` messages are parked.
async fn parked_soon(world: &World, count: usize) {
    until_within(SOON, &format!("{count} parked messages"), async || {
        (world.count("SELECT count(*) FROM parked").await == count as i64).then_some(())
    })
    .await;
}

/// A publisher that writes Latin-1 into short strings delays no event of other publishers.
#[tokio::test]
async fn non_utf8_messages_are_parked_at_once_and_delay_no_others() {
    const BURST: usize = 100;
    let world = World::new().await;
    let endpoint = world.endpoint("all", &["*"]).await;
    let dispatcher = world.dispatcher().await;
    let broker = world.broker().await;
    let mut publisher = BytePublisher::connect(&world.variables["AMQP_URL"]).await.expect("a connection");
    let messages = latin_1(&world);
    let key = format!("{}.healthy", world.application);
    let (end, mut ended) = tokio::sync::oneshot::channel();
    let healthy = async {
        let mut count = 0;
        while ended.try_recv().is_err() {
            let id = format!("healthy-{count}");
            assert!(broker.publish(&key, Some(&id), &[], r#"{"data":1}"#).await.expect("the broker"));
            count += 1;
            // The pace of the load.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        count
    };
    let malformed = async {
        for (number, (part, message)) in messages.iter().enumerate() {
            publisher.publish(message).await.expect(part);
            parked_soon(&world, number + 1).await;
            // The pace of malformed messages: healthy events must flow between two of them.
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
        for _ in 0..BURST {
            publisher.publish(&messages[0].1).await.expect("the broker");
        }
        parked_soon(&world, messages.len() + BURST).await;
        end.send(()).expect("the healthy publisher waits");
    };
    let (count, ()) = tokio::join!(healthy, malformed);

    world.receiver.wait_for(&endpoint.path, count).await;
    assert_eq!(world.count("SELECT count(*) FROM events").await, count as i64, "only the healthy messages are events");
    assert_are_told(&world, &messages, BURST).await;
    let consumed = dispatcher.logs().iter().filter(|log| log["message"] == "consuming from the broker").count();
    assert_eq!(consumed, 9, "each queue is consumed once: no connection was lost");
    let series = "fanfare_parked_total{reason=\"not_utf8\"}";
    assert_eq!(
        metric(&dispatcher, series).await as usize,
        messages.len() - 1 + BURST,
        "all but the message that the test published to the parked queue"
    );
}

/// Checks that each parked message names its faulty part and keeps its body.
async fn assert_are_told(world: &World, messages: &[(&str, Message)], more: usize) {
    let rows =
        world.database().await.query("SELECT * FROM parked ORDER BY id", &[]).await.expect("the parked messages");
    let parts = messages.iter().chain(std::iter::repeat_n(&messages[0], more));
    for (row, (part, message)) in rows.iter().zip(parts) {
        assert_eq!(row.get::<_, &str>("reason"), "not_utf8", "{part}");
        let text: &str = row.get("message");
        assert!(text.starts_with(part), "{part}: {text}");
        assert_eq!(row.get::<_, Vec<u8>>("body"), message.body, "{part}: the body has changed");
    }
}

/// A message parked as not UTF-8 becomes an event only under a corrected key, never under the replaced bytes.
#[tokio::test]
async fn a_non_utf8_message_is_put_back_only_under_a_corrected_key() {
    let world = World::new().await;
    let endpoint = world.endpoint("all", &["*"]).await;
    let _dispatcher = world.dispatcher().await;
    let admin = world.client().with_key(&world.create_key(&["--role", "admin"]));
    let mut publisher = BytePublisher::connect(&world.variables["AMQP_URL"]).await.expect("a connection");
    for (number, (part, message)) in latin_1(&world).iter().take(3).enumerate() {
        publisher.publish(message).await.expect(part);
        parked_soon(&world, number + 1).await;
    }
    let [key, header, id] = three_parked(&admin).await;
    for parked_id in [&key, &id] {
        let refused = admin.post(&format!("parked/{parked_id}/put-back"), &json!({})).await;
        assert_eq!((refused.status, refused.code()), (422, "invalid_field"), "{}", refused.body);
        let (_, complaint) = try_fanfare(&world.variables, &["parked", "put-back", parked_id]);
        assert!(complaint.is_some_and(|complaint| complaint.contains("is not UTF-8")));
    }
    // Among many, such a message stays parked, and the request tells the reason.
    let many = admin.post("parked/put-back", &json!({ "ids": [key, id] })).await;
    assert_eq!((many.status, &many.data()["handled"]), (200, &json!([])), "{}", many.body);
    let refused: Vec<&str> =
        many.data()["refused"].as_array().into_iter().flatten().filter_map(|one| one["id"].as_str()).collect();
    assert!(refused.len() == 2 && refused.contains(&key.as_str()) && refused.contains(&id.as_str()), "{}", many.body);
    parked_soon(&world, 3).await;
    let routing_key = format!("{}.a", world.application);
    for (parked_id, edit) in [
        (key, json!({ "routing_key": routing_key, "message_id": "key" })),
        (header, json!({ "message_id": "header" })),
        (id, json!({ "message_id": "id" })),
    ] {
        let answer = admin.post(&format!("parked/{parked_id}/put-back"), &edit).await;
        assert_eq!(answer.status, 200, "{}", answer.body);
    }
    world.receiver.wait_for(&endpoint.path, 3).await;
    parked_soon(&world, 0).await;
}

/// The dispatcher's AMQP library decodes headers recursively: without a depth limit, a single message ended every
/// dispatcher that consumed the message.
#[tokio::test]
async fn headers_nested_deeply_end_no_dispatcher() {
    let world = World::new().await;
    let endpoint = world.endpoint("deep", &["*"]).await;
    let dispatcher = world.dispatcher().await;
    let mut publisher = BytePublisher::connect(&world.variables["AMQP_URL"]).await.expect("a connection");
    // Ten levels are kept. 20,000 levels of five bytes nearly fill a frame.
    for (number, depth) in [10, 1_500, 20_000].into_iter().enumerate() {
        let message_id = Some(depth.to_string().into_bytes());
        let read = Message { headers: nested_header(depth), message_id, ..sound(&world) };
        publisher.publish(&read).await.expect("the broker");
        world.receiver.wait_for(&endpoint.path, number + 1).await;
        // Parking copies the headers.
        publisher.publish(&Message { routing_key: b"nonsense".to_vec(), ..read }).await.expect("the broker");
        parked_soon(&world, number + 1).await;
    }
    let query = "SELECT count(*) FROM parked WHERE headers LIKE '%\"deep\":[[[[[[[[[[]]]]]]]]]]%'";
    assert_eq!(world.count(query).await, 1);
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, 0);
}

/// The ids of exactly three parked messages, newest first.
async fn three_parked(admin: &Client) -> [String; 3] {
    let answer = admin.get("parked").await;
    let ids: Vec<String> = answer.data().as_array().expect("a list").iter().map(id).collect();
    ids.try_into().expect("three")
}

fn id(parked: &Value) -> String {
    parked["id"].as_str().expect("an id").to_owned()
}
