//! Templates: deliveries with bodies of the webhook's own form, on every way of an event.

use fanfare_tests::{
    patience::until,
    receiver::Behaviour,
    world::{Endpoint, Setup, World},
};
use hyper::Method;
use jiff::{SignedDuration, Timestamp};

use serde_json::{Value, json};

async fn shaped(world: &World, path: &str, events: &[&str], more: &Value) -> Endpoint {
    let mut new = json!({ "url": world.receiver.url(path), "events": events });
    for (name, value) in more.as_object().expect("members") {
        new[name] = value.clone();
    }
    let answer = world.client().post("webhooks", &new).await;
    assert_eq!((answer.status, &answer.data()["template"]), (201, &more["template"]), "{}", answer.body);
    let text = |name: &str| answer.data()[name].as_str().expect("a text").to_owned();
    Endpoint { id: text("id"), secret: text("secret"), path: path.to_owned() }
}

/// The bodies of all requests at a path, sorted.
fn bodies(world: &World, path: &str) -> Vec<String> {
    let text = |body: &[u8]| String::from_utf8(body.to_vec()).expect("UTF-8");
    let mut bodies: Vec<String> = world.receiver.received(path).iter().map(|request| text(&request.body)).collect();
    bodies.sort();
    bodies
}

async fn deliveries(world: &World, webhook: &Endpoint) -> Vec<Value> {
    world.deliveries(&format!("webhook={}", webhook.id)).await
}

async fn detail(world: &World, delivery: &Value) -> Value {
    let id = delivery["id"].as_str().expect("an id");
    world.client().get(&format!("deliveries/{id}")).await.data().clone()
}

