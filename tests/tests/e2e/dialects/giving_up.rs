//! Each dialect's rules for success and failure, and the end of its retries.

use std::time::Duration;

use bytes::Bytes;
use fanfare_tests::{
    patience::{patience, until_within},
    receiver::Behaviour,
    world::World,
};
use futures_util::future::join_all;
use http_body_util::Empty;
use hyper::{Response, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::dialects::{
    DIALECTS,
    tenants::{Tenant, Webhook, attempts, shipped_world},
};

/// Longer than each wait in this file: time in which no further request may come.
const LONGER_THAN_ANY_WAIT: Duration = Duration::from_secs(2);

/// Attempts of a delivery that always fails, including the first attempt.
const SENDS: [(&str, usize); 7] = [
    ("incenta", 6),
    ("incentable", 5),
    ("nudj", 6),
    ("reward", 6),
    ("ploints", 6),
    ("standard", 10),
    ("cloudevents", 10),
];

const NOBODY_LISTENS: &str = "http://127.0.0.1:1/";

fn event() -> Value {
    json!({ "type": "order.created", "data": { "order": 1001 } })
}

#[tokio::test]
async fn each_dialect_gives_up_after_its_number_of_attempts() {
    let world = World::of_variables(&[("FANFARE_PORTS", "1-65535")]).await;
    let redirecting = redirecting_to(world.receiver.url("elsewhere")).await;
    let mut tenants = Vec::new();
    for (dialect, sends) in SENDS {
        world.receiver.script(dialect, &[Behaviour::FAIL]);
        let tenant = Tenant::new(&world, dialect).await;
        let failing = tenant.webhook(&world, &world.receiver.url(dialect), &["*"]).await;
        let deaf = tenant.webhook(&world, NOBODY_LISTENS, &["*"]).await;
        let redirected = tenant.webhook(&world, &redirecting, &["*"]).await;
        let answered = |status: u16| ("answered", Value::from(status));
        let refused = ("connection_failed", Value::Null);
        tenants.push((tenant, sends, [(failing, answered(500)), (redirected, answered(307)), (deaf, refused)]));
    }
    let _dispatcher = world.dispatcher().await;
    join_all(tenants.iter().map(|(tenant, sends, webhooks)| gives_up_after(tenant, *sends, webhooks))).await;
    // No further request may come.
    tokio::time::sleep(LONGER_THAN_ANY_WAIT).await;
    for (dialect, sends) in SENDS {
        assert_eq!(world.receiver.received(dialect).len(), sends, "{dialect}: a failed delivery is sent again");
    }
    assert_eq!(world.receiver.received("elsewhere").len(), 0, "no redirect is followed");
}

/// Starts a server that redirects each request to `url`. Returns the server's URL.
async fn redirecting_to(url: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
    let address = listener.local_addr().expect("a local address");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let url = url.clone();
            let redirect = service_fn(move |_| {
                let response = Response::builder().status(307).header("location", &url);
                std::future::ready(response.body(Empty::<Bytes>::new()))
            });
            tokio::spawn(http1::Builder::new().serve_connection(TokioIo::new(stream), redirect));
        }
    });
    format!("http://{address}/")
}

async fn gives_up_after(tenant: &Tenant, sends: usize, webhooks: &[(Webhook, (&str, Value))]) {
    let event = tenant.publish(&event()).await;
    let dialect = tenant.dialect;
    for (webhook, (outcome, status)) in webhooks {
        let delivery = tenant.delivery(&event, webhook, "failed").await;
        assert_eq!(delivery["reason"], "attempts_exhausted", "{dialect}: {delivery}");
        assert_eq!(attempts(&delivery).len(), sends, "{dialect}: {delivery}");
        let is_as_told = |attempt: &Value| attempt["outcome"] == *outcome && attempt["status"] == *status;
        assert!(attempts(&delivery).iter().all(is_as_told), "{dialect}: {delivery}");
        assert_eq!(delivery["next_attempt_at"], Value::Null, "{dialect}: {delivery}");
        assert_ne!(delivery["finished_at"], Value::Null, "{dialect}: {delivery}");
    }
}

