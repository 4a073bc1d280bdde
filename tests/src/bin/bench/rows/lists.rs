//! Pages of the API's lists.

use std::time::Instant;

use serde_json::Value;

use crate::{
    figures::{Figures, Goal},
    rows::latency::subscriber,
    scene::{
        Scene, Subject,
        fill::{self, Filler},
        machine::Machine,
    },
};

/// Pages per list, and reads per page. The first read warms the caches.
const PAGES: usize = 5;
const TIMES: usize = 5;

/// Open deliveries beside the finished deliveries.
const OPEN: usize = 20_000;

/// Measures the slowest page of each list, with warm caches.
pub(crate) async fn measure(machine: &Machine, figures: &mut Figures) {
    let scene = Scene::set(machine, &[subscriber("all", "ok", 0)], Subject::Fanfare(0)).await;
    let rows = machine.count_or(200_000, 10_000_000);
    fill::finished(&scene, 0, rows).await;
    Filler::new(&scene, "all").await.queued(machine.count(OPEN)).await;
    fill::settle(machine, &scene).await;
    let client = scene.world.client();
    let endpoint = client.get("webhooks").await.data()[0]["id"].as_str().expect("an id").to_owned();
    let event = client.get("events?limit=1").await.data()[0]["id"].as_str().expect("an id").to_owned();
    for list in [
        "deliveries?".to_owned(),
        "deliveries?state=failed&".to_owned(),
        "deliveries?state=delivered&".to_owned(),
        "deliveries?state=queued&".to_owned(),
        format!("deliveries?webhook={endpoint}&"),
        format!("deliveries?event={event}&"),
        "events?".to_owned(),
        "events?type=bench.0&".to_owned(),
        format!("webhooks/{endpoint}/deliveries?"),
        format!("webhooks/{endpoint}/attempts?"),
    ] {
        let slowest = slowest_page(&scene, &list).await;
        let list = list.replace(&endpoint, "…").replace(&event, "…");
        let name = format!("slowest page of {}", list.trim_end_matches(['?', '&']));
        figures.add(&name, "ms", slowest, None, Goal::at_most(50.0, slowest));
    }
    figures.note(format!("{rows} finished deliveries of an application"));
}

/// Returns the time of the slowest page in milliseconds. The fastest read of a page counts.
async fn slowest_page(scene: &Scene, list: &str) -> f64 {
    let (mut slowest, mut cursor) = (0.0_f64, String::new());
    for _ in 0..PAGES {
        let path = format!("{list}limit=100{cursor}");
        let (mut fastest, mut page) = (f64::MAX, Value::Null);
        for _ in 0..TIMES {
            let began = Instant::now();
            page = scene.world.client().get(&path).await.body;
            fastest = fastest.min(began.elapsed().as_secs_f64() * 1000.0);
        }
        assert_eq!(page["success"], true, "{path}: {page}");
        slowest = slowest.max(fastest);
        let Some(next) = page["next"].as_str() else { break };
        cursor = format!("&before={next}");
    }
    slowest
}
