//! How long an event takes to its receiver while all is well.

use serde_json::Value;

use crate::{
    figures::{Figures, Goal},
    machine::Machine,
    scene::{Scene, Subject, Subscriber, Way},
};

/// Seconds for which events flow.
pub(crate) const SECONDS: f64 = 20.0;

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
    Subscriber { group, behaviour, types: vec![format!("bench.{number}")] }
}

pub(crate) fn types(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("bench.{number}")).collect()
}

/// At 100 events in a second, beside the ceiling.
pub(crate) async fn measure(machine: &Machine, figures: &mut Figures) {
    let subscribers: Vec<_> = (0..10).map(|number| subscriber("healthy", "ok", number)).collect();
    let mut latencies = Vec::new();
    for subject in [Subject::Ceiling, Subject::Fanfare(1)] {
        let mut scene = Scene::set(machine, &subscribers, subject).await;
        scene.deliver(Way::Amqp, &types(10), 500, 1, Some(200.0)).await;
        let delivered = scene.deliver(Way::Amqp, &types(10), (SECONDS * 100.0) as usize, 1, Some(100.0)).await;
        latencies.push(Latency::of(&delivered.received, "healthy"));
    }
    let (ceiling, ours) = (latencies[0], latencies[1]);
    let goal = Goal::at_most(ceiling.p50 + 0.5, ours.p50);
    figures.add("publish to receipt at 100/s, p50", "ms", ours.p50, Some(ceiling.p50), goal);
    let goal = Goal::at_most(ceiling.p99 + 3.0, ours.p99);
    figures.add("publish to receipt at 100/s, p99", "ms", ours.p99, Some(ceiling.p99), goal);
}