/// Receiver behaviours. The name of an answer begins with the status.
const BEHAVIOURS: [(&str, Behaviour); 25] = [
    answer("200", 200),
    answer("201", 201),
    answer("204", 204),
    answer("299", 299),
    answer("300", 300),
    answer("301", 301),
    answer("302", 302),
    answer("304", 304),
    answer("307", 307),
    answer("308", 308),
    answer("400", 400),
    answer("401", 401),
    answer("404", 404),
    answer("408", 408),
    answer("410", 410),
    answer("422", 422),
    answer("429", 429),
    ("429-later", Behaviour::RetryAfter(429, 1)),
    answer("499", 499),
    answer("500", 500),
    answer("503", 503),
    ("503-later", Behaviour::RetryAfter(503, 1)),
    answer("599", 599),
    ("hang", Behaviour::Hang),
    ("reset", Behaviour::Reset),
];

const fn answer(name: &'static str, status: u16) -> (&'static str, Behaviour) {
    (name, Behaviour::Answer(status, Duration::ZERO))
}

/// The consequence of an answer for delivery and endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    Delivered,
    TriedAgain,
    Rejected,
    /// Rejected, and the endpoint is disabled.
    Disabled,
}

/// The consequence that the platforms' webhook documentation demands.
fn fate(dialect: &str, behaviour: &str) -> Fate {
    match (dialect, behaviour.as_bytes()[0]) {
        (_, b'2') => Fate::Delivered,
        ("nudj", b'4') => Fate::Rejected,
        ("standard" | "cloudevents", b'4') if behaviour == "410" => Fate::Disabled,
        _ => Fate::TriedAgain,
    }
}

#[tokio::test]
async fn answers_have_the_outcomes_of_each_dialect() {
    let world = World::shared().await;
    let mut tenants = Vec::new();
    for dialect in DIALECTS {
        tenants.push(listening_to_all(&world, dialect).await);
    }
    join_all(tenants.iter().map(|(tenant, webhooks)| assert_fates(&world, tenant, webhooks))).await;
    // No further request may come.
    tokio::time::sleep(LONGER_THAN_ANY_WAIT).await;
    for (tenant, _) in &tenants {
        for (behaviour, _) in BEHAVIOURS {
            let path = format!("{}-{behaviour}", tenant.dialect);
            let first = if fate(tenant.dialect, behaviour) == Fate::TriedAgain { 2 } else { 1 };
            let second = usize::from(fate(tenant.dialect, behaviour) != Fate::Disabled);
            assert_eq!(world.receiver.received(&path).len(), first + second, "requests to {path}");
        }
    }
}

/// Creates a tenant with a webhook for each behaviour. Each webhook shows the behaviour once, then answers 200.
async fn listening_to_all(world: &World, dialect: &'static str) -> (Tenant, Vec<Webhook>) {
    let tenant = Tenant::new(world, dialect).await;
    let mut webhooks = Vec::new();
    for (name, behaviour) in BEHAVIOURS {
        let path = format!("{dialect}-{name}");
        world.receiver.script(&path, &[behaviour, Behaviour::OK]);
        webhooks.push(tenant.webhook(world, &world.receiver.url(&path), &["*"]).await);
    }
    (tenant, webhooks)
}

/// Publishes an event, checks all consequences, then publishes a second event.
async fn assert_fates(world: &World, tenant: &Tenant, webhooks: &[Webhook]) {
    let first = tenant.publish(&event()).await;
    for ((behaviour, _), webhook) in BEHAVIOURS.iter().zip(webhooks) {
        assert_fate(tenant, webhook, &first, behaviour).await;
    }
    world.known().await;
    let second = tenant.publish(&event()).await;
    for ((behaviour, _), webhook) in BEHAVIOURS.iter().zip(webhooks) {
        let is_disabled = fate(tenant.dialect, behaviour) == Fate::Disabled;
        tenant.delivery(&second, webhook, if is_disabled { "skipped" } else { "delivered" }).await;
    }
}

