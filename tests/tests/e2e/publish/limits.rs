//! Limits for clients: connections and request time, events per second, webhooks per application.

use std::{net::SocketAddr, time::Duration};

use fanfare_tests::{
    metrics::counted,
    patience::{patience, until},
    world::World,
};
use futures_util::future::join_all;
use hyper::Method;
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    time::{Instant, timeout},
};

async fn api(world: &World) -> SocketAddr {
    world.ingest().address("serving the API").await
}

/// Sends only `sent`. Returns all received data and the time until the server closed the connection.
async fn answer_to(address: SocketAddr, sent: &str) -> (String, Duration) {
    let started = Instant::now();
    let mut stream = TcpStream::connect(address).await.expect("a connection");
    stream.write_all(sent.as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let _ = timeout(patience(), stream.read_to_end(&mut answer)).await.expect("the end of the connection");
    (String::from_utf8_lossy(&answer).into_owned(), started.elapsed())
}

#[tokio::test]
async fn slow_requests_time_out_and_endless_heads_are_refused() {
    let world = World::new().await;
    let address = api(&world).await;
    let key = &world.key;
    let silent = answer_to(address, "");
    let half_a_head = answer_to(address, "POST /api/v1/events HTTP/1.1\r\nhost: x\r\n");
    let publish = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ncontent-length: 1000\r\n\r\n{{\"type\":"
    );
    let manage = format!(
        "POST /api/v1/webhooks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
         content-type: application/json\r\ntransfer-encoding: chunked\r\n\r\n5\r\n{{\"url\r\n"
    );
    let form = |site: &str| {
        format!(
            "POST /console/sign-in HTTP/1.1\r\nhost: x\r\nsec-fetch-site: {site}\r\nconnection: close\r\n\
             content-type: application/x-www-form-urlencoded\r\ncontent-length: 100\r\n\r\nkey="
        )
    };
    let (own, foreign) = (form("same-origin"), form("cross-site"));
    let (silent, half_a_head, publish, manage, own, foreign) = tokio::join!(
        silent,
        half_a_head,
        answer_to(address, &publish),
        answer_to(address, &manage),
        answer_to(address, &own),
        answer_to(address, &foreign)
    );
    // Anybody can send a form: the origin is checked first, and the body has a deadline.
    assert!(own.0.starts_with("HTTP/1.1 408 ") && own.1 >= Duration::from_secs(14), "{own:?}");
    assert!(foreign.0.starts_with("HTTP/1.1 403 ") && foreign.1 < Duration::from_secs(9), "{foreign:?}");
    for (what, (answer, took)) in [("nothing", silent), ("half a head", half_a_head)] {
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 408 "), "{what}: {answer}");
        assert!(took >= Duration::from_secs(9), "{what}: after {took:?}");
    }
    for (what, (answer, took)) in [("half an event", publish), ("half a webhook", manage)] {
        assert!(answer.starts_with("HTTP/1.1 408 ") && answer.contains("\"body_too_slow\""), "{what}: {answer}");
        assert!(took >= Duration::from_secs(14), "{what}: after {took:?}");
    }
    // An endless request head is refused instead of buffered.
    let endless = format!("GET / HTTP/1.1\r\nx: {}", "y".repeat(200 * 1024));
    let (answer, _) = answer_to(address, &endless).await;
    assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 431 "), "{answer}");
    assert_eq!(world.client().get("webhooks").await.status, 200);
}

/// A batch may be large, and its sender slow: both refusals come before the body.
#[tokio::test]
async fn a_batch_is_refused_before_it_is_read() {
    let mut world = World::new().await;
    drop(world.take_ingest());
    world.start_ingest_with(&[("FANFARE_PUBLISH_RATE", "1")]).await;
    let address = api(&world).await;
    let announced = |bytes: usize| {
        let key = &world.key;
        format!(
            "POST /api/v1/events/batch HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\
             content-type: application/json\r\nconnection: close\r\ncontent-length: {bytes}\r\n\r\n["
        )
    };
    let (answer, took) = answer_to(address, &announced(100_000_000)).await;
    assert!(answer.starts_with("HTTP/1.1 413 ") && took < Duration::from_secs(9), "after {took:?}: {answer}");
    let batch = json!(vec![json!({ "type": "a", "data": 1 }); 1000]);
    assert_eq!(world.client().post("events/batch", &batch).await.status, 202);
    // On a busy machine, a second passes, and an event is admitted.
    let refused = until("a refusal before the body", async || {
        let (answer, took) = answer_to(address, &announced(1000)).await;
        (answer.starts_with("HTTP/1.1 429 ")).then_some((answer, took))
    });
    let (answer, took) = refused.await;
    assert!(took < Duration::from_secs(9), "after {took:?}: {answer}");
}

#[tokio::test]
async fn further_connections_wait_until_others_end() {
    let mut world = World::new().await;
    drop(world.take_ingest());
    world.start_ingest_with(&[("FANFARE_MAX_CONNECTIONS", "3")]).await;
    let address = api(&world).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(TcpStream::connect(address).await.expect("a connection"));
    }
    let request = format!("GET /api/v1/webhooks HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {}\r\n", world.key);
    let mut stream = TcpStream::connect(address).await.expect("the kernel takes it");
    stream.write_all(format!("{request}connection: close\r\n\r\n").as_bytes()).await.expect("sent");
    let mut answer = Vec::new();
    let early = timeout(Duration::from_secs(2), stream.read_to_end(&mut answer)).await;
    assert!(
        early.is_err() && answer.is_empty(),
        "the fourth connection is served too early: {}",
        String::from_utf8_lossy(&answer)
    );
    held.pop();
    timeout(patience(), stream.read_to_end(&mut answer)).await.expect("the connection is served").expect("an answer");
    assert!(answer.starts_with(b"HTTP/1.1 200 "), "{}", String::from_utf8_lossy(&answer));
    // Idle connections are closed after a time limit.
    let mut last = held.pop().expect("one");
    timeout(patience(), last.read(&mut [0])).await.expect("the end").expect("closed");
}

#[tokio::test]
async fn an_application_publishes_no_more_in_a_second_than_it_may() {
    let mut world = World::new().await;
    drop(world.take_ingest());
    world.start_ingest_with(&[("FANFARE_PUBLISH_RATE", "1")]).await;
    let event = json!({ "type": "a", "data": 1 });
    // The largest permitted batch passes at once, whatever the rate.
    let batch = json!(vec![&event; 1000]);
    assert_eq!(world.client().post("events/batch", &batch).await.status, 202);
    for (path, body, least) in
        [("events", &event, 1), ("events/batch", &json!([event]), 1), ("events/batch", &batch, 900)]
    {
        // On a busy machine, a second passes between two requests, and one more event is accepted. A batch without room
        // for one event is refused unread: only the next answer knows the wait for the whole batch.
        let refused = until("a refusal with the wait", async || {
            let answer = world.client().post(path, body).await;
            answer.retry_after().is_some_and(|seconds| seconds >= least).then_some(answer)
        })
        .await;
        assert_eq!((refused.status, refused.code()), (429, "too_many_events"), "{path}: {}", refused.body);
    }
    counted(world.ingest(), r#"fanfare_published_total{result="limited"}"#, 3).await;
    assert_eq!(world.client().post("event-types", &json!({ "name": "a" })).await.status, 201);
    let sample = until("a refusal of a sample", async || {
        Some(world.client().post("event-types/a/publish", &Value::Null).await).filter(|answer| answer.status != 202)
    });
    let sample = sample.await;
    assert_eq!((sample.status, sample.code()), (429, "too_many_events"), "{}", sample.body);
    let (_, other) = world.other_application().await;
    assert_eq!(other.post("events", &event).await.status, 202, "the other application has a separate limit");
    // Publishing is accepted again at the configured rate.
    until("the publish rate to admit an event", async || {
        (world.client().post("events", &event).await.status == 202).then_some(())
    })
    .await;

    let path = format!("applications/{}", world.application);
    let more = json!({ "publish_rate_per_second": 100_000 });
    let refused = world.client().patch(&path, &more).await;
    assert_eq!((refused.status, refused.field()), (403, "publish_rate_per_second"), "{}", refused.body);
    let admin = world.admin().await;
    for rate in [json!(0), json!(1_000_001), json!(-1), json!("1")] {
        assert_eq!(admin.patch(&path, &json!({ "publish_rate_per_second": rate })).await.status, 422, "{rate}");
    }
    assert_eq!(admin.patch(&path, &more).await.data()["publish_rate_per_second"], 100_000);
    for _ in 0..3 {
        assert_eq!(world.client().post("events/batch", &batch).await.status, 202);
    }
    let none = json!({ "publish_rate_per_second": null });
    assert_eq!(admin.patch(&path, &none).await.data()["publish_rate_per_second"], Value::Null);
}

#[tokio::test]
async fn an_application_has_no_more_webhooks_than_it_may() {
    let mut world = World::new().await;
    drop(world.take_ingest());
    world.start_ingest_with(&[("FANFARE_MAX_WEBHOOKS", "3")]).await;
    let url = |number: usize| world.receiver.url(&number.to_string());
    let created = join_all((0..8).map(async |number| {
        world.client().post("webhooks", &json!({ "url": url(number), "events": ["order.created"] })).await
    }))
    .await;
    assert_eq!(created.iter().filter(|answer| answer.status == 201).count(), 3);
    for refused in created.iter().filter(|answer| answer.status != 201) {
        assert_eq!((refused.status, refused.code()), (409, "too_many_webhooks"), "{}", refused.body);
    }
    let put = async |number: usize| {
        let url = format!("http://{}/webhooks/configs", api(&world).await);
        let body = json!({ "url": self::url(&world, number), "event_types": ["order.created"] }).to_string();
        put(&url, &world.key, body).await
    };
    let (refused, first) = (put(100).await, created.iter().position(|answer| answer.status == 201).expect("one"));
    assert_eq!(refused, 409);
    assert_eq!(put(first).await, 200, "an existing webhook may be changed");
    let id = created[first].data()["id"].as_str().expect("an id").to_owned();
    let deleted = world.client().send(Method::DELETE, &format!("webhooks/{id}"), &[], "").await.expect("an answer");
    assert_eq!(deleted.status, 200);
    assert_eq!(put(100).await, 200, "the deleted webhook no longer counts");
    let (other_application, other) = world.other_application().await;
    let new = json!({ "url": url(0), "events": ["order.created"] });
    assert_eq!(other.post("webhooks", &new).await.status, 201, "{other_application} has a separate limit");
}

fn url(world: &World, number: usize) -> String {
    world.receiver.url(&number.to_string())
}

/// Sends a PUT to a route outside `/api/v1`. Returns the status.
async fn put(url: &str, key: &str, body: String) -> u16 {
    use http_body_util::Full;
    use hyper_util::{client::legacy, rt::TokioExecutor};
    let http = legacy::Client::builder(TokioExecutor::new()).build_http::<Full<bytes::Bytes>>();
    let request = hyper::Request::put(url)
        .header("authorization", format!("Bearer {key}"))
        .header("content-type", "application/json")
        .body(Full::new(body.into()))
        .expect("a request");
    http.request(request).await.expect("an answer").status().as_u16()
}
