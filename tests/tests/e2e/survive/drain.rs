//! SIGTERM under full load: attempts in flight are finished and recorded, and no request is repeated.

use std::time::Duration;

use fanfare_tests::{
    clients::load::Load,
    ledger::{Allowed, Ledger, Subscriber},
    patience::until,
    receiver::Behaviour,
    world::{Setup, World, process::get},
};
use tokio::time::Instant;

/// Answer time of the receivers: each attempt in flight at the SIGTERM lasts at least another second.
const SLOW: Duration = Duration::from_millis(1500);

/// Attempts in flight at once: the whole bound of three lanes.
const PERMITS: usize = 24;

/// Events for each of three endpoints, several times the attempts in flight.
const EVENTS: usize = 60;

#[tokio::test(flavor = "multi_thread")]
async fn a_dispatcher_ended_under_full_load_finishes_what_it_sends_and_leaves_the_rest() {
    let variables = [("FANFARE_LANE_BOUND", "8"), ("FANFARE_PLACES", "128"), ("FANFARE_GRACE", "20s")];
    let world = World::of(Setup { timeout: Some("10s".to_owned()), ..Setup::new(&variables) }).await;
    let mut subscribers = Vec::new();
    for path in ["one", "two", "three"] {
        subscribers.push(Subscriber::new(&world, path, vec![Behaviour::Answer(200, SLOW)]).await);
    }
    let accepted = Load::start(&world, EVENTS, Duration::from_millis(1)).finish().await;
    let dispatcher = world.dispatcher().await;
    let operations = dispatcher.address("serving health and metrics").await;
    until("all places to be used", async || {
        let metrics = get(operations, "metrics").await?;
        metrics.contains(&format!("fanfare_attempts_in_flight {PERMITS}\n")).then_some(())
    })
    .await;

    let before = world.receiver.all().len();
    let terminated = Instant::now();
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, 0);
    let requests = world.receiver.all().len();
    println!("drained in {:?}, with {before} requests before and {requests} in the end", terminated.elapsed());
    assert!(requests < accepted.len() * subscribers.len(), "the dispatcher left no delivery to the next");
    let answered = "SELECT count(*) FROM all_attempts WHERE outcome = 'answered' AND status = 200";
    assert_eq!(
        world.count(answered).await,
        i64::try_from(requests).expect("a small number"),
        "a sent request was not recorded as delivered"
    );
    assert_eq!(world.count("SELECT count(*) FROM all_attempts").await, world.count(answered).await);
    assert_eq!(world.count("SELECT count(*) FROM all_deliveries WHERE state = 'sending'").await, 0);

    // The rest is sent at once, without repeats.
    for path in ["one", "two", "three"] {
        world.receiver.script(path, &[Behaviour::OK]);
    }
    let _next = world.dispatcher().await;
    Ledger::read(&world, &accepted, &subscribers).await.check(Allowed::default());
}
