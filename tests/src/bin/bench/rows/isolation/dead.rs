//! Endpoints that are dead for long, and come back.

use std::time::{Duration, Instant};

use tokio::time::sleep;

use crate::{
    figures::{Figures, Goal},
    rows::latency::{
        HEALTHY, Latency, QUIET_RATE, SECONDS, add_latency, healthy_latency, receipts, subscriber, subscribers, types,
    },
    scene::{Scene, Subject, Via, fill, machine::Machine},
};

/// Group of the dead endpoints.
const DEAD: &str = "dead";

/// Events per second to the dead endpoint while earlier deliveries wait.
const TRICKLE: f64 = 10.0;

/// Seconds until the breakers probe once a minute.
const SETTLED: u32 = 130;

/// Limit of the dead endpoints' event types: an application may have 1,000.
const MAX_TYPES: usize = 500;

/// Counts row updates, without heartbeats and the last uses of keys.
const UPDATES: &str = "SELECT coalesce(sum(n_tup_upd), 0)::bigint FROM pg_stat_user_tables
                       WHERE relname NOT IN ('processes', 'key_uses')";

const COMMITS: &str = "SELECT xact_commit FROM pg_stat_database WHERE datname = current_database()";

const PROBES: &str = "SELECT count(*) FROM all_attempts";

/// Measures a dead endpoint and its return: the cost of its deliveries, and the latency of the other endpoints.
pub(crate) async fn single(machine: &Machine, figures: &mut Figures) {
    let waiting = machine.count_or(30_000, 360_000);
    let healthy = subscribers(HEALTHY, "ok", 10);
    let types: Vec<String> = healthy.iter().flat_map(|healthy| healthy.types.clone()).collect();
    let dead = subscriber(DEAD, "gate", 10);
    let mut scene = Scene::set(machine, &[healthy, vec![dead.clone()]].concat(), Subject::Fanfare(1)).await;
    let seconds = machine.seconds(SECONDS);
    let without = healthy_latency(&mut scene, &types, QUIET_RATE, seconds).await;
    let memory_before = scene.memory();
    scene.publish(Via::Amqp, &dead.types, waiting, None).await;
    scene.wait_until_consumed().await;
    // The breaker opens, and the first retries come due.
    sleep(machine.wait(SETTLED)).await;

    let target = scene.own_application(&dead.types);
    let trickle = scene.publish_beside(&target, TRICKLE, seconds).await;
    let began = Instant::now();
    let (updates, messages) = (scene.world.count(UPDATES).await, machine.messages());
    let with = healthy_latency(&mut scene, &types, QUIET_RATE, seconds).await;
    trickle.await.expect("the events are published");
    let took = began.elapsed().as_secs_f64();
    let updates = (scene.world.count(UPDATES).await - updates) as f64 / took;
    let messages = (machine.messages() - messages - (TRICKLE + QUIET_RATE) * seconds) / took;
    figures.add(
        "many deliveries wait for a dead endpoint: row updates",
        "/s",
        updates,
        None,
        Goal::at_most(2.0, updates),
    );
    figures.note(format!("{waiting} deliveries wait"));
    figures.add(
        "many deliveries wait for a dead endpoint: broker messages",
        "/s",
        messages,
        None,
        Goal::at_most(2.0, messages),
    );
    add_latency(figures, "many deliveries wait for a dead endpoint: p99 of the others", with, without, 1.5);
    let memory = scene.memory();
    let goal = Goal::at_most(memory_before + 16.0, memory);
    figures.add("many deliveries wait for a dead endpoint: memory", "MiB", memory, Some(memory_before), goal);
    measure_recovery(&mut scene, figures, "the dead endpoint comes back", &types, (without, seconds)).await;
}

