//! The scene of a measurement: a Fanfare of its own on the bench's servers, a receiver, a publisher.

pub(crate) mod delivered;
pub(crate) mod fill;
pub(crate) mod machine;
pub(crate) mod processes;
pub(crate) mod watch;

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use fanfare_tests::{
    client::Client,
    dialects::Waits,
    patience::until_within,
    process::Process,
    world::{Setup, World, get},
};
use serde_json::{Value, json};
use tokio::{net::TcpSocket, time::sleep};

use self::{
    delivered::Delivered,
    machine::{Extent, Machine},
    processes::{memory, processor_time},
    watch::Watch,
};
use crate::roles::{
    ceiling::{self, Work},
    child::Child,
    publisher::{Door, Order},
};

/// Confirms that a publisher over AMQP awaits at once, and connections of one over HTTP.
const WINDOW: usize = 512;
const CONNECTIONS: usize = 64;

/// An endpoint of a measurement.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber {
    /// The book of its receipts.
    pub(crate) group: &'static str,
    /// How the receiver answers it; `refuse` for a port without a listener.
    pub(crate) behaviour: &'static str,
    pub(crate) types: Vec<String>,
    /// Attempts a second at most; `None` for no limit.
    pub(crate) rate: Option<u32>,
}

/// What delivers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Subject {
    /// So many dispatchers.
    Fanfare(usize),
    Ceiling,
}

/// Over which door events come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Way {
    Amqp,
    Http,
}

/// Settings that differ from a deployment's.
pub(crate) struct Changes<'a> {
    /// Waits between attempts.
    pub(crate) waits: Waits,
    /// Deadline of attempts; `None` for the dialect's.
    pub(crate) timeout: Option<String>,
    pub(crate) variables: &'a [(&'a str, &'a str)],
}

impl Default for Changes<'_> {
    fn default() -> Self {
        Self { waits: Waits::Real, timeout: None, variables: &[] }
    }
}

