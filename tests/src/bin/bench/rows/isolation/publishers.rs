//! Latency of healthy endpoints beside a publisher that harms, and beside many changes of a configuration.

use std::time::Duration;

use fanfare_tests::clients::raw_amqp::{BytePublisher, Message, header};
use futures_util::future::join_all;
use tokio::{
    task::JoinHandle,
    time::{Instant, interval, sleep},
};
use uuid::Uuid;

use crate::{
    figures::{Figures, Goal},
    rows::latency::{HEALTHY, Latency, QUIET_RATE, SECONDS, add_latency, healthy_latency, subscribers, types},
    scene::{Scene, Subject, fill, machine::Machine},
};

/// Number of healthy endpoints.
const ENDPOINTS: usize = 10;

/// Endpoints of the application whose configuration changes, and the interval of its changes.
const CHANGING: usize = 100_000;
const CHANGE: Duration = Duration::from_millis(100);

/// Connections of the harmful publisher: a connection waits for each confirm.
const CONNECTIONS: u32 = 4;

/// Bytes of a large body: RabbitMQ's default limit.
const LARGE: usize = 16 * 1024 * 1024;

/// Measures the latency beside Latin-1 message ids, at a message per second.
pub(crate) async fn malformed(machine: &Machine, figures: &mut Figures) {
    let name = "a malformed message a second, 20/s: p99 of the others";
    let (scene, count) = beside(machine, figures, name, message(b"caf\xe9"), 1).await;
    add_parked(machine, figures, &scene, "not_utf8", count).await;
}

/// Measures the latency beside Latin-1 message ids, at 1,000 messages per second.
pub(crate) async fn many_malformed(machine: &Machine, figures: &mut Figures) {
    let name = "1,000 malformed messages a second, 20/s: p99 of the others";
    let (scene, count) = beside(machine, figures, name, message(b"caf\xe9"), 1000).await;
    add_parked(machine, figures, &scene, "not_utf8", count).await;
}

/// Measures the latency beside messages of an event that claim to be put back: such a message is handled alone.
pub(crate) async fn forged(machine: &Machine, figures: &mut Figures) {
    let headers = [header(b"fanfare-put-back", "true"), header(b"fanfare-accepted", "9999999999")].concat();
    let message = Message { headers, ..message(b"forged") };
    let name = "500 forged headers a second, 20/s: p99 of the others";
    let (scene, _) = beside(machine, figures, name, message, 500).await;
    assert_eq!(scene.world.count("SELECT count(*) FROM events WHERE key = 'forged'").await, 1);
}

/// Measures the latency beside bodies that are too long for an event. Publisher and broker need most of the machine for
/// 320 MiB a second: the ceiling, which drops such messages, shows their part.
pub(crate) async fn large(machine: &Machine, figures: &mut Figures) {
    let message = Message { body: vec![b'a'; machine.count(LARGE)], ..message(b"large") };
    let Beside { with: ceiling, .. } = latencies(machine, Subject::Ceiling, message.clone(), 20).await;
    let Beside { with, without, scene, count, took } = latencies(machine, Subject::Fanfare(1), message, 20).await;
    let goal = Goal::at_most(f64::max(without.p99 * 2.0, ceiling.p99 * 1.5) + 3.0, with.p99);
    figures.add("20 bodies of 16 MiB a second, 20/s: p99 of the others", "ms", with.p99, Some(ceiling.p99), goal);
    let p50 = (with.p50, ceiling.p50, without.p50);
    figures.note(format!("p50 {:.1} ms, ceiling {:.1} ms, without the load {:.1} ms", p50.0, p50.1, p50.2));
    figures.note(format!("without the load {:.1} ms; {took}", without.p99));
    figures.note(format!("memory of the dispatcher: {:.0} MiB", scene.memory()));
    // A smoke run's bodies are shorter than an event may be, and have no JSON.
    let reason = if machine.count(LARGE) == LARGE { "body_too_large" } else { "malformed_json" };
    add_parked(machine, figures, &scene, reason, count).await;
}

