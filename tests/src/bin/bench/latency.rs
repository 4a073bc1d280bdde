//! How long an event takes to its receiver, while all is well and while others are slow, dead or loud.

use serde_json::Value;

use crate::{
    figures::{Figures, Goal},
    scene::{Machine, Scene, Subject, Subscriber, Way},
};

/// Seconds for which events flow.
const SECONDS: f64 = 20.0;

/// Milliseconds of the 50th and the 99th percentile.
#[derive(Debug, Clone, Copy)]
struct Latency {
    p50: f64,
    p99: f64,
}

impl Latency {
    fn of(received: &Value, group: &str) -> Self {
        let value = |name: &str| received[group][name].as_f64().expect("receipts") / 1000.0;
        Self { p50: value("p50"), p99: value("p99") }
    }
}

fn subscriber(group: &'static str, behaviour: &'static str, number: usize) -> Subscriber {
    Subscriber { group, behaviour, types: vec![format!("bench.{number}")] }
}

fn types(count: usize) -> Vec<String> {
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

/// The healthy endpoints' latency while events flow at a rate to these, from cold.
async fn beside(machine: &Machine, subscribers: &[Subscriber], count: usize, rate: f64) -> Latency {
    let mut scene = Scene::set(machine, subscribers, Subject::Fanfare(1)).await;
    scene.received().await;
    scene.publish(Way::Amqp, &types(count), (SECONDS * rate) as usize, Some(rate)).await;
    tokio::time::sleep(std::time::Duration::from_secs(1)).await;
    Latency::of(&scene.received().await, "healthy")
}

/// One of ten endpoints does something; the other nine, with and without.
pub(crate) async fn one_of_ten(machine: &Machine, figures: &mut Figures) {
    let of_ten = |behaviour: &'static str| -> Vec<_> {
        let odd = subscriber("odd", behaviour, 0);
        std::iter::once(odd).chain((1..10).map(|number| subscriber("healthy", "ok", number))).collect()
    };
    let without = beside(machine, &of_ten("ok"), 10, 80.0).await;
    for (behaviour, name) in [
        ("hang", "one of ten hangs, 80/s: p99 of the others"),
        ("wait-3000", "one of ten takes 3 s, 80/s: p99 of the others"),
        ("refuse", "one of ten refuses connections, 80/s: p99 of the others"),
        ("drip", "one of ten drips a byte a second, 80/s: p99 of the others"),
    ] {
        let with = beside(machine, &of_ten(behaviour), 10, 80.0).await;
        figures.add(name, "ms", with.p99, Some(without.p99), Goal::at_most(without.p99 * 1.5 + 3.0, with.p99));
        figures.note(format!("p50 {:.1} ms, without it {:.1} ms", with.p50, without.p50));
    }
}

/// Half of a thousand endpoints hang, from cold.
pub(crate) async fn half_of_many(machine: &Machine, figures: &mut Figures) {
    const PAIRS: usize = 500;
    let pairs = |behaviour: &'static str| -> Vec<_> {
        (0..PAIRS)
            .flat_map(|number| [subscriber("healthy", "ok", number), subscriber("odd", behaviour, number)])
            .collect()
    };
    let without = beside(machine, &pairs("ok"), PAIRS, 100.0).await;
    let with = beside(machine, &pairs("hang"), PAIRS, 100.0).await;
    let goal = Goal::at_most(without.p99 * 2.0 + 3.0, with.p99);
    figures.add("half of 1,000 hang, 100/s: p99 of the others", "ms", with.p99, Some(without.p99), goal);
    figures.note(format!("p50 {:.1} ms, without them {:.1} ms", with.p50, without.p50));
}
