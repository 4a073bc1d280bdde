//! Outages of our own egress: only the receiver spends the schedule.

use fanfare_tests::{
    metrics::metric,
    patience::until,
    servers::name_server::{Answers, NameServer},
    world::{World, process::get},
};
use serde_json::json;

async fn world_with(server: &NameServer) -> World {
    let address = server.address().to_string();
    let variables = [("FANFARE_NAME_SERVERS", address.as_str())];
    World::of_variables(&variables).await
}

/// Creates an endpoint whose URL has a name.
async fn named(world: &World, host: &str, path: &str, types: &[&str]) {
    let url = world.receiver.url(path).replacen("127.0.0.1", &format!("{host}.receiver.test"), 1);
    let made = world.client().post("webhooks", &json!({ "url": url, "events": types })).await;
    assert_eq!(made.status, 201, "{}", made.body);
}

#[tokio::test]
async fn name_servers_that_answer_nobody_spend_no_schedule() {
    for outage in [Answers::Failures, Answers::Nothing] {
        let server = NameServer::start().await;
        let world = world_with(&server).await;
        named(&world, "hooks", "a", &["a"]).await;
        // A host of its own: no connection is open that needs no look-up.
        named(&world, "others", "b", &["b"]).await;
        let dispatcher = world.dispatcher().await;
        world.known().await;
        world.publish(&json!({ "type": "a", "data": 0 })).await;
        world.receiver.wait_for("a", 1).await;

        server.answer(outage);
        const EVENTS: usize = 5;
        for number in 0..EVENTS {
            world.publish(&json!({ "type": "b", "data": number })).await;
        }
        until("the deliveries to wait for our egress", async || {
            let waiting = world.deliveries("state=queued").await;
            let is_ours = waiting.iter().any(|delivery| delivery["reason"] == "egress_unavailable");
            // One is the probe.
            (waiting.len() >= EVENTS - 1 && is_ours).then_some(())
        })
        .await;
        let address = dispatcher.address("serving health and metrics").await;
        until("the dispatcher to be not ready", async || {
            let ready = get(address, "readyz").await?;
            ready.contains("can make no connections").then_some(())
        })
        .await;
        assert_eq!(metric(&dispatcher, "fanfare_egress_available").await, 0.0);

        server.answer(Answers::All);
        world.receiver.wait_for("b", EVENTS).await;
        world.wait_for_deliveries("state=delivered", 1 + EVENTS).await;
        let spent = "SELECT count(*) FROM all_deliveries WHERE attempt > 1 OR failures > 0";
        let failed = "SELECT count(*) FROM attempts WHERE outcome <> 'answered'";
        assert_eq!((world.count(spent).await, world.count(failed).await), (0, 0), "{outage:?}");
        until("the dispatcher to be ready", async || get(address, "readyz").await?.starts_with("ready").then_some(()))
            .await;
        assert_eq!(metric(&dispatcher, "fanfare_egress_available").await, 1.0);
    }
}

/// A name whose own servers fail is its owner's fault, while other names have answers.
#[tokio::test]
async fn a_name_that_fails_alone_spends_its_schedule() {
    let server = NameServer::start().await;
    let world = world_with(&server).await;
    named(&world, "even", "even", &["even"]).await;
    named(&world, "odd", "odd", &["odd"]).await;
    let _dispatcher = world.dispatcher().await;
    world.known().await;
    world.publish(&json!({ "type": "even", "data": 0 })).await;
    world.receiver.wait_for("even", 1).await;
    server.answer(Answers::SomeFailures);
    world.publish(&json!({ "type": "odd", "data": 0 })).await;
    let failed = world.wait_for_deliveries("state=failed", 1).await.remove(0);
    assert_eq!(failed["reason"], "attempts_exhausted", "{failed}");
    world.publish(&json!({ "type": "even", "data": 1 })).await;
    world.receiver.wait_for("even", 2).await;
}
