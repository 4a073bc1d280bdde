//! A run: the steps of a script in one scene under load, and the comparison of the ledger.

use std::{any::Any, panic::AssertUnwindSafe, time::Duration};

use fanfare_tests::ledger::{Allowed, Ledger, Missing};
use futures_util::FutureExt;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use sha2::{Digest, Sha256};
use tokio::time::{Instant, sleep};

use crate::{
    evidence,
    faults::{self, Fault, Needs, Part},
    scene::Scene,
    script::{Script, Step},
    table::{Row, Table},
};

/// Quiet after which missing events are no longer waited for, where events may be missing.
const QUIET: Duration = Duration::from_secs(8);

/// Ingest answers within 5 s, whatever is away; the rest is for a busy machine.
const ANSWERED: Duration = Duration::from_secs(8);

/// The most missing events named in a row. The evidence names all.
const NAMED: usize = 8;

/// Sets a scene, plays the script and adds its rows, until a step fails.
pub(crate) async fn play(script: Script, seed: u64, table: &mut Table) {
    let scene = Scene::set("chaos", script.needs, script.extent).await;
    let mut run = Run { scene, injected: Vec::new(), recovered: 0, lines: Vec::new() };
    let mut steps = script.steps.into_iter();
    for step in steps.by_ref() {
        let row = run.take(&step, seed).await;
        let failed = !row.failures.is_empty();
        table.add(row);
        if failed {
            break;
        }
    }
    table.skip(steps.map(|step| step.name).collect());
    run.scene.clear();
}

struct Run {
    scene: Scene,
    /// The faults of all steps so far.
    injected: Vec<Fault>,
    /// The number of events accepted before the end of the last faults.
    recovered: usize,
    /// The ledger; empty unless the step has closed the ledger.
    lines: Vec<String>,
}

impl Run {
    /// Takes a step. The same faults happen in another way each time.
    async fn take(&mut self, step: &Step, seed: u64) -> Row {
        let started = Instant::now();
        let mut draw = StdRng::from_seed(Sha256::digest(format!("{seed} {} {}", step.time, step.name)).into());
        let mut row = Row { name: step.name.clone(), ..Row::default() };
        self.lines.clear();
        if let Err(panic) = AssertUnwindSafe(self.perform(step, &mut draw, &mut row)).catch_unwind().await {
            row.failures.push(message(&*panic));
        }
        row.notes.append(&mut self.scene.notes);
        // A fault may hold up the end of another.
        let failures = if step.faults.len() > 1 { &mut row.notes } else { &mut row.failures };
        failures.append(&mut self.scene.failures);
        row.took = started.elapsed();
        if !row.failures.is_empty() {
            row.evidence = Some(evidence::keep(&self.scene, &format!("{seed}-{}", step.time), &row, &self.lines));
        }
        row
    }

    async fn perform(&mut self, step: &Step, draw: &mut StdRng, row: &mut Row) {
        if self.scene.load.is_none() {
            self.scene.begin().await;
        }
        if self.injected.is_empty() {
            // RabbitMQ 3.10.8 forgets queues that were declared less than a second before it was killed.
            sleep(Duration::from_millis(draw.random_range(1500..3000))).await;
        }
        if !step.faults.is_empty() {
            self.run_faults(&step.faults, draw, row).await;
        }
        if step.reads_ledger {
            self.read_ledger(row).await;
        }
    }

    /// Has the faults happen and end, and waits until all processes are ready and deliveries flow.
    async fn run_faults(&mut self, faults: &[Fault], draw: &mut StdRng, row: &mut Row) {
        let scene = &mut self.scene;
        let answered = scene.load().answers().len();
        for fault in faults {
            scene.inject(fault, draw).await;
        }
        self.injected.extend(faults);
        let length = faults.iter().map(|fault| fault.length(scene.extent, draw)).max().unwrap_or_default();
        row.notes.push(format!("for {:.1} s", length.as_secs_f32()));
        // The duration of the fault.
        sleep(length).await;
        let mut faults = faults.to_vec();
        faults.shuffle(draw);
        for fault in &faults {
            scene.end_fault(fault).await;
        }
        self.recovered = scene.accepted.len() + scene.load().accepted();
        let ((), again) = tokio::join!(
            async {
                scene.ready().await;
                scene.spread();
            },
            scene.again()
        );
        row.again = Some(again);
        // Load after the fault, so that the accounts also cover later events.
        sleep(scene.extent.afterwards).await;
        let answers = scene.load().answers().split_off(answered);
        if faults.iter().all(|fault| fault.part != Part::Ingests) {
            let slow = answers.iter().filter(|answer| answer.took > ANSWERED);
            row.failures
                .extend(slow.map(|answer| format!("ingest answered {} after {:?}", answer.status(), answer.took)));
        }
        if Needs::of(&faults).nodes > 1 {
            scene.check_answers(again, &answers);
        }
    }

    /// Ends the load, waits until all deliveries have ended, and compares the ledger of the whole run.
    async fn read_ledger(&mut self, row: &mut Row) {
        let scene = &mut self.scene;
        scene.finish().await;
        let allowed = faults::allowed(&self.injected, scene.extent);
        let quiet = if allowed.missing == Missing::Nothing { Duration::MAX } else { QUIET };
        let ledger = Ledger::read_after(quiet, &scene.world, &scene.accepted, &scene.subscribers).await;
        // Messages with these reasons are the test's own.
        let parked = "SELECT reason, count(*) FROM parked
                      WHERE reason NOT IN ('missing_message_id', 'not_utf8', 'body_too_large') GROUP BY reason";
        for parked in scene.world.database().await.query(parked, &[]).await.expect("parked messages") {
            row.failures.push(format!(
                "{} messages are parked as {}",
                parked.get::<_, i64>(1),
                parked.get::<_, &str>(0)
            ));
        }
        row.failures.extend(scene.spent_by_us().await);
        enter(&ledger, &scene.accepted[self.recovered..], allowed, row);
        self.lines.extend(ledger.accounts());
    }
}

/// Enters the ledger in a row. No event accepted after the end of the faults may be missing.
fn enter(ledger: &Ledger, afterwards: &[String], allowed: Allowed, row: &mut Row) {
    row.totals = Some(ledger.totals(allowed));
    row.failures.append(&mut ledger.differences(allowed));
    let missing = ledger.missing(allowed);
    let lost = afterwards.iter().filter(|key| missing.contains_key(key.as_str()));
    row.failures.extend(lost.map(|key| format!("{key} is missing, and was accepted after the end of the fault")));
    if !missing.is_empty() {
        let received = missing.values().filter(|received| **received).count();
        let keys: Vec<_> = missing.keys().copied().take(NAMED).collect();
        let more = if missing.len() > NAMED { ", …" } else { "" };
        let names = keys.join(", ");
        row.notes.push(format!("{} events missing, {received} of them received: {names}{more}", missing.len()));
    }
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("broke off: {}", text.unwrap_or("a panic"))
}
