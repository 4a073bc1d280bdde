//! `fanfare`: what operators do from a shell.

mod audit;
mod keys;
mod parked;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context, anyhow, bail};
use clap::{Parser, Subcommand};
use fanfare_broker::BrokerSettings;
use fanfare_domain::{
    catalogue::Catalogue,
    dialect::{DEFAULT_DIALECT, Dialect, Dialects},
    email::check_email,
    endpoint_url::{UrlPolicy, check_url},
    ids::{ApplicationId, EndpointId, SecretId},
    label::check_label,
    secret::SigningSecret,
};
use fanfare_service::Environment;
use fanfare_store::{
    ApplicationRow, EndpointSettings, Keyring, NewApplication, NewEndpoint, Reencrypted, Store, StoreSettings,
};
use jiff::Timestamp;

use crate::parked::ParkedCommand;

/// Sets up and looks after Fanfare. Reads DATABASE_URL from the environment and, for endpoints, the
/// settings of the services that deploy/README.md describes.
#[derive(Parser)]
#[command(name = "fanfare", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Brings the database's schema up to date.
    Migrate {
        /// How long to wait for a database that does not answer yet, in seconds.
        #[arg(long, default_value_t = 0)]
        wait: u64,
    },
    /// Applications.
    #[command(subcommand)]
    App(AppCommand),
    /// Dialects.
    #[command(subcommand)]
    Dialect(DialectCommand),
    /// API keys.
    #[command(subcommand)]
    Key(keys::KeyCommand),
    /// Endpoints, which the API calls webhooks.
    #[command(subcommand)]
    Endpoint(EndpointCommand),
    /// Messages that could not be read.
    #[command(subcommand)]
    Parked(ParkedCommand),
    /// Encrypts all that is encrypted anew, with the first key of FANFARE_SECRET_KEYS, while everything runs.
    Reencrypt,
}

#[derive(Subcommand)]
enum AppCommand {
    /// Creates an application and prints its id.
    Create {
        /// What people call it.
        name: String,
        /// How its deliveries look; one that is built in, or of the folder FANFARE_DIALECTS.
        #[arg(long, default_value = DEFAULT_DIALECT)]
        dialect: String,
        /// Who is told of failed deliveries, where the dialect has somebody told.
        #[arg(long)]
        email: Option<String>,
        /// Refuse events of types that are not described.
        #[arg(long)]
        strict: bool,
    },
}

#[derive(Subcommand)]
enum DialectCommand {
    /// Lists the dialects that there are.
    List,
    /// Checks a dialect's file, and shows what would be sent.
    Check {
        /// The file, `<name>.toml`.
        file: PathBuf,
    },
}

#[derive(Subcommand)]
enum EndpointCommand {
    /// Creates an endpoint and prints its id and its signing secret, which is not shown again.
    Create {
        /// The application that owns it.
        #[arg(long)]
        application: ApplicationId,
        /// Where its deliveries go.
        #[arg(long)]
        url: String,
        /// The event types that it wants, separated by commas; `points.*` and `*` are wildcards.
        #[arg(long, value_delimiter = ',', required = true)]
        events: Vec<String>,
    },
}

/// What the command needs of the environment.
struct Configuration {
    store: StoreSettings,
    dialects: Arc<Dialects>,
    url_policy: UrlPolicy,
    /// Where a command publishes.
    broker: Option<BrokerSettings>,
}

