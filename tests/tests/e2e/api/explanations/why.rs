//! `GET /events/{id}/why` and `/events/why?key=`: the way of an event, with the remedy; `POST /events/{id}/send`.

use fanfare_tests::{
    patience::until,
    receiver::Behaviour,
    world::{Endpoint, World},
};
use hyper::Method;
use serde_json::{Value, json};

use crate::api::{assert_refused, checked_client::CheckedClient, delivery_in, event, list, patient, text};

/// The explanation for a webhook.
async fn why(client: &CheckedClient, event: &str, webhook: &str) -> Value {
    let answer = client.get(&format!("/api/v1/events/{event}/why?webhook={webhook}")).await;
    assert_eq!(answer.status, 200, "{}", answer.text);
    assert_eq!(list(&answer.data()["webhooks"]).len(), 1, "{}", answer.text);
    answer.data()["webhooks"][0].clone()
}

fn codes(way: &Value) -> Vec<&str> {
    list(&way["steps"]).iter().map(|step| text(step, "code")).collect()
}

/// The last step's code and the action of its remedy.
fn last(way: &Value) -> (&str, &str) {
    let step = list(&way["steps"]).last().expect("a step");
    (text(step, "code"), text(&step["remedy"], "action"))
}

async fn set(world: &World, endpoint: &Endpoint, change: Value) {
    world.change(endpoint, &change).await;
}

#[tokio::test]
async fn an_event_that_did_not_match_is_explained_and_sent_there() {
    let world = World::shared().await;
    let client = CheckedClient::new(&world);
    let endpoint = world.endpoint("a", &["points.*"]).await;
    let id = world.publish(&json!({ "type": "order.paid", "data": 1, "id": "order 1001/é" })).await;
    event(&world, &id).await;
    let found = client.get("/api/v1/events/why?key=order%201001/%C3%A9").await.data().clone();
    assert_eq!((text(&found, "event"), &found["has_more"]), (id.as_str(), &json!(false)));
    assert_eq!(codes(&found), ["accepted", "unmatched"]);
    assert_eq!(text(&found["webhooks"][0], "webhook"), endpoint.id);

    let way = why(&client, &id, &endpoint.id).await;
    assert_eq!((codes(&way), &way["delivery"]), (vec!["other_types", "sendable"], &Value::Null));
    assert_eq!(text(&way["steps"][0]["remedy"], "action"), "change_subscriptions");
    set(&world, &endpoint, json!({ "events": ["order.*"] })).await;
    let way = why(&client, &id, &endpoint.id).await;
    assert_eq!((codes(&way)[0], last(&way)), ("changed_later", ("sendable", "send")));
    let evidence: Vec<&str> = list(&way["steps"][0]["evidence"]).iter().map(|fact| text(fact, "name")).collect();
    assert_eq!(evidence, ["change", "changed_at"]);
    let remedy = way["steps"][1]["remedy"].clone();
    assert_eq!((text(&remedy, "event"), text(&remedy, "webhook")), (id.as_str(), endpoint.id.as_str()));

    let later = world.endpoint("later", &["*"]).await;
    assert_eq!(codes(&why(&client, &id, &later.id).await), ["created_later", "sendable"]);
    let path = format!("/api/v1/events/{id}/send");
    let sent = client.call(Method::POST, &path, &json!({ "webhook": later.id })).await.data().clone();
    assert_eq!(
        (text(&sent, "event"), text(&sent, "webhook"), &sent["attempt"]),
        (id.as_str(), later.id.as_str(), &json!(1))
    );
    let delivered = delivery_in(&world, text(&sent, "id"), "delivered").await;
    assert_eq!(world.receiver.wait_for("later", 1).await[0].body, text(&delivered, "body").as_bytes());
    let way = why(&client, &id, &later.id).await;
    assert_eq!((codes(&way), text(&way, "state")), (vec!["requested", "taken", "delivered"], "delivered"));
    let again = client.call(Method::POST, &path, &json!({ "webhook": later.id })).await;
    assert_refused("a second delivery", &again, (409, "not_resendable", ""));

    set(&world, &endpoint, json!({ "status": "disabled" })).await;
    assert_eq!(last(&why(&client, &id, &endpoint.id).await), ("disabled", "enable"));
    let refused = client.call(Method::POST, &path, &json!({ "webhook": endpoint.id })).await;
    assert_refused("disabled", &refused, (409, "endpoint_disabled", "webhook"));
    assert_eq!(world.client().delete(&format!("webhooks/{}", endpoint.id)).await.status, 200);
    assert_eq!(last(&why(&client, &id, &endpoint.id).await), ("deleted", ""));
    for (webhook, refusal) in [
        (endpoint.id.as_str(), (404, "not_found", "webhook")),
        ("wh_00000000000000000000000000", (404, "not_found", "webhook")),
        ("wh_1", (422, "invalid_field", "webhook")),
    ] {
        let answer = client.call(Method::POST, &path, &json!({ "webhook": webhook })).await;
        assert_refused(webhook, &answer, refusal);
    }
    assert_eq!(world.receiver.received("later").len(), 1);
}

