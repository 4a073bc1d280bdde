//! Publishing and receiving without Fanfare's code: GitHub's example payloads over HTTP and AMQP (amqplib). The
//! receiver verifies with the official Standard Webhooks library and with the code in Incenta's documentation. The log
//! must contain each delivery.

use std::{
    collections::{HashMap, HashSet},
    fmt::Write,
};

use base64::{Engine, engine::general_purpose::STANDARD};
use fanfare_tests::{
    clients::node::node,
    patience::until,
    receiver::Received,
    world::{Endpoint, World},
};
use futures_util::{StreamExt, stream};
use hyper::Method;
use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

/// The default of `FANFARE_MAX_EVENT_BYTES`.
const MAX_EVENT_BYTES: usize = 256 * 1024;

/// Minimal number of example payloads in the package.
const LEAST_EXAMPLES: usize = 300;

/// Concurrent requests to the API.
const AT_ONCE: usize = 8;

/// Path and subscription of each endpoint.
const ENDPOINTS: [(&str, &[&str]); 5] = [
    ("all", &["*"]),
    ("issues", &["issues.*", "issue_comment.*"]),
    ("code", &["push", "pull_request.opened", "pull_request.closed"]),
    ("twice", &["release.*", "release.published", "*"]),
    ("none", &["pull_request", "issues.assigned.*", "pushed"]),
];

/// A payload with its event type. Keys keep the order in which GitHub sends them.
#[derive(Deserialize)]
struct Example {
    #[serde(rename = "type")]
    event_type: String,
    payload: Box<RawValue>,
}

