//! Manual resends of a single delivery or of many (as in Ploints' API): same event id, same bytes, another attempt,
//! from any state.

use std::{sync::Arc, time::Duration};

use fanfare_domain::ids::{ApplicationId, EventId};
use fanfare_tests::{
    patience::until,
    receiver::Behaviour,
    world::{Endpoint, World},
};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::api::{NEVER, assert_refused, delivery_in, list, numbers, patient, text};

const NO_DELIVERY: &str = "dlv_00000000000000000000000000";

async fn resend(world: &World, delivery: &str) -> fanfare_tests::clients::api::Answer {
    world.client().post(&format!("deliveries/{delivery}/resend"), &json!({})).await
}

async fn resend_many(world: &World, filter: &Value) -> Value {
    let answer = world.client().post("deliveries/resend", filter).await;
    assert_eq!(answer.status, 200, "{filter}: {}", answer.body);
    let data = answer.data().clone();
    assert_eq!(data["resent"], list(&data["deliveries"]).len(), "{data}");
    data
}

/// Publishes an event. Returns its delivery to an endpoint once the delivery is in this state.
async fn delivery_of(world: &World, endpoint: &Endpoint, kind: &str, state: &str) -> Value {
    let id = world.publish(&json!({ "type": kind, "data": { "n": 1.50 } })).await;
    let query = format!("event={id}&webhook={}&state={state}", endpoint.id);
    world.wait_for_deliveries(&query, 1).await.remove(0)
}

#[tokio::test]
async fn one_delivery_is_sent_again_from_whatever_state() {
    let world = World::shared_of(patient(&[])).await;
    let mut endpoints = Vec::new();
    for (path, kind, script) in [
        ("delivered", "a", [Behaviour::OK, Behaviour::OK]),
        ("failed", "order", [Behaviour::FAIL, Behaviour::OK]),
        ("scheduled", "order.created", [Behaviour::FAIL, Behaviour::OK]),
        ("skipped", "invoice.paid", [Behaviour::OK, Behaviour::OK]),
    ] {
        world.receiver.script(path, &script);
        endpoints.push(world.endpoint(path, &[kind]).await);
    }
    world.change(&endpoints[1], &json!({ "schedule": [] })).await;
    world.change(&endpoints[3], &json!({ "status": "disabled" })).await;
    for (endpoint, kind, attempt) in [
        (&endpoints[0], "a", 2),
        (&endpoints[1], "order", 2),
        (&endpoints[2], "order.created", 2),
        (&endpoints[3], "invoice.paid", 1),
    ] {
        let state = endpoint.path.as_str();
        let delivery = delivery_of(&world, endpoint, kind, state).await;
        let id = text(&delivery, "id");
        if state == "skipped" {
            assert_refused("disabled", &resend(&world, id).await, (409, "endpoint_disabled", ""));
            world.change(endpoint, &json!({ "status": "enabled" })).await;
        }
        let resent = resend(&world, id).await;
        let expected = json!({ "id": id, "event": delivery["event"], "webhook": endpoint.id, "attempt": attempt });
        assert_eq!((resent.status, resent.data()), (200, &expected), "{state}");
        // Waits for the request first: the earlier success would also match `delivered`.
        let received = world.receiver.wait_for(state, attempt).await;
        let ended = delivery_in(&world, id, "delivered").await;
        assert_eq!(
            numbers(&ended),
            (1..=attempt as u64).collect::<Vec<_>>(),
            "{state}: the attempt numbers have a gap"
        );
        assert!(received.iter().all(|request| request.event() == text(&delivery, "event")), "{state}: {received:?}");
        assert!(
            received.iter().all(|request| request.body == text(&ended, "body").as_bytes()),
            "{state}: {received:?}"
        );
        assert_eq!((received.len(), &ended["reason"]), (attempt, &Value::Null), "{state}");
    }
    assert_refused("none", &resend(&world, NO_DELIVERY).await, (404, "not_found", "id"));
    assert_refused("no id", &resend(&world, "1").await, (422, "invalid_field", "id"));
    let gone = &endpoints[0];
    let delivery = world.deliveries(&format!("webhook={}", gone.id)).await.remove(0);
    world.client().delete(&format!("webhooks/{}", gone.id)).await.data();
    assert_refused("deleted", &resend(&world, text(&delivery, "id")).await, (409, "endpoint_disabled", ""));
    let none = resend_many(&world, &json!({ "deliveries": [delivery["id"]] })).await;
    assert_eq!(none["resent"], 0, "the webhook is deleted");
}

