//! `fanfare archive`: days that were archived at the end of their retention. Only `off` needs a database.

mod show;

use anyhow::{Context, bail};
use clap::{Args, Subcommand};
use fanfare_archive::{Archive, ArchiveUrl, Found, Manifest, Table, Wanted};
use fanfare_domain::ids::{ApplicationId, EventId};
use fanfare_service::Environment;
use fanfare_store::{Keyring, Store};
use jiff::civil::Date;
use serde_json::json;

/// Reads FANFARE_ARCHIVE_URL, FANFARE_CA_FILE, and the credentials in the variables of the cloud.
#[derive(Subcommand)]
pub(crate) enum ArchiveCommand {
    /// Lists the days, oldest first.
    List {
        /// Prints days as JSON, one object per line.
        #[arg(long)]
        json: bool,
    },
    /// Finds an event with its deliveries and attempts.
    Find(FindArguments),
    /// Compares all objects with the digests in the manifests.
    Check {
        /// Only this day, YYYY-MM-DD.
        #[arg(long)]
        day: Option<Date>,
    },
    /// Permits dispatchers to drop days without archiving, once no dispatcher has FANFARE_ARCHIVE_URL any more.
    Off,
}

impl ArchiveCommand {
    pub(crate) fn needs_database(&self) -> bool {
        matches!(self, Self::Off)
    }
}

#[derive(Args)]
pub(crate) struct FindArguments {
    /// Id of the event, `evt_…`.
    #[arg(required_unless_present = "key", conflicts_with = "key")]
    event: Option<EventId>,
    /// Application of the event. With the application, fewer objects are read.
    #[arg(long)]
    application: Option<ApplicationId>,
    /// The publisher's id of the event, in place of the event's id.
    #[arg(long, requires = "application")]
    key: Option<String>,
    /// Only this day of acceptance in UTC, YYYY-MM-DD.
    #[arg(long)]
    day: Option<Date>,
    /// Decrypts the body with FANFARE_SECRET_KEYS, and shows redacted members.
    #[arg(long)]
    decrypt: bool,
    /// Prints the rows as a JSON object.
    #[arg(long)]
    json: bool,
}

/// The archive, and the keys for `find --decrypt`.
pub(crate) struct ArchiveSettings {
    archive: Archive,
    keyring: Option<Keyring>,
}

impl ArchiveSettings {
    /// Reads the settings, without a request.
    pub(crate) fn read(environment: &mut Environment, command: &ArchiveCommand) -> Option<Self> {
        let url: Option<ArchiveUrl> = environment.required_archive();
        let extra_roots = environment.extra_roots();
        let keyring = match command {
            ArchiveCommand::Find(FindArguments { decrypt: true, .. }) => Some(environment.secret_keys()?),
            _ => None,
        };
        let archive = Archive::open(&url?, extra_roots.as_deref());
        Some(Self { archive: archive.map_err(|error| environment.mistake(error)).ok()?, keyring })
    }
}

pub(crate) async fn run(settings: ArchiveSettings, command: ArchiveCommand) -> anyhow::Result<()> {
    let ArchiveSettings { archive, keyring } = settings;
    match command {
        ArchiveCommand::List { json } => list(&archive, json).await,
        ArchiveCommand::Find(arguments) => find(&archive, keyring.as_ref(), arguments).await,
        ArchiveCommand::Check { day } => check(&archive, day).await,
        // `off` has run with the database.
        ArchiveCommand::Off => Ok(()),
    }
}

pub(crate) async fn off(store: &Store) -> anyhow::Result<()> {
    match store.release_archive().await.context("cannot switch the archive off")? {
        true => println!(
            "days are dropped without archiving; a dispatcher with FANFARE_ARCHIVE_URL switches the archive on again"
        ),
        false => println!("the archive was off already"),
    }
    Ok(())
}

