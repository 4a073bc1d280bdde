//! Authentication at receivers: Basic, bearer, and OAuth 2.0 with token servers that expire, fail, hang and lie.

use std::time::{Duration, Instant};

use fanfare_tests::{
    metrics::metric,
    patience::until,
    receiver::Behaviour,
    token_server::{TokenAnswer, TokenServer},
    world::{Endpoint, World, process::fanfare},
};
use serde_json::{Value, json};

const SECRET: &str = "client-s3cret-71f0";

async fn created(world: &World, path: &str, authentication: Value) -> Endpoint {
    let new = json!({ "url": world.receiver.url(path), "events": ["a"], "authentication": authentication });
    let answer = world.client().post("webhooks", &new).await;
    assert_eq!(answer.status, 201, "{}", answer.body);
    assert!(!answer.body.to_string().contains(SECRET), "{}", answer.body);
    world.known().await;
    let text = |name: &str| answer.data()[name].as_str().expect("a text").to_owned();
    Endpoint { id: text("id"), secret: text("secret"), path: path.to_owned() }
}

fn oauth2(server: &TokenServer) -> Value {
    json!({ "type": "oauth2", "token_url": server.url(), "client_id": "shop", "client_secret": SECRET })
}

async fn publish(world: &World, count: usize) {
    for number in 0..count {
        world.publish(&json!({ "type": "a", "data": { "n": number } })).await;
    }
}

async fn state(world: &World, webhook: &Endpoint) -> Value {
    world.client().get(&format!("webhooks/{}", webhook.id)).await.data()["authentication"]["state"].clone()
}

/// Waits until all deliveries are delivered, and checks that no attempt failed.
async fn all_delivered(world: &World, count: i64) {
    until("all deliveries", async || (world.rows("deliveries", "state = 'delivered'").await == count).then_some(()))
        .await;
    assert_eq!(world.rows("attempts", "status IS DISTINCT FROM 200").await, 0, "no attempt failed");
}

