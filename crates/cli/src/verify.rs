//! `fanfare verify`: publishes through a running deployment, receives the deliveries, and compares the accounts.

mod accounts;
mod publish;
mod receiver;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, anyhow, bail};
use clap::{Args, ValueEnum};
use fanfare_broker::{BrokerSettings, Publisher};
use fanfare_domain::{
    access::api_key::{Role, Token},
    dialect::DEFAULT_DIALECT,
    endpoint::EndpointStatus,
    ids::{ApplicationId, EndpointId, KeyId},
    time::parse_duration,
};
use fanfare_service::stop_signal;
use fanfare_store::{ApplicationCounts, EndpointSettings, NewApplication, Store};
use http::Method;
use jiff::Timestamp;
use serde_json::{Value, json};
use tokio::{
    net::TcpListener,
    time::{Instant, interval, sleep, timeout_at},
};
use tokio_util::sync::CancellationToken;

use crate::{
    json_client::JsonClient,
    verify::{accounts::Accounts, publish::Interfaces},
};

/// Interval of progress lines.
const PROGRESS: Duration = Duration::from_secs(10);

/// Longest wait for the connection to the broker before the first event.
const CONNECT_WITHIN: Duration = Duration::from_secs(10);

/// Interval of looks while deliveries settle.
const LOOK: Duration = Duration::from_millis(500);

/// Longest wait until ingest knows the new key.
const KEY_TIMEOUT: Duration = Duration::from_secs(20);

/// Lifetime of the key beyond the times of publishing and settling, in case the command is killed.
const KEY_REST: Duration = Duration::from_secs(3600);

/// Number of waits of 5 s in the endpoint's schedule: enough for a receiver that refuses most requests.
const WAITS: usize = 50;

/// Ids of missing events in the result.
const SHOWN: usize = 5;

#[derive(Args)]
pub(crate) struct VerifyArguments {
    /// URL of the API.
    #[arg(long, default_value = "http://127.0.0.1:8080")]
    api: String,
    /// URL at which dispatchers reach the receiver of this command; a path of this run is added. Default: http:// and
    /// the address of --listen.
    #[arg(long)]
    url: Option<String>,
    /// Address and port of the receiver.
    #[arg(long, default_value = "127.0.0.1:8099")]
    listen: SocketAddr,
    /// Events per second.
    #[arg(long, default_value_t = 50, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    rate: u32,
    /// Time of publishing, such as 30s or 10m.
    #[arg(long = "for", default_value = "1m", value_parser = duration)]
    time: Duration,
    /// Interfaces for events: http, amqp or both.
    #[arg(long, value_delimiter = ',', default_value = "http,amqp")]
    interfaces: Vec<Interface>,
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
pub(crate) enum Interface {
    Http,
    Amqp,
}

fn duration(text: &str) -> Result<Duration, String> {
    parse_duration(text).ok_or_else(|| "expected a whole number with the unit ms, s, m, h or d, such as 10m".to_owned())
}

/// Runs until the end of the given times, or until SIGINT or SIGTERM; then waits for the last deliveries. A second
/// signal ends the process.
///
/// # Errors
/// If the endpoint cannot be set up, or the deployment breaks a promise.
pub(crate) async fn run(store: &Store, broker: BrokerSettings, arguments: VerifyArguments) -> anyhow::Result<()> {
    let end = CancellationToken::new();
    let _end = end.clone().drop_guard();
    let stop = stop_signal()?;
    let listener = TcpListener::bind(arguments.listen).await;
    let listener = listener.with_context(|| format!("cannot listen on {}", arguments.listen))?;
    let path = format!("/{:016x}", rand::random::<u64>());
    let base = match &arguments.url {
        Some(url) => url.trim_end_matches('/').to_owned(),
        None => format!("http://{}", listener.local_addr()?),
    };
    let accounts = Arc::<Accounts>::default();
    tokio::spawn(receiver::serve(listener, path.clone(), Arc::clone(&accounts), arguments.fail, end.clone()));
    let mut run = Run::new(store, &arguments, accounts).await?;
    let result = match run.set_up(&format!("{base}{path}")).await {
        Ok(()) => run.verify(store, broker, &arguments, &stop, &end).await,
        Err(error) => Err(error),
    };
    run.clean_up(store).await;
    result
}

/// Application, key, endpoint and accounts of a run.
struct Run {
    application: ApplicationId,
    key: KeyId,
    endpoint: Option<EndpointId>,
    api: String,
    client: JsonClient,
    accounts: Arc<Accounts>,
    json: bool,
}

impl Run {
    /// Creates the application and the key.
    async fn new(store: &Store, arguments: &VerifyArguments, accounts: Arc<Accounts>) -> anyhow::Result<Self> {
        let application = ApplicationId::new(Timestamp::now(), rand::random());
        let name = format!("verify-{:08x}", rand::random::<u32>());
        let new = NewApplication {
            id: application,
            name,
            dialect: DEFAULT_DIALECT.to_owned(),
            is_strict: false,
            email: None,
        };
        store.create_application(&new).await.context("cannot create an application")?;
        let token = Token::from_random(KeyId::new(Timestamp::now(), rand::random()), rand::random());
        let lifetime = Some(arguments.time + arguments.settle + KEY_REST);
        store.create_key(&token, Role::Manage, Some(application), lifetime).await.context("cannot create a key")?;
        let client = JsonClient::new(format!("Bearer {}", token.reveal()))?;
        let api = format!("{}/api/v1", arguments.api.trim_end_matches('/'));
        Ok(Self { application, key: token.key, endpoint: None, api, client, accounts, json: arguments.json })
    }

