//! CloudEvents over HTTP and AMQP, in all modes: published and read with the official SDKs of npm and PyPI.

use std::{fmt::Write, process::Stdio};

use base64::{Engine, engine::general_purpose::STANDARD};
use fanfare_tests::{
    clients::{api::Answer, node::program, python::python},
    patience::until,
    receiver::Received,
    world::{Endpoint, World},
};
use hyper::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{io::AsyncWriteExt, process::Command};

use super::programs::speaks_amqp_1;

/// The default of `FANFARE_MAX_EVENT_BYTES`.
const MAX_EVENT_BYTES: usize = 256 * 1024;

const TYPE: &str = "com.example.order.created";
const STRUCTURED: (&str, &str) = ("content-type", "application/cloudevents+json");
const JSON: (&str, &str) = ("content-type", "application/json");

/// A CloudEvent with every attribute.
fn event(id: &str) -> Value {
    // RabbitMQ cuts the timestamps of AMQP 1.0 to seconds.
    let time = if id.contains("amqp1") { "2026-06-18T12:00:00.000Z" } else { "2026-06-18T12:00:00.500Z" };
    json!({
        "specversion": "1.0", "id": id, "source": "https://example.com/shops?a=b", "type": TYPE, "subject": "orders/1001",
        "time": time, "datacontenttype": "application/json", "region": "eu",
        "dataschema": "https://example.com/order.json", "data": { "order": 1001, "text": "Größe" },
    })
}

/// The least CloudEvent, with further members.
fn least(id: &str, more: Value) -> Value {
    let mut event = json!({ "specversion": "1.0", "id": id, "source": "/shop", "type": TYPE });
    let Value::Object(more) = more else { panic!("members") };
    event.as_object_mut().expect("an object").extend(more);
    event
}

/// An application of the dialect with a webhook for all events.
async fn world() -> (World, Endpoint) {
    let world = World::shared_of_dialect("cloudevents").await;
    let endpoint = world.endpoint("all", &["*"]).await;
    (world, endpoint)
}

