//! Many deliveries that become due, or wait in backlogs, at once.

use std::time::{Duration, Instant};

use fanfare_tests::world::dialects::Waits;
use jiff::SignedDuration;
use tokio::time::interval;

use crate::{
    figures::{Figures, Goal},
    rows::latency::{HEALTHY, Latency, QUIETLY, SECONDS, enter, flow, subscribers, types},
    scene::{
        Changes, Scene, Subject, Way,
        fill::{self, Filler},
        machine::Machine,
    },
};

/// Retries a second that come due, and the seconds for which they do.
const RETRIES: usize = 2_000;
const DUE_SECONDS: u32 = 20;

/// The parts of a second in which they are published.
const PARTS: u32 = 20;

/// The delay queue of the retries.
const WAIT: &str = "5s";

/// 2,000 retries a second come due over 100,000 endpoints.
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
    let without = flow(&mut scene, &types(10), QUIETLY, seconds).await;
    let mut filler = Filler::new(&scene, "due").await;
    let parts = (seconds * f64::from(PARTS)) as u32;
    let each = machine.count(RETRIES) / PARTS as usize + 1;
    let publishing = tokio::spawn(async move {
        let mut ticks = interval(Duration::from_secs(1) / PARTS);
        for _ in 0..parts {
            ticks.tick().await;
            let written = filler.scheduled(each, SignedDuration::from_secs(5)).await;
            filler.publish(&written, WAIT).await;
        }
        filler.confirmed(0).await;
    });
    scene.received().await;
    let seconds = seconds + 5.0;
    scene.publish(Way::Amqp, &types(10), (seconds * QUIETLY) as usize, Some(QUIETLY)).await;
    publishing.await.expect("the retries are published");
    scene.all_delivered().await;
    let received = scene.received().await;
    let (late, with) = (Latency::of(&received, "due"), Latency::of(&received, HEALTHY));
    let name = "2,000 retries a second come due over 100,000 endpoints: late";
    figures.add(name, "ms", late.p99, None, Goal::at_most(2_000.0, late.p99));
    figures.note(format!("half of them by less than {:.0} ms", late.p50));
    enter(figures, "2,000 retries a second come due, 20/s: p99 of the others", with, without, 2.0);
}

/// An application with 50,000 endpoints, each with a backlog.
pub(crate) async fn backlogs(machine: &Machine, figures: &mut Figures) {
    const EACH: usize = 4;
    let mut scene = Scene::set(machine, &subscribers(HEALTHY, "ok", 10), Subject::Fanfare(1)).await;
    let endpoints = machine.count(50_000);
    fill::endpoints(&scene, 1, endpoints, "many").await;
    let without = flow(&mut scene, &types(10), QUIETLY, machine.seconds(SECONDS)).await;
    let mut filler = Filler::new(&scene, "many").await;
    filler.queued(EACH * endpoints).await;
    fill::settle(machine, &scene).await;
    fill::backlogs(&scene).await;
    let began = Instant::now();
    let with = flow(&mut scene, &types(10), QUIETLY, machine.seconds(SECONDS)).await;
    scene.all_delivered().await;
    enter(figures, "50,000 endpoints have a backlog, 20/s: p99 of the others", with, without, 2.0);
    let rate = (EACH * endpoints) as f64 / began.elapsed().as_secs_f64();
    figures.note(format!("{endpoints} backlogs drained at {rate:.0} deliveries/s"));
}
