//! The cost of the indexes of charts and searches for deliveries. The job of the rollups counts attempts that are 90 s
//! old: a run ends before, so the row does not show the job's cost.

use crate::{
    figures::{Figures, Goal},
    rows::throughput::{Load, ONE_TO_ONE, subscribers},
    scene::{Scene, Subject, delivered::Delivered, fill, machine::Machine},
};

/// Removes the indexes of charts and searches.
const WITHOUT_INDEXES: &str = "
DROP INDEX deliveries_by_start;
DROP INDEX attempts_by_start;
DROP INDEX events_by_acceptance;
DROP INDEX open_scheduled";

/// Holds the lock of the job of the rollups: no process counts.
const WITHOUT_ROLLUPS: &str = "SELECT pg_advisory_lock(6683, 10)";

/// Events of a run. A run takes many seconds, so that a run covers commits, checkpoints and the work of BRIN.
const EVENTS: usize = 60_000;

/// Measures 1:1 with and without the console's data, in turn.
pub(crate) async fn measure(machine: &Machine, figures: &mut Figures) {
    let (mut with, mut without) = (Vec::new(), Vec::new());
    for turn in 0..machine.times {
        // The order changes: the second run of a turn meets warmer servers.
        for has_data in [turn % 2 == 0, turn % 2 == 1] {
            let runs = if has_data { &mut with } else { &mut without };
            runs.push(run(machine, has_data).await);
        }
    }
    let [rate, rate_without] = [&with, &without].map(|runs| median(runs, |run| run.per_second));
    let goal = Goal::at_least_of(0.98, rate_without, 0.0, rate);
    figures.add("1:1 over AMQP with indexes of charts, beside without", "/s", rate, Some(rate_without), goal);
    let [cost, cost_without] = [&with, &without].map(|runs| median(runs, Delivered::cost));
    let goal = Goal::at_most(cost_without * 1.02, cost);
    figures.add("processor time per delivery, beside without", "µs", cost, Some(cost_without), goal);
    let turns = with.iter().zip(&without).map(|(with, without)| with.per_second / without.per_second * 100.0);
    let turns: Vec<String> = turns.map(|share| format!("{share:.0}")).collect();
    figures.note(format!("share of the rate in each turn: {} %", turns.join(", ")));
}

async fn run(machine: &Machine, has_data: bool) -> Delivered {
    let mut scene = Scene::set(machine, &subscribers(), Subject::Fanfare(1)).await;
    let database = scene.world.database().await;
    if !has_data {
        database.batch_execute(WITHOUT_INDEXES).await.expect("no indexes of charts");
        database.query_one(WITHOUT_ROLLUPS, &[]).await.expect("the lock of the rollups");
    }
    fill::settle(machine, &scene).await;
    Load { events: EVENTS, ..ONE_TO_ONE }.deliver(machine, &mut scene).await
}

fn median(runs: &[Delivered], value: impl Fn(&Delivered) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