/// Measures many dead endpoints and their return: the cost of probes, and the latency of the other endpoints.
pub(crate) async fn many(machine: &Machine, figures: &mut Figures) {
    let (endpoints, per_endpoint) = (machine.count_or(1_000, 10_000), machine.count_or(20, 100).max(20));
    let dead_types = types(endpoints.min(MAX_TYPES));
    let healthy: Vec<_> = (0..10).map(|number| subscriber(HEALTHY, "ok", dead_types.len() + number)).collect();
    let healthy_types: Vec<String> = healthy.iter().flat_map(|healthy| healthy.types.clone()).collect();
    let mut scene = Scene::set(machine, &healthy, Subject::Fanfare(1)).await;
    fill::subscribers(&scene, DEAD, "gate", &dead_types, endpoints).await;
    fill::settle(machine, &scene).await;
    let seconds = machine.seconds(SECONDS);
    let without = healthy_latency(&mut scene, &healthy_types, QUIET_RATE, seconds).await;
    let idle = per_second(&scene, COMMITS, seconds).await;
    scene.publish(Via::Amqp, &dead_types, dead_types.len() * per_endpoint, None).await;
    scene.wait_until_consumed().await;
    // Longer than the growth of a breaker's waits.
    sleep(machine.wait(SETTLED)).await;

    let (probes, messages, began) = (scene.world.count(PROBES).await, machine.messages(), Instant::now());
    let commits = per_second(&scene, COMMITS, machine.seconds(60)).await - idle;
    let took = began.elapsed().as_secs_f64();
    let probes = (scene.world.count(PROBES).await - probes) as f64 / took;
    let messages = (machine.messages() - messages) / took;
    let per_minute = probes * 60.0 / endpoints as f64;
    let name = "many endpoints are dead: probes a minute and endpoint";
    figures.add(name, "", per_minute, None, Goal::at_most(1.0, per_minute));
    figures.note(format!("{endpoints} endpoints, {per_endpoint} deliveries per endpoint"));
    let statements = commits / probes.max(1.0);
    let name = "many endpoints are dead: statements a probe";
    figures.add(name, "", statements, None, Goal::at_most(5.0, statements));
    let name = "many endpoints are dead: broker messages";
    // The retry of each failed probe has a message.
    figures.add(name, "/s", messages, None, Goal::at_most(probes * 1.1 + 0.1, messages));
    let with = healthy_latency(&mut scene, &healthy_types, QUIET_RATE, seconds).await;
    add_latency(figures, "many endpoints are dead: p99 of the others", with, without, 1.5);
    measure_recovery(&mut scene, figures, "all dead endpoints come back", &healthy_types, (without, seconds)).await;
}

/// Returns the growth of a number of the database, per second.
async fn per_second(scene: &Scene, query: &str, seconds: f64) -> f64 {
    let (before, began) = (scene.world.count(query).await, Instant::now());
    // The time over which the growth is measured.
    sleep(Duration::from_secs_f64(seconds)).await;
    (scene.world.count(query).await - before) as f64 / began.elapsed().as_secs_f64()
}

/// Opens the gate. Measures the latency of the other endpoints while the backlogs drain.
async fn measure_recovery(
    scene: &mut Scene,
    figures: &mut Figures,
    name: &str,
    types: &[String],
    (without, seconds): (Latency, f64),
) {
    scene.open_gate().await;
    let opened = Instant::now();
    let mut received = receipts(scene, types, QUIET_RATE, seconds).await;
    let with = Latency::from_receipts(&received, HEALTHY);
    add_latency(figures, &format!("{name}: p99 of the others"), with, without, 2.0);
    scene.wait_until_none_queued().await;
    let drained = opened.elapsed().as_secs_f64();
    // The receiver reports a group only after new receipts. The last report of the group is complete.
    let last = scene.received().await;
    if last[DEAD].is_object() {
        received = last;
    }
    let account = |field: &str| received[DEAD][field].as_f64().unwrap_or_default();
    let repeats = account("repeats");
    figures.add(&format!("{name}: sent twice"), "", repeats, None, Goal::at_most(0.0, repeats));
    figures.note(format!("backlogs drained within {drained:.0} s; {:.0} receipts out of order", account("disordered")));
}
