//! A broker with several nodes that fail one after the other. Each node is a proxy to the same server; `make chaos`
//! runs a real cluster.

use fanfare_tests::{patience::until, servers::proxy::Proxy, world::World};
use futures_util::future::join_all;
use serde_json::json;

/// Publishes an event once ingest accepts events, and waits for the delivery.
async fn flows(world: &World, path: &str) {
    let before = world.receiver.received(path).len();
    until("ingest to accept an event", async || {
        let answer = world.client().post("events", &json!({ "type": "a", "data": {} })).await;
        (answer.status == 202).then_some(())
    })
    .await;
    world.receiver.wait_for(path, before + 1).await;
}

#[tokio::test]
async fn all_goes_on_at_the_nodes_that_are_left() {
    let mut world = World::new().await;
    drop(world.take_ingest());
    let ways = (0..3).map(|_| Proxy::before(&world.variables["AMQP_URL"]));
    let (mut ways, urls): (Vec<Proxy>, Vec<String>) = join_all(ways).await.into_iter().unzip();
    let urls = urls.join(", ");
    let urls = [("AMQP_URL", urls.as_str())];
    world.start_ingest_with(&urls).await;
    let dispatcher = world.process_with("dispatcher", &urls);
    let endpoint = world.endpoint("all", &["*"]).await;
    flows(&world, &endpoint.path).await;
    for _ in 0..2 {
        ways.remove(0);
        flows(&world, &endpoint.path).await;
    }
    // A process that starts now finds the last node, too.
    dispatcher.kill();
    world.start_ingest_with(&urls).await;
    let _dispatcher = world.process_with("dispatcher", &urls);
    flows(&world, &endpoint.path).await;
}
