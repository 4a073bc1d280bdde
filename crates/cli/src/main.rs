//! The command `fanfare`: administration from a shell.

mod archive;
mod audit;
mod client;
mod doctor;
mod json_client;
mod keys;
mod migrate;
mod parked;
mod relay;
mod sign_in;
mod verify;

use std::{
    fs,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context, anyhow, bail};
use clap::{CommandFactory, Parser, Subcommand};
use fanfare_broker::{BrokerSettings, HeaderKeys};
use fanfare_domain::{
    dialect::{DEFAULT_DIALECT, Dialect, Dialects},
    display_name::check_display_name,
    endpoint::email::check_email,
    ids::ApplicationId,
};
use fanfare_service::Environment;
use fanfare_store::{ApplicationRow, Keyring, NewApplication, Reencrypted, Store, StoreSettings};
use jiff::Timestamp;
use url::Url;

use crate::{doctor::DoctorSettings, parked::ParkedCommand};

/// Publishes, watches and resends through the API of a deployment, and administers a deployment.
///
/// The commands publish, events, deliveries, resend, replay, usage, endpoint, event-types, signing-keys and listen need
/// FANFARE_API and FANFARE_KEY, or a profile. All other commands except completion, man and dialect read DATABASE_URL
/// from the environment, and some read settings of the services: see deploy/settings.md.
#[derive(Parser)]
#[command(name = "fanfare", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Client(Box<client::ClientCommand>),
    /// Brings the schema of the database up to date.
    Migrate(migrate::MigrateArguments),
    /// Manages applications.
    #[command(subcommand)]
    App(AppCommand),
    /// Lists and checks dialects.
    #[command(subcommand)]
    Dialect(DialectCommand),
    /// Manages API keys.
    #[command(subcommand)]
    Key(keys::KeyCommand),
    /// Prints a link that signs in to the web console, once and within 5 minutes. Needs FANFARE_CONSOLE_URL.
    SignIn(sign_in::SignInArguments),
    /// Manages parked messages, which Fanfare could not process.
    #[command(subcommand)]
    Parked(ParkedCommand),
    /// Reads the archive of days at the end of their retention.
    #[command(subcommand)]
    Archive(archive::ArchiveCommand),
    /// Examines broker, database, operation and network, and names each fault with the remedy. Needs the settings of a
    /// dispatcher.
    Doctor(doctor::DoctorArguments),
    /// Publishes through a running deployment, receives the deliveries, and compares the accounts, also while processes
    /// or servers are killed. Needs AMQP_URL, too.
    Verify(verify::VerifyArguments),
    /// Publishes the rows of an outbox table in a publisher's database, until stopped. Replicas may run: one is active.
    /// DATABASE_URL is the publisher's database. Needs AMQP_URL, too.
    Relay(relay::RelayArguments),
    /// Prints a script that completes commands in a shell.
    Completion { shell: clap_complete::Shell },
    /// Writes a manual page for each command.
    Man {
        /// Folder of the pages.
        folder: PathBuf,
    },
    /// Re-encrypts all secrets, headers and bodies with the first key of FANFARE_SECRET_KEYS. Services may run
    /// meanwhile.
    Reencrypt,
}

#[derive(Subcommand)]
enum AppCommand {
    /// Creates an application and prints its id.
    Create {
        /// Display name.
        name: String,
        /// Dialect: built in, or from the folder FANFARE_DIALECTS. See `fanfare dialect list`.
        #[arg(long, default_value = DEFAULT_DIALECT)]
        dialect: String,
        /// E-mail address for failure notices, if the dialect sends notices.
        #[arg(long)]
        email: Option<String>,
        /// Refuse events of undescribed types, and subscriptions to undescribed types.
        #[arg(long)]
        strict: bool,
    },
}

#[derive(Subcommand)]
enum DialectCommand {
    /// Lists available dialects.
    List,
    /// Checks the file of a dialect, and prints an example delivery.
    Check {
        /// File of the dialect, `<name>.toml`.
        file: PathBuf,
    },
}

struct Configuration {
    store: StoreSettings,
    dialects: Arc<Dialects>,
    /// Address of the web pages, only for `sign-in`.
    console: Option<Url>,
    /// Only for `parked put-back` and `verify`.
    broker: Option<BrokerSettings>,
}

