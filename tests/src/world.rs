//! An isolated environment for each test: a database, a prefix, processes, a receiver and clients.

pub mod database;
pub mod dialects;
pub mod process;

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    thread,
};

use fanfare_domain::{
    delivery::delay::{DelayQueues, delay_name},
    duration::parse_duration,
};
use serde_json::{Value, json};

use crate::{
    clients::{amqp::Broker, api::Client},
    patience::until,
    receiver::Receiver,
    servers::instance::Servers,
    world::{
        database::connect,
        dialects::Waits,
        process::{Process, Trail, Variables, fanfare},
    },
};

/// Settings of a [`World`].
#[derive(Debug, Clone)]
pub struct Setup {
    /// Broker and database.
    pub servers: Servers,
    /// Environment variables for all processes, in addition to the defaults or in place of defaults.
    pub variables: Vec<(String, String)>,
    /// The application's dialect.
    pub dialect: String,
    /// Further arguments of `fanfare app create`.
    pub arguments: Vec<String>,
    /// The retry schedule of all dialects.
    pub waits: Waits,
    /// The attempt timeout of all dialects. `None` keeps each dialect's own timeout.
    pub timeout: Option<String>,
}

impl Setup {
    /// The shared servers, the default dialect, short waits.
    pub fn new(variables: &[(&str, &str)]) -> Self {
        Self::on(Servers::shared(), variables)
    }

    /// Like [`Self::new`], on these servers.
    pub fn on(servers: Servers, variables: &[(&str, &str)]) -> Self {
        Self {
            servers,
            variables: variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())).collect(),
            dialect: "incenta".to_owned(),
            arguments: Vec::new(),
            waits: Waits::Short,
            timeout: Some("2s".to_owned()),
        }
    }
}

/// An isolated Fanfare for a single test. Database, queues and files are removed on drop. A drop by a panic prints the
/// logs of all processes.
pub struct World {
    servers: Servers,
    database: String,
    folder: PathBuf,
    delays: Vec<String>,
    /// Environment variables of the processes.
    pub variables: Variables,
    /// The receiver of all endpoints.
    pub receiver: Receiver,
    /// The application's id.
    pub application: String,
    /// A key with the role `manage` for the application.
    pub key: String,
    ingest: Option<Process>,
    client: Option<Client>,
    /// Addresses of the dispatchers' metrics.
    dispatchers: Mutex<Vec<SocketAddr>>,
    /// All started processes, also the ended processes.
    trails: Mutex<Vec<Arc<Trail>>>,
}

/// An endpoint created by a test.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// The endpoint's id.
    pub id: String,
    /// The endpoint's signing secret.
    pub secret: String,
    /// The endpoint's path at the receiver.
    pub path: String,
}

impl World {
    /// A world on the shared servers, with an application and a running ingest.
    pub async fn new() -> Self {
        Self::with(Servers::shared(), &[]).await
    }

    /// Like [`Self::new`], with environment variables for the processes.
    pub async fn on_shared(variables: &[(&str, &str)]) -> Self {
        Self::with(Servers::shared(), variables).await
    }

    /// Like [`Self::new`], on these servers, with environment variables for the processes.
    pub async fn with(servers: Servers, variables: &[(&str, &str)]) -> Self {
        Self::of(Setup::on(servers, variables)).await
    }

    /// Like [`Self::on_shared`], with the comma-separated waits (`5s,5s`) in all dialects.
    pub async fn of_waits(waits: &str, variables: &[(&str, &str)]) -> Self {
        Self::of(Setup { waits: Waits::of(waits), ..Setup::new(variables) }).await
    }

    /// Like [`Self::on_shared`], with this dialect for the application.
    pub async fn of_dialect(dialect: &str, variables: &[(&str, &str)]) -> Self {
        Self::of(Setup { dialect: dialect.to_owned(), ..Setup::new(variables) }).await
    }

