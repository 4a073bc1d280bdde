//! Findings on processes: missing, dead, without a server, out of places, or in disagreement.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;
use serde_json::Value;

use super::{
    Facts, Finding, Severity, Subject, Values, Whose,
    text::{count, duration, time},
};
use crate::ids::ProcessId;

/// Deviation of a clock above which TLS and times in logs are in danger.
const CLOCK: Duration = Duration::from_secs(2);

/// A process on record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessFact {
    /// Id of the process.
    pub id: ProcessId,
    /// True for a dispatcher, false for ingest.
    pub is_dispatcher: bool,
    /// Name of the machine or pod.
    pub host: Option<String>,
    /// Version of Fanfare.
    pub version: String,
    /// Settings on which all processes must agree, as a JSON object.
    pub settings: String,
    /// True if the last heartbeat is still valid.
    pub is_alive: bool,
    /// Last heartbeat.
    pub seen_at: Option<Timestamp>,
    /// True while the process is connected to the broker.
    pub has_broker: bool,
    /// True while the database answers the process.
    pub has_database: bool,
    /// Places in use, and all places.
    pub places: (usize, usize),
    /// Un-acked event messages.
    pub events_in_hand: usize,
    /// Longest wait of a backlog for a place.
    pub longest_wait: Duration,
    /// Deliveries that wait for a place.
    pub due: u64,
    /// Deviation of the clock from the database's.
    pub clock_offset: Duration,
}

impl ProcessFact {
    fn name(&self) -> String {
        let kind = if self.is_dispatcher { "dispatcher" } else { "ingest" };
        format!("{kind} {}", self.host.clone().unwrap_or_else(|| self.id.to_string()))
    }
}

/// Processes that are alive. A dead process has neither places nor messages.
pub(super) fn living(facts: &Facts) -> impl Iterator<Item = &ProcessFact> {
    facts.processes.iter().filter(|process| process.is_alive)
}

fn ours(severity: Severity, sentence: String, action: &str) -> Finding {
    Finding::new(severity, Whose::Ours, Subject::Processes, (sentence, action))
}

fn names<'a>(processes: impl Iterator<Item = &'a ProcessFact>) -> String {
    processes.map(ProcessFact::name).collect::<Vec<_>>().join(", ")
}

/// No process of a kind runs.
pub(super) fn missing(facts: &Facts) -> Vec<Finding> {
    let runs = |is_dispatcher| living(facts).any(|process| process.is_dispatcher == is_dispatcher);
    let mut found = Vec::new();
    if !runs(true) {
        let sentence = "No dispatcher runs: nothing is delivered, and events wait in the broker.";
        found.push(ours(
            Severity::Critical,
            sentence.to_owned(),
            "Start a dispatcher; its log names the cause of a failed start.",
        ));
    }
    if !runs(false) {
        let sentence = "No ingest runs: events come over AMQP only, and the API is away.";
        found.push(ours(
            Severity::Critical,
            sentence.to_owned(),
            "Start ingest; its log names the cause of a failed start.",
        ));
    }
    found
}

/// Processes that died within the hour.
pub(super) fn dead(facts: &Facts) -> Vec<Finding> {
    let found = |process: &ProcessFact| {
        let seen = process.seen_at.map_or_else(String::new, |at| format!(": last seen at {}", time(at, facts.now)));
        let sentence = format!("The process {} died{seen}.", process.name());
        let action = "Find out why the process ended (memory limit, node, log). Its deliveries are recovered.";
        ours(Severity::Warning, sentence, action).since(process.seen_at)
    };
    facts.processes.iter().filter(|process| !process.is_alive).map(found).collect()
}

