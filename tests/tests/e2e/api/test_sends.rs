//! `POST /webhooks/{id}/test`: sends a test event with a sample or a custom payload once, and shows request and
//! response (as in Incenta's and Incentable's APIs).

use std::{collections::HashMap, fs, path::PathBuf, process::Stdio, time::Duration};

use fanfare_tests::{
    clients::api::Client,
    patience::until,
    receiver::{Behaviour, Received, signature::is_signed},
    world::World,
};
use futures_util::future::join_all;
use hyper::Method;
use jiff::Timestamp;
use rcgen::{CertifiedKey, generate_simple_self_signed};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncBufReadExt, AsyncWriteExt, BufReader},
    net::{TcpListener, TcpStream},
    process::Command,
};

use crate::api::{
    assert_refused,
    checked_client::{CheckedClient, JSON},
    event, list, numbers, text,
};

/// Sends a test event. Returns the data of the answer.
async fn test(world: &World, webhook: &str, body: &Value) -> Value {
    let answer = world.client().post(&format!("webhooks/{webhook}/test"), body).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    answer.data().clone()
}

/// The pairs of a list of headers.
fn headers(value: &Value) -> HashMap<String, String> {
    let pair = |pair: &Value| Some((pair[0].as_str()?.to_owned(), pair[1].as_str()?.to_owned()));
    list(value).iter().filter_map(pair).collect()
}

#[tokio::test]
async fn a_test_is_shown_with_its_request_and_response() {
    let world = World::shared().await;
    let new = json!({ "url": world.receiver.url("a?b=c"), "events": ["order.*"], "headers": { "X-Token": "s3cr3t" } });
    let webhook = world.client().post("webhooks", &new).await.data().clone();
    let (id, secret) = (text(&webhook, "id"), text(&webhook, "secret"));
    let client = CheckedClient::new(&world);
    // Without a body: the first event type of the subscription, with its sample.
    let result = client.send(Method::POST, &format!("/api/v1/webhooks/{id}/test"), &[], "").await.data().clone();
    let received = world.receiver.wait_for("a", 1).await.remove(0);
    assert_eq!(
        (&result["delivered"], text(&result, "outcome"), &result["error"]),
        (&json!(true), "answered", &Value::Null)
    );

    let (request, response) = (&result["request"], &result["response"]);
    let sent = headers(&request["headers"]);
    let shown = Received {
        at: Timestamp::now(),
        path: String::new(),
        headers: sent.clone(),
        body: text(request, "body").as_bytes().to_vec(),
        behaviour: received.behaviour,
    };
    assert!(is_signed(&received, secret), "{received:?}");
    assert!(is_signed(&shown, secret), "the shown request differs from the sent request: {request}");
    assert_eq!(
        (text(request, "body").as_bytes(), text(request, "url")),
        (received.body.as_slice(), text(&webhook, "url"))
    );
    for (name, value) in &sent {
        let (arrived, expected) = (received.header(name), if name == "x-token" { "s3cr3t" } else { value });
        assert_eq!(arrived, expected, "{name}");
    }
    assert_eq!(sent["x-token"], "…", "a credential is shown");
    assert!(["content-type", "user-agent", "webhook-id"].iter().all(|name| sent.contains_key(*name)), "{sent:?}");
    let body: Value = serde_json::from_slice(&received.body).expect("JSON");
    let described = world.client().get("event-types").await.data().clone();
    let first = list(&described)
        .iter()
        .find(|event_type| text(event_type, "name").starts_with("order."))
        .expect("an order event");
    assert_eq!((&body["event"], &body["data"]), (&first["name"], &first["sample"]));

    assert_eq!((&response["status"], text(response, "body")), (&json!(200), "noted"));
    assert!(response["headers"].is_array());
    let timings = &result["timings"];
    for phase in ["dns_ms", "connect_ms", "first_byte_ms", "total_ms"] {
        assert!(timings[phase].as_f64().is_some_and(|time| time >= 0.0), "{phase}: {timings}");
    }
    assert_eq!(timings["tls_ms"], Value::Null, "http has no TLS: {timings}");
    let phases = ["dns_ms", "connect_ms", "first_byte_ms"].map(|phase| timings[phase].as_f64().unwrap_or_default());
    assert!(phases.iter().sum::<f64>() <= timings["total_ms"].as_f64().unwrap_or_default() + 0.01, "{timings}");

    assert_eq!(received.event(), text(&result, "event"));
    let kept = world.delivery(text(&result, "delivery")).await;
    assert_eq!((text(&kept, "state"), text(&kept, "event"), numbers(&kept)), ("delivered", received.event(), vec![1]));
    assert_eq!(
        (text(&kept, "body").as_bytes(), &kept["attempts"][0]["status"]),
        (received.body.as_slice(), &json!(200))
    );
    let on_record = event(&world, received.event()).await;
    assert_eq!((text(&on_record, "status"), &on_record["matched_webhooks"]), ("fanned_out", &json!(1)));
}

