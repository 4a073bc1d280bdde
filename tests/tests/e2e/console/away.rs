//! Pages while the database is away.

use fanfare_tests::{
    patience::until,
    servers::instance::{Instance, Servers},
    world::World,
};
use serde_json::json;
use tokio::task::block_in_place;

use super::{
    html::Html,
    visitor::{Visitor, location},
};

#[tokio::test(flavor = "multi_thread")]
async fn pages_tell_that_the_database_is_away_and_come_back() {
    let database = block_in_place(|| Instance::postgres("pages"));
    let servers = Servers { database_url: database.url(), ..Servers::given() };
    let world = World::with(servers, &[]).await;
    let visitor = Visitor::by_key(&world, &world.key).await;
    let page = format!("/console/{}/deliveries", world.application);
    assert_eq!(visitor.get(&page).await.status, 200);

    block_in_place(|| database.kill());
    let away = until("the page of an outage", async || {
        let answer = visitor.get(&page).await;
        (answer.status == 503).then_some(answer)
    })
    .await;
    let html = Html::parse(&away.text);
    assert_eq!((html.text("h1"), html.errors.len()), ("The database is away", 0));
    assert!(html.text("main").contains("Events are still accepted and kept. Deliveries wait."), "{}", away.text);
    assert!(away.headers.contains_key("content-security-policy"));
    let signing_in = visitor.send_form("/console/sign-in", &[("key", &world.key)]).await;
    assert_eq!(signing_in.status, 503, "{}", signing_in.text);
    assert_eq!(visitor.get("/console/sign-in").await.status, 200, "the form needs no database");
    world.publish(&json!({ "type": "a", "data": {} })).await;

    block_in_place(|| database.start());
    until("the page", async || (visitor.get(&page).await.status == 200).then_some(())).await;
    assert_eq!(location(&visitor.get("/console/session").await), "", "the session lasts");
}
