//! Findings: the troubles of a deployment or an application, each with the side that must act and the next action.
//!
//! The same list is on the first page, in `GET /api/v1/overview` and in `fanfare doctor`.

mod application;
mod deployment;
mod endpoints;
mod processes;
mod stopped;
mod text;

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::ids::{ApplicationId, EndpointId};

pub use application::{ApplicationFacts, application_findings};
pub use deployment::{
    ApplicationLoad, DueDeliveries, Facts, JobFact, MAX_LATE, MAX_PARKED, ParkedGroup, QueueFact, examine, summary,
};
pub use endpoints::{
    CERTIFICATE_ENDS_SOON, CertificateFact, ChangeFact, EndpointFact, ExpiringFact, HeldFact, MAX_HELD, MAX_WAITING,
    RotationFact,
};
pub use processes::{ProcessFact, differing_settings};
pub use stopped::{MAX_PARKED_KEYS, Stop, StoppedFact};

/// Urgency of a finding. The most urgent is the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Severity {
    /// Deliveries or events stand still, or soon will.
    Critical,
    /// Something is late or fails.
    Warning,
    /// Worth a look.
    Notice,
}

/// The side that must act.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whose {
    /// The operators of Fanfare.
    Ours,
    /// The owner of an endpoint.
    Theirs,
    /// A publisher of events.
    Publisher,
}

/// The thing that a finding is about, for a link.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// A webhook of an application.
    Webhook(ApplicationId, EndpointId),
    /// An application.
    Application(ApplicationId),
    /// Parked messages with this reason.
    Parked(String),
    /// The processes.
    Processes,
    /// The broker's queues.
    Queues,
    /// The background jobs.
    Jobs,
    /// The database.
    Database,
}

/// A trouble, with the next action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Finding {
    /// Urgency.
    pub severity: Severity,
    /// The side that must act.
    pub whose: Whose,
    /// Beginning of the trouble, if known.
    pub since: Option<Timestamp>,
    /// The trouble, as a sentence.
    pub sentence: String,
    /// The next action, as a sentence.
    pub action: String,
    /// The thing that the finding is about.
    pub subject: Subject,
}

/// The result of all checks.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Examined {
    /// Troubles, the most urgent first.
    pub findings: Vec<Finding>,
    /// Sentences of the checks without a finding.
    pub well: Vec<&'static str>,
}

impl Severity {
    /// Name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Critical => "critical",
            Self::Warning => "warning",
            Self::Notice => "notice",
        }
    }
}

impl Whose {
    /// Name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ours => "ours",
            Self::Theirs => "theirs",
            Self::Publisher => "publisher",
        }
    }
}

impl Finding {
    fn new(severity: Severity, whose: Whose, subject: Subject, texts: (String, &str)) -> Self {
        let (sentence, action) = texts;
        Self { severity, whose, since: None, sentence, action: action.to_owned(), subject }
    }

    fn since(self, since: Option<Timestamp>) -> Self {
        Self { since, ..self }
    }
}

/// A check: the sentence of a good result, and the findings.
type Check<F> = (&'static str, fn(&F) -> Vec<Finding>);

/// Runs checks in order. Sorts findings by severity; the order of equal findings is kept.
fn run<F>(checks: &[Check<F>], facts: &F) -> Examined {
    let mut examined = Examined::default();
    for (well, check) in checks {
        let found = check(facts);
        if found.is_empty() {
            examined.well.push(well);
        }
        examined.findings.extend(found);
    }
    examined.findings.sort_by_key(|finding| finding.severity);
    examined
}

/// Values of a setting, with the processes of each value.
pub type Values = BTreeMap<String, Vec<String>>;

#[cfg(test)]
mod tests;