/// A resend makes the waiting retry message stale: the retry message causes no second attempt.
#[tokio::test]
async fn a_waiting_delivery_is_sent_at_once_and_not_a_second_time() {
    let world = World::of_waits("2s,2s,2s,2s", &[]).await;
    let endpoint = world.endpoint("a", &["a"]).await;
    world.receiver.script("a", &[Behaviour::FAIL, Behaviour::OK]);
    let later = world.endpoint("later", &["order"]).await;
    world.receiver.script("later", &[Behaviour::FAIL, Behaviour::OK]);
    let _dispatcher = world.dispatcher().await;
    let waiting = delivery_of(&world, &endpoint, "a", "scheduled").await;
    let id = text(&waiting, "id");
    resend(&world, id).await.data();
    delivery_in(&world, id, "delivered").await;
    // A later retry message leaves the delay queue after the stale message.
    let behind = delivery_of(&world, &later, "order", "scheduled").await;
    delivery_in(&world, text(&behind, "id"), "delivered").await;
    let ended = world.delivery(id).await;
    assert_eq!((numbers(&ended), world.receiver.received("a").len()), (vec![1, 2], 2));

    // After another failure, the delivery continues with the rest of a single schedule.
    world.receiver.script("a", &[Behaviour::FAIL]);
    let failing = delivery_of(&world, &endpoint, "a", "scheduled").await;
    resend(&world, text(&failing, "id")).await.data();
    let failed = delivery_in(&world, text(&failing, "id"), "failed").await;
    assert_eq!((text(&failed, "reason"), numbers(&failed)), ("attempts_exhausted", vec![1, 2, 3, 4, 5]));
    let sent = world.receiver.received("a").iter().filter(|request| request.event() == text(&failing, "event")).count();
    assert_eq!(sent, 5, "requests and attempts differ in number");
}

/// A resent delivery that had failed starts the schedule anew. A delivery in flight cannot be resent.
#[tokio::test]
async fn a_resend_restarts_a_failed_delivery_and_is_refused_in_flight() {
    let world = World::of_waits("1s", &[]).await;
    let endpoint = world.endpoint("a", &["a"]).await;
    world.receiver.script("a", &[Behaviour::FAIL]);
    let slow = world.endpoint("slow", &["order"]).await;
    world.receiver.script("slow", &[Behaviour::Answer(200, Duration::from_millis(1500))]);
    let _dispatcher = world.dispatcher().await;
    let failed = delivery_of(&world, &endpoint, "a", "failed").await;
    let id = text(&failed, "id");
    assert_eq!(resend(&world, id).await.data()["attempt"], 3);
    let sending = delivery_of(&world, &slow, "order", "sending").await;
    assert_refused("sending", &resend(&world, text(&sending, "id")).await, (409, "not_resendable", ""));
    let many = resend_many(&world, &json!({ "deliveries": [sending["id"]] })).await;
    assert_eq!(many["resent"], 0, "a delivery in flight was resent");
    let again = until("the resent delivery to fail again", async || {
        let delivery = world.delivery(id).await;
        (delivery["state"] == "failed" && numbers(&delivery).len() == 4).then_some(delivery)
    })
    .await;
    assert_eq!((numbers(&again), text(&again, "reason")), (vec![1, 2, 3, 4], "attempts_exhausted"));
    delivery_in(&world, text(&sending, "id"), "delivered").await;
    assert_eq!(world.receiver.received("slow").len(), 1);

    // Concurrent resends are serialized: as many attempts as requests, and each attempt number once.
    world.receiver.script("a", &[Behaviour::OK]);
    let answers = join_all((0..6).map(|_| resend(&world, id))).await;
    let taken: Vec<_> = answers.iter().filter(|answer| answer.status == 200).collect();
    assert!(!taken.is_empty() && answers.iter().all(|answer| [200, 409].contains(&answer.status)), "{answers:?}");
    until("all resends to be delivered", async || {
        let delivery = world.delivery(id).await;
        (delivery["state"] == "delivered" && numbers(&delivery).len() == world.receiver.received("a").len())
            .then_some(())
    })
    .await;
    let numbered = numbers(&world.delivery(id).await);
    assert_eq!(numbered, (1..=numbered.len() as u64).collect::<Vec<_>>());
}

