//! A world for each test: a database and a prefix of its own, its processes, a receiver and clients.

use std::{
    collections::HashMap,
    fs,
    net::SocketAddr,
    path::PathBuf,
    sync::{Mutex, PoisonError},
    thread,
};

use fanfare_domain::{
    delay::{DelayQueues, delay_name},
    wait::parse_wait,
};
use serde_json::{Value, json};
use tokio_postgres::NoTls;

use crate::{
    broker::Broker,
    client::Client,
    dialects::{self, Waits},
    instance::Servers,
    patience::until,
    process::{Process, Variables, fanfare},
    receiver::Receiver,
};

/// What a world is to be like.
#[derive(Debug, Clone)]
pub struct Setup {
    /// The servers.
    pub servers: Servers,
    /// Variables for its processes, beside or instead of the usual ones.
    pub variables: Vec<(String, String)>,
    /// The application's dialect.
    pub dialect: String,
    /// Further arguments for the command that creates the application.
    pub arguments: Vec<String>,
    /// The waits of all dialects.
    pub waits: Waits,
    /// The deadline of attempts in all dialects; none for that of each.
    pub timeout: Option<String>,
}

impl Setup {
    /// A world on the shared servers, of the default dialect with short waits.
    pub fn new(variables: &[(&str, &str)]) -> Self {
        Self::on(Servers::shared(), variables)
    }

    /// The same on these servers.
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

/// One test's own Fanfare. What it made is removed when it is dropped.
pub struct World {
    servers: Servers,
    database: String,
    folder: PathBuf,
    delays: Vec<String>,
    /// What its processes are started with.
    pub variables: Variables,
    /// The receiver.
    pub receiver: Receiver,
    /// The application.
    pub application: String,
    /// A key that manages it.
    pub key: String,
    ingest: Option<Process>,
    client: Option<Client>,
    /// Where the dispatchers' metrics are.
    dispatchers: Mutex<Vec<SocketAddr>>,
}

/// An endpoint that a test made.
#[derive(Debug, Clone)]
pub struct Endpoint {
    /// Its id.
    pub id: String,
    /// Its secret.
    pub secret: String,
    /// Its path at the receiver.
    pub path: String,
}

impl World {
    /// A world on the shared servers, with an application and a running ingest.
    pub async fn new() -> Self {
        Self::with(Servers::shared(), &[]).await
    }

    /// A world with these variables for its processes.
    pub async fn on_shared(variables: &[(&str, &str)]) -> Self {
        Self::with(Servers::shared(), variables).await
    }

    /// A world on these servers.
    pub async fn with(servers: Servers, variables: &[(&str, &str)]) -> Self {
        Self::of(Setup::on(servers, variables)).await
    }

    /// A world on the shared servers whose dialects have these waits, written as `5s,5s`.
    pub async fn of_waits(waits: &str, variables: &[(&str, &str)]) -> Self {
        Self::of(Setup { waits: Waits::of(waits), ..Setup::new(variables) }).await
    }

    /// A world on the shared servers whose application has this dialect.
    pub async fn of_dialect(dialect: &str, variables: &[(&str, &str)]) -> Self {
        Self::of(Setup { dialect: dialect.to_owned(), ..Setup::new(variables) }).await
    }

    /// A world.
    pub async fn of(setup: Setup) -> Self {
        let Setup { servers, variables, dialect, arguments, waits, timeout } = setup;
        let name = format!("t{:032x}", rand::random::<u128>());
        let database_url = create_database(&servers.database_url, &name).await;
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
                // Many tests are about endpoints that fail again and again, each time at once.
                ("FANFARE_BREAKER_AFTER", "1000"),
                ("FANFARE_TAKEOVER_AFTER", "2s"),
                ("FANFARE_ADDRESS", "127.0.0.1:0"),
                ("FANFARE_OPERATIONS_ADDRESS", "127.0.0.1:0"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        all.extend(variables);
        fanfare(&all, &["migrate"]);
        unite(&database_url).await;
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
        };
        world.start_ingest().await;
        world
    }

