//! Templates in the forms of the console and the portal: begun with a preset, shown, refused and saved.

use fanfare_tests::{patience::until, world::World};
use serde_json::json;

use super::{html::Html, visitor::Visitor};

/// The template in the form of a page.
fn template(page: &str) -> String {
    let page = Html::parse(page);
    let field = page.all("textarea").find(|field| field.get("name") == Some("template"));
    field.unwrap_or_else(|| panic!("no field: {page:?}")).text.trim().to_owned()
}

#[tokio::test]
async fn a_template_begins_with_a_preset_and_is_shown_and_saved_by_the_form() {
    let world = World::shared().await;
    world.publish(&json!({ "type": "order.paid", "data": { "amount": 50 } })).await;
    until("the event", async || {
        let events = world.client().get("events").await;
        (events.data().as_array().map(Vec::len) == Some(1)).then_some(())
    })
    .await;
    let endpoint = world.endpoint("a", &["order.paid"]).await;
    let named = Visitor::by_key(&world, &world.key).await;
    let edit = format!("/console/{}/webhooks/{}/edit", world.application, endpoint.id);
    let url = world.receiver.url("a");
    let usual = [("url", url.as_str()), ("which", "these"), ("others", "order.paid")];
    let post = async |more: &[(&str, &str)]| named.post(&edit, &[&usual[..], more].concat()).await;

    let begun = post(&[("intent", "preset"), ("preset", "slack")]).await;
    assert_eq!(begun.status, 200, "{}", begun.text);
    assert!(begun.text.contains("incoming webhook of Slack"), "{}", begun.text);
    assert!(begun.text.contains("The body for a sample:"), "{}", begun.text);
    let preset = template(&begun.text);
    assert!(preset.contains("mrkdwn"), "{preset}");
    let shown = post(&[("intent", "preview"), ("template", &preset)]).await;
    assert!(shown.text.contains("1 of the 1 last events have a body."), "{}", shown.text);
    assert!(shown.text.contains("New event: order.paid"), "{}", shown.text);
    for intent in ["preview", ""] {
        let refused = post(&[("intent", intent), ("template", r#"{"a":"{{ amount }}"}"#)]).await;
        assert_eq!(refused.status, 422, "{intent}");
        assert!(refused.text.contains("/a, character 4"), "{}", refused.text);
    }
    let webhook = world.client().get(&format!("webhooks/{}", endpoint.id)).await.data().clone();
    let updated_at = webhook["updated_at"].as_str().expect("a time").to_owned();
    let confirmed = [("template", preset.as_str()), ("confirmed", "yes"), ("updated_at", updated_at.as_str())];
    assert_eq!(post(&confirmed).await.status, 303);
    let saved = world.client().get(&format!("webhooks/{}", endpoint.id)).await.data().clone();
    assert_eq!(saved["template"]["text"], "*{{ type }}*");
    let page = named.get(&format!("/console/{}/webhooks/{}", world.application, endpoint.id)).await;
    assert!(page.text.contains("by a template"), "{}", page.text);
}