async fn list(archive: &Archive, is_json: bool) -> anyhow::Result<()> {
    let days = archive.days().await?;
    if !is_json {
        println!("{:<12}{:>12}{:>12}{:>12}{:>16}  state", "day", "events", "deliveries", "attempts", "bytes");
    }
    let mut unreadable = 0;
    for day in days {
        let (manifest, state) = match archive.manifest(day).await {
            Ok(Some(manifest)) => (Some(manifest), "complete".to_owned()),
            Ok(None) => (None, "incomplete".to_owned()),
            Err(error) => {
                unreadable += 1;
                (None, error.to_string())
            }
        };
        let rows = |table| manifest.as_ref().map(|manifest| manifest.rows(table));
        let [events, deliveries, attempts] = Table::ALL.map(rows);
        let bytes = manifest.as_ref().map(Manifest::bytes);
        if is_json {
            println!(
                "{}",
                json!({
                    "day": day, "is_complete": manifest.is_some(), "state": state, "events": events,
                    "deliveries": deliveries, "attempts": attempts, "bytes": bytes,
                    "written_at": manifest.map(|manifest| manifest.written_at),
                })
            );
        } else {
            let number = |number: Option<u64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
            println!(
                "{:<12}{:>12}{:>12}{:>12}{:>16}  {state}",
                day.to_string(),
                number(events),
                number(deliveries),
                number(attempts),
                number(bytes)
            );
        }
    }
    if unreadable > 0 { bail!("{unreadable} manifests cannot be read") } else { Ok(()) }
}

async fn find(archive: &Archive, keyring: Option<&Keyring>, arguments: FindArguments) -> anyhow::Result<()> {
    let FindArguments { event, application, key, day, json, .. } = arguments;
    let event = match (event, application, key) {
        (Some(event), _, _) => event,
        (None, Some(application), Some(key)) => EventId::from_key(application, &key),
        _ => bail!("name an event, or --application and --key"),
    };
    let wanted = Wanted { event, application };
    let days = chosen(archive, day).await?;
    let mut searched: Vec<Date> = Vec::new();
    let mut incomplete = 0;
    // The newest days first: a question about an old event usually comes soon.
    let candidates: Vec<Date> = days.into_iter().rev().filter(|day| wanted.may_be_of(*day)).collect();
    for (position, day) in candidates.iter().enumerate() {
        let Some(manifest) = archive.manifest(*day).await? else {
            incomplete += 1;
            continue;
        };
        if candidates.len() > 1 {
            eprintln!("searching {day} ({} of {} days)", position + 1, candidates.len());
        }
        if let Some(found) = archive.find(&manifest, &wanted).await? {
            return tell(found, *day, keyring, json);
        }
        searched.push(*day);
    }
    bail!("{event} is not in the archive; searched {}{}", range(&searched), but_incomplete(incomplete))
}

fn tell(found: Found, day: Date, keyring: Option<&Keyring>, is_json: bool) -> anyhow::Result<()> {
    let shown = show::Shown::of(found, day, keyring)?;
    if is_json {
        println!("{}", shown.json())
    } else {
        print!("{}", shown.text())
    }
    Ok(())
}

async fn check(archive: &Archive, day: Option<Date>) -> anyhow::Result<()> {
    let (mut objects, mut faults, mut incomplete) = (0, 0, 0);
    for day in chosen(archive, day).await? {
        let manifest = match archive.manifest(day).await {
            Ok(Some(manifest)) => manifest,
            Ok(None) => {
                eprintln!("{day} is incomplete: the dispatcher writes the day anew, if the database still has the day");
                incomplete += 1;
                continue;
            }
            Err(error) => {
                (objects, faults) = (objects + 1, faults + 1);
                println!("{error}");
                continue;
            }
        };
        eprintln!("checking {day}: {} objects, {} bytes", manifest.objects.len(), manifest.bytes());
        for object in &manifest.objects {
            objects += 1;
            if let Err(error) = archive.check(day, object).await {
                faults += 1;
                println!("{error}");
            }
        }
    }
    if faults > 0 {
        bail!("{faults} of {objects} objects are damaged or missing: restore the objects from a copy of the bucket");
    }
    println!("{objects} objects are as written{}", but_incomplete(incomplete));
    Ok(())
}

/// The named day, or all days, oldest first.
async fn chosen(archive: &Archive, day: Option<Date>) -> anyhow::Result<Vec<Date>> {
    let days = archive.days().await?;
    let Some(day) = day else { return Ok(days) };
    days.contains(&day)
        .then_some(vec![day])
        .with_context(|| format!("the archive has no day {day}; it has {}", range(&days)))
}

/// Days for people.
fn range(days: &[Date]) -> String {
    match (days.iter().min(), days.iter().max()) {
        (Some(first), Some(last)) if first != last => format!("{} days from {first} to {last}", days.len()),
        (Some(day), _) => day.to_string(),
        _ => "no day".to_owned(),
    }
}

fn but_incomplete(days: usize) -> String {
    if days == 0 { String::new() } else { format!("; not {days} incomplete days") }
}
