//! Findings on a whole deployment.

use std::time::Duration;

use jiff::Timestamp;

use super::{
    CertificateFact, Check, EndpointFact, Examined, ExpiringFact, Finding, HeldFact, ProcessFact, RotationFact,
    Severity, Subject, Whose,
    endpoints::{self, Reader},
    processes, run,
    text::{bounded, count, duration, time},
};
use crate::{diagnosis::rollup::Counts, ids::ApplicationId, time::saturating_add};

/// Longest wait for a place that is no finding, and that is no outage.
const WAIT: Duration = Duration::from_secs(5);
const LONG_WAIT: Duration = Duration::from_secs(60);

/// Longest delay of a retry, and longest time without an owner, that is no finding. Recovery acts after 10 s.
const LATE: Duration = Duration::from_secs(30);

/// Parked messages of this age are no news.
const RECENT: Duration = Duration::from_secs(3600);

/// Age of the counts above which charts lag.
const COUNTS_LATE: Duration = Duration::from_secs(900);

/// Days of partitions below which the partitions job has failed for long, and below which little time is left.
const PARTITIONS: i32 = 4;
const FEW_PARTITIONS: i32 = 1;

/// Least events a second of a loud application.
const LOUD: f64 = 10.0;

/// Bound of the count of parked messages, over all reasons.
pub const MAX_PARKED: u64 = 1000;

/// Bound of the count of late retries.
pub const MAX_LATE: u64 = 1000;

/// Everything that the checks look at.
#[derive(Debug, Clone)]
pub struct Facts {
    /// Time of the database.
    pub now: Timestamp,
    /// Deliveries that wait for us.
    pub due: DueDeliveries,
    /// Processes on record.
    pub processes: Vec<ProcessFact>,
    /// Queues of the broker, as last seen.
    pub queues: Vec<QueueFact>,
    /// Parked messages by reason.
    pub parked: Vec<ParkedGroup>,
    /// Endpoints that fail.
    pub endpoints: Vec<EndpointFact>,
    /// The loudest applications.
    pub applications: Vec<ApplicationLoad>,
    /// Rotations that end soon.
    pub rotations: Vec<RotationFact>,
    /// Client certificates that end soon.
    pub certificates: Vec<CertificateFact>,
    /// Deliveries held for paused endpoints.
    pub held: Vec<HeldFact>,
    /// Queued deliveries that expire soon.
    pub expiring: Vec<ExpiringFact>,
    /// Days from today on for which all partitions exist.
    pub partitions_ahead: i32,
    /// Days that wait for the archive.
    pub days_to_archive: i64,
    /// Jobs with their last run.
    pub jobs: Vec<JobFact>,
    /// End of the counted time.
    pub counted_until: Timestamp,
    /// Counts of the whole deployment in the last counted minutes.
    pub recent: Counts,
}

/// Deliveries that wait for us, not for an endpoint.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct DueDeliveries {
    /// Retries past their time, counted up to [`MAX_LATE`].
    pub retries: u64,
    /// Time of the oldest such retry.
    pub oldest_retry: Option<Timestamp>,
    /// Time since which a backlog without an owner is due.
    pub unowned_since: Option<Timestamp>,
}

/// A queue of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueFact {
    /// Name without the prefix.
    pub queue: String,
    /// Messages that wait in the broker.
    pub ready: u64,
    /// Messages that waited a minute before.
    pub ready_before: u64,
    /// Consumers of all processes.
    pub consumers: u64,
}

/// Parked messages with the same reason.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ParkedGroup {
    /// Reason of the parking.
    pub reason: String,
    /// Number of messages among the newest [`MAX_PARKED`].
    pub messages: u64,
    /// Time of the newest message.
    pub newest: Timestamp,
    /// Time of the oldest message.
    pub oldest: Timestamp,
}

