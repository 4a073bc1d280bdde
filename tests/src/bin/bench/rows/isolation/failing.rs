//! The latency of healthy endpoints while others are slow, dead, loud, malformed, or back again.

use std::time::Duration;

use fanfare_tests::{
    clients::raw_amqp::{BytePublisher, Message},
    world::dialects::Waits,
};
use serde_json::json;
use tokio::time::{Instant, interval, sleep};

use crate::{
    figures::{Figures, Goal},
    rows::latency::{HEALTHY, Latency, QUIETLY, SECONDS, enter, flow, subscriber, subscribers, types},
    scene::{Changes, Scene, Subject, Subscriber, Way, machine::Machine},
};

/// The healthy endpoints' latency while events flow to all of these, from cold.
async fn beside(machine: &Machine, subscribers: &[Subscriber], count: usize, rate: f64) -> Latency {
    let mut scene = Scene::set(machine, subscribers, Subject::Fanfare(1)).await;
    flow(&mut scene, &types(count), rate, machine.seconds(SECONDS)).await
}

/// One of ten endpoints fails in a way of its own; the other nine, with and without.
pub(crate) async fn one_of_ten(machine: &Machine, figures: &mut Figures) {
    let of_ten = |behaviour: &'static str| -> Vec<_> {
        let odd = subscriber("odd", behaviour, 0);
        std::iter::once(odd).chain((1..10).map(|number| subscriber(HEALTHY, "ok", number))).collect()
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
    let count = machine.count(500);
    let pairs = |behaviour: &'static str| -> Vec<_> {
        (0..count)
            .flat_map(|number| [subscriber(HEALTHY, "ok", number), subscriber("odd", behaviour, number)])
            .collect()
    };
    let without = beside(machine, &pairs("ok"), count, 100.0).await;
    let with = beside(machine, &pairs("hang"), count, 100.0).await;
    enter(figures, "half of 1,000 hang, 100/s: p99 of the others", with, without, 2.0);
}

/// A publisher whose message ids are Latin-1, a message a second.
pub(crate) async fn malformed(machine: &Machine, figures: &mut Figures) {
    let mut scene = Scene::set(machine, &subscribers(HEALTHY, "ok", 10), Subject::Fanfare(1)).await;
    let seconds = machine.seconds(SECONDS);
    let without = flow(&mut scene, &types(10), QUIETLY, seconds).await;
    let variables = &scene.world.variables;
    let message = Message {
        exchange: format!("{}.events", variables["FANFARE_PREFIX"]),
        routing_key: format!("{}.bench.0", scene.world.application).into_bytes(),
        message_id: Some(b"caf\xe9".to_vec()),
        body: br#"{"data":{}}"#.to_vec(),
        ..Message::default()
    };
    let mut publisher = BytePublisher::connect(&variables["AMQP_URL"]).await.expect("the broker");
    let count = seconds as usize;
    let publishing = tokio::spawn(async move {
        let mut ticks = interval(Duration::from_secs(1));
        for _ in 0..count {
            ticks.tick().await;
            publisher.publish(&message).await.expect("published");
        }
    });
    let with = flow(&mut scene, &types(10), QUIETLY, seconds).await;
    publishing.await.expect("the messages are published");
    enter(figures, "a malformed message a second, 20/s: p99 of the others", with, without, 2.0);
    // The time in which messages must be parked, with the second that `flow` waits.
    sleep(machine.wait(4)).await;
    let parked = scene.world.count("SELECT count(*) FROM parked WHERE reason = 'not_utf8'").await;
    let goal = Goal::at_least_of(1.0, count as f64, 0.0, parked as f64);
    figures.add("malformed messages that are parked 5 s later", "", parked as f64, Some(count as f64), goal);
}

/// A replay of many events in the background.
pub(crate) async fn replay(machine: &Machine, figures: &mut Figures) {
    let mut scene = Scene::set(machine, &subscribers(HEALTHY, "ok", 10), Subject::Fanfare(1)).await;
    let seconds = machine.seconds(SECONDS);
    let without = flow(&mut scene, &types(10), QUIETLY, seconds).await;
    let late = subscriber("replayed", "ok", 10);
    scene.world.describe(&late.types[0]).await;
    scene.publish(Way::Amqp, &late.types, machine.count(100_000), None).await;
    scene.all_taken().await;
    let url = format!("http://{}/replayed/ok", scene.address);
    scene.world.client().post("webhooks", &json!({ "url": url, "events": late.types })).await.data();
    let replay = json!({ "since": "2020-01-01T00:00:00Z", "types": late.types, "rate_per_second": 1000 });
    let started = Instant::now();
    let replay = scene.world.client().post("replays", &replay).await.data()["id"].clone();
    let with = flow(&mut scene, &types(10), QUIETLY, seconds).await;
    enter(figures, "a replay of 100,000 events goes on, 20/s: p99 of the others", with, without, 2.0);
    let path = format!("replays/{}", replay.as_str().expect("an id"));
    let done = scene.world.client().get(&path).await.data()["deliveries"].clone();
    let seconds = started.elapsed().as_secs_f64();
    figures.note(format!("{done} deliveries of the replay within {seconds:.0} s, at a rate of 1,000/s"));
}

/// Very many endpoints come back at the same moment, with much due to each.
pub(crate) async fn recovery(machine: &Machine, figures: &mut Figures) {
    // Each fails so often that its breaker opens.
    const EVENTS: usize = 30;
    let pairs = machine.count(500);
    let healthy = (pairs..pairs + 10).map(|number| subscriber(HEALTHY, "ok", number));
    let down = (0..2 * pairs).map(|number| subscriber("down", "gate", number / 2));
    let subscribers: Vec<_> = healthy.chain(down).collect();
    let waits = Waits::of(&["5s"; 20].join(","));
    let mut scene =
        Scene::with(machine, &subscribers, Subject::Fanfare(1), Changes { waits, ..Changes::default() }).await;
    let of_healthy: Vec<String> = subscribers[..10].iter().flat_map(|subscriber| subscriber.types.clone()).collect();
    let seconds = machine.seconds(SECONDS);
    let without = flow(&mut scene, &of_healthy, QUIETLY, seconds).await;
    scene.publish(Way::Amqp, &types(pairs), pairs * EVENTS, None).await;
    scene.all_taken().await;
    scene.open_gate().await;
    let opened = Instant::now();
    let with = flow(&mut scene, &of_healthy, QUIETLY, seconds).await;
    enter(figures, "1,000 endpoints come back at once, 20/s: p99 of the others", with, without, 5.0);
    scene.all_delivered().await;
    figures.note(format!("all that was due to them was delivered within {:.0} s", opened.elapsed().as_secs_f64()));
}
