//! Filters: events reach the webhooks whose filter they meet, on every way of an event.

use std::time::Duration;

use fanfare_tests::{
    metrics::metric,
    patience::until,
    world::{Endpoint, Setup, World},
};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// Webhooks with filters of their own, more than the dispatcher asks beside other events.
const MANY: usize = 130;

async fn filtered(world: &World, path: &str, events: &[&str], filter: &str) -> Endpoint {
    let new = json!({ "url": world.receiver.url(path), "events": events, "filter": filter });
    let answer = world.client().post("webhooks", &new).await;
    assert_eq!((answer.status, &answer.data()["filter"]), (201, &json!(filter)), "{}", answer.body);
    let text = |name: &str| answer.data()[name].as_str().expect("a text").to_owned();
    Endpoint { id: text("id"), secret: text("secret"), path: path.to_owned() }
}

/// The numbers in the data of all requests at a path, sorted.
fn numbers(world: &World, path: &str) -> Vec<i64> {
    let number = |body: &[u8]| {
        let body: Value = serde_json::from_slice(body).expect("JSON");
        body["data"]["n"].as_i64().expect("a number")
    };
    let mut numbers: Vec<i64> = world.receiver.received(path).iter().map(|request| number(&request.body)).collect();
    numbers.sort_unstable();
    numbers
}

