//! Costs that must not grow with the rows and messages that exist.

use std::time::Instant;

use jiff::SignedDuration;

use crate::{
    figures::{Figures, Goal},
    rows::{
        latency::{subscribers, types},
        throughput::{Load, WARM_UP},
    },
    scene::{
        Scene, Subject, Via,
        delivered::Delivered,
        fill::{self, Filler},
        machine::Machine,
        processes::peak_memory,
    },
};

/// Events that wait while no dispatcher runs.
const WAITING: usize = 100_000;

/// Retries that wait for hours.
const RETRIES: usize = 1_000_000;

/// Recorded deliveries, with two attempts each.
const LOGGED: usize = 1_000_000;

/// Applications, and endpoints per application.
const APPLICATIONS: usize = 10_000;
const ENDPOINTS: usize = 10;

const MEBIBYTE: f64 = 1024.0 * 1024.0;

/// Load of the throughput measurements in this file.
const LOAD: Load = Load { via: Via::Amqp, per_event: 1, events: 20_000, rate: None };

/// Event types, each with a separate endpoint.
const TYPES: usize = 10;

/// Measures memory and throughput of a dispatcher that starts on a full queue of events.
pub(crate) async fn backlog(machine: &Machine, figures: &mut Figures) {
    let mut scene = Scene::set(machine, &subscribers("all", "ok", TYPES), Subject::Fanfare(0)).await;
    let waiting = machine.count(WAITING);
    scene.publish(Via::Amqp, &types(TYPES), waiting, None).await;
    let per_second = scene.drain_rate(waiting).await;
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

/// Measures the processor time of a delivery, and the dispatcher's memory, while very many retries wait.
pub(crate) async fn retries(machine: &Machine, figures: &mut Figures) {
    let mut scene = Scene::set(machine, &subscribers("all", "ok", TYPES), Subject::Fanfare(1)).await;
    let before = throughput(machine, &mut scene).await;
    let memory_before = scene.memory();
    let mut filler = Filler::new(&scene, "all").await;
    let written = filler.scheduled(machine.count(RETRIES), SignedDuration::from_hours(2)).await;
    filler.publish(&written, "120m").await;
    filler.wait_for_confirms(0).await;
    let after = throughput(machine, &mut scene).await;
    add_cost(figures, "processor time per delivery while 1,000,000 retries wait", &after, &before);
    let memory = scene.memory();
    let goal = Goal::at_most(memory_before + 16.0, memory);
    figures.add("memory of a dispatcher while 1,000,000 retries wait", "MiB", memory, Some(memory_before), goal);
}

/// Measures the processor time of a delivery after very many recorded attempts.
pub(crate) async fn log(machine: &Machine, figures: &mut Figures) {
    let mut scene = Scene::set(machine, &subscribers("all", "ok", TYPES), Subject::Fanfare(1)).await;
    let before = throughput(machine, &mut scene).await;
    fill::finished(&scene, 0, machine.count(LOGGED)).await;
    let after = throughput(machine, &mut scene).await;
    add_cost(figures, "processor time per delivery after 2,000,000 attempts", &after, &before);
}

/// Measures the start, and the processor time of a delivery, with very many applications and endpoints.
pub(crate) async fn endpoints(machine: &Machine, figures: &mut Figures) {
    let mut scene = Scene::set(machine, &subscribers("all", "ok", TYPES), Subject::Fanfare(1)).await;
    let before = throughput(machine, &mut scene).await;
    fill::endpoints(&scene, machine.count(APPLICATIONS), ENDPOINTS, "all").await;
    scene.dispatchers.clear();
    let started = Instant::now();
    let dispatcher = scene.world.dispatcher_starting();
    dispatcher.ready().await;
    let took = started.elapsed().as_secs_f64();
    figures.add("start with 100,000 endpoints of 10,000 applications", "s", took, None, Goal::at_most(5.0, took));
    scene.dispatchers.push(dispatcher);
    let after = throughput(machine, &mut scene).await;
    add_cost(figures, "processor time per delivery with 100,000 endpoints", &after, &before);
    figures.note(format!("memory of the dispatcher: {:.0} MiB", scene.memory()));
}

async fn throughput(machine: &Machine, scene: &mut Scene) -> Delivered {
    // The throughput excludes the servers' work on earlier rows.
    fill::settle(machine, scene).await;
    scene.deliver(Via::Amqp, &types(TYPES), machine.count(WARM_UP), 1, None).await;
    scene.deliver(LOAD.via, &types(TYPES), machine.count(LOAD.events), LOAD.per_event, None).await
}

/// Adds the processor time per delivery. The goal is at most 15 % above the value without the rows or messages.
fn add_cost(figures: &mut Figures, name: &str, after: &Delivered, before: &Delivered) {
    let goal = Goal::at_most(before.cost() * 1.15, after.cost());
    figures.add(name, "µs", after.cost(), Some(before.cost()), goal);
    figures.note(format!("{}; before: {}", after.costs_in_words(), before.costs_in_words()));
    figures.note(format!("{:.0} deliveries/s; before: {:.0}", after.per_second, before.per_second));
}