#[tokio::test]
#[expect(clippy::too_many_lines, reason = "each filter continues from the state that the last filter left")]
async fn a_bulk_resend_sends_exactly_the_deliveries_of_its_filter() {
    let world = Arc::new(World::of(patient(&[])).await);
    let (_, other) = world.other_application().await;
    let foreign = json!({ "url": world.receiver.url("foreign"), "events": ["*"], "schedule": [] });
    let foreign = other.post("webhooks", &foreign).await.data().clone();
    let (first, second) = (world.endpoint("first", &["*"]).await, world.endpoint("second", &["*"]).await);
    for path in ["first", "second", "foreign"] {
        world.receiver.script(path, &[Behaviour::FAIL]);
    }
    let _dispatcher = world.dispatcher().await;
    for endpoint in [&first, &second] {
        world.change(endpoint, &json!({ "schedule": [] })).await;
    }
    other.post("events", &json!({ "type": "a", "data": 0 })).await.data();
    let mut events = Vec::new();
    for number in 0..4 {
        events.push(world.publish(&json!({ "type": "a", "data": number })).await);
        world.wait_for_deliveries("state=failed", 2 * (number + 1)).await;
    }
    let all = world.deliveries("state=failed").await;
    let accepted = |event: &str| {
        let of = all.iter().find(|delivery| text(delivery, "event") == event).expect("the delivery of the event");
        text(of, "accepted_at").to_owned()
    };
    // Each resent delivery fails again with a 500, so that the next filter finds the same deliveries.
    let found = async |filter: Value| {
        let resent = resend_many(&world, &filter).await;
        for listed in list(&resent["deliveries"]) {
            let attempt = listed["attempt"].as_u64().expect("a number") as usize;
            until("the resent delivery to fail again", async || {
                let delivery = world.delivery(text(listed, "id")).await;
                (delivery["state"] == "failed" && numbers(&delivery).len() == attempt).then_some(())
            })
            .await;
        }
        let mut found: Vec<_> =
            list(&resent["deliveries"]).iter().map(|delivery| text(delivery, "id").to_owned()).collect();
        found.sort();
        found
    };
    let expected = |keep: &dyn Fn(&Value) -> bool| {
        let mut ids: Vec<_> =
            all.iter().filter(|delivery| keep(delivery)).map(|delivery| text(delivery, "id").to_owned()).collect();
        ids.sort();
        ids
    };
    assert_eq!(found(json!({})).await, expected(&|_| true));
    assert_eq!(found(json!({ "webhook": first.id })).await, expected(&|delivery| delivery["webhook"] == *first.id));
    assert_eq!(found(json!({ "event": events[1] })).await, expected(&|delivery| delivery["event"] == *events[1]));
    let both = json!({ "event": events[1], "webhook": second.id, "state": "failed" });
    assert_eq!(
        found(both).await,
        expected(&|delivery| delivery["event"] == *events[1] && delivery["webhook"] == *second.id)
    );
    let since = json!({ "since": accepted(&events[2]) });
    assert_eq!(
        found(since).await,
        expected(&|delivery| [&events[2], &events[3]].iter().any(|event| delivery["event"] == ***event))
    );
    let until_then = json!({ "until": accepted(&events[1]) });
    assert_eq!(found(until_then).await, expected(&|delivery| delivery["event"] == *events[0]), "`until` is exclusive");
    let between = json!({ "since": accepted(&events[1]), "until": accepted(&events[2]), "webhook": first.id });
    assert_eq!(
        found(between).await,
        expected(&|delivery| delivery["event"] == *events[1] && delivery["webhook"] == *first.id)
    );
    let named = [&all[0]["id"], &all[5]["id"]];
    assert_eq!(found(json!({ "deliveries": named })).await, expected(&|delivery| named.contains(&&delivery["id"])));
    for state in ["delivered", "scheduled", "held", "skipped"] {
        assert_eq!(found(json!({ "state": state })).await, Vec::<String>::new(), "{state}");
    }
    let limited = resend_many(&world, &json!({ "limit": 3 })).await;
    assert_eq!((&limited["resent"], &limited["has_more"]), (&json!(3), &json!(true)));
    let newest: Vec<_> = all.iter().take(3).map(|delivery| &delivery["id"]).collect();
    assert!(
        list(&limited["deliveries"]).iter().all(|delivery| newest.contains(&&delivery["id"])),
        "the resent deliveries are not the newest: {limited}"
    );
    assert_eq!(world.receiver.received("foreign").len(), 1, "a delivery of another application was resent");
    let of_other = other.get(&format!("deliveries?webhook={}", text(&foreign, "id"))).await.data()[0].clone();
    let refused = resend_many(&world, &json!({ "deliveries": [of_other["id"]] })).await;
    assert_eq!(refused["resent"], 0, "a named delivery of another application was resent");

    let none = json!({ "event": "evt_00000000000000000000000000" });
    assert_eq!(resend_many(&world, &none).await["resent"], 0);
    let ids = |count: usize| json!(vec![NO_DELIVERY; count]);
    for (what, filter, refusal) in [
        ("an empty list", json!({ "deliveries": [] }), (422, "invalid_field", "deliveries")),
        ("a long list", json!({ "deliveries": ids(1001) }), (422, "invalid_field", "deliveries")),
        ("no id", json!({ "deliveries": ["1"] }), (422, "invalid_field", "deliveries")),
        ("a number", json!({ "deliveries": [1] }), (422, "wrong_type", "deliveries[0]")),
        ("another's id", json!({ "webhook": events[0] }), (422, "invalid_field", "webhook")),
        ("no event", json!({ "event": "1" }), (422, "invalid_field", "event")),
        ("no state", json!({ "state": "lost" }), (422, "invalid_field", "state")),
        ("being sent", json!({ "state": "sending" }), (422, "invalid_field", "state")),
        ("no moment", json!({ "since": "yesterday" }), (422, "invalid_field", "since")),
        ("no offset", json!({ "until": "2026-06-18T12:00:00" }), (422, "invalid_field", "until")),
        ("none", json!({ "limit": 0 }), (422, "invalid_field", "limit")),
        ("too many", json!({ "limit": 1001 }), (422, "invalid_field", "limit")),
        ("less than none", json!({ "limit": -1 }), (422, "wrong_type", "limit")),
        ("another field", json!({ "states": "failed" }), (422, "unknown_field", "states")),
    ] {
        assert_refused(what, &world.client().post("deliveries/resend", &filter).await, refusal);
    }
    assert_eq!(
        resend_many(&world, &json!({ "deliveries": ids(1000) })).await["resent"],
        0,
        "the largest list of ids is accepted"
    );
}

