//! Event types of an application: the dialect's types, the application's own types, subscriptions, and events with an
//! undescribed or unsubscribed type.

use fanfare_tests::{
    patience::until,
    world::{World, process::fanfare},
};
use hyper::Method;
use serde_json::{Value, json};

use crate::api::{assert_refused, checked_client::JSON, event, list, text};

fn described(name: &str) -> Value {
    json!({ "name": name, "category": "Loyalty", "description": "What it says", "sample": { "n": [1, 2.50] } })
}

/// The listed event type with this name. Fails if the name is listed twice.
async fn listed(world: &World, name: &str) -> Option<Value> {
    let all = world.client().get("event-types").await.data().clone();
    let found: Vec<_> = list(&all).iter().filter(|described| text(described, "name") == name).cloned().collect();
    assert!(found.len() < 2, "{found:?}");
    found.into_iter().next()
}

#[tokio::test]
async fn event_types_are_listed_described_and_removed() {
    let world = World::shared_of_dialect("ploints").await;
    let (_, other) = world.other_application().await;
    let client = world.client();
    let earned = listed(&world, "points.earned").await.expect("the dialect's event type");
    assert_eq!((text(&earned, "source"), text(&earned, "description")), ("dialect", "A customer was awarded points"));
    assert_eq!((text(&earned, "category"), &earned["sample"]["amount"]), ("Points", &json!(50)));

    let made = client.post("event-types", &described("loyalty.tier.reached")).await;
    assert_eq!((made.status, text(made.data(), "source")), (201, "application"));
    assert_eq!(listed(&world, "loyalty.tier.reached").await.as_ref(), Some(made.data()));
    let mut again = described("loyalty.tier.reached");
    again["sample"] = json!(null);
    assert_eq!(client.post("event-types", &again).await.status, 201, "an event type with the same name is replaced");
    assert_eq!(listed(&world, "loyalty.tier.reached").await.expect("listed")["sample"], Value::Null);
    client.post("event-types", &described("points.earned")).await.data();
    let own = listed(&world, "points.earned").await.expect("listed");
    assert_eq!(
        (text(&own, "source"), text(&own, "category")),
        ("application", "Loyalty"),
        "the application's own type overrides the dialect's type"
    );
    let all = other.get("event-types").await.data().clone();
    assert!(
        list(&all).iter().all(|described| described["source"] == "dialect"),
        "another application lists the event type"
    );

    assert_refused("another's", &other.delete("event-types/points.earned").await, (404, "not_found", "name"));
    assert_eq!(
        client.delete("event-types/points.earned").await.data(),
        &json!({ "name": "points.earned", "deleted": true })
    );
    assert_eq!(listed(&world, "points.earned").await, Some(earned), "the dialect's type is not listed again");
    for name in ["points.earned", "never.described", "a%20b", "%00"] {
        assert_refused(name, &client.delete(&format!("event-types/{name}")).await, (404, "not_found", "name"));
    }
    let with = |member: &str, value: Value| {
        let mut new = described("loyalty.level");
        new[member] = value;
        new
    };
    let deep = "[".repeat(101) + &"]".repeat(101);
    for (what, new, refusal) in [
        ("no name", with("name", json!("a b")), (422, "invalid_field", "name")),
        ("a wildcard", with("name", json!("a.*")), (422, "invalid_field", "name")),
        ("a long name", with("name", json!("a".repeat(129))), (422, "field_too_long", "name")),
        ("a blank category", with("category", json!(" ")), (422, "invalid_field", "category")),
        ("a line break", with("description", json!("a\nb")), (422, "invalid_field", "description")),
        ("a number", with("description", json!(1)), (422, "wrong_type", "description")),
        ("a large sample", with("sample", json!("a".repeat(32 * 1024))), (422, "field_too_long", "sample")),
        ("no name", json!({ "category": "a", "description": "a" }), (422, "missing_field", "name")),
        ("another field", with("schemas", json!({})), (422, "unknown_field", "schemas")),
    ] {
        assert_refused(what, &client.post("event-types", &new).await, refusal);
    }
    let raw = format!(r#"{{"name":"a","category":"a","description":"a","sample":{deep}}}"#);
    let refused = client.send(Method::POST, "event-types", &[JSON], raw).await.expect("an answer");
    assert_refused("a deep sample", &refused, (400, "too_deep", "sample"));
}

#[tokio::test]
async fn an_event_type_needs_only_a_name() {
    let world = World::shared().await;
    let made = world.client().post("event-types", &json!({ "name": "invoice.voided" })).await;
    let expected = json!({ "name": "invoice.voided", "category": null, "description": null, "sample": {},
        "schema_version": null, "source": "application" });
    assert_eq!((made.status, made.data()), (201, &expected));
    assert_eq!(listed(&world, "invoice.voided").await, Some(expected));
    let endpoint = world.endpoint("a", &["invoice.voided"]).await;
    let sent = world.client().post(&format!("webhooks/{}/test", endpoint.id), &json!({})).await;
    assert_eq!(sent.status, 200, "the sample of the type is sent: {}", sent.body);
    let request = world.receiver.wait_for("a", 1).await.remove(0);
    assert_eq!(serde_json::from_slice::<Value>(&request.body).expect("JSON")["data"], json!({}));
}

#[tokio::test]
async fn the_sample_of_a_type_is_published_as_a_real_event() {
    let world = World::shared_of_dialect("ploints").await;
    let (client, (_, other)) = (world.client(), world.other_application().await);
    client.post("event-types", &described("order/paid:eu")).await.data();
    let wants = world.endpoint("wants", &["order/paid:eu"]).await;
    world.endpoint("others", &["points.earned"]).await;
    world.known().await;
    let published = client.post("event-types/order%2Fpaid:eu/publish", &Value::Null).await;
    assert_eq!(published.status, 202, "{}", published.body);
    let request = world.receiver.wait_for("wants", 1).await.remove(0);
    assert_eq!(serde_json::from_slice::<Value>(&request.body).expect("JSON")["data"], json!({ "n": [1, 2.5] }));
    assert!(fanfare_tests::receiver::signature::is_signed_as_standard(&request, &wants.secret));
    let made = event(&world, text(published.data(), "id")).await;
    assert_eq!((text(&made, "type"), &made["test"]), ("order/paid:eu", &json!(false)));
    assert_eq!(world.receiver.received("others").len(), 0);
    let entries = client.get("audit-log?action=publish_sample").await;
    assert_eq!(entries.data()[0]["subject"], json!([made["id"]]), "{}", entries.body);
    let unknown = client.post("event-types/never.described/publish", &Value::Null).await;
    assert_refused("an undescribed type", &unknown, (404, "not_found", "name"));
    let foreign = other.post("event-types/order%2Fpaid:eu/publish", &Value::Null).await;
    assert_refused("another application's type", &foreign, (404, "not_found", "name"));
}

/// The subscription is created. The answer warns, and suggests the nearest described type.
#[tokio::test]
async fn a_subscription_to_an_undescribed_type_has_a_warning() {
    let world = World::shared_of_dialect("ploints").await;
    let client = world.client();
    let new = json!({ "url": world.receiver.url("a"), "events": ["points.*", "points.earnt"] });
    let made = client.post("webhooks", &new).await;
    assert_eq!((made.status, list(&made.data()["warnings"]).len()), (201, 1), "{}", made.body);
    let warning = made.data()["warnings"][0].as_str().expect("a text");
    assert!(warning.contains("points.earnt") && warning.ends_with("did you mean points.earned?"), "{warning}");
    let path = format!("webhooks/{}", text(made.data(), "id"));
    assert_eq!(client.get(&path).await.data().get("warnings"), None, "only the answer of a change has warnings");
    let changed = client.patch(&path, &json!({ "events": ["points.earned"] })).await;
    assert_eq!((changed.status, changed.data().get("warnings")), (200, None), "{}", changed.body);

    let changed = client.patch(&path, &json!({ "events": ["never.described"] })).await;
    assert_eq!((changed.status, list(&changed.data()["warnings"]).len()), (200, 1), "{}", changed.body);
    world.known().await;
    world.publish(&json!({ "type": "never.described", "data": 1 })).await;
    world.receiver.wait_for("a", 1).await;
    // Without a described type, the test event has an empty object.
    let sent = client.post(&format!("{path}/test"), &json!({})).await;
    assert_eq!(sent.status, 200, "{}", sent.body);
    let test = world.receiver.wait_for("a", 2).await.remove(1);
    let test: Value = serde_json::from_slice(&test.body).expect("JSON");
    assert_eq!((text(&test, "type"), &test["data"]), ("never.described", &json!({})));
}

#[tokio::test]
async fn a_strict_application_subscribes_only_to_described_types() {
    let world = World::shared_of_dialect("ploints").await;
    let client = world.client();
    client.patch(&format!("applications/{}", world.application), &json!({ "strict": true })).await.data();
    let url = world.receiver.url("a");
    let subscribe = async |events: Value| client.post("webhooks", &json!({ "url": url, "events": events })).await;
    for (events, nearest) in [
        (json!(["points.earnt"]), "points.earned"),
        (json!(["*", "custommer.created"]), "customer.created"),
        (json!(["POINTS.REDEEMED"]), "points.redeemed"),
        (json!(["point.*"]), ""),
        (json!(["points.earned.*"]), "points.earned"),
        (json!(["loyalty.*"]), ""),
        (json!(["xyz"]), ""),
    ] {
        let refused = subscribe(events.clone()).await;
        assert_refused(&events.to_string(), &refused, (422, "unknown_event_type", "events"));
        let message = text(&refused.body["error"], "message");
        let last = list(&events).last().and_then(Value::as_str).expect("a text");
        assert!(message.contains(last), "{message}");
        let is_suggested = nearest.is_empty() || message.ends_with(&format!("did you mean {nearest}?"));
        assert!(is_suggested, "{events}: {message}");
    }
    client.post("event-types", &described("loyalty.tier.reached")).await.data();
    assert_eq!(subscribe(json!(["loyalty.*"])).await.status, 201, "the pattern matches an event type now");
    let made = subscribe(json!(["loyalty.tier.reached", "loyalty.tier.*", "points.*", "*"])).await;
    assert_eq!(made.status, 201, "{}", made.body);

    // A subscription to a removed event type stays, and other fields can still be changed.
    client.delete("event-types/loyalty.tier.reached").await.data();
    let path = format!("webhooks/{}", text(made.data(), "id"));
    assert_eq!(client.patch(&path, &json!({ "name": "Loyalty" })).await.status, 200);
    let again = client.patch(&path, &json!({ "events": ["loyalty.*"] })).await;
    assert_refused("anew", &again, (422, "unknown_event_type", "events"));
    client.patch(&format!("applications/{}", world.application), &json!({ "strict": false })).await.data();
    world.known().await;
    let id = world.publish(&json!({ "type": "loyalty.tier.reached", "data": 1 })).await;
    world.wait_for_deliveries(&format!("event={id}&state=delivered"), 2).await;
}

#[tokio::test]
async fn an_event_without_subscribers_is_kept_and_shown_as_such() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["order.*"]).await;
    let unknown = world.publish(&json!({ "type": "nobody.described.this", "data": { "n": 1 }, "id": "mine" })).await;
    let unwanted = world.publish(&json!({ "type": "invoice.paid", "data": { "n": 2 } })).await;
    let wanted = world.publish(&json!({ "type": "order.created", "data": { "n": 3 } })).await;
    world.receiver.wait_for(&endpoint.path, 1).await;
    for (id, kind, number) in [(&unknown, "nobody.described.this", 1), (&unwanted, "invoice.paid", 2)] {
        let kept = event(&world, id).await;
        assert_eq!((text(&kept, "status"), &kept["matched_webhooks"]), ("unmatched", &json!(0)), "{kept}");
        assert_eq!((text(&kept, "type"), &kept["payload"]["data"]["n"]), (kind, &json!(number)));
        assert_eq!(kept["deliveries"], json!([]));
    }
    let delivered = event(&world, &wanted).await;
    assert_eq!((text(&delivered, "status"), &delivered["matched_webhooks"]), ("fanned_out", &json!(1)));
    assert_eq!(list(&delivered["deliveries"]).len(), 1);
    let all = world.client().get("events").await.data().clone();
    let ids: Vec<&str> = list(&all).iter().map(|event| text(event, "id")).collect();
    assert_eq!(ids.len(), 3, "{ids:?}");
    let found = world.client().get("events?type=invoice.paid").await.data().clone();
    assert_eq!(list(&found).iter().map(|event| text(event, "id")).collect::<Vec<_>>(), [unwanted]);
    assert_eq!(text(&event(&world, &unknown).await, "key"), "mine");
    // A new endpoint gets no earlier event.
    world.endpoint("late", &["*"]).await;
    world.publish(&json!({ "type": "invoice.paid", "data": { "n": 4 } })).await;
    world.receiver.wait_for("late", 1).await;
    assert_eq!(world.receiver.received("late").len(), 1);
}