/// A message with a small body.
fn message(id: &[u8]) -> Message {
    Message { message_id: Some(id.to_vec()), body: br#"{"data":{}}"#.to_vec(), ..Message::default() }
}

/// Latencies beside a harmful publisher.
struct Beside {
    with: Latency,
    without: Latency,
    scene: Scene,
    /// Number of published messages.
    count: u32,
    /// Time that the publisher took.
    took: String,
}

/// Adds the latency beside a publisher of `message`. Returns the scene, and the number of published messages.
async fn beside(
    machine: &Machine,
    figures: &mut Figures,
    name: &str,
    message: Message,
    per_second: u32,
) -> (Scene, u32) {
    let beside = latencies(machine, Subject::Fanfare(1), message, per_second).await;
    add_latency(figures, name, beside.with, beside.without, 2.0);
    figures.note(beside.took);
    figures.note(format!("memory of the dispatcher: {:.0} MiB", beside.scene.memory()));
    (beside.scene, beside.count)
}

/// Measures the latency without and beside a publisher of `message`, of a type without an endpoint.
async fn latencies(machine: &Machine, subject: Subject, message: Message, per_second: u32) -> Beside {
    let mut scene = Scene::set(machine, &subscribers(HEALTHY, "ok", ENDPOINTS), subject).await;
    let seconds = machine.seconds(SECONDS);
    let without = healthy_latency(&mut scene, &types(ENDPOINTS), QUIET_RATE, seconds).await;
    let message = Message {
        exchange: format!("{}.events", scene.world.variables["FANFARE_PREFIX"]),
        routing_key: format!("{}.bench.none", scene.world.application).into_bytes(),
        ..message
    };
    let count = (f64::from(per_second) * seconds) as u32;
    let publishing = publish(&scene.world.variables["AMQP_URL"], &message, per_second, count).await;
    let with = healthy_latency(&mut scene, &types(ENDPOINTS), QUIET_RATE, seconds).await;
    let took = join_all(publishing).await.into_iter().map(|took| took.expect("the messages are published"));
    let longest = took.max().unwrap_or_default().as_secs_f64();
    let took = format!("published within {longest:.1} s instead of {seconds:.1} s");
    Beside { with, without, scene, count, took }
}

/// Adds the number of messages parked as `reason`.
async fn add_parked(machine: &Machine, figures: &mut Figures, scene: &Scene, reason: &str, count: u32) {
    // Time limit to park messages: these 4 s and the second in `receipts`.
    sleep(machine.wait(4)).await;
    let parked = scene.world.count(&format!("SELECT count(*) FROM parked WHERE reason = '{reason}'")).await;
    let goal = Goal::at_least_of(1.0, f64::from(count), 0.0, parked as f64);
    figures.add("such messages parked within 5 s", "", parked as f64, Some(f64::from(count)), goal);
}

/// Starts to publish `count` messages. Each task returns the time that it took.
async fn publish(url: &str, message: &Message, per_second: u32, count: u32) -> Vec<JoinHandle<Duration>> {
    let connections = CONNECTIONS.min(per_second);
    let mut publishing = Vec::new();
    for _ in 0..connections {
        let mut publisher = BytePublisher::connect(url).await.expect("the broker");
        let message = message.clone();
        publishing.push(tokio::spawn(async move {
            let began = Instant::now();
            let mut ticks = interval(Duration::from_secs(1) * connections / per_second);
            for _ in 0..count / connections {
                ticks.tick().await;
                publisher.publish(&message).await.expect("published");
            }
            began.elapsed()
        }));
    }
    publishing
}

/// Measures the latency while the endpoints of a large application change.
pub(crate) async fn changes(machine: &Machine, figures: &mut Figures) {
    let mut scene = Scene::set(machine, &subscribers(HEALTHY, "ok", ENDPOINTS), Subject::Fanfare(1)).await;
    let seconds = machine.seconds(SECONDS);
    fill::endpoints(&scene, 1, machine.count(CHANGING), "changing").await;
    // Both services have loaded the application.
    sleep(machine.wait(10)).await;
    let without = healthy_latency(&mut scene, &types(ENDPOINTS), QUIET_RATE, seconds).await;
    let database = scene.world.database().await;
    let some = format!("SELECT id FROM endpoints WHERE url LIKE '%/changing/%' LIMIT {}", (seconds * 10.0) as u32);
    let changing = database.query(&some, &[]).await.expect("the endpoints");
    let changing = tokio::spawn(async move {
        let mut ticks = interval(CHANGE);
        for endpoint in changing {
            ticks.tick().await;
            let change = "UPDATE endpoints SET name = clock_timestamp()::text WHERE id = $1";
            assert_eq!(database.execute(change, &[&endpoint.get::<_, Uuid>(0)]).await.expect("a change"), 1);
        }
    });
    let with = healthy_latency(&mut scene, &types(ENDPOINTS), QUIET_RATE, seconds).await;
    changing.await.expect("changes");
    add_latency(figures, "100,000 endpoints change at 10/s, 20/s: p99 of the others", with, without, 2.0);
}
