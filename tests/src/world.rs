//! The environment of a test: an application with a receiver and clients, in a stack of its own or in a shared stack.

pub mod database;
pub mod dialects;
pub mod process;
pub mod release;
mod stack;

use std::{sync::Arc, thread};

use fanfare_domain::ids::ApplicationId;
use serde_json::{Value, json};
use tokio::sync::Mutex;

use crate::{
    clients::{amqp::Broker, api::Client},
    patience::until,
    receiver::Receiver,
    servers::instance::Servers,
    world::{
        database::connect,
        dialects::Waits,
        process::{Process, Variables, get},
        release::Release,
        stack::Stack,
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
    /// The programs, and the schema at the beginning.
    pub release: Release,
}

impl Setup {
    /// The shared servers, the default dialect, short waits.
    pub fn new(variables: &[(&str, &str)]) -> Self {
        Self::on(Servers::given(), variables)
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
            release: Release::present(),
        }
    }
}

/// An application with a receiver and a client, in a stack of its own or in a shared stack. The drop of the last world
/// of a stack removes database, queues and files. A drop by a panic prints the logs of all processes.
pub struct World {
    stack: Arc<Stack>,
    /// Environment variables of the processes.
    pub variables: Variables,
    /// The programs of all processes started from now on.
    pub release: Release,
    /// The receiver of all endpoints.
    pub receiver: Receiver,
    /// The application's id.
    pub application: String,
    /// A key with the role `manage` for the application.
    pub key: String,
    /// The own ingest. Ends before the stack.
    ingest: Option<Process>,
    client: Option<Client>,
    /// The connection of [`Self::count`].
    connection: Mutex<Option<tokio_postgres::Client>>,
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
    /// A world of its own, on the servers of `make test`, with an application and a running ingest.
    pub async fn new() -> Self {
        Self::with(Servers::given(), &[]).await
    }

    /// Like [`Self::new`], with environment variables for the processes.
    pub async fn of_variables(variables: &[(&str, &str)]) -> Self {
        Self::with(Servers::given(), variables).await
    }

    /// Like [`Self::new`], on these servers, with environment variables for the processes.
    pub async fn with(servers: Servers, variables: &[(&str, &str)]) -> Self {
        Self::of(Setup::on(servers, variables)).await
    }

    /// Like [`Self::of_variables`], with the comma-separated waits (`5s,5s`) in all dialects.
    pub async fn of_waits(waits: &str, variables: &[(&str, &str)]) -> Self {
        Self::of(Setup { waits: Waits::of(waits), ..Setup::new(variables) }).await
    }

    /// Creates database, dialects and application, and starts ingest.
    pub async fn of(setup: Setup) -> Self {
        let mut world = Self::with_stack(Arc::new(Stack::create(&setup).await), &setup).await;
        world.start_ingest().await;
        world
    }

    /// An application in a stack that other running tests use, too, with ingest and dispatcher. For tests that stop no
    /// process, and read only rows of their own application.
    pub async fn shared() -> Self {
        Self::shared_of(Setup::new(&[])).await
    }

    /// Like [`Self::shared`], with this dialect for the application.
    pub async fn shared_of_dialect(dialect: &str) -> Self {
        Self::shared_of(Setup { dialect: dialect.to_owned(), ..Setup::new(&[]) }).await
    }

    /// Like [`Self::shared`], beside tests with the same servers, variables, waits and timeout.
    pub async fn shared_of(setup: Setup) -> Self {
        let mut world = Self::with_stack(Stack::shared(&setup).await, &setup).await;
        let address = world.ingest().address("serving the API").await;
        let client = Client::new(address, &world.key);
        client.accepted().await;
        world.client = Some(client);
        world
    }

    async fn with_stack(stack: Arc<Stack>, Setup { dialect, arguments, release, .. }: &Setup) -> Self {
        let variables = stack.variables.clone();
        let arguments = arguments.iter().map(String::as_str);
        let create: Vec<&str> = ["app", "create", "test", "--dialect", dialect].into_iter().chain(arguments).collect();
        let application = release.fanfare(&variables, &create);
        let key = release.fanfare(&variables, &["key", "create", "--role", "manage", "--application", &application]);
        let receiver = Receiver::start().await;
        let release = release.clone();
        let (ingest, client, connection) = (None, None, Mutex::default());
        Self { stack, variables, release, receiver, application, key, ingest, client, connection }
    }