    /// Creates the endpoint, and sends a test event.
    async fn set_up(&mut self, url: &str) -> anyhow::Result<()> {
        self.await_key().await?;
        let webhook = json!({ "url": url, "events": ["*"], "schedule": vec!["5s"; WAITS] });
        let webhook = self.call(Method::POST, "webhooks", &webhook).await;
        let webhook = webhook.with_context(|| format!("the endpoint {url} is not permitted"))?;
        let id = webhook["id"].as_str().unwrap_or_default();
        self.endpoint = Some(id.parse().context("the API answers without the id of the endpoint")?);
        let test = json!({ "type": "verify.test", "data": {} });
        let tested = self.call(Method::POST, &format!("webhooks/{id}/test"), &test).await?;
        if tested["delivered"] != true {
            bail!("a test event does not reach {url} ({}): give the URL of this command by --url", tested["outcome"]);
        }
        Ok(())
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
        let (status, answer) = self.client.send(method, &url, body.map(Value::to_string)).await?;
        if !status.is_success() {
            let message = answer["error"]["message"].as_str().unwrap_or_default();
            return Err(anyhow!("{url} answers {}: {message}", status.as_u16()));
        }
        Ok(answer["data"].clone())
    }

    async fn verify(
        &self,
        store: &Store,
        broker: BrokerSettings,
        arguments: &VerifyArguments,
        stop: &CancellationToken,
        end: &CancellationToken,
    ) -> anyhow::Result<()> {
        let (topology, publisher) = (broker.topology().clone(), Publisher::start(broker, end.clone()));
        // Events before the connection would be refused. A broker that is away is reported with each refused event.
        if arguments.interfaces.contains(&Interface::Amqp) {
            let connected = tokio::time::timeout(CONNECT_WITHIN, publisher.until_ready());
            let _ = stop.run_until_cancelled(connected).await;
        }
        let interfaces = Interfaces {
            interfaces: arguments.interfaces.clone(),
            topology,
            publisher,
            client: self.client.clone(),
            events: format!("{}/events", self.api),
            application: self.application,
        };
        let (began, publishing) = (Instant::now(), CancellationToken::new());
        let accounts = Arc::clone(&self.accounts);
        let publish = tokio::spawn(publish::run(interfaces, arguments.rate, accounts, publishing.clone()));
        let publishing_ends = async {
            let _ = tokio::time::timeout(arguments.time, stop.cancelled()).await;
        };
        self.with_progress(began, publishing_ends).await;
        publishing.cancel();
        let settled = async {
            // Events that are not accepted yet are published until they are.
            let _ = publish.await;
            while self.accounts.missing() > 0 || store.application_counts(self.application).await.is_ok_and(is_open) {
                sleep(LOOK).await;
            }
        };
        let deadline = Instant::now() + arguments.settle;
        let _ = timeout_at(deadline, self.with_progress(began, settled)).await;
        let counts = self.counts(store, deadline).await.context("the accounts of the database cannot be read")?;
        self.conclude(counts, arguments.fail > 0)
    }

    /// Prints progress until `work` ends.
    async fn with_progress(&self, began: Instant, work: impl Future<Output = ()>) {
        let mut work = std::pin::pin!(work);
        let mut progress = interval(PROGRESS);
        progress.tick().await;
        loop {
            tokio::select! {
                () = &mut work => return,
                _ = progress.tick() => self.tell(began.elapsed()),
            }
        }
    }

    fn tell(&self, elapsed: Duration) {
        let (sums, seconds) = (self.accounts.sums(), elapsed.as_secs());
        if self.json {
            println!("{}", json!({ "seconds": seconds, "progress": sums.to_json() }));
        } else {
            println!("{:>3}:{:02}  {}", seconds / 60, seconds % 60, sums.line());
        }
    }

    /// Counts of the database. Tries again until the deadline, at least once.
    async fn counts(&self, store: &Store, deadline: Instant) -> anyhow::Result<ApplicationCounts> {
        loop {
            match store.application_counts(self.application).await {
                Err(error) if error.is_transient() && Instant::now() < deadline => sleep(LOOK).await,
                counts => return Ok(counts?),
            }
        }
    }

    /// Prints the result.
    ///
    /// # Errors
    /// If the deployment breaks a promise.
    fn conclude(&self, counts: ApplicationCounts, may_fail: bool) -> anyhow::Result<()> {
        let sums = self.accounts.sums();
        let faults = sums.faults(counts, may_fail);
        if self.json {
            println!("{}", json!({ "result": sums.to_json(), "attempts": counts.attempts, "faults": faults }));
        } else {
            println!("{}; attempts on record {}, requests {}", sums.line(), counts.attempts, sums.requests);
            println!("longest silence {:.1} s", sums.longest_silence.as_secs_f64());
        }
        if faults.is_empty() {
            return Ok(());
        }
        let missing = self.accounts.missing_ids(SHOWN);
        let application = self.application;
        bail!("the application {application}: {}; missing: [{}]", faults.join("; "), missing.join(", "))
    }

    /// Disables the endpoint, and revokes the key. The API may be away.
    async fn clean_up(&self, store: &Store) {
        if let Some(endpoint) = self.endpoint {
            let settings = EndpointSettings { status: Some(EndpointStatus::Disabled), ..EndpointSettings::default() };
            if let Err(error) = store.change_endpoint(self.application, endpoint, &settings).await {
                eprintln!("cannot disable the endpoint {endpoint} of the application {}: {error}", self.application);
            }
        }
        if let Err(error) = store.revoke_key(self.key).await {
            eprintln!("cannot revoke the key {}, which expires by itself: {error}", self.key);
        }
    }
}

fn is_open(counts: ApplicationCounts) -> bool {
    counts.open > 0
}
