//! The outcome of an attempt: all data that decisions need.

use crate::delivery::answer::{Action, RetryAfter};

/// Result of a POST. Every attempt yields an outcome and never an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint sent a status line in time. The status decides, even if the body breaks off.
    Answered {
        /// The HTTP status code.
        status: u16,
        /// The wait that the endpoint asked for in `Retry-After`, not yet bounded.
        retry_after: Option<RetryAfter>,
        /// The end that the endpoint asked for.
        action: Option<Action>,
    },
    /// No complete response head within the deadline.
    TimedOut,
    /// No listener at the address, or no route.
    ConnectionFailed,
    /// The connection ended, or was reset, before a response head.
    ConnectionClosed,
    /// The host name has no address.
    NameNotResolved,
    /// The address may not be called (see [`crate::endpoint::address`]). The next attempt may be allowed, as names
    /// change.
    AddressForbidden,
    /// No TLS session: certificate, name or protocol.
    TlsFailed,
    /// The response was not HTTP.
    NotHttp,
    /// The stored settings give no valid request: a URL or header is no longer valid.
    NotSendable,
    /// The sending process died before recording an outcome.
    Unknown,
}

impl Outcome {
    /// Names of all outcomes.
    pub const CODES: [&'static str; 10] = [
        "answered",
        "timed_out",
        "connection_failed",
        "connection_closed",
        "name_not_resolved",
        "address_forbidden",
        "tls_failed",
        "not_http",
        "not_sendable",
        "unknown",
    ];

    /// A response without a request of the endpoint.
    pub const fn answered(status: u16) -> Self {
        Self::Answered { status, retry_after: None, action: None }
    }

    /// Name in the log, the API and the metrics.
    pub fn code(self) -> &'static str {
        match self {
            Self::Answered { .. } => "answered",
            Self::TimedOut => "timed_out",
            Self::ConnectionFailed => "connection_failed",
            Self::ConnectionClosed => "connection_closed",
            Self::NameNotResolved => "name_not_resolved",
            Self::AddressForbidden => "address_forbidden",
            Self::TlsFailed => "tls_failed",
            Self::NotHttp => "not_http",
            Self::NotSendable => "not_sendable",
            Self::Unknown => "unknown",
        }
    }

    /// Outcome of a recorded attempt, by code and status. `None` for any other code, and for a missing status.
    pub fn of_record(code: &str, status: Option<u16>) -> Option<Self> {
        let answered = || status.map(Self::answered);
        let unanswered = || UNANSWERED.into_iter().chain([Self::Unknown]).find(|outcome| outcome.code() == code);
        if code == "answered" { answered() } else { unanswered() }
    }

    /// The end that the endpoint asked for.
    pub fn action(self) -> Option<Action> {
        match self {
            Self::Answered { action, .. } => action,
            _ => None,
        }
    }

    /// The status code, if the endpoint answered.
    pub fn status(self) -> Option<u16> {
        match self {
            Self::Answered { status, .. } => Some(status),
            _ => None,
        }
    }
}

/// Meaning of an outcome for the delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OutcomeClass {
    /// The endpoint has the event.
    Delivered,
    /// The endpoint does not have the event, and may accept a later attempt.
    Failed,
    /// The endpoint refuses the event: no later attempt would change that.
    Rejected,
    /// The endpoint wants no more events.
    Gone,
}

/// Classifies outcomes: successes, and outcomes that end a delivery at once. All other outcomes are failures with a
/// retry.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutcomeRules {
    success: Vec<Pattern>,
    rejecting: Vec<Pattern>,
    disabling: Vec<Pattern>,
}

/// A set of outcomes with the same class.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Pattern {
    /// Responses with this status.
    Status(u16),
    /// Responses with a status of this hundred.
    Class(u16),
    /// An outcome without a response.
    Code(&'static str),
}

impl Pattern {
    /// True if an outcome can match both patterns.
    fn overlaps(self, other: Self) -> bool {
        match (self, other) {
            (Self::Status(status), Self::Class(class)) | (Self::Class(class), Self::Status(status)) => {
                status / 100 == class
            }
            (pattern, other) => pattern == other,
        }
    }
}

/// An invalid list of outcomes, named as in a dialect's file.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("holds {text:?}, which is not {expected}")]
pub struct InvalidOutcomeRules {
    /// Name of the list: `success`, `final` or `disabling`.
    pub list: &'static str,
    text: String,
    expected: &'static str,
}

impl OutcomeRules {
    /// Parses the lists. Each contains statuses (`204`) and classes (`2xx`); the latter two may also contain outcomes
    /// without a response (`timed_out`). An outcome in `disabling` ends the delivery as well, and takes precedence over
    /// `rejecting`.
    ///
    /// # Errors
    /// If a list contains any other text, or if an outcome is a success and also ends the delivery.
    pub fn parse<T: AsRef<str>>(success: &[T], rejecting: &[T], disabling: &[T]) -> Result<Self, InvalidOutcomeRules> {
        let rules = Self {
            success: patterns("success", success, &[])?,
            rejecting: patterns("final", rejecting, &UNANSWERED)?,
            disabling: patterns("disabling", disabling, &UNANSWERED)?,
        };
        for (list, given, others) in
            [("final", rejecting, &rules.rejecting), ("disabling", disabling, &rules.disabling)]
        {
            let both = others.iter().position(|pattern| rules.success.iter().any(|success| pattern.overlaps(*success)));
            if let Some(place) = both {
                let text = given[place].as_ref().to_owned();
                return Err(InvalidOutcomeRules { list, text, expected: "a failure: it is in the list success" });
            }
        }
        Ok(rules)
    }

