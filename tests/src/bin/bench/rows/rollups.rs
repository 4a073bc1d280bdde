//! The cost of the data for charts and searches: the indexes, and the job that counts attempts.

use fanfare_tests::patience::until;
use tokio_postgres::Client;

use crate::{
    figures::{Figures, Goal},
    rows::throughput::{Load, ONE_TO_ONE, subscribers},
    scene::{
        Scene, Subject,
        delivered::Delivered,
        fill,
        machine::{Extent, Machine},
    },
};

/// Removes the indexes of charts and searches.
const WITHOUT_INDEXES: &str = "
DROP INDEX deliveries_by_start;
DROP INDEX attempts_by_start;
DROP INDEX events_by_acceptance;
DROP INDEX open_scheduled";

/// Holds the lock of the job of the rollups: no process counts. The job tries to lock every 5 s until its first run.
const LOCK: &str = "SELECT pg_advisory_lock(6683, 10)";
const UNLOCK: &str = "SELECT pg_advisory_unlock(6683, 10)";

/// Events of a run. A run takes many seconds, so that a run covers commits, checkpoints and the work of BRIN.
const EVENTS: usize = 80_000;

/// Prompt successes of 30 minutes that the job counts during a run: twice as many as the run delivers. Beside the count
/// of each minute, the job compares the numbers of rows of each hour twice, each in a third of the time.
const PAST: &str = "
CREATE TEMPORARY TABLE past AS
SELECT (prefix || '7' || substr(md5('event' || number), 1, 3) || '8' || substr(md5('event' || number), 4, 15))::uuid AS event,
       (prefix || '8' || substr(md5('delivery' || number), 1, 3) || '8' || substr(md5('delivery' || number), 4, 15))::uuid
           AS delivery, at, number
FROM (SELECT number, at, lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS prefix
      FROM (SELECT number, date_trunc('milliseconds', now() - interval '32 minutes' + interval '30 minutes' * number / $COUNT) AS at
            FROM generate_series(1, $COUNT) AS number) AS times) AS ids;
INSERT INTO events (id, accepted_at, application_id, type, body, matches, traceparent, content)
SELECT event, at, (SELECT application_id FROM endpoints LIMIT 1), 'bench.0', repeat('x', 440), 1, '', '' FROM past;
INSERT INTO deliveries (id, event_id, application_id, endpoint_id, state, attempt, failures, finished_at, started_at,
                        duration_ms, status, response_headers)
SELECT past.delivery, past.event, e.application_id, e.id, 'delivered', 1, 0, at, at, 3, 200, '{}'
FROM past JOIN (SELECT application_id, id, row_number() OVER (ORDER BY id) AS turn, count(*) OVER () AS all_of_them
                FROM endpoints) e ON e.turn = 1 + past.number % e.all_of_them;
DROP TABLE past;
UPDATE rollup_marks SET counted = date_trunc('minute', now()) - interval '33 minutes'";

/// Measures 1:1 with and without the data for charts and searches, in turn.
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
    figures.add("1:1 over AMQP with the data of charts, beside without", "/s", rate, Some(rate_without), goal);
    let [cost, cost_without] = [&with, &without].map(|runs| median(runs, Delivered::cost));
    let goal = Goal::at_most(cost_without * 1.02, cost);
    figures.add("processor time per delivery, beside without", "µs", cost, Some(cost_without), goal);
    let turns = with.iter().zip(&without).map(|(with, without)| with.per_second / without.per_second * 100.0);
    let turns: Vec<String> = turns.map(|share| format!("{share:.0}")).collect();
    figures.note(format!("share of the rate in each turn: {} %", turns.join(", ")));
}

async fn run(machine: &Machine, has_data: bool) -> Delivered {
    let mut scene = Scene::set(machine, &subscribers(), Subject::Fanfare(0)).await;
    let database = scene.world.database().await;
    database.query_one(LOCK, &[]).await.expect("the lock of the rollups");
    scene.dispatchers.push(scene.world.dispatcher().await);
    let past = PAST.replace("$COUNT", &(machine.count(EVENTS) * 2).to_string());
    database.batch_execute(&past).await.expect("past deliveries");
    if !has_data {
        database.batch_execute(WITHOUT_INDEXES).await.expect("no indexes of charts");
    }
    fill::settle(machine, &scene).await;
    if has_data {
        database.query_one(UNLOCK, &[]).await.expect("the lock is free");
    }
    let delivered = Load { events: EVENTS, ..ONE_TO_ONE }.deliver(machine, &mut scene).await;
    let is_smoke = machine.extent == Extent::Smoke;
    assert!(!has_data || is_smoke || is_counted(&database).await, "the job must count during the run");
    if has_data {
        until("the count of the past", async || is_counted(&database).await.then_some(())).await;
    }
    delivered
}

/// True if the job has counted the past deliveries.
async fn is_counted(database: &Client) -> bool {
    let statement = "SELECT counted >= date_trunc('minute', now()) - interval '3 minutes' FROM rollup_marks";
    database.query_one(statement, &[]).await.expect("the marks").get(0)
}

fn median(runs: &[Delivered], value: impl Fn(&Delivered) -> f64) -> f64 {
    let mut values: Vec<f64> = runs.iter().map(value).collect();
    values.sort_by(f64::total_cmp);
    values[values.len() / 2]
}
