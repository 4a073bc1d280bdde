//! Publishing over HTTP: `POST /api/v1/events` and `/api/v1/events/batch`, and the error of each refusal. Clients act
//! on `code` and `field`, so both are part of the contract.

use fanfare_tests::{
    clients::api::{Answer, Client},
    metrics::{counted, metric},
    world::{
        World,
        process::{fanfare, get},
    },
};
use hyper::Method;
use serde_json::{Value, json};

const JSON: (&str, &str) = ("content-type", "application/json");

/// The default of `FANFARE_MAX_EVENT_BYTES`.
const MAX_EVENT_BYTES: usize = 256 * 1024;

/// Maximal nesting of an event, including the event object.
const MAX_DEPTH: usize = 100;

type Headers<'a> = &'a [(&'a str, &'a str)];

/// An expected refusal: status, code, and the field if the error names a field.
type Refusal = (u16, &'static str, &'static str);

fn assert_refused(what: &str, answer: &Answer, refusal: Refusal) {
    assert_eq!((answer.status, answer.code(), answer.field()), refusal, "{what}: {}", answer.body);
    assert_eq!(answer.body["success"], false, "{what}");
    assert_ne!(answer.body["error"]["message"].as_str().unwrap_or_default(), "", "{what}: the error has no message");
}

async fn publish(client: &Client, headers: Headers<'_>, body: impl Into<Vec<u8>>) -> Answer {
    client.send(Method::POST, "events", headers, body.into()).await.expect("an answer")
}