    /// The class on an outcome.
    pub fn of(&self, outcome: Outcome) -> OutcomeClass {
        let holds = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.covers(outcome));
        if holds(&self.success) {
            OutcomeClass::Delivered
        } else if holds(&self.disabling) {
            OutcomeClass::Gone
        } else if holds(&self.rejecting) {
            OutcomeClass::Rejected
        } else {
            OutcomeClass::Failed
        }
    }
}

impl Default for OutcomeRules {
    /// 2xx is a success; all other outcomes are retried.
    fn default() -> Self {
        Self { success: vec![Pattern::Class(2)], rejecting: Vec::new(), disabling: Vec::new() }
    }
}

impl Pattern {
    fn covers(self, outcome: Outcome) -> bool {
        match (self, outcome.status()) {
            (Self::Status(wanted), Some(status)) => wanted == status,
            (Self::Class(hundreds), Some(status)) => hundreds == status / 100,
            (Self::Code(code), None) => code == outcome.code(),
            _ => false,
        }
    }
}

/// Outcomes without a response that a list may name: the endpoint is responsible for these.
const UNANSWERED: [Outcome; 8] = [
    Outcome::TimedOut,
    Outcome::ConnectionFailed,
    Outcome::ConnectionClosed,
    Outcome::NameNotResolved,
    Outcome::AddressForbidden,
    Outcome::TlsFailed,
    Outcome::NotHttp,
    Outcome::NotSendable,
];

fn patterns<T: AsRef<str>>(
    list: &'static str,
    texts: &[T],
    unanswered: &[Outcome],
) -> Result<Vec<Pattern>, InvalidOutcomeRules> {
    let pattern = |text: &T| {
        let text = text.as_ref();
        let status = || text.parse().ok().filter(|status| text.len() == 3 && (200..600).contains(status));
        let class = || text.strip_suffix("xx")?.parse().ok().filter(|hundreds| (2..=5).contains(hundreds));
        let code = || unanswered.iter().map(|outcome| outcome.code()).find(|&code| code == text);
        status()
            .map(Pattern::Status)
            .or_else(|| class().map(Pattern::Class))
            .or_else(|| code().map(Pattern::Code))
            .ok_or_else(|| InvalidOutcomeRules {
                list,
                text: text.chars().take(32).collect(),
                expected: match unanswered {
                    [] => "a status such as \"204\" or a class such as \"2xx\"",
                    _ => "a status such as \"404\", a class such as \"4xx\", or an outcome such as \"timed_out\"",
                },
            })
    };
    texts.iter().map(pattern).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_outcome_has_a_listed_name() {
        let answered = Outcome::answered(200);
        let all = [
            answered,
            Outcome::TimedOut,
            Outcome::ConnectionFailed,
            Outcome::ConnectionClosed,
            Outcome::NameNotResolved,
            Outcome::AddressForbidden,
            Outcome::TlsFailed,
            Outcome::NotHttp,
            Outcome::NotSendable,
            Outcome::Unknown,
        ];
        assert_eq!(all.map(Outcome::code), Outcome::CODES);
    }

    #[test]
    fn records_round_trip() {
        let answered = Outcome::answered(204);
        for outcome in UNANSWERED.into_iter().chain([Outcome::Unknown, answered]) {
            assert_eq!(Outcome::of_record(outcome.code(), outcome.status()), Some(outcome));
        }
        assert_eq!((Outcome::of_record("answered", None), Outcome::of_record("lost", Some(200))), (None, None));
    }

    fn class(rules: &OutcomeRules, status: u16) -> OutcomeClass {
        rules.of(Outcome::answered(status))
    }

    #[test]
    fn by_default_2xx_is_received_and_all_else_is_tried_again() {
        let rules = OutcomeRules::default();
        for status in 100..600 {
            let expected = if (200..300).contains(&status) { OutcomeClass::Delivered } else { OutcomeClass::Failed };
            assert_eq!(class(&rules, status), expected, "{status}");
        }
        assert_eq!(rules.of(Outcome::TimedOut), OutcomeClass::Failed);
    }

    #[test]
    fn a_success_cannot_end_a_delivery_as_failed() {
        let list = |success: &str, rejecting: &[&str], disabling: &[&str]| {
            OutcomeRules::parse(&[success], rejecting, disabling).expect_err(success).list
        };
        assert_eq!(list("2xx", &["4xx", "204"], &[]), "final");
        assert_eq!(list("200", &["2xx"], &[]), "final");
        assert_eq!(list("410", &[], &["410"]), "disabling");
        assert!(OutcomeRules::parse(&["2xx"], &["4xx"], &["410"]).is_ok());
    }

    #[test]
    fn lists_hold_statuses_classes_and_outcomes() {
        let rules = OutcomeRules::parse(&["200", "202"], &["4xx", "tls_failed"], &["410"]).expect("rules");
        assert_eq!(class(&rules, 202), OutcomeClass::Delivered);
        assert_eq!(class(&rules, 201), OutcomeClass::Failed);
        assert_eq!(class(&rules, 429), OutcomeClass::Rejected);
        assert_eq!(class(&rules, 410), OutcomeClass::Gone);
        assert_eq!(class(&rules, 503), OutcomeClass::Failed);
        assert_eq!(rules.of(Outcome::TlsFailed), OutcomeClass::Rejected);
        assert_eq!(rules.of(Outcome::TimedOut), OutcomeClass::Failed);
    }

    #[test]
    fn invalid_outcomes_are_refused() {
        for text in ["", "2", "2x", "1xx", "6xx", "xx", "0200", "+20", "2XX", "600", "unknown", "answered", "２xx"] {
            assert!(OutcomeRules::parse(&[], &[text], &[]).is_err(), "{text}");
        }
        assert!(OutcomeRules::parse(&["timed_out"], &[], &[]).is_err());
    }
}