async fn assert_fate(tenant: &Tenant, webhook: &Webhook, event: &str, behaviour: &str) {
    let fate = fate(tenant.dialect, behaviour);
    let (state, sends, reason) = match fate {
        Fate::Delivered => ("delivered", 1, Value::Null),
        Fate::TriedAgain => ("delivered", 2, Value::Null),
        Fate::Rejected => ("failed", 1, json!("rejected")),
        Fate::Disabled => ("failed", 1, json!("endpoint_gone")),
    };
    let what = format!("{} after {behaviour}", tenant.dialect);
    let delivery = tenant.delivery(event, webhook, state).await;
    assert_eq!((attempts(&delivery).len(), &delivery["reason"]), (sends, &reason), "{what}: {delivery}");
    let first = &attempts(&delivery)[0];
    let (outcome, status) = match behaviour {
        "hang" => ("timed_out", Value::Null),
        "reset" => ("connection_closed", Value::Null),
        _ => ("answered", behaviour[..3].parse::<u16>().expect("a status").into()),
    };
    assert_eq!((&first["outcome"], &first["status"]), (&json!(outcome), &status), "{what}: {delivery}");
    let shown = tenant.client.get(&format!("webhooks/{}", webhook.id)).await;
    let status = if fate == Fate::Disabled { "disabled" } else { "enabled" };
    let reason = if fate == Fate::Disabled { json!("endpoint_gone") } else { Value::Null };
    assert_eq!((&shown.data()["status"], &shown.data()["status_reason"]), (&json!(status), &reason), "{what}");
}

/// Attempt timeouts of the dialects, in seconds.
const TIMEOUTS: [(&str, u64); 7] = [
    ("incenta", 10),
    ("incentable", 10),
    ("nudj", 30),
    ("reward", 10),
    ("ploints", 10),
    ("standard", 20),
    ("cloudevents", 20),
];

#[tokio::test]
async fn each_dialect_keeps_the_timeout_of_its_system() {
    let world = shipped_world().await;
    let mut tenants = Vec::new();
    for (dialect, seconds) in TIMEOUTS {
        let tenant = Tenant::new(&world, dialect).await;
        world.receiver.script(dialect, &[Behaviour::Hang]);
        let hanging = tenant.webhook(&world, &world.receiver.url(dialect), &["*"]).await;
        let slow = format!("{dialect}-slow");
        world.receiver.script(&slow, &[Behaviour::Answer(200, Duration::from_secs(seconds - 2))]);
        let slow = tenant.webhook(&world, &world.receiver.url(&slow), &["*"]).await;
        tenants.push((tenant, seconds, hanging, slow));
    }
    let _dispatcher = world.dispatcher().await;
    let times_out = |(tenant, seconds, hanging, slow)| times_out_after(tenant, seconds, hanging, slow);
    join_all(tenants.into_iter().map(times_out)).await;
}

async fn times_out_after(tenant: Tenant, seconds: u64, hanging: Webhook, slow: Webhook) {
    let event = tenant.publish(&event()).await;
    let dialect = tenant.dialect;
    let limit = patience() + Duration::from_secs(seconds);
    let path = format!("deliveries?event={event}&webhook={}&state=scheduled", hanging.id);
    let delivery = until_within(limit, &format!("an attempt in {dialect} to time out"), async || {
        Some(tenant.client.get(&path).await.data()[0]["id"].as_str()?.to_owned())
    })
    .await;
    let delivery = tenant.client.get(&format!("deliveries/{delivery}")).await.data().clone();
    let attempt = &attempts(&delivery)[0];
    assert_eq!(attempt["outcome"], "timed_out", "{dialect}: {delivery}");
    let duration = attempt["duration_ms"].as_u64().expect("a duration");
    let expected = seconds * 1000..(seconds + 5) * 1000;
    assert!(expected.contains(&duration), "an attempt in {dialect} timed out after {duration} ms");
    let delivery = tenant.delivery(&event, &slow, "delivered").await;
    assert_eq!(attempts(&delivery).len(), 1, "{dialect}: {delivery}");
}