    /// Creates database, dialects and application, and starts ingest.
    pub async fn of(setup: Setup) -> Self {
        let Setup { servers, variables, dialect, arguments, waits, timeout } = setup;
        let name = format!("t{:032x}", rand::random::<u128>());
        let database_url = database::create(&servers, &name).await;
        let folder = std::env::temp_dir().join(format!("fanfare-{name}"));
        let delays = dialects::write(&folder, &waits, timeout.as_deref());
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
                ("FANFARE_TAKEOVER_AFTER", "2s"),
                ("FANFARE_ADDRESS", "127.0.0.1:0"),
                ("FANFARE_OPERATIONS_ADDRESS", "127.0.0.1:0"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        all.extend(variables);
        let arguments = arguments.iter().map(String::as_str);
        let create: Vec<&str> = ["app", "create", "test", "--dialect", &dialect].into_iter().chain(arguments).collect();
        let application = fanfare(&all, &create);
        let key = fanfare(&all, &["key", "create", "--role", "manage", "--application", &application]);
        let receiver = Receiver::start().await;
        let mut world = Self {
            servers,
            database: name,
            folder,
            delays,
            variables: all,
            receiver,
            application,
            key,
            ingest: None,
            client: None,
            dispatchers: Mutex::default(),
            trails: Mutex::default(),
        };
        world.start_ingest().await;
        world
    }

    /// Starts an ingest, in place of a running ingest, and waits until the new ingest is ready.
    pub async fn start_ingest(&mut self) {
        self.start_ingest_with(&[]).await;
    }

    /// Like [`Self::start_ingest`], with further environment variables.
    pub async fn start_ingest_with(&mut self, variables: &[(&str, &str)]) {
        let ingest = self.process_with("ingest", variables);
        let address = ingest.address("serving the API").await;
        ready(&ingest).await;
        self.client = Some(Client::new(address, &self.key));
        self.ingest = Some(ingest);
    }

    /// The running ingest.
    ///
    /// # Panics
    /// If [`Self::take_ingest`] removed the process.
    pub fn ingest(&self) -> &Process {
        self.ingest.as_ref().expect("ingest runs")
    }

    /// Removes the running ingest, to be killed or ended.
    ///
    /// # Panics
    /// If the process was already removed.
    pub fn take_ingest(&mut self) -> Process {
        self.ingest.take().expect("ingest runs")
    }

    /// Starts a dispatcher and waits until the dispatcher is ready.
    pub async fn dispatcher(&self) -> Process {
        let dispatcher = self.dispatcher_starting();
        ready(&dispatcher).await;
        let address = dispatcher.address("serving health and metrics").await;
        self.dispatchers.lock().unwrap_or_else(PoisonError::into_inner).push(address);
        dispatcher
    }

    /// Starts a dispatcher without waiting.
    pub fn dispatcher_starting(&self) -> Process {
        self.process_with("dispatcher", &[])
    }

    /// Starts a service with further environment variables, without waiting.
    pub fn process_with(&self, name: &'static str, variables: &[(&str, &str)]) -> Process {
        let mut all = self.variables.clone();
        all.extend(variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        let process = Process::start(name, &all);
        self.trails.lock().unwrap_or_else(PoisonError::into_inner).push(process.trail());
        process
    }

    /// A client with the application's key.
    ///
    /// # Panics
    /// Before the first start of ingest.
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("ingest was started")
    }

    /// Creates another application. Returns its id and a client with the role `manage`, once ingest accepts the key.
    pub async fn other_application(&self) -> (String, Client) {
        let application = fanfare(&self.variables, &["app", "create", "other"]);
        let key = self.create_key(&["--role", "manage", "--application", &application]);
        let client = self.client().with_key(&key);
        until("ingest to accept the new key", async || (client.get("webhooks").await.status == 200).then_some(()))
            .await;
        (application, client)
    }

    /// Creates a key with these arguments of `fanfare key create`.
    pub fn create_key(&self, arguments: &[&str]) -> String {
        fanfare(&self.variables, &[&["key", "create"], arguments].concat())
    }

    /// Connects an AMQP publisher with the world's prefix.
    ///
    /// # Panics
    /// If the broker is unavailable.
    pub async fn broker(&self) -> Broker {
        Broker::connect(&self.variables["AMQP_URL"], &self.database).await.expect("the broker")
    }

    /// Adds an event type to the application, so that endpoints can subscribe to the type.
    pub async fn describe(&self, name: &str) {
        let described = json!({ "name": name, "category": "Tests", "description": "For tests", "sample": { "n": 1 } });
        self.client().post("event-types", &described).await.data();
    }

    /// Creates an endpoint at a path of the receiver.
    pub async fn endpoint(&self, path: &str, events: &[&str]) -> Endpoint {
        let answer = self.client().post("webhooks", &json!({ "url": self.receiver.url(path), "events": events })).await;
        let data = answer.data();
        self.known().await;
        let text = |name: &str| data[name].as_str().unwrap_or_default().to_owned();
        Endpoint { id: text("id"), secret: text("secret"), path: path.to_owned() }
    }

    /// Changes an endpoint and waits until every dispatcher has loaded the change. Fails if the API refuses the change.
    pub async fn change(&self, endpoint: &Endpoint, change: &Value) {
        self.client().patch(&format!("webhooks/{}", endpoint.id), change).await.data();
        self.known().await;
    }

    /// Waits until every running dispatcher has loaded the newest configuration. Until then, a dispatcher may still
    /// apply the previous configuration.
    pub async fn known(&self) {
        let version = self.count("SELECT sum(version)::bigint FROM applications").await;
        let addresses = self.dispatchers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for address in addresses {
            until("a dispatcher to load the newest configuration", async || {
                // A killed dispatcher does not answer and has nothing to load.
                let Some(metrics) = get(address, "metrics").await else { return Some(()) };
                let line = metrics.lines().find_map(|line| line.strip_prefix("fanfare_configuration_version "))?;
                // A concurrent change may have raised the version further.
                (line.parse::<i64>().ok()? >= version).then_some(())
            })
            .await;
        }
    }

    /// Publishes an event over HTTP. Returns the event id.
    ///
    /// # Panics
    /// If ingest does not answer 202.
    pub async fn publish(&self, event: &Value) -> String {
        let answer = self.client().post("events", event).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.data()["id"].as_str().expect("an id").to_owned()
    }

    /// The newest deliveries of the application, at most 100, filtered by a query string.
    pub async fn deliveries(&self, query: &str) -> Vec<Value> {
        let answer = self.client().get(&format!("deliveries?limit=100&{query}")).await;
        answer.data().as_array().cloned().unwrap_or_default()
    }

    /// Waits until at least `count` deliveries match the query string. Returns the deliveries.
    pub async fn wait_for_deliveries(&self, query: &str, count: usize) -> Vec<Value> {
        until(&format!("{count} deliveries with {query}"), async || {
            let deliveries = self.deliveries(query).await;
            (deliveries.len() >= count).then_some(deliveries)
        })
        .await
    }

    /// A delivery with all attempts.
    pub async fn delivery(&self, id: &str) -> Value {
        self.client().get(&format!("deliveries/{id}")).await.data().clone()
    }

    /// A connection to the world's database, for facts that the API does not show.
    ///
    /// # Panics
    /// If the database is unavailable.
    pub async fn database(&self) -> tokio_postgres::Client {
        connect(&self.variables["DATABASE_URL"]).await.expect("the database")
    }

    /// A single number from the database.
    ///
    /// # Panics
    /// If the query returns no single row with a number.
    pub async fn count(&self, query: &str) -> i64 {
        self.database().await.query_one(query, &[]).await.expect("a number").get(0)
    }
}

/// Waits until `/readyz` of a process reports ready.
pub async fn ready(process: &Process) {
    let address = process.address("serving health and metrics").await;
    until("a process to be ready", async || {
        let answer = get(address, "readyz").await?;
        answer.starts_with("ready").then_some(())
    })
    .await;
}

/// Body of a GET response from a process's operations listener. `None` without a response.
pub async fn get(address: SocketAddr, path: &str) -> Option<String> {
    use http_body_util::BodyExt;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<http_body_util::Empty<bytes::Bytes>>();
    let response = client.get(format!("http://{address}/{path}").parse().ok()?).await.ok()?;
    let bytes = response.into_body().collect().await.ok()?.to_bytes();
    String::from_utf8(bytes.to_vec()).ok()
}

impl World {
    /// Names of the delay queues, such as `60s`.
    fn delays(&self) -> Vec<String> {
        let waits = self.delays.iter().filter_map(|wait| parse_duration(wait));
        DelayQueues::new(waits).delays().map(delay_name).collect()
    }

    /// Queues in which events and retries wait, without the prefix.
    pub fn queues(&self) -> Vec<String> {
        let delays = self.delays().into_iter().map(|delay| format!("delay.{delay}"));
        ["events", "deliveries"].map(str::to_owned).into_iter().chain(delays).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.ingest = None;
        if thread::panicking() {
            let trails = self.trails.lock().unwrap_or_else(PoisonError::into_inner);
            trails.iter().for_each(|trail| eprint!("{}", trail.report()));
        }
        let (servers, name) = (self.servers.clone(), self.database.clone());
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
