//! Headers by which a receiver answers back: a wait, and the end of the delivery or of all deliveries.

use std::time::Duration;

use jiff::Timestamp;

/// Name of the response header with an [`Action`].
pub const ACTION: &str = "webhook-action";

/// The two forms of the `Retry-After` header (RFC 9110, 10.2.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RetryAfter {
    /// Wait after the response.
    Wait(Duration),
    /// Time of the next attempt.
    At(Timestamp),
}

impl RetryAfter {
    /// Parses the header's value. Any other form counts as absent.
    pub fn parse(value: &str) -> Option<Self> {
        let value = value.trim();
        if !value.is_empty() && value.bytes().all(|byte| byte.is_ascii_digit()) {
            let seconds = value.parse().unwrap_or(u64::from(u32::MAX));
            return Some(Self::Wait(Duration::from_secs(seconds.min(u64::from(u32::MAX)))));
        }
        let moment = httpdate::parse_http_date(value).ok()?;
        Timestamp::try_from(moment).ok().map(Self::At)
    }

    /// The wait from `now` on.
    pub fn wait(self, now: Timestamp) -> Duration {
        match self {
            Self::Wait(wait) => wait,
            Self::At(moment) => Duration::try_from(moment.duration_since(now)).unwrap_or(Duration::ZERO),
        }
    }
}

/// The request of a receiver, in the header [`ACTION`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Make no further attempt of this delivery.
    Stop,
    /// Make no further attempt of this delivery, and disable the endpoint.
    Disable,
}

impl Action {
    /// Parses the header's value, in any case. Any other text counts as absent.
    pub fn parse(value: &str) -> Option<Self> {
        let is = |name| value.trim().eq_ignore_ascii_case(name);
        if is("stop") {
            Some(Self::Stop)
        } else if is("disable") {
            Some(Self::Disable)
        } else {
            None
        }
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
    fn actions_in_any_case() {
        assert_eq!(Action::parse("stop"), Some(Action::Stop));
        assert_eq!(Action::parse(" Disable "), Some(Action::Disable));
        for other in ["", "stop, disable", "disabled", "delete"] {
            assert_eq!(Action::parse(other), None, "{other}");
        }
    }
}
