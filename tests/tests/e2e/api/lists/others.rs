//! Filters of the lists of events, webhooks, applications and parked messages.

use fanfare_tests::{
    clients::api::{Answer, Client},
    patience::until,
    world::World,
};
use serde_json::{Value, json};

use crate::api::{assert_refused, event, list, text};

/// The texts of a member, in the order of a list.
fn members<'a>(answer: &'a Answer, member: &str) -> Vec<&'a str> {
    list(answer.data()).iter().map(|item| text(item, member)).collect()
}

#[tokio::test]
async fn events_are_found_by_type_key_time_and_as_unmatched() {
    let world = World::shared().await;
    world.endpoint("orders", &["order.*"]).await;
    world.known().await;
    let mut ids = Vec::new();
    for (kind, key) in [("order.paid", "order-1"), ("order.sent", "order-2"), ("refund", "refund ä/1")] {
        let id = world.publish(&json!({ "type": kind, "id": key, "data": 1 })).await;
        event(&world, &id).await;
        ids.push(id);
    }
    let client = world.client();
    let shown = event(&world, &ids[1]).await;
    let moment = text(&shown, "accepted_at");
    let [first, second, third] = [0, 1, 2].map(|number: usize| ids[number].as_str());
    for (query, expected) in [
        ("type=order.*".to_owned(), vec![second, first]),
        ("type=order.paid".to_owned(), vec![first]),
        ("type=none.*".to_owned(), vec![]),
        ("unmatched=true".to_owned(), vec![third]),
        ("unmatched=true&type=order.*".to_owned(), vec![]),
        ("unmatched=false".to_owned(), vec![third, second, first]),
        ("key=order-2".to_owned(), vec![second]),
        ("key=refund%20%C3%A4/1".to_owned(), vec![third]),
        ("key=order-2&type=order.paid".to_owned(), vec![]),
        ("key=order-3".to_owned(), vec![]),
        (format!("since={moment}"), vec![third, second]),
        (format!("until={moment}"), vec![first]),
        (format!("after={first}"), vec![third, second]),
        (format!("after={first}&before={third}"), vec![second]),
        (format!("after={third}"), vec![]),
    ] {
        let answer = client.get(&format!("events?{query}")).await;
        assert_eq!(members(&answer, "id"), expected, "{query}");
        assert_eq!((&answer.body["next"], &answer.body["searched_until"]), (&Value::Null, &Value::Null), "{query}");
    }
    let page = client.get("events?type=order.*&limit=1").await;
    assert_eq!((text(&page.body, "next"), text(&page.body, "searched_until")), (second, moment));
    let key = "k".repeat(256);
    for (query, code, field) in [
        ("type=.*", "invalid_field", "type"),
        ("key=", "invalid_field", "key"),
        (&format!("key={key}"), "field_too_long", "key"),
        ("since=1", "invalid_field", "since"),
        ("until=1", "invalid_field", "until"),
        ("before=1", "invalid_field", "before"),
        ("after=1", "invalid_field", "after"),
        ("after=evt_00000000000000000000000000", "invalid_field", "after"),
    ] {
        assert_refused(query, &client.get(&format!("events?{query}")).await, (422, code, field));
    }
    assert_refused("unmatched", &client.get("events?unmatched=1").await, (400, "invalid_query", "unmatched"));
}

#[tokio::test]
async fn webhooks_and_applications_are_found_by_text() {
    let world = World::shared().await;
    let (first, second) = (world.endpoint("billing", &["*"]).await, world.endpoint("archive", &["*"]).await);
    world.change(&first, &json!({ "name": "Acme Ü_%", "status": "paused" })).await;
    let client = world.client();
    for (query, expected) in [
        ("contains=BILL", vec![&first.id]),
        ("contains=acme", vec![&first.id]),
        ("contains=_%25", vec![&first.id]),
        ("contains=%25", vec![&first.id]),
        ("contains=http", vec![&second.id, &first.id]),
        ("contains=nowhere", vec![]),
        ("state=paused", vec![&first.id]),
        ("state=enabled", vec![&second.id]),
        ("state=disabled", vec![]),
        ("state=enabled&contains=billing", vec![]),
    ] {
        assert_eq!(members(&client.get(&format!("webhooks?{query}")).await, "id"), expected, "{query}");
    }
    for (query, field) in [("state=held", "state"), ("contains=", "contains"), ("before=1", "before")] {
        let answer = client.get(&format!("webhooks?{query}")).await;
        assert_refused(query, &answer, (422, "invalid_field", field));
    }
    let admin = world.admin().await;
    let mine = format!("needle {}", world.application);
    admin.patch(&format!("applications/{}", world.application), &json!({ "name": mine })).await.data();
    let found = admin.get(&format!("applications?name=NEEDLE%20{}", world.application)).await;
    assert_eq!((members(&found, "id"), &found.body["next"]), (vec![world.application.as_str()], &Value::Null));
    assert_eq!(members(&admin.get("applications?name=nobody%20has%20this").await, "id"), Vec::<&str>::new());
    assert_refused("a name", &admin.get("applications?name=").await, (422, "invalid_field", "name"));
}

