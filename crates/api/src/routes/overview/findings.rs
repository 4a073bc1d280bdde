//! Findings, as the API shows them.

use fanfare_domain::{
    diagnosis::findings::{Finding, Subject},
    ids::{ApplicationId, EndpointId},
};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

/// A trouble, with the next action.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = Finding)]
pub struct FindingView {
    /// `critical`, `warning` or `notice`.
    #[schema(example = "warning")]
    pub severity: &'static str,
    /// The side that must act: `ours` (the operators), `theirs` (an endpoint's owner) or `publisher`.
    #[schema(example = "theirs")]
    pub whose: &'static str,
    /// The beginning of the trouble, if known.
    #[schema(value_type = Option<String>, format = DateTime)]
    pub since: Option<Timestamp>,
    /// The trouble, as a sentence.
    #[schema(example = "hooks.acme.example has failed since 14:02 UTC (401).")]
    pub sentence: String,
    /// The next action, as a sentence.
    pub action: String,
    pub subject: SubjectView,
}

/// The thing that a finding is about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[serde(tag = "kind", rename_all = "snake_case")]
#[schema(as = FindingSubject)]
pub enum SubjectView {
    /// A webhook.
    Webhook {
        #[schema(value_type = String)]
        application: ApplicationId,
        #[schema(value_type = String)]
        webhook: EndpointId,
    },
    /// An application.
    Application {
        #[schema(value_type = String)]
        application: ApplicationId,
    },
    /// The parked messages with a reason.
    Parked {
        #[schema(example = "missing_message_id")]
        reason: String,
    },
    /// The processes.
    Processes,
    /// The queues of the broker.
    Queues,
    /// The background jobs.
    Jobs,
    /// The database.
    Database,
}

impl From<Finding> for FindingView {
    fn from(finding: Finding) -> Self {
        let Finding { severity, whose, since, sentence, action, subject } = finding;
        Self { severity: severity.as_str(), whose: whose.as_str(), since, sentence, action, subject: subject.into() }
    }
}

impl From<Subject> for SubjectView {
    fn from(subject: Subject) -> Self {
        match subject {
            Subject::Webhook(application, webhook) => Self::Webhook { application, webhook },
            Subject::Application(application) => Self::Application { application },
            Subject::Parked(reason) => Self::Parked { reason },
            Subject::Processes => Self::Processes,
            Subject::Queues => Self::Queues,
            Subject::Jobs => Self::Jobs,
            Subject::Database => Self::Database,
        }
    }
}
