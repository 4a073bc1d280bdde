//! Scenario 11: troubles come on the operators' first page, say whose they are, lead to their rows, and go.

use fanfare_tests::{
    clients::browser::{Manner, Visit},
    patience::until,
    receiver::Behaviour,
    scene::park,
    world::{Setup, World},
};
use serde_json::json;

use crate::console::visitor::Visitor;

/// Opens the first page of operators. The page stays open, and changes by itself.
async fn first_page(world: &World, name: &str) -> Visit {
    let visitor = Visitor::by_link(world, &[]).await;
    let visit = Visit::begin(world, name, &visitor.cookie, Manner::USUAL).await;
    visit.open("/console/").await;
    visit
}

fn finding(begin: &str) -> String {
    format!(".findings > li:has-text('{begin}')")
}

/// Waits until the open page has a finding. Asserts whose the finding is, and follows its link.
async fn follow_finding(visit: &Visit, begin: &str, whose: &str) -> String {
    visit.finds(&finding(begin)).await;
    let sentence = visit.text(&finding(begin)).await;
    assert!(sentence.starts_with(&format!("{whose}: {begin}")), "{sentence}");
    visit.choose(&format!("{} a:has-text('Look')", finding(begin))).await;
    visit.address().await
}

/// Waits until the open page has the finding no more.
async fn ends(visit: &Visit, begin: &str) {
    until(&format!("the end of {begin:?}"), async || (visit.count(&finding(begin)).await == 0).then_some(())).await;
}

/// Waits until the open page tells that nothing is wrong. At first, the job of the charts may still have to count.
async fn keeps_up(visit: &Visit) {
    visit.finds("h1:text-is('Fanfare keeps up.')").await;
    let has_no_finding = async || (visit.count(".findings > li:not(.good)").await == 0).then_some(());
    until("a page without a finding", has_no_finding).await;
}

#[tokio::test]
async fn a_killed_dispatcher_is_ours() {
    let world = World::new().await;
    let dispatcher = world.dispatcher().await;
    let visit = first_page(&world, "killed").await;
    keeps_up(&visit).await;
    dispatcher.kill();
    assert_eq!(follow_finding(&visit, "No dispatcher runs", "Ours").await, "/console/queues");
    visit.finds("tbody tr:has-text('dispatcher'):has-text('dead')").await;

    visit.open("/console/").await;
    let _dispatcher = world.dispatcher().await;
    ends(&visit, "No dispatcher runs").await;
    assert_eq!(follow_finding(&visit, "The process dispatcher", "Ours").await, "/console/queues");
    visit.open("/console/").await;
    let later = "UPDATE processes SET alive_until = alive_until - interval '1 hour' WHERE is_dead";
    world.database().await.batch_execute(later).await.expect("an hour later");
    keeps_up(&visit).await;
    visit.end().await;
}

#[tokio::test]
async fn a_hanging_endpoint_is_theirs() {
    let setup = Setup { timeout: Some("1s".to_owned()), ..Setup::new(&[("FANFARE_BREAKER_AFTER", "3")]) };
    let world = World::of(setup).await;
    let _dispatcher = world.dispatcher().await;
    let endpoint = world.endpoint("hanging", &["*"]).await;
    world.receiver.script("hanging", &[Behaviour::Hang]);
    let visit = first_page(&world, "hanging").await;
    for number in 0..4 {
        world.publish(&json!({ "type": "a", "data": number })).await;
    }
    let address = follow_finding(&visit, "127.0.0.1 has failed", "Theirs").await;
    assert_eq!(address, format!("/console/{}/webhooks/{}", world.application, endpoint.id));
    visit.sees("Fanfare only probes the webhook").await;
    visit.sees("the time was up").await;

    visit.open("/console/").await;
    visit.finds(&format!("tr[id={}]", endpoint.id)).await;
    world.receiver.script("hanging", &[Behaviour::OK]);
    keeps_up(&visit).await;
    assert_eq!(visit.count(&format!("tr[id={}]", endpoint.id)).await, 0);
    visit.end().await;
}

#[tokio::test]
async fn a_parked_message_is_the_publishers() {
    let world = World::new().await;
    let (admin, _dispatcher) = (world.admin().await, world.dispatcher().await);
    let visit = first_page(&world, "parked-finding").await;
    let id = park(&world, &admin).await;
    let address = follow_finding(&visit, "1 message is parked", "A publisher's").await;
    assert!(address.starts_with("/console/parked?reason="), "{address}");
    visit.finds(&format!("tr[id={id}]")).await;

    visit.follow("Discard 1").await;
    visit.fill("Type the number", "1").await;
    visit.follow("Discard 1").await;
    visit.sees("1 message discarded.").await;
    visit.open("/console/").await;
    keeps_up(&visit).await;
    visit.end().await;
}

#[tokio::test]
async fn another_setting_is_ours() {
    let world = World::new().await;
    let _dispatcher = world.dispatcher().await;
    let visit = first_page(&world, "settings").await;
    let other = world.process_with("dispatcher", &[("FANFARE_EXPIRY", "23h")]);
    other.ready().await;
    assert_eq!(follow_finding(&visit, "FANFARE_EXPIRY differs", "Ours").await, "/console/queues");
    visit.finds("tbody tr:has-text('FANFARE_EXPIRY'):has-text('23h')").await;

    visit.open("/console/").await;
    visit.finds(&finding("FANFARE_EXPIRY differs")).await;
    other.terminate();
    assert_eq!(other.ended().await, 0);
    keeps_up(&visit).await;
    visit.end().await;
}
