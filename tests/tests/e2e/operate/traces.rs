//! Traces: one trace from publishing to the first attempt, linked later attempts, export by OTLP, and trace contexts
//! for endpoints.

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::Stdio,
};

use fanfare_tests::{
    clients::python::python,
    folder::Folder,
    patience::until,
    receiver::Behaviour,
    servers::collector::{Collector, Span},
    world::World,
};
use hyper::{Method, Uri};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, BufReader},
    net::TcpStream,
    process::Child,
};

use crate::protect::tls::{Certificates, terminate_tls};

/// Flags of a `traceparent`.
const SAMPLED: &str = "01";
const UNSAMPLED: &str = "00";

/// The publisher's span, and trace ids of three events.
const PUBLISHER: &str = "00f067aa0ba902b7";
const HTTP: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const AMQP: &str = "0af7651916cd43dd8448eb211c80319c";
const OTHER: &str = "1bf92f3577b34da6a3ce929d0e0e4737";

/// Kinds of spans in OTLP.
const SERVER: u64 = 2;
const CLIENT: u64 = 3;
const PRODUCER: u64 = 4;
const CONSUMER: u64 = 5;

/// A `traceparent` header: version, trace, span, flags.
fn traceparent(trace: &str, flags: &str) -> String {
    format!("00-{trace}-{PUBLISHER}-{flags}")
}

/// A foreign collector that passes all spans on to ours.
struct Rotel {
    ours: Collector,
    http: SocketAddr,
    grpc: SocketAddr,
    /// Ends the program on drop.
    _program: Child,
}

impl Rotel {
    async fn start() -> Self {
        let ours = Collector::start().await;
        let mut program = python("collector.py").await;
        let mut program = program.arg(ours.url()).stdout(Stdio::piped()).spawn().expect("the collector starts");
        let output = program.stdout.take().expect("a piped standard output");
        let line = BufReader::new(output).lines().next_line().await.expect("a line").expect("the collector's ports");
        let ports: Value = serde_json::from_str(&line).expect("JSON");
        let address = |name: &str| {
            let port = ports[name].as_u64().and_then(|port| port.try_into().ok()).expect("a port");
            SocketAddr::from((Ipv4Addr::LOCALHOST, port))
        };
        let (http, grpc) = (address("http"), address("grpc"));
        for address in [http, grpc] {
            until("the collector to listen", async || TcpStream::connect(address).await.ok()).await;
        }
        Self { ours, http, grpc, _program: program }
    }
}

/// Settings that export each span at once.
fn exporting<'a>(more: &[(&'a str, &'a str)]) -> Vec<(&'a str, &'a str)> {
    [&[("OTEL_BSP_SCHEDULE_DELAY", "100")], more].concat()
}

/// Publishes over HTTP with trace headers.
async fn publish(world: &World, event_type: &str, trace: &str, flags: &str) {
    let headers = [
        ("content-type", "application/json"),
        ("traceparent", &*traceparent(trace, flags)),
        ("tracestate", "vendor=1"),
        ("tracestate", "other=2"),
    ];
    let event = json!({ "type": event_type, "data": 1 }).to_string();
    let answer = world.client().send(Method::POST, "events", &headers, event).await.expect("an answer");
    assert_eq!(answer.status, 202, "{}", answer.body);
}

/// Asserts that a span has the members of `attributes`, each with the right type.
fn has(span: &Span, attributes: &Value) {
    for (name, value) in attributes.as_object().expect("an object") {
        assert_eq!(span.attributes.get(name), Some(value), "{name} of {span:#?}");
    }
}