/// A resent delivery of a paused endpoint is sent once, after the endpoint is resumed.
#[tokio::test]
async fn a_held_delivery_is_sent_once_its_webhook_is_resumed() {
    let world = World::of_waits(NEVER, &[]).await;
    let endpoint = world.endpoint("a", &["a"]).await;
    let _dispatcher = world.dispatcher().await;
    world.change(&endpoint, &json!({ "status": "paused" })).await;
    let held = delivery_of(&world, &endpoint, "a", "held").await;
    let id = text(&held, "id");
    assert_eq!(resend(&world, id).await.data()["attempt"], 1);
    delivery_in(&world, id, "held").await;
    assert!(world.receiver.received("a").is_empty(), "a paused webhook got a request");
    world.change(&endpoint, &json!({ "status": "enabled" })).await;
    // The release may come before the second resend: then the delivery is sent twice.
    let resent = resend(&world, id).await;
    let ended = until("the held delivery to be delivered", async || {
        let delivery = world.delivery(id).await;
        let is_whole = numbers(&delivery).len() == world.receiver.received("a").len();
        (delivery["state"] == "delivered" && is_whole).then_some(delivery)
    })
    .await;
    let attempts = numbers(&ended);
    assert_eq!(attempts, (1..=attempts.len() as u64).collect::<Vec<_>>(), "{}", resent.body);
    assert!(world.receiver.received("a").iter().all(|request| request.event() == text(&held, "event")));
}