#[tokio::test]
async fn each_state_is_explained_with_its_remedy() {
    let world = World::shared_of(patient(&[])).await;
    let client = CheckedClient::new(&world);
    world.receiver.script("refusing", &[Behaviour::Answer(401, std::time::Duration::ZERO)]);
    let refusing = world.endpoint("refusing", &["*"]).await;
    let id = world.publish(&json!({ "type": "a", "data": 1 })).await;
    let delivery = world.wait_for_deliveries("state=scheduled", 1).await.remove(0);
    let way = why(&client, &id, &refusing.id).await;
    assert_eq!((codes(&way), last(&way)), (vec!["matched", "answered", "scheduled"], ("scheduled", "wait")));
    let attempt = &way["steps"][1];
    assert_eq!((text(attempt, "fault"), text(&attempt["remedy"], "action")), ("theirs", "check_signature"));
    assert!(text(attempt, "sentence").contains("status 401"), "{attempt}");
    assert_eq!(way["steps"][2]["remedy"]["until"], delivery["next_attempt_at"]);

    set(&world, &refusing, json!({ "status": "paused" })).await;
    let held = world.publish(&json!({ "type": "a", "data": 2 })).await;
    world.wait_for_deliveries(&format!("event={held}&state=held"), 1).await;
    let way = why(&client, &held, &refusing.id).await;
    assert_eq!((last(&way), text(&way, "state")), (("held", "resume"), "held"));
    set(&world, &refusing, json!({ "status": "disabled" })).await;
    world.wait_for_deliveries(&format!("event={held}&state=skipped"), 1).await;
    assert_eq!(last(&why(&client, &held, &refusing.id).await), ("skipped", "enable"));
    set(&world, &refusing, json!({ "status": "enabled" })).await;
    let way = why(&client, &held, &refusing.id).await;
    assert_eq!((last(&way), codes(&way)[1]), (("skipped", "resend"), "changed_since"));

    let tested =
        world.client().post(&format!("webhooks/{}/test", refusing.id), &json!({ "type": "a", "data": 1 })).await;
    let tested = tested.data().clone();
    let found = client.get(&format!("/api/v1/events/{}/why", text(&tested, "event"))).await.data().clone();
    assert_eq!((codes(&found), list(&found["webhooks"]).len()), (vec!["accepted", "test"], 1));
    assert_eq!(last(&found["webhooks"][0]), ("test_failed", "test"));
    let refused = client
        .call(
            Method::POST,
            &format!("/api/v1/events/{}/send", text(&tested, "event")),
            &json!({ "webhook": refusing.id }),
        )
        .await;
    assert_refused("a test", &refused, (409, "not_resendable", ""));

    assert_eq!(world.client().delete(&format!("events/{held}")).await.status, 200);
    let found = client.get(&format!("/api/v1/events/{held}/why")).await.data().clone();
    assert_eq!(codes(&found), ["accepted", "erased"]);
    assert_eq!(last(&found["webhooks"][0]), ("skipped", "publish_again"));
}

#[tokio::test]
async fn a_message_that_could_not_be_read_is_told_to_its_application_only() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let (other, _) = world.other_application().await;
    let broker = world.broker().await;
    for application in [&world.application, &other] {
        let body = if *application == other { "{\"data\":" } else { "{\"private\":" };
        broker.publish(&format!("{application}.a"), Some("k 1"), &[], body).await.expect("the broker");
    }
    let parked = "SELECT count(*) FROM parked WHERE message_id = 'k 1'";
    until("both messages to be parked", async || (world.count(parked).await == 2).then_some(())).await;
    let customer = CheckedClient::new(&world);
    let found = customer.get("/api/v1/events/why?key=k%201").await;
    assert_eq!((codes(found.data()), &found.data()["event"]), (vec!["unreadable"], &Value::Null));
    assert_eq!(text(&found.data()["steps"][0]["remedy"], "action"), "publish_again");
    assert!(!found.text.contains("prk_") && !found.text.contains("private"), "{}", found.text);
    let admin = CheckedClient::admin(&world).await;
    let path = format!("/api/v1/events/why?key=k%201&application={}", world.application);
    let found = admin.get(&path).await;
    assert_eq!(codes(found.data()), ["unreadable"], "the other message names the other application");
    assert_eq!(text(&found.data()["steps"][0]["remedy"], "action"), "put_back");

    for (path, refusal) in [
        ("/api/v1/events/why?key=k%202", (404, "not_found", "key")),
        ("/api/v1/events/why?key=", (422, "invalid_field", "key")),
        ("/api/v1/events/why?key=a%00", (422, "invalid_field", "key")),
        ("/api/v1/events/evt_00000000000000000000000000/why", (404, "not_found", "id")),
    ] {
        assert_refused(path, &customer.get(path).await, refusal);
    }
}