/// Load of an application.
#[derive(Debug, Clone, PartialEq)]
pub struct ApplicationLoad {
    /// Id of the application.
    pub application: ApplicationId,
    /// Name of the application.
    pub name: String,
    /// Events a second.
    pub events_per_second: f64,
    /// Share of all events.
    pub share: f64,
    /// Limit of events a second over HTTP; `None` for the deployment's.
    pub limit: Option<u32>,
    /// Backlogs that wait, as the application uses its half of the places.
    pub busy_backlogs: u64,
    /// Backlogs that wait, as a dispatcher cannot read the application's settings.
    pub unreadable_backlogs: u64,
}

/// The last run of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobFact {
    /// Name of the job.
    pub job: String,
    /// Message of the error; `None` after a success.
    pub error: Option<String>,
    /// Time of the last success.
    pub succeeded_at: Option<Timestamp>,
}

/// All checks, with the sentence of a good result.
const CHECKS: [Check<Facts>; 24] = [
    ("Dispatchers and ingest run.", processes::missing),
    ("No process died within the hour.", processes::dead),
    ("Broker and database answer all processes.", processes::servers_away),
    ("Deliveries get their places at once.", waits_for_places),
    ("Dispatchers have free places.", processes::places_used_up),
    ("Retries come in time.", late_retries),
    ("Every backlog has an owner.", unowned_backlogs),
    ("Events do not wait in the broker.", events_wait),
    ("Every queue has consumers.", without_consumers),
    ("Every message found its queue.", unrouted),
    ("All processes have the same settings.", processes::settings),
    ("All processes have the same version.", processes::versions),
    ("All clocks agree.", processes::clocks),
    ("Every attempt has a known outcome.", processes::unknown_attempts),
    ("Partitions exist for the coming days.", partitions),
    ("No day waits for the archive.", archive),
    ("All jobs succeed.", jobs),
    ("Charts are up to date.", counts_late),
    ("All messages can be read.", parked),
    ("No application takes more than its share.", loud),
    ("No endpoint fails.", |facts| endpoints::failing(&facts.endpoints, facts.now, Reader::Operator)),
    ("No held or queued delivery is about to fail.", |facts| {
        [endpoints::held(&facts.held, facts.now), endpoints::expiring(&facts.expiring, facts.now)].concat()
    }),
    ("No rotation of a secret ends within the hour.", |facts| endpoints::rotations(&facts.rotations, facts.now)),
    ("No client certificate ends within 14 days.", |facts| endpoints::certificates(&facts.certificates, facts.now)),
];

/// Examines a deployment.
pub fn examine(facts: &Facts) -> Examined {
    run(&CHECKS, facts)
}

/// The state of a deployment in two sentences: whether Fanfare keeps up, and the troubles of others.
pub fn summary(examined: &Examined) -> String {
    let count_of = |whose: Whose| {
        let serious = |finding: &&Finding| finding.whose == whose && finding.severity < Severity::Notice;
        examined.findings.iter().filter(serious).count() as u64
    };
    let ours = examined.findings.iter().filter(|finding| finding.whose == Whose::Ours);
    let mut sentence = match ours.map(|finding| finding.severity).min() {
        Some(Severity::Critical) => "Fanfare does not keep up.".to_owned(),
        Some(Severity::Warning) => "Fanfare needs a look.".to_owned(),
        _ => "Fanfare keeps up.".to_owned(),
    };
    let others: Vec<String> = [
        (count_of(Whose::Theirs), "endpoint needs its owner", "endpoints need their owners"),
        (count_of(Whose::Publisher), "trouble is a publisher's", "troubles are publishers'"),
    ]
    .into_iter()
    .filter(|(number, ..)| *number > 0)
    .map(|(number, one, many)| count(number, one, many))
    .collect();
    if !others.is_empty() {
        sentence += &format!(" {}.", others.join(", and "));
    }
    sentence
}

fn ours(severity: Severity, subject: Subject, sentence: String, action: &str) -> Finding {
    Finding::new(severity, Whose::Ours, subject, (sentence, action))
}