/// The expiry of a resent delivery follows the current schedule, whatever the age of the event and the number of
/// resends.
#[tokio::test]
async fn a_resent_delivery_expires_by_its_current_schedule() {
    let world = World::of_variables(&[("FANFARE_EXPIRY", "1h")]).await;
    let endpoint = world.endpoint("a", &["a"]).await;
    let _dispatcher = world.dispatcher().await;
    world.change(&endpoint, &json!({ "schedule": ["1s"], "timeout_ms": 1000 })).await;
    // The key is an event id made a day ago: a publisher sends the event again.
    let application: ApplicationId = world.application.parse().expect("an id");
    let event = EventId::new(application, Timestamp::now() - SignedDuration::from_hours(24), rand::random());
    world.publish(&json!({ "type": "a", "data": 1, "id": event.to_string() })).await;
    let delivery = world.wait_for_deliveries("state=delivered", 1).await.remove(0);
    let id = text(&delivery, "id");
    let age = "SELECT extract(epoch FROM now() - accepted_at)::bigint FROM all_deliveries";
    assert!(world.count(age).await >= 24 * 3600, "the event is not a day old");
    // `FANFARE_EXPIRY`, a wait of 1 s with jitter, and two attempts of 1 s.
    let longest = 3600 + 2 + 2;
    // A slow answer keeps the delivery open for the check.
    world.receiver.script("a", &[Behaviour::Answer(200, Duration::from_millis(600))]);
    let left = "SELECT coalesce(max(extract(epoch FROM expires_at - now())::bigint), 0) FROM open_deliveries";
    for attempts in 1..=3 {
        delivery_in(&world, id, "delivered").await;
        assert_eq!(numbers(&world.delivery(id).await).len(), attempts);
        resend(&world, id).await.data();
        world.receiver.wait_for("a", attempts + 1).await;
        let left = world.count(left).await;
        assert!(
            (longest - 1800..=longest).contains(&left),
            "after {attempts} attempts the delivery expires in {left} s"
        );
    }

    // The expiry follows the schedule at the time of the resend.
    delivery_in(&world, id, "delivered").await;
    world.change(&endpoint, &json!({ "schedule": ["10h"] })).await;
    resend(&world, id).await.data();
    world.receiver.wait_for("a", 5).await;
    let left = world.count(left).await;
    delivery_in(&world, id, "delivered").await;
    assert!(left > 10 * 3600, "the delivery expires in {left} s, before the end of its schedule");
}