#[tokio::test]
async fn a_test_may_have_a_given_type_and_payload() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["*"]).await;
    let sent = async |body: Value| {
        test(&world, &endpoint.id, &body).await;
        let last = world.receiver.received("a").pop().expect("the test event was sent");
        serde_json::from_slice::<Value>(&last.body).expect("JSON")
    };
    let event = sent(json!({ "type": "REFERRAL_CREATED" })).await;
    assert_eq!((text(&event, "event"), text(&event["data"], "code")), ("REFERRAL_CREATED", "SPRING-2026"));
    for data in [json!({ "own": ["payload", 1.5] }), json!("text"), json!(0), json!(false), json!("a\0b")] {
        let event = sent(json!({ "type": "order.created", "data": data })).await;
        assert_eq!((text(&event, "event"), &event["data"]), ("order.created", &data));
        let event = sent(json!({ "data": data })).await;
        assert_eq!(&event["data"], &data, "the payload is not sent with the first subscribed event type");
    }
    let event = sent(json!({ "type": "nobody.described", "data": 1 })).await;
    assert_eq!(text(&event, "event"), "nobody.described", "an undescribed event type is refused");
    let recorded = world.rows("all_deliveries", "state = 'delivered'").await;
    assert_eq!(recorded as usize, world.receiver.received("a").len(), "a test has no delivery");

    let path = format!("webhooks/{}/test", endpoint.id);
    let misspelt = world.client().post(&path, &json!({ "type": "order.creatd" })).await;
    assert_refused("no sample", &misspelt, (422, "unknown_event_type", "type"));
    assert!(text(&misspelt.body["error"], "message").contains("order.created"), "{}", misspelt.body);
    let large = json!({ "data": "a".repeat(256 * 1024) });
    for (what, body, refusal) in [
        ("no type", json!({ "type": "a b" }), (422, "invalid_field", "type")),
        ("a number", json!({ "type": 1 }), (422, "wrong_type", "type")),
        ("another field", json!({ "payload": 1 }), (422, "unknown_field", "payload")),
        ("too much", large, (422, "field_too_long", "data")),
        ("a list", json!([]), (400, "not_an_object", "")),
    ] {
        assert_refused(what, &world.client().post(&path, &body).await, refusal);
    }
}

/// An infinite number is valid JSON, and a fault of the data, as in a published event.
#[tokio::test]
async fn a_payload_with_an_infinite_number_is_refused_as_such() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["order.created"]).await;
    let path = format!("webhooks/{}/test", endpoint.id);
    for data in ["1e999", "[-1e400]"] {
        let body = format!(r#"{{"data":{data}}}"#);
        let refused = world.client().send(Method::POST, &path, &[JSON], body).await.expect("an answer");
        assert!(refused.status == 422 && refused.field() == "data", "{data}: {}", refused.body);
    }
    assert!(world.receiver.all().is_empty(), "a refused test was sent");
}

/// A payload of `null` differs from an absent payload.
#[tokio::test]
async fn a_given_payload_may_be_null() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["order.created"]).await;
    test(&world, &endpoint.id, &json!({ "data": null })).await;
    let received = world.receiver.received("a").pop().expect("the test event was sent");
    let body: Value = serde_json::from_slice(&received.body).expect("JSON");
    assert_eq!(body["data"], Value::Null, "{body}");
}

