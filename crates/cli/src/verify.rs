//! `fanfare verify`: proves on a running deployment that no accepted event is lost.

mod books;
mod publish;
mod receiver;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use fanfare_broker::{BrokerSettings, Publisher};
use fanfare_domain::{
    api_key::{Role, Token},
    delivery::delay::DelayQueues,
    dialect::DEFAULT_DIALECT,
    duration::parse_duration,
    ids::{ApplicationId, KeyId},
};
use fanfare_service::Environment;
use fanfare_store::{Keyring, NewApplication, Store, StoreSettings};
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{Instant, interval, sleep},
};
use tokio_util::sync::CancellationToken;

use crate::{
    json_client::JsonClient,
    verify::{books::Books, publish::Doors},
};

/// Interval of progress lines.
const PROGRESS: Duration = Duration::from_secs(10);

/// Interval of looks while deliveries settle.
const LOOK: Duration = Duration::from_millis(500);

/// Longest wait until ingest knows the new key.
const KEY_TIMEOUT: Duration = Duration::from_secs(20);

#[derive(Args)]
pub(crate) struct VerifyArguments {
    /// URL of the API.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    api: String,
    /// URL at which dispatchers reach the receiver of this command. Default: http:// and the address of --listen.
    #[arg(long)]
    url: Option<String>,
    /// Address and port of the receiver.
    #[arg(long, default_value = "127.0.0.1:8099")]
    listen: SocketAddr,
    /// Events a second.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Time of publishing, such as 30s or 10m.
    #[arg(long = "for", default_value = "1m", value_parser = duration)]
    time: Duration,
    /// Doors for events: http, amqp or both.
    #[arg(long, value_delimiter = ',', default_value = "http,amqp")]
    doors: Vec<Door>,
    /// Percentage of requests that the receiver answers with 503.
    #[arg(long, default_value_t = 0, value_parser = clap::value_parser!(u8).range(0..=90))]
    fail: u8,
    /// Longest wait for the last deliveries.
    #[arg(long, default_value = "5m", value_parser = duration)]
    settle: Duration,
    /// Prints progress and result as JSON, one object per line.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Door {
    Http,
    Amqp,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a whole number with the unit ms, s, m, h or d, such as 10m".to_owned())
}

/// Servers of the deployment.
pub(crate) struct VerifySettings {
    broker: BrokerSettings,
    store: StoreSettings,
}

impl VerifySettings {
    pub(crate) fn read(environment: &mut Environment) -> Option<Self> {
        let (broker, prefix, database) = (environment.broker(), environment.prefix(), environment.database());
        let dialects = environment.dialects();
        let (url, credentials) = database?;
        let delays = DelayQueues::new(dialects?.waits());
        Some(Self {
            broker: BrokerSettings::new(broker?, prefix?, delays, "fanfare verify"),
            store: StoreSettings { url, credentials, connections: 2, keyring: Keyring::empty() },
        })
    }
}

