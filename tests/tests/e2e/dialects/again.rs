//! Repeated requests: retries and resends.

use std::collections::HashMap;

use fanfare_tests::{
    receiver::{Behaviour, Received},
    world::World,
};
use futures_util::future::join_all;
use serde_json::json;

use crate::dialects::{
    DIALECTS,
    tenants::{Tenant, Webhook, attempts},
    verifiers::Verifiers,
};

/// An event whose bytes change when a JSON library other than Node's parses and prints the text.
const EVENT: &str = "{\"type\":\"order.created\",\"time\":\"2026-06-18T14:00:00.9999+02:00\",\
    \"data\":{\"b\":1.0,\"2\":\"\u{2028}\\u2028\\/\",\"a\":[-0,1E21,9007199254740993],\"1\":\"😀\\ud800\",\"a\":\"again\"}}";

/// Answers of the receiver until the delivery succeeds.
const BEHAVIOURS: [Behaviour; 4] = [Behaviour::FAIL, Behaviour::Reset, Behaviour::FAIL, Behaviour::OK];

#[tokio::test]
async fn body_and_dialect_signature_are_the_same_at_every_attempt() {
    let world = World::shared().await;
    let mut receivers = [Verifiers::in_node().await, Verifiers::in_python().await];
    let mut tenants = Vec::new();
    for dialect in DIALECTS {
        let tenant = Tenant::new(&world, dialect).await;
        world.receiver.script(dialect, &BEHAVIOURS);
        let webhook = tenant.webhook(&world, &world.receiver.url(dialect), &["*"]).await;
        for receivers in &mut receivers {
            receivers.receive(dialect, dialect, &webhook.secret).await;
        }
        tenants.push((tenant, webhook));
    }
    let events = join_all(tenants.iter().map(|(tenant, webhook)| sent_twice(&world, tenant, webhook))).await;
    for ((tenant, _), event) in tenants.iter().zip(&events) {
        let received = world.receiver.received(tenant.dialect);
        assert_all_the_same(tenant.dialect, event, &received);
        for request in &received {
            for receivers in &receivers {
                assert_eq!(receivers.faults(tenant.dialect, request).await, [""; 0], "{}", tenant.dialect);
            }
        }
    }
}

/// Publishes the event, waits until the delivery succeeds, and resends the delivery. Returns the event id.
async fn sent_twice(world: &World, tenant: &Tenant, webhook: &Webhook) -> String {
    let event = tenant.publish_as_it_is(EVENT).await;
    let delivery = tenant.delivery(&event, webhook, "delivered").await;
    assert_eq!(attempts(&delivery).len(), BEHAVIOURS.len(), "{}: {delivery}", tenant.dialect);
    tenant.resend(&delivery).await;
    world.receiver.wait_for(tenant.dialect, BEHAVIOURS.len() + 1).await;
    event
}

/// Checks that all requests are equal, except for the attempt time and its Standard Webhooks signature.
fn assert_all_the_same(dialect: &str, event: &str, received: &[Received]) {
    assert_eq!(received.len(), BEHAVIOURS.len() + 1, "{dialect}");
    let (first, others) = received.split_first().expect("requests");
    assert_eq!(first.event(), event, "{dialect}");
    for other in others {
        assert_eq!(String::from_utf8_lossy(&other.body), String::from_utf8_lossy(&first.body), "{dialect}");
        assert_eq!(without_time(other), without_time(first), "{dialect}");
    }
    let time = |request: &Received| request.header("webhook-timestamp").parse::<i64>().expect("a time");
    let scheduled: Vec<i64> = received[..BEHAVIOURS.len()].iter().map(time).collect();
    assert!(
        scheduled.is_sorted_by(|earlier, later| earlier < later),
        "{dialect}: several attempts have the same timestamp: {scheduled:?}"
    );
}

fn without_time(request: &Received) -> HashMap<String, String> {
    let mut headers = request.headers.clone();
    headers.retain(|name, _| !matches!(name.as_str(), "webhook-timestamp" | "webhook-signature"));
    headers
}

#[tokio::test]
async fn a_resend_repeats_the_stored_body_after_a_change_of_dialect() {
    let world = World::shared().await;
    let admin = world.client().with_key(&world.create_key(&["--role", "admin"]));
    let tenant = Tenant::new(&world, "nudj").await;
    let webhook = tenant.webhook(&world, &world.receiver.url("nudj"), &["*"]).await;
    let event = tenant.publish_as_it_is(EVENT).await;
    let delivery = tenant.delivery(&event, &webhook, "delivered").await;

    let application = format!("applications/{}", tenant.application);
    admin.patch(&application, &json!({ "dialect": "incenta" })).await.data();
    world.known().await;
    tenant.resend(&delivery).await;
    tenant.publish_as_it_is(EVENT).await;
    let received = world.receiver.wait_for("nudj", 3).await;
    let (again, anew): (Vec<&Received>, Vec<_>) = received.iter().partition(|request| request.event() == event);
    assert_eq!((again.len(), anew.len()), (2, 1));
    assert_eq!(again[0].body, again[1].body);
    assert!(
        anew[0].body.starts_with(br#"{"event":"order.created","data":"#),
        "a new event has the body of the new dialect"
    );
}
