//! A world for each test: a database and a prefix of its own, its processes, a receiver and clients.

use std::{
    collections::HashMap,
    net::SocketAddr,
    sync::{Mutex, PoisonError},
    thread,
};

use serde_json::{Value, json};
use tokio_postgres::NoTls;

use crate::{
    broker::Broker,
    client::Client,
    instance::Servers,
    patience::until,
    process::{Process, Variables, fanfare},
    receiver::Receiver,
};

/// A schedule that a test can wait for.
pub const SHORT_SCHEDULE: &str = "1s,1s,1s,1s,1s";

/// One test's own Fanfare. What it made is removed when it is dropped.
pub struct World {
    servers: Servers,
    database: String,
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
        let name = format!("t{:032x}", rand::random::<u128>());
        let database_url = create_database(&servers.database_url, &name).await;
        let mut all: Variables = HashMap::from(
            [
                ("AMQP_URL", servers.amqp_url.as_str()),
                ("DATABASE_URL", &database_url),
                ("FANFARE_PREFIX", &name),
                ("FANFARE_SECRET_KEYS", "test:AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8="),
                ("FANFARE_SCHEDULE", SHORT_SCHEDULE),
                ("FANFARE_ATTEMPT_TIMEOUT", "2s"),
                ("FANFARE_ALLOW_ADDRESSES", "127.0.0.0/8"),
                ("FANFARE_HTTPS_ONLY", "false"),
                ("FANFARE_ADDRESS", "127.0.0.1:0"),
                ("FANFARE_OPERATIONS_ADDRESS", "127.0.0.1:0"),
            ]
            .map(|(name, value)| (name.to_owned(), value.to_owned())),
        );
        all.extend(variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        fanfare(&all, &["migrate"]);
        let application = fanfare(&all, &["app", "create", "test"]);
        let key = fanfare(&all, &["key", "create", "--role", "manage", "--application", &application]);
        let receiver = Receiver::start().await;
        let mut world = Self {
            servers,
            database: name,
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
        let ingest = Process::start("ingest", &self.variables);
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
        Process::start("dispatcher", &self.variables)
    }

    /// A client with the application's key.
    ///
    /// # Panics
    /// Before ingest was started.
    pub fn client(&self) -> &Client {
        self.client.as_ref().expect("ingest was started")
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
                (line.parse() == Ok(version)).then_some(())
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
        let schedule = self.variables["FANFARE_SCHEDULE"].clone();
        let fixed = ["1s", "5s", "30s", "60s", "5m", "15m", "60m", "120m"].map(str::to_owned);
        let delays: Vec<String> = schedule.split(',').map(str::to_owned).chain(fixed).collect();
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
