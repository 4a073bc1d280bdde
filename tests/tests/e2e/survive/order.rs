//! Order per key while everything is killed under load: numbers without a gap, and one delivery of a key after the
//! other.

use std::{
    collections::BTreeMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fanfare_tests::{
    clients::{amqp::Broker, api::Client},
    patience::{until, until_within},
    receiver::{Behaviour, Received},
    servers::instance::{Instance, Servers},
    world::{World, process::Process},
};
use hyper::Method;
use serde_json::{Value, json};
use tokio::{
    task::{JoinSet, block_in_place},
    time::{sleep, timeout},
};

/// Time between two events of a key, and before an event is sent again.
const PACE: Duration = Duration::from_millis(60);
const AGAIN: Duration = Duration::from_millis(250);

/// Keys of the publishers over HTTP, and over AMQP.
const KEYS: [&str; 6] = ["http-1", "http-2", "http-3", "amqp-1", "amqp-2", "amqp-3"];

/// Time limit until deliveries flow again. A dispatcher counts as alive for 10 s after the last heartbeat.
const SOON: Duration = Duration::from_secs(30);

/// Publishers of ordered events. Each publishes the next event of its key once the last is accepted.
#[derive(Clone)]
struct Publishers {
    client: Arc<Mutex<Client>>,
    ends: Arc<AtomicBool>,
    amqp_url: String,
    prefix: String,
    application: String,
}

impl Publishers {
    fn new(world: &World) -> Self {
        Self {
            client: Arc::new(Mutex::new(world.client().clone())),
            ends: Arc::default(),
            amqp_url: world.variables["AMQP_URL"].clone(),
            prefix: world.variables["FANFARE_PREFIX"].clone(),
            application: world.application.clone(),
        }
    }

    fn client(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Publishes the events of a key until the end. Returns the number of accepted events.
    async fn publish(self, key: &'static str) -> (&'static str, u64) {
        let (mut place, mut broker) = (0, None);
        while !self.ends.load(Ordering::Relaxed) {
            place += 1;
            // An event without an answer may have been accepted. The same id makes a repeat harmless.
            while !self.accepted(&mut broker, key, place).await {
                broker = None;
                sleep(AGAIN).await;
            }
            sleep(PACE).await;
        }
        (key, place)
    }

    async fn accepted(&self, broker: &mut Option<Broker>, key: &str, place: u64) -> bool {
        let id = format!("{key}-{place}");
        if key.starts_with("http") {
            let event = json!({ "type": "a", "id": id, "data": place, "ordering_key": key });
            let client = self.client().clone();
            let json = [("content-type", "application/json")];
            return client
                .send(Method::POST, "events", &json, event.to_string())
                .await
                .is_ok_and(|it| it.status == 202);
        }
        let published = timeout(Duration::from_secs(5), async {
            if broker.is_none() {
                *broker = Some(Broker::connect(&self.amqp_url, &self.prefix).await?);
            }
            let Some(broker) = broker else { return Ok(false) };
            let (routing_key, body) = (format!("{}.a", self.application), json!({ "data": place }).to_string());
            broker.publish_to("ordered-by-key", &routing_key, Some(&id), &[("ordering-key", key)], &body).await
        });
        matches!(published.await, Ok(Ok(true)))
    }
}

/// The numbers of each key's requests, in the order of arrival. The data of an event is its place among the events of
/// the key, and thus its number.
fn numbers(requests: &[Received]) -> BTreeMap<String, Vec<u64>> {
    let mut numbers: BTreeMap<String, Vec<u64>> = BTreeMap::new();
    for request in requests {
        let number: u64 = request.header("webhook-sequence").parse().expect("a number");
        let body: Value = serde_json::from_slice(&request.body).expect("JSON");
        let key = request.header("webhook-ordering-key");
        assert_eq!(body["data"], number, "another event of {key} has the number");
        numbers.entry(key.to_owned()).or_default().push(number);
    }
    numbers
}

async fn flowing(world: &World) {
    let before = world.receiver.all().len();
    until_within(SOON, "new requests", async || (world.receiver.all().len() >= before + 20).then_some(())).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_killed_at_once_keeps_the_order_of_each_key() {
    let broker = block_in_place(|| Instance::rabbitmq("order"));
    let database = block_in_place(|| Instance::postgres("order"));
    let servers = Servers { amqp_url: broker.url(), database_url: database.url() };
    let mut world = World::with(servers, &[]).await;
    let [plain, fifo] = [world.endpoint("plain", &["*"]).await, world.endpoint("fifo", &["*"]).await];
    world.change(&fifo, &json!({ "fifo": "block" })).await;
    for path in ["plain", "fifo"] {
        world.receiver.script(path, &[Behaviour::Answer(200, Duration::from_millis(20))]);
    }
    let mut dispatchers = vec![world.dispatcher().await, world.dispatcher().await];
    let publishers = Publishers::new(&world);
    let mut open: JoinSet<_> = KEYS.into_iter().map(|key| publishers.clone().publish(key)).collect();
    for kill in 1..=2 {
        flowing(&world).await;
        dispatchers.drain(..).for_each(Process::kill);
        block_in_place(|| database.kill());
        // Once: RabbitMQ 3.10 may lose the leader of a quorum queue that two kills hit within seconds.
        if kill == 1 {
            block_in_place(|| broker.kill());
        }
        world.take_ingest().kill();
        dispatchers = vec![world.dispatcher_starting(), world.dispatcher_starting()];
        if kill == 1 {
            block_in_place(|| broker.start());
        }
        block_in_place(|| database.start());
        world.start_ingest().await;
        *publishers.client() = world.client().clone();
        flowing(&world).await;
    }
    publishers.ends.store(true, Ordering::Relaxed);
    let mut published = BTreeMap::new();
    while let Some(ended) = open.join_next().await {
        let (key, events) = ended.expect("a publisher");
        published.insert(key.to_owned(), events);
    }
    for endpoint in [&plain, &fifo] {
        until("the last event of each key", async || {
            let seen = numbers(&world.receiver.received(&endpoint.path));
            published.iter().all(|(key, last)| seen.get(key).is_some_and(|seen| seen.contains(last))).then_some(())
        })
        .await;
    }
    until("the end of all deliveries", async || (world.rows("open_deliveries", "true").await == 0).then_some(())).await;
    for endpoint in [&plain, &fifo] {
        for (key, seen) in numbers(&world.receiver.received(&endpoint.path)) {
            let mut distinct = seen.clone();
            distinct.sort_unstable();
            distinct.dedup();
            assert!(distinct.iter().copied().eq(1..=published[&key]), "{}: a gap in {key}: {seen:?}", endpoint.path);
            if endpoint.path == "fifo" {
                assert!(seen.is_sorted(), "a later delivery of {key} overtook: {seen:?}");
            }
        }
    }
}
