//! Scenario 1: sign in, a wrong key, and a key that is revoked while signed in.

use fanfare_tests::{
    clients::browser::{Front, Manner, Visit},
    world::World,
};

use crate::console::visitor::link;

async fn a_visitor_signs_in(manner: Manner) {
    let world = World::shared().await;
    let admin = world.admin().await;
    let key = world.create_key(&["--role", "manage", "--application", &world.application]);
    world.client().with_key(&key).accepted().await;
    let page = format!("/console/{}/deliveries", world.application);
    let visit = Visit::begin(&world, "sign-in", "", manner).await;
    assert_eq!(visit.open(&page).await, 200);
    visit.fill("API key", "nonsense").await;
    visit.follow("Sign in").await;
    visit.finds("#key[aria-invalid=true]").await;
    visit.fill("API key", &key).await;
    visit.follow("Sign in").await;
    visit.finds("h1:has-text('Delivery log')").await;
    assert_eq!(visit.address().await, page);

    let id = format!("key_{}", key.split('_').nth(1).expect("an id"));
    assert_eq!(admin.delete(&format!("keys/{id}")).await.status, 200);
    if manner.without_scripts {
        assert_eq!(visit.open(&page).await, 200);
        visit.finds("#key").await;
    } else {
        // The live page tells the end by itself.
        visit.finds("#live[aria-pressed=false]").await;
        assert_eq!(visit.text("#said").await, "The session has ended.");
    }
    visit.end().await;
}

async fn a_link_signs_in(manner: Manner) {
    let world = World::shared().await;
    let visit = Visit::begin(&world, "link", "", manner).await;
    visit.open(&link(&world, &["--application", &world.application, "--look-only"])).await;
    visit.follow("Open").await;
    visit.sees("(look only)").await;
    visit.open("/console/session").await;
    visit.follow("Sign out").await;
    visit.finds("#key").await;
    assert_eq!(visit.address().await, "/console/sign-in");
    visit.end().await;
}

#[tokio::test]
async fn by_key() {
    a_visitor_signs_in(Manner::USUAL).await;
}

#[tokio::test]
async fn by_key_without_scripts() {
    a_visitor_signs_in(Manner::WITHOUT_SCRIPTS).await;
}

#[tokio::test]
async fn by_link() {
    a_link_signs_in(Manner::USUAL).await;
}

#[tokio::test]
async fn by_link_without_scripts() {
    a_link_signs_in(Manner::WITHOUT_SCRIPTS).await;
}

/// Over plain http, a browser sends no `Sec-Fetch-Site` to a host that is not loopback: only `Origin` tells the site.
#[tokio::test]
async fn by_key_over_plain_http() {
    let front = Front::open("http").await;
    let world = World::of_variables(&[("FANFARE_CONSOLE_URL", &front.origin)]).await;
    front.lead_to(&world).await;
    world.endpoint("a", &["a"]).await;
    let visit = Visit::at(&front.origin, "plain-http", "", Manner::USUAL).await;
    visit.open("/console/").await;
    visit.fill("API key", &world.key).await;
    visit.follow("Sign in").await;
    visit.sees("These pages use http").await;
    visit.open(&format!("/console/{}/webhooks", world.application)).await;
    visit.follow("Send test event").await;
    visit.sees("The webhook took the event: it answered 200.").await;
    visit.end().await;
}