#[tokio::test]
async fn parked_messages_are_grouped_and_handled_by_group() {
    let world = World::new().await;
    let (admin, _dispatcher) = (world.admin().await, world.dispatcher().await);
    let broker = world.broker().await;
    let key = |kind: &str| format!("{}.{kind}", world.application);
    for (kind, message_id, body) in [
        ("order.paid", None, "{}"),
        ("order.paid", None, "{}"),
        ("order.paid", Some("one"), "no JSON"),
        ("refund", None, "{}"),
    ] {
        assert!(broker.publish(&key(kind), message_id, &[], body).await.expect("the broker"));
    }
    let groups = until("four parked messages", async || {
        let answer = admin.get("parked/groups").await;
        let groups = list(&answer.data()["groups"]).to_vec();
        let all: i64 = groups.iter().filter_map(|group| group["messages"].as_i64()).sum();
        (all == 4).then_some(answer.data().clone())
    })
    .await;
    assert_eq!((&groups["has_more"], &groups["searched_until"]), (&json!(false), &Value::Null));
    let largest = &groups["groups"][0];
    assert_eq!((list(&groups["groups"]).len(), &largest["messages"]), (3, &json!(2)), "{groups}");
    assert_eq!((text(largest, "reason"), text(largest, "routing_key")), ("missing_message_id", &*key("order.paid")));
    assert!(text(largest, "oldest_parked_at") <= text(largest, "newest_parked_at"));

    let count = async |query: &str| list(admin.get(&format!("parked?{query}")).await.data()).len();
    let (paid, refund) = (key("order.paid"), key("refund"));
    let parked = admin.get("parked").await.data().clone();
    let newest = text(&parked[0], "parked_at").to_owned();
    // A commit parks several messages at the same time.
    let of_newest = list(&parked).iter().filter(|message| text(message, "parked_at") == newest).count();
    for (query, expected) in [
        (format!("routing_key={paid}"), 3),
        (format!("routing_key={paid}&reason=missing_message_id"), 2),
        (format!("routing_key={refund}"), 1),
        ("routing_key=none".to_owned(), 0),
        (format!("since={newest}"), of_newest),
        ("since=2020-01-01T00:00:00Z".to_owned(), 4),
        ("since=2100-01-01T00:00:00Z".to_owned(), 0),
    ] {
        assert_eq!(count(&query).await, expected, "{query}");
    }
    let long = "x".repeat(766);
    for (query, field) in [
        ("since=1", "since"),
        ("routing_key=", "routing_key"),
        (&*format!("routing_key={long}"), "routing_key"),
        ("reason=", "reason"),
    ] {
        assert_refused(query, &admin.get(&format!("parked?{query}")).await, (422, "invalid_field", field));
    }
    handled(&world, &admin, &paid, &refund).await;
}

/// Discards the group of two messages, and puts the message with the key `refund` back.
async fn handled(world: &World, admin: &Client, paid: &str, refund: &str) {
    let long = "x".repeat(766);
    let group = json!({ "reason": "missing_message_id", "routing_key": paid });
    let discarded = admin.post("parked/discard", &group).await.data().clone();
    assert_eq!((list(&discarded["handled"]).len(), &discarded["has_more"]), (2, &json!(false)));
    assert_eq!(list(admin.get("parked").await.data()).len(), 2);
    let back = admin.post("parked/put-back", &json!({ "routing_key": refund })).await.data().clone();
    assert_eq!(list(&back["handled"]).len(), 1);
    until("the message to be parked again", async || {
        let now = admin.get(&format!("parked?routing_key={refund}")).await;
        (list(now.data()).len() == 1 && now.data()[0]["id"] != back["handled"][0]).then_some(())
    })
    .await;
    for action in ["discard", "put-back"] {
        let answer = admin.post(&format!("parked/{action}"), &json!({})).await;
        assert_refused(action, &answer, (422, "missing_field", "ids"));
        let answer = admin.post(&format!("parked/{action}"), &json!({ "routing_key": long })).await;
        assert_refused(action, &answer, (422, "invalid_field", "routing_key"));
    }
    assert_eq!(world.client().get("parked/groups").await.code(), "forbidden");
}
