//! Deliveries that only recovery finds.

use jiff::SignedDuration;

use crate::{
    figures::{Figures, Goal},
    rows::latency::subscribers,
    scene::{
        Scene, Subject,
        fill::{self, Filler},
        machine::Machine,
    },
};

/// Measured retries. More retries are due.
const MEASURED: usize = 50_000;

/// Measures recovery after the broker has lost the messages of all retries. All retries are due.
pub(crate) async fn lost_broker(machine: &Machine, figures: &mut Figures) {
    let mut scene = Scene::set(machine, &subscribers("all", "ok", 100), Subject::Fanfare(0)).await;
    let mut filler = Filler::new(&scene, "all").await;
    let retries = machine.count_or(100_000, 1_000_000);
    filler.scheduled(retries, SignedDuration::from_secs(-60)).await;
    fill::settle(machine, &scene).await;
    let per_second = scene.drain_rate(machine.count(MEASURED)).await;
    let goal = Goal::at_least_of(1.0, 2_000.0, 0.0, per_second);
    figures.add("all retry messages are lost: due retries sent", "/s", per_second, Some(2_000.0), goal);
    figures.note(format!("{retries} retries are due"));
}