fn waits_for_places(facts: &Facts) -> Vec<Finding> {
    let (due, longest) = processes::living(facts).fold((0_u64, Duration::ZERO), |(due, longest), process| {
        (due.saturating_add(process.due), longest.max(process.longest_wait))
    });
    if longest <= WAIT {
        return Vec::new();
    }
    let severity = if longest > LONG_WAIT { Severity::Critical } else { Severity::Warning };
    let due = count(due, "delivery waits", "deliveries wait");
    let sentence = format!("{due} for a place in the dispatchers, the oldest for {}.", duration(longest));
    let action = "Add dispatchers, raise FANFARE_PLACES, or pause endpoints that hang.";
    vec![ours(severity, Subject::Processes, sentence, action)]
}

fn late_retries(facts: &Facts) -> Vec<Finding> {
    let Some(oldest) = facts.due.oldest_retry.filter(|oldest| saturating_add(*oldest, LATE) < facts.now) else {
        return Vec::new();
    };
    let retries = bounded(facts.due.retries, MAX_LATE, "retry is", "retries are");
    let sentence = format!("{retries} late, the oldest since {}.", time(oldest, facts.now));
    let action =
        "Look at RabbitMQ and at the delay queues: retry messages are late or lost. Recovery queues the deliveries.";
    vec![ours(Severity::Warning, Subject::Queues, sentence, action).since(Some(oldest))]
}

fn unowned_backlogs(facts: &Facts) -> Vec<Finding> {
    let Some(since) = facts.due.unowned_since.filter(|since| saturating_add(*since, LATE) < facts.now) else {
        return Vec::new();
    };
    let sentence = format!("Queued deliveries have had no dispatcher since {}.", time(since, facts.now));
    let action =
        "Look whether dispatchers run and have free places; a dispatcher takes over after FANFARE_TAKEOVER_AFTER.";
    vec![ours(Severity::Critical, Subject::Processes, sentence, action).since(Some(since))]
}

fn events_wait(facts: &Facts) -> Vec<Finding> {
    let in_hand = processes::living(facts).map(|process| process.events_in_hand as u64).fold(0, u64::saturating_add);
    let is_waiting = |queue: &&QueueFact| queue.queue == "events" && queue.ready.min(queue.ready_before) > in_hand;
    let found = |queue: &QueueFact| {
        let events = count(queue.ready, "event waits", "events wait");
        let sentence = format!("{events} in the broker, and {in_hand} are in hand.");
        let action = "Add dispatchers; if commits are slow, the database is the limit.";
        ours(Severity::Warning, Subject::Queues, sentence, action)
    };
    facts.queues.iter().filter(is_waiting).map(found).collect()
}

fn without_consumers(facts: &Facts) -> Vec<Finding> {
    let is_lonely =
        |queue: &&QueueFact| ["events", "deliveries"].contains(&queue.queue.as_str()) && queue.consumers == 0;
    let found = |queue: &QueueFact| {
        let sentence = format!("No dispatcher consumes the queue `{}`.", queue.queue);
        let action = "Look at the log of the dispatchers: they stop consuming while the database is away.";
        ours(Severity::Critical, Subject::Queues, sentence, action)
    };
    facts.queues.iter().filter(is_lonely).map(found).collect()
}

fn unrouted(facts: &Facts) -> Vec<Finding> {
    let is_waiting = |queue: &&QueueFact| queue.queue == "unrouted" && queue.ready > 0;
    let found = |queue: &QueueFact| {
        let sentence = format!("{} no binding.", count(queue.ready, "message matched", "messages matched"));
        let action = "A queue or a binding was deleted: a dispatcher declares both again and sends the messages on.";
        ours(Severity::Warning, Subject::Queues, sentence, action)
    };
    facts.queues.iter().filter(is_waiting).map(found).collect()
}

fn partitions(facts: &Facts) -> Vec<Finding> {
    let days = facts.partitions_ahead;
    if days >= PARTITIONS {
        return Vec::new();
    }
    let severity = if days <= FEW_PARTITIONS { Severity::Critical } else { Severity::Warning };
    let sentence = format!("Partitions exist for {days} days ahead: then no event can be stored.");
    let action = "Run `fanfare migrate`, and look at the log of the dispatchers for the job Partitions.";
    vec![ours(severity, Subject::Database, sentence, action)]
}