    /// Starts an ingest, in place of a running ingest, and waits until the new ingest is ready.
    pub async fn start_ingest(&mut self) {
        self.start_ingest_with(&[]).await;
    }

    /// Like [`Self::start_ingest`], with further environment variables.
    pub async fn start_ingest_with(&mut self, variables: &[(&str, &str)]) {
        let ingest = self.process_with("ingest", variables);
        let address = ingest.address("serving the API").await;
        ingest.ready().await;
        self.client = Some(Client::new(address, &self.key));
        self.ingest = Some(ingest);
    }

    /// The running ingest.
    ///
    /// # Panics
    /// If [`Self::take_ingest`] removed the process.
    pub fn ingest(&self) -> &Process {
        self.ingest.as_ref().or_else(|| self.stack.ingest()).expect("ingest runs")
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
        dispatcher.ready().await;
        let address = dispatcher.address("serving health and metrics").await;
        self.stack.dispatchers().push(address);
        dispatcher
    }

    /// Starts a dispatcher without waiting.
    pub fn dispatcher_starting(&self) -> Process {
        self.process_with("dispatcher", &[])
    }

    /// Starts a service with further environment variables, without waiting.
    pub fn process_with(&self, name: &'static str, variables: &[(&str, &str)]) -> Process {
        assert!(!self.stack.is_shared(), "other tests use the stack: this test needs World::new() or World::of()");
        let mut all = self.variables.clone();
        all.extend(variables.iter().map(|&(name, value)| (name.to_owned(), value.to_owned())));
        self.stack.start(&self.release, name, &all)
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
        let application = self.release.fanfare(&self.variables, &["app", "create", "other"]);
        let client = self.client_of(&["--role", "manage", "--application", &application]).await;
        (application, client)
    }

    /// A client with a new key of the role `admin`.
    pub async fn admin(&self) -> Client {
        self.client_of(&["--role", "admin"]).await
    }

    /// A client with a new key of these arguments of `fanfare key create`.
    pub async fn client_of(&self, arguments: &[&str]) -> Client {
        let client = self.client().with_key(&self.create_key(arguments));
        client.accepted().await;
        client
    }

    /// Creates a key with these arguments of `fanfare key create`.
    pub fn create_key(&self, arguments: &[&str]) -> String {
        self.release.fanfare(&self.variables, &[&["key", "create"], arguments].concat())
    }

    /// Connects an AMQP publisher with the world's prefix.
    ///
    /// # Panics
    /// If the broker is unavailable.
    pub async fn broker(&self) -> Broker {
        Broker::connect(&self.variables["AMQP_URL"], &self.stack.name).await.expect("the broker")
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
        let addresses = self.stack.dispatchers().clone();
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

    /// Queues in which events and retries wait, without the prefix.
    pub fn queues(&self) -> Vec<String> {
        self.stack.queues()
    }

    /// A connection to the world's database, for facts that the API does not show.
    ///
    /// # Panics
    /// If the database is unavailable.
    pub async fn database(&self) -> tokio_postgres::Client {
        connect(&self.variables["DATABASE_URL"]).await.expect("the database")
    }

    /// Number of the application's rows in a table that fulfil a condition.
    ///
    /// # Panics
    /// If the table has no application, or the condition is invalid.
    pub async fn rows(&self, table: &str, condition: &str) -> i64 {
        let application = self.application.parse::<ApplicationId>().expect("an id").0;
        self.count(&format!("SELECT count(*) FROM {table} WHERE application_id = '{application}' AND ({condition})"))
            .await
    }

    /// A single number from the database, about all applications of the stack.
    ///
    /// # Panics
    /// If the query returns no single row with a number.
    pub async fn count(&self, query: &str) -> i64 {
        let mut connection = self.connection.lock().await;
        // Each new connection costs PostgreSQL 50 ms: the caches of all partitions.
        if connection.as_ref().is_none_or(tokio_postgres::Client::is_closed) {
            *connection = Some(self.database().await);
        }
        let connection = connection.as_ref().expect("opened above");
        connection.query_one(query, &[]).await.expect("a number").get(0)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // The report needs the last log lines of ingest.
        self.ingest = None;
        // Other worlds keep a shared stack. All other stacks print their logs when they are dropped.
        if thread::panicking() && self.stack.is_shared() {
            self.stack.report();
        }
    }
}
