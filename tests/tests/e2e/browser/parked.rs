//! Scenario 12: a parked message is edited, compared, put back, and delivered.

use fanfare_tests::{
    clients::browser::{Manner, Visit},
    scene::park,
    world::World,
};
use serde_json::{Value, json};

use crate::console::visitor::Visitor;

async fn a_message_is_mended(manner: Manner) {
    let world = World::new().await;
    let (admin, _dispatcher) = (world.admin().await, world.dispatcher().await);
    let endpoint = world.endpoint("a", &["*"]).await;
    park(&world, &admin).await;
    let visitor = Visitor::by_link(&world, &[]).await;
    let visit = Visit::begin(&world, "parked", &visitor.cookie, manner).await;
    visit.open("/console/parked").await;
    visit.choose("tbody[data-rows=messages] a[data-row]").await;
    visit.follow("Edit, and put back").await;
    visit.fill("message_id", "mended").await;
    visit.fill("Body", r#"{"data":{"n":2}}"#).await;
    visit.follow("Review the edit").await;
    visit.finds(".diff del").await;
    visit.finds(".diff ins").await;
    visit.follow("Put back").await;
    visit.sees("put back").await;
    let received = world.receiver.wait_for(&endpoint.path, 1).await;
    let body: Value = serde_json::from_slice(&received[0].body).expect("JSON");
    assert_eq!(body["data"], json!({ "n": 2 }));
    visit.open("/console/parked").await;
    visit.sees("Everything could be read.").await;
    visit.end().await;
}

#[tokio::test]
async fn is_mended() {
    a_message_is_mended(Manner::USUAL).await;
}

#[tokio::test]
async fn is_mended_without_scripts() {
    a_message_is_mended(Manner::WITHOUT_SCRIPTS).await;
}
