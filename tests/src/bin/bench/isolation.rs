//! How long an event takes to its receiver while others are slow, dead, loud, or back again.

use std::time::Duration;

use fanfare_tests::dialects::Waits;
use serde_json::json;
use tokio::time::{Instant, sleep};

use crate::{
    figures::{Figures, Goal},
    latency::{Latency, SECONDS, subscriber, types},
    machine::Machine,
    scene::{Scene, Subject, Subscriber, Way},
};

/// The healthy endpoints' latency while events flow at a rate to these, from cold.
async fn beside(machine: &Machine, subscribers: &[Subscriber], count: usize, rate: f64) -> Latency {
    let mut scene = Scene::set(machine, subscribers, Subject::Fanfare(1)).await;
    flow(&mut scene, &types(count), rate).await
}

/// The healthy endpoints' latency while events flow.
async fn flow(scene: &mut Scene, types: &[String], rate: f64) -> Latency {
    scene.received().await;
    scene.publish(Way::Amqp, types, (SECONDS * rate) as usize, Some(rate)).await;
    // The last ones are on their way.
    sleep(Duration::from_secs(1)).await;
    Latency::of(&scene.received().await, "healthy")
}

fn enter(figures: &mut Figures, name: &str, with: Latency, without: Latency, factor: f64) {
    let goal = Goal::at_most(without.p99 * factor + 3.0, with.p99);
    figures.add(name, "ms", with.p99, Some(without.p99), goal);
    figures.note(format!("p50 {:.1} ms, without it {:.1} ms", with.p50, without.p50));
}

/// One of ten endpoints does something; the other nine, with and without.
pub(crate) async fn one_of_ten(machine: &Machine, figures: &mut Figures) {
    let of_ten = |behaviour: &'static str| -> Vec<_> {
        let odd = subscriber("odd", behaviour, 0);
        std::iter::once(odd).chain((1..10).map(|number| subscriber("healthy", "ok", number))).collect()
    };
    let without = beside(machine, &of_ten("ok"), 10, 80.0).await;
    for (behaviour, name) in [
        ("hang", "one of ten hangs, 80/s: p99 of the others"),
        ("wait-3000", "one of ten takes 3 s, 80/s: p99 of the others"),
        ("refuse", "one of ten refuses connections, 80/s: p99 of the others"),
        ("drip", "one of ten drips a byte a second, 80/s: p99 of the others"),
    ] {
        let with = beside(machine, &of_ten(behaviour), 10, 80.0).await;
        enter(figures, name, with, without, 1.5);
    }
}

/// Half of a thousand endpoints hang, from cold.
pub(crate) async fn half_of_many(machine: &Machine, figures: &mut Figures) {
    const PAIRS: usize = 500;
    let pairs = |behaviour: &'static str| -> Vec<_> {
        (0..PAIRS)
            .flat_map(|number| [subscriber("healthy", "ok", number), subscriber("odd", behaviour, number)])
            .collect()
    };
    let without = beside(machine, &pairs("ok"), PAIRS, 100.0).await;
    let with = beside(machine, &pairs("hang"), PAIRS, 100.0).await;
    enter(figures, "half of 1,000 hang, 100/s: p99 of the others", with, without, 2.0);
}

/// What others do while ten healthy endpoints get 20 events in a second.
const QUIETLY: f64 = 20.0;

fn ten_healthy() -> Vec<Subscriber> {
    (0..10).map(|number| subscriber("healthy", "ok", number)).collect()
}

/// Another application publishes a hundred times as much.
pub(crate) async fn flood(machine: &Machine, figures: &mut Figures) {
    let mut scene = Scene::set(machine, &ten_healthy(), Subject::Fanfare(1)).await;
    let loud: Vec<_> = (0..10).map(|number| subscriber("loud", "ok", number)).collect();
    let loud = scene.other(&loud).await;
    let without = flow(&mut scene, &types(10), QUIETLY).await;
    let publishing = scene.publish_beside(&loud, QUIETLY * 100.0, SECONDS + 2.0).await;
    let with = flow(&mut scene, &types(10), QUIETLY).await;
    let took = publishing.await.expect("it publishes");
    enter(figures, "another application publishes 2,000/s: p99 of one with 20/s", with, without, 2.0);
    figures.note(format!("it published {:.0}/s", QUIETLY * 100.0 * (SECONDS + 2.0) / took.as_secs_f64()));
}

/// A replay of many events in the background.
pub(crate) async fn replay(machine: &Machine, figures: &mut Figures) {
    const EVENTS: usize = 100_000;
    let mut scene = Scene::set(machine, &ten_healthy(), Subject::Fanfare(1)).await;
    let without = flow(&mut scene, &types(10), QUIETLY).await;
    let late = subscriber("replayed", "ok", 10);
    scene.world.describe(&late.types[0]).await;
    scene.publish(Way::Amqp, &late.types, EVENTS, None).await;
    scene.all_taken().await;
    let url = format!("http://{}/replayed/ok", scene.address);
    scene.world.client().post("webhooks", &json!({ "url": url, "events": late.types })).await.data();
    let replay = json!({ "since": "2020-01-01T00:00:00Z", "types": late.types, "rate_per_second": 1000 });
    let started = Instant::now();
    let replay = scene.world.client().post("replays", &replay).await.data()["id"].clone();
    let with = flow(&mut scene, &types(10), QUIETLY).await;
    enter(figures, "a replay of 100,000 events goes on, 20/s: p99 of the others", with, without, 2.0);
    let path = format!("replays/{}", replay.as_str().expect("an id"));
    let done = scene.world.client().get(&path).await.data()["deliveries"].clone();
    let seconds = started.elapsed().as_secs_f64();
    figures.note(format!("{done} deliveries of the replay within {seconds:.0} s, at a rate of 1,000/s"));
}

/// Very many endpoints come back at the same moment, with much due to each.
pub(crate) async fn recovery(machine: &Machine, figures: &mut Figures) {
    const PAIRS: usize = 500;
    // Each fails so often that its breaker opens.
    const EVENTS: usize = 30;
    let healthy = (PAIRS..PAIRS + 10).map(|number| subscriber("healthy", "ok", number));
    let down = (0..2 * PAIRS).map(|number| subscriber("down", "gate", number / 2));
    let subscribers: Vec<_> = healthy.chain(down).collect();
    let waits = Waits::of(&["5s"; 20].join(","));
    let mut scene = Scene::of(machine, &subscribers, Subject::Fanfare(1), waits).await;
    let of_healthy: Vec<String> = subscribers[..10].iter().flat_map(|one| one.types.clone()).collect();
    let without = flow(&mut scene, &of_healthy, QUIETLY).await;
    scene.publish(Way::Amqp, &types(PAIRS), PAIRS * EVENTS, None).await;
    scene.all_taken().await;
    scene.open_gate().await;
    let opened = Instant::now();
    let with = flow(&mut scene, &of_healthy, QUIETLY).await;
    enter(figures, "1,000 endpoints come back at once, 20/s: p99 of the others", with, without, 5.0);
    scene.all_delivered().await;
    figures.note(format!("all that was due to them was delivered within {:.0} s", opened.elapsed().as_secs_f64()));
}
