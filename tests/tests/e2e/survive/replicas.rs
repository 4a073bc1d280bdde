//! Two dispatchers at once share the work, and no request is repeated.

use std::time::Duration;

use fanfare_tests::{
    clients::load::Load,
    ledger::{Allowed, Ledger, Subscriber},
    metrics::metric,
    world::{
        World,
        process::{Process, get},
    },
};
use futures_util::future::join_all;
use serde_json::json;

/// Number of attempts made by a dispatcher, from its metrics.
async fn attempts(dispatcher: &Process) -> usize {
    let address = dispatcher.address("serving health and metrics").await;
    let metrics = get(address, "metrics").await.expect("metrics");
    let lines = metrics.lines().filter(|line| line.starts_with("fanfare_attempts_total"));
    lines.filter_map(|line| line.rsplit(' ').next()?.parse::<usize>().ok()).sum()
}

#[tokio::test]
async fn two_dispatchers_share_the_work_and_send_nothing_twice() {
    let world = World::new().await;
    let subscribers = Subscriber::three(&world, Duration::from_millis(100)).await;
    let replicas = [world.dispatcher().await, world.dispatcher().await];
    let load = Load::start(&world, 400, Duration::from_millis(10));
    let accepted = load.finish().await;
    Ledger::read(&world, &accepted, &subscribers).await.check(Allowed::default());

    let [one, other] = [attempts(&replicas[0]).await, attempts(&replicas[1]).await];
    println!("attempts: {one} and {other}");
    assert_eq!(one + other, world.receiver.all().len());
    // A backlog has a single owner: both dispatchers share the events, but not necessarily the attempts.
    const PERSISTED: &str = r#"fanfare_events_total{result="new"}"#;
    let [one, other] = [metric(&replicas[0], PERSISTED).await, metric(&replicas[1], PERSISTED).await];
    assert!(one.min(other) * 5.0 > one + other, "the dispatchers persisted {one} and {other} events: too unequal");
}

/// The copies arrive at the same time, so that both dispatchers persist the same event concurrently.
#[tokio::test]
async fn an_event_published_over_both_entrances_is_delivered_once() {
    const EVENTS: usize = 100;
    let world = World::new().await;
    let subscribers = Subscriber::three(&world, Duration::from_millis(100)).await;
    let _replicas = [world.dispatcher().await, world.dispatcher().await];
    let broker = world.broker().await;
    let keys: Vec<String> = (0..EVENTS).map(|number| format!("twice-{number}")).collect();
    let routing_key = format!("{}.order.created", world.application);
    let over_http = join_all(keys.iter().map(async |key| {
        world.publish(&json!({ "type": "order.created", "id": key, "data": { "key": key } })).await;
    }));
    let over_amqp = async {
        for key in &keys {
            let body = json!({ "data": { "key": key } }).to_string();
            for _ in 0..2 {
                assert!(broker.publish(&routing_key, Some(key), &[], &body).await.expect("the broker"));
            }
        }
    };
    tokio::join!(over_http, over_amqp);
    Ledger::read(&world, &keys, &subscribers).await.check(Allowed::default());
}