impl Configuration {
    /// Only an endpoint has a secret to encrypt, and only what is put back needs the broker: the others work
    /// without.
    fn read(environment: &mut Environment, command: &Command) -> Option<Self> {
        let url = environment.database_url();
        let keyring = match command {
            Command::Endpoint(_) | Command::Reencrypt => environment.secret_keys(),
            _ => Some(Keyring::empty()),
        };
        let dialects = environment.dialects();
        let url_policy = environment.url_policy();
        let broker = match command {
            Command::Parked(ParkedCommand::PutBack { .. }) => Some(parked::broker(environment)),
            _ => None,
        };
        Some(Self {
            broker: broker.map_or(Some(None), |broker| broker.map(Some))?,
            store: StoreSettings { url: url?, connections: 2, keyring: keyring? },
            dialects: dialects?,
            url_policy: url_policy?,
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut environment = Environment::of_process();
    match &arguments.command {
        Command::Dialect(DialectCommand::Check { file }) => return check_dialect(file),
        Command::Dialect(DialectCommand::List) => {
            let dialects = environment.dialects();
            list_dialects(&*environment.finish(dialects)?);
            return Ok(());
        }
        _ => {}
    }
    let configuration = Configuration::read(&mut environment, &arguments.command);
    let configuration = environment.finish(configuration)?;
    let store = Store::new(configuration.store.clone())?;
    let entry = audit::begin(&store, &arguments.command).await.context("the audit log cannot be written")?;
    let done = run(&store, configuration, arguments.command).await;
    if let Some(entry) = entry {
        audit::end(&store, entry, &done).await.context("the audit log does not tell the outcome")?;
    }
    done.map(|_| ())
}

/// Does what is asked, and gives the id of what it made, if anything.
async fn run(store: &Store, configuration: Configuration, command: Command) -> anyhow::Result<Option<String>> {
    match command {
        Command::Parked(command) => parked::run(store, configuration.broker, command).await?,
        Command::Migrate { wait } => migrate(store, Duration::from_secs(wait)).await?,
        Command::App(AppCommand::Create { name, dialect, email, strict }) => {
            let id = ApplicationId::new(Timestamp::now(), rand::random());
            create_application(store, &configuration, NewApplication { id, name, dialect, is_strict: strict, email })
                .await?;
            return Ok(Some(id.to_string()));
        }
        Command::Reencrypt => reencrypt(store).await?,
        // Answered above: they need no database.
        Command::Dialect(_) => {}
        Command::Key(command) => return Ok(keys::run(store, command).await?.map(|key| key.to_string())),
        Command::Endpoint(EndpointCommand::Create { application, url, events }) => {
            let endpoint = create_endpoint(store, &configuration, application, &url, events).await?;
            return Ok(Some(endpoint.to_string()));
        }
    }
    Ok(None)
}

/// Goes on until nothing is found any more: processes that still have another key first may write meanwhile.
async fn reencrypt(store: &Store) -> anyhow::Result<()> {
    const MAX_ROUNDS: usize = 20;
    for _ in 0..MAX_ROUNDS {
        let Reencrypted { secrets, headers, bodies } = store.reencrypt().await.context("not all was encrypted anew")?;
        if secrets + headers + bodies == 0 {
            println!("everything is encrypted with the first key");
            return Ok(());
        }
        println!("encrypted anew: {secrets} secrets, the headers of {headers} endpoints, {bodies} bodies of events");
    }
    bail!("some process still encrypts with another key: give all of them the same FANFARE_SECRET_KEYS, then try again")
}

async fn migrate(store: &Store, wait: Duration) -> anyhow::Result<()> {
    let started = tokio::time::Instant::now();
    loop {
        match store.migrate(Timestamp::now()).await {
            Ok(applied) if applied.is_empty() => println!("the schema is up to date"),
            Ok(applied) => applied.iter().for_each(|name| println!("applied {name}")),
            Err(error) if error.is_transient() && started.elapsed() < wait => {
                eprintln!("waiting for the database: {error}");
                tokio::time::sleep(Duration::from_millis(500)).await;
                continue;
            }
            Err(error) => return Err(error).context("the schema was not brought up to date"),
        }
        return Ok(());
    }
}

async fn create_application(store: &Store, configuration: &Configuration, new: NewApplication) -> anyhow::Result<()> {
    check_label(&new.name).map_err(|fault| anyhow!("the name {fault}"))?;
    if configuration.dialects.get(&new.dialect).is_none() {
        bail!("--dialect: there is no dialect {:?}; `fanfare dialect list` shows those that there are", new.dialect);
    }
    if let Some(email) = &new.email {
        check_email(email).map_err(|fault| anyhow!("--email {fault}"))?;
    }
    let application = store.create_application(&new).await.context("the application was not created")?;
    println!("{}", application.id);
    Ok(())
}

fn list_dialects(dialects: &Dialects) {
    for dialect in dialects.all() {
        println!("{:<12} {}: {}", dialect.name, dialect.title, dialect.description);
    }
}

fn check_dialect(file: &Path) -> anyhow::Result<()> {
    let text = fs::read_to_string(file).with_context(|| format!("cannot read {}", file.display()))?;
    let name = file.file_stem().unwrap_or_default().to_string_lossy();
    let dialect = Dialect::parse(&file.display().to_string(), &name, &text)?;
    println!("{name} is sound. It sends, for instance:\n{}", dialect.example_body()?);
    println!("and tries again after: {}", dialect.policy.schedule.names().join(", "));
    Ok(())
}

async fn create_endpoint(
    store: &Store,
    configuration: &Configuration,
    application: ApplicationId,
    url: &str,
    events: Vec<String>,
) -> anyhow::Result<EndpointId> {
    let url = check_url(url, &configuration.url_policy).context("--url cannot be taken")?;
    let row = require(store, application).await?;
    let dialect = configuration.dialects.get(&row.dialect);
    let dialect =
        dialect.with_context(|| format!("there is no dialect {:?} here: see FANFARE_DIALECTS", row.dialect))?;
    let own = store.event_types(application).await.context("the event types cannot be read")?;
    let catalogue = Catalogue::new(dialect.catalogue.types().iter().cloned().chain(own));
    catalogue.check_subscriptions("--events", &events).map_err(|fault| anyhow!("{fault}"))?;
    let new = NewEndpoint {
        id: EndpointId::new(Timestamp::now(), rand::random()),
        application,
        settings: EndpointSettings { url: Some(url.into()), event_types: Some(events), ..EndpointSettings::default() },
        secret_id: SecretId::new(Timestamp::now(), rand::random()),
        secret: SigningSecret::from_random(rand::random()),
    };
    let endpoint = store.create_endpoint(&new, usize::MAX).await.context("the endpoint was not created")?;
    let endpoint = endpoint.context("the application has too many endpoints")?;
    println!("{}\n{}", endpoint.id, new.secret.text());
    Ok(endpoint.id)
}

async fn require(store: &Store, application: ApplicationId) -> anyhow::Result<ApplicationRow> {
    store.application(application).await?.with_context(|| format!("there is no application {application}"))
}