    /// Starts (another) ingest, and waits until it is ready.
    pub async fn start_ingest(&mut self) {
        self.start_ingest_with(&[]).await;
    }

    /// The same, with further variables.
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
    /// When it was taken.
    pub fn ingest(&self) -> &Process {
        self.ingest.as_ref().expect("ingest runs")
    }

    /// The running ingest, to be killed or ended.
    ///
    /// # Panics
    /// When it was taken before.
    pub fn take_ingest(&mut self) -> Process {
        self.ingest.take().expect("ingest runs")
    }

    /// Starts a dispatcher, and waits until it is ready.
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

    /// Starts a service with further variables, without waiting.
    pub fn process_with(&self, name: &'static str, variables: &[(&str, &str)]) -> Process {
        let mut all = self.variables.clone();
        all.extend(variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        Process::start(name, &all)
    }

    /// A client with the application's key.
    ///
    /// # Panics
    /// Before ingest was started.
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("ingest was started")
    }

    /// Another application, and a client that manages it, as soon as ingest knows its key.
    pub async fn other_application(&self) -> (String, Client) {
        let application = fanfare(&self.variables, &["app", "create", "other"]);
        let key = self.create_key(&["--role", "manage", "--application", &application]);
        let client = self.client().with_key(&key);
        until("the key to be known", async || (client.get("webhooks").await.status == 200).then_some(())).await;
        (application, client)
    }

    /// Creates a key of another role.
    pub fn create_key(&self, arguments: &[&str]) -> String {
        fanfare(&self.variables, &[&["key", "create"], arguments].concat())
    }

    /// A connection to the AMQP door.
    ///
    /// # Panics
    /// When the broker is away.
    pub async fn broker(&self) -> Broker {
        Broker::connect(&self.variables["AMQP_URL"], &self.database).await.expect("the broker")
    }

    /// Describes an event type of the application's own, so that endpoints can subscribe to it.
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

    /// Changes an endpoint, which must succeed, and waits until every dispatcher knows.
    pub async fn change(&self, endpoint: &Endpoint, change: &Value) {
        self.client().patch(&format!("webhooks/{}", endpoint.id), change).await.data();
        self.known().await;
    }

    /// Waits until every dispatcher that runs knows what the database holds: for a moment after a change,
    /// they may still work by what was before.
    pub async fn known(&self) {
        let version = self.count("SELECT sum(version)::bigint FROM applications").await;
        let addresses = self.dispatchers.lock().unwrap_or_else(PoisonError::into_inner).clone();
        for address in addresses {
            until("a dispatcher to know the newest endpoints", async || {
                // One that was killed has nothing to know.
                let Some(metrics) = get(address, "metrics").await else { return Some(()) };
                let line = metrics.lines().find_map(|line| line.strip_prefix("fanfare_configuration_version "))?;
                // Somebody else may have changed something since.
                (line.parse::<i64>().ok()? >= version).then_some(())
            })
            .await;
        }
    }

    /// Publishes an event over HTTP, which must be taken, and gives its id.
    ///
    /// # Panics
    /// When it is not.
    pub async fn publish(&self, event: &Value) -> String {
        let answer = self.client().post("events", event).await;
        assert_eq!(answer.status, 202, "{}", answer.body);
        answer.data()["id"].as_str().expect("an id").to_owned()
    }

    /// The newest deliveries of the application, at most 100.
    pub async fn deliveries(&self, query: &str) -> Vec<Value> {
        let answer = self.client().get(&format!("deliveries?limit=100&{query}")).await;
        answer.data().as_array().cloned().unwrap_or_default()
    }

    /// Waits until there are so many deliveries that the query finds, and gives them.
    pub async fn wait_for_deliveries(&self, query: &str, count: usize) -> Vec<Value> {
        until(&format!("{count} deliveries with {query}"), async || {
            let deliveries = self.deliveries(query).await;
            (deliveries.len() >= count).then_some(deliveries)
        })
        .await
    }

