//! Receivers that are slow to answer, as in life.

use crate::{
    figures::{Figures, Goal},
    rows::{
        latency::{HEALTHY, Latency, QUIETLY, SECONDS, flow, subscribers, types},
        throughput::WARM_UP,
    },
    scene::{Scene, Subject, Way, machine::Machine},
};

/// Endpoints that answer slowly.
const ENDPOINTS: usize = 200;

/// Events to them.
const EVENTS: usize = 30_000;

/// Events a second to ten endpoints that take 1,600 a second, and the seconds for which they come.
const FLOOD: f64 = 6_400.0;
const FLOOD_SECONDS: u32 = 60;

async fn per_second(machine: &Machine, behaviour: &'static str) -> f64 {
    let mut scene = Scene::set(machine, &subscribers("all", behaviour, ENDPOINTS), Subject::Fanfare(1)).await;
    scene.deliver(Way::Amqp, &types(ENDPOINTS), machine.count(WARM_UP), 1, None).await;
    scene.deliver(Way::Amqp, &types(ENDPOINTS), machine.count(EVENTS), 1, None).await.per_second
}

/// The rate with receivers that answer in 300 ms, and with receivers of all speeds, beside the rate with receivers that
/// answer at once.
pub(crate) async fn receivers(machine: &Machine, figures: &mut Figures) {
    let at_once = per_second(machine, "ok").await;
    let slowly = per_second(machine, "wait-300").await;
    let goal = Goal::at_least_of(0.85, at_once, 0.0, slowly);
    figures.add("200 endpoints answer in 300 ms, 1:1 over AMQP", "/s", slowly, Some(at_once), goal);
    let as_in_life = per_second(machine, "life").await;
    figures.add("200 endpoints answer in 50 ms to 5 s", "/s", as_in_life, Some(at_once), None);
}

/// Another application beside an application whose receivers answer in 300 ms, and beside a flood.
pub(crate) async fn beside(machine: &Machine, figures: &mut Figures) {
    let (with, without) = beside_load(machine, (ENDPOINTS, "wait-300"), 1_500.0, SECONDS).await;
    let goal = Goal::at_most(without.p99 * 2.0 + 3.0, with.p99);
    let name = "beside 1,500/s to endpoints that answer in 300 ms: p99";
    figures.add(name, "ms", with.p99, Some(without.p99), goal);
    let (with, without) = beside_load(machine, (10, "wait-100"), FLOOD, FLOOD_SECONDS).await;
    let name = "beside a flood of four times its endpoints' capacity: p99";
    figures.add(name, "ms", with.p99, Some(without.p99), Goal::at_most(100.0, with.p99));
    figures.note(format!("p50 {:.1} ms, without it {:.1} ms", with.p50, without.p50));
}

/// The latency of a quiet application with and without a loud one beside it.
async fn beside_load(
    machine: &Machine,
    (endpoints, behaviour): (usize, &'static str),
    rate: f64,
    seconds: u32,
) -> (Latency, Latency) {
    let mut scene = Scene::set(machine, &subscribers(HEALTHY, "ok", 10), Subject::Fanfare(1)).await;
    let loud = scene.other(&subscribers("loud", behaviour, endpoints)).await;
    let without = flow(&mut scene, &types(10), QUIETLY, machine.seconds(SECONDS)).await;
    let seconds = machine.seconds(seconds);
    let publishing = scene.publish_beside(&loud, rate, seconds).await;
    let with = flow(&mut scene, &types(10), QUIETLY, seconds).await;
    publishing.await.expect("the events are published");
    (with, without)
}