#[tokio::test]
async fn basic_and_bearer_are_sent_and_never_shown() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let basic = json!({ "type": "basic", "username": "Aladdin", "password": SECRET });
    let own = created(&world, "basic", basic).await;
    created(&world, "bearer", json!({ "type": "bearer", "token": SECRET })).await;
    world.publish(&json!({ "type": "a", "data": {} })).await;
    let basic = &world.receiver.wait_for("basic", 1).await[0];
    assert_eq!(basic.header("authorization"), "Basic QWxhZGRpbjpjbGllbnQtczNjcmV0LTcxZjA=");
    assert_eq!(world.receiver.wait_for("bearer", 1).await[0].header("authorization"), format!("Bearer {SECRET}"));

    let path = format!("webhooks/{}", own.id);
    let shown = world.client().get(&path).await;
    assert_eq!(shown.data()["authentication"], json!({ "type": "basic", "username": "Aladdin" }));
    // A change without the secret keeps it; a test and a preview hide the header.
    let change = json!({ "authentication": { "type": "basic", "username": "Jasmin" } });
    world.change(&own, &change).await;
    let test = world.client().post(&format!("{path}/test"), &json!({ "type": "a", "data": {} })).await;
    let headers = test.data()["request"]["headers"].as_array().expect("headers").clone();
    assert!(headers.contains(&json!(["authorization", "…"])), "{}", test.body);
    assert_eq!(
        world.receiver.wait_for("basic", 2).await[1].header("authorization"),
        "Basic SmFzbWluOmNsaWVudC1zM2NyZXQtNzFmMA=="
    );
    let delivery = world.wait_for_deliveries("state=delivered", 2).await.remove(0);
    let request = world.client().get(&format!("deliveries/{}/request", delivery["id"].as_str().expect("an id"))).await;
    assert!(request.body.to_string().contains(r#"["authorization","…"]"#), "{}", request.body);
    let everything = [
        shown.body.to_string(),
        test.body.to_string(),
        request.body.to_string(),
        world.admin().await.get("audit-log").await.body.to_string(),
        world.client().get("webhooks").await.body.to_string(),
    ];
    for text in everything {
        assert!(!text.contains(SECRET) && !text.contains("czNjcmV0"), "{text}");
    }
}

#[tokio::test]
async fn each_refusal_names_the_member_and_a_secret_goes_to_no_other_host() {
    let world = World::new().await;
    let own = created(&world, "own", json!({ "type": "basic", "username": "u", "password": SECRET })).await;
    let patch = async |change: Value| {
        let answer = world.client().patch(&format!("webhooks/{}", own.id), &change).await;
        (answer.status, answer.body["error"]["field"].as_str().unwrap_or_default().to_owned(), answer.body.to_string())
    };
    for (authentication, field) in [
        (json!({ "type": "digest" }), "authentication.type"),
        (json!({ "type": "bearer" }), "authentication.token"),
        (json!({ "type": "bearer", "token": "a b" }), "authentication.token"),
        (json!({ "type": "basic", "username": "a:b" }), "authentication.username"),
        (json!({ "type": "basic", "username": "a", "token": "x" }), "authentication.token"),
        (json!({ "type": "oauth2", "client_id": "x", "client_secret": "y" }), "authentication.token_url"),
        (
            json!({ "type": "oauth2", "token_url": "ftp://x", "client_id": "x", "client_secret": "y" }),
            "authentication.token_url",
        ),
        (
            json!({ "type": "oauth2", "token_url": "https://a.example/", "client_id": "x", "client_secret": "y",
                    "client_authentication": "jwt" }),
            "authentication.client_authentication",
        ),
    ] {
        let (status, found, body) = patch(json!({ "authentication": authentication })).await;
        assert_eq!((status, found.as_str()), (422, field), "{body}");
        assert!(!body.contains(SECRET));
    }
    let (status, field, body) = patch(json!({ "headers": { "Authorization": "x" } })).await;
    assert_eq!((status, field.as_str()), (422, "authentication"), "{body}");
    let (status, field, body) = patch(json!({ "url": "http://127.0.0.1:19999/" })).await;
    assert_eq!((status, field.as_str()), (422, "authentication"), "{body}");
    let (status, ..) = patch(json!({ "authentication": null, "headers": { "Authorization": "x" } })).await;
    assert_eq!(status, 200);

    let server = TokenServer::start(TokenAnswer::Token(60_000)).await;
    let (status, _, body) = patch(json!({ "headers": {}, "authentication": oauth2(&server) })).await;
    assert_eq!(status, 200, "{body}");
    let moved = json!({ "type": "oauth2", "token_url": "http://127.0.0.1:19999/token", "client_id": "shop" });
    let (status, field, body) = patch(json!({ "authentication": moved })).await;
    assert_eq!((status, field.as_str()), (422, "authentication.client_secret"), "{body}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tokens_that_expire_each_second_while_a_thousand_deliveries_wait() {
    let world = World::new().await;
    let dispatcher = world.dispatcher().await;
    let server = TokenServer::start(TokenAnswer::Token(1000)).await;
    let own = created(&world, "own", oauth2(&server)).await;
    world.change(&own, &json!({ "status": "paused" })).await;
    publish(&world, 1000).await;
    world.receiver.script("own", &[Behaviour::Answer(200, Duration::from_millis(50))]);
    let began = Instant::now();
    world.change(&own, &json!({ "status": "enabled" })).await;
    let received = world.receiver.wait_for("own", 1000).await;
    let seconds = began.elapsed().as_secs();
    for request in &received {
        assert!(server.accepts(request.header("authorization"), request.at), "a request with a token that has ended");
    }
    let fetches = server.requests().len() as u64;
    assert!(fetches <= seconds + 3, "{fetches} fetches in {seconds} s");
    assert!(server.requests()[0].authorization.starts_with("Basic "));
    assert_eq!(server.requests()[0].form, "grant_type=client_credentials");
    all_delivered(&world, 1000).await;
    assert!(metric(&dispatcher, r#"fanfare_token_fetches_total{outcome="fetched"}"#).await >= 1.0);
    eprintln!("{fetches} fetches in {seconds} s for 1000 deliveries");
}

#[tokio::test(flavor = "multi_thread")]
async fn two_dispatchers_share_the_token() {
    let world = World::new().await;
    let _dispatchers = [world.dispatcher().await, world.dispatcher().await];
    let server = TokenServer::start(TokenAnswer::Token(3_600_000)).await;
    created(&world, "own", oauth2(&server)).await;
    publish(&world, 100).await;
    world.receiver.wait_for("own", 100).await;
    assert_eq!(server.requests().len(), 1, "one fetch for all processes");
    all_delivered(&world, 100).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_token_server_that_is_down_slow_or_hostile_is_not_the_receivers_failure() {
    let world = World::new().await;
    let dispatcher = world.dispatcher().await;
    let server = TokenServer::start(TokenAnswer::Status(503, "<html>s3cret body</html>".to_owned())).await;
    let own = created(&world, "own", oauth2(&server)).await;
    world.endpoint("other", &["a"]).await;
    let event = world.publish(&json!({ "type": "a", "data": {} })).await;
    world.receiver.wait_for("other", 1).await;
    let failing =
        until("the failure", async || Some(state(&world, &own).await).filter(|state| !state["error"].is_null()));
    let failing = failing.await;
    assert_eq!(failing["error"], json!("the token server answers 503"));
    let why = world.client().get(&format!("events/{event}/why?webhook={}", own.id)).await.body.to_string();
    assert!(why.contains("token_unavailable") && why.contains("the token server answers 503."), "{why}");
    for answer in [
        TokenAnswer::Status(200, "<html>s3cret body</html>".to_owned()),
        TokenAnswer::Status(200, "x".repeat(200_000)),
        TokenAnswer::Status(200, r#"{"access_token":"s3cret body\nx: y","token_type":"bearer"}"#.to_owned()),
        TokenAnswer::Status(200, r#"{"access_token":"s3cret","token_type":"bearer","expires_in":-1}"#.to_owned()),
        TokenAnswer::Status(401, r#"{"error":"invalid_client","error_description":"s3cret body"}"#.to_owned()),
    ] {
        let asked = server.requests().len();
        server.answer(answer);
        // The wait grows: the next fetch is due now.
        world.database().await.execute("UPDATE endpoint_tokens SET next_fetch_at = now()", &[]).await.expect("a row");
        let change = json!({ "authentication": oauth2(&server) });
        world.change(&own, &change).await;
        until("a fetch", async || (server.requests().len() > asked).then_some(())).await;
        let failing =
            until("the failure", async || Some(state(&world, &own).await).filter(|state| !state["error"].is_null()));
        assert!(!failing.await.to_string().contains("s3cret"));
    }
    assert_eq!(state(&world, &own).await["error"], json!("the token server answers 401 (invalid_client)"));

    // A slow server holds no place: other endpoints go on.
    server.answer(TokenAnswer::Drip);
    world.change(&own, &json!({ "authentication": oauth2(&server) })).await;
    publish(&world, 20).await;
    world.receiver.wait_for("other", 21).await;
    assert_eq!(world.receiver.received("own").len(), 0);
    assert_eq!(world.rows("open_deliveries", "failures > 0 OR attempt > 1").await, 0, "no attempt is used up");
    assert!(metric(&dispatcher, "fanfare_endpoints_without_token").await >= 0.0);

    server.answer(TokenAnswer::Token(60_000));
    world.change(&own, &json!({ "authentication": oauth2(&server) })).await;
    world.receiver.wait_for("own", 21).await;
    let state = until("the end of the failures", async || {
        Some(state(&world, &own).await).filter(|state| state["error"].is_null())
    })
    .await;
    assert!(state["token_until"].is_string(), "{state}");
    all_delivered(&world, 42).await;
    let logs = json!(dispatcher.logs()).to_string();
    assert!(!logs.contains(SECRET) && !logs.contains("secret-token-") && !logs.contains("s3cret body"));
    assert!(logs.contains("a token server gives no token"), "a line for the change of state");
    assert_eq!(world.count("SELECT count(*) FROM audit_log WHERE audit_log::text LIKE '%s3cret%'").await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_401_discards_the_token_once_and_counts_as_a_failure() {
    let world = World::of_waits("1s,1s,1s", &[]).await;
    let _dispatcher = world.dispatcher().await;
    let server = TokenServer::start(TokenAnswer::Token(3_600_000)).await;
    let own = created(&world, "own", oauth2(&server)).await;
    world.receiver.script("own", &[Behaviour::Answer(401, Duration::ZERO), Behaviour::OK]);
    world.publish(&json!({ "type": "a", "data": {} })).await;
    let received = world.receiver.wait_for("own", 2).await;
    let tokens: Vec<&str> = received.iter().map(|request| request.header("authorization")).collect();
    assert_eq!(tokens, ["Bearer secret-token-0", "Bearer secret-token-1"]);
    assert_eq!(server.requests().len(), 2);
    let delivery = world.wait_for_deliveries("state=delivered", 1).await.remove(0);
    let delivery = world.delivery(delivery["id"].as_str().expect("an id")).await;
    let attempts = delivery["attempts"].as_array().expect("attempts");
    assert!(attempts.iter().any(|attempt| attempt["status"] == json!(401)), "{delivery}");
    assert!(!delivery.to_string().contains("secret-token"));

    // A test uses the shared token, too.
    let test = world.client().post(&format!("webhooks/{}/test", own.id), &json!({ "type": "a", "data": {} })).await;
    assert_eq!(test.data()["delivered"], json!(true), "{}", test.body);
    assert_eq!(world.receiver.received("own")[2].header("authorization"), "Bearer secret-token-1");
    assert_eq!(server.requests().len(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn token_servers_that_hang_hold_up_no_other_application() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let hanging = TokenServer::start(TokenAnswer::Hang).await;
    for number in 0..70 {
        created(&world, &format!("hanging-{number}"), oauth2(&hanging)).await;
    }
    world.publish(&json!({ "type": "a", "data": {} })).await;
    until("fetches", async || (hanging.requests().len() >= 8).then_some(())).await;

    let application = fanfare(&world.variables, &["app", "create", "other"]);
    let key = world.create_key(&["--role", "manage", "--application", &application]);
    let client = world.client().with_key(&key);
    client.accepted().await;
    let server = TokenServer::start(TokenAnswer::Token(60_000)).await;
    let new = json!({ "url": world.receiver.url("own"), "events": ["a"], "authentication": oauth2(&server) });
    assert_eq!(client.post("webhooks", &new).await.status, 201);
    world.known().await;
    let began = Instant::now();
    assert_eq!(client.post("events", &json!({ "type": "a", "data": {} })).await.status, 202);
    world.receiver.wait_for("own", 1).await;
    assert!(began.elapsed() < Duration::from_secs(8), "a fetch gives up after ten seconds: {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread")]
async fn an_empty_backlog_without_a_token_ends() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let server = TokenServer::start(TokenAnswer::Status(503, String::new())).await;
    created(&world, "own", oauth2(&server)).await;
    world.publish(&json!({ "type": "a", "data": {} })).await;
    until("a backlog", async || (world.rows("endpoint_backlogs", "owner IS NOT NULL").await == 1).then_some(())).await;
    world.database().await.execute("DELETE FROM open_deliveries", &[]).await.expect("a commit");
    until("the end of the backlog", async || (world.rows("endpoint_backlogs", "true").await == 0).then_some(())).await;
}