impl Configuration {
    /// Reads the keys only for `reencrypt` and `parked put-back`, and the broker only for `parked put-back`
    /// and `verify`. All other commands work without keys and broker.
    fn read(environment: &mut Environment, command: &Command) -> Option<Self> {
        let database = environment.database();
        let keyring = match command {
            Command::Reencrypt | Command::Parked(ParkedCommand::PutBack { .. }) => environment.secret_keys(),
            _ => Some(Keyring::empty()),
        };
        let keyring: Option<Keyring> = keyring;
        let keys = HeaderKeys::new(keyring.as_ref().map(Keyring::header_keys).unwrap_or_default());
        let dialects = environment.dialects();
        let broker = match command {
            Command::Parked(ParkedCommand::PutBack { .. }) | Command::Verify(_) => Some(parked::broker(environment)),
            _ => None,
        };
        let console = match command {
            Command::SignIn(_) => environment.console_url(),
            _ => None,
        };
        let (url, credentials) = database?;
        Some(Self {
            console,
            broker: broker.map_or(Some(None), |broker| Some(Some(broker?.with_keys(keys))))?,
            store: StoreSettings { url, credentials, connections: 2, keyring: keyring? },
            dialects: dialects?,
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
    let command = match arguments.command {
        Command::Client(command) => return client::run(*command).await,
        Command::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Arguments::command(), "fanfare", &mut script);
            client::rows::line(String::from_utf8(script)?.trim_end());
            return Ok(());
        }
        Command::Man { folder } => {
            fs::create_dir_all(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
            clap_mangen::generate_to(Arguments::command(), &folder)
                .with_context(|| format!("cannot write manual pages into {}", folder.display()))?;
            return Ok(());
        }
        Command::Doctor(arguments) => {
            let settings = DoctorSettings::read(&mut environment);
            return doctor::run(environment.finish(settings)?, arguments).await;
        }
        Command::Relay(arguments) => {
            if arguments.printed() {
                return Ok(());
            }
            let settings = relay::RelaySettings::read(&mut environment);
            return relay::run(environment.finish(settings)?, arguments).await;
        }
        Command::Archive(command) if !command.needs_database() => {
            let settings = archive::ArchiveSettings::read(&mut environment, &command);
            return archive::run(environment.finish(settings)?, command).await;
        }
        command => command,
    };
    let configuration = Configuration::read(&mut environment, &command);
    let configuration = environment.finish(configuration)?;
    let store = Store::new(configuration.store.clone())?;
    let entry = audit::begin(&store, &command).await.context("cannot write the audit log; nothing changed")?;
    let done = run(&store, configuration, command).await;
    if let Some(entry) = entry {
        audit::end(&store, entry, &done).await.context("the command has ended, but the audit log lacks the outcome")?;
    }
    done.map(|_| ())
}

/// Runs a command. Returns the id of the created or revoked object.
async fn run(store: &Store, configuration: Configuration, command: Command) -> anyhow::Result<Option<String>> {
    match command {
        Command::Parked(command) => parked::run(store, configuration.broker, command).await?,
        Command::Migrate(arguments) => migrate::run(store, &arguments).await?,
        Command::App(AppCommand::Create { name, dialect, email, strict }) => {
            let id = ApplicationId::new(Timestamp::now(), rand::random());
            create_application(store, &configuration, NewApplication { id, name, dialect, is_strict: strict, email })
                .await?;
            return Ok(Some(id.to_string()));
        }
        Command::SignIn(arguments) => {
            let session = sign_in::run(store, configuration.console, &arguments).await?;
            return Ok(Some(session.to_string()));
        }
        Command::Reencrypt => reencrypt(store).await?,
        Command::Archive(_) => archive::off(store).await?,
        // `main` has run these commands: some need no database, doctor and relay need further settings.
        Command::Client(_)
        | Command::Completion { .. }
        | Command::Dialect(_)
        | Command::Doctor(_)
        | Command::Man { .. }
        | Command::Relay(_) => {}
        Command::Verify(arguments) => {
            let broker = configuration.broker.context("AMQP_URL is not set")?;
            verify::run(store, broker, arguments).await?;
        }
        Command::Key(command) => return Ok(keys::run(store, command).await?.map(|key| key.to_string())),
    }
    Ok(None)
}

/// Re-encrypts in rounds until nothing is left: meanwhile, a process with another first key may write.
async fn reencrypt(store: &Store) -> anyhow::Result<()> {
    const MAX_ROUNDS: usize = 20;
    for _ in 0..MAX_ROUNDS {
        let Reencrypted { secrets, headers, credentials, bodies } =
            store.reencrypt().await.context("re-encryption is incomplete: try again")?;
        if secrets + headers + credentials + bodies == 0 {
            println!("everything is encrypted with the first key");
            return Ok(());
        }
        println!(
            "re-encrypted: {secrets} secrets, the headers of {headers} endpoints, {bodies} bodies of events, {credentials} \
             credentials"
        );
    }
    bail!("a process still encrypts with another key: give all processes the same FANFARE_SECRET_KEYS, then try again")
}

async fn create_application(store: &Store, configuration: &Configuration, new: NewApplication) -> anyhow::Result<()> {
    check_display_name(&new.name).map_err(|fault| anyhow!("the name {fault}"))?;
    if configuration.dialects.get(&new.dialect).is_none() {
        bail!("--dialect: unknown dialect {:?}; see `fanfare dialect list`", new.dialect);
    }
    if let Some(email) = &new.email {
        check_email(email).map_err(|fault| anyhow!("--email {fault}"))?;
    }
    let application = store.create_application(&new).await.context("cannot create the application")?;
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
    println!("{name} is valid. An example delivery:\n{}", dialect.example_body()?);
    println!("Waits after failed attempts: {}", dialect.policy.schedule.names().join(", "));
    Ok(())
}

async fn require(store: &Store, application: ApplicationId) -> anyhow::Result<ApplicationRow> {
    store.application(application).await?.with_context(|| format!("no application has the id {application}"))
}
