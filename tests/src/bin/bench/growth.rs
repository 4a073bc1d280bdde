//! What grows with what waits, and must not.

use crate::{
    figures::{Figures, Goal},
    processes::peak_memory,
    scene::{Machine, Scene, Subject, Subscriber, Way},
};

/// Events that wait while no dispatcher runs.
const WAITING: usize = 100_000;

const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// A dispatcher that starts on a backlog.
pub(crate) async fn backlog(machine: &Machine, figures: &mut Figures) {
    let types: Vec<String> = (0..10).map(|number| format!("bench.{number}")).collect();
    let subscribers: Vec<_> =
        types.iter().map(|one| Subscriber { group: "all", behaviour: "ok", types: vec![one.clone()] }).collect();
    let mut scene = Scene::set(machine, &subscribers, Subject::Fanfare(0)).await;
    scene.publish(Way::Amqp, &types, WAITING, None).await;
    let per_second = scene.work_off(WAITING).await;
    let memory = peak_memory(scene.dispatchers[0].id()) as f64 / MEBIBYTE;
    figures.add(
        "memory of a dispatcher that starts on 100,000 events",
        "MiB",
        memory,
        None,
        Goal::at_most(150.0, memory),
    );
    figures.add("deliveries of a dispatcher that starts on 100,000 events", "/s", per_second, None, None);
}
