//! Time from publish to receipt.

use std::time::Duration;

use serde_json::Value;
use tokio::time::sleep;

use crate::{
    figures::{Figures, Goal},
    scene::{Scene, Subject, Subscriber, Via, machine::Machine},
};

/// Duration of a load, in seconds.
pub(crate) const SECONDS: u32 = 20;

/// Events per second of the quiet application, beside slow, dead or loud endpoints.
pub(crate) const QUIET_RATE: f64 = 20.0;

/// Group of the endpoints with measured latency.
pub(crate) const HEALTHY: &str = "healthy";

/// 50th and 99th percentile, in milliseconds.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Latency {
    pub(crate) p50: f64,
    pub(crate) p99: f64,
}

impl Latency {
    pub(crate) fn from_receipts(received: &Value, group: &str) -> Self {
        let value = |name: &str| received[group][name].as_f64().expect("receipts") / 1000.0;
        Self { p50: value("p50"), p99: value("p99") }
    }
}

pub(crate) fn subscriber(group: &'static str, behaviour: &'static str, number: usize) -> Subscriber {
    Subscriber { group, behaviour, types: vec![format!("bench.{number}")], rate: None }
}

/// Returns `count` subscribers, each with a separate event type.
pub(crate) fn subscribers(group: &'static str, behaviour: &'static str, count: usize) -> Vec<Subscriber> {
    (0..count).map(|number| subscriber(group, behaviour, number)).collect()
}

/// Returns the event types of the first `count` subscribers.
pub(crate) fn types(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("bench.{number}")).collect()
}

/// Publishes events of `types`. Returns the latency of the healthy endpoints.
pub(crate) async fn healthy_latency(scene: &mut Scene, types: &[String], rate: f64, seconds: f64) -> Latency {
    Latency::from_receipts(&receipts(scene, types, rate, seconds).await, HEALTHY)
}

/// Publishes events of `types`. Returns the receipts of all groups.
pub(crate) async fn receipts(scene: &mut Scene, types: &[String], rate: f64, seconds: f64) -> Value {
    scene.received().await;
    scene.publish(Via::Amqp, types, (seconds * rate) as usize, Some(rate)).await;
    // The attempts of the last events are in flight.
    sleep(Duration::from_secs(1)).await;
    scene.received().await
}

/// Adds the latency beside a load. The goal is the latency without the load times `factor`, plus 3 ms.
pub(crate) fn add_latency(figures: &mut Figures, name: &str, with: Latency, without: Latency, factor: f64) {
    let goal = Goal::at_most(without.p99 * factor + 3.0, with.p99);
    figures.add(name, "ms", with.p99, Some(without.p99), goal);
    figures.note(format!("p50 {:.1} ms, without the load {:.1} ms", with.p50, without.p50));
}

/// Measures the latency at 100 events per second, beside the ceiling.
pub(crate) async fn measure(machine: &Machine, figures: &mut Figures) {
    let subscribers = subscribers(HEALTHY, "ok", 10);
    let mut latencies = Vec::new();
    for subject in [Subject::Ceiling, Subject::Fanfare(1)] {
        let mut scene = Scene::set(machine, &subscribers, subject).await;
        scene.deliver(Via::Amqp, &types(10), machine.count(500), 1, Some(200.0)).await;
        let events = (machine.seconds(SECONDS) * 100.0) as usize;
        let delivered = scene.deliver(Via::Amqp, &types(10), events, 1, Some(100.0)).await;
        latencies.push(Latency::from_receipts(&delivered.received, HEALTHY));
    }
    let (ceiling, fanfare) = (latencies[0], latencies[1]);
    let goal = Goal::at_most(ceiling.p50 + 0.5, fanfare.p50);
    figures.add("publish to receipt at 100/s, p50", "ms", fanfare.p50, Some(ceiling.p50), goal);
    let goal = Goal::at_most(ceiling.p99 + 3.0, fanfare.p99);
    figures.add("publish to receipt at 100/s, p99", "ms", fanfare.p99, Some(ceiling.p99), goal);
}