/// A resent delivery is not found again by the same filter, so that a client's loop over `has_more` ends.
#[tokio::test]
async fn repeated_bulk_resends_of_scheduled_deliveries_end() {
    const WAITING: usize = 4;
    let world = World::of(patient(&[])).await;
    let endpoint = world.endpoint("a", &["a"]).await;
    world.receiver.script("a", &[Behaviour::FAIL]);
    let dispatcher = world.dispatcher().await;
    for number in 0..WAITING {
        world.publish(&json!({ "type": "a", "data": number })).await;
    }
    let waiting = world.wait_for_deliveries("state=scheduled", WAITING).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, 0);

    let (mut found, mut calls) = (Vec::new(), 0);
    loop {
        let resent = resend_many(&world, &json!({ "webhook": endpoint.id, "state": "scheduled", "limit": 2 })).await;
        found.extend(list(&resent["deliveries"]).iter().map(|delivery| text(delivery, "id").to_owned()));
        calls += 1;
        assert!(calls <= WAITING, "the filter finds resent deliveries again: {found:?}");
        if resent["has_more"] == false {
            break;
        }
    }
    let mut expected: Vec<_> = waiting.iter().map(|delivery| text(delivery, "id").to_owned()).collect();
    expected.sort();
    found.sort();
    assert_eq!(found, expected, "a delivery is missing or repeated");
    // A delivery named by id is resent again.
    assert_eq!(resend_many(&world, &json!({ "deliveries": [found[0]] })).await["resent"], 1);

    world.receiver.script("a", &[Behaviour::OK]);
    let _dispatcher = world.dispatcher().await;
    for delivery in world.wait_for_deliveries("state=delivered", WAITING).await {
        assert_eq!(numbers(&world.delivery(text(&delivery, "id")).await), [1, 2]);
    }
    assert_eq!(world.receiver.received("a").len(), 2 * WAITING);
}

/// Sends a test event to an endpoint. Returns the id of the test's delivery.
async fn test_of(world: &World, endpoint: &Endpoint) -> String {
    let answer = world.client().post(&format!("webhooks/{}/test", endpoint.id), &json!({})).await;
    text(answer.data(), "delivery").to_owned()
}

/// A failed test event is resent only by id, so that a bulk resend sends only real events.
#[tokio::test]
async fn tests_that_failed_are_sent_again_only_by_name() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["a"]).await;
    world.receiver.script("a", &[Behaviour::FAIL]);
    world.change(&endpoint, &json!({ "schedule": [] })).await;
    let failed = delivery_of(&world, &endpoint, "a", "failed").await;
    let test = test_of(&world, &endpoint).await;
    assert_eq!(world.deliveries("state=failed").await.len(), 2);
    world.receiver.script("a", &[Behaviour::OK]);
    for filter in [json!({}), json!({ "webhook": endpoint.id, "state": "failed" })] {
        let resent = resend_many(&world, &filter).await;
        assert!(
            list(&resent["deliveries"]).iter().all(|delivery| delivery["id"] == failed["id"]),
            "{filter}: {resent}"
        );
        delivery_in(&world, text(&failed, "id"), "delivered").await;
    }
    assert_eq!(world.receiver.received("a").len(), 3);
    assert_eq!(numbers(&world.delivery(&test).await), [1]);
    assert_eq!(resend_many(&world, &json!({ "deliveries": [test] })).await["resent"], 1);
    assert_eq!(numbers(&delivery_in(&world, &test, "delivered").await), [1, 2]);
}

/// A delivered test event is resent only by id, too.
#[tokio::test]
async fn tests_that_were_delivered_are_sent_again_only_by_name() {
    let world = World::shared().await;
    let endpoint = world.endpoint("a", &["a"]).await;
    let delivered = delivery_of(&world, &endpoint, "a", "delivered").await;
    test_of(&world, &endpoint).await;
    let resent = resend_many(&world, &json!({ "webhook": endpoint.id, "state": "delivered" })).await;
    let ids: Vec<_> = list(&resent["deliveries"]).iter().map(|delivery| &delivery["id"]).collect();
    assert_eq!(ids, [&delivered["id"]]);
}
