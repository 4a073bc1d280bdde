//! Latency of healthy endpoints beside a publisher that harms, and beside many changes of a configuration.

use std::time::Duration;

use fanfare_tests::clients::raw_amqp::{BytePublisher, Message, header};
use futures_util::future::join_all;
use tokio::{
    task::JoinHandle,
    time::{Instant, interval, sleep},
};

use crate::{
    figures::{Figures, Goal},
    rows::latency::{HEALTHY, QUIET_RATE, SECONDS, add_latency, healthy_latency, subscribers, types},
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
    let message =
        Message { message_id: Some(b"caf\xe9".to_vec()), body: br#"{"data":{}}"#.to_vec(), ..Message::default() };
    let name = "a malformed message a second, 20/s: p99 of the others";
    beside(machine, figures, name, &message, 1, "not_utf8").await;
}

/// Measures the latency beside Latin-1 message ids, at 1,000 messages per second.
pub(crate) async fn many_malformed(machine: &Machine, figures: &mut Figures) {
    let message =
        Message { message_id: Some(b"caf\xe9".to_vec()), body: br#"{"data":{}}"#.to_vec(), ..Message::default() };
    let name = "1,000 malformed messages a second, 20/s: p99 of the others";
    beside(machine, figures, name, &message, 1000, "not_utf8").await;
}

/// Measures the latency beside messages that claim to be put back: such a message is handled alone.
pub(crate) async fn forged(machine: &Machine, figures: &mut Figures) {
    let headers = [header(b"fanfare-put-back", "true"), header(b"fanfare-accepted", "9999999999")].concat();
    let message =
        Message { headers, message_id: Some(b"forged".to_vec()), body: b"no JSON".to_vec(), ..Message::default() };
    beside(machine, figures, "500 forged headers a second, 20/s: p99 of the others", &message, 500, "malformed_json")
        .await;
}

/// Measures the latency beside bodies that are too long for an event.
pub(crate) async fn large(machine: &Machine, figures: &mut Figures) {
    let message =
        Message { message_id: Some(b"large".to_vec()), body: vec![b'a'; machine.count(LARGE)], ..Message::default() };
    beside(machine, figures, "20 bodies of 16 MiB a second, 20/s: p99 of the others", &message, 20, "body_too_large")
        .await;
}

/// Adds the latency beside a publisher of `message`, and the number of messages parked as `reason`.
async fn beside(
    machine: &Machine,
    figures: &mut Figures,
    name: &str,
    message: &Message,
    per_second: u32,
    reason: &str,
) {
    let mut scene = Scene::set(machine, &subscribers(HEALTHY, "ok", ENDPOINTS), Subject::Fanfare(1)).await;
    let seconds = machine.seconds(SECONDS);
    let without = healthy_latency(&mut scene, &types(ENDPOINTS), QUIET_RATE, seconds).await;
    let message = Message {
        exchange: format!("{}.events", scene.world.variables["FANFARE_PREFIX"]),
        routing_key: format!("{}.bench.none", scene.world.application).into_bytes(),
        ..message.clone()
    };
    let count = (f64::from(per_second) * seconds) as u32;
    let publishing = publish(&scene.world.variables["AMQP_URL"], &message, per_second, count).await;
    let began = Instant::now();
    let with = healthy_latency(&mut scene, &types(ENDPOINTS), QUIET_RATE, seconds).await;
    for published in join_all(publishing).await {
        published.expect("the messages are published");
    }
    figures.note(format!("{:.0} messages/s", f64::from(count) / began.elapsed().as_secs_f64()));
    add_latency(figures, name, with, without, 2.0);
    figures.note(format!("memory of the dispatcher: {:.0} MiB", scene.memory()));
    // Time limit to park messages: these 4 s and the second in `receipts`.
    sleep(machine.wait(4)).await;
    let parked = scene.world.count(&format!("SELECT count(*) FROM parked WHERE reason = '{reason}'")).await;
    let goal = Goal::at_least_of(1.0, f64::from(count), 0.0, parked as f64);
    figures.add("such messages parked within 5 s", "", parked as f64, Some(f64::from(count)), goal);
}

/// Starts to publish `count` messages.
async fn publish(url: &str, message: &Message, per_second: u32, count: u32) -> Vec<JoinHandle<()>> {
    let connections = CONNECTIONS.min(per_second);
    let mut publishing = Vec::new();
    for _ in 0..connections {
        let mut publisher = BytePublisher::connect(url).await.expect("the broker");
        let message = message.clone();
        publishing.push(tokio::spawn(async move {
            let mut ticks = interval(Duration::from_secs(1) * connections / per_second);
            for _ in 0..count / connections {
                ticks.tick().await;
                publisher.publish(&message).await.expect("published");
            }
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
    let changing = tokio::spawn(async move {
        let mut ticks = interval(CHANGE);
        let change = "UPDATE endpoints SET name = clock_timestamp()::text
                      WHERE id = (SELECT e.id FROM endpoints e JOIN applications a ON a.id = e.application_id
                                  WHERE e.url LIKE '%/changing/%' ORDER BY e.version LIMIT 1)";
        for _ in 0..(seconds * 10.0) as u32 {
            ticks.tick().await;
            assert_eq!(database.execute(change, &[]).await.expect("a change"), 1);
        }
    });
    let with = healthy_latency(&mut scene, &types(ENDPOINTS), QUIET_RATE, seconds).await;
    changing.await.expect("changes");
    add_latency(figures, "100,000 endpoints change at 10/s, 20/s: p99 of the others", with, without, 2.0);
}
