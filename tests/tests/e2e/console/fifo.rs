//! FIFO in the forms of the console and the portal, and the page of ordering keys.

use fanfare_tests::{patience::until, receiver::Behaviour, world::World};
use serde_json::{Value, json};

use super::{html::Html, visitor::Visitor};

#[tokio::test]
async fn fifo_is_chosen_and_a_parked_key_resumed_by_the_form() {
    let world = World::of_waits("1s", &[]).await;
    let _dispatcher = world.dispatcher().await;
    let endpoint = world.endpoint("a", &["a"]).await;
    let named = Visitor::by_key(&world, &world.key).await;
    let page = format!("/console/{}/webhooks/{}", world.application, endpoint.id);
    let empty = named.get(&format!("{page}/ordering-keys")).await.text;
    assert!(empty.contains("No ordering key waits. The webhook has no FIFO"), "{empty}");
    let webhook = world.client().get(&format!("webhooks/{}", endpoint.id)).await.data().clone();
    let (url, updated_at) = (world.receiver.url("a"), webhook["updated_at"].as_str().expect("a time").to_owned());
    let form = [("url", url.as_str()), ("which", "these"), ("others", "a"), ("fifo", "park")];
    let edit = format!("{page}/edit");
    let asked = named.post(&edit, &form).await;
    assert!(asked.text.contains("FIFO") && asked.text.contains("park"), "{}", asked.text);
    let confirmed = [&form[..], &[("confirmed", "yes"), ("updated_at", updated_at.as_str())]].concat();
    assert_eq!(named.post(&edit, &confirmed).await.status, 303);
    let shown = Html::parse(&named.get(&edit).await.text);
    let mut chosen = shown.all("option").filter(|option| option.get("selected").is_some());
    assert!(chosen.any(|option| option.get("value") == Some("park")));

    world.known().await;
    world.receiver.script("a", &[Behaviour::FAIL]);
    for place in 1..=2 {
        world.publish(&json!({ "type": "a", "data": place, "ordering_key": "order-<1>" })).await;
    }
    let keys = until("the parked key", async || {
        let keys = named.get(&format!("{page}/ordering-keys")).await.text;
        keys.contains("Resume").then_some(keys)
    })
    .await;
    assert!(keys.contains("number 2") && !keys.contains("order-<1>"), "{keys}");
    let shown = named.get(&page).await.text;
    assert!(shown.contains("1 ordering key is parked"), "{shown}");
    let overview = named.get(&format!("/console/{}/", world.application)).await.text;
    assert!(overview.contains("1 ordering key is parked at"), "{overview}");
    world.receiver.script("a", &[Behaviour::OK]);
    let look = Visitor::of_portal(&world, &["payloads"]).await;
    let of_portal = page.replace("/console/", "/portal/");
    let looked = look.get(&format!("{of_portal}/ordering-keys")).await.text;
    assert!(looked.contains("parked") && !looked.contains("Resume</button>"), "{looked}");
    assert_eq!(look.post(&format!("{of_portal}/ordering-keys"), &[("key", "order-<1>")]).await.status, 403);
    let resumed = named.post(&format!("{page}/ordering-keys"), &[("key", "order-<1>")]).await;
    assert_eq!(resumed.status, 303, "{}", resumed.text);
    let delivered = world.wait_for_deliveries("state=delivered", 1).await;
    assert_eq!(delivered[0]["sequence"], 2);
    let again = named.post(&format!("{page}/ordering-keys"), &[("key", "order-<1>")]).await;
    assert_eq!(again.status, 404, "{}", again.text);
    let listed: Value = world.client().get("audit-log?action=resume_ordering_keys").await.data().clone();
    assert!(listed.as_array().is_some_and(|entries| entries.len() == 2), "{listed}");
    assert!(!listed.to_string().contains("order-<1>"), "an ordering key is a part of the payload: {listed}");
}
