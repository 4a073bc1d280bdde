//! Delivered bytes, verified by receivers in Node and Python.

use std::{collections::HashMap, fmt::Write};

use bytes::Bytes;
use fanfare_tests::{
    clients::node::node,
    patience::until,
    receiver::Received,
    world::{Setup, World},
};
use futures_util::future::join_all;
use hyper::Method;
use serde::Deserialize;
use serde_json::{json, value::RawValue};
use sha2::{Digest, Sha256};

use crate::dialects::{
    DIALECTS,
    payloads::{Payload, Payloads},
    tenants::Tenant,
    verifiers::{Report, Verifiers},
};

/// Generated payloads for each dialect, in addition to GitHub's examples.
const GENERATED: usize = 400;

/// Generated payloads for the receivers in Python.
const IN_PYTHON: usize = 150;

/// The event type that the receivers in Python subscribe to.
const PYTHONS_TYPE: &str = "order.created";

/// Event types of the other generated payloads, with all permitted characters.
const OTHER_TYPES: [&str; 4] = ["a", "REFERRAL_CREATED", "points.earned", "A-1_b:c/d.e"];

/// Events in a batch request.
const BATCH: usize = 60;

/// An event to be published.
struct Event {
    event_type: String,
    payload: Payload,
    /// The publisher's `time`.
    time: Option<&'static str>,
}

