//! What a measurement takes place in: a Fanfare of its own on the bench's servers, a receiver, a publisher.

use std::{
    sync::LazyLock,
    time::{Duration, Instant},
};

use fanfare_tests::{
    client::Client,
    dialects::Waits,
    process::{Process, fanfare},
    world::{Setup, World, get},
};
use serde_json::{Value, json};
use tokio::{net::TcpSocket, time::sleep};

use crate::{
    ceiling::{self, Work},
    child::Child,
    delivered::Delivered,
    machine::Machine,
    processes::{memory, processor_time},
    publisher::{Door, Order},
};

/// Confirms that a publisher over AMQP awaits at once, and connections of one over HTTP.
const WINDOW: usize = 512;
const CONNECTIONS: usize = 64;

/// Seconds for which it is waited that the servers have nothing to do.
const QUIET_WITHIN: usize = 90;

/// How often what was recorded is looked at.
const LOOK: Duration = Duration::from_millis(20);

/// An endpoint of a measurement.
#[derive(Debug, Clone)]
pub(crate) struct Subscriber {
    /// Where its receipts are noted.
    pub(crate) group: &'static str,
    /// How the receiver answers it; `refuse` for a port without a listener.
    pub(crate) behaviour: &'static str,
    pub(crate) types: Vec<String>,
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

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) dispatchers: Vec<Process>,
    ceiling: Option<Child>,
    receiver: Child,
    /// The receiver's.
    pub(crate) address: String,
    publisher: Child,
    servers: [(&'static str, u32); 2],
    /// Of an event's message.
    pub(crate) bytes: usize,
    orders: usize,
}

impl Scene {
    /// Sets it up, with all that delivers ready.
    pub(crate) async fn set(machine: &Machine, subscribers: &[Subscriber], subject: Subject) -> Self {
        Self::of(machine, subscribers, subject, Waits::Real).await
    }

    /// The same, with other waits between attempts.
    pub(crate) async fn of(machine: &Machine, subscribers: &[Subscriber], subject: Subject, waits: Waits) -> Self {
        let variables =
            [("FANFARE_BREAKER_AFTER", "20"), ("FANFARE_PUBLISH_RATE", "0"), ("FANFARE_MAX_WEBHOOKS", "1000000")];
        let setup = Setup { waits, timeout: None, ..Setup::on(machine.servers(), &variables) };
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
            orders: 0,
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
        let count = (rate * seconds) as usize;
        let mut order = self.order(Way::Amqp, &other.types, count, Some(rate)).await;
        order["application"] = json!(other.application);
        tokio::spawn(async move { taken(&Child::start("publisher").ask(&order).await) })
    }

    /// Another application with endpoints.
    pub(crate) async fn other(&self, subscribers: &[Subscriber]) -> Other {
        let variables = &self.world.variables;
        let application = fanfare(variables, &["app", "create", "other"]);
        let key = fanfare(variables, &["key", "create", "--role", "manage", "--application", &application]);
        subscribe(&self.world.client().with_key(&key), &self.address, subscribers).await;
        Other { application, types: subscribers.iter().flat_map(|one| one.types.clone()).collect() }
    }

    /// Lets what stands behind the gate of the receiver succeed from now on.
    pub(crate) async fn open_gate(&mut self) -> Value {
        self.receiver.ask(&json!("open")).await["groups"].clone()
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
        self.orders += 1;
        let (application, prefix) = (self.world.application.clone(), format!("{}-", self.orders));
        json!(Order { door, application, types: types.to_vec(), count, rate, bytes: self.bytes, prefix })
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
        while self.recorded().await < expected {
            sleep(LOOK).await;
        }
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

    /// Starts a dispatcher, and gives how many deliveries in a second it makes of so many that wait.
    pub(crate) async fn work_off(&mut self, count: usize) -> f64 {
        self.dispatchers.push(self.world.dispatcher().await);
        let started = Instant::now();
        while self.recorded().await < count as u64 {
            sleep(LOOK).await;
        }
        count as f64 / started.elapsed().as_secs_f64()
    }

    /// Waits until no event waits for a dispatcher.
    pub(crate) async fn all_taken(&self) {
        let broker = self.world.broker().await;
        while broker.depth("events").await.expect("the broker") > 0 {
            sleep(LOOK).await;
        }
    }

    /// Waits until no delivery waits for an attempt, or is being attempted.
    pub(crate) async fn all_delivered(&self) {
        let database = self.world.database().await;
        let open = "SELECT (SELECT count(*) FROM open_deliveries) + (SELECT count(*) FROM fan_outs)";
        while database.query_one(open, &[]).await.expect("a number").get::<_, i64>(0) > 0 {
            sleep(LOOK).await;
        }
    }

    /// Waits until the servers have done what was left of earlier work, or go on with it for long.
    pub(crate) async fn quiet(&self) {
        let busy = || self.servers.iter().map(|(_, process)| processor_time(*process)).sum::<Duration>();
        for _ in 0..QUIET_WITHIN {
            let before = busy();
            sleep(Duration::from_secs(1)).await;
            if busy() - before < Duration::from_millis(100) {
                return;
            }
        }
    }

    /// Mebibytes that the dispatchers have now.
    pub(crate) fn memory(&self) -> f64 {
        self.dispatchers.iter().map(|one| memory(one.id())).sum::<u64>() as f64 / 1024.0 / 1024.0
    }

    /// Deliveries that were recorded as delivered.
    async fn recorded(&mut self) -> u64 {
        if let Some(ceiling) = &mut self.ceiling {
            return ceiling.ask(&Value::Null).await["recorded"].as_u64().unwrap_or_default();
        }
        let mut sum = 0.0;
        for dispatcher in &self.dispatchers {
            sum += delivered_by(dispatcher).await;
        }
        sum as u64
    }

    /// The smallest and the largest share of a dispatcher in what was delivered, in percent.
    async fn shares(&self) -> (f64, f64) {
        let mut each = Vec::new();
        for dispatcher in &self.dispatchers {
            each.push(delivered_by(dispatcher).await);
        }
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
        let dispatchers = self.dispatchers.iter().map(|one| processor_time(one.id())).sum();
        costs.push(("dispatcher", dispatchers));
        if let Some(ceiling) = &self.ceiling {
            costs.push(("ceiling", processor_time(ceiling.id())));
        }
        costs.push(("receiver", processor_time(self.receiver.id())));
        costs
    }
}

/// The deliveries that a dispatcher has recorded as delivered.
async fn delivered_by(dispatcher: &Process) -> f64 {
    let address = dispatcher.address("serving health and metrics").await;
    let metrics = get(address, "metrics").await.expect("the metrics");
    let lines = metrics
        .lines()
        .filter(|line| line.starts_with("fanfare_deliveries_ended_total{") && line.contains("state=\"delivered\""));
    lines.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok()).sum()
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
    let mut described: Vec<&String> = subscribers.iter().flat_map(|one| &one.types).collect();
    described.sort_unstable();
    described.dedup();
    for one in described {
        let described =
            json!({ "name": one, "category": "Bench", "description": "For the bench", "sample": { "n": 1 } });
        client.post("event-types", &described).await.data();
    }
    let mut endpoints = Vec::new();
    for Subscriber { group, behaviour, types } in subscribers {
        let url = match *behaviour {
            "refuse" => refused_url(),
            behaviour => format!("http://{address}/{group}/{behaviour}"),
        };
        let answer = client.post("webhooks", &json!({ "url": url, "events": types })).await;
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