/// An event with `levels` levels of nesting.
fn nested(levels: usize) -> String {
    let (open, close) = ("[".repeat(levels - 1), "]".repeat(levels - 1));
    format!(r#"{{"type":"a","data":{open}1{close}}}"#)
}

/// An event of exactly `bytes` bytes.
fn sized(bytes: usize) -> String {
    let empty = r#"{"type":"a","data":""}"#;
    format!(r#"{{"type":"a","data":"{}"}}"#, "x".repeat(bytes - empty.len()))
}

#[tokio::test]
async fn an_event_that_cannot_be_taken_is_refused_with_code_and_field() {
    let world = World::new().await;
    let text = |text: &str| text.as_bytes().to_vec();
    let with_type = |name: &str| json!({ "type": name, "data": 1 }).to_string().into_bytes();
    let with_id = |id: &str| json!({ "type": "a", "data": 1, "id": id }).to_string().into_bytes();
    let cases: Vec<(&str, Vec<u8>, Refusal)> = vec![
        ("nothing", text(""), (400, "malformed_json", "")),
        ("half an object", text(r#"{"type":"a","data":{}"#), (400, "malformed_json", "")),
        ("two objects", text(r#"{"type":"a","data":1}{}"#), (400, "malformed_json", "")),
        ("no UTF-8", b"{\"type\":\"a\",\"data\":\"\xff\"}".to_vec(), (400, "malformed_json", "")),
        ("a byte order mark", text("\u{feff}{\"type\":\"a\",\"data\":1}"), (400, "malformed_json", "")),
        ("a list", text("[]"), (400, "not_an_object", "")),
        ("null", text("null"), (400, "not_an_object", "")),
        ("too deep", text(&nested(MAX_DEPTH + 1)), (400, "too_deep", "")),
        ("deep enough to end a recursive reader", text(&nested(100_000)), (400, "too_deep", "")),
        ("an infinite number", text(r#"{"type":"a","data":1e309}"#), (422, "infinite_number", "")),
        ("no type", text(r#"{"data":1}"#), (422, "missing_field", "type")),
        ("no data", text(r#"{"type":"a"}"#), (422, "missing_field", "data")),
        ("a misspelt field", text(r#"{"type":"a","data":1,"tiem":"x"}"#), (422, "unknown_field", "tiem")),
        ("data twice", text(r#"{"type":"a","data":1,"data":2}"#), (422, "duplicate_field", "data")),
        ("id twice", text(r#"{"id":"x","type":"a","data":1,"id":"y"}"#), (422, "duplicate_field", "id")),
        (
            "type twice, once escaped",
            text(r#"{"type":"a","data":1,"\u0074ype":"a"}"#),
            (422, "duplicate_field", "type"),
        ),
        ("type a number", text(r#"{"type":5,"data":1}"#), (422, "wrong_type", "type")),
        ("type null", text(r#"{"type":null,"data":1}"#), (422, "wrong_type", "type")),
        ("type empty", with_type(""), (422, "invalid_field", "type")),
        ("type with a space", with_type("a b"), (422, "invalid_field", "type")),
        ("type with a wildcard", with_type("order.*"), (422, "invalid_field", "type")),
        ("type that starts with a dot", with_type(".a"), (422, "invalid_field", "type")),
        ("type that ends with a dot", with_type("a."), (422, "invalid_field", "type")),
        ("type beyond ASCII", with_type("bestellung.geändert"), (422, "invalid_field", "type")),
        ("type too long", with_type(&"a".repeat(129)), (422, "field_too_long", "type")),
        ("id a number", text(r#"{"type":"a","data":1,"id":7}"#), (422, "wrong_type", "id")),
        ("id empty", with_id(""), (422, "invalid_field", "id")),
        ("id with a control character", with_id("a\0b"), (422, "invalid_field", "id")),
        ("id with half a character", text(r#"{"type":"a","data":1,"id":"\ud800"}"#), (422, "invalid_field", "id")),
        ("id too long", with_id(&"a".repeat(256)), (422, "field_too_long", "id")),
        ("time a number", text(r#"{"type":"a","data":1,"time":1750000000}"#), (422, "wrong_type", "time")),
        ("time in words", text(r#"{"type":"a","data":1,"time":"yesterday"}"#), (422, "invalid_field", "time")),
        (
            "time without offset",
            text(r#"{"type":"a","data":1,"time":"2026-06-18T12:00:00"}"#),
            (422, "invalid_field", "time"),
        ),
        (
            "time that is none",
            text(r#"{"type":"a","data":1,"time":"2026-02-30T12:00:00Z"}"#),
            (422, "invalid_field", "time"),
        ),
    ];
    for (what, body, refusal) in &cases {
        assert_refused(what, &publish(world.client(), &[JSON], body.clone()).await, *refusal);
    }
    let invalid = metric(world.ingest(), r#"fanfare_published_total{result="invalid"}"#).await;
    assert_eq!(invalid as usize, cases.len(), "a refusal is not counted");
}

#[tokio::test]
async fn the_limits_themselves_are_taken() {
    let world = World::shared().await;
    let longest =
        json!({ "type": "a".repeat(128), "data": null, "id": "ä".repeat(127), "time": "2026-06-18T14:00:00.5+02:00" });
    for (what, body) in [
        ("the longest fields", longest.to_string()),
        ("the deepest data", nested(MAX_DEPTH)),
        ("the largest body", sized(MAX_EVENT_BYTES)),
        ("the largest number", r#"{"type":"a","data":-1.7976931348623157e308}"#.to_owned()),
    ] {
        let answer = publish(world.client(), &[("content-type", "Application/JSON; charset=utf-8")], body).await;
        assert_eq!(answer.status, 202, "{what}: {}", answer.body);
    }
}

#[tokio::test]
async fn a_request_of_the_wrong_form_is_refused() {
    let world = World::shared().await;
    let good = r#"{"type":"a","data":1}"#;
    let large = sized(MAX_EVENT_BYTES + 1);
    let long = "k".repeat(256);
    let chunked = ("transfer-encoding", "chunked");
    let cases: [(&str, Headers<'_>, &str, Refusal); 10] = [
        ("no content type", &[], good, (415, "unsupported_content_type", "")),
        ("text", &[("content-type", "text/plain")], good, (415, "unsupported_content_type", "")),
        (
            "a form",
            &[("content-type", "application/x-www-form-urlencoded")],
            good,
            (415, "unsupported_content_type", ""),
        ),
        ("too large", &[JSON], &large, (413, "body_too_large", "")),
        ("too large, and its size not announced", &[JSON, chunked], &large, (413, "body_too_large", "")),
        ("an empty Idempotency-Key", &[JSON, ("idempotency-key", "")], good, (422, "invalid_field", "Idempotency-Key")),
        (
            "a long Idempotency-Key",
            &[JSON, ("idempotency-key", &long)],
            good,
            (422, "field_too_long", "Idempotency-Key"),
        ),
        ("a delivery of a webhook", &[JSON, ("webhook-id", "dlv_1")], good, (422, "invalid_field", "webhook-id")),
        ("a key beyond ASCII", &[JSON, ("idempotency-key", "ä")], good, (422, "invalid_field", "Idempotency-Key")),
        (
            "two ids",
            &[JSON, ("idempotency-key", "y")],
            r#"{"type":"a","data":1,"id":"x"}"#,
            (422, "invalid_field", "id"),
        ),
    ];
    for (what, headers, body, refusal) in cases {
        assert_refused(what, &publish(world.client(), headers, body).await, refusal);
    }
    let route = |method: Method, path: &'static str| world.client().send(method, path, &[JSON], good);
    let answer = route(Method::POST, "event").await.expect("an answer");
    assert_refused("an unknown route", &answer, (404, "not_found", "route"));
    for method in [Method::PUT, Method::DELETE, Method::PATCH] {
        let answer = route(method.clone(), "events").await.expect("an answer");
        assert_refused(method.as_str(), &answer, (405, "method_not_allowed", ""));
    }
    let outside = get(world.ingest().address("serving the API").await, "events").await.expect("an answer");
    assert!(outside.contains(r#""code":"not_found""#), "outside of /api/v1: {outside}");
}

#[tokio::test]
async fn a_key_permits_only_its_role() {
    let world = World::shared().await;
    let other = fanfare(&world.variables, &["app", "create", "other"]);
    let admin = world.admin().await;
    let publisher = world.client_of(&["--role", "publish", "--application", &world.application]).await;
    let event = json!({ "type": "a", "data": 1 });
    let at = |application: &str| format!("events?application={application}");
    let no_application = "app_00000000000000000000000000";

    for (what, client, path, refusal) in [
        ("no key", &world.client().with_key(""), "events".to_owned(), (401, "missing_key", "")),
        ("no key of ours", &world.client().with_key("secret"), "events".to_owned(), (401, "invalid_key", "")),
        ("a forged key", &world.client().with_key(&forged(&world.key)), "events".to_owned(), (401, "invalid_key", "")),
        ("a key of another application", world.client(), at(&other), (403, "forbidden", "application")),
        ("no application's id", world.client(), at("mine"), (422, "invalid_field", "application")),
        ("an admin who names none", &admin, "events".to_owned(), (400, "missing_application", "application")),
        ("an admin who names no real one", &admin, at(no_application), (404, "not_found", "application")),
        ("a publisher who manages", &publisher, "webhooks".to_owned(), (403, "forbidden", "")),
        ("a manager who administers", world.client(), "applications".to_owned(), (403, "forbidden", "")),
    ] {
        assert_refused(what, &client.post(&path, &event).await, refusal);
    }
    let basic = [JSON, ("authorization", "Basic dXNlcjpwYXNzd29yZA==")];
    let answer = publish(&world.client().with_key(""), &basic, event.to_string()).await;
    assert_refused("another scheme", &answer, (401, "missing_key", ""));

    for (what, client, path) in [
        ("a publisher", &publisher, "events".to_owned()),
        ("a manager who names the own one", world.client(), at(&world.application)),
        ("an admin who names one", &admin, at(&other)),
    ] {
        let answer = client.post(&path, &event).await;
        assert_eq!(answer.status, 202, "{what}: {}", answer.body);
    }
}

/// A key with the same id and another secret.
fn forged(key: &str) -> String {
    let (id, secret) = key.rsplit_once('_').expect("a key has parts");
    format!("{id}_{}", secret.chars().rev().collect::<String>())
}

/// A refused query has an error body like all other errors.
#[tokio::test]
async fn a_query_that_cannot_be_read_is_an_error_like_any_other() {
    let world = World::shared().await;
    let twice = format!("application={0}&application={0}", world.application);
    for path in [format!("events?{twice}"), format!("events/batch?{twice}"), "events?application=%ff".to_owned()] {
        let answer = world.client().post(&path, &json!({ "type": "a", "data": 1 })).await;
        assert!((400..500).contains(&answer.status), "{path}: {}", answer.status);
        assert_ne!(answer.code(), "", "{path}: {} without an error in it", answer.status);
    }
}

#[tokio::test]
async fn the_same_key_is_the_same_event_and_delivered_once() {
    let world = World::new().await;
    let endpoint = world.endpoint("once", &["*"]).await;
    let dispatcher = world.dispatcher().await;
    let first = publish(world.client(), &[JSON], r#"{"type":"a","data":1,"id":"order-1"}"#).await;
    let id = first.data()["id"].as_str().expect("an id").to_owned();
    assert_eq!(first.status, 202);
    assert_eq!(first.body, json!({ "success": true, "data": { "id": id } }), "the answer has other members");
    assert!(id.len() == 30 && id.starts_with("evt_"), "{id}");

    let key = ("idempotency-key", "order-1");
    for (what, headers, body) in [
        ("the same once more", vec![JSON], r#"{"type":"a","data":1,"id":"order-1"}"#),
        ("by the header", vec![JSON, key], r#"{"type":"a","data":1}"#),
        ("by both", vec![JSON, key], r#"{"type":"a","data":1,"id":"order-1"}"#),
        ("with other data", vec![JSON], r#"{"type":"b","data":2,"id":"order-1"}"#),
    ] {
        let again = publish(world.client(), &headers, body).await;
        assert_eq!((again.status, again.data()["id"].as_str()), (202, Some(id.as_str())), "{what}");
    }
    counted(&dispatcher, r#"fanfare_events_total{result="known"}"#, 4).await;
    world.wait_for_deliveries("state=delivered", 1).await;
    let received = world.receiver.received(&endpoint.path);
    assert_eq!(received.iter().map(|request| request.event()).collect::<Vec<_>>(), [id]);
}

/// Keys are scoped to an application: another application's event with the same key is another event.
#[tokio::test]
async fn applications_do_not_share_keys() {
    let world = World::shared().await;
    let other = fanfare(&world.variables, &["app", "create", "other"]);
    let client = world.client_of(&["--role", "manage", "--application", &other]).await;
    world.endpoint("first", &["*"]).await;
    let url = world.receiver.url("second");
    assert_eq!(client.post("webhooks", &json!({ "url": url, "events": ["*"] })).await.status, 201);

    let own_id = world.publish(&json!({ "type": "a", "data": 1 })).await;
    world.receiver.wait_for("first", 1).await;
    for (number, id) in ["order-1", own_id.as_str()].into_iter().enumerate() {
        let event = json!({ "type": "a", "data": number, "id": id });
        world.publish(&event).await;
        assert_eq!(client.post("events", &event).await.status, 202);
        world.receiver.wait_for("second", number + 1).await;
    }
}

#[tokio::test]
async fn each_event_of_a_batch_is_answered_for_itself() {
    let world = World::shared().await;
    let endpoint = world.endpoint("batch", &["*"]).await;
    let batch = json!([
        { "type": "first", "data": 1 },
        { "type": "a b", "data": 1 },
        { "type": "a", "data": 1, "id": "twice" },
        "no event",
        { "type": "a", "data": 1, "id": "twice" },
        { "type": "a", "data": "x".repeat(MAX_EVENT_BYTES) },
        { "type": "last", "data": 1 },
    ]);
    let answer = world.client().post("events/batch", &batch).await;
    assert_eq!(answer.status, 207, "the status must show that some events failed");
    let answers = answer.data().as_array().expect("a list");
    assert_eq!(answers.len(), 7);
    let refused: Vec<_> = answers.iter().map(|answer| refusal_in_batch(answer).unwrap_or_default()).collect();
    let none = (String::new(), String::new());
    let refusal = |code: &str, field: &str| (code.to_owned(), field.to_owned());
    let expected = [
        none.clone(),
        refusal("invalid_field", "type"),
        none.clone(),
        refusal("not_an_object", ""),
        none.clone(),
        refusal("body_too_large", ""),
        none,
    ];
    assert_eq!(refused, expected);
    assert_eq!(answers[2], answers[4], "two events with the same id got different answers");

    world.wait_for_deliveries("state=delivered", 3).await;
    let mut received: Vec<_> =
        world.receiver.received(&endpoint.path).iter().map(|request| request.event().to_owned()).collect();
    let mut taken = [0, 2, 6].map(|at| answers[at]["data"]["id"].as_str().expect("an id").to_owned());
    received.sort();
    taken.sort();
    assert_eq!(received, taken);
}

/// Code and field of a refused event in a batch; `None` for an accepted event.
fn refusal_in_batch(answer: &Value) -> Option<(String, String)> {
    let error = answer.get("error")?;
    assert_eq!(answer["success"], false);
    let text = |name: &str| error[name].as_str().unwrap_or_default().to_owned();
    Some((text("code"), text("field")))
}

#[tokio::test]
async fn a_batch_has_limits_of_its_own() {
    let world = World::shared().await;
    let event = json!({ "type": "a", "data": 1 });
    let events = |count: usize| json!(vec![event.clone(); count]);
    let large = json!(vec![json!({ "type": "a", "data": "x".repeat(MAX_EVENT_BYTES - 100) }); 17]);
    for (what, batch, refusal) in [
        ("no list", event.clone(), (400, "malformed_json", "")),
        ("none", events(0), (422, "invalid_batch", "")),
        ("too many", events(1001), (422, "invalid_batch", "")),
        ("too large", large, (413, "body_too_large", "")),
    ] {
        assert_refused(what, &world.client().post("events/batch", &batch).await, refusal);
    }
    let answer = world.client().with_key("").post("events/batch", &events(1)).await;
    assert_refused("no key", &answer, (401, "missing_key", ""));

    let answer = world.client().post("events/batch", &events(1000)).await;
    assert_eq!(answer.status, 202, "{}", answer.body["error"]);
    let ids: std::collections::HashSet<_> =
        answer.data().as_array().expect("a list").iter().map(|accepted| accepted["data"]["id"].to_string()).collect();
    assert_eq!(ids.len(), 1000, "two events have the same id");
}
