//! One run: a scene, a load, faults, and the books.

use std::{panic::AssertUnwindSafe, time::Duration};

use fanfare_tests::books::Books;
use futures_util::FutureExt;
use rand::{RngExt, SeedableRng, rngs::StdRng, seq::SliceRandom};
use sha2::{Digest, Sha256};
use tokio::time::sleep;

use crate::{
    evidence,
    faults::{self, Fault, Part},
    name_of,
    scene::Scene,
    table::Row,
};

/// Where something may be missing for ever, it is not waited for once all was quiet for so long.
const QUIET: Duration = Duration::from_secs(8);

/// Ingest answers within 5 s whatever is away; on a busy machine the rest of it takes some time, too.
const ANSWERED: Duration = Duration::from_secs(8);

/// How many of the missing events are named; the evidence has them all.
const NAMED: usize = 8;

/// How long the load goes on after deliveries flow again.
const AFTERWARDS: Duration = Duration::from_secs(1);

/// Sets a scene, has the faults happen, and compares the books. The same faults happen in another way each time.
pub(crate) async fn run(seed: u64, time: usize, faults: &[Fault]) -> Row {
    let name = name_of(faults);
    let mut draw = StdRng::from_seed(Sha256::digest(format!("{seed} {time} {name}")).into());
    let mut row = Row { name, ..Row::default() };
    let mut scene = Scene::set("chaos", faults::nodes(faults)).await;
    let suffered = AssertUnwindSafe(suffer(&mut scene, faults, &mut draw, &mut row)).catch_unwind().await;
    let mut lines = Vec::new();
    match suffered {
        Ok((books, afterwards)) => {
            enter(&books, &afterwards, faults, &mut row);
            lines.extend(books.lines());
        }
        Err(panic) => row.faults.push(message(&*panic)),
    }
    row.notes.append(&mut scene.notes);
    // Beside another fault that is no wonder.
    let wrong = if faults.len() == 1 { &mut row.faults } else { &mut row.notes };
    wrong.append(&mut scene.wrong);
    if !row.faults.is_empty() {
        row.evidence = Some(evidence::keep(&scene, &format!("{seed}-{time}"), &row, &lines));
    }
    scene.clear();
    row
}

/// What was accepted after the end of the faults may not be missing whatever they were.
fn enter(books: &Books, afterwards: &[String], faults: &[Fault], row: &mut Row) {
    let allowed = faults::allowed(faults);
    row.totals = books.totals(allowed);
    row.faults.append(&mut books.faults(allowed));
    let missing = books.missing(allowed);
    let lost = afterwards.iter().filter(|key| missing.contains_key(key.as_str()));
    row.faults.extend(lost.map(|key| format!("{key} is missing, and was accepted after the end of the fault")));
    if !missing.is_empty() {
        let received = missing.values().filter(|received| **received).count();
        let keys: Vec<_> = missing.keys().copied().take(NAMED).collect();
        let more = if missing.len() > NAMED { ", …" } else { "" };
        let names = keys.join(", ");
        row.notes.push(format!("{} events missing, {received} of them received: {names}{more}", missing.len()));
    }
}

/// Gives the books, and the keys of what was accepted after the end of the faults.
async fn suffer(scene: &mut Scene, faults: &[Fault], draw: &mut StdRng, row: &mut Row) -> (Books, Vec<String>) {
    scene.begin().await;
    // RabbitMQ 3.10.8 forgets queues that were declared less than a second before it was killed.
    sleep(Duration::from_millis(draw.random_range(1500..3000))).await;
    for fault in faults {
        scene.strike(fault, draw).await;
    }
    let length = faults.iter().map(|fault| fault.length(draw)).max().unwrap_or_default();
    row.notes.push(format!("for {:.1} s", Duration::from_millis(length).as_secs_f32()));
    sleep(Duration::from_millis(length)).await;
    let mut faults = faults.to_vec();
    faults.shuffle(draw);
    for fault in &faults {
        scene.mend(fault).await;
    }
    let before = scene.load().accepted();
    let ((), again) = tokio::join!(
        async {
            scene.ready().await;
            scene.spread();
        },
        scene.again()
    );
    row.again = Some(again);
    sleep(AFTERWARDS).await;
    if faults.iter().all(|fault| fault.part != Part::Ingests) {
        let answers = scene.load().answers();
        let slow = answers.iter().filter(|one| one.took > ANSWERED);
        row.faults.extend(slow.map(|one| format!("ingest answered {} after {:?}", one.status(), one.took)));
    }
    if faults::nodes(&faults) > 1 {
        scene.check_answers(again);
    }
    let accepted = scene.finish().await;
    let quiet = if faults::allowed(&faults).missing == Default::default() { Duration::MAX } else { QUIET };
    let books = Books::closed_after(quiet, &scene.world, &accepted, &scene.subscribers).await;
    // Those without a message id are the test's own.
    let parked = "SELECT reason, count(*) FROM parked WHERE reason <> 'missing_message_id' GROUP BY reason";
    for parked in scene.world.database().await.query(parked, &[]).await.expect("what is parked") {
        row.faults.push(format!("{} messages are parked as {}", parked.get::<_, i64>(1), parked.get::<_, &str>(0)));
    }
    (books, accepted[before..].to_vec())
}

fn message(panic: &(dyn std::any::Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str).or_else(|| panic.downcast_ref::<&str>().copied());
    format!("broke off: {}", text.unwrap_or("a panic"))
}
