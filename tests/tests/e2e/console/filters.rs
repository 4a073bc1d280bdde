//! Filters in the forms of the console and the portal: made, tried, refused and saved.

use fanfare_tests::{patience::until, world::World};
use serde_json::json;

use super::{html::Html, visitor::Visitor};

/// The filter in the form of a page.
fn filter(page: &str) -> String {
    let page = Html::parse(page);
    let field = page.all("textarea").find(|field| field.get("name") == Some("filter"));
    field.unwrap_or_else(|| panic!("no field: {page:?}")).text.trim().to_owned()
}

#[tokio::test]
async fn a_filter_is_made_tried_and_saved_by_the_form() {
    let world = World::shared().await;
    for amount in [50, 150] {
        world.publish(&json!({ "type": "order.paid", "data": { "amount": amount } })).await;
    }
    until("the events", async || {
        let events = world.client().get("events").await;
        (events.data().as_array().map(Vec::len) == Some(2)).then_some(())
    })
    .await;
    let endpoint = world.endpoint("a", &["order.paid"]).await;
    let named = Visitor::by_key(&world, &world.key).await;
    let edit = format!("/console/{}/webhooks/{}/edit", world.application, endpoint.id);
    let url = world.receiver.url("a");
    let usual = [("url", url.as_str()), ("which", "these"), ("others", "order.paid")];
    let post = async |more: &[(&str, &str)]| named.post(&edit, &[&usual[..], more].concat()).await;

    let condition = [("intent", "condition"), ("member", "amount"), ("comparison", ">"), ("value", "100")];
    let made = post(&condition).await;
    assert_eq!((made.status, filter(&made.text).as_str()), (200, "data.amount > 100"), "{}", made.text);
    let tried = post(&[("intent", "try"), ("filter", "data.amount > 100")]).await;
    assert!(tried.text.contains("1 of the 2 last events pass."), "{}", tried.text);
    assert!(tried.text.contains("data.amount = 50"), "{}", tried.text);
    for intent in ["try", ""] {
        let refused = post(&[("intent", intent), ("filter", "data.amount = 100")]).await;
        assert_eq!((refused.status, filter(&refused.text).as_str()), (422, "data.amount = 100"), "{intent}");
        assert!(refused.text.contains("at character 13"), "{}", refused.text);
    }
    let webhook = world.client().get(&format!("webhooks/{}", endpoint.id)).await.data().clone();
    let updated_at = webhook["updated_at"].as_str().expect("a time").to_owned();
    let confirmed = [("filter", "data.amount > 100"), ("confirmed", "yes"), ("updated_at", updated_at.as_str())];
    assert_eq!(post(&confirmed).await.status, 303);
    let shown = named.get(&format!("/console/{}/webhooks/{}", world.application, endpoint.id)).await;
    assert!(
        shown.text.contains("data.amount &gt; 100") || shown.text.contains("data.amount &#62; 100"),
        "{}",
        shown.text
    );
    assert_eq!(world.client().get(&format!("webhooks/{}", endpoint.id)).await.data()["filter"], "data.amount > 100");
}

/// A customer who may change filters, but not see payloads, would learn members of past events from results.
#[tokio::test]
async fn a_visitor_without_payloads_learns_no_result_of_a_filter() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let new = json!({ "url": world.receiver.url("a"), "events": ["*"], "filter": "data.salary > 5000" });
    let webhook = world.client().post("webhooks", &new).await.data()["id"].as_str().expect("an id").to_owned();
    world.known().await;
    let event = world.publish(&json!({ "type": "a", "data": { "salary": 4000 } })).await;
    let customer = Visitor::of_portal(&world, &["endpoints"]).await;
    let reader = Visitor::of_portal(&world, &["endpoints", "payloads"]).await;
    let address = format!("/portal/{}/why?event={event}", world.application);
    let unchanged = until("an explanation", async || {
        let page = customer.get(&address).await;
        (page.status == 200).then_some(page)
    });
    let unchanged = unchanged.await.text;
    assert!(unchanged.contains("The event did not meet the webhook"), "{unchanged}");
    assert!(reader.get(&address).await.text.contains("data.salary = 4000"));
    for filter in ["data.salary > 3000", "data.salary < 3000", "data.other == 1"] {
        world.client().patch(&format!("webhooks/{webhook}"), &json!({ "filter": filter })).await.data();
        let page = customer.get(&address).await.text;
        assert!(page.contains("only shown to readers of payloads") && !page.contains("4000"), "{filter}: {page}");
    }
}
