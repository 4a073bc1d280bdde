//! Latency of healthy endpoints beside failing endpoints, a replay and a recovery.

use fanfare_tests::world::dialects::Waits;
use serde_json::json;
use tokio::time::Instant;

use crate::{
    figures::Figures,
    rows::latency::{
        HEALTHY, Latency, QUIET_RATE, SECONDS, add_latency, healthy_latency, subscriber, subscribers, types,
    },
    scene::{Changes, Scene, Subject, Subscriber, Via, machine::Machine},
};

/// Publishes events to all subscribers from a cold start. Returns the latency of the healthy endpoints.
async fn latency_from_cold(machine: &Machine, subscribers: &[Subscriber], count: usize, rate: f64) -> Latency {
    let mut scene = Scene::set(machine, subscribers, Subject::Fanfare(1)).await;
    healthy_latency(&mut scene, &types(count), rate, machine.seconds(SECONDS)).await
}

/// Measures the latency of nine endpoints while the tenth hangs, is slow, refuses or drips.
pub(crate) async fn one_of_ten(machine: &Machine, figures: &mut Figures) {
    let ten_endpoints = |behaviour: &'static str| -> Vec<_> {
        let failing = subscriber("odd", behaviour, 0);
        std::iter::once(failing).chain((1..10).map(|number| subscriber(HEALTHY, "ok", number))).collect()
    };
    let without = latency_from_cold(machine, &ten_endpoints("ok"), 10, 80.0).await;
    for (behaviour, name) in [
        ("hang", "one of ten hangs, 80/s: p99 of the others"),
        ("wait-3000", "one of ten takes 3 s, 80/s: p99 of the others"),
        ("refuse", "one of ten refuses connections, 80/s: p99 of the others"),
        ("drip", "one of ten drips a byte a second, 80/s: p99 of the others"),
    ] {
        let with = latency_from_cold(machine, &ten_endpoints(behaviour), 10, 80.0).await;
        add_latency(figures, name, with, without, 1.5);
    }
}

/// Measures the latency of half of 1,000 endpoints while the other half hangs, from a cold start.
pub(crate) async fn half_of_many(machine: &Machine, figures: &mut Figures) {
    let count = machine.count(500);
    let pairs = |behaviour: &'static str| -> Vec<_> {
        (0..count)
            .flat_map(|number| [subscriber(HEALTHY, "ok", number), subscriber("odd", behaviour, number)])
            .collect()
    };
    let without = latency_from_cold(machine, &pairs("ok"), count, 100.0).await;
    let with = latency_from_cold(machine, &pairs("hang"), count, 100.0).await;
    add_latency(figures, "half of 1,000 endpoints hang, 100/s: p99 of the others", with, without, 2.0);
}

/// Measures the latency during a replay of many events.
pub(crate) async fn replay(machine: &Machine, figures: &mut Figures) {
    let mut scene = Scene::set(machine, &subscribers(HEALTHY, "ok", 10), Subject::Fanfare(1)).await;
    let seconds = machine.seconds(SECONDS);
    let without = healthy_latency(&mut scene, &types(10), QUIET_RATE, seconds).await;
    let replayed = subscriber("replayed", "ok", 10);
    scene.world.describe(&replayed.types[0]).await;
    scene.publish(Via::Amqp, &replayed.types, machine.count(100_000), None).await;
    scene.wait_until_consumed().await;
    let url = format!("http://{}/replayed/ok", scene.address);
    scene.world.client().post("webhooks", &json!({ "url": url, "events": replayed.types })).await.data();
    let replay = json!({ "since": "2020-01-01T00:00:00Z", "types": replayed.types, "rate_per_second": 1000 });
    let started = Instant::now();
    let replay = scene.world.client().post("replays", &replay).await.data()["id"].clone();
    let with = healthy_latency(&mut scene, &types(10), QUIET_RATE, seconds).await;
    add_latency(figures, "a replay of 100,000 events runs, 20/s: p99 of the others", with, without, 2.0);
    let path = format!("replays/{}", replay.as_str().expect("an id"));
    let done = scene.world.client().get(&path).await.data()["deliveries"].clone();
    let seconds = started.elapsed().as_secs_f64();
    figures.note(format!("{done} deliveries of the replay within {seconds:.0} s, at a rate of 1,000/s"));
}

/// Measures the latency while very many endpoints come back at once, each with many due deliveries.
pub(crate) async fn recovery(machine: &Machine, figures: &mut Figures) {
    // Enough events to open the breaker of each endpoint.
    const EVENTS: usize = 30;
    let pairs = machine.count(500);
    let healthy = (pairs..pairs + 10).map(|number| subscriber(HEALTHY, "ok", number));
    let down = (0..2 * pairs).map(|number| subscriber("down", "gate", number / 2));
    let subscribers: Vec<_> = healthy.chain(down).collect();
    let waits = Waits::of(&["5s"; 20].join(","));
    let mut scene =
        Scene::with(machine, &subscribers, Subject::Fanfare(1), Changes { waits, ..Changes::default() }).await;
    let healthy_types: Vec<String> = subscribers[..10].iter().flat_map(|subscriber| subscriber.types.clone()).collect();
    let seconds = machine.seconds(SECONDS);
    let without = healthy_latency(&mut scene, &healthy_types, QUIET_RATE, seconds).await;
    scene.publish(Via::Amqp, &types(pairs), pairs * EVENTS, None).await;
    scene.wait_until_consumed().await;
    scene.open_gate().await;
    let opened = Instant::now();
    let with = healthy_latency(&mut scene, &healthy_types, QUIET_RATE, seconds).await;
    add_latency(figures, "1,000 endpoints come back at once, 20/s: p99 of the others", with, without, 5.0);
    scene.wait_until_ended().await;
    figures.note(format!("all due deliveries ended within {:.0} s", opened.elapsed().as_secs_f64()));
}