#[tokio::test]
async fn an_event_is_rendered_once_and_each_attempt_sends_the_same_bytes() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    world.endpoint("usual", &["order.paid"]).await;
    let template = json!({ "text": "Paid: {{ data.n }}", "n": "{{ data.n }}" });
    let own = shaped(&world, "own", &["order.paid"], &json!({ "template": template, "schedule": ["60s"] })).await;
    world.known().await;
    world.receiver.script("own", &[Behaviour::FAIL, Behaviour::OK]);
    world.publish(&json!({ "type": "order.paid", "data": { "n": 7 } })).await;
    world.receiver.wait_for("own", 1).await;
    world.receiver.wait_for("usual", 1).await;
    assert!(bodies(&world, "usual")[0].contains(r#""data":{"n":7}"#));

    // A changed template changes no open delivery.
    world.change(&own, &json!({ "template": { "changed": true } })).await;
    let delivery = until("the retry", async || {
        deliveries(&world, &own).await.pop().filter(|delivery| delivery["state"] == "scheduled")
    })
    .await;
    let resend = format!("deliveries/{}/resend", delivery["id"].as_str().expect("an id"));
    assert!(world.client().post(&resend, &Value::Null).await.status < 300);
    world.receiver.wait_for("own", 2).await;
    let expected = r#"{"n":7,"text":"Paid: 7"}"#;
    assert_eq!(bodies(&world, "own"), [expected, expected]);
    let shown = until("the end", async || {
        Some(detail(&world, &delivery).await).filter(|delivery| delivery["state"] == "delivered")
    })
    .await;
    assert_eq!((&shown["body"], &shown["template_error"]), (&json!(expected), &Value::Null));
    let history = world.client().get(&format!("webhooks/{}/deliveries", own.id)).await;
    assert_eq!(history.data()[0]["payload"], json!({ "n": 7, "text": "Paid: 7" }), "{}", history.body);

    // A resend of the finished delivery sends the same bytes, too.
    assert!(world.client().post(&resend, &Value::Null).await.status < 300);
    world.receiver.wait_for("own", 3).await;
    assert_eq!(bodies(&world, "own"), [expected, expected, expected]);
    world.publish(&json!({ "type": "order.paid", "data": { "n": 8 } })).await;
    world.receiver.wait_for("own", 4).await;
    assert!(bodies(&world, "own").contains(&r#"{"changed":true}"#.to_owned()));
    assert_eq!(world.count("SELECT count(*) FROM delivery_bodies").await, 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_without_a_body_fails_visibly_and_is_repaired_by_a_mended_template() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let own = shaped(&world, "own", &["sum.made"], &json!({ "template": { "total": "{{ data.total * 2 }}" } })).await;
    world.known().await;
    let event = world.publish(&json!({ "type": "sum.made", "data": { "amount": 4 } })).await;
    world.publish(&json!({ "type": "sum.made", "data": { "total": 5 } })).await;
    world.receiver.wait_for("own", 1).await;
    assert_eq!(bodies(&world, "own"), [r#"{"total":10}"#]);
    let failed = until("the failure", async || {
        deliveries(&world, &own).await.into_iter().find(|delivery| delivery["state"] == "failed")
    })
    .await;
    assert_eq!(failed["reason"], json!("not_rendered"));
    let shown = detail(&world, &failed).await;
    let fault = "/total, character 8, in {{ data.total * 2 }}: the event has no member `total`";
    assert_eq!((&shown["template_error"], &shown["body"]), (&json!(fault), &json!("")));
    let why = world.client().get(&format!("events/{event}/why?webhook={}", own.id)).await;
    assert!(
        why.body.to_string().contains("not_rendered") && why.body.to_string().contains("has no member `total`"),
        "{}",
        why.body
    );

    // The same template fails again, and a mended template repairs the delivery.
    let resend = format!("deliveries/{}/resend", failed["id"].as_str().expect("an id"));
    let finished = async || Some(detail(&world, &failed).await).filter(|delivery| delivery["state"] != "queued");
    let answer = world.client().post(&resend, &Value::Null).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    until("the second failure", async || {
        finished().await.filter(|now| now["state"] == "failed" && now["finished_at"] != failed["finished_at"])
    })
    .await;
    world.change(&own, &json!({ "template": { "total": "{{ data.?total.orValue(0) }}" } })).await;
    world.known().await;
    let answer = world.client().post(&resend, &Value::Null).await;
    assert_eq!(answer.status, 200, "{}", answer.body);
    world.receiver.wait_for("own", 2).await;
    assert_eq!(bodies(&world, "own"), [r#"{"total":0}"#, r#"{"total":10}"#]);
    let shown = until("the end", async || finished().await.filter(|now| now["state"] == "delivered")).await;
    assert_eq!((&shown["body"], &shown["template_error"]), (&json!(r#"{"total":0}"#), &Value::Null));
}

#[tokio::test(flavor = "multi_thread")]
async fn replays_tests_and_delayed_events_use_the_template() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    world.publish(&json!({ "type": "a", "data": { "n": 1 } })).await;
    until("the event", async || (world.count("SELECT count(*) FROM events").await == 1).then_some(())).await;
    let own = shaped(&world, "own", &["a"], &json!({ "template": ["{{ type }}", "{{ data.n }}"] })).await;
    world.known().await;
    let since = (Timestamp::now() - SignedDuration::from_hours(1)).to_string();
    let new = json!({ "since": since, "webhook": own.id, "states": ["unmatched"] });
    assert_eq!(world.client().post("replays", &new).await.status, 201);
    world.receiver.wait_for("own", 1).await;
    assert_eq!(bodies(&world, "own"), [r#"["a",1]"#]);

    let test = world.client().post(&format!("webhooks/{}/test", own.id), &json!({ "data": { "n": 2 } })).await;
    assert_eq!(test.data()["request"]["body"], json!(r#"["a",2]"#), "{}", test.body);
    let refused = world.client().post(&format!("webhooks/{}/test", own.id), &json!({ "data": {} })).await;
    assert_eq!(refused.status, 422, "{}", refused.body);

    let soon = (Timestamp::now() + SignedDuration::from_secs(2)).to_string();
    world.publish(&json!({ "type": "a", "data": { "n": 3 }, "deliver_at": soon })).await;
    world.receiver.wait_for("own", 3).await;
    assert_eq!(bodies(&world, "own"), [r#"["a",1]"#, r#"["a",2]"#, r#"["a",3]"#]);
}

#[tokio::test(flavor = "multi_thread")]
async fn feeds_and_wide_events_have_the_bodies_of_the_template() {
    let world = World::of(Setup::new(&[("FANFARE_MAX_WEBHOOKS", "1000")])).await;
    let _dispatcher = world.dispatcher().await;
    let new = json!({ "feed": "only", "events": ["wide"], "template": { "n": "{{ data.n }}" } });
    let feed = world.client().post("webhooks", &new).await.data()["id"].as_str().expect("an id").to_owned();
    shaped(&world, "wide", &["wide"], &json!({ "template": "{{ data.n }} for all" })).await;
    let copies = "INSERT INTO endpoints (id, application_id, url, event_types, template, had_template)
                  SELECT gen_random_uuid(), application_id, url, event_types, template, true
                  FROM endpoints, generate_series(1, 299) WHERE feed = 'none'";
    let database = world.database().await;
    database.execute(copies, &[]).await.expect("the copies");
    database.execute("UPDATE applications SET version = version + 1", &[]).await.expect("a newer version");
    world.known().await;
    world.publish(&json!({ "type": "wide", "data": { "n": 1 } })).await;
    until("the fan-out", async || (world.count("SELECT count(*) FROM delivery_bodies").await == 301).then_some(()))
        .await;
    world.receiver.wait_for("wide", 1).await;
    assert_eq!(bodies(&world, "wide")[0], r#""1 for all""#);
    let page = until("the entry", async || {
        let page = world.client().get(&format!("webhooks/{feed}/feed")).await;
        page.data().as_array().is_some_and(|entries| !entries.is_empty()).then(|| page.body.to_string())
    })
    .await;
    assert!(page.contains(r#"{\"n\":1}"#), "{page}");
}

#[tokio::test]
async fn a_redacted_member_is_sent_and_hidden_and_erased() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let redacted = json!({ "redacted": ["card", "routing_key"] });
    let path = format!("applications/{}", world.application);
    assert_eq!(world.client().patch(&path, &redacted).await.status, 200);
    let template = json!({ "routing_key": "R1", "text": "card {{ data.card }}" });
    let own = shaped(&world, "own", &["card.paid"], &json!({ "template": template })).await;
    world.known().await;
    let event = world.publish(&json!({ "type": "card.paid", "data": { "card": "4111" } })).await;
    world.receiver.wait_for("own", 1).await;
    assert_eq!(bodies(&world, "own"), [r#"{"routing_key":"R1","text":"card 4111"}"#]);
    let delivery = until("the end", async || {
        deliveries(&world, &own).await.pop().filter(|delivery| delivery["state"] == "delivered")
    })
    .await;
    let shown = detail(&world, &delivery).await;
    assert_eq!(shown["body"], json!(r#"{"routing_key":"[redacted]","text":"card [redacted]"}"#));
    let erased = world.client().send(Method::DELETE, &format!("events/{event}"), &[], "").await.expect("an answer");
    assert!(erased.status < 300, "{}", erased.body);
    assert_eq!(world.count("SELECT count(*) FROM delivery_bodies").await, 0);
    assert_eq!(detail(&world, &delivery).await["body"], json!(""));
}

/// The fault is found when the event is persisted. The delivery still fails in its turn, and parks its key.
#[tokio::test]
async fn a_delivery_without_a_body_parks_its_ordering_key() {
    let world = World::of_waits("1s", &[]).await;
    let _dispatcher = world.dispatcher().await;
    let own = shaped(&world, "own", &["a"], &json!({ "template": { "n": "{{ data.n }}" }, "fifo": "park" })).await;
    world.known().await;
    for (place, data) in [json!({ "n": 1 }), json!({}), json!({ "n": 3 })].into_iter().enumerate() {
        world.publish(&json!({ "type": "a", "data": data, "ordering_key": "k", "id": format!("k-{place}") })).await;
    }
    let path = format!("webhooks/{}/ordering-keys", own.id);
    until("the parked key", async || {
        let keys = world.client().get(&path).await.data().clone();
        (keys[0]["state"] == "parked" && keys[0]["open"] == 1).then_some(())
    })
    .await;
    assert_eq!(bodies(&world, "own"), [r#"{"n":1}"#]);
    world.client().post(&format!("{path}/resume"), &json!({})).await.data();
    world.receiver.wait_for("own", 2).await;
    assert_eq!(bodies(&world, "own"), [r#"{"n":1}"#, r#"{"n":3}"#]);
}

/// A feed lists a delivery with the body that is sent: not before the body is made.
#[tokio::test]
async fn a_feed_lists_a_repaired_and_a_requested_delivery_with_the_own_body() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let own = shaped(&world, "own", &["a"], &json!({ "template": { "n": "{{ data.n }}" }, "feed": "copy" })).await;
    world.known().await;
    world.publish(&json!({ "type": "a", "data": {} })).await;
    let other = world.publish(&json!({ "type": "b", "data": { "n": 2 } })).await;
    let failed = world.wait_for_deliveries("state=failed", 1).await;
    world.change(&own, &json!({ "template": { "n": "{{ data.?n.orValue(0) }}" } })).await;
    let id = failed[0]["id"].as_str().expect("an id");
    world.client().post(&format!("deliveries/{id}/resend"), &json!({})).await.data();
    world.client().post(&format!("events/{other}/send"), &json!({ "webhook": own.id })).await.data();
    world.wait_for_deliveries("state=delivered", 2).await;
    let path = format!("webhooks/{}/feed", own.id);
    let entries = until("the feed", async || {
        let page = world.client().get(&path).await.data().clone();
        page.as_array().filter(|entries| entries.len() == 2).cloned()
    })
    .await;
    let mut listed: Vec<String> =
        entries.iter().map(|entry| entry["body"].as_str().unwrap_or_default().to_owned()).collect();
    listed.sort();
    assert_eq!(listed, [r#"{"n":0}"#, r#"{"n":2}"#], "{entries:?}");
    assert_eq!(bodies(&world, "own"), listed);
}
