//! Slow receivers: with constant and with realistic answer times.

use crate::{
    figures::{Figures, Goal},
    rows::{
        latency::{subscribers, types},
        throughput::WARM_UP,
    },
    scene::{Scene, Subject, Via, delivered::Delivered, machine::Machine},
};

/// Endpoints with slow answers.
const ENDPOINTS: usize = 200;

/// Measured events.
const EVENTS: usize = 30_000;

async fn delivered(machine: &Machine, behaviour: &'static str) -> (Delivered, f64) {
    let mut scene = Scene::set(machine, &subscribers("all", behaviour, ENDPOINTS), Subject::Fanfare(1)).await;
    scene.deliver(Via::Amqp, &types(ENDPOINTS), machine.count(WARM_UP), 1, None).await;
    let before = scene.queued().await;
    let delivered = scene.deliver(Via::Amqp, &types(ENDPOINTS), machine.count(EVENTS), 1, None).await;
    let queued = (scene.queued().await - before) / delivered.deliveries;
    (delivered, queued)
}

/// Measures the throughput with receivers that answer in 300 ms, and with receivers of all speeds. The comparison has
/// receivers that answer at once.
pub(crate) async fn receivers(machine: &Machine, figures: &mut Figures) {
    let (at_once, _) = delivered(machine, "ok").await;
    for (behaviour, share, name) in [
        ("wait-300", Some(0.85), "200 endpoints answer in 300 ms, 1:1 over AMQP"),
        ("life", None, "200 endpoints answer in 50 ms to 5 s"),
    ] {
        let (slow, queued) = delivered(machine, behaviour).await;
        let goal = share.and_then(|share| Goal::at_least_of(share, at_once.per_second, 0.0, slow.per_second));
        figures.add(name, "/s", slow.per_second, Some(at_once.per_second), goal);
        figures.note(format!("{}; at once: {}", slow.costs_in_words(), at_once.costs_in_words()));
        figures.note(format!("{:.0} % of the deliveries were queued first", queued * 100.0));
    }
}
