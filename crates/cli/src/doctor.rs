//! `fanfare doctor`: examines servers, settings and network, and names each fault with the remedy.

mod broker;
mod database;
mod management;
mod operation;
mod outside;

use std::{fmt, time::Duration};

use anyhow::bail;
use clap::Args;
use fanfare_archive::ArchiveUrl;
use fanfare_broker::BrokerSettings;
use fanfare_credentials::Credentials;
use fanfare_domain::delivery::delay::DelayQueues;
use fanfare_outbound as outbound;
use fanfare_service::Environment;
use fanfare_store::{Keyring, Store, StoreSettings};
use serde_json::json;

#[derive(Args)]
pub(crate) struct DoctorArguments {
    /// URL of RabbitMQ's management API, such as http://rabbitmq:15672. User and password are those of the broker,
    /// unless the URL has others, which the list of processes then shows.
    #[arg(long)]
    management: Option<String>,
    /// Prints findings as JSON, one object per line.
    #[arg(long)]
    json: bool,
    /// Fails on warnings, too.
    #[arg(long)]
    strict: bool,
}

/// Settings of the processes that the doctor examines.
pub(crate) struct DoctorSettings {
    broker: BrokerSettings,
    credentials: Credentials,
    store: StoreSettings,
    max_event_bytes: usize,
    outbound: outbound::Settings,
    archive: Option<ArchiveUrl>,
}

impl DoctorSettings {
    /// Reads the settings, as a dispatcher does.
    pub(crate) fn read(environment: &mut Environment) -> Option<Self> {
        let broker = environment.broker();
        let prefix = environment.prefix();
        let database = environment.database();
        let dialects = environment.dialects();
        let max_event_bytes = environment.max_event_bytes();
        let policy = environment.url_policy();
        let extra_roots = environment.extra_roots();
        let name_servers = environment.name_servers();
        let proxy = environment.egress_proxy();
        let archive = environment.archive();
        let (urls, credentials) = broker?;
        let delays = DelayQueues::new(dialects?.waits());
        let (url, of_database) = database?;
        Some(Self {
            broker: BrokerSettings::new((urls, credentials.clone()), prefix?, delays, "fanfare doctor"),
            credentials,
            store: StoreSettings { url, credentials: of_database, connections: 2, keyring: Keyring::empty() },
            max_event_bytes: max_event_bytes?,
            outbound: outbound::Settings::new(policy?, extra_roots, name_servers?, proxy),
            archive,
        })
    }
}

/// Verdict of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    Good,
    Warning,
    Failure,
}

/// Result of a check.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Finding {
    pub(crate) area: &'static str,
    pub(crate) verdict: Verdict,
    pub(crate) text: String,
}

/// Findings of an area.
pub(crate) struct Findings {
    area: &'static str,
    found: Vec<Finding>,
}

impl Findings {
    pub(crate) fn new(area: &'static str) -> Self {
        Self { area, found: Vec::new() }
    }

    pub(crate) fn good(&mut self, text: impl Into<String>) {
        self.add(Verdict::Good, text);
    }

    pub(crate) fn warn(&mut self, text: impl Into<String>) {
        self.add(Verdict::Warning, text);
    }

    pub(crate) fn fail(&mut self, text: impl Into<String>) {
        self.add(Verdict::Failure, text);
    }

    /// Adds a failure or a good finding.
    pub(crate) fn check(&mut self, is_good: bool, good: impl Into<String>, bad: impl Into<String>) {
        if is_good { self.good(good) } else { self.fail(bad) }
    }

    fn add(&mut self, verdict: Verdict, text: impl Into<String>) {
        self.found.push(Finding { area: self.area, verdict, text: text.into() });
    }

    pub(crate) fn into_vec(self) -> Vec<Finding> {
        self.found
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.pad(match self {
            Self::Good => "ok",
            Self::Warning => "warn",
            Self::Failure => "FAIL",
        })
    }
}

/// Examines everything, and prints each area's findings as soon as they are known.
///
/// # Errors
/// If a check fails; with `--strict`, also on a warning.
pub(crate) async fn run(settings: DoctorSettings, arguments: DoctorArguments) -> anyhow::Result<()> {
    let DoctorSettings { broker, credentials, store, max_event_bytes, outbound, archive } = settings;
    let store = Store::new(store)?;
    let mut counts = [0_usize; 3];
    let mut tell = |findings: Vec<Finding>| {
        for finding in findings {
            counts[finding.verdict as usize] += 1;
            print(&finding, arguments.json);
        }
    };
    tell(broker::examine(&broker, max_event_bytes).await);
    if let Some(url) = &arguments.management {
        tell(management::examine(url, &credentials, &broker).await);
    }
    let (findings, is_migrated) = database::examine(&store).await;
    tell(findings);
    if is_migrated {
        tell(operation::examine_operation(&store).await);
        tell(outside::examine(&store, &outbound, archive.as_ref()).await);
    }
    let [good, warnings, failures] = counts;
    if !arguments.json {
        println!("{failures} failures, {warnings} warnings, {good} checks passed.");
    }
    if failures > 0 || arguments.strict && warnings > 0 {
        bail!("{failures} checks failed, {warnings} warn");
    }
    Ok(())
}

fn print(finding: &Finding, is_json: bool) {
    let Finding { area, verdict, text } = finding;
    if is_json {
        let verdict = verdict.to_string().to_lowercase();
        println!("{}", json!({ "area": area, "verdict": verdict, "text": text }));
    } else {
        println!("{area:<10}{verdict:<6}{text}");
    }
}

/// The median and the longest of sorted durations, for people.
pub(crate) fn spread(sorted: &[Duration]) -> String {
    let milliseconds = |duration: Option<&Duration>| duration.map_or(0.0, |duration| duration.as_secs_f64() * 1000.0);
    format!("{:.1} ms, worst {:.1} ms", milliseconds(sorted.get(sorted.len() / 2)), milliseconds(sorted.last()))
}
