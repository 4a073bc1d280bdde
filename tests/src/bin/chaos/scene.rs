//! The scene of the faults: servers of a run's own behind proxies, two ingests, two dispatchers, a load.

use std::{thread, time::Duration};

use fanfare_tests::{
    clients::{api::Client, load::Load},
    ledger::{Subscriber, key_of},
    patience::{patience, until_promptly},
    receiver::{Behaviour, Receiver},
    servers::{
        egress_proxy::EgressProxy,
        instance::{Instance, Servers},
        name_server::NameServer,
        proxy::Proxy,
    },
    world::{
        Setup, World,
        process::{Logs, Process, get},
        release::Release,
    },
};
use futures_util::future::join_all;
use tokio::{
    task::{JoinHandle, block_in_place},
    time::Instant,
};

use crate::{faults::Needs, script::Extent};

/// Time from a request to the answer of the slow receiver.
pub(crate) const SLOW: Duration = Duration::from_millis(200);

/// The most attempts in flight in a dispatcher: its single application may use half of the places. The death of the
/// dispatcher may repeat them all.
pub(crate) const PERMITS: usize = 24;

/// The number of ingests, and of dispatchers.
pub(crate) const PROCESSES: usize = 2;

/// Names of the receiver, which the scene's name server knows.
const HOSTS: [&str; 2] = ["first.receiver.test", "second.receiver.test"];

/// The way of all requests to the receiver.
pub(crate) struct Egress {
    pub(crate) name_server: NameServer,
    pub(crate) proxy: EgressProxy,
}

impl Egress {
    async fn start() -> Self {
        Self { name_server: NameServer::start().await, proxy: EgressProxy::start().await }
    }

    fn variables(&self) -> Vec<(&'static str, String)> {
        let name_server = self.name_server.address().to_string();
        vec![("FANFARE_NAME_SERVERS", name_server), ("FANFARE_EGRESS_PROXY", self.proxy.url())]
    }
}

const VARIABLES: [(&str, &str); 3] =
    [("FANFARE_BREAKER_AFTER", "20"), ("FANFARE_LANE_BOUND", "8"), ("FANFARE_PLACES", "48")];