fn archive(facts: &Facts) -> Vec<Finding> {
    if facts.days_to_archive <= 1 {
        return Vec::new();
    }
    let sentence = format!("{} days at the end of their retention wait for the archive.", facts.days_to_archive);
    let action = "Repair bucket, credentials or network of the archive: the days use the database's disk.";
    vec![ours(Severity::Warning, Subject::Jobs, sentence, action)]
}

fn jobs(facts: &Facts) -> Vec<Finding> {
    let found = |job: &JobFact| {
        let error = job.error.as_deref()?;
        let sentence = format!("The job {} failed: {error}.", job.job);
        let action = "Look at the log of the dispatchers for the job; the next run tries again.";
        Some(ours(Severity::Warning, Subject::Jobs, sentence, action).since(job.succeeded_at))
    };
    facts.jobs.iter().filter_map(found).collect()
}

fn counts_late(facts: &Facts) -> Vec<Finding> {
    if saturating_add(facts.counted_until, COUNTS_LATE) >= facts.now {
        return Vec::new();
    }
    let sentence = format!("Attempts are counted until {}: charts lag.", time(facts.counted_until, facts.now));
    let action = "Look at the log of the dispatchers for the job Rollups.";
    vec![ours(Severity::Notice, Subject::Jobs, sentence, action).since(Some(facts.counted_until))]
}

fn parked(facts: &Facts) -> Vec<Finding> {
    // Beyond the bound, the older messages may have any of the reasons.
    let all = facts.parked.iter().map(|group| group.messages).fold(0, u64::saturating_add);
    let found = |group: &ParkedGroup| {
        let is_recent = saturating_add(group.newest, RECENT) >= facts.now;
        let severity = if is_recent { Severity::Warning } else { Severity::Notice };
        let is_ours = ["delivery_limit", "application_unreadable", "not_storable"].contains(&group.reason.as_str());
        let (whose, action) = match is_ours {
            true => (Whose::Ours, "Mend the cause (the log of the dispatchers names it), and put the messages back."),
            false => {
                (Whose::Publisher, "Tell the publisher, and put the messages back after an edit, or discard them.")
            }
        };
        let bound = if all >= MAX_PARKED { group.messages } else { MAX_PARKED };
        let messages = bounded(group.messages, bound, "message is", "messages are");
        let newest = time(group.newest, facts.now);
        let sentence = format!("{messages} parked: {}, the newest at {newest}.", group.reason);
        let subject = Subject::Parked(group.reason.clone());
        Finding::new(severity, whose, subject, (sentence, action)).since(Some(group.oldest))
    };
    facts.parked.iter().map(found).collect()
}

fn loud(facts: &Facts) -> Vec<Finding> {
    let mut found = Vec::new();
    for load in &facts.applications {
        let subject = || Subject::Application(load.application);
        if load.share > 0.5 && load.events_per_second >= LOUD && facts.applications.len() > 1 {
            let rate = load.events_per_second;
            let sentence = format!("{} publishes {rate:.0} events/s, {:.0} % of all.", load.name, load.share * 100.0);
            let action = "Set a publish rate for the application if others suffer.";
            found.push(Finding::new(Severity::Notice, Whose::Publisher, subject(), (sentence, action)));
        }
        if load.busy_backlogs > 0 {
            let endpoints = count(load.busy_backlogs, "endpoint waits", "endpoints wait");
            let sentence = format!("{} uses its half of the places, and {endpoints}.", load.name);
            let action = "Pause endpoints that hang, or shorten their `timeout_ms`; else raise FANFARE_PLACES.";
            found.push(Finding::new(Severity::Warning, Whose::Theirs, subject(), (sentence, action)));
        }
        if load.unreadable_backlogs > 0 {
            let sentence = format!("A dispatcher cannot read the settings of {}.", load.name);
            let action = "Give all processes the same FANFARE_DIALECTS and FANFARE_SECRET_KEYS.";
            found.push(ours(Severity::Critical, subject(), sentence, action));
        }
    }
    found
}
