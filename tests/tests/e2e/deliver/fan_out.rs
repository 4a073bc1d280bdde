//! An event with ten thousand endpoints, beside other events.

use std::{collections::HashMap, time::Duration};

use fanfare_tests::{
    clients::load::{Answered, Load},
    ledger::key_of,
    patience::until,
    world::{Setup, World},
};
use jiff::Timestamp;
use serde_json::json;
use tokio::time::Instant;

const ENDPOINTS: usize = 10_000;

/// Time between two events of a publisher of the other events.
const PACE: Duration = Duration::from_millis(100);

/// Attempts in flight at once: the requests that may be repeated after a kill. An application may use half of the
/// places.
const PERMITS: usize = 128;

/// Copies of an endpoint, each at a separate path. The copies have no secret, and their requests have no signature.
const COPIES: &str = "
INSERT INTO endpoints (id, application_id, url, event_types)
SELECT gen_random_uuid(), application_id, url || '/' || number, event_types
FROM endpoints, generate_series(1, $1::int) number WHERE url LIKE '%/wide'";

const DELIVERED: &str = "SELECT count(*) FROM all_deliveries d JOIN events e ON e.id = d.event_id WHERE e.type = 'wide' AND state = 'delivered'";

async fn world() -> World {
    let variables = [("FANFARE_PLACES", "256"), ("FANFARE_MAX_WEBHOOKS", "20000")];
    let world = World::of(Setup { timeout: Some("5s".to_owned()), ..Setup::new(&variables) }).await;
    world.describe("wide").await;
    world.endpoint("wide", &["wide"]).await;
    let copies = i32::try_from(ENDPOINTS - 1).expect("a small number");
    let database = world.database().await;
    database.execute(COPIES, &[&copies]).await.expect("the copies");
    database.execute("UPDATE applications SET version = version + 1", &[]).await.expect("a newer version");
    world
}

/// Number of requests at each of the ten thousand endpoints.
fn requests(world: &World) -> HashMap<String, usize> {
    let mut requests = HashMap::new();
    for request in world.receiver.all().into_iter().filter(|request| request.path.starts_with("/wide")) {
        *requests.entry(request.path).or_default() += 1;
    }
    requests
}

async fn wait_for_all(world: &World) {
    let all = i64::try_from(ENDPOINTS).expect("a small number");
    until("all ten thousand deliveries", async || (world.count(DELIVERED).await >= all).then_some(())).await;
    assert_eq!(
        world
            .count("SELECT count(*) FROM all_deliveries d JOIN events e ON e.id = d.event_id WHERE e.type = 'wide'")
            .await,
        all
    );
}

/// Delay of the other events over HTTP, in seconds: median and 99th percentile.
fn delays(world: &World, load: &Load) -> [f64; 2] {
    let received: HashMap<String, Timestamp> =
        world.receiver.received("other").iter().map(|request| (key_of(request), request.at)).collect();
    let (now, clock) = (Instant::now(), Timestamp::now());
    let delay = |answered: &Answered| {
        let sent = clock.checked_sub(now.duration_since(answered.sent)).ok()?;
        Some(received.get(&answered.key)?.duration_since(sent).as_secs_f64())
    };
    let mut delays: Vec<f64> = load.answers().iter().filter_map(delay).collect();
    delays.sort_by(f64::total_cmp);
    [50, 99].map(|percent| delays[delays.len() * percent / 100])
}

/// Kills the dispatcher during the fan-out, while the first deliveries are being sent.
#[tokio::test(flavor = "multi_thread")]
async fn an_event_to_ten_thousand_endpoints_reaches_each_though_its_dispatcher_is_killed() {
    let world = world().await;
    let dispatcher = world.dispatcher().await;
    world.publish(&json!({ "type": "wide", "data": 1 })).await;
    until("the fan-out to begin", async || {
        (world.count("SELECT count(*) FROM all_deliveries").await >= 1000).then_some(())
    })
    .await;
    dispatcher.kill();
    assert_eq!(world.count("SELECT count(*) FROM fan_outs").await, 1, "the fan-out had ended before the kill");
    let _dispatcher = world.dispatcher().await;
    wait_for_all(&world).await;
    let requests = requests(&world);
    assert_eq!(requests.len(), ENDPOINTS);
    let repeats = requests.values().sum::<usize>() - ENDPOINTS;
    assert!(repeats <= PERMITS, "{repeats} repeats");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_to_ten_thousand_endpoints_reaches_each_once_and_holds_up_no_other() {
    let world = world().await;
    world.describe("load.http").await;
    world.describe("load.amqp").await;
    world.endpoint("other", &["load.http", "load.amqp"]).await;
    let _dispatcher = world.dispatcher().await;
    let load = Load::steady(&world, PACE);
    world.receiver.wait_for("other", 10).await;
    world.publish(&json!({ "type": "wide", "data": 1 })).await;
    until("the first of the ten thousand deliveries", async || (!requests(&world).is_empty()).then_some(())).await;
    let before = load.accepted();
    // Some events published from here on arrive before the last of the ten thousand deliveries.
    let (delivered, wide) = until("ten further events to be delivered", async || {
        let keys = load.keys().split_off(before);
        let received = world.receiver.received("other");
        let delivered = received.iter().filter(|request| keys.contains(&key_of(request))).count();
        (delivered >= 10).then(|| (delivered, requests(&world).len()))
    })
    .await;
    println!("{delivered} others were delivered beside the first {wide}");
    assert!(wide < ENDPOINTS, "the other events waited for the whole fan-out");
    wait_for_all(&world).await;
    load.stop();
    println!("the others took {:?} s at p50 and p99", delays(&world, &load));
    let requests = requests(&world);
    assert!(
        requests.len() == ENDPOINTS && requests.values().all(|count| *count == 1),
        "an endpoint got no request or several"
    );
    let accepted = load.finish().await;
    until("all other events to be delivered", async || {
        (world.receiver.received("other").len() >= accepted.len()).then_some(())
    })
    .await;
}
