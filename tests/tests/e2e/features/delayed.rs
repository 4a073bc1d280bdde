//! Delayed events: delivered when due, and cancelled until then.

use std::time::Duration;

use fanfare_tests::{
    clients::api::{Answer, Client},
    patience::until,
    world::World,
};
use hyper::Method;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

/// The time in `seconds`.
fn ahead(seconds: i64) -> Timestamp {
    Timestamp::now() + SignedDuration::from_secs(seconds)
}

fn event(key: &str, due: Timestamp) -> Value {
    json!({ "type": "a", "data": key, "id": key, "deliver_at": due })
}

fn error<'a>(answer: &'a Answer, member: &str) -> &'a str {
    answer.body["error"][member].as_str().unwrap_or_default()
}

async fn status(world: &World, event: &str) -> String {
    let answer = world.client().get(&format!("events/{event}")).await;
    answer.body["data"]["status"].as_str().unwrap_or_default().to_owned()
}

async fn until_status(world: &World, event: &str, wanted: &str) {
    until(wanted, async || (status(world, event).await == wanted).then_some(())).await;
}

async fn cancel(client: &Client, event: &str) -> Answer {
    client.post(&format!("events/{event}/cancel"), &Value::Null).await
}

#[tokio::test]
async fn an_event_is_delivered_when_it_is_due_with_the_settings_of_that_moment() {
    let world = World::shared().await;
    let early = world.endpoint("early", &["a"]).await;
    let due = ahead(4);
    let batch = json!([event("batch", due), { "type": "a", "data": 1, "id": "ordinary" }]);
    assert_eq!(world.client().post("events/batch", &batch).await.status, 202);
    let id = world.publish(&event("single", due)).await;
    until_status(&world, &id, "delayed").await;
    world.receiver.wait_for(&early.path, 1).await;
    let shown = world.client().get(&format!("events/{id}")).await;
    let (shown, deliveries) = (shown.data(), &shown.data()["deliveries"]);
    assert_eq!((&shown["matched_webhooks"], deliveries), (&json!(0), &json!([])));
    let shown_due: Timestamp = shown["deliver_at"].as_str().expect("a time").parse().expect("a time");
    assert_eq!(shown_due.as_millisecond(), due.as_millisecond());
    let listed = world.client().get("events?delayed=true").await;
    assert_eq!(listed.data().as_array().expect("a list").len(), 2, "{}", listed.body);
    // Published again under its key, the event stays delayed.
    world.publish(&json!({ "type": "a", "data": "single", "id": "single" })).await;
    // The match happens when the event is due.
    let late = world.endpoint("late", &["a"]).await;
    world.change(&early, &json!({ "events": ["b"] })).await;
    let received = world.receiver.wait_for(&late.path, 2).await;
    for request in &received {
        assert!(request.at >= due, "too early: {} before {due}", request.at);
        assert!(request.at <= due + SignedDuration::from_secs(20), "late");
    }
    until_status(&world, &id, "fanned_out").await;
    world.wait_for_deliveries(&format!("event={id}&state=delivered"), 1).await;
    assert_eq!(world.receiver.received(&early.path).len(), 1, "the ordinary event");
    let why = world.client().get(&format!("events/{id}/why")).await;
    assert_eq!(why.data()["steps"][1]["code"], "due", "{}", why.body);
    let again = cancel(world.client(), &id).await;
    assert_eq!((again.status, error(&again, "code")), (409, "event_due"));
}

#[tokio::test]
async fn a_time_that_is_not_ahead_delivers_at_once_and_a_time_too_far_ahead_is_refused() {
    let world = World::shared().await;
    let endpoint = world.endpoint("one", &["a"]).await;
    let past = world.publish(&event("past", ahead(-3600))).await;
    world.receiver.wait_for(&endpoint.path, 1).await;
    let shown = world.client().get(&format!("events/{past}")).await;
    assert_eq!((&shown.data()["deliver_at"], &shown.data()["status"]), (&Value::Null, &json!("fanned_out")));
    let far = ahead(400 * 86400);
    let refused = world.client().post("events", &event("far", far)).await;
    assert_eq!(
        (refused.status, error(&refused, "code"), error(&refused, "field")),
        (422, "too_far_ahead", "deliver_at")
    );
    let greatest = error(&refused, "message")
        .split_whitespace()
        .find_map(|word| word.trim_end_matches(',').parse::<Timestamp>().ok());
    let greatest = greatest.expect("the greatest time");
    assert!(greatest > ahead(60) && greatest < far, "{greatest}");
    let batch = world.client().post("events/batch", &json!([event("far", far), event("near", ahead(3600))])).await;
    assert_eq!((batch.status, &batch.data()[0]["error"]["code"]), (207, &json!("too_far_ahead")));
    let accepted = greatest - SignedDuration::from_secs(1);
    assert_eq!(world.client().post("events", &event("greatest", accepted)).await.status, 202);
    for due in [json!("tomorrow"), json!("2026-06-19T10:00:00")] {
        let faulty = world.client().post("events", &json!({ "type": "a", "data": 1, "deliver_at": due })).await;
        assert_eq!((faulty.status, error(&faulty, "field")), (422, "deliver_at"), "{due}");
    }
}

