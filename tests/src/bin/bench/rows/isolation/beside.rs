//! A quiet application beside a load of another application.
//!
//! Broker, database, publisher and receiver share the machine's cores. The ceiling under the same load shows the
//! machine's part of the latency.

use crate::{
    figures::{Figures, Goal},
    rows::latency::{HEALTHY, Latency, QUIETLY, SECONDS, flow, subscriber, subscribers, types},
    scene::{Scene, Subject, Subscriber, Way, machine::Machine},
};

/// Number of quiet endpoints, and of endpoints that answer slowly.
const QUIET: usize = 10;
const SLOW: usize = 200;

/// Events that measure the capacity.
const EVENTS: usize = 30_000;

/// A flood: its share of the capacity, its greatest rate, and its duration in seconds.
const FLOOD_SHARE: f64 = 0.8;
const MAX_FLOOD: f64 = 6_400.0;
const FLOOD_SECONDS: u32 = 60;

/// Deliveries a second of an endpoint of the flood: 16 at once, each answered after 100 ms. The endpoints take a quarter
/// of the flood.
const PER_ENDPOINT: f64 = 160.0;
const TAKEN_SHARE: f64 = 0.25;

/// Events of the load, at a rate for some seconds.
struct Load {
    endpoints: Vec<Subscriber>,
    per_second: f64,
    seconds: u32,
}

/// Beside 2,000 events a second to endpoints that answer at once.
pub(crate) async fn loud(machine: &Machine, figures: &mut Figures) {
    let load = Load { endpoints: endpoints("ok", QUIET), per_second: QUIETLY * 100.0, seconds: SECONDS };
    enter(machine, figures, "beside 2,000/s of another application: p99", &load, 0.0).await;
}

/// Beside 1,500 events a second to endpoints that answer in 300 ms.
pub(crate) async fn slow(machine: &Machine, figures: &mut Figures) {
    let load = Load { endpoints: endpoints("wait-300", SLOW), per_second: 1_500.0, seconds: SECONDS };
    enter(machine, figures, "beside 1,500/s to endpoints that answer in 300 ms: p99", &load, 0.0).await;
}

/// Beside a flood of four times the capacity of its endpoints.
pub(crate) async fn flood(machine: &Machine, figures: &mut Figures) {
    let capacity = {
        let mut scene = Scene::set(machine, &subscribers(HEALTHY, "ok", QUIET), Subject::Fanfare(1)).await;
        scene.deliver(Way::Amqp, &types(QUIET), machine.count(EVENTS), 1, None).await.per_second
    };
    let per_second = (capacity * FLOOD_SHARE).min(MAX_FLOOD);
    let count = (per_second * TAKEN_SHARE / PER_ENDPOINT).ceil() as usize;
    let load = Load { endpoints: endpoints("wait-100", count), per_second, seconds: FLOOD_SECONDS };
    enter(machine, figures, "beside a flood of four times its endpoints' capacity: p99", &load, 100.0).await;
    figures.note(format!("{per_second:.0}/s to {count} endpoints, 80 % of {capacity:.0}/s"));
}

/// Adds the latency beside a load. The goal is the greatest of `at_least` milliseconds, twice the latency without the
/// load and 3 ms, and 1.5 times the ceiling's latency and 3 ms.
async fn enter(machine: &Machine, figures: &mut Figures, name: &str, load: &Load, at_least: f64) {
    let (ceiling, _) = quiet_beside(machine, Subject::Ceiling, load).await;
    let (with, without) = quiet_beside(machine, Subject::Fanfare(1), load).await;
    let most = f64::max(without.p99 * 2.0, ceiling.p99 * 1.5) + 3.0;
    figures.add(name, "ms", with.p99, Some(ceiling.p99), Goal::at_most(most.max(at_least), with.p99));
    figures.note(format!("without the load {:.1} ms", without.p99));
    figures
        .note(format!("p50 {:.1} ms, ceiling {:.1} ms, without the load {:.1} ms", with.p50, ceiling.p50, without.p50));
}

/// Endpoints of a load, with event types other than those of the quiet endpoints.
fn endpoints(behaviour: &'static str, count: usize) -> Vec<Subscriber> {
    (0..count).map(|number| subscriber("loud", behaviour, QUIET + number)).collect()
}

/// The latency of the quiet endpoints with and without the load. The load is of another application, except for the
/// ceiling, which knows a single application.
async fn quiet_beside(machine: &Machine, subject: Subject, load: &Load) -> (Latency, Latency) {
    let mut known = subscribers(HEALTHY, "ok", QUIET);
    let is_single = subject == Subject::Ceiling;
    if is_single {
        known.extend_from_slice(&load.endpoints);
    }
    let mut scene = Scene::set(machine, &known, subject).await;
    let target = if is_single {
        let types: Vec<String> = load.endpoints.iter().flat_map(|endpoint| endpoint.types.clone()).collect();
        scene.own(&types)
    } else {
        scene.other(&load.endpoints).await
    };
    scene.deliver(Way::Amqp, &types(QUIET), machine.count(500), 1, Some(200.0)).await;
    let without = flow(&mut scene, &types(QUIET), QUIETLY, machine.seconds(SECONDS)).await;
    let seconds = machine.seconds(load.seconds);
    let publishing = scene.publish_beside(&target, load.per_second, seconds).await;
    let with = flow(&mut scene, &types(QUIET), QUIETLY, seconds).await;
    publishing.await.expect("the events are published");
    (with, without)
}
