//! Filters of the lists of deliveries, counts by state, and resends by the same filters.

use std::collections::BTreeSet;

use fanfare_tests::{
    receiver::Behaviour,
    world::{Endpoint, World},
};
use serde_json::{Value, json};

use crate::api::{assert_refused, delivery_in, list, patient, text};

/// Three deliveries to each of two webhooks: one takes all, and one fails `order.paid` with 503.
struct Sent {
    world: World,
    good: Endpoint,
    bad: Endpoint,
    events: [String; 3],
}

async fn sent() -> Sent {
    let world = World::shared_of(patient(&[])).await;
    let (good, bad) = (world.endpoint("good", &["*"]).await, world.endpoint("bad", &["*"]).await);
    world.change(&bad, &json!({ "schedule": [] })).await;
    let settings = json!({ "redacted": ["card"] });
    world.client().patch(&format!("applications/{}", world.application), &settings).await.data();
    world.known().await;
    world.receiver.script("bad", &[Behaviour::Answer(503, std::time::Duration::ZERO)]);
    let mut events = Vec::new();
    for (kind, name) in [("order.paid", "first"), ("order.sent", "second"), ("refund", "third")] {
        let event = json!({ "type": kind, "data": { "name": name, "card": "4111 1111" } });
        events.push(world.publish(&event).await);
        world.wait_for_deliveries(&format!("event={}&state=delivered,failed", events[events.len() - 1]), 2).await;
    }
    let events = events.try_into().expect("three events");
    Sent { world, good, bad, events }
}

/// Pairs of event number and webhook of a list.
fn seen(sent: &Sent, deliveries: &[Value]) -> BTreeSet<(usize, bool)> {
    let event = |delivery: &Value| sent.events.iter().position(|id| id == text(delivery, "event"));
    deliveries
        .iter()
        .map(|delivery| (event(delivery).expect("an event"), text(delivery, "webhook") == sent.good.id))
        .collect()
}

#[tokio::test]
async fn each_filter_finds_exactly_its_deliveries() {
    let sent = sent().await;
    let world = &sent.world;
    let all = world.deliveries("").await;
    assert_eq!(all.len(), 6);
    let second = all.iter().find(|delivery| text(delivery, "event") == sent.events[1]).expect("a delivery");
    let moment = text(second, "accepted_at");
    let (good, bad) = ([(0, true), (1, true), (2, true)], [(0, false), (1, false), (2, false)]);
    let both = |number| [(number, true), (number, false)];
    for (query, expected) in [
        ("type=order.*".to_owned(), [both(0), both(1)].concat()),
        ("type=refund".to_owned(), both(2).to_vec()),
        ("type=*".to_owned(), [good, bad].concat()),
        ("status=503".to_owned(), bad.to_vec()),
        ("status=5xx&type=order.paid".to_owned(), vec![(0, false)]),
        ("status=2xx".to_owned(), good.to_vec()),
        ("status=404".to_owned(), vec![]),
        ("outcome=answered".to_owned(), [good, bad].concat()),
        ("outcome=timed_out".to_owned(), vec![]),
        ("reason=attempts_exhausted".to_owned(), bad.to_vec()),
        ("reason=expired".to_owned(), vec![]),
        ("contains=second".to_owned(), both(1).to_vec()),
        ("contains=4111".to_owned(), vec![]),
        ("state=failed,delivered".to_owned(), [good, bad].concat()),
        ("state=failed".to_owned(), bad.to_vec()),
        (format!("since={moment}"), [both(1), both(2)].concat()),
        (format!("until={moment}"), both(0).to_vec()),
        (format!("since={moment}&until={moment}"), vec![]),
        (format!("webhook={}&type=order.*", sent.bad.id), vec![(0, false), (1, false)]),
        (format!("event={}&contains=first", sent.events[0]), both(0).to_vec()),
        (format!("event={}&contains=second", sent.events[0]), vec![]),
    ] {
        let answer = world.client().get(&format!("deliveries?{query}")).await;
        let expected: BTreeSet<_> = expected.into_iter().collect();
        assert_eq!(seen(&sent, list(answer.data())), expected, "{query}");
        assert_eq!((&answer.body["next"], &answer.body["searched_until"]), (&Value::Null, &Value::Null), "{query}");
    }
    for query in ["type=order.*&state=failed", "status=5xx&type=order.*", "contains=name&type=order.*"] {
        let history = world.client().get(&format!("webhooks/{}/deliveries?{query}", sent.bad.id)).await;
        assert_eq!(seen(&sent, list(history.data())), BTreeSet::from([(0, false), (1, false)]), "{query}");
        assert!(list(history.data()).iter().all(|entry| entry["payload"].is_object()), "{query}");
    }
}

#[tokio::test]
async fn pages_of_a_search_go_on_and_live_pages_ask_for_newer_rows() {
    let sent = sent().await;
    let world = &sent.world;
    let first = world.client().get("deliveries?type=order.*&limit=3").await;
    let (next, shown) = (text(&first.body, "next"), list(first.data()));
    assert_eq!((shown.len(), next), (3, text(&shown[2], "id")));
    assert_eq!(first.body["searched_until"], shown[2]["accepted_at"]);
    let second = world.client().get(&format!("deliveries?type=order.*&limit=3&before={next}")).await;
    assert_eq!((list(second.data()).len(), &second.body["searched_until"]), (1, &Value::Null));
    let newer = world.deliveries(&format!("after={next}")).await;
    assert_eq!(newer.len(), 4, "two of the same type, and the two newest: {newer:?}");
    let ids: Vec<&str> = shown.iter().map(|delivery| text(delivery, "id")).collect();
    let again = world.deliveries(&format!("ids={}", ids.join(","))).await;
    assert_eq!(again.iter().map(|delivery| text(delivery, "id")).collect::<Vec<_>>(), ids);
    let (_, other) = world.other_application().await;
    let foreign = other.get(&format!("deliveries?ids={}", ids.join(","))).await;
    assert_eq!(list(foreign.data()).len(), 0, "another application reads deliveries by id");
}

