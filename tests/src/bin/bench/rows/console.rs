//! Pages of the console and the portal.

mod history;
mod operations;
mod pages;
mod visit;

use fanfare_domain::ids::ApplicationId;
use fanfare_tests::clients::api::Answer;
use jiff::SignedDuration;

use self::{
    pages::{Kind, Page},
    visit::Visit,
};
use crate::{
    figures::{Figures, Goal},
    scene::{
        Scene, Subject, Subscriber,
        fill::{self, Filler},
        machine::Machine,
    },
    statistics::percentiles,
};

/// Deliveries of a usual and of a long run.
const DELIVERIES: usize = 1_000_000;
const LONG_DELIVERIES: usize = 10_000_000;

/// Webhooks of the application, with two event types each.
const WEBHOOKS: usize = 100;

/// Applications that share a fifth of the deliveries, and endpoints of each.
const OTHERS: usize = 19;
const OTHER_WEBHOOKS: usize = 2;

/// Open deliveries of a dead, a paused and a late webhook.
const OPEN: usize = 10_000;

/// Requests of each page, one after the other: first to warm the caches, then measured.
const WARM_UP: usize = 5;
const REQUESTS: usize = 50;

/// Largest permitted page, in kB.
const LARGEST: f64 = 100.0;

/// Measures each page of the console and the portal over 30 days of deliveries.
pub(crate) async fn measure(machine: &Machine, figures: &mut Figures) {
    let scene = Scene::set(machine, &webhooks(machine), Subject::Fanfare(0)).await;
    let count = machine.count_or(DELIVERIES, LONG_DELIVERIES);
    let application: ApplicationId = scene.world.application.parse().expect("an id");
    fill::endpoints(&scene, machine.count(OTHERS), OTHER_WEBHOOKS, "other").await;
    history::fill(&scene, application, count).await;
    // A search walks finished deliveries, too, not only the open deliveries.
    for (group, hours) in [("dead", 12), ("paused", 72), ("late", 2)] {
        let filler = Filler::new(&scene, group).await;
        let mut filler = filler.accepted(SignedDuration::from_hours(hours));
        match group {
            "late" => filler.scheduled(machine.count(OPEN), SignedDuration::from_hours(2)).await,
            _ => filler.queued(machine.count(OPEN)).await,
        };
    }
    fill::backlogs(&scene).await;
    operations::fill(machine, &scene).await;
    fill::settle(machine, &scene).await;

    let found = pages::find(&scene, application).await;
    let mut largest = (0, String::new());
    for (face, visit, pages) in [
        ("console", Visit::of_console(&scene.world).await, pages::of_console(&found)),
        ("portal", Visit::of_portal(&scene.world).await, pages::of_portal(&found)),
    ] {
        for page in pages {
            let bytes = measure_page(machine, figures, &visit, face, &page).await;
            largest = largest.max((bytes, format!("{face}: {}", page.name)));
        }
    }
    let kilobytes = largest.0 as f64 / 1000.0;
    figures.add("largest page", "kB", kilobytes, None, Goal::at_most(LARGEST, kilobytes));
    figures.note(format!("{}; {count} deliveries of 30 days", largest.1));
}

/// Returns the application's webhooks. Each of a dead, a paused and a late webhook has open deliveries.
fn webhooks(machine: &Machine) -> Vec<Subscriber> {
    let subscriber = |group, first: usize| Subscriber {
        group,
        behaviour: "ok",
        types: (first..first + 2).map(|number| format!("bench.{number}")).collect(),
        rate: None,
    };
    let all = (0..machine.count(WEBHOOKS)).map(|number| subscriber("all", 2 * number));
    all.chain(["dead", "paused", "late"].map(|group| subscriber(group, 0))).collect()
}

/// Adds the figure of a page. Returns the page's size in bytes.
async fn measure_page(machine: &Machine, figures: &mut Figures, visit: &Visit, face: &str, page: &Page) -> usize {
    let known = match page.kind {
        Kind::LiveList | Kind::LivePage => Some(visit.content(&page.address).await),
        _ => None,
    };
    for _ in 0..machine.count(WARM_UP) {
        visit.get(&page.address, known.as_deref()).await;
    }
    let (mut times, mut answer, mut unchanged) = (Vec::new(), None, 0);
    for _ in 0..machine.count(REQUESTS) {
        let (took, answered) = visit.get(&page.address, known.as_deref()).await;
        times.push(u32::try_from(took.as_micros()).unwrap_or(u32::MAX));
        unchanged += usize::from(answered.status == 204);
        assert!(matches!(answered.status, 200 | 204 | 303), "{}: {} {}", page.address, answered.status, answered.text);
        answer = Some(answered);
    }
    let bytes = answer.map_or(0, |answer: Answer| answer.text.len());
    let requests = times.len();
    let [p50, p95] = percentiles(times, [50.0, 95.0]).map(|time| f64::from(time) / 1000.0);
    figures.add(&format!("{face}: {}, p95", page.name), "ms", p95, None, Goal::at_most(page.kind.budget(), p95));
    let content = match page.kind {
        Kind::LiveList | Kind::LivePage => format!("{unchanged} of {requests} without new content"),
        _ => format!("{:.1} kB of HTML", bytes as f64 / 1000.0),
    };
    figures.note(format!("p50 {p50:.1} ms, {content}"));
    bytes
}
