//! The time from publishing to receipt.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::{
    figures::{Figures, Goal},
    scene::{Scene, Subject, Subscriber, Way, machine::Machine},
};

/// Seconds for which events flow.
pub(crate) const SECONDS: u32 = 20;

/// Events a second of an application beside which others are slow, dead or loud.
pub(crate) const QUIETLY: f64 = 20.0;

/// The group of the endpoints whose latency is measured.
pub(crate) const HEALTHY: &str = "healthy";

/// Milliseconds of the 50th and the 99th percentile.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Latency {
    pub(crate) fn of(received: &Value, group: &str) -> Self {
        let value = |name: &str| received[group][name].as_f64().expect("receipts") / 1000.0;
        Self { p50: value("p50"), p99: value("p99") }
    }
}

pub(crate) fn subscriber(group: &'static str, behaviour: &'static str, number: usize) -> Subscriber {
    Subscriber { group, behaviour, types: vec![format!("bench.{number}")], rate: None }
}

/// Many of them, each with an event type of its own.
pub(crate) fn subscribers(group: &'static str, behaviour: &'static str, count: usize) -> Vec<Subscriber> {
    (0..count).map(|number| subscriber(group, behaviour, number)).collect()
}

/// The event types of the first subscribers.
pub(crate) fn types(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("bench.{number}")).collect()
}

/// The latency of the healthy endpoints while events of these types flow.
pub(crate) async fn flow(scene: &mut Scene, types: &[String], rate: f64, seconds: f64) -> Latency {
    Latency::of(&receipts(scene, types, rate, seconds).await, HEALTHY)
}

/// The receipts of all groups while events of these types flow.
pub(crate) async fn receipts(scene: &mut Scene, types: &[String], rate: f64, seconds: f64) -> Value {
    scene.received().await;
    scene.publish(Way::Amqp, types, (seconds * rate) as usize, Some(rate)).await;
    // The last events are in flight.
    sleep(Duration::from_secs(1)).await;
    scene.received().await
}

/// Adds the latency of the others beside a load, with its goal: a factor of the latency without the load, and 3 ms.
pub(crate) fn enter(figures: &mut Figures, name: &str, with: Latency, without: Latency, factor: f64) {
    let goal = Goal::at_most(without.p99 * factor + 3.0, with.p99);
    figures.add(name, "ms", with.p99, Some(without.p99), goal);
    figures.note(format!("p50 {:.1} ms, without it {:.1} ms", with.p50, without.p50));
}

/// At 100 events in a second, beside the ceiling.
pub(crate) async fn measure(machine: &Machine, figures: &mut Figures) {
    let subscribers = subscribers(HEALTHY, "ok", 10);
    let mut latencies = Vec::new();
    for subject in [Subject::Ceiling, Subject::Fanfare(1)] {
        let mut scene = Scene::set(machine, &subscribers, subject).await;
        scene.deliver(Way::Amqp, &types(10), machine.count(500), 1, Some(200.0)).await;
        let events = (machine.seconds(SECONDS) * 100.0) as usize;
        let delivered = scene.deliver(Way::Amqp, &types(10), events, 1, Some(100.0)).await;
        latencies.push(Latency::of(&delivered.received, HEALTHY));
    }
    let (ceiling, ours) = (latencies[0], latencies[1]);
    let goal = Goal::at_most(ceiling.p50 + 0.5, ours.p50);
    figures.add("publish to receipt at 100/s, p50", "ms", ours.p50, Some(ceiling.p50), goal);
    let goal = Goal::at_most(ceiling.p99 + 3.0, ours.p99);
    figures.add("publish to receipt at 100/s, p99", "ms", ours.p99, Some(ceiling.p99), goal);
}
