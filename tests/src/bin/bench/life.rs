//! Receivers as they are in life: slow to answer, or gone for long.

use std::time::Duration;

use tokio::time::sleep;

use crate::{
    figures::{Figures, Goal},
    latency::{Latency, SECONDS, subscriber, types},
    machine::Machine,
    scene::{Scene, Subject, Subscriber, Way},
    throughput::WARM_UP,
};

/// Endpoints that answer slowly.
const ENDPOINTS: usize = 200;

/// Events to them.
const EVENTS: usize = 30_000;

/// Events a second of another application.
const QUIETLY: f64 = 20.0;

fn all(behaviour: &'static str) -> Vec<Subscriber> {
    (0..ENDPOINTS).map(|number| subscriber("all", behaviour, number)).collect()
}

async fn per_second(machine: &Machine, behaviour: &'static str) -> f64 {
    let subscribers = all(behaviour);
    let types: Vec<String> = subscribers.iter().flat_map(|one| one.types.clone()).collect();
    let mut scene = Scene::set(machine, &subscribers, Subject::Fanfare(1)).await;
    scene.deliver(Way::Amqp, &types, WARM_UP, 1, None).await;
    scene.deliver(Way::Amqp, &types, EVENTS, 1, None).await.per_second
}

/// The rate with receivers that answer in 300 ms, beside the rate with receivers that answer at once.
pub(crate) async fn slow_receivers(machine: &Machine, figures: &mut Figures) {
    let at_once = per_second(machine, "ok").await;
    let slowly = per_second(machine, "wait-300").await;
    let goal = Goal::at_least_of(0.85, at_once, 0.0, slowly);
    figures.add("200 endpoints answer in 300 ms, 1:1 over AMQP", "/s", slowly, Some(at_once), goal);
}

/// Another application beside one whose receivers answer in 300 ms, and beside a flood of four times what ten endpoints take.
pub(crate) async fn beside_slow(machine: &Machine, figures: &mut Figures) {
    for (endpoints, behaviour, rate, name) in [
        (ENDPOINTS, "wait-300", 1_500.0, "beside 200 endpoints that answer in 300 ms, 20/s: p99"),
        (10, "wait-100", 6_400.0, "beside a flood of 6,400/s to ten endpoints that take 1,600/s: p99"),
    ] {
        let healthy: Vec<_> = (0..10).map(|number| subscriber("healthy", "ok", number)).collect();
        let mut scene = Scene::set(machine, &healthy, Subject::Fanfare(1)).await;
        let loud: Vec<_> = (0..endpoints).map(|number| subscriber("loud", behaviour, number)).collect();
        let loud = scene.other(&loud).await;
        let without = flow(&mut scene).await;
        let publishing = scene.publish_beside(&loud, rate, SECONDS + 2.0).await;
        let with = flow(&mut scene).await;
        publishing.await.expect("it publishes");
        let goal = if rate > 2_000.0 { 100.0 } else { without.p99 * 2.0 + 3.0 };
        figures.add(name, "ms", with.p99, Some(without.p99), Goal::at_most(goal, with.p99));
        figures.note(format!("p50 {:.1} ms, without it {:.1} ms", with.p50, without.p50));
    }
}

async fn flow(scene: &mut Scene) -> Latency {
    scene.received().await;
    scene.publish(Way::Amqp, &types(10), (SECONDS * QUIETLY) as usize, Some(QUIETLY)).await;
    // The last ones are in flight.
    sleep(Duration::from_secs(1)).await;
    Latency::of(&scene.received().await, "healthy")
}

/// The row updates of everything but heartbeats and replays of statistics.
const UPDATES: &str = "SELECT coalesce(sum(n_tup_upd), 0)::bigint FROM pg_stat_user_tables
                       WHERE relname NOT IN ('processes', 'key_uses')";

/// What waits for a dead endpoint costs, when nothing more is published.
pub(crate) async fn dead(machine: &Machine, figures: &mut Figures) {
    const WAITING: usize = 30_000;
    let mut scene = Scene::set(machine, &[subscriber("odd", "refuse", 0)], Subject::Fanfare(1)).await;
    let types = types(1);
    scene.publish(Way::Amqp, &types, WAITING, None).await;
    scene.all_taken().await;
    // The last batches are persisted, and the breaker has opened.
    sleep(Duration::from_secs(20)).await;
    let before = scene.world.count(UPDATES).await;
    sleep(Duration::from_secs_f64(SECONDS)).await;
    let updates = (scene.world.count(UPDATES).await - before) as f64 / SECONDS;
    let name = "30,000 wait for a dead endpoint: row updates";
    figures.add(name, "/s", updates, None, Goal::at_most(2.0, updates));
}