#[tokio::test]
async fn publishers_over_amqp_and_of_cloud_events_delay_events() {
    let world = World::shared().await;
    let endpoint = world.endpoint("one", &["a"]).await;
    let (broker, routing_key, due) = (world.broker().await, format!("{}.a", world.application), ahead(3));
    let own = json!({ "data": 1, "deliver_at": due }).to_string();
    let cloud = |id: &str, due: Timestamp| {
        let attributes = json!({ "specversion": "1.0", "id": id, "source": "/shop", "type": "a", "data": 1 });
        let mut event = attributes.as_object().expect("an object").clone();
        event.insert("deliverat".to_owned(), json!(due));
        Value::from(event).to_string()
    };
    assert!(broker.publish(&routing_key, Some("own"), &[], &own).await.expect("the broker"));
    assert!(broker.publish(&routing_key, Some("c"), &[], &cloud("amqp", due)).await.expect("the broker"));
    let media = [("content-type", "application/cloudevents+json")];
    let over_http = world.client().send(Method::POST, "events", &media, cloud("http", due)).await.expect("an answer");
    assert_eq!(over_http.status, 202);
    let binary = [
        ("content-type", "application/json"),
        ("ce-specversion", "1.0"),
        ("ce-id", "binary"),
        ("ce-source", "/shop"),
        ("ce-type", "a"),
        ("ce-deliverat", &due.to_string()),
    ];
    assert_eq!(world.client().send(Method::POST, "events", &binary, "1").await.expect("an answer").status, 202);
    let received = world.receiver.wait_for(&endpoint.path, 4).await;
    assert!(received.iter().all(|request| request.at >= due));

    let far = json!({ "data": 1, "deliver_at": ahead(400 * 86400) }).to_string();
    assert!(broker.publish(&routing_key, Some("far"), &[], &far).await.expect("the broker"));
    let parked = format!(
        "SELECT count(*) FROM parked WHERE reason = 'too_far_ahead' AND message_id = 'far' AND routing_key = '{routing_key}'"
    );
    until("the parked message", async || (world.count(&parked).await == 1).then_some(())).await;
}

#[tokio::test]
async fn a_publisher_cancels_an_event_by_id_or_key_until_it_is_due() {
    let world = World::shared().await;
    let endpoint = world.endpoint("one", &["a"]).await;
    let publisher = world.client_of(&["--application", &world.application, "--role", "publish"]).await;
    let due = ahead(5);
    let by_id = world.publish(&event("by-id", due)).await;
    let by_key = world.publish(&event("by key", due)).await;
    for id in [&by_id, &by_key] {
        until_status(&world, id, "delayed").await;
    }
    let first = cancel(&publisher, &by_id).await;
    assert_eq!((first.status, &first.data()["already_cancelled"]), (200, &json!(false)), "{}", first.body);
    let second = cancel(&publisher, &by_id).await;
    assert_eq!((second.status, &second.data()["already_cancelled"]), (200, &json!(true)));
    assert_eq!(first.data()["cancelled_at"], second.data()["cancelled_at"]);
    let named = publisher.post("events/cancel?key=by%20key", &Value::Null).await;
    assert_eq!((named.status, &named.data()["id"]), (200, &json!(by_key)));
    for (path, field) in [("events/cancel?key=nobody", "key"), ("events/evt_01h455vb4pex5vsknk084sn02q/cancel", "id")] {
        let missing = publisher.post(path, &Value::Null).await;
        assert_eq!((missing.status, error(&missing, "field")), (404, field), "{}", missing.body);
    }
    let shown = world.client().get(&format!("events/{by_id}")).await;
    assert_eq!((&shown.data()["status"], &shown.data()["key"]), (&json!("cancelled"), &json!("by-id")));
    let author = shown.data()["cancelled_by"].as_str().expect("an author").to_owned();
    assert!(author.starts_with("key_"), "{author}");
    let listed = world.client().get("events?cancelled=true").await;
    assert_eq!(listed.data().as_array().expect("a list").len(), 2);
    let why = world.client().get(&format!("events/{by_id}/why")).await;
    let step = &why.data()["steps"][1];
    assert_eq!((&step["code"], &step["state"]), (&json!("cancelled"), &json!("problem")), "{}", why.body);
    assert!(step["sentence"].as_str().expect("a sentence").contains(&author), "{step}");

    // The key stays used, and nothing sends the event.
    assert_eq!(world.publish(&json!({ "type": "a", "data": "by-id", "id": "by-id" })).await, by_id);
    let sent = world.client().post(&format!("events/{by_id}/send"), &json!({ "webhook": endpoint.id })).await;
    assert_eq!((sent.status, error(&sent, "code")), (409, "not_resendable"));
    let last = world.publish(&event("last", due)).await;
    world.wait_for_deliveries(&format!("event={last}&state=delivered"), 1).await;
    assert_eq!(world.receiver.received(&endpoint.path).len(), 1);

    let log = world.client().get("audit-log?limit=100").await;
    let entries: Vec<_> =
        log.data().as_array().expect("a list").iter().filter(|entry| entry["key"] == *author).collect();
    let told: Vec<_> = entries.iter().map(|entry| (&entry["action"], &entry["outcome"], &entry["subject"])).collect();
    assert!(told.contains(&(&json!("cancel_event"), &json!("done"), &json!([by_id]))), "{}", log.body);
    assert!(told.contains(&(&json!("cancel_event_by_key"), &json!("refused"), &json!([]))), "{}", log.body);
}