impl Event {
    /// The event without the closing brace, so that further fields can follow.
    fn fields(&self) -> String {
        let time = self.time.map(|time| format!(r#","time":"{time}""#)).unwrap_or_default();
        format!(r#"{{"type":"{}","data":{}{time}"#, self.event_type, self.payload.text)
    }
}

#[tokio::test]
async fn every_dialects_deliveries_are_verified_in_node_and_in_python() {
    // A long timeout: slow receivers are no subject here.
    let world = World::of(Setup { timeout: Some("30s".to_owned()), ..Setup::new(&[]) }).await;
    assert_verified_in_both(&world, &DIALECTS).await;
}

/// Publishes to an application of each dialect, and checks that all deliveries were verified in both languages.
pub(crate) async fn assert_verified_in_both(world: &World, dialects: &[&'static str]) {
    let seed = std::env::var("FANFARE_TEST_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(1);
    println!("FANFARE_TEST_SEED={seed}");
    let (mut in_node, mut in_python) = tokio::join!(Verifiers::in_node(), Verifiers::in_python());
    let (examples, mut payloads) = (examples().await, Payloads::new(seed));
    let mut publishers = Vec::new();
    for &dialect in dialects {
        let tenant = Tenant::new(world, dialect).await;
        let webhook = tenant.webhook(world, &in_node.url(dialect), &["*"]).await;
        in_node.receive(dialect, dialect, &webhook.secret).await;
        let webhook = tenant.webhook(world, &in_python.url(dialect), &[PYTHONS_TYPE]).await;
        in_python.receive(dialect, dialect, &webhook.secret).await;
        payloads.begin_anew();
        let events: Vec<Event> = examples.iter().map(Event::of_github).chain(generated(&mut payloads)).collect();
        publishers.push((tenant, events));
    }
    let _dispatcher = world.dispatcher().await;
    let (over_http, over_amqp): (Vec<_>, Vec<_>) =
        publishers.iter().map(|(tenant, events)| halves(tenant, events)).unzip();
    tokio::join!(publish_over_amqp(world, &over_amqp), join_all(over_http.iter().map(publish_over_http)));

    all_ended(world, dialects.len() * (examples.len() + GENERATED + IN_PYTHON)).await;
    let (in_node, in_python) = tokio::join!(in_node.report(), in_python.report());
    for (tenant, events) in &publishers {
        assert_verified("Node", tenant.dialect, &in_node, events.iter().collect()).await;
        let in_both = events.iter().filter(|event| event.event_type == PYTHONS_TYPE).collect();
        assert_verified("Python", tenant.dialect, &in_python, in_both).await;
    }
}

impl Event {
    fn of_github(example: &(String, Payload)) -> Self {
        let (event_type, payload) = example.clone();
        Self { event_type, payload, time: None }
    }
}

/// GitHub's example payloads with their event types, printed by Node without spaces.
async fn examples() -> Vec<(String, Payload)> {
    #[derive(Deserialize)]
    struct Example {
        #[serde(rename = "type")]
        event_type: String,
        payload: Box<RawValue>,
    }
    let examples = node("octokit.mjs", &[], String::new()).await;
    let read = |line: &String| {
        let Example { event_type, payload } = serde_json::from_str(line).expect("an example");
        (event_type, Payload { text: payload.get().to_owned(), compact: payload.get().to_owned() })
    };
    examples.iter().map(read).collect()
}

fn generated(payloads: &mut Payloads) -> Vec<Event> {
    let times = [None, Some("2026-06-18T14:00:00.9999+02:00"), Some("2024-02-29T23:59:59Z")];
    let types = std::iter::repeat_n(PYTHONS_TYPE, IN_PYTHON).chain(OTHER_TYPES.into_iter().cycle());
    let events = payloads.zip(types).zip(times.into_iter().cycle());
    let event = |((payload, event_type), time): ((Payload, &str), _)| Event {
        event_type: event_type.to_owned(),
        payload,
        time,
    };
    events.take(GENERATED).map(event).collect()
}

/// Splits the events in halves for HTTP and AMQP.
fn halves<'a>(tenant: &'a Tenant, events: &'a [Event]) -> (Half<'a>, Half<'a>) {
    let half = |of: usize| Half { tenant, events: events.iter().skip(of).step_by(2).collect() };
    (half(0), half(1))
}

struct Half<'a> {
    tenant: &'a Tenant,
    events: Vec<&'a Event>,
}

async fn publish_over_http(half: &Half<'_>) {
    for batch in half.events.chunks(BATCH) {
        let bodies: Vec<String> = batch.iter().map(|event| event.fields() + "}").collect();
        let headers = [("content-type", "application/json")];
        let body = format!("[{}]", bodies.join(","));
        let answer = half.tenant.client.send(Method::POST, "events/batch", &headers, body).await.expect("an answer");
        let refused = answer.body["data"].as_array().into_iter().flatten().find(|result| result["success"] != true);
        assert_eq!((answer.status, refused), (202, None), "{}", answer.body["error"]);
    }
}

/// Publishes all events with amqplib, with the index as the key.
async fn publish_over_amqp(world: &World, halves: &[Half<'_>]) {
    let mut input = String::new();
    for Half { tenant, events } in halves {
        for (number, event) in events.iter().enumerate() {
            let message = json!({
                "routing_key": format!("{}.{}", tenant.application, event.event_type),
                "message_id": number.to_string(),
                "body": event.fields() + "}",
            });
            writeln!(input, "{message}").expect("writing to a String");
        }
    }
    let exchange = format!("{}.events", world.variables["FANFARE_PREFIX"]);
    let answers = node("publish.mjs", &[&world.variables["AMQP_URL"], &exchange], input).await;
    let refused = answers.iter().find(|answer| *answer != "confirmed");
    assert_eq!(refused, None);
}

/// Waits until `deliveries` deliveries have ended, in any state. The time limit starts anew with each progress.
async fn all_ended(world: &World, deliveries: usize) {
    let database = world.database().await;
    let count = "SELECT count(*) FROM all_deliveries WHERE state IN ('delivered', 'failed')";
    let mut ended = 0;
    while ended < deliveries {
        ended = until(&format!("more than {ended} of {deliveries} deliveries to end"), async || {
            let now: i64 = database.query_one(count, &[]).await.expect("the deliveries").get(0);
            let now = usize::try_from(now).expect("a count");
            (now > ended).then_some(now)
        })
        .await;
    }
}

/// Checks that a receiver verified exactly these events with the expected bytes.
async fn assert_verified(program: &str, dialect: &str, reports: &HashMap<String, Report>, events: Vec<&Event>) {
    let report = &reports[dialect];
    assert_eq!(report.refused, 0, "{dialect} in {program}: {:#?}", report.faults);
    let sent: Vec<String> = match dialect {
        "incenta" => as_node_prints(&events).await,
        _ => events.iter().map(|event| event.payload.compact.clone()).collect(),
    };
    let mut missing: HashMap<String, Vec<&String>> = HashMap::new();
    for data in &sent {
        let digest = Bytes::copy_from_slice(&Sha256::digest(data));
        missing.entry(format!("{digest:x}")).or_default().push(data);
    }
    let unknown = report.data.iter().filter(|(_, digest)| missing.get_mut(*digest).and_then(Vec::pop).is_none());
    let unknown: Vec<_> = unknown.collect();
    let missing: Vec<&String> = missing.into_values().flatten().collect();
    assert!(
        missing.is_empty() && unknown.is_empty(),
        "{dialect} in {program}: {} expected payloads are missing, such as {:?}; unexpected: {unknown:?}",
        missing.len(),
        missing.first(),
    );
    assert_eq!(report.verified, events.len(), "{dialect} in {program}: each event comes once");
}

/// The payloads as Node prints them: `JSON.stringify(JSON.parse(text))`.
async fn as_node_prints(events: &[&Event]) -> Vec<String> {
    let mut input = String::new();
    for event in events {
        writeln!(input, "{}", json!(event.payload.text)).expect("writing to a String");
    }
    let printed = node("stringify.mjs", &[], input).await;
    printed.iter().map(|line| serde_json::from_str(line).expect("a text")).collect()
}

/// Body and additional headers of a dialect, as the platforms' webhook documentation prints them.
struct Expected {
    body: &'static str,
    headers: &'static [&'static str],
}

const EXPECTED: [(&str, Expected); 7] = [
    (
        "incenta",
        Expected {
            body: r#"{"event":"order.created","data":{"1":0,"2":1,"é":[1e+21,"\u0000/"]},"timestamp":"2026-06-18T12:00:00.987Z"}"#,
            headers: &["x-webhook-signature"],
        },
    ),
    (
        "incentable",
        Expected {
            body: r#"{"id":"evt_ID","type":"order.created","created_at":"2026-06-18T12:00:00Z","data":DATA}"#,
            headers: &["x-incentable-signature"],
        },
    ),
    (
        "nudj",
        Expected {
            body: r#"{"id":"evt_ID","event":"order.created","timestamp":"2026-06-18T12:00:00.987Z","data":DATA}"#,
            headers: &["x-nudj-delivery-id", "x-nudj-event", "x-nudj-signature"],
        },
    ),
    (
        "reward",
        Expected {
            body: r#"{"id":"we_ID","type":"order.created","time":"2026-06-18T12:00:00.987Z","data":DATA}"#,
            headers: &[],
        },
    ),
    (
        "ploints",
        Expected {
            body: r#"{"id":"evt_ID","type":"order.created","timestamp":"2026-06-18T12:00:00Z","data":DATA}"#,
            headers: &["x-ploints-signature"],
        },
    ),
    (
        "cloudevents",
        Expected {
            body: r#"{"specversion":"1.0","id":"evt_ID","source":"/applications/APP","type":"order.created","time":"2026-06-18T12:00:00.987Z","data":DATA}"#,
            headers: &[],
        },
    ),
    (
        "standard",
        Expected {
            body: r#"{"type":"order.created","timestamp":"2026-06-18T12:00:00.987Z","data":DATA}"#,
            headers: &[],
        },
    ),
];

/// Headers of every delivery, including the headers of every HTTP request.
const COMMON_HEADERS: [&str; 7] =
    ["content-length", "content-type", "host", "user-agent", "webhook-id", "webhook-signature", "webhook-timestamp"];

#[tokio::test]
async fn bodies_and_headers_are_exactly_those_of_each_dialect() {
    let world = World::shared().await;
    let event = r#"{"type":"order.created", "time":"2026-06-18T14:00:00.987654321+02:00",
        "data": { "2" : 1.0, "\u00e9":[ 1e21 , "\u0000\/" ],"1":-0 } }"#;
    let data = r#"{"2":1.0,"\u00e9":[1e21,"\u0000\/"],"1":-0}"#;
    for (dialect, expected) in EXPECTED {
        let tenant = Tenant::new(&world, dialect).await;
        tenant.webhook(&world, &world.receiver.url(dialect), &["*"]).await;
        let id = tenant.publish_as_it_is(event).await;

        let received = world.receiver.wait_for(dialect, 1).await.remove(0);
        let body = expected.body.replace("ID", id.trim_start_matches("evt_")).replace("DATA", data);
        let body = body.replace("APP", &tenant.application);
        assert_eq!(String::from_utf8_lossy(&received.body), body, "{dialect}");
        assert_eq!(received.event(), id, "{dialect}");
        let is_cloud_event = dialect == "cloudevents";
        let content_type =
            if is_cloud_event { "application/cloudevents+json; charset=utf-8" } else { "application/json" };
        assert_eq!(received.header("content-type"), content_type, "{dialect}");
        assert_eq!(names(&received), sorted([&COMMON_HEADERS, expected.headers].concat()), "{dialect}");
    }
}

fn names(received: &Received) -> Vec<&str> {
    sorted(received.headers.keys().map(String::as_str).collect())
}

fn sorted(mut names: Vec<&str>) -> Vec<&str> {
    names.sort_unstable();
    names
}
