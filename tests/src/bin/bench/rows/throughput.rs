//! Deliveries a second, and the cost of each.

use crate::{
    figures::{Figures, Goal},
    rows::latency::types,
    scene::{Scene, Subject, Subscriber, Way, delivered::Delivered, machine::Machine},
};

/// Endpoints that take part.
pub(crate) const ENDPOINTS: usize = 10;

/// Events before the measured ones, so that connections and plans are there.
pub(crate) const WARM_UP: usize = 3_000;

/// What is published.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Load {
    pub(crate) way: Way,
    /// Endpoints that each event goes to.
    pub(crate) per_event: usize,
    pub(crate) events: usize,
    /// Events a second; `None` for as fast as they are taken.
    pub(crate) rate: Option<f64>,
}

pub(crate) const ONE_TO_ONE: Load = Load { way: Way::Amqp, per_event: 1, events: 30_000, rate: None };
const OVER_HTTP: Load = Load { way: Way::Http, per_event: 1, events: 20_000, rate: None };
pub(crate) const ONE_TO_TEN: Load = Load { way: Way::Amqp, per_event: ENDPOINTS, events: 5_000, rate: None };

async fn run(machine: &Machine, subject: Subject, load: Load) -> Delivered {
    let mut scene = Scene::set(machine, &subscribers(), subject).await;
    load.deliver(machine, &mut scene).await
}

/// Endpoints that have an event type of their own each, and one that all subscribe to.
pub(crate) fn subscribers() -> Vec<Subscriber> {
    let types = |number| vec![format!("bench.{number}"), "bench.all".to_owned()];
    (0..ENDPOINTS)
        .map(|number| Subscriber { group: "all", behaviour: "ok", types: types(number), rate: None })
        .collect()
}

impl Load {
    /// Delivers the events before the measured ones, and then these.
    pub(crate) async fn deliver(self, machine: &Machine, scene: &mut Scene) -> Delivered {
        let types = match self.per_event {
            1 => types(ENDPOINTS),
            _ => vec!["bench.all".to_owned()],
        };
        scene.deliver(self.way, &types, machine.count(WARM_UP / self.per_event), self.per_event, self.rate).await;
        scene.deliver(self.way, &types, machine.count(self.events), self.per_event, self.rate).await
    }
}

/// The two in turn, so that both meet the same machine, and the median of each.
async fn compare(machine: &Machine, load: Load, ceiling: Load) -> (Delivered, Delivered) {
    let (mut ours, mut ceilings) = (Vec::new(), Vec::new());
    for _ in 0..machine.times {
        ceilings.push(run(machine, Subject::Ceiling, ceiling).await);
        ours.push(run(machine, Subject::Fanfare(1), load).await);
    }
    (median(ours), median(ceilings))
}

fn median(mut runs: Vec<Delivered>) -> Delivered {
    runs.sort_by(|one, other| one.per_second.total_cmp(&other.per_second));
    let middle = runs.len() / 2;
    runs.swap_remove(middle)
}

/// The rows of the design's table on throughput.
pub(crate) async fn measure(machine: &Machine, figures: &mut Figures) {
    let (ours, ceiling) = compare(machine, ONE_TO_ONE, ONE_TO_ONE).await;
    enter(figures, "1:1 over AMQP", &ours, &ceiling, (0.85, 5_500.0));
    let cost = Goal::at_most(300.0, ours.cost());
    figures.add("processor time per delivery, 1:1 over AMQP", "µs", ours.cost(), Some(ceiling.cost()), cost);
    figures.note(format!("Fanfare: {}; ceiling: {}", ours.costs_in_words(), ceiling.costs_in_words()));
    let (ours, ceiling) = compare(machine, OVER_HTTP, Load { events: OVER_HTTP.events, ..ONE_TO_ONE }).await;
    enter(figures, "1:1 over HTTP", &ours, &ceiling, (0.70, 4_000.0));
    figures.note(format!("Fanfare: {}", ours.costs_in_words()));
    let (ours, ceiling) = compare(machine, ONE_TO_TEN, ONE_TO_TEN).await;
    enter(figures, "ten endpoints per event", &ours, &ceiling, (0.85, 10_000.0));
    figures.note(format!("Fanfare: {}; ceiling: {}", ours.costs_in_words(), ceiling.costs_in_words()));
}

fn enter(figures: &mut Figures, name: &str, ours: &Delivered, ceiling: &Delivered, (share, least): (f64, f64)) {
    let goal = Goal::at_least_of(share, ceiling.per_second, least, ours.per_second);
    figures.add(name, "/s", ours.per_second, Some(ceiling.per_second), goal);
    figures.note(format!(
        "published within {:.0} % of the time; the receiver was busy for {:.0} % of it",
        ours.published.as_secs_f64() / ours.took.as_secs_f64() * 100.0,
        ours.receiver_load() * 100.0
    ));
}

/// Several dispatchers on the same machine.
pub(crate) async fn replicas(machine: &Machine, figures: &mut Figures) {
    let mut alone = Vec::new();
    let (mut two, mut four) = (Vec::new(), Vec::new());
    for _ in 0..machine.times {
        alone.push(run(machine, Subject::Fanfare(1), ONE_TO_ONE).await);
        two.push(run(machine, Subject::Fanfare(2), ONE_TO_ONE).await);
        four.push(run(machine, Subject::Fanfare(4), ONE_TO_ONE).await);
    }
    let alone = median(alone).per_second;
    for (name, runs) in [("two dispatchers, beside one", two), ("four dispatchers, beside one", four)] {
        let run = median(runs);
        let goal = Goal::at_least_of(0.85, alone, 0.0, run.per_second);
        figures.add(name, "/s", run.per_second, Some(alone), goal);
        let (least, most) = run.shares;
        figures.note(format!("{}; each delivered {least:.0} to {most:.0} %", run.costs_in_words()));
    }
}
