//! Many deliveries that become due, or wait in backlogs, at once.

use std::time::{Duration, Instant};

use fanfare_tests::world::dialects::Waits;
use jiff::SignedDuration;
use tokio::time::interval;

use crate::{
    figures::{Figures, Goal},
    rows::{
        latency::{HEALTHY, Latency, QUIET_RATE, SECONDS, add_latency, healthy_latency, subscribers, types},
        throughput::WARM_UP,
    },
    scene::{
        Changes, Scene, Subject, Via,
        fill::{self, Filler},
        machine::Machine,
    },
};

/// Due retries per second, and their duration in seconds.
const RETRIES: usize = 2_000;
const DUE_SECONDS: u32 = 20;

/// Delayed events per second, and their delay.
const DELAYED: f64 = 500.0;
const DELAY: Duration = Duration::from_secs(5);

/// Portions per second in which the retries are published.
const PARTS: u32 = 20;

/// Delay queue of the retries.
const WAIT: &str = "5s";

/// Measures the delay of retries, and the latency, while 2,000 retries a second come due over 100,000 endpoints.
pub(crate) async fn due(machine: &Machine, figures: &mut Figures) {
    let waits = Waits::of(&[WAIT; 8].join(","));
    let mut scene = Scene::with(
        machine,
        &subscribers(HEALTHY, "ok", 10),
        Subject::Fanfare(1),
        Changes { waits, ..Changes::default() },
    )
    .await;
    fill::endpoints(&scene, machine.count(10_000), 10, "due").await;
    fill::settle(machine, &scene).await;
    let seconds = machine.seconds(DUE_SECONDS);
    let without = healthy_latency(&mut scene, &types(10), QUIET_RATE, seconds).await;
    let mut filler = Filler::new(&scene, "due").await;
    let parts = (seconds * f64::from(PARTS)) as u32;
    let per_part = machine.count(RETRIES) / PARTS as usize + 1;
    let publishing = tokio::spawn(async move {
        let mut ticks = interval(Duration::from_secs(1) / PARTS);
        for _ in 0..parts {
            ticks.tick().await;
            let written = filler.scheduled(per_part, SignedDuration::from_secs(5)).await;
            filler.publish(&written, WAIT).await;
        }
        filler.wait_for_confirms(0).await;
    });
    scene.received().await;
    let seconds = seconds + 5.0;
    scene.publish(Via::Amqp, &types(10), (seconds * QUIET_RATE) as usize, Some(QUIET_RATE)).await;
    publishing.await.expect("the retries are published");
    scene.wait_until_ended().await;
    let received = scene.received().await;
    let (late, with) = (Latency::from_receipts(&received, "due"), Latency::from_receipts(&received, HEALTHY));
    let name = "2,000 retries a second over 100,000 endpoints: late, p99";
    figures.add(name, "ms", late.p99, None, Goal::at_most(2_000.0, late.p99));
    figures.note(format!("p50 {:.0} ms", late.p50));
    add_latency(figures, "2,000 retries a second come due, 20/s: p99 of the others", with, without, 2.0);
}

/// Measures how late delayed events are, 500 of which come due in a second, and their processor time beside events
/// without delay.
pub(crate) async fn delayed(machine: &Machine, figures: &mut Figures) {
    let mut scene = Scene::set(machine, &subscribers(HEALTHY, "ok", 10), Subject::Fanfare(1)).await;
    scene.deliver(Via::Amqp, &types(10), machine.count(WARM_UP), 1, Some(DELAYED)).await;
    let events = (machine.seconds(SECONDS) * DELAYED) as usize;
    let without = scene.deliver(Via::Amqp, &types(10), events, 1, Some(DELAYED)).await;
    let with = scene.deliver(Via::Delayed(DELAY), &types(10), events, 1, Some(DELAYED)).await;
    let late = Latency::from_receipts(&with.received, HEALTHY);
    figures.add("500 delayed events a second: late, p99", "ms", late.p99, None, Goal::at_most(2_000.0, late.p99));
    figures.note(format!("p50 {:.0} ms", late.p50));
    let goal = Goal::at_most(without.cost() * 2.0, with.cost());
    let name = "processor time per delivery of a delayed event";
    figures.add(name, "µs", with.cost(), Some(without.cost()), goal);
    figures.note(format!("delayed: {}; at once: {}", with.costs_in_words(), without.costs_in_words()));
}

/// Measures the latency while 50,000 endpoints of an application have backlogs.
pub(crate) async fn backlogs(machine: &Machine, figures: &mut Figures) {
    const PER_ENDPOINT: usize = 4;
    let mut scene = Scene::set(machine, &subscribers(HEALTHY, "ok", 10), Subject::Fanfare(1)).await;
    let endpoints = machine.count(50_000);
    fill::endpoints(&scene, 1, endpoints, "many").await;
    let without = healthy_latency(&mut scene, &types(10), QUIET_RATE, machine.seconds(SECONDS)).await;
    let mut filler = Filler::new(&scene, "many").await;
    filler.queued(PER_ENDPOINT * endpoints).await;
    fill::settle(machine, &scene).await;
    fill::backlogs(&scene).await;
    let began = Instant::now();
    let with = healthy_latency(&mut scene, &types(10), QUIET_RATE, machine.seconds(SECONDS)).await;
    scene.wait_until_ended().await;
    add_latency(figures, "50,000 endpoints have backlogs, 20/s: p99 of the others", with, without, 2.0);
    let rate = (PER_ENDPOINT * endpoints) as f64 / began.elapsed().as_secs_f64();
    figures.note(format!("{endpoints} backlogs drained at {rate:.0} deliveries/s"));
}
