//! What the faults happen to: servers of a run's own behind proxies, two ingests, two dispatchers, a load.

use std::{thread, time::Duration};

use fanfare_tests::{
    books::{Subscriber, key_of},
    client::Client,
    instance::{Instance, Servers},
    load::Load,
    patience::until,
    process::{Logs, Process},
    proxy::Proxy,
    world::{World, ready},
};
use futures_util::future::join_all;
use tokio::{task::block_in_place, time::Instant};

/// Between two events over one door; with both doors, twice as many come in.
const PACE: Duration = Duration::from_millis(50);

/// How long the slow one of the receivers takes.
pub(crate) const SLOW: Duration = Duration::from_millis(200);

/// Attempts on their way in one dispatcher: what its death may have to repeat. There is one application, which may use
/// half of the places.
pub(crate) const PERMITS: usize = 24;

/// Ingests, and dispatchers, that there are.
pub(crate) const PROCESSES: usize = 2;

const VARIABLES: [(&str, &str); 3] =
    [("FANFARE_BREAKER_AFTER", "20"), ("FANFARE_LANE_BOUND", "8"), ("FANFARE_PLACES", "48")];

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) subscribers: [Subscriber; 3],
    pub(crate) load: Option<Load>,
    /// One before each node.
    pub(crate) to_broker: Vec<Proxy>,
    pub(crate) to_database: [Proxy; 1],
    pub(crate) ingests: Vec<Process>,
    pub(crate) dispatchers: Vec<Process>,
    /// Processes that were stopped and are to go on.
    pub(crate) stopped: Vec<u32>,
    /// The logs of all processes that there were.
    pub(crate) logs: Vec<(String, Logs)>,
    /// What is to be told of the run.
    pub(crate) notes: Vec<String>,
    /// What was wrong, beside what the books say.
    pub(crate) wrong: Vec<String>,
    /// What leads the processes through the proxies.
    through: [(&'static str, String); 2],
    /// The broker's nodes.
    pub(crate) brokers: Vec<Instance>,
    /// Those of them that are down.
    pub(crate) down: Vec<usize>,
    pub(crate) database: Instance,
}

impl Scene {
    /// Sets it up with a broker of so many nodes, without load.
    pub(crate) async fn set(name: &str, nodes: usize) -> Self {
        let (brokers, database) = block_in_place(|| {
            thread::scope(|scope| {
                let brokers = scope.spawn(|| Instance::cluster(name, nodes));
                let database = Instance::postgres(name);
                (brokers.join().expect("a broker"), database)
            })
        });
        let urls: Vec<String> = brokers.iter().map(Instance::url).collect();
        let servers = Servers { amqp_url: urls.join(","), database_url: database.url() };
        let mut world = World::with(servers, &VARIABLES).await;
        let subscribers = Subscriber::three(&world, SLOW).await;
        // The books go straight to the servers, the processes through the proxies: this one does not.
        drop(world.take_ingest());
        let (to_broker, amqp_urls): (Vec<Proxy>, Vec<String>) =
            join_all(urls.iter().map(|url| Proxy::before(url))).await.into_iter().unzip();
        let (to_database, database_url) = Proxy::before(&world.variables["DATABASE_URL"]).await;
        let through = [("AMQP_URL", amqp_urls.join(",")), ("DATABASE_URL", database_url)];
        Self {
            world,
            subscribers,
            load: None,
            to_broker,
            to_database: [to_database],
            ingests: Vec::new(),
            dispatchers: Vec::new(),
            stopped: Vec::new(),
            logs: Vec::new(),
            notes: Vec::new(),
            wrong: Vec::new(),
            through,
            brokers,
            down: Vec::new(),
            database,
        }
    }

    /// Starts the processes and the load, and waits until it flows.
    pub(crate) async fn begin(&mut self) {
        self.fill();
        self.ready().await;
        self.load = Some(Load::steady(&self.world, PACE));
        self.spread();
        self.again().await;
    }

    /// Waits until all processes are ready.
    pub(crate) async fn ready(&self) {
        for process in self.ingests.iter().chain(&self.dispatchers) {
            ready(process).await;
        }
    }

    /// Starts what is missing of the two ingests and two dispatchers.
    pub(crate) fn fill(&mut self) {
        while self.ingests.len() < PROCESSES {
            let ingest = self.start("ingest", &[]);
            self.ingests.push(ingest);
        }
        while self.dispatchers.len() < PROCESSES {
            let dispatcher = self.start("dispatcher", &[]);
            self.dispatchers.push(dispatcher);
        }
    }

    /// Starts a process without waiting for it.
    pub(crate) fn start(&mut self, name: &'static str, more: &[(&str, &str)]) -> Process {
        let through = self.through.each_ref().map(|(name, url)| (*name, url.as_str()));
        let process = self.world.process_with(name, &[&through, more].concat());
        self.logs.push((format!("{name}-{}", process.id()), process.log_book()));
        process
    }

    pub(crate) fn load(&self) -> &Load {
        self.load.as_ref().expect("a load")
    }

    /// Has the load use the ingests that serve now.
    pub(crate) fn spread(&self) {
        let clients: Vec<_> = self.ingests.iter().filter_map(|ingest| self.client_of(ingest)).collect();
        if !clients.is_empty() {
            self.load().spread_over(clients);
        }
    }

    /// A client of an ingest, once that serves.
    fn client_of(&self, ingest: &Process) -> Option<Client> {
        let log = ingest.logs().into_iter().find(|log| log["message"] == "serving the API")?;
        Some(Client::new(log["address"].as_str()?.parse().ok()?, &self.world.key))
    }

    /// Waits until something is delivered that is accepted from now on, and gives how long that took.
    pub(crate) async fn again(&self) -> Duration {
        self.again_over("").await
    }

    /// The same over one of the doors.
    pub(crate) async fn again_over(&self, door: &str) -> Duration {
        let (started, before) = (Instant::now(), self.load().accepted());
        until("deliveries to flow", async || {
            let mut keys = self.load().keys().split_off(before);
            keys.retain(|key| key.starts_with(door));
            let received = self.world.receiver.received("quick");
            received.iter().rev().any(|request| keys.contains(&key_of(request))).then_some(())
        })
        .await;
        started.elapsed()
    }

    /// Ends the load, and gives the keys of all that was accepted.
    pub(crate) async fn finish(&mut self) -> Vec<String> {
        self.load().stop();
        self.load.take().expect("a load").finish().await
    }

    /// Ends everything. What the servers hold goes with them: nobody need tidy up there.
    pub(crate) fn clear(mut self) {
        self.load = None;
        self.ingests.clear();
        self.dispatchers.clear();
        block_in_place(|| {
            self.brokers.iter().for_each(Instance::kill);
            self.database.kill();
            drop(self);
        });
    }
}