pub(crate) struct Scene {
    /// Dropped before the world, which reports their exits.
    pub(crate) dispatchers: Vec<Process>,
    pub(crate) world: World,
    ceiling: Option<Child>,
    receiver: Child,
    /// The receiver's.
    pub(crate) address: String,
    publisher: Child,
    servers: [(&'static str, u32); 2],
    /// Bytes of an event's message.
    pub(crate) bytes: usize,
    /// Events of all orders so far.
    ordered: usize,
    /// Time limit for a condition.
    pub(crate) patience: Duration,
}

impl Scene {
    /// Sets the scene, with every process ready.
    pub(crate) async fn set(machine: &Machine, subscribers: &[Subscriber], subject: Subject) -> Self {
        Self::with(machine, subscribers, subject, Changes::default()).await
    }

    /// Sets the scene with other settings.
    pub(crate) async fn with(
        machine: &Machine,
        subscribers: &[Subscriber],
        subject: Subject,
        Changes { waits, timeout, variables }: Changes<'_>,
    ) -> Self {
        let usual = [
            ("FANFARE_BREAKER_AFTER", "20"),
            ("FANFARE_PUBLISH_RATE", "0"),
            ("FANFARE_MAX_WEBHOOKS", "1000000"),
            ("FANFARE_TAKEOVER_AFTER", if machine.extent == Extent::Smoke { "1s" } else { "15s" }),
        ];
        let setup = Setup { waits, timeout, ..Setup::on(machine.servers(), &[&usual, variables].concat()) };
        let world = World::of(setup).await;
        let mut receiver = Child::start("receiver");
        let address = receiver.ask(&Value::Null).await["address"].as_str().expect("an address").to_owned();
        let endpoints = subscribe(world.client(), &address, subscribers).await;
        let servers = [("rabbitmq", machine.broker_process()), ("postgres", machine.database_process())];
        let publisher = Child::start("publisher");
        let dispatchers = Vec::new();
        let mut scene = Self {
            world,
            dispatchers,
            ceiling: None,
            receiver,
            address,
            publisher,
            servers,
            bytes: machine.bytes,
            ordered: 0,
            patience: machine.patience(),
        };
        match subject {
            Subject::Fanfare(dispatchers) => {
                for _ in 0..dispatchers {
                    scene.dispatchers.push(scene.world.dispatcher().await);
                }
            }
            Subject::Ceiling => scene.ceiling = Some(scene.begin_ceiling(endpoints).await),
        }
        scene
    }

    async fn begin_ceiling(&self, endpoints: Vec<ceiling::Endpoint>) -> Child {
        let variable = |name: &str| self.world.variables[name].clone();
        let work = Work {
            amqp_url: variable("AMQP_URL"),
            database_url: variable("DATABASE_URL"),
            queue: format!("{}.events", variable("FANFARE_PREFIX")),
            application: self.world.application.clone(),
            endpoints,
        };
        let mut ceiling = Child::start("ceiling");
        ceiling.ask(&json!(work)).await;
        ceiling
    }

    /// Publishes, waits until that is done, and says how long it took.
    pub(crate) async fn publish(&mut self, way: Way, types: &[String], count: usize, rate: Option<f64>) -> Duration {
        let order = self.order(way, types, count, rate).await;
        taken(&self.publisher.ask(&order).await)
    }

    /// Publishes events of another application meanwhile, from a process of their own.
    pub(crate) async fn publish_beside(
        &mut self,
        other: &Other,
        rate: f64,
        seconds: f64,
    ) -> tokio::task::JoinHandle<Duration> {
        let count = ((rate * seconds) as usize).max(1);
        let mut order = self.order(Way::Amqp, &other.types, count, Some(rate)).await;
        order["application"] = json!(other.application);
        tokio::spawn(async move { taken(&Child::start("publisher").ask(&order).await) })
    }

    /// Another application with endpoints.
    pub(crate) async fn other(&self, subscribers: &[Subscriber]) -> Other {
        let (application, client) = self.world.other_application().await;
        subscribe(&client, &self.address, subscribers).await;
        Other { application, types: subscribers.iter().flat_map(|subscriber| subscriber.types.clone()).collect() }
    }

    /// Event types of this application, to be published beside others.
    pub(crate) fn own(&self, types: &[String]) -> Other {
        Other { application: self.world.application.clone(), types: types.to_vec() }
    }

    /// Lets the endpoints behind the receiver's gate succeed from now on.
    pub(crate) async fn open_gate(&mut self) -> Value {
        self.receiver.ask(&json!("open")).await["groups"].clone()
    }

    /// Has the receiver answer `late` after this time.
    pub(crate) async fn answer_late(&mut self, milliseconds: u64) {
        self.receiver.ask(&json!({ "late": milliseconds })).await;
    }

    /// Begins to watch the database's sessions.
    pub(crate) async fn watch(&self) -> Watch {
        Watch::begin(self.world.database().await)
    }

    async fn order(&mut self, way: Way, types: &[String], count: usize, rate: Option<f64>) -> Value {
        let variable = |name: &str| self.world.variables[name].clone();
        let door = match way {
            Way::Amqp => Door::Amqp {
                url: variable("AMQP_URL"),
                exchange: format!("{}.events", variable("FANFARE_PREFIX")),
                window: WINDOW,
            },
            Way::Http => Door::Http {
                address: self.world.ingest().address("serving the API").await.to_string(),
                key: self.world.key.clone(),
                connections: CONNECTIONS,
            },
        };
        let (application, first) = (self.world.application.clone(), self.ordered);
        self.ordered += count;
        json!(Order { door, application, types: types.to_vec(), count, rate, bytes: self.bytes, first })
    }

    /// Publishes, and waits until all that follows from it is recorded as delivered.
    pub(crate) async fn deliver(
        &mut self,
        way: Way,
        types: &[String],
        count: usize,
        per_event: usize,
        rate: Option<f64>,
    ) -> Delivered {
        let order = self.order(way, types, count, rate).await;
        let before = self.recorded().await;
        let expected = before + (count * per_event) as u64;
        let costs_before = self.costs();
        self.receiver.ask(&Value::Null).await;
        let started = Instant::now();
        // Two children of one parent: both are asked at once.
        let mut publisher = std::mem::replace(&mut self.publisher, Child::start("publisher"));
        let publishing = tokio::spawn(async move {
            publisher.ask(&order).await;
            (publisher, started.elapsed())
        });
        self.wait_for_recorded(expected).await;
        let took = started.elapsed();
        let costs = self.costs();
        let (publisher, published) = publishing.await.expect("it publishes");
        self.publisher = publisher;
        let deliveries = (count * per_event) as f64;
        let cost = |(name, after): (&'static str, Duration)| {
            let before = costs_before.iter().find(|(other, _)| *other == name).map(|(_, before)| *before);
            (name, after.saturating_sub(before.unwrap_or_default()))
        };
        Delivered {
            per_second: deliveries / took.as_secs_f64(),
            took,
            published,
            costs: costs.into_iter().map(cost).collect(),
            deliveries,
            shares: self.shares().await,
            received: self.received().await,
        }
    }

    /// Starts a dispatcher, and gives the deliveries a second that it makes of so many that wait, from its first one on.
    pub(crate) async fn work_off(&mut self, count: usize) -> f64 {
        self.dispatchers.push(self.world.dispatcher().await);
        let first = self.wait_for_recorded(1).await;
        let (began, count) = (Instant::now(), count as u64);
        self.wait_for_recorded(count).await;
        count.saturating_sub(first) as f64 / began.elapsed().as_secs_f64()
    }

    /// Waits until no event waits for a dispatcher.
    pub(crate) async fn all_taken(&self) {
        let broker = self.world.broker().await;
        until_within(self.patience, "all events to be taken", async || {
            (broker.depth("events").await.expect("the broker") == 0).then_some(())
        })
        .await;
    }

    /// Waits until no delivery waits for an attempt, or is being attempted.
    pub(crate) async fn all_delivered(&self) {
        let database = self.world.database().await;
        let open = "SELECT (SELECT count(*) FROM open_deliveries) + (SELECT count(*) FROM fan_outs)";
        until_within(self.patience, "all deliveries to end", async || {
            (database.query_one(open, &[]).await.expect("a number").get::<_, i64>(0) == 0).then_some(())
        })
        .await;
    }

    /// Waits until no delivery is queued, or is being attempted.
    pub(crate) async fn none_queued(&self) {
        let database = self.world.database().await;
        let queued = "SELECT EXISTS (SELECT FROM open_deliveries WHERE state IN ('queued', 'sending'))";
        until_within(self.patience, "no delivery to be queued", async || {
            (!database.query_one(queued, &[]).await.expect("an answer").get::<_, bool>(0)).then_some(())
        })
        .await;
    }

    /// Waits until the servers have done what was left of earlier work, or go on with it for long.
    pub(crate) async fn quiet(&self, within: Duration) {
        let busy = || self.servers.iter().map(|(_, process)| processor_time(*process)).sum::<Duration>();
        for _ in 0..within.as_secs() {
            let before = busy();
            // The second over which the processor time is measured.
            sleep(Duration::from_secs(1)).await;
            if busy() - before < Duration::from_millis(100) {
                return;
            }
        }
    }

    /// Mebibytes that the dispatchers have now.
    pub(crate) fn memory(&self) -> f64 {
        self.dispatchers.iter().map(|dispatcher| memory(dispatcher.id())).sum::<u64>() as f64 / 1024.0 / 1024.0
    }

    /// Waits until at least `count` deliveries were recorded as delivered. Returns the number.
    async fn wait_for_recorded(&mut self, count: u64) -> u64 {
        let what = format!("{count} deliveries to be recorded");
        until_within(self.patience, &what, async || Some(self.recorded().await).filter(|recorded| *recorded >= count))
            .await
    }

    /// Deliveries that were recorded as delivered.
    async fn recorded(&mut self) -> u64 {
        if let Some(ceiling) = &mut self.ceiling {
            return ceiling.ask(&Value::Null).await["recorded"].as_u64().unwrap_or_default();
        }
        self.delivered().await.iter().sum::<f64>() as u64
    }

    /// The deliveries that each dispatcher has recorded as delivered.
    pub(crate) async fn delivered(&self) -> Vec<f64> {
        self.metric("fanfare_deliveries_ended_total", "state=\"delivered\"").await
    }

    /// Deliveries that the dispatchers queued.
    pub(crate) async fn queued(&self) -> f64 {
        self.metric("fanfare_queued_total", "").await.iter().sum()
    }

    /// A metric of each dispatcher: the sum over its series with this label.
    pub(crate) async fn metric(&self, name: &str, label: &str) -> Vec<f64> {
        let mut each = Vec::new();
        for dispatcher in &self.dispatchers {
            let address = dispatcher.address("serving health and metrics").await;
            let metrics = get(address, "metrics").await.expect("the metrics");
            let lines = metrics.lines().filter(|line| {
                line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])) && line.contains(label)
            });
            each.push(lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum());
        }
        each
    }

    /// The mean of a histogram of all dispatchers; 0 where nothing was counted.
    pub(crate) async fn mean(&self, name: &str) -> f64 {
        let sum: f64 = self.metric(&format!("{name}_sum"), "").await.iter().sum();
        let count: f64 = self.metric(&format!("{name}_count"), "").await.iter().sum();
        if count > 0.0 { sum / count } else { 0.0 }
    }

    /// The smallest and the largest share of a dispatcher in what was delivered, in percent.
    async fn shares(&self) -> (f64, f64) {
        let each = self.delivered().await;
        let whole: f64 = each.iter().sum();
        let share = |part: f64| part / whole * 100.0;
        (share(each.iter().copied().fold(whole, f64::min)), share(each.iter().copied().fold(0.0, f64::max)))
    }

    /// What the receiver has noted since it was asked last, by group.
    pub(crate) async fn received(&mut self) -> Value {
        self.receiver.ask(&Value::Null).await["groups"].clone()
    }

    /// The processor time that each process has taken so far.
    fn costs(&self) -> Vec<(&'static str, Duration)> {
        let mut costs: Vec<_> = self.servers.iter().map(|(name, process)| (*name, processor_time(*process))).collect();
        costs.push(("ingest", processor_time(self.world.ingest().id())));
        let dispatchers = self.dispatchers.iter().map(|dispatcher| processor_time(dispatcher.id())).sum();
        costs.push(("dispatcher", dispatchers));
        if let Some(ceiling) = &self.ceiling {
            costs.push(("ceiling", processor_time(ceiling.id())));
        }
        costs.push(("receiver", processor_time(self.receiver.id())));
        costs
    }
}

