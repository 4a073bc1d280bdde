//! The part of a world that several tests can share: database, queues, dialects and the logs of all processes.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak},
    thread,
};

use fanfare_domain::{
    delivery::delay::{DelayQueues, delay_name},
    event::ordering::PARTITIONS,
    time::parse_duration,
};

use crate::{
    clients::amqp::Broker,
    servers::instance::Servers,
    world::{
        Setup,
        database::{self, connect},
        dialects::{self, Waits},
        process::{Process, Trail, Variables},
        release::Release,
    },
};

/// Settings that the worlds of a shared stack have in common.
type Key = (Servers, Vec<(String, String)>, Waits, Option<String>, Release);

/// Stacks that running tests share. A stack ends with its last world: nothing is left at the end.
static SHARED: LazyLock<tokio::sync::Mutex<HashMap<Key, Weak<Stack>>>> = LazyLock::new(Default::default);

/// Database, queues and files, removed on drop.
pub(super) struct Stack {
    servers: Servers,
    /// Name of the database, and prefix of the queues.
    pub(super) name: String,
    folder: PathBuf,
    delays: Vec<String>,
    /// Environment variables of the processes.
    pub(super) variables: Variables,
    /// An ingest and a dispatcher, if the stack is shared.
    services: Option<[Process; 2]>,
    /// Addresses of the dispatchers' metrics.
    dispatchers: Mutex<Vec<SocketAddr>>,
    /// All started processes, also the ended processes.
    trails: Mutex<Vec<Arc<Trail>>>,
}

impl Stack {
    /// Creates database and dialects, without processes.
    pub(super) async fn create(setup: &Setup) -> Self {
        let Setup { servers, variables, waits, timeout, release, .. } = setup;
        let name = format!("t{:032x}", rand::random::<u128>());
        let database_url = database::create(servers, &name, release).await;
        let folder = std::env::temp_dir().join(format!("fanfare-{name}"));
        let delays = dialects::write(&folder, release, waits, timeout.as_deref());
        let mut all: Variables = HashMap::from(
            [
                ("AMQP_URL", servers.amqp_url.as_str()),
                ("DATABASE_URL", &database_url),
                ("FANFARE_PREFIX", &name),
                ("FANFARE_SECRET_KEYS", "test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
                ("FANFARE_DIALECTS", &folder.to_string_lossy()),
                ("FANFARE_ALLOW_ADDRESSES", "127.0.0.0/8"),
                ("FANFARE_HTTPS_ONLY", "false"),
                // Many tests let endpoints fail repeatedly in quick succession: the breaker must stay closed.
                ("FANFARE_BREAKER_AFTER", "1000"),
                ("FANFARE_API_RATE", "0"),
                ("FANFARE_TAKEOVER_AFTER", "2s"),
                ("FANFARE_ADDRESS", "127.0.0.1:0"),
                ("FANFARE_CONSOLE_URL", "http://127.0.0.1"),
                ("FANFARE_OPERATIONS_ADDRESS", "127.0.0.1:0"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        all.extend(variables.iter().cloned());
        Self {
            servers: servers.clone(),
            name,
            folder,
            delays,
            variables: all,
            services: None,
            dispatchers: Mutex::default(),
            trails: Mutex::default(),
        }
    }

    /// The stack that running tests with the same servers, variables, waits and timeout share, with an ingest and a
    /// dispatcher.
    pub(super) async fn shared(setup: &Setup) -> Arc<Self> {
        let Setup { servers, variables, waits, timeout, release, dialect: _, arguments: _ } = setup.clone();
        let key = (servers, variables, waits, timeout, release);
        let mut shared = SHARED.lock().await;
        if let Some(stack) = shared.get(&key).and_then(Weak::upgrade).filter(|stack| stack.is_well()) {
            return stack;
        }
        let mut stack = Self::create(setup).await;
        let services = ["ingest", "dispatcher"].map(|name| stack.start(&setup.release, name, &stack.variables));
        for service in &services {
            service.ready().await;
        }
        let metrics = services[1].address("serving health and metrics").await;
        stack.dispatchers().push(metrics);
        stack.services = Some(services);
        let stack = Arc::new(stack);
        shared.insert(key, Arc::downgrade(&stack));
        stack
    }

    /// True if the services of a shared stack run.
    fn is_well(&self) -> bool {
        self.services.iter().flatten().all(Process::runs)
    }

    /// True if other worlds may use the stack.
    pub(super) fn is_shared(&self) -> bool {
        self.services.is_some()
    }

    /// The ingest of a shared stack.
    pub(super) fn ingest(&self) -> Option<&Process> {
        self.services.as_ref().map(|[ingest, _]| ingest)
    }

    /// Starts a service of a release and keeps its logs.
    pub(super) fn start(&self, release: &Release, name: &'static str, variables: &Variables) -> Process {
        let process = Process::start(release, name, variables);
        self.trails.lock().unwrap_or_else(PoisonError::into_inner).push(process.trail());
        process
    }

    /// Prints the logs of all processes.
    pub(super) fn report(&self) {
        let trails = self.trails.lock().unwrap_or_else(PoisonError::into_inner);
        trails.iter().for_each(|trail| eprint!("{}", trail.report()));
    }

    /// Addresses of the dispatchers' metrics.
    pub(super) fn dispatchers(&self) -> MutexGuard<'_, Vec<SocketAddr>> {
        self.dispatchers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Queues in which events and retries wait, without the prefix.
    pub(super) fn queues(&self) -> Vec<String> {
        let delays = self.delays().into_iter().map(|delay| format!("delay.{delay}"));
        let ordered = (0..PARTITIONS).map(|partition| format!("ordered.{partition}"));
        ["events", "deliveries"].map(str::to_owned).into_iter().chain(ordered).chain(delays).collect()
    }

    /// Names of the delay queues, such as `60s`.
    fn delays(&self) -> Vec<String> {
        let waits = self.delays.iter().filter_map(|wait| parse_duration(wait));
        DelayQueues::new(waits).delays().map(delay_name).collect()
    }
}

impl Drop for Stack {
    fn drop(&mut self) {
        if self.services.take().is_none() && thread::panicking() {
            // The logs of a shared stack are printed by the failing world.
            self.report();
        }
        let (servers, name) = (self.servers.clone(), self.name.clone());
        let _ = fs::remove_dir_all(&self.folder);
        let delays = self.delays();
        // A separate thread and runtime: a drop cannot await on the runtime of the test.
        let _ = thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
            let Ok(runtime) = runtime else { return };
            runtime.block_on(async {
                if let Ok(broker) = Broker::connect(&servers.amqp_url, &name).await {
                    broker.remove_topology(&delays).await;
                }
                if let Ok(client) = connect(&servers.database_url).await {
                    let _ = client.batch_execute(&format!("DROP DATABASE IF EXISTS {name} WITH (FORCE)")).await;
                }
            });
        })
        .join();
    }
}