#[tokio::test]
async fn one_trace_leads_from_publishing_to_the_first_attempt() {
    let rotel = Rotel::start().await;
    let (collector, url) = (&rotel.ours, format!("http://{}", rotel.http));
    let settings = [("OTEL_EXPORTER_OTLP_ENDPOINT", &*url), ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip")];
    let world = World::of_variables(&exporting(&settings)).await;
    let endpoint = world.endpoint("a", &["*"]).await;
    world.change(&endpoint, &json!({ "trace_context": true })).await;
    let _dispatcher = world.dispatcher().await;
    let exchange = format!("{}.events", world.variables["FANFARE_PREFIX"]);

    publish(&world, "a", HTTP, SAMPLED).await;
    let headers = [("traceparent", &*traceparent(AMQP, SAMPLED))];
    let routing_key = format!("{}.a", world.application);
    let broker = world.broker().await;
    broker.publish(&routing_key, Some("1"), &headers, r#"{"data":1}"#).await.expect("the broker");
    world.wait_for_deliveries("state=delivered", 2).await;

    let request = collector.span("ingest", "POST /api/v1/events", HTTP).await;
    assert_eq!((&*request.parent, request.kind), (PUBLISHER, SERVER));
    let attributes = json!({ "http.route": "/api/v1/events", "http.response.status_code": 202, "url.scheme": "http" });
    has(&request, &attributes);
    let send = collector.span("ingest", &format!("send {exchange}"), HTTP).await;
    assert_eq!((&send.parent, send.kind), (&request.id, PRODUCER));
    let destination = format!("{exchange}:{routing_key}");
    has(&send, &json!({ "messaging.system": "rabbitmq", "messaging.destination.name": destination }));
    let process = collector.span("dispatcher", &format!("process {exchange}"), HTTP).await;
    assert_eq!((&process.parent, process.kind), (&send.id, CONSUMER));
    let size = json!({ "type": "a", "data": 1 }).to_string().len();
    let attributes = json!({
        "messaging.operation.type": "process",
        "messaging.rabbitmq.destination.routing_key": routing_key,
        "messaging.message.body.size": size,
    });
    has(&process, &attributes);
    let attempt = collector.span("dispatcher", "POST", HTTP).await;
    assert_eq!((&attempt.parent, attempt.kind), (&process.id, CLIENT));
    let receiver: Uri = world.receiver.url("").parse().expect("a URL");
    let attributes = json!({
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": receiver.port_u16(),
        "url.full": format!("{receiver}REDACTED"),
        "fanfare.attempt": 1,
    });
    has(&attempt, &attributes);
    assert_eq!(attempt.state, "vendor=1,other=2");

    // Over AMQP, the publisher's span is the parent of the dispatcher's.
    let process = collector.span("dispatcher", &format!("process {exchange}"), AMQP).await;
    assert_eq!(process.parent, PUBLISHER);
    let attempt_over_amqp = collector.span("dispatcher", "POST", AMQP).await;
    assert_eq!(attempt_over_amqp.parent, process.id);

    let received = world.receiver.wait_for("a", 2).await;
    for (attempt, state) in [(attempt, "vendor=1,other=2"), (attempt_over_amqp, "")] {
        let sent = format!("00-{}-{}-{SAMPLED}", attempt.trace, attempt.id);
        let request = received.iter().find(|request| request.header("traceparent") == sent);
        assert_eq!(request.map(|request| request.header("tracestate")), Some(state), "no request with {sent}");
    }
}

#[tokio::test]
async fn later_attempts_are_linked_and_sampled_with_their_event() {
    let collector = Collector::start().await;
    let world = World::of_variables(&exporting(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())])).await;
    let _dispatcher = world.dispatcher().await;
    world.endpoint("unsampled", &["unsampled"]).await;
    world.endpoint("sampled", &["sampled"]).await;
    for path in ["unsampled", "sampled"] {
        world.receiver.script(path, &[Behaviour::FAIL, Behaviour::OK]);
    }
    publish(&world, "unsampled", OTHER, UNSAMPLED).await;
    world.wait_for_deliveries("state=delivered", 1).await;
    publish(&world, "sampled", HTTP, SAMPLED).await;
    world.wait_for_deliveries("state=delivered", 2).await;

    let first = collector.span("dispatcher", "POST", HTTP).await;
    assert!(first.is_error, "{first:#?}");
    has(&first, &json!({ "error.type": "500", "http.response.status_code": 500 }));
    let second =
        collector.span_of("the second attempt", |span| span.attributes.contains_key("http.request.resend_count")).await;
    has(&second, &json!({ "http.request.resend_count": 1, "fanfare.attempt": 2, "http.response.status_code": 200 }));
    assert_ne!(second.trace, HTTP);
    assert_eq!(second.parent, "");
    assert_eq!(second.links, [(HTTP.to_owned(), first.parent.clone())]);
    let spans = collector.spans();
    assert!(
        spans.iter().all(|span| span.trace != OTHER && span.links.iter().all(|(trace, _)| trace != OTHER)),
        "{spans:#?}"
    );
}

#[tokio::test]
async fn traces_are_exported_over_grpc_with_tls_and_compression() {
    let rotel = Rotel::start().await;
    let certificates = Certificates::new("collector", "127.0.0.1");
    let mut settings = certificates.server(None);
    settings.alpn_protocols = vec![b"h2".to_vec()];
    let url = format!("https://{}", terminate_tls(settings, rotel.grpc).await);
    let authority = certificates.authority().display().to_string();
    let settings = [
        ("OTEL_EXPORTER_OTLP_ENDPOINT", &*url),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_CERTIFICATE", &*authority),
        ("OTEL_SERVICE_NAME", "webhooks"),
    ];
    let world = World::of_variables(&exporting(&settings)).await;
    world.endpoint("a", &["*"]).await;
    let dispatcher = world.dispatcher().await;
    publish(&world, "a", HTTP, SAMPLED).await;
    world.wait_for_deliveries("state=delivered", 1).await;
    rotel.ours.span("webhooks", "POST /api/v1/events", HTTP).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, 0);
    rotel.ours.span("webhooks", "POST", HTTP).await;
}

