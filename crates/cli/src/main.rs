//! `fanfare`: what operators do from a shell.

use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand, ValueEnum};
use fanfare_domain::{
    access::{Role, Token},
    address::AddressPolicy,
    endpoint_url::{UrlPolicy, check_url},
    ids::{ApplicationId, EndpointId, KeyId, SecretId},
    secret::SigningSecret,
    subscription::Subscription,
};
use fanfare_service::Environment;
use fanfare_store::{Keyring, NewEndpoint, Store, StoreSettings};
use jiff::Timestamp;

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
    /// API keys.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Endpoints, which the API calls webhooks.
    #[command(subcommand)]
    Endpoint(EndpointCommand),
}

#[derive(Subcommand)]
enum AppCommand {
    /// Creates an application and prints its id.
    Create {
        /// What people call it.
        name: String,
    },
}

#[derive(Subcommand)]
enum KeyCommand {
    /// Creates a key and prints it. It is not shown again.
    Create {
        /// What it may do.
        #[arg(long)]
        role: RoleArgument,
        /// The application that it is bound to; none for an admin key.
        #[arg(long)]
        application: Option<ApplicationId>,
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

#[derive(Clone, Copy, ValueEnum)]
enum RoleArgument {
    Publish,
    Manage,
    Admin,
}

/// What the command needs of the environment.
struct Configuration {
    store: StoreSettings,
    addresses: AddressPolicy,
    https_only: bool,
}

impl Configuration {
    /// Only an endpoint has a secret to encrypt: the others work without the keys.
    fn read(environment: &mut Environment, command: &Command) -> Option<Self> {
        let url = environment.database_url();
        let keyring = match command {
            Command::Endpoint(_) => environment.secret_keys(),
            _ => Some(Keyring::empty()),
        };
        let allow = environment.allow_addresses();
        let https_only = environment.https_only();
        Some(Self {
            store: StoreSettings { url: url?, connections: 2, keyring: keyring? },
            addresses: AddressPolicy::new(allow?),
            https_only: https_only?,
        })
    }
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let mut environment = Environment::of_process();
    let configuration = Configuration::read(&mut environment, &arguments.command);
    let configuration = environment.finish(configuration)?;
    let store = Store::new(configuration.store.clone())?;
    match arguments.command {
        Command::Migrate { wait } => migrate(&store, Duration::from_secs(wait)).await,
        Command::App(AppCommand::Create { name }) => create_application(&store, &name).await,
        Command::Key(KeyCommand::Create { role, application }) => create_key(&store, role, application).await,
        Command::Endpoint(EndpointCommand::Create { application, url, events }) => {
            create_endpoint(&store, &configuration, application, &url, events).await
        }
    }
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

async fn create_application(store: &Store, name: &str) -> anyhow::Result<()> {
    let id = ApplicationId::new(Timestamp::now(), rand::random());
    let application = store.create_application(id, name).await.context("the application was not created")?;
    println!("{}", application.id);
    Ok(())
}

async fn create_key(store: &Store, role: RoleArgument, application: Option<ApplicationId>) -> anyhow::Result<()> {
    let role = match role {
        RoleArgument::Publish => Role::Publish,
        RoleArgument::Manage => Role::Manage,
        RoleArgument::Admin => Role::Admin,
    };
    if (role == Role::Admin) != application.is_none() {
        bail!("a publish or manage key needs --application, and an admin key has none");
    }
    if let Some(application) = application {
        require(store, application).await?;
    }
    let token = Token::from_random(KeyId::new(Timestamp::now(), rand::random()), rand::random());
    store.create_key(&token, role, application).await.context("the key was not created")?;
    println!("{}", token.reveal());
    Ok(())
}

async fn create_endpoint(
    store: &Store,
    configuration: &Configuration,
    application: ApplicationId,
    url: &str,
    events: Vec<String>,
) -> anyhow::Result<()> {
    let policy = UrlPolicy { https_only: configuration.https_only, allow: &configuration.addresses };
    let url = check_url(url, &policy).context("--url cannot be taken")?;
    for event in &events {
        if let Err(fault) = Subscription::parse(event) {
            bail!("--events holds {event:?}, which {}", fault.message);
        }
    }
    require(store, application).await?;
    let new = NewEndpoint {
        id: EndpointId::new(Timestamp::now(), rand::random()),
        application,
        url: url.into(),
        event_types: events,
        secret_id: SecretId::new(Timestamp::now(), rand::random()),
        secret: SigningSecret::from_random(rand::random()),
    };
    let endpoint = store.create_endpoint(&new).await.context("the endpoint was not created")?;
    println!("{}\n{}", endpoint.id, new.secret.text());
    Ok(())
}

async fn require(store: &Store, application: ApplicationId) -> anyhow::Result<()> {
    match store.application(application).await? {
        Some(_) => Ok(()),
        None => bail!("there is no application {application}"),
    }
}