/// Cancels events around their due time: each is either cancelled or delivered.
#[tokio::test(flavor = "multi_thread")]
async fn each_event_cancelled_around_its_due_time_is_either_cancelled_or_delivered() {
    const EVENTS: usize = 60;
    let world = World::new().await;
    let _dispatchers = [world.dispatcher().await, world.dispatcher().await];
    let endpoint = world.endpoint("one", &["a"]).await;
    let due = ahead(3);
    let mut ids = Vec::new();
    for number in 0..EVENTS {
        ids.push(world.publish(&event(&number.to_string(), due)).await);
    }
    let delayed = "SELECT count(*) FROM events WHERE deliver_at IS NOT NULL";
    until("the delayed events", async || (world.count(delayed).await == 60).then_some(())).await;
    let mut cancelled = Vec::new();
    for (id, number) in ids.iter().zip(0..) {
        let at = due + SignedDuration::from_millis(number * 40 - 1200);
        tokio::time::sleep(Duration::try_from(at.duration_since(Timestamp::now())).unwrap_or_default()).await;
        let answer = cancel(world.client(), id).await;
        assert!(matches!(answer.status, 200 | 409), "{}", answer.body);
        if answer.status == 200 {
            cancelled.push(id.clone());
        }
    }
    let count = EVENTS - cancelled.len();
    assert!(!cancelled.is_empty() && count > 0, "{count} of {EVENTS} events were due before their cancellation");
    world.wait_for_deliveries("state=delivered", count.min(50)).await;
    until("all other events", async || (world.receiver.received(&endpoint.path).len() >= count).then_some(())).await;
    let received = world.receiver.received(&endpoint.path);
    assert_eq!(received.len(), count);
    assert!(received.iter().all(|request| !cancelled.iter().any(|id| id == request.event())));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_due_during_an_outage_is_delivered_afterwards_and_an_erased_event_never() {
    let world = World::new().await;
    let dispatcher = world.dispatcher().await;
    let [open, paused, disabled] = [
        world.endpoint("open", &["a"]).await,
        world.endpoint("paused", &["a"]).await,
        world.endpoint("disabled", &["a"]).await,
    ];
    let due = ahead(3);
    let kept = world.publish(&event("kept", due)).await;
    let erased = world.publish(&event("erased", due)).await;
    until_status(&world, &kept, "delayed").await;
    until_status(&world, &erased, "delayed").await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, 0);
    world.change(&paused, &json!({ "status": "paused" })).await;
    world.change(&disabled, &json!({ "status": "disabled" })).await;
    let answer = world.client().send(Method::DELETE, &format!("events/{erased}"), &[], "").await.expect("an answer");
    assert_eq!(answer.status, 200, "{}", answer.body);
    tokio::time::sleep(Duration::try_from(ahead(1).duration_since(Timestamp::now())).unwrap_or_default()).await;
    until("the due time", async || (Timestamp::now() > due).then_some(())).await;
    assert_eq!(status(&world, &kept).await, "delayed");
    let _dispatcher = world.dispatcher().await;
    world.receiver.wait_for(&open.path, 1).await;
    world.wait_for_deliveries(&format!("event={kept}&state=held"), 1).await;
    world.wait_for_deliveries(&format!("event={kept}&state=skipped"), 1).await;
    assert_eq!(world.deliveries(&format!("event={erased}")).await, Vec::<Value>::new());
    assert_eq!(world.count("SELECT count(*) FROM delayed_events").await, 0);
    assert!(world.receiver.all().iter().all(|request| request.event() != erased));
}