/// Processes without the broker or the database.
pub(super) fn servers_away(facts: &Facts) -> Vec<Finding> {
    type Has = fn(&ProcessFact) -> bool;
    let servers: [(&str, Has, &str); 2] = [
        (
            "RabbitMQ",
            |process| process.has_broker,
            "Look at RabbitMQ: its state, alarms of memory and disk, and the network.",
        ),
        (
            "the database",
            |process| process.has_database,
            "Look at PostgreSQL and the network. Do not restart dispatchers: outcomes in memory would be lost.",
        ),
    ];
    let found = |(server, has, action): (&str, Has, &str)| {
        let away: Vec<&ProcessFact> = living(facts).filter(|process| !has(process)).collect();
        let severity = if away.len() == living(facts).count() { Severity::Critical } else { Severity::Warning };
        (!away.is_empty())
            .then(|| ours(severity, format!("No answer of {server} at {}.", names(away.into_iter())), action))
    };
    servers.into_iter().filter_map(found).collect()
}

/// Dispatchers with nine tenths of their places in use.
pub(super) fn places_used_up(facts: &Facts) -> Vec<Finding> {
    let mut dispatchers = living(facts).filter(|process| process.is_dispatcher && process.places.1 > 0).peekable();
    let is_full = |process: &ProcessFact| process.places.0 * 10 >= process.places.1 * 9;
    if dispatchers.peek().is_none() || !dispatchers.all(is_full) {
        return Vec::new();
    }
    let sentence = "Every dispatcher uses nine tenths of its places: deliveries will wait.".to_owned();
    let action = "Raise FANFARE_PLACES, add dispatchers, or pause endpoints that hang.";
    vec![ours(Severity::Warning, sentence, action)]
}

/// Processes of several versions.
pub(super) fn versions(facts: &Facts) -> Vec<Finding> {
    let mut versions: Vec<&str> = living(facts).map(|process| process.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    if versions.len() < 2 {
        return Vec::new();
    }
    let sentence = format!("Processes of the versions {} run.", versions.join(", "));
    vec![ours(Severity::Warning, sentence, "Finish the rollout.")]
}

/// Settings on which the living processes disagree, each with its values and the processes of each value.
pub fn differing_settings(processes: &[ProcessFact]) -> BTreeMap<String, Values> {
    let mut settings: BTreeMap<String, Values> = BTreeMap::new();
    for process in processes.iter().filter(|process| process.is_alive) {
        let Ok(Value::Object(values)) = serde_json::from_str(&process.settings) else { continue };
        for (name, value) in values {
            settings.entry(name).or_default().entry(value.to_string()).or_default().push(process.name());
        }
    }
    settings.retain(|_, values| values.len() > 1);
    settings
}

/// Settings on which processes must agree, and do not.
pub(super) fn settings(facts: &Facts) -> Vec<Finding> {
    let found = |(name, values): (String, Values)| {
        let values: Vec<String> = values.iter().map(|(value, who)| format!("{value} in {}", who.join(", "))).collect();
        let sentence = format!("{name} differs: {}.", values.join("; "));
        let action = "Give all processes the same settings, and restart the processes that differ.";
        ours(Severity::Critical, sentence, action)
    };
    differing_settings(&facts.processes).into_iter().map(found).collect()
}

/// Clocks that deviate from the database's.
pub(super) fn clocks(facts: &Facts) -> Vec<Finding> {
    let found = |process: &ProcessFact| {
        let offset = duration(process.clock_offset);
        let sentence = format!("The clock of {} differs from the database's by {offset}.", process.name());
        ours(Severity::Warning, sentence, "Synchronise the clocks of both machines.")
    };
    living(facts).filter(|process| process.clock_offset > CLOCK).map(found).collect()
}

/// Attempts whose process died, in the last counted minutes.
pub(super) fn unknown_attempts(facts: &Facts) -> Vec<Finding> {
    let unknown = facts.recent.failed.unknown;
    if unknown == 0 {
        return Vec::new();
    }
    let attempts = count(unknown, "attempt has", "attempts have");
    let sentence = format!("{attempts} no known outcome, as a process died. Receivers may get these deliveries twice.");
    vec![ours(Severity::Warning, sentence, "Find out why processes die (memory limit, node, log).")]
}