#[tokio::test]
async fn a_strict_application_accepts_only_described_events() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["*"]).await;
    let broker = world.broker().await;
    let client = world.client();
    let strict = client.patch(&format!("applications/{}", world.application), &json!({ "strict": true })).await;
    assert_eq!(strict.data()["strict"], true);
    let new = json!({ "type": "order.creatd", "data": 1 });
    let refused = until("ingest to load the strict setting", async || {
        let answer = client.post("events", &new).await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    assert_refused("unknown", &refused, (422, "unknown_event_type", "type"));
    assert!(text(&refused.body["error"], "message").ends_with("did you mean order.created?"), "{}", refused.body);
    let batch = client.post("events/batch", &json!([{ "type": "order.created", "data": 1 }, new])).await;
    assert_eq!((batch.status, &batch.data()[1]["error"]["code"]), (207, &json!("unknown_event_type")));

    world.known().await;
    let key = |kind: &str| format!("{}.{kind}", world.application);
    // Fanfare's own headers count only with a signature.
    let forged = [("fanfare-accepted", "9999999999"), ("fanfare-put-back", "true"), ("fanfare-signature", "x")];
    assert!(broker.publish(&key("order.creatd"), Some("1"), &forged, r#"{"data":1}"#).await.expect("the broker"));
    // Other messages may be parked: events that ingest accepted before the setting was loaded.
    let parked = format!(
        "SELECT count(*) FROM parked WHERE reason = 'unknown_event_type' AND message_id = '1'
         AND routing_key = '{}' AND message LIKE '%order.created?'",
        key("order.creatd")
    );
    until("the parked message", async || (world.count(&parked).await == 1).then_some(())).await;
    assert_eq!(world.rows("events", "key = '1'").await, 0);

    // The application's own event types are accepted over HTTP and AMQP.
    client.post("event-types", &described("order.creatd")).await.data();
    world.known().await;
    assert!(broker.publish(&key("order.creatd"), Some("2"), &[], r#"{"data":"amqp"}"#).await.expect("the broker"));
    let over_http = json!({ "type": "order.creatd", "data": "http" });
    until("ingest to load the event type", async || {
        (client.post("events", &over_http).await.status == 202).then_some(())
    })
    .await;
    for entrance in [r#""amqp""#, r#""http""#] {
        until(entrance, async || {
            let received = world.receiver.received(&endpoint.path);
            received.iter().any(|request| String::from_utf8_lossy(&request.body).contains(entrance)).then_some(())
        })
        .await;
    }

    let made = fanfare(&world.variables, &["app", "create", "strict", "--strict"]);
    let other = world.client_of(&["--role", "manage", "--application", &made]).await;
    assert_refused("of the command", &other.post("events", &new).await, (422, "unknown_event_type", "type"));
}

/// An event with a 202 is not judged by later settings. A message over AMQP is judged when a dispatcher reads the
/// message.
#[tokio::test]
async fn an_accepted_event_is_delivered_despite_later_settings() {
    let world = World::new().await;
    let endpoint = world.endpoint("a", &["*"]).await;
    let (client, broker) = (world.client(), world.broker().await);
    client.post("event-types", &described("loyalty.tier.reached")).await.data();
    let mut accepted = Vec::new();
    for kind in ["nobody.described.this", "loyalty.tier.reached"] {
        accepted.push(world.publish(&json!({ "type": kind, "data": "http" })).await);
    }
    let key = format!("{}.nobody.described.this", world.application);
    assert!(broker.publish(&key, Some("amqp"), &[], r#"{"data":"amqp"}"#).await.expect("the broker"));
    client.delete("event-types/loyalty.tier.reached").await.data();
    client.patch(&format!("applications/{}", world.application), &json!({ "strict": true })).await.data();

    let _dispatcher = world.dispatcher().await;
    for id in &accepted {
        world.wait_for_deliveries(&format!("event={id}&state=delivered"), 1).await;
    }
    until("the parked message", async || (world.count("SELECT count(*) FROM parked").await > 0).then_some(())).await;
    let unknown = "SELECT count(*) FROM parked WHERE reason = 'unknown_event_type' AND message_id = 'amqp'";
    assert_eq!(world.count(unknown).await, 1);
    assert_eq!(world.count("SELECT count(*) FROM parked").await, 1, "an accepted event was parked");
    let received: Vec<_> =
        world.receiver.received(&endpoint.path).iter().map(|request| request.event().to_owned()).collect();
    assert!(received.len() == 2 && accepted.iter().all(|id| received.contains(id)), "{received:?}");
}

/// A dispatcher reads the newest event types before parking, even if the notification of the change was lost.
#[tokio::test]
async fn a_type_that_was_described_a_moment_ago_is_taken() {
    let world = World::new().await;
    world.endpoint("a", &["*"]).await;
    let (client, broker) = (world.client(), world.broker().await);
    client.patch(&format!("applications/{}", world.application), &json!({ "strict": true })).await.data();
    let _dispatcher = world.dispatcher().await;
    world.known().await;
    let no_notices = "ALTER TABLE applications DISABLE TRIGGER announce";
    world.database().await.batch_execute(no_notices).await.expect("the database answers");
    for (kind, count) in ["tier.one", "tier.two", "tier.three"].into_iter().zip(1..) {
        client.post("event-types", &described(kind)).await.data();
        let key = format!("{}.{kind}", world.application);
        assert!(broker.publish(&key, Some(kind), &[], r#"{"data":1}"#).await.expect("the broker"));
        world.receiver.wait_for("a", count).await;
    }
    assert_eq!(world.count("SELECT count(*) FROM parked").await, 0);
}
