//! A quiet application beside a load of another application.
//!
//! Broker, database, publisher and receiver share the machine's cores. The ceiling under the same load shows the
//! machine's part of the latency.

use crate::{
    figures::{Figures, Goal},
    rows::latency::{HEALTHY, Latency, QUIET_RATE, SECONDS, healthy_latency, subscriber, subscribers, types},
    scene::{Scene, Subject, Subscriber, Via, machine::Machine},
};

/// Number of quiet endpoints, and of endpoints with slow answers.
const QUIET_ENDPOINTS: usize = 10;
const SLOW_ENDPOINTS: usize = 200;

/// Events that measure the capacity.
const EVENTS: usize = 30_000;

/// Flood: share of the capacity, maximum rate, and duration in seconds.
const FLOOD_SHARE: f64 = 0.8;
const MAX_FLOOD: f64 = 6_400.0;
const FLOOD_SECONDS: u32 = 60;

/// Capacity of a flooded endpoint in deliveries per second: 16 attempts in flight, each answered after 100 ms.
const PER_ENDPOINT: f64 = 160.0;

/// Share of the flood within the capacity of all flooded endpoints.
const TAKEN_SHARE: f64 = 0.25;

/// Load beside the quiet application.
struct Load {
    endpoints: Vec<Subscriber>,
    per_second: f64,
    seconds: u32,
}

/// Measures the latency beside 2,000 events a second to endpoints that answer at once.
pub(crate) async fn loud(machine: &Machine, figures: &mut Figures) {
    let load = Load { endpoints: endpoints("ok", QUIET_ENDPOINTS), per_second: QUIET_RATE * 100.0, seconds: SECONDS };
    add_latency(machine, figures, "beside 2,000/s of another application: p99", &load, 0.0).await;
}

/// Measures the latency beside 1,500 events a second to endpoints that answer in 300 ms.
pub(crate) async fn slow(machine: &Machine, figures: &mut Figures) {
    let load = Load { endpoints: endpoints("wait-300", SLOW_ENDPOINTS), per_second: 1_500.0, seconds: SECONDS };
    add_latency(machine, figures, "beside 1,500/s to endpoints that answer in 300 ms: p99", &load, 0.0).await;
}

/// Measures the latency beside a flood of four times the capacity of its endpoints.
pub(crate) async fn flood(machine: &Machine, figures: &mut Figures) {
    let capacity = {
        let mut scene = Scene::set(machine, &subscribers(HEALTHY, "ok", QUIET_ENDPOINTS), Subject::Fanfare(1)).await;
        scene.deliver(Via::Amqp, &types(QUIET_ENDPOINTS), machine.count(EVENTS), 1, None).await.per_second
    };
    let per_second = (capacity * FLOOD_SHARE).min(MAX_FLOOD);
    let count = (per_second * TAKEN_SHARE / PER_ENDPOINT).ceil() as usize;
    let load = Load { endpoints: endpoints("wait-100", count), per_second, seconds: FLOOD_SECONDS };
    add_latency(machine, figures, "beside a flood of four times its endpoints' capacity: p99", &load, 100.0).await;
    figures.note(format!("{per_second:.0}/s to {count} endpoints, 80 % of {capacity:.0}/s"));
}

/// Adds the latency beside a load.
///
/// The goal is twice the latency without the load, or 1.5 times the ceiling's latency if greater, plus 3 ms. `at_least`
/// is the minimum of the goal, in milliseconds.
async fn add_latency(machine: &Machine, figures: &mut Figures, name: &str, load: &Load, at_least: f64) {
    let (ceiling, _) = quiet_beside(machine, Subject::Ceiling, load).await;
    let (with, without) = quiet_beside(machine, Subject::Fanfare(1), load).await;
    let most = f64::max(without.p99 * 2.0, ceiling.p99 * 1.5) + 3.0;
    figures.add(name, "ms", with.p99, Some(ceiling.p99), Goal::at_most(most.max(at_least), with.p99));
    figures.note(format!("without the load {:.1} ms", without.p99));
    figures
        .note(format!("p50 {:.1} ms, ceiling {:.1} ms, without the load {:.1} ms", with.p50, ceiling.p50, without.p50));
}

/// Returns the endpoints of a load. The quiet endpoints have other event types.
fn endpoints(behaviour: &'static str, count: usize) -> Vec<Subscriber> {
    (0..count).map(|number| subscriber("loud", behaviour, QUIET_ENDPOINTS + number)).collect()
}

/// Returns the latency of the quiet endpoints with and without the load.
async fn quiet_beside(machine: &Machine, subject: Subject, load: &Load) -> (Latency, Latency) {
    let mut known = subscribers(HEALTHY, "ok", QUIET_ENDPOINTS);
    // The load belongs to another application. The ceiling has a single application.
    let is_single = subject == Subject::Ceiling;
    if is_single {
        known.extend_from_slice(&load.endpoints);
    }
    let mut scene = Scene::set(machine, &known, subject).await;
    let target = if is_single {
        let types: Vec<String> = load.endpoints.iter().flat_map(|endpoint| endpoint.types.clone()).collect();
        scene.own_application(&types)
    } else {
        scene.other_application(&load.endpoints).await
    };
    scene.deliver(Via::Amqp, &types(QUIET_ENDPOINTS), machine.count(500), 1, Some(200.0)).await;
    let without = healthy_latency(&mut scene, &types(QUIET_ENDPOINTS), QUIET_RATE, machine.seconds(SECONDS)).await;
    let seconds = machine.seconds(load.seconds);
    let publishing = scene.publish_beside(&target, load.per_second, seconds).await;
    let with = healthy_latency(&mut scene, &types(QUIET_ENDPOINTS), QUIET_RATE, seconds).await;
    publishing.await.expect("the events are published");
    (with, without)
}
