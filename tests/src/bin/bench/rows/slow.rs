//! Receivers that are slow to answer, as in life.

use crate::{
    figures::{Figures, Goal},
    rows::{
        latency::{HEALTHY, Latency, QUIETLY, SECONDS, flow, subscriber, subscribers, types},
        throughput::WARM_UP,
    },
    scene::{Scene, Subject, Subscriber, Way, delivered::Delivered, machine::Machine},
};

/// Endpoints that answer slowly.
const ENDPOINTS: usize = 200;

/// Quiet endpoints beside a load.
const QUIET: usize = 10;

/// Events to them.
const EVENTS: usize = 30_000;

/// A flood: this share of the capacity, at most so many events a second, and the seconds for which they come.
const FLOOD_SHARE: f64 = 0.8;
const MAX_FLOOD: f64 = 6_400.0;
const FLOOD_SECONDS: u32 = 60;

/// Deliveries a second of an endpoint of the flood: 16 at once, each answered after 100 ms. Its endpoints take a quarter of it.
const PER_ENDPOINT: f64 = 160.0;
const TAKEN_SHARE: f64 = 0.25;

async fn delivered(machine: &Machine, behaviour: &'static str) -> (Delivered, f64) {
    let mut scene = Scene::set(machine, &subscribers("all", behaviour, ENDPOINTS), Subject::Fanfare(1)).await;
    scene.deliver(Way::Amqp, &types(ENDPOINTS), machine.count(WARM_UP), 1, None).await;
    let before = scene.queued().await;
    let delivered = scene.deliver(Way::Amqp, &types(ENDPOINTS), machine.count(EVENTS), 1, None).await;
    let queued = (scene.queued().await - before) / delivered.deliveries;
    (delivered, queued)
}

/// The rate with receivers that answer in 300 ms, and with receivers of all speeds, beside the rate with receivers that
/// answer at once.
pub(crate) async fn receivers(machine: &Machine, figures: &mut Figures) {
    let (at_once, _) = delivered(machine, "ok").await;
    for (behaviour, share, name) in [
        ("wait-300", Some(0.85), "200 endpoints answer in 300 ms, 1:1 over AMQP"),
        ("life", None, "200 endpoints answer in 50 ms to 5 s"),
    ] {
        let (slowly, queued) = delivered(machine, behaviour).await;
        let goal = share.and_then(|share| Goal::at_least_of(share, at_once.per_second, 0.0, slowly.per_second));
        figures.add(name, "/s", slowly.per_second, Some(at_once.per_second), goal);
        figures.note(format!("{}; at once: {}", slowly.costs_in_words(), at_once.costs_in_words()));
        figures.note(format!("{:.0} % of the deliveries were queued first", queued * 100.0));
    }
}

/// Quiet endpoints beside receivers that answer in 300 ms, and beside a flood. The ceiling under the same load shows the
/// part of the machine: broker, database, publisher and receiver share its cores.
pub(crate) async fn beside(machine: &Machine, figures: &mut Figures) {
    let slow = (1_500.0, SECONDS);
    let (ceiling, _) = quiet_beside(machine, Subject::Ceiling, &loud("wait-300", ENDPOINTS), slow).await;
    let (with, without) = quiet_beside(machine, Subject::Fanfare(1), &loud("wait-300", ENDPOINTS), slow).await;
    let goal = Goal::at_most(f64::max(without.p99 * 2.0, ceiling.p99) + 3.0, with.p99);
    let name = "beside 1,500/s to endpoints that answer in 300 ms: p99";
    figures.add(name, "ms", with.p99, Some(ceiling.p99), goal);
    note(figures, (with, without), ceiling);

    let capacity = {
        let mut scene = Scene::set(machine, &subscribers(HEALTHY, "ok", 10), Subject::Fanfare(1)).await;
        scene.deliver(Way::Amqp, &types(10), machine.count(EVENTS), 1, None).await.per_second
    };
    let flood = (capacity * FLOOD_SHARE).min(MAX_FLOOD);
    let endpoints = loud("wait-100", (flood * TAKEN_SHARE / PER_ENDPOINT).ceil() as usize);
    let (ceiling, _) = quiet_beside(machine, Subject::Ceiling, &endpoints, (flood, SECONDS)).await;
    let (with, without) = quiet_beside(machine, Subject::Fanfare(1), &endpoints, (flood, FLOOD_SECONDS)).await;
    let name = "beside a flood of four times its endpoints' capacity: p99";
    let goal = Goal::at_most(f64::max(100.0, ceiling.p99 + 3.0), with.p99);
    figures.add(name, "ms", with.p99, Some(ceiling.p99), goal);
    note(figures, (with, without), ceiling);
    figures.note(format!("{flood:.0}/s to {} endpoints, 80 % of {capacity:.0}/s", endpoints.len()));
}

fn note(figures: &mut Figures, (with, without): (Latency, Latency), ceiling: Latency) {
    figures.note(format!("without the load {:.1} ms", without.p99));
    figures
        .note(format!("p50 {:.1} ms, ceiling {:.1} ms, without the load {:.1} ms", with.p50, ceiling.p50, without.p50));
}

/// Endpoints of the load, with event types other than those of the quiet endpoints.
fn loud(behaviour: &'static str, count: usize) -> Vec<Subscriber> {
    (0..count).map(|number| subscriber("loud", behaviour, QUIET + number)).collect()
}

/// The latency of quiet endpoints with and without a load of `rate` events a second for `seconds`. The load is of
/// another application; the ceiling knows a single application.
async fn quiet_beside(
    machine: &Machine,
    subject: Subject,
    loud: &[Subscriber],
    (rate, seconds): (f64, u32),
) -> (Latency, Latency) {
    let mut known = subscribers(HEALTHY, "ok", QUIET);
    let is_single = subject == Subject::Ceiling;
    if is_single {
        known.extend_from_slice(loud);
    }
    let mut scene = Scene::set(machine, &known, subject).await;
    let load = if is_single {
        scene.own(&loud.iter().flat_map(|subscriber| subscriber.types.clone()).collect::<Vec<_>>())
    } else {
        scene.other(loud).await
    };
    scene.deliver(Way::Amqp, &types(QUIET), machine.count(500), 1, Some(200.0)).await;
    let without = flow(&mut scene, &types(QUIET), QUIETLY, machine.seconds(SECONDS)).await;
    let seconds = machine.seconds(seconds);
    let publishing = scene.publish_beside(&load, rate, seconds).await;
    let with = flow(&mut scene, &types(QUIET), QUIETLY, seconds).await;
    publishing.await.expect("the events are published");
    (with, without)
}
