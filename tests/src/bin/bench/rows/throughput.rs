//! Throughput, and processor time per delivery.

use crate::{
    figures::{Figures, Goal},
    rows::latency::types,
    scene::{Scene, Subject, Subscriber, Via, delivered::Delivered, machine::Machine},
};

/// Endpoints of each measurement.
pub(crate) const ENDPOINTS: usize = 10;

/// Warm-up events: open the connections and prepare the plans before the measured events.
pub(crate) const WARM_UP: usize = 3_000;

/// Events to publish.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) via: Via,
    /// Endpoints per event.
    pub(crate) per_event: usize,
    pub(crate) events: usize,
    /// Events per second; `None` for as fast as accepted.
    pub(crate) rate: Option<f64>,
}

pub(crate) const ONE_TO_ONE: Load = Load { via: Via::Amqp, per_event: 1, events: 30_000, rate: None };
const OVER_HTTP: Load = Load { via: Via::Http, per_event: 1, events: 20_000, rate: None };
pub(crate) const ONE_TO_TEN: Load = Load { via: Via::Amqp, per_event: ENDPOINTS, events: 5_000, rate: None };

async fn run(machine: &Machine, subject: Subject, load: Load) -> Delivered {
    let mut scene = Scene::set(machine, &subscribers(), subject).await;
    load.deliver(machine, &mut scene).await
}

/// Returns the endpoints. Each subscribes to a separate event type and to `bench.all`.
pub(crate) fn subscribers() -> Vec<Subscriber> {
    let types = |number| vec![format!("bench.{number}"), "bench.all".to_owned()];
    (0..ENDPOINTS)
        .map(|number| Subscriber { group: "all", behaviour: "ok", types: types(number), rate: None })
        .collect()
}

impl Load {
    /// Delivers the warm-up events and then the measured events. Returns the result of the measured events.
    pub(crate) async fn deliver(self, machine: &Machine, scene: &mut Scene) -> Delivered {
        let types = match self.per_event {
            1 => types(ENDPOINTS),
            _ => vec!["bench.all".to_owned()],
        };
        scene.deliver(self.via, &types, machine.count(WARM_UP / self.per_event), self.per_event, self.rate).await;
        scene.deliver(self.via, &types, machine.count(self.events), self.per_event, self.rate).await
    }
}

/// Runs the ceiling and Fanfare in turn: both meet the same state of the machine. Returns the median of each.
async fn compare(machine: &Machine, load: Load, ceiling: Load) -> (Delivered, Delivered) {
    let (mut fanfare, mut ceilings) = (Vec::new(), Vec::new());
    for _ in 0..machine.times {
        ceilings.push(run(machine, Subject::Ceiling, ceiling).await);
        fanfare.push(run(machine, Subject::Fanfare(1), load).await);
    }
    (median(fanfare), median(ceilings))
}

fn median(mut runs: Vec<Delivered>) -> Delivered {
    runs.sort_by(|run, other| run.per_second.total_cmp(&other.per_second));
    let middle = runs.len() / 2;
    runs.swap_remove(middle)
}

/// Measures 1:1 over AMQP and HTTP, and 1:10 over AMQP: the rows of the design's table.
pub(crate) async fn measure(machine: &Machine, figures: &mut Figures) {
    let (fanfare, ceiling) = compare(machine, ONE_TO_ONE, ONE_TO_ONE).await;
    add_throughput(figures, "1:1 over AMQP", &fanfare, &ceiling, (0.85, 5_500.0));
    let cost = Goal::at_most(300.0, fanfare.cost());
    figures.add("processor time per delivery, 1:1 over AMQP", "µs", fanfare.cost(), Some(ceiling.cost()), cost);
    figures.note(format!("Fanfare: {}; ceiling: {}", fanfare.costs_in_words(), ceiling.costs_in_words()));
    let (fanfare, ceiling) = compare(machine, OVER_HTTP, Load { events: OVER_HTTP.events, ..ONE_TO_ONE }).await;
    add_throughput(figures, "1:1 over HTTP", &fanfare, &ceiling, (0.70, 4_000.0));
    figures.note(format!("Fanfare: {}", fanfare.costs_in_words()));
    let (fanfare, ceiling) = compare(machine, ONE_TO_TEN, ONE_TO_TEN).await;
    add_throughput(figures, "ten endpoints per event", &fanfare, &ceiling, (0.85, 10_000.0));
    figures.note(format!("Fanfare: {}; ceiling: {}", fanfare.costs_in_words(), ceiling.costs_in_words()));
}

fn add_throughput(
    figures: &mut Figures,
    name: &str,
    fanfare: &Delivered,
    ceiling: &Delivered,
    (share, least): (f64, f64),
) {
    let goal = Goal::at_least_of(share, ceiling.per_second, least, fanfare.per_second);
    figures.add(name, "/s", fanfare.per_second, Some(ceiling.per_second), goal);
    figures.note(format!(
        "the publisher was busy for {:.0} % of the time, the receiver for {:.0} %",
        fanfare.published.as_secs_f64() / fanfare.took.as_secs_f64() * 100.0,
        fanfare.receiver_load() * 100.0
    ));
}

/// Measures events with 10,000 ordering keys, without and with FIFO, beside the same events without keys.
pub(crate) async fn ordered(machine: &Machine, figures: &mut Figures) {
    let load = Load { via: Via::Ordered(10_000), ..ONE_TO_ONE };
    let (mut with, mut fifo, mut without) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..machine.times {
        without.push(run(machine, Subject::Fanfare(1), ONE_TO_ONE).await);
        with.push(run(machine, Subject::Fanfare(1), load).await);
        let mut scene = Scene::set(machine, &subscribers(), Subject::Fanfare(1)).await;
        scene.deliver_in_order().await;
        fifo.push(load.deliver(machine, &mut scene).await);
    }
    let (with, fifo, without) = (median(with), median(fifo), median(without));
    let goal = Goal::at_least_of(0.70, without.per_second, 0.0, with.per_second);
    figures.add("10,000 ordering keys, 1:1 over AMQP", "/s", with.per_second, Some(without.per_second), goal);
    figures.note(format!("with order: {}; without: {}", with.costs_in_words(), without.costs_in_words()));
    let goal = Goal::at_least_of(0.40, without.per_second, 0.0, fifo.per_second);
    figures.add("10,000 ordering keys with FIFO", "/s", fifo.per_second, Some(without.per_second), goal);
    figures.note(format!("with FIFO: {}", fifo.costs_in_words()));
}

/// Measures two and four dispatchers on the same machine.
pub(crate) async fn replicas(machine: &Machine, figures: &mut Figures) {
    let mut single = Vec::new();
    let (mut two, mut four) = (Vec::new(), Vec::new());
    for _ in 0..machine.times {
        single.push(run(machine, Subject::Fanfare(1), ONE_TO_ONE).await);
        two.push(run(machine, Subject::Fanfare(2), ONE_TO_ONE).await);
        four.push(run(machine, Subject::Fanfare(4), ONE_TO_ONE).await);
    }
    let single = median(single).per_second;
    for (name, runs) in [("2 dispatchers, beside 1 dispatcher", two), ("4 dispatchers, beside 1 dispatcher", four)] {
        let run = median(runs);
        let goal = Goal::at_least_of(0.85, single, 0.0, run.per_second);
        figures.add(name, "/s", run.per_second, Some(single), goal);
        let (least, most) = run.shares;
        figures.note(format!("{}; each dispatcher delivered {least:.0} to {most:.0} %", run.costs_in_words()));
    }
}