impl Example {
    fn event(&self) -> String {
        format!(r#"{{"type":"{}","data":{}}}"#, self.event_type, self.payload)
    }

    /// True if a subscription matches the event type, by the rules of the documentation.
    fn is_wanted(&self, subscriptions: &[&str]) -> bool {
        subscriptions.iter().any(|entry| match entry.strip_suffix('*') {
            Some(prefix) => self.event_type.starts_with(prefix),
            None => self.event_type == *entry,
        })
    }
}

#[tokio::test]
async fn real_payloads_of_real_clients_arrive_verified_and_on_record() {
    let examples = node("octokit.mjs", &[], String::new()).await;
    let examples: Vec<Example> = examples.iter().map(|line| serde_json::from_str(line).expect("an example")).collect();
    assert!(examples.len() >= LEAST_EXAMPLES, "{} examples", examples.len());
    assert!(
        examples.iter().all(|example| example.event().len() < MAX_EVENT_BYTES),
        "an example exceeds FANFARE_MAX_EVENT_BYTES"
    );
    let world = World::shared().await;
    let mut endpoints = Vec::new();
    for (path, events) in ENDPOINTS {
        for event in events.iter().filter(|event| **event != "*") {
            world.describe(&event.replace(".*", ".any")).await;
        }
        endpoints.push((world.endpoint(path, events).await, events));
    }
    publish_over_http(&world, &examples).await;
    publish_over_amqp(&world, &examples).await;

    for (endpoint, events) in &endpoints {
        let wanted: Vec<_> = examples.iter().filter(|example| example.is_wanted(events)).collect();
        let received = world.receiver.wait_for(&endpoint.path, 2 * wanted.len()).await;
        assert_bodies_are_as_sent(&wanted, &received);
        verify(endpoint, &received).await;
        assert_each_is_on_record(&world, endpoint, &received).await;
    }
    let received: Vec<usize> =
        endpoints.iter().map(|(endpoint, _)| world.receiver.received(&endpoint.path).len()).collect();
    assert_eq!((received[0], received[3], received[4]), (2 * examples.len(), 2 * examples.len(), 0));
    assert!(received[1] > 20 && received[2] > 2, "the subscriptions match too few examples: {received:?}");
}

async fn publish_over_http(world: &World, examples: &[Example]) {
    let publish = async |example: &Example| {
        let headers = [("content-type", "application/json")];
        let answer = world.client().send(Method::POST, "events", &headers, example.event()).await;
        assert_eq!(answer.expect("an answer").status, 202, "{}", example.event_type);
    };
    stream::iter(examples).map(publish).buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// Publishes each example with amqplib, with a numbered key.
async fn publish_over_amqp(world: &World, examples: &[Example]) {
    let mut input = String::new();
    for (number, example) in examples.iter().enumerate() {
        let routing_key = format!("{}.{}", world.application, example.event_type);
        let id = format!("octokit-{number}");
        let message = json!({ "routing_key": routing_key, "message_id": id, "body": example.event() });
        writeln!(input, "{message}").expect("writing to a String");
    }
    let exchange = format!("{}.events", world.variables["FANFARE_PREFIX"]);
    let answers = node("publish.mjs", &[&world.variables["AMQP_URL"], &exchange], input).await;
    assert_eq!(answers, vec!["confirmed"; examples.len()]);
}

/// Verifies all requests with the code that customers use.
async fn verify(endpoint: &Endpoint, received: &[Received]) {
    let mut input = String::new();
    for request in received {
        let delivery =
            json!({ "secret": endpoint.secret, "headers": request.headers, "body": STANDARD.encode(&request.body) });
        writeln!(input, "{delivery}").expect("writing to a String");
    }
    let answers = node("verify.mjs", &[], input).await;
    assert_eq!(answers.len(), received.len());
    for (answer, request) in answers.iter().zip(received) {
        assert_eq!(answer, r#"{"standard":true,"incenta":true}"#, "{}", String::from_utf8_lossy(&request.body));
    }
    let distinct: HashSet<_> = received.iter().map(Received::event).collect();
    assert_eq!(distinct.len(), received.len(), "two events have the same id");
}

/// Checks that each body has the exact bytes of the payload: Node printed the payloads, so that Fanfare changes none.
fn assert_bodies_are_as_sent(wanted: &[&Example], received: &[Received]) {
    let body = |example: &Example| format!(r#"{{"event":"{}","data":{}"#, example.event_type, example.payload);
    let mut expected: Vec<String> = wanted.iter().flat_map(|example| [body(example), body(example)]).collect();
    let until_timestamp = |request: &Received| {
        let body = std::str::from_utf8(&request.body).expect("UTF-8");
        let (body, _) = body.rsplit_once(r#","timestamp":""#).expect("a timestamp at the end");
        body.to_owned()
    };
    let mut bodies: Vec<String> = received.iter().map(until_timestamp).collect();
    expected.sort_unstable();
    bodies.sort_unstable();
    let differs = expected.iter().zip(&bodies).find(|(expected, body)| expected != body);
    assert_eq!((bodies.len(), differs), (expected.len(), None));
}

/// Checks that the API lists every delivery of an endpoint as delivered, with a single attempt and the body.
async fn assert_each_is_on_record(world: &World, endpoint: &Endpoint, received: &[Received]) {
    let recorded = until(&format!("the record of /{}", endpoint.path), async || {
        let deliveries = all_deliveries(world, endpoint).await;
        (deliveries.len() == received.len() && deliveries.iter().all(|delivery| delivery["state"] == "delivered"))
            .then_some(deliveries)
    })
    .await;
    let bodies: HashMap<&str, &[u8]> =
        received.iter().map(|request| (request.event(), request.body.as_slice())).collect();
    let mut details = stream::iter(&recorded)
        .map(async |delivery| world.delivery(delivery["id"].as_str().expect("an id")).await)
        .buffer_unordered(AT_ONCE);
    while let Some(detail) = details.next().await {
        let event = detail["event"].as_str().expect("an event's id");
        assert_eq!(detail["body"].as_str().map(str::as_bytes), bodies.get(event).copied(), "{event}");
        let attempts = detail["attempts"].as_array().expect("attempts");
        assert_eq!(attempts.len(), 1, "{attempts:?}");
        assert_eq!((&attempts[0]["status"], &attempts[0]["url"]), (&json!(200), &detail["url"]));
    }
}

/// All deliveries of an endpoint, read page by page.
async fn all_deliveries(world: &World, endpoint: &Endpoint) -> Vec<Value> {
    let mut deliveries: Vec<Value> = Vec::new();
    loop {
        let last = deliveries.last().and_then(|delivery| delivery["id"].as_str());
        let before = last.map(|id| format!("&before={id}")).unwrap_or_default();
        let page = world.deliveries(&format!("webhook={}{before}", endpoint.id)).await;
        if page.is_empty() {
            return deliveries;
        }
        deliveries.extend(page);
    }
}