/// The programs with the official SDKs, with the arguments for a world.
async fn sdks(world: &World) -> [(&'static str, Command); 2] {
    let url = format!("http://{}/api/v1/events", world.client().address());
    let exchange = format!("{}.events", world.variables["FANFARE_PREFIX"]);
    let arguments = [&url, &world.key, &world.variables["AMQP_URL"], &exchange, &world.application];
    let mut programs = [("npm", program("cloudevents.mjs")), ("PyPI", python("cloud_events.py").await)];
    for (_, program) in &mut programs {
        program.args(arguments);
    }
    programs
}

/// Runs a program with commands. Returns the answers.
async fn run(command: &mut Command, commands: &[Value]) -> Vec<Value> {
    let input = commands.iter().fold(String::new(), |mut input, command| {
        writeln!(input, "{command}").expect("writing to a String");
        input
    });
    let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("the program starts");
    let mut stdin = child.stdin.take().expect("a piped standard input");
    let writer = tokio::spawn(async move { stdin.write_all(input.as_bytes()).await });
    let output = child.wait_with_output().await.expect("the program ends");
    assert!(output.status.success(), "{command:?}");
    writer.await.expect("the writer ends").expect("the program reads all of the input");
    let printed = String::from_utf8(output.stdout).expect("UTF-8");
    printed.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect()
}

/// The deliveries as both SDKs read them, after verification. Checks that both read the same.
async fn read_with_sdks(world: &World, endpoint: &Endpoint, received: &[Received]) -> Vec<Value> {
    let read = |request: &Received| {
        let body = STANDARD.encode(&request.body);
        json!({ "read": { "secret": endpoint.secret, "headers": request.headers, "body": body } })
    };
    let commands: Vec<Value> = received.iter().map(read).collect();
    let [(_, mut npm), (_, mut pypi)] = sdks(world).await;
    let (npm, pypi) = tokio::join!(run(&mut npm, &commands), run(&mut pypi, &commands));
    let normal = |mut event: Value| {
        let time = event["time"].as_str().and_then(|time| time.parse::<Timestamp>().ok()).expect("a time");
        event["time"] = json!(format!("{time:.3}"));
        // The SDK of PyPI writes no data for null.
        event.as_object_mut().expect("an object").retain(|_, value| !value.is_null());
        event
    };
    let (npm, pypi): (Vec<Value>, Vec<Value>) =
        (npm.into_iter().map(normal).collect(), pypi.into_iter().map(normal).collect());
    assert_eq!(npm, pypi);
    assert_eq!(npm.len(), received.len());
    npm
}

async fn post(world: &World, path: &str, headers: &[(&str, &str)], body: impl Into<bytes::Bytes>) -> Answer {
    world.client().send(Method::POST, path, headers, body).await.expect("an answer")
}

/// Publishes a structured CloudEvent. Returns the event id.
async fn publish(world: &World, event: &Value) -> String {
    let answer = post(world, "events", &[STRUCTURED], event.to_string()).await;
    assert_eq!(answer.status, 202, "{}", answer.body);
    answer.data()["id"].as_str().expect("an id").to_owned()
}

/// The commands of an SDK that publish an event in each mode, with the ids of the events.
fn commands(sdk: &str, with_amqp_1: bool) -> (Vec<Value>, Vec<String>) {
    let of = |sdk: &str, over: &str, mode: &str| {
        let id = format!("{sdk} {over} {mode}");
        (json!({ "publish": event(&id), "over": over, "mode": mode }), id)
    };
    let bindings: &[&str] = match sdk {
        "npm" if with_amqp_1 => &["http", "amqp", "amqp1"],
        "npm" => &["http", "amqp"],
        _ => &["http", "amqp", "rabbitmq"],
    };
    let (mut commands, mut ids): (Vec<Value>, Vec<String>) =
        bindings.iter().flat_map(|over| ["structured", "binary"].map(|mode| of(sdk, over, mode))).unzip();
    let batch = [format!("{sdk} batch 1"), format!("{sdk} batch 2")];
    commands.push(json!({ "publish": batch.each_ref().map(|id| event(id)), "over": "http", "mode": "batch" }));
    ids.extend(batch);
    if sdk == "npm" {
        ids.push("npm with the other prefix".to_owned());
        let event = event(ids.last().expect("an id"));
        commands.push(json!({ "publish": event, "over": "amqp", "mode": "binary", "prefix": "cloudEvents_" }));
    }
    (commands, ids)
}

#[tokio::test]
async fn events_of_the_official_sdks_arrive_as_they_were_in_both_sdks() {
    let (world, endpoint) = world().await;
    let mut expected = Vec::new();
    let with_amqp_1 = speaks_amqp_1(&world).await;
    for (sdk, mut program) in sdks(&world).await {
        let (commands, ids) = commands(sdk, with_amqp_1);
        let answers = run(&mut program, &commands).await;
        assert_eq!(answers.len(), commands.len());
        for (command, answer) in commands.iter().zip(&answers) {
            assert!(answer["status"] == 202 || answer["confirmed"] == true, "{sdk}: {command}: {answer}");
        }
        expected.extend(ids);
    }
    let received = world.receiver.wait_for(&endpoint.path, expected.len()).await;
    let mut events = read_with_sdks(&world, &endpoint, &received).await;
    events.sort_by_key(|event| event["id"].to_string());
    expected.sort_by_key(|id| json!(id).to_string());
    assert_eq!(events, expected.iter().map(|id| event(id)).collect::<Vec<_>>());
    for request in &received {
        assert_eq!(request.header("content-type"), "application/cloudevents+json; charset=utf-8");
    }
    let keys = world.client().get("events?limit=100").await;
    let keys: Vec<&str> =
        keys.data().as_array().expect("events").iter().filter_map(|event| event["key"].as_str()).collect();
    assert!(keys.iter().all(|key| key.starts_with("https://example.com/shops?a=b ")), "{keys:?}");
}

#[tokio::test]
async fn all_values_and_other_events_are_readable_in_both_sdks() {
    let (world, endpoint) = world().await;
    let own = world.publish(&json!({ "type": "order.created", "data": { "n": 1 }, "id": "own" })).await;
    let typed = json!({ "flag": true, "number": -5, "unset": null, "datacontenttype": "text/plain", "data": "a" });
    publish(&world, &least("typed \"1\"", typed)).await;
    publish(&world, &least("without data", json!({}))).await;
    let [_, (_, mut pypi)] = sdks(&world).await;
    let mut text = event("encoded");
    text["subject"] = json!("Größe 7 \"100%\" 😀");
    let answers = run(&mut pypi, &[json!({ "publish": text, "over": "http", "mode": "binary" })]).await;
    assert_eq!(answers[0]["status"], 202, "{}", answers[0]);

    let received = world.receiver.wait_for(&endpoint.path, 4).await;
    let events = read_with_sdks(&world, &endpoint, &received).await;
    let found = |id: &str| events.iter().find(|event| event["id"] == id).unwrap_or_else(|| panic!("no {id}"));
    let native = found(&own);
    assert_eq!(native["source"], format!("/applications/{}", world.application));
    assert_eq!((&native["type"], &native["data"]), (&json!("order.created"), &json!({ "n": 1 })));
    let typed = found("typed \"1\"");
    assert_eq!((&typed["flag"], &typed["number"], &typed["data"]), (&json!(true), &json!(-5), &json!("a")));
    assert_eq!(found("encoded"), &text);
    found("without data");
    let raw = |id: &str| {
        let bodies = received.iter().map(|request| String::from_utf8_lossy(&request.body).into_owned());
        bodies.into_iter().find(|body| body.contains(id)).expect("a body")
    };
    assert!(raw("without data").ends_with("\"data\":null}"), "{}", raw("without data"));
    assert!(!raw("typed").contains("unset"), "{}", raw("typed"));
}

#[tokio::test]
async fn source_and_id_together_are_the_key() {
    let (world, endpoint) = world().await;
    let given = least("1", json!({ "data": 1 }));
    let first = publish(&world, &given).await;
    let mut later = given.clone();
    later["time"] = json!("2026-06-18T12:00:00Z");
    assert_eq!(publish(&world, &later).await, first, "a repeated event");
    let key = post(&world, "events", &[STRUCTURED, ("idempotency-key", "/shop 1")], given.to_string()).await;
    assert_eq!(key.data()["id"], first.as_str());
    let broker = world.broker().await;
    let routing_key = format!("{}.{TYPE}", world.application);
    for message_id in [None, Some("any"), Some("a\tb")] {
        assert!(broker.publish(&routing_key, message_id, &[], given.to_string()).await.expect("the broker"));
    }
    let mut other = given.clone();
    other["source"] = json!("/other");
    let second = publish(&world, &other).await;
    assert_ne!(first, second);

    world.receiver.wait_for(&endpoint.path, 2).await;
    // The queue is in order: a copy would have been delivered before the last event.
    let last = publish(&world, &least("last", json!({}))).await;
    let received = world.receiver.wait_for(&endpoint.path, 3).await;
    let mut events: Vec<&str> = received.iter().map(Received::event).collect();
    events.sort_unstable();
    let mut expected = [first.as_str(), second.as_str(), last.as_str()];
    expected.sort_unstable();
    assert_eq!(events, expected);
}

/// A request, and the refusal: status, code and field.
type Fault = (&'static str, Vec<(&'static str, &'static str)>, String, (u16, &'static str, &'static str));

const BATCH: (&str, &str) = ("content-type", "application/cloudevents-batch+json");
const XML: (&str, &str) = ("content-type", "application/cloudevents+xml");

fn structured_faults() -> Vec<Fault> {
    let unprocessable =
        |what, more: Value, code, field| (what, vec![STRUCTURED], least("1", more).to_string(), (422, code, field));
    let other = |what, headers, body: &str, refusal| (what, headers, body.to_owned(), refusal);
    let sound = least("1", json!({})).to_string();
    vec![
        unprocessable("another version", json!({ "specversion": "0.3" }), "invalid_field", "specversion"),
        unprocessable("no source", json!({ "source": null }), "missing_field", "source"),
        unprocessable("a source with a space", json!({ "source": "/my shop" }), "invalid_field", "source"),
        unprocessable("a type with a space", json!({ "type": "a b" }), "invalid_field", "type"),
        unprocessable("a long key", json!({ "id": "x".repeat(250) }), "field_too_long", "id"),
        unprocessable("a time without an offset", json!({ "time": "2026-06-18T12:00:00" }), "invalid_field", "time"),
        unprocessable("an invalid name", json!({ "myName": 1 }), "unknown_field", "myName"),
        unprocessable("an extension that is a list", json!({ "region": [] }), "wrong_type", "region"),
        unprocessable("bytes", json!({ "data_base64": "AA==" }), "unknown_field", "data_base64"),
        unprocessable("XML that is no text", json!({ "datacontenttype": "a/xml", "data": {} }), "wrong_type", "data"),
        other("another key", vec![STRUCTURED, ("idempotency-key", "2")], &sound, (422, "invalid_field", "id")),
        other("no version", vec![STRUCTURED], r#"{"type":"a","data":1}"#, (422, "missing_field", "specversion")),
        other("no JSON", vec![STRUCTURED], "{", (400, "malformed_json", "")),
        other("a fault in JSON", vec![JSON], r#"{"specversion":"1.0"}"#, (422, "missing_field", "id")),
        other("another format", vec![XML], "<a/>", (415, "unsupported_content_type", "")),
        other("a list", vec![BATCH], "[]", (415, "unsupported_content_type", "")),
    ]
}

fn binary_faults() -> Vec<Fault> {
    let required = [("ce-specversion", "1.0"), ("ce-id", "1"), ("ce-source", "/shop"), ("ce-type", TYPE)];
    let fault = |what, more: (&'static str, &'static str), body: &str, refusal| {
        let headers: Vec<_> = required.into_iter().chain([more]).collect();
        (what, headers, body.to_owned(), refusal)
    };
    let of_json = |what, more, refusal| {
        let (what, mut headers, body, refusal) = fault(what, more, "1", refusal);
        headers.push(JSON);
        (what, headers, body, refusal)
    };
    let without = |what, name, refusal| {
        let (what, mut headers, body, refusal) = fault(what, JSON, "1", refusal);
        headers.retain(|(other, _)| *other != name);
        (what, headers, body, refusal)
    };
    let large = "\u{1}".repeat(MAX_EVENT_BYTES / 5);
    vec![
        without("no version", "ce-specversion", (422, "missing_field", "specversion")),
        without("no type", "ce-type", (422, "missing_field", "type")),
        of_json("an invalid name", ("ce-my_name", "1"), (422, "unknown_field", "my_name")),
        of_json("a header twice", ("ce-id", "2"), (422, "duplicate_field", "id")),
        of_json("a lone %", ("ce-subject", "100%"), (422, "invalid_field", "subject")),
        of_json("two media types", ("ce-datacontenttype", "a/b"), (422, "invalid_field", "datacontenttype")),
        of_json("data in a header", ("ce-data", "1"), (422, "unknown_field", "data")),
        fault("no JSON", JSON, "<a/>", (400, "malformed_json", "data")),
        fault("large as JSON", ("content-type", "text/plain"), &large, (413, "body_too_large", "")),
    ]
}

#[tokio::test]
async fn each_fault_is_refused_with_its_attribute() {
    let (world, _) = world().await;
    for (what, headers, body, (status, code, field)) in structured_faults().into_iter().chain(binary_faults()) {
        let answer = post(&world, "events", &headers, body).await;
        assert_eq!((answer.status, answer.code(), answer.field()), (status, code, field), "{what}: {}", answer.body);
    }
    let headers = [("ce-specversion", "1.0"), ("ce-id", "1"), ("content-type", "image/png")];
    let png = post(&world, "events", &headers, b"\x89PNG".to_vec()).await;
    assert_eq!((png.code(), png.field()), ("invalid_field", "data"));
}

#[tokio::test]
async fn a_list_may_mix_both_forms_and_a_delivery_is_no_event() {
    let (world, endpoint) = world().await;
    // A list of CloudEvents has only CloudEvents; a list in JSON mixes both forms.
    let mixed = json!([least("mixed", json!({})), { "type": "order.created", "data": 1 }]).to_string();
    let answer = post(&world, "events/batch", &[BATCH], mixed.clone()).await;
    assert_eq!((answer.status, &answer.body["data"][1]["error"]["field"]), (207, &json!("specversion")));
    assert_eq!(post(&world, "events/batch", &[JSON], mixed).await.status, 202);
    assert_eq!(post(&world, "events/batch", &[STRUCTURED], "[]").await.status, 415);

    // A webhook of the dialect cannot feed itself.
    let received = world.receiver.wait_for(&endpoint.path, 2).await.remove(0);
    let headers = [STRUCTURED, ("webhook-id", received.header("webhook-id"))];
    let answer = post(&world, "events", &headers, received.body.clone()).await;
    assert_eq!((answer.status, answer.code(), answer.field()), (422, "invalid_field", "webhook-id"));
}

#[tokio::test]
async fn the_trace_context_of_attributes_is_adopted() {
    const OF_ATTRIBUTE: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
    const OF_HEADER: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let (world, endpoint) = world().await;
    world.change(&endpoint, &json!({ "trace_context": true })).await;
    let traced = |id: &str| least(id, json!({ "traceparent": OF_ATTRIBUTE, "tracestate": "vendor=1" }));
    publish(&world, &traced("http")).await;
    let headers = [STRUCTURED, ("traceparent", OF_HEADER)];
    assert_eq!(post(&world, "events", &headers, traced("header").to_string()).await.status, 202);
    let broker = world.broker().await;
    let routing_key = format!("{}.{TYPE}", world.application);
    broker.publish(&routing_key, None, &[], traced("amqp").to_string()).await.expect("the broker");

    for request in world.receiver.wait_for(&endpoint.path, 3).await {
        let body = String::from_utf8_lossy(&request.body).into_owned();
        assert!(!body.contains("traceparent") && !body.contains("tracestate"), "{body}");
        let is_of_header = body.contains("\"header\"");
        let trace = if is_of_header { OF_HEADER } else { OF_ATTRIBUTE };
        assert_eq!(request.header("traceparent").split('-').nth(1), trace.split('-').nth(1), "{body}");
        assert_eq!(
            request.headers.get("tracestate").map(String::as_str),
            (!is_of_header).then_some("vendor=1"),
            "{body}"
        );
    }
}

#[tokio::test]
async fn a_parked_cloud_event_is_put_back_with_its_attributes() {
    let (world, endpoint) = world().await;
    let admin = world.admin().await;
    let broker = world.broker().await;
    let headers = [
        ("cloudEvents:specversion", "1.0"),
        ("cloudEvents:id", "parked"),
        ("cloudEvents:source", "/shop"),
        ("cloudEvents:type", TYPE),
        ("cloudEvents:region", "eu"),
    ];
    let routing_key = |event_type: &str| format!("{}.{event_type}", world.application);
    broker.publish(&routing_key("order.created"), None, &headers, r#"{"order":1}"#).await.expect("the broker");
    let parked = until("the message to be parked", async || {
        let key = routing_key("order.created");
        admin.get(&format!("parked?routing_key={key}")).await.data()[0]["id"].as_str().map(str::to_owned)
    })
    .await;
    let shown = admin.get(&format!("parked/{parked}")).await;
    assert_eq!((&shown.data()["reason"], &shown.data()["body"]), (&json!("type_mismatch"), &json!(r#"{"order":1}"#)));
    assert_eq!(shown.data()["headers"]["cloudEvents:datacontenttype"], "application/json");

    let path = format!("parked/{parked}/put-back");
    let refused = admin.post(&path, &json!({ "message_id": "mine" })).await;
    assert_eq!((refused.status, refused.code()), (422, "invalid_field"), "{}", refused.body);
    assert!(refused.body["error"]["message"].as_str().is_some_and(|text| text.contains("CloudEvent")));
    assert_eq!(admin.post(&path, &json!({ "routing_key": routing_key(TYPE) })).await.status, 200);
    let received = world.receiver.wait_for(&endpoint.path, 1).await;
    let events = read_with_sdks(&world, &endpoint, &received).await;
    let event = &events[0];
    assert_eq!((&event["id"], &event["source"], &event["region"]), (&json!("parked"), &json!("/shop"), &json!("eu")));
    assert_eq!((&event["data"], &event["datacontenttype"]), (&json!({ "order": 1 }), &json!("application/json")));
}