#[tokio::test]
async fn a_test_that_fails_says_why_and_is_never_sent_again() {
    let world = World::shared().await;
    let failing = world.endpoint("failing", &["*"]).await;
    world.receiver.script("failing", &[Behaviour::FAIL]);
    let hasty = json!({ "url": world.receiver.url("hanging"), "events": ["invoice.paid"], "timeout_ms": 200 });
    let hanging = world.client().post("webhooks", &hasty).await.data().clone();
    world.receiver.script("hanging", &[Behaviour::Hang]);
    // The port of a closed listener.
    let closed = std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("a local address");
    let refusing = json!({ "url": format!("http://{closed}/"), "events": ["invoice.paid"] });
    let refusing = world.client().post("webhooks", &refusing).await.data().clone();

    let failed = test(&world, &failing.id, &json!({})).await;
    assert_eq!(
        (&failed["delivered"], &failed["response"]["status"], text(&failed["response"], "body")),
        (&json!(false), &json!(500), "noted")
    );
    let timed_out = test(&world, text(&hanging, "id"), &json!({})).await;
    assert_eq!((text(&timed_out, "outcome"), &timed_out["response"]), ("timed_out", &Value::Null));
    assert!(timed_out["timings"]["connect_ms"].is_number() && timed_out["timings"]["first_byte_ms"].is_null());
    let refused = test(&world, text(&refusing, "id"), &json!({})).await;
    assert_eq!((text(&refused, "outcome"), &refused["response"]), ("connection_failed", &Value::Null));
    assert!(refused["timings"]["dns_ms"].is_number() && refused["timings"]["connect_ms"].is_null(), "{refused}");
    for result in [&timed_out, &refused] {
        assert!(result["delivered"] == false && !text(result, "error").is_empty(), "{result}");
    }

    // By the third attempt of a later event, a wrong retry of a test would have come.
    let id = world.publish(&json!({ "type": "order", "data": 1 })).await;
    let later = world.wait_for_deliveries(&format!("event={id}"), 1).await.remove(0);
    until("the third attempt of the later event", async || {
        (numbers(&world.delivery(text(&later, "id")).await).len() == 3).then_some(())
    })
    .await;
    for result in [&failed, &timed_out, &refused] {
        let kept = world.delivery(text(result, "delivery")).await;
        assert_eq!((text(&kept, "state"), text(&kept, "reason"), numbers(&kept)), ("failed", "test_failed", vec![1]));
        assert_eq!((&kept["next_attempt_at"], &kept["attempts"][0]["outcome"]), (&Value::Null, &result["outcome"]));
    }
    let tests =
        world.receiver.received("failing").iter().filter(|request| request.event() == text(&failed, "event")).count();
    assert_eq!((tests, world.receiver.received("hanging").len()), (1, 1));
}

/// A test works for a webhook of any status, so that clients can test before enabling.
#[tokio::test]
async fn a_webhook_that_is_switched_off_can_be_tested_and_a_forbidden_address_cannot_be_reached() {
    let mut world = World::new().await;
    let endpoint = world.endpoint("a", &["a"]).await;
    for status in ["paused", "disabled"] {
        world.change(&endpoint, &json!({ "status": status })).await;
        assert_eq!(test(&world, &endpoint.id, &json!({})).await["delivered"], true, "{status}");
    }
    assert_eq!(world.receiver.received("a").len(), 2);

    // The same webhook, after the deployment removed the exception for the address.
    world.variables.remove("FANFARE_ALLOW_ADDRESSES");
    drop(world.take_ingest());
    world.start_ingest().await;
    let forbidden = test(&world, &endpoint.id, &json!({})).await;
    assert_eq!((&forbidden["delivered"], text(&forbidden, "outcome")), (&json!(false), "address_forbidden"));
    assert_eq!((&forbidden["response"], &forbidden["timings"]["connect_ms"]), (&Value::Null, &Value::Null));
    assert!(text(&forbidden, "error").contains("address"), "{forbidden}");
    let kept = world.delivery(text(&forbidden, "delivery")).await;
    assert_eq!((text(&kept, "state"), numbers(&kept)), ("failed", vec![1]));
    assert_eq!(world.receiver.received("a").len(), 2, "the forbidden address was called");
    let new = json!({ "url": world.receiver.url("b"), "events": ["a"] });
    assert_refused("a new one", &world.client().post("webhooks", &new).await, (422, "invalid_url", "url"));
}

/// An HTTPS server in Node that prints its port.
const OVER_TLS: &str = "
    const [key, cert] = process.argv.slice(1)
    const server = require('node:https').createServer({ key, cert }, (_, response) => response.end('noted'))
    server.listen(0, '127.0.0.1', () => console.log(server.address().port))
";

