//! What came of one attempt, as far as anybody can decide by it.

use std::time::Duration;

use jiff::Timestamp;

/// The result of one POST. An attempt always yields one: there is no error beside it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Outcome {
    /// The endpoint sent a status line in time. The status decides, whatever became of the body.
    Answered {
        /// The HTTP status code.
        status: u16,
        /// What the endpoint asked for in `Retry-After`, already bounded by nobody.
        retry_after: Option<RetryAfter>,
    },
    /// No complete response head within the deadline.
    TimedOut,
    /// Nobody listens there, or no route leads there.
    ConnectionFailed,
    /// The connection ended, or was reset, before a response head.
    ConnectionClosed,
    /// The host name has no address.
    NameNotResolved,
    /// The address may not be called (see [`crate::address`]). It may be allowed at the next attempt, as names change.
    AddressForbidden,
    /// No TLS session: certificate, name or protocol.
    TlsFailed,
    /// The answer was not HTTP.
    NotHttp,
    /// The request could not be made from what is stored: a URL or header that is no longer valid.
    NotSendable,
    /// The process that sent it did not live to record what came back.
    Unknown,
}

/// The two forms of the `Retry-After` header (RFC 9110, 10.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// A number of seconds from the answer on.
    Wait(Duration),
    /// A moment.
    At(Timestamp),
}

impl RetryAfter {
    /// Reads the header's value; what is neither form is as good as absent.
    pub fn parse(value: &str) -> Option<Self> {
        let value = value.trim();
        if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
            let seconds = value.parse().unwrap_or(u64::from(u32::MAX));
            return Some(Self::Wait(Duration::from_secs(seconds.min(u64::from(u32::MAX)))));
        }
        let moment = httpdate::parse_http_date(value).ok()?;
        Timestamp::try_from(moment).ok().map(Self::At)
    }

    /// How long to wait from `now`.
    pub fn wait(self, now: Timestamp) -> Duration {
        match self {
            Self::Wait(wait) => wait,
            Self::At(moment) => Duration::try_from(moment.duration_since(now)).unwrap_or(Duration::ZERO),
        }
    }
}

impl Outcome {
    /// The word that stands for it in the log, the API and the metrics.
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

    /// The status code, where there was one.
    pub fn status(self) -> Option<u16> {
        match self {
            Self::Answered { status, .. } => Some(status),
            _ => None,
        }
    }

    /// Whether the endpoint has taken the event.
    pub fn is_success(self) -> bool {
        matches!(self, Self::Answered { status: 200..=299, .. })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_after_in_both_forms() {
        let now: Timestamp = "2026-11-21T10:00:00Z".parse().expect("timestamp");
        let wait = |text: &str| RetryAfter::parse(text).map(|after| after.wait(now));
        assert_eq!(wait("120"), Some(Duration::from_secs(120)));
        assert_eq!(wait(" 0 "), Some(Duration::ZERO));
        assert_eq!(wait("Sat, 21 Nov 2026 10:01:00 GMT"), Some(Duration::from_secs(60)));
        assert_eq!(wait("Sat, 21 Nov 2026 09:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(wait("99999999999999999999999"), Some(Duration::from_secs(u64::from(u32::MAX))));
        assert_eq!(wait("-5"), None);
        assert_eq!(wait("soon"), None);
    }

    #[test]
    fn only_2xx_is_success() {
        for status in 100..600 {
            let outcome = Outcome::Answered { status, retry_after: None };
            assert_eq!(outcome.is_success(), (200..300).contains(&status));
        }
        assert!(!Outcome::TimedOut.is_success());
    }
}
