//! The daily digest in the form and on the page of a webhook.

use fanfare_domain::delivery::digest::last_ended;
use fanfare_tests::world::World;
use jiff::Timestamp;

use super::visitor::Visitor;

#[tokio::test]
async fn a_digest_is_switched_on_by_the_form_and_shown() {
    let world = World::new().await;
    let endpoint = world.endpoint("a", &["order.paid"]).await;
    let named = Visitor::by_key(&world, &world.key).await;
    let page = format!("/console/{}/webhooks/{}", world.application, endpoint.id);
    let (edit, url) = (format!("{page}/edit"), world.receiver.url("a"));
    let usual = [("url", url.as_str()), ("which", "these"), ("others", "order.paid")];
    let post = async |more: &[(&str, &str)]| named.post(&edit, &[&usual[..], more].concat()).await;
    let shown = async || world.client().get(&format!("webhooks/{}", endpoint.id)).await.data().clone();
    let confirmed = async |more: &[(&str, &str)]| {
        let updated_at = shown().await["updated_at"].as_str().expect("a time").to_owned();
        post(&[more, &[("confirmed", "yes"), ("updated_at", updated_at.as_str())]].concat()).await
    };
    assert!(named.get(&edit).await.text.contains(r#"name="digest""#));

    let refused = confirmed(&[("digest", "true")]).await;
    assert_eq!(refused.status, 422, "{}", refused.text);
    assert!(refused.text.contains("needs a feed"), "{}", refused.text);
    assert_eq!(confirmed(&[("digest", "true"), ("feed", "copy")]).await.status, 303);
    let webhook = shown().await;
    let from = webhook["digest_from"].as_str().expect("a day");
    let text = named.get(&page).await.text;
    assert!(text.contains(&format!("begins with {from}")), "{text}");

    // The page shows the last digest, with a link to its event.
    let day = last_ended(Timestamp::now());
    let began = format!("UPDATE endpoints SET digest_from = '{day}' WHERE digest_from IS NOT NULL");
    world.database().await.execute(&began, &[]).await.expect("an update");
    let _dispatcher = world.dispatcher().await;
    world.receiver.wait_for("a", 1).await;
    let event = shown().await["last_digest"]["event"].as_str().expect("an id").to_owned();
    let text = named.get(&page).await.text;
    assert!(text.contains(&format!("/events/{event}\">{day}</a>: 0 deliveries")), "{text}");
    assert_eq!(confirmed(&[]).await.status, 303, "both switched off");
    assert_eq!((&shown().await["digest"], &shown().await["feed"]), (&false.into(), &"none".into()));
}