pub(crate) struct Scene {
    pub(crate) world: World,
    pub(crate) subscribers: [Subscriber; 3],
    pub(crate) extent: Extent,
    pub(crate) load: Option<Load>,
    /// The keys of accepted events of earlier loads.
    pub(crate) accepted: Vec<String>,
    /// A proxy before each node.
    pub(crate) to_broker: Vec<Proxy>,
    pub(crate) to_database: [Proxy; 1],
    /// The way to the receiver, if the faults need one.
    pub(crate) egress: Option<Egress>,
    pub(crate) ingests: Vec<Process>,
    pub(crate) dispatchers: Vec<Process>,
    /// Ids of the processes under SIGSTOP.
    pub(crate) stopped: Vec<u32>,
    /// The logs of all processes, running or ended.
    pub(crate) logs: Vec<(String, Logs)>,
    pub(crate) notes: Vec<String>,
    /// Failures beside the differences of the ledger.
    pub(crate) failures: Vec<String>,
    /// The URLs of the proxies.
    through: [(&'static str, String); 2],
    pub(crate) brokers: Vec<Instance>,
    /// The harmful publisher.
    pub(crate) harm: Option<JoinHandle<()>>,
    /// Indices of killed brokers.
    pub(crate) down: Vec<usize>,
    pub(crate) database: Instance,
}

impl Scene {
    /// Sets a scene for faults with these needs, without processes and load.
    pub(crate) async fn set(name: &str, needs: Needs, extent: Extent) -> Self {
        let (brokers, database) = block_in_place(|| {
            thread::scope(|scope| {
                let brokers = scope.spawn(|| Instance::cluster(name, needs.nodes));
                let database = Instance::postgres(name);
                (brokers.join().expect("a broker"), database)
            })
        });
        let urls: Vec<String> = brokers.iter().map(Instance::url).collect();
        let servers = Servers { amqp_url: urls.join(","), database_url: database.url() };
        let egress = if needs.egress { Some(Egress::start().await) } else { None };
        let through = egress.as_ref().map(Egress::variables).unwrap_or_default();
        let variables: Vec<_> =
            VARIABLES.into_iter().chain(through.iter().map(|(name, value)| (*name, &**value))).collect();
        let release = if needs.previous { Release::previous() } else { Release::present() };
        let mut world = World::of(Setup { release, ..Setup::on(servers, &variables) }).await;
        if needs.egress {
            world.receiver.use_hosts(HOSTS).await;
        }
        pack_bomb(&world.receiver).await;
        let subscribers = Subscriber::three(&world, SLOW).await;
        // All processes of a scene go through the proxies; this ingest does not.
        drop(world.take_ingest());
        let (to_broker, amqp_urls): (Vec<Proxy>, Vec<String>) =
            join_all(urls.iter().map(|url| Proxy::before(url))).await.into_iter().unzip();
        let (to_database, database_url) = Proxy::before(&world.variables["DATABASE_URL"]).await;
        let through = [("AMQP_URL", amqp_urls.join(",")), ("DATABASE_URL", database_url)];
        Self {
            world,
            subscribers,
            extent,
            load: None,
            accepted: Vec::new(),
            to_broker,
            to_database: [to_database],
            egress,
            ingests: Vec::new(),
            dispatchers: Vec::new(),
            stopped: Vec::new(),
            logs: Vec::new(),
            notes: Vec::new(),
            failures: Vec::new(),
            through,
            brokers,
            harm: None,
            down: Vec::new(),
            database,
        }
    }

    /// Starts the missing processes and a load, and waits until deliveries flow.
    pub(crate) async fn begin(&mut self) {
        self.fill();
        self.ready().await;
        self.load = Some(Load::steady(&self.world, self.extent.pace));
        self.spread();
        self.again().await;
    }

    /// Waits until all processes are ready.
    pub(crate) async fn ready(&self) {
        for process in self.ingests.iter().chain(&self.dispatchers) {
            process.ready().await;
        }
    }

    /// Starts the missing ingests and dispatchers.
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

    /// Starts a process without waiting until it is ready.
    pub(crate) fn start(&mut self, name: &'static str, more: &[(&str, &str)]) -> Process {
        let through = self.through.each_ref().map(|(name, url)| (*name, url.as_str()));
        let process = self.world.process_with(name, &[&through, more].concat());
        self.logs.push((format!("{name}-{}", process.id()), process.log_lines()));
        process
    }

    pub(crate) fn load(&self) -> &Load {
        self.load.as_ref().expect("a load")
    }

    /// Has the load use all serving ingests.
    pub(crate) fn spread(&self) {
        let clients: Vec<_> = self.ingests.iter().filter_map(|ingest| self.client_of(ingest)).collect();
        if !clients.is_empty() {
            self.load().use_clients(clients);
        }
    }

    /// A client of an ingest; none before the ingest serves.
    pub(crate) fn client_of(&self, ingest: &Process) -> Option<Client> {
        let log = ingest.logs().into_iter().find(|log| log["message"] == "serving the API")?;
        Some(Client::new(log["address"].as_str()?.parse().ok()?, &self.world.key))
    }

    /// Waits for the delivery of an event accepted from now on. Returns the time until then.
    pub(crate) async fn again(&self) -> Duration {
        self.again_over("").await
    }

    /// Waits for the delivery of an event over a single entrance.
    pub(crate) async fn again_over(&self, entrance: &str) -> Duration {
        let (started, before) = (Instant::now(), self.load().accepted());
        until_promptly(patience(), "deliveries to flow", async || {
            let mut keys = self.load().keys().split_off(before);
            keys.retain(|key| key.starts_with(entrance));
            let received = self.world.receiver.received("quick");
            received.iter().rev().any(|request| keys.contains(&key_of(request))).then_some(())
        })
        .await;
        started.elapsed()
    }

    /// Ends the load.
    pub(crate) async fn finish(&mut self) {
        self.load().stop();
        self.accepted.append(&mut self.load.take().expect("a load").finish().await);
    }

    pub(crate) fn egress(&self) -> &Egress {
        self.egress.as_ref().expect("the faults need the egress")
    }

    /// A sentence on attempts that failed for a reason of ours: the receiver has a name, and takes each connection.
    pub(crate) async fn spent_by_us(&self) -> Option<String> {
        let spent = "SELECT count(*) FROM attempts WHERE outcome IN ('name_not_resolved', 'connection_failed')";
        let spent = self.world.count(spent).await;
        (spent > 0).then(|| format!("{spent} attempts failed for a reason of ours"))
    }

    /// Ends all processes and kills the servers, whose data go with them.
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

/// Has the receiver pack its bomb. Packing takes seconds, once, and must not hold up its answers later.
async fn pack_bomb(receiver: &Receiver) {
    receiver.script("bomb", &[Behaviour::Bomb]);
    get(receiver.address(), "bomb").await;
}