    /// A delivery with its attempts.
    pub async fn delivery(&self, id: &str) -> Value {
        self.client().get(&format!("deliveries/{id}")).await.data().clone()
    }

    /// A connection to the world's database, for what the API does not show.
    ///
    /// # Panics
    /// When the database is away.
    pub async fn database(&self) -> tokio_postgres::Client {
        connect(&self.variables["DATABASE_URL"]).await.expect("the database")
    }

    /// One number from the database.
    ///
    /// # Panics
    /// When the query gives none.
    pub async fn count(&self, query: &str) -> i64 {
        self.database().await.query_one(query, &[]).await.expect("a number").get(0)
    }
}

/// Waits until a process says that it is ready.
pub async fn ready(process: &Process) {
    let address = process.address("serving health and metrics").await;
    until("a process to be ready", async || {
        let answer = get(address, "readyz").await?;
        answer.starts_with("ready").then_some(())
    })
    .await;
}

/// What a process's listener for operators answers.
pub async fn get(address: SocketAddr, path: &str) -> Option<String> {
    use http_body_util::BodyExt;
    let client = hyper_util::client::legacy::Client::builder(hyper_util::rt::TokioExecutor::new())
        .build_http::<http_body_util::Empty<bytes::Bytes>>();
    let response = client.get(format!("http://{address}/{path}").parse().ok()?).await.ok()?;
    let bytes = response.into_body().collect().await.ok()?.to_bytes();
    String::from_utf8(bytes.to_vec()).ok()
}

async fn connect(url: &str) -> Result<tokio_postgres::Client, tokio_postgres::Error> {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await?;
    tokio::spawn(connection);
    Ok(client)
}

/// Views that show deliveries and attempts wherever they are stored.
const VIEWS: &str = "
CREATE VIEW all_deliveries AS
SELECT id, delivery_accepted_at(id) AS accepted_at, event_id, application_id, endpoint_id, state, reason, attempt, failures,
       replay_id, due_at, expires_at
FROM open_deliveries
UNION ALL
SELECT id, delivery_accepted_at(id), event_id, application_id, endpoint_id, state, reason, attempt, failures, replay_id,
       NULL, NULL
FROM deliveries d WHERE NOT EXISTS (SELECT FROM open_deliveries o WHERE o.id = d.id);
CREATE VIEW all_attempts AS
SELECT delivery_id, attempt, delivery_accepted_at(delivery_id) AS accepted_at, endpoint_id, started_at, outcome, status, error
FROM attempts
UNION ALL
SELECT id, 1, delivery_accepted_at(id), endpoint_id, started_at, 'answered', status, NULL
FROM deliveries WHERE started_at IS NOT NULL";

async fn unite(url: &str) {
    let client = connect(url).await.expect("the database answers");
    client.batch_execute(VIEWS).await.expect("the views");
}

async fn create_database(url: &str, name: &str) -> String {
    let client = connect(url).await.expect("the database answers");
    client.batch_execute(&format!("CREATE DATABASE {name}")).await.expect("the database's user may create databases");
    let (start, end) = url.rsplit_once('/').expect("the database's URL ends with its name");
    let parameters = end.split_once('?').map(|(_, parameters)| format!("?{parameters}")).unwrap_or_default();
    format!("{start}/{name}{parameters}")
}

impl Drop for World {
    fn drop(&mut self) {
        self.ingest = None;
        let (servers, name) = (self.servers.clone(), self.database.clone());
        let _ = fs::remove_dir_all(&self.folder);
        let waits = std::mem::take(&mut self.delays).into_iter().filter_map(|wait| parse_wait(&wait));
        let delays: Vec<String> = DelayQueues::new(waits).delays().map(delay_name).collect();
        // Its own thread and runtime: a drop cannot wait on the test's.
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