/// Runs the whole proof.
///
/// # Errors
/// If the endpoint cannot be set up, an accepted event is lost, or a repeat has no explanation.
pub(crate) async fn run(settings: VerifySettings, arguments: VerifyArguments) -> anyhow::Result<()> {
    let VerifySettings { broker, store } = settings;
    let store = Store::new(store)?;
    let books = Arc::new(Books::default());
    let stop = CancellationToken::new();
    let _stop = stop.clone().drop_guard();
    let listener = TcpListener::bind(arguments.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let address = listener.local_addr()?;
    tokio::spawn(receiver::serve(listener, Arc::clone(&books), arguments.fail, stop.clone()));
    let trial = Trial::begin(&store, &arguments, address).await?;
    let result = trial.prove(&store, broker, &arguments, &books, &stop).await;
    trial.end(&store).await;
    result
}

/// The application, the endpoint and the key of a proof.
struct Trial {
    application: ApplicationId,
    key: KeyId,
    webhook: String,
    api: String,
    client: JsonClient,
}

impl Trial {
    async fn begin(store: &Store, arguments: &VerifyArguments, address: SocketAddr) -> anyhow::Result<Self> {
        let id = ApplicationId::new(Timestamp::now(), rand::random());
        let name = format!("verify-{:08x}", rand::random::<u32>());
        let new = NewApplication { id, name, dialect: DEFAULT_DIALECT.to_owned(), is_strict: false, email: None };
        store.create_application(&new).await.context("cannot create an application")?;
        let token = Token::from_random(KeyId::new(Timestamp::now(), rand::random()), rand::random());
        store.create_key(&token, Role::Manage, Some(id), None).await.context("cannot create a key")?;
        let client = JsonClient::new(format!("Bearer {}", token.reveal()))?;
        let api = format!("{}/api/v1", arguments.api.trim_end_matches('/'));
        let url = arguments.url.clone().unwrap_or_else(|| format!("http://{address}/"));
        let mut trial = Self { application: id, key: token.key, webhook: String::new(), api, client };
        trial.await_key().await?;
        let webhook = json!({ "url": url, "events": ["*"], "schedule": ["5s", "5s", "60s", "60s", "5m"] });
        let webhook = trial.call(Method::POST, "webhooks", &webhook).await;
        let webhook = webhook.with_context(|| format!("the endpoint {url} is not permitted"))?;
        trial.webhook = webhook["id"].as_str().unwrap_or_default().to_owned();
        let path = format!("webhooks/{}/test", trial.webhook);
        let tested = trial.call(Method::POST, &path, &json!({ "type": "verify.test", "data": {} })).await?;
        if tested["delivered"] != true && arguments.fail == 0 {
            bail!("a test event does not reach {url} ({}): give the URL of this command by --url", tested["outcome"]);
        }
        Ok(trial)
    }

    /// Waits until ingest has loaded the key.
    async fn await_key(&self) -> anyhow::Result<()> {
        let end = Instant::now() + KEY_TIMEOUT;
        loop {
            match self.call(Method::GET, "webhooks", &Value::Null).await {
                Err(error) if Instant::now() > end => return Err(error.context("--api: the API refuses a new key")),
                Err(_) => sleep(LOOK).await,
                Ok(_) => return Ok(()),
            }
        }
    }

    /// Calls the API. Returns the data of the answer.
    async fn call(&self, method: Method, path: &str, body: &Value) -> anyhow::Result<Value> {
        let url = format!("{}/{path}", self.api);
        let body = (!body.is_null()).then_some(body);
        let (status, answer) = self.client.send(method, &url, body).await?;
        if !status.is_success() {
            let message = answer["error"]["message"].as_str().unwrap_or_default();
            return Err(anyhow!("{url} answers {}: {message}", status.as_u16()));
        }
        Ok(answer["data"].clone())
    }

    async fn prove(
        &self,
        store: &Store,
        broker: BrokerSettings,
        arguments: &VerifyArguments,
        books: &Arc<Books>,
        stop: &CancellationToken,
    ) -> anyhow::Result<()> {
        let doors = Doors {
            doors: arguments.doors.clone(),
            topology: broker.topology().clone(),
            publisher: Publisher::start(broker, stop.clone()),
            client: self.client.clone(),
            events: format!("{}/events", self.api),
            application: self.application,
        };
        let publishing = CancellationToken::new();
        let began = Instant::now();
        let publish = tokio::spawn(publish::run(doors, arguments.rate, Arc::clone(books), publishing.clone()));
        let mut progress = interval(PROGRESS);
        progress.tick().await;
        loop {
            tokio::select! {
                () = sleep(arguments.time.saturating_sub(began.elapsed())) => break,
                _ = tokio::signal::ctrl_c() => break,
                _ = progress.tick() => tell(books, began, arguments.json),
            }
        }
        publishing.cancel();
        let settled = async {
            // Publishes that were not accepted go on until they are.
            let _ = publish.await;
            while books.waiting() > 0 {
                sleep(LOOK).await;
            }
        };
        let _ = tokio::time::timeout(arguments.settle, settled).await;
        tell(books, began, arguments.json);
        let unknown = store.unknown_attempts(self.application).await.context("cannot read the attempts")?;
        self.conclude(books, usize::try_from(unknown).unwrap_or(0), arguments.json)
    }

    /// Prints the result, and fails if an event is lost or a repeat has no explanation.
    fn conclude(&self, books: &Books, unknown: usize, is_json: bool) -> anyhow::Result<()> {
        let result = books.result();
        if is_json {
            println!("{}", result.to_json(unknown));
        } else {
            println!("{}", result.to_text(unknown));
        }
        if result.lost > 0 {
            bail!(
                "{} accepted events did not arrive, such as {}: GET {}/events/ID shows their deliveries",
                result.lost,
                books.lost(5).join(", "),
                self.api
            );
        }
        if result.repeats > unknown {
            bail!("{} repeats, but only {unknown} attempts whose process died", result.repeats);
        }
        Ok(())
    }

    /// Disables the endpoint, and revokes the key.
    async fn end(&self, store: &Store) {
        let disabled = self.call(Method::POST, &format!("webhooks/{}/disable", self.webhook), &Value::Null).await;
        if let Err(error) = disabled {
            eprintln!("cannot disable the endpoint of the application {}: {error:#}", self.application);
        }
        if let Err(error) = store.revoke_key(self.key).await {
            eprintln!("cannot revoke the key {}: {error}", self.key);
        }
    }
}

fn tell(books: &Books, began: Instant, is_json: bool) {
    let seconds = began.elapsed().as_secs();
    let result = books.result();
    if is_json {
        println!("{}", json!({ "seconds": seconds, "progress": result.progress() }));
    } else {
        println!("{:>3}:{:02}  {}", seconds / 60, seconds % 60, result.line());
    }
}