/// How long a publisher took.
fn taken(answer: &Value) -> Duration {
    Duration::from_secs_f64(answer["seconds"].as_f64().expect("seconds"))
}

/// Another application.
pub(crate) struct Other {
    application: String,
    types: Vec<String>,
}

/// The URL of a port that refuses connections. The socket has the port for as long as the bench runs, and never listens:
/// no other program can take the port.
fn refused_url() -> String {
    static BOUND: LazyLock<TcpSocket> = LazyLock::new(|| {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket.bind(([127, 0, 0, 1], 0).into()).expect("a free port");
        socket
    });
    format!("http://{}/", BOUND.local_addr().expect("a bound socket has an address"))
}

async fn subscribe(client: &Client, address: &str, subscribers: &[Subscriber]) -> Vec<ceiling::Endpoint> {
    let mut described: Vec<&String> = subscribers.iter().flat_map(|subscriber| &subscriber.types).collect();
    described.sort_unstable();
    described.dedup();
    for name in described {
        let described =
            json!({ "name": name, "category": "Bench", "description": "For the bench", "sample": { "n": 1 } });
        client.post("event-types", &described).await.data();
    }
    let mut endpoints = Vec::new();
    for (index, Subscriber { group, behaviour, types, rate }) in subscribers.iter().enumerate() {
        let url = match *behaviour {
            "refuse" => refused_url(),
            behaviour => format!("http://{address}/{group}/{behaviour}?{index}"),
        };
        let mut webhook = json!({ "url": url, "events": types });
        if let Some(rate) = rate {
            webhook["rate_per_second"] = json!(rate);
        }
        let answer = client.post("webhooks", &webhook).await;
        let text = |name: &str| answer.data()[name].as_str().unwrap_or_default().to_owned();
        endpoints.push(ceiling::Endpoint {
            id: text("id"),
            url: url.clone(),
            secret: text("secret"),
            types: types.clone(),
        });
    }
    endpoints
}