#[tokio::test]
async fn exports_carry_the_headers_of_a_file() {
    let collector = Collector::start().await;
    let folder = Folder::new("otlp-headers");
    let file = folder.write("headers", "api-key=a%2Cb,tenant=7\n");
    let whole = format!("{}/v1/traces", collector.url());
    let settings = [("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", &*whole), ("OTEL_EXPORTER_OTLP_HEADERS_FILE", &*file)];
    let world = World::of_variables(&exporting(&settings)).await;
    publish(&world, "a", HTTP, SAMPLED).await;
    collector.span("ingest", "POST /api/v1/events", HTTP).await;
    assert_eq!(collector.header("api-key").as_deref(), Some("a,b"));
    assert_eq!(collector.header("tenant").as_deref(), Some("7"));
}

/// Without an exporter, an endpoint gets the publisher's own context, in each attempt.
#[tokio::test]
async fn an_endpoint_gets_the_trace_context_only_on_request() {
    let world = World::shared().await;
    let asks = json!({ "url": world.receiver.url("asks"), "events": ["a"], "trace_context": true });
    let webhook = world.client().post("webhooks", &asks).await;
    assert_eq!(webhook.data()["trace_context"], true);
    let other = world.endpoint("other", &["a"]).await;
    world.known().await;
    world.receiver.script("asks", &[Behaviour::FAIL, Behaviour::OK]);
    publish(&world, "a", HTTP, SAMPLED).await;
    for request in world.receiver.wait_for("asks", 2).await {
        assert_eq!(request.header("traceparent"), traceparent(HTTP, SAMPLED));
        assert_eq!(request.header("tracestate"), "vendor=1,other=2");
    }
    let request = &world.receiver.wait_for("other", 1).await[0];
    assert_eq!((request.header("traceparent"), request.header("tracestate")), ("", ""));

    world.change(&other, &json!({ "trace_context": true })).await;
    let shown = world.client().get(&format!("webhooks/{}", other.id)).await;
    assert_eq!(shown.data()["trace_context"], true);
    let refused = world.client().patch(&format!("webhooks/{}", other.id), &json!({ "trace_context": "yes" })).await;
    assert_eq!(refused.status, 422, "{}", refused.body);
}

/// A message that cannot be processed ends its span with the reason. A caller without a key begins no trace.
#[tokio::test]
async fn failures_are_visible_and_strangers_decide_nothing() {
    let collector = Collector::start().await;
    let world = World::of_variables(&exporting(&[("OTEL_EXPORTER_OTLP_ENDPOINT", &collector.url())])).await;
    let _dispatcher = world.dispatcher().await;
    let headers = [("traceparent", &*traceparent(AMQP, SAMPLED))];
    let routing_key = format!("{}.a", world.application);
    world.broker().await.publish(&routing_key, None, &headers, r#"{"data":1}"#).await.expect("the broker");
    let parked = collector.span_of("the parked message", |span| span.trace == AMQP).await;
    assert!(parked.is_error, "{parked:#?}");
    has(&parked, &json!({ "error.type": "missing_message_id" }));

    // The path of a link that signs in holds the secret of the session.
    let link = world.client().with_key("").send_to(Method::GET, "/portal/open/s3cret", &[], "").await;
    assert_eq!(link.expect("an answer").status, 404);
    let is_link = |span: &Span| span.attributes.get("http.route") == Some(&json!("/portal/open/{token}"));
    has(&collector.span_of("the link", is_link).await, &json!({ "url.path": "/portal/open/{token}" }));

    let headers = [("traceparent", &*traceparent(OTHER, SAMPLED))];
    let stranger = world.client().with_key("fk_unknown");
    let answer = stranger.send(Method::GET, "webhooks", &headers, "").await.expect("an answer");
    assert_eq!(answer.status, 401);
    let is_refusal = |span: &Span| span.attributes.get("http.response.status_code") == Some(&json!(401));
    let refused = collector.span_of("the refused request", is_refusal).await;
    assert_ne!(refused.trace, OTHER);
    assert_eq!(refused.parent, "");
}

/// Without an exporter, Fanfare invents no trace: a receiver would look for a parent that does not exist.
#[tokio::test]
async fn an_event_without_a_trace_gets_none() {
    let world = World::shared().await;
    let asks = json!({ "url": world.receiver.url("asks"), "events": ["*"], "trace_context": true });
    world.client().post("webhooks", &asks).await.data();
    world.known().await;
    let broker = world.broker().await;
    let routing_key = format!("{}.a", world.application);
    world.publish(&json!({ "type": "a", "data": 1 })).await;
    for (id, header) in [("none", None), ("broken", Some("00-0-0-01"))] {
        let headers: Vec<_> = header.map(|value| ("traceparent", value)).into_iter().collect();
        broker.publish(&routing_key, Some(id), &headers, r#"{"data":1}"#).await.expect("the broker");
    }
    let received = world.receiver.wait_for("asks", 3).await;
    assert!(received.iter().all(|request| request.header("traceparent").is_empty()), "{received:#?}");
    assert_eq!(world.rows("events", "traceparent <> ''").await, 0);
}