#[tokio::test]
async fn over_https_the_time_of_tls_is_told_too() {
    let CertifiedKey { cert, signing_key } =
        generate_simple_self_signed(["127.0.0.1".to_owned()]).expect("a certificate");
    let folder = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("test-{:032x}", rand::random::<u128>()));
    fs::create_dir_all(&folder).expect("a folder");
    let file = folder.join("certificate.pem");
    fs::write(&file, cert.pem()).expect("written");
    let mut node = Command::new("node");
    node.args(["-e", OVER_TLS, "--", &signing_key.serialize_pem(), &cert.pem()]).kill_on_drop(true);
    let mut node = node.stdout(Stdio::piped()).spawn().expect("Node 18 or later");
    let mut lines = BufReader::new(node.stdout.take().expect("a piped standard output")).lines();
    let port = lines.next_line().await.expect("the server's output").expect("a port");

    let world =
        World::of_variables(&[("FANFARE_CA_FILE", &file.to_string_lossy()), ("FANFARE_HTTPS_ONLY", "true")]).await;
    let made = async |url: String| {
        let new = json!({ "url": url, "events": ["a"] });
        text(world.client().post("webhooks", &new).await.data(), "id").to_owned()
    };
    let result = test(&world, &made(format!("https://127.0.0.1:{port}/")).await, &json!({})).await;
    assert_eq!((&result["delivered"], text(&result["response"], "body")), (&json!(true), "noted"), "{result}");
    let timings = &result["timings"];
    let phases = ["dns_ms", "connect_ms", "tls_ms", "first_byte_ms"];
    let times: Vec<f64> = phases.iter().filter_map(|phase| timings[phase].as_f64()).collect();
    assert_eq!(times.len(), phases.len(), "{timings}");
    assert!(timings["tls_ms"].as_f64() > Some(0.0), "the TLS handshake took no time: {timings}");
    assert!(times.iter().sum::<f64>() <= timings["total_ms"].as_f64().unwrap_or_default() + 0.01, "{timings}");

    // The server on this port does not speak TLS.
    let plain = world.receiver.url("").replace("http:", "https:");
    let failed = test(&world, &made(plain).await, &json!({})).await;
    assert_eq!((text(&failed, "outcome"), &failed["response"]), ("tls_failed", &Value::Null), "{failed}");
    assert!(failed["timings"]["connect_ms"].is_number() && failed["timings"]["tls_ms"].is_null(), "{failed}");
    fs::remove_dir_all(&folder).expect("the folder is removed");
}

/// Maximal number of concurrent tests of an application.
const AT_ONCE: usize = 4;

/// Hanging tests of an application block only further tests of the same application.
#[tokio::test]
async fn concurrent_tests_are_limited_per_application() {
    let world = World::shared().await;
    let (_, other) = world.other_application().await;
    // The listener accepts connections, and answers no request until dropped.
    let silent = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let url = format!("http://{}/", silent.local_addr().expect("a local address"));
    let made = async |client: &Client, url: &str| {
        let new = json!({ "url": url, "events": ["a"], "timeout_ms": 60000 });
        format!("webhooks/{}/test", text(client.post("webhooks", &new).await.data(), "id"))
    };
    let hanging = made(world.client(), &url).await;
    let (own, foreign) =
        (made(world.client(), &world.receiver.url("own")).await, made(&other, &world.receiver.url("foreign")).await);
    let no_fields = json!({});

    let under_way = join_all((0..AT_ONCE).map(|_| world.client().post(&hanging, &no_fields)));
    let meanwhile = async {
        let mut connections = Vec::new();
        while connections.len() < AT_ONCE {
            connections.push(silent.accept().await.expect("a connection"));
        }
        for path in [&hanging, &own] {
            let refused = world.client().post(path, &no_fields).await;
            assert_refused("one more", &refused, (429, "too_many_tests", ""));
            assert!(refused.retry_after().is_some_and(|seconds| seconds > 0), "{refused:?}");
        }
        assert_eq!(other.post(&foreign, &no_fields).await.data()["delivered"], true);
    };
    let (ended, ()) = tokio::join!(under_way, meanwhile);
    assert!(ended.iter().all(|test| test.data()["delivered"] == false), "{ended:?}");
    assert_eq!(world.client().post(&own, &no_fields).await.data()["delivered"], true, "ended tests still count");
    assert_eq!(world.receiver.received("own").len(), 1, "a refused test was sent");
    assert_eq!(world.deliveries("").await.len(), AT_ONCE + 1, "a refused test was recorded");
}

/// A test is recorded even if the client closes the connection before the answer.
#[tokio::test]
async fn a_test_is_on_record_where_its_caller_hangs_up() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["a"]).await;
    world.receiver.script("a", &[Behaviour::Answer(200, Duration::from_secs(1))]);
    let address = world.ingest().address("serving the API").await;
    let mut caller = TcpStream::connect(address).await.expect("a connection");
    let request = format!(
        "POST /api/v1/webhooks/{}/test HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {}\r\ncontent-length: 0\r\n\r\n",
        endpoint.id, world.key
    );
    caller.write_all(request.as_bytes()).await.expect("the request is sent");
    let received = world.receiver.wait_for("a", 1).await.remove(0);
    drop(caller);
    let kept = world.wait_for_deliveries("", 1).await.remove(0);
    let kept = world.delivery(text(&kept, "id")).await;
    assert_eq!((text(&kept, "state"), text(&kept, "event")), ("delivered", received.event()));
    assert_eq!((numbers(&kept), &kept["attempts"][0]["status"]), (vec![1], &json!(200)));
}
