//! Filter, template, digest, FIFO and cancellation in the console, and by a customer in the portal.

use fanfare_tests::{patience::until, world::World};
use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use super::visitor::Visitor;

const FILTER: &str = "data.amount > 100";
const TEMPLATE: &str = r#"{"text":"paid {{ data.amount }}"}"#;

/// Publishes an event that is due in an hour. Returns the id of the stored event.
async fn delayed(world: &World) -> String {
    let due = Timestamp::now() + SignedDuration::from_hours(1);
    let event = world.publish(&json!({ "type": "a", "data": { "amount": 1 }, "deliver_at": due.to_string() })).await;
    until("the event", async || (world.client().get(&format!("events/{event}")).await.status == 200).then_some(()))
        .await;
    event
}

async fn status(world: &World, event: &str) -> Value {
    world.client().get(&format!("events/{event}")).await.data()["status"].clone()
}

#[tokio::test]
async fn a_visitor_filters_reshapes_orders_and_digests_the_deliveries_of_a_webhook() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    world.publish(&json!({ "type": "a", "data": { "amount": 120 } })).await;
    until("the event", async || (world.rows("events", "true").await == 1).then_some(())).await;
    let rights = ["payloads", "endpoints", "cancel"];
    let visitors =
        [("console", Visitor::by_key(&world, &world.key).await), ("portal", Visitor::of_portal(&world, &rights).await)];
    for (face, visitor) in visitors {
        let endpoint = world.endpoint(face, &["a"]).await;
        let edit = format!("/{face}/{}/webhooks/{}/edit", world.application, endpoint.id);
        let url = world.receiver.url(face);
        let usual = [("url", url.as_str()), ("which", "these"), ("others", "a"), ("filter", FILTER)];
        let post = async |more: &[(&str, &str)]| visitor.post(&edit, &[&usual[..], more].concat()).await;
        let tried = post(&[("intent", "try")]).await.text;
        assert!(tried.contains("1 of the 1 last events pass."), "{face}: {tried}");
        let shown = post(&[("intent", "preview"), ("template", TEMPLATE)]).await.text;
        assert!(shown.contains("paid 120") && !shown.contains("cannot be saved"), "{face}: {shown}");
        let compared = post(&[("intent", "condition"), ("member", "amount"), ("comparison", ">"), ("value", "much")]);
        let compared = compared.await;
        assert!(compared.status == 422 && compared.text.contains("must be a number"), "{face}: {}", compared.text);

        let shown = world.client().get(&format!("webhooks/{}", endpoint.id)).await.data().clone();
        let updated_at = shown["updated_at"].as_str().expect("a time");
        let chosen = [("template", TEMPLATE), ("feed", "copy"), ("digest", "true"), ("fifo", "block")];
        let confirmed = [("confirmed", "yes"), ("updated_at", updated_at)];
        let saved = post(&[&chosen[..], &confirmed].concat()).await;
        assert_eq!(saved.status, 303, "{face}: {}", saved.text);
        let saved = world.client().get(&format!("webhooks/{}", endpoint.id)).await.data().clone();
        let expected = json!([FILTER, { "text": "paid {{ data.amount }}" }, true, "block"]);
        assert_eq!(json!([saved["filter"], saved["template"], saved["digest"], saved["fifo"]]), expected, "{face}");
        let page = visitor.get(edit.trim_end_matches("/edit")).await.text;
        assert!(page.contains("data.amount &gt; 100") || page.contains("data.amount &#62; 100"), "{face}: {page}");
    }
}

#[tokio::test]
async fn a_template_that_cannot_be_saved_says_so_in_the_preview() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    // Newer events of a type hide an older event of another type from the preview.
    world.publish(&json!({ "type": "old", "data": {} })).await;
    for amount in 0..6 {
        world.publish(&json!({ "type": "new", "data": { "amount": amount } })).await;
    }
    until("the events", async || (world.rows("events", "true").await == 7).then_some(())).await;
    let endpoint = world.endpoint("a", &["*"]).await;
    let named = Visitor::by_key(&world, &world.key).await;
    let edit = format!("/console/{}/webhooks/{}/edit", world.application, endpoint.id);
    let url = world.receiver.url("a");
    let form = [("url", url.as_str()), ("which", "all"), ("intent", "preview"), ("template", TEMPLATE)];
    let shown = named.post(&edit, &form).await.text;
    assert!(shown.contains("5 of the 5 last events have a body."), "{shown}");
    assert!(shown.contains("cannot be saved: `template` has no body for event"), "{shown}");
    // An event that does not meet the filter needs no body.
    let filtered = named.post(&edit, &[&form[..], &[("filter", r#"type == "new""#)]].concat()).await.text;
    assert!(!filtered.contains("cannot be saved"), "{filtered}");
}

#[tokio::test]
async fn a_visitor_with_the_right_cancels_a_delayed_event_once() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let visitors = [
        ("console", Visitor::by_key(&world, &world.key).await),
        ("portal", Visitor::of_portal(&world, &["cancel"]).await),
    ];
    for (face, visitor) in visitors {
        let event = delayed(&world).await;
        let page = format!("/{face}/{}/events/{event}", world.application);
        let stranger = Visitor::of_portal(&world, &["payloads"]).await;
        let of_portal = format!("/portal/{}/events/{event}", world.application);
        assert!(!stranger.get(&of_portal).await.text.contains("/cancel\""), "the right is missing");
        assert_eq!(stranger.post(&format!("{of_portal}/cancel"), &[]).await.status, 403);
        assert_eq!(status(&world, &event).await, "delayed");

        let asked = visitor.get(&format!("{page}/cancel")).await;
        assert!(asked.status == 200 && visitor.get(&page).await.text.contains("/cancel\""), "{face}: {}", asked.text);
        let cancelled = visitor.post(&format!("{page}/cancel"), &[]).await;
        assert_eq!(cancelled.status, 303, "{face}: {}", cancelled.text);
        assert_eq!(status(&world, &event).await, "cancelled");
        let shown = visitor.get(&page).await.text;
        assert!(shown.contains("was cancelled before it was due"), "{face}: {shown}");
    }
    let ordinary = world.publish(&json!({ "type": "a", "data": 1 })).await;
    until("the event", async || (world.client().get(&format!("events/{ordinary}")).await.status == 200).then_some(()))
        .await;
    let named = Visitor::by_key(&world, &world.key).await;
    let late = named.post(&format!("/console/{}/events/{ordinary}/cancel", world.application), &[]).await;
    assert_eq!(late.status, 409, "{}", late.text);
}
