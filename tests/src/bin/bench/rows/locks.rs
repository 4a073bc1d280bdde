//! Waits for locks: while a day is dropped, and behind an open transaction.

use std::time::Instant;

use crate::{
    figures::{Figures, Goal},
    rows::latency::{HEALTHY, QUIET_RATE, SECONDS, add_latency, healthy_latency, subscribers, types},
    scene::{
        Changes, Scene, Subject, Via,
        days::{DAILY, Day},
        fill,
        machine::{Extent, Machine},
        watch::SessionPeaks,
    },
};
use fanfare_tests::{patience::until_promptly, world::process::Process};

/// Age of the dropped day in days, and the retention that drops the day.
const DROPPED: i64 = 60;
const RETENTION: &str = "45d";
const LONG_RETENTION: [(&str, &str); 1] = [("FANFARE_RETENTION", "90d")];

/// Longest permitted wait for a lock, in milliseconds.
const LONGEST_WAIT: f64 = 500.0;

/// Open deliveries of the dropped day.
const REOPENED: usize = 50_000;

/// Sets a scene. Its dispatcher has a longer retention than the dispatcher that drops the day.
async fn scene(machine: &Machine) -> Scene {
    let changes = Changes { variables: &LONG_RETENTION, ..Changes::default() };
    Scene::with(machine, &subscribers(HEALTHY, "ok", 10), Subject::Fanfare(1), changes).await
}

/// Measures waits for locks, and the latency, while a day of finished deliveries is dropped.
pub(crate) async fn dropped_day(machine: &Machine, figures: &mut Figures) {
    let mut scene = scene(machine).await;
    let seconds = machine.seconds(SECONDS);
    let without = healthy_latency(&mut scene, &types(10), QUIET_RATE, seconds).await;
    create_day(&scene).await;
    let rows = machine.count_or(250_000, 10_000_000);
    fill::finished(&scene, DROPPED, rows).await;
    reopen(&scene, machine.count(REOPENED)).await;
    fill::settle(machine, &scene).await;

    let watch = scene.watch().await;
    let began = Instant::now();
    let _dropping = drop_days(&scene).await;
    let (database, patience) = (scene.world.database().await, scene.patience);
    let dropped = async {
        let tables = "SELECT count(*) FROM pg_class WHERE relkind = 'r' AND relname LIKE '%' || $1";
        until_promptly(patience, "the drop of the day", async || {
            let left: i64 = database.query_one(tables, &[&partition_suffix()]).await.expect("a number").get(0);
            (left == 0).then_some(())
        })
        .await;
        began.elapsed().as_secs_f64()
    };
    let types = types(10);
    let (with, took) = tokio::join!(healthy_latency(&mut scene, &types, QUIET_RATE, seconds), dropped);
    let peaks = watch.end().await;
    figures.add("a day is dropped", "s", took, None, Goal::at_most(10.0, took));
    figures.note(format!("{} deliveries and attempts, and the start of a dispatcher", 3 * rows));
    add_waits(figures, "while a day is dropped", &peaks);
    add_latency(figures, "while a day is dropped, 20/s: p99", with, without, 2.0);
}

/// Measures waits for locks, and the latency, behind an open SELECT while a day is to be dropped.
pub(crate) async fn held_select(machine: &Machine, figures: &mut Figures) {
    const RATE: f64 = 500.0;
    let mut scene = scene(machine).await;
    let seconds = machine.seconds(SECONDS);
    let without = healthy_latency(&mut scene, &types(10), RATE, seconds).await;
    create_day(&scene).await;
    let holder = scene.world.database().await;
    let hold =
        "SET application_name = 'bench'; BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1 FROM deliveries LIMIT 1";
    holder.batch_execute(hold).await.expect("a transaction");
    let watch = scene.watch().await;
    let dropping = drop_days(&scene).await;
    let held = if machine.extent == Extent::Long { 3_600.0 } else { machine.seconds(60) };
    scene.publish(Via::Amqp, &types(10), (RATE * held) as usize, Some(RATE)).await;
    let look = scene.mean("fanfare_recovery_seconds").await * 1000.0;
    let with = healthy_latency(&mut scene, &types(10), RATE, seconds).await;
    let peaks = watch.end().await;
    holder.batch_execute("COMMIT").await.expect("the end of the transaction");
    drop(dropping);
    add_waits(figures, "behind an open SELECT", &peaks);
    figures.note(format!("the SELECT was open for {held:.0} s, at {RATE:.0} events/s"));
    figures.add("behind an open SELECT: recovery's look", "ms", look, None, Goal::at_most(10.0, look));
    add_latency(figures, "behind an open SELECT, 500/s: p99", with, without, 1.5);
}

fn add_waits(figures: &mut Figures, name: &str, peaks: &SessionPeaks) {
    let goal = Goal::at_most(LONGEST_WAIT, peaks.lock_wait);
    figures.add(&format!("{name}: longest wait for a lock"), "ms", peaks.lock_wait, None, goal);
    let text: String = peaks.text.split_whitespace().take(12).collect::<Vec<_>>().join(" ");
    figures.note(format!("the longest statement took {:.0} ms: {text}", peaks.statement));
}

/// Starts a dispatcher with a retention that drops the day.
async fn drop_days(scene: &Scene) -> Process {
    // The line of retention rises in advance: the job waits for 30 s after a rise.
    let raise =
        format!("UPDATE retention SET line = now() - interval '{}' + interval '1 h'", RETENTION.replace('d', " days"));
    scene.world.database().await.batch_execute(&raise).await.expect("the line of retention");
    scene.world.process_with("dispatcher", &[("FANFARE_RETENTION", RETENTION)])
}

/// Creates the partitions of the dropped day.
async fn create_day(scene: &Scene) {
    Day::ago(DROPPED).create(&scene.world.database().await, &DAILY).await;
}

/// Reopens `count` finished deliveries of the dropped day.
async fn reopen(scene: &Scene, count: usize) {
    let open = format!(
        "INSERT INTO open_deliveries (id, event_id, application_id, endpoint_id, state, listed, finished_once, attempt, due_at,
                                      expires_at)
         SELECT id, event_id, application_id, endpoint_id, 'scheduled', true, true, 3, now() + interval '1 h',
                now() + interval '1 d'
         FROM deliveries_{} LIMIT $1",
        partition_suffix()
    );
    scene.world.database().await.execute(&open, &[&(count as i64)]).await.expect("open deliveries");
}

/// Returns the last part of the names of the dropped day's partitions.
fn partition_suffix() -> String {
    Day::ago(DROPPED).suffix()
}