#[tokio::test]
async fn events_over_http_and_amqp_reach_the_webhooks_whose_filter_they_meet() {
    let world = World::new().await;
    let dispatcher = world.dispatcher().await;
    world.endpoint("all", &["order.*"]).await;
    let large = filtered(&world, "large", &["order.*"], "data.n > 2 && type == \"order.paid\"").await;
    filtered(&world, "missing", &["order.*"], "data.missing == 1").await;
    filtered(&world, "optional", &["order.*"], "data.?missing.orValue(1) == 1").await;
    world.known().await;
    for number in 1..=3 {
        world.publish(&json!({ "type": "order.paid", "data": { "n": number } })).await;
    }
    world.publish(&json!({ "type": "order.sent", "data": { "n": 4 } })).await;
    let broker = world.broker().await;
    let key = format!("{}.order.paid", world.application);
    assert!(broker.publish(&key, Some("by-amqp"), &[], r#"{"data":{"n":5}}"#).await.expect("a confirm"));
    assert!(broker.publish(&key, Some("by-amqp-2"), &[], r#"{"data":{"n":0}}"#).await.expect("a confirm"));
    world.receiver.wait_for("all", 6).await;
    world.receiver.wait_for("optional", 6).await;
    world.receiver.wait_for("large", 2).await;
    assert_eq!(numbers(&world, "large"), [3, 5]);
    assert_eq!(world.receiver.received("missing").len(), 0, "a filter without a result is a no");
    assert_eq!(world.deliveries(&format!("webhook={}", large.id)).await.len(), 2);
    let matches = "SELECT count(*) FROM events WHERE matches = 2";
    assert_eq!(world.count(matches).await, 4, "an event counts the webhooks that it goes to");
    for (result, count) in [("true", 8.0), ("false", 4.0), ("error", 6.0)] {
        let series = format!("fanfare_filters_total{{result=\"{result}\"}}");
        assert!((metric(&dispatcher, &series).await - count).abs() < 0.5, "{result}");
    }

    // A change takes effect with the next event.
    world.change(&large, &json!({ "filter": "data.n < 2" })).await;
    world.publish(&json!({ "type": "order.paid", "data": { "n": 1 } })).await;
    world.receiver.wait_for("large", 3).await;
    world.change(&large, &json!({ "filter": null })).await;
    world.publish(&json!({ "type": "order.sent", "data": { "n": 9 } })).await;
    world.receiver.wait_for("large", 4).await;
    assert_eq!(numbers(&world, "large"), [1, 3, 5, 9]);
}

/// The fan-out is in chunks. The dispatcher is killed on the way, and another continues.
#[tokio::test(flavor = "multi_thread")]
async fn a_wide_event_reaches_the_webhooks_whose_filter_it_meets_though_its_dispatcher_is_killed() {
    let variables = [("FANFARE_PLACES", "32"), ("FANFARE_MAX_WEBHOOKS", "20000")];
    let world = World::of(Setup { timeout: Some("5s".to_owned()), ..Setup::new(&variables) }).await;
    filtered(&world, "wide", &["wide"], "data.n >= 0").await;
    let copies = "INSERT INTO endpoints (id, application_id, url, event_types, filter)
                  SELECT gen_random_uuid(), application_id, url || '/' || number, event_types,
                         CASE WHEN number % 2 = 0 THEN 'data.n >= ' || number ELSE 'data.n > -' || number END
                  FROM endpoints, generate_series(1, 1999) number";
    let database = world.database().await;
    database.execute(copies, &[]).await.expect("the copies");
    database.execute("UPDATE applications SET version = version + 1", &[]).await.expect("a newer version");
    let dispatcher = world.dispatcher().await;
    world.publish(&json!({ "type": "wide", "data": { "n": 1 } })).await;
    until("the fan-out to begin", async || {
        (world.count("SELECT count(*) FROM all_deliveries").await >= 100).then_some(())
    })
    .await;
    dispatcher.kill();
    assert_eq!(world.count("SELECT count(*) FROM fan_outs").await, 1, "the fan-out had ended before the kill");
    let _dispatcher = world.dispatcher().await;
    // All odd copies, and the first webhook.
    until("the end of the fan-out", async || (world.count("SELECT count(*) FROM fan_outs").await == 0).then_some(()))
        .await;
    assert_eq!(world.count("SELECT count(*) FROM all_deliveries").await, 1001);
    assert_eq!(world.count("SELECT matches::bigint FROM events").await, 1001);
    let even = "SELECT count(*) FROM all_deliveries d JOIN endpoints e ON e.id = d.endpoint_id
                WHERE e.filter LIKE 'data.n >= _%' AND e.url LIKE '%/wide/%'";
    assert_eq!(world.count(even).await, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn many_filters_written_to_be_slow_hold_up_no_other_application() {
    let world = World::of(Setup::new(&[("FANFARE_MAX_WEBHOOKS", "1000")])).await;
    let _dispatcher = world.dispatcher().await;
    filtered(&world, "slow", &["slow"], "data.a.all(x, data.a.exists(y, x == y + 1000000))").await;
    let copies = format!(
        "INSERT INTO endpoints (id, application_id, url, event_types, filter)
         SELECT gen_random_uuid(), application_id, url || '/' || number, event_types,
                filter || ' && ' || number || ' > 0'
         FROM endpoints, generate_series(1, {MANY}) number"
    );
    let database = world.database().await;
    database.execute(&copies, &[]).await.expect("the copies");
    database.execute("UPDATE applications SET version = version + 1", &[]).await.expect("a newer version");
    let (other, client) = world.other_application().await;
    let url = world.receiver.url("other");
    assert_eq!(client.post("webhooks", &json!({ "url": url, "events": ["*"] })).await.status, 201);
    world.known().await;
    let list: Vec<usize> = (0..30_000).collect();
    let broker = world.broker().await;
    for number in 0..20 {
        let key = format!("{}.slow", world.application);
        let body = json!({ "data": { "a": list } }).to_string();
        assert!(broker.publish(&key, Some(&format!("slow-{number}")), &[], body).await.expect("a confirm"));
    }
    let began = Timestamp::now();
    let key = format!("{other}.fast");
    assert!(broker.publish(&key, Some("fast"), &[], r#"{"data":1}"#).await.expect("a confirm"));
    let received = world.receiver.wait_for("other", 1).await;
    let took = received[0].at.duration_since(began);
    println!("an event behind 20 slow events took {took:#}");
    assert!(took < SignedDuration::from_secs(5), "{took:#}");
    until("the slow events", async || (world.count("SELECT count(*) FROM events").await >= 21).then_some(())).await;
    assert_eq!(world.receiver.received("slow").len(), 0);
    tokio::time::sleep(Duration::from_millis(100)).await;
}

#[tokio::test]
async fn a_replay_asks_the_present_filter() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    for number in 1..=4 {
        world.publish(&json!({ "type": "a", "data": { "n": number, "card": { "number": "4111" } } })).await;
    }
    until("the events", async || (world.count("SELECT count(*) FROM events").await >= 4).then_some(())).await;
    let later = filtered(&world, "later", &["a"], "data.n % 2 == 0 && data.card.number == \"4111\"").await;
    world.known().await;
    let since = (Timestamp::now() - SignedDuration::from_hours(1)).to_string();
    let new = json!({ "since": since, "webhook": later.id, "states": ["unmatched"] });
    let counted = world.client().post("replays/dry-run", &new).await;
    assert_eq!((&counted.data()["events"], &counted.data()["deliveries"]), (&json!(4), &json!(2)), "{}", counted.body);
    assert_eq!(world.client().post("replays", &new).await.status, 201);
    world.receiver.wait_for("later", 2).await;
    until("the end of the replay", async || {
        (world.count("SELECT count(*) FROM replays WHERE state = 'done'").await == 1).then_some(())
    })
    .await;
    assert_eq!(numbers(&world, "later"), [2, 4]);

    // A test and a delivery on request ignore the filter.
    let test = world.client().post(&format!("webhooks/{}/test", later.id), &json!({ "data": { "n": 1 } })).await;
    assert_eq!(test.data()["delivered"], json!(true), "{}", test.body);
    let event = world.publish(&json!({ "type": "a", "data": { "n": 7 } })).await;
    until("the event", async || {
        (world.count("SELECT count(*) FROM events WHERE NOT is_test").await >= 5).then_some(())
    })
    .await;
    let sent = world.client().post(&format!("events/{event}/send"), &json!({ "webhook": later.id })).await;
    assert!(sent.status < 300, "{}", sent.body);
    world.receiver.wait_for("later", 4).await;
}