#[tokio::test]
async fn a_bad_value_of_a_filter_names_its_field() {
    let world = World::shared().await;
    let id = "dlv_00000000000000000000000000";
    let many = [id; 101].join(",");
    let long = "x".repeat(201);
    for (query, field) in [
        ("type=.*", "type"),
        ("type=", "type"),
        ("status=99", "status"),
        ("status=6xx", "status"),
        ("outcome=lost", "outcome"),
        ("reason=bored", "reason"),
        ("state=failed,lost", "state"),
        ("state=", "state"),
        ("since=yesterday", "since"),
        ("until=2026-06-18T12:00:00", "until"),
        ("contains=", "contains"),
        ("contains=%00", "contains"),
        (&format!("contains={long}"), "contains"),
        ("ids=1", "ids"),
        (&format!("ids={many}"), "ids"),
        ("before=1", "before"),
        ("after=1", "after"),
        ("webhook=1", "webhook"),
        ("event=1", "event"),
    ] {
        let answer = world.client().get(&format!("deliveries?{query}")).await;
        assert_refused(query, &answer, (422, "invalid_field", field));
    }
    for (query, field) in [("webhook=1", "webhook"), ("since=1", "since"), ("until=1", "until")] {
        let answer = world.client().get(&format!("deliveries/counts?{query}")).await;
        assert_refused(query, &answer, (422, "invalid_field", field));
    }
    for (filter, field) in [
        (json!({ "type": ".*" }), "type"),
        (json!({ "status": "600" }), "status"),
        (json!({ "outcome": "lost" }), "outcome"),
        (json!({ "reason": "bored" }), "reason"),
        (json!({ "state": "failed,sending" }), "state"),
        (json!({ "contains": " " }), "contains"),
        (json!({ "before": "1" }), "before"),
        (json!({ "after": "1" }), "after"),
    ] {
        let answer = world.client().post("deliveries/resend", &filter).await;
        assert_refused(&filter.to_string(), &answer, (422, "invalid_field", field));
    }
}

#[tokio::test]
async fn a_resend_takes_the_filters_of_the_list_and_tells_beforehand() {
    let sent = sent().await;
    let world = &sent.world;
    let paused = world.endpoint("paused", &["refund"]).await;
    world.change(&paused, &json!({ "status": "paused" })).await;
    world.known().await;
    world.publish(&json!({ "type": "refund", "data": { "name": "held" } })).await;
    world.wait_for_deliveries("state=held", 1).await;
    world.wait_for_deliveries("state=failed", 4).await;
    let counts = async |query: &str| {
        let answer = world.client().get(&format!("deliveries/counts{query}")).await;
        let counts = answer.data().as_object().expect("counts").clone();
        assert!(counts.values().all(|count| count["has_more"] == false), "{counts:?}");
        counts
            .into_iter()
            .filter(|(_, count)| count["deliveries"] != 0)
            .map(|(state, count)| (state, count["deliveries"].clone()))
            .collect::<Vec<_>>()
    };
    assert_eq!(counts("").await, [("failed".to_owned(), json!(4)), ("held".to_owned(), json!(1))]);
    assert_eq!(counts(&format!("?webhook={}", paused.id)).await, [("held".to_owned(), json!(1))]);
    assert_eq!(counts("?until=2020-01-01T00:00:00Z").await, []);

    let filter = json!({ "type": "order.*", "status": "5xx", "contains": "name", "count_only": true });
    let told = world.client().post("deliveries/resend", &filter).await.data().clone();
    assert_eq!((&told["resent"], &told["has_more"], &told["next"]), (&json!(2), &json!(false), &Value::Null), "{told}");
    assert_eq!(seen(&sent, &event_and_webhook(&told)), BTreeSet::from([(0, false), (1, false)]));
    assert_eq!(told["deliveries"][0]["attempt"], 2);
    assert_eq!(counts("").await[0].1, json!(4), "a count sends nothing");
    world.receiver.script("bad", &[Behaviour::OK]);
    let limited = json!({ "type": "order.*", "limit": 1 });
    let first = world.client().post("deliveries/resend", &limited).await.data().clone();
    assert_eq!((&first["deliveries"][0]["id"], &first["has_more"]), (&told["deliveries"][0]["id"], &json!(true)));
    assert_eq!(first["next"], first["deliveries"][0]["id"]);
    delivery_in(world, text(&first["deliveries"][0], "id"), "delivered").await;
    let rest = json!({ "type": "order.*", "before": first["next"] });
    let second = world.client().post("deliveries/resend", &rest).await.data().clone();
    assert_eq!((&second["resent"], &second["deliveries"][0]["id"]), (&json!(1), &told["deliveries"][1]["id"]));
    delivery_in(world, text(&second["deliveries"][0], "id"), "delivered").await;
    let held = json!({ "state": "held,failed", "type": "refund", "count_only": true });
    let told = world.client().post("deliveries/resend", &held).await.data().clone();
    assert_eq!(told["resent"], 3, "a held delivery and two failed deliveries: {told}");
}

fn event_and_webhook(resent: &Value) -> Vec<Value> {
    list(&resent["deliveries"]).to_vec()
}
