//! Health of an endpoint, as lists show it.

use std::time::Duration;

use jiff::Timestamp;

use crate::{endpoint::EndpointStatus, time::saturating_add};

/// An endpoint counts as failing after this time without a success.
pub const FAILING_AFTER: Duration = Duration::from_secs(600);

/// Health of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Health {
    /// Enabled, and not known to fail.
    Enabled,
    /// Enabled, and each attempt fails.
    Failing,
    /// Paused: deliveries are held.
    Paused,
    /// Disabled: deliveries are skipped.
    Disabled,
}

impl Health {
    /// Decides the health. `failing_since` is the time since which each attempt failed.
    pub fn of(status: EndpointStatus, is_breaker_open: bool, failing_since: Option<Timestamp>, now: Timestamp) -> Self {
        let fails_long = failing_since.is_some_and(|since| saturating_add(since, FAILING_AFTER) <= now);
        match status {
            EndpointStatus::Paused => Self::Paused,
            EndpointStatus::Disabled => Self::Disabled,
            EndpointStatus::Enabled if is_breaker_open || fails_long => Self::Failing,
            EndpointStatus::Enabled => Self::Enabled,
        }
    }

    /// Name in the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Enabled => "enabled",
            Self::Failing => "failing",
            Self::Paused => "paused",
            Self::Disabled => "disabled",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_enabled_endpoint_fails_behind_its_breaker_or_after_ten_minutes() {
        let at = |second| Timestamp::from_second(second).expect("a moment");
        let of = |status, is_open, since| Health::of(status, is_open, since, at(1000));
        assert_eq!(of(EndpointStatus::Enabled, false, None), Health::Enabled);
        assert_eq!(of(EndpointStatus::Enabled, true, None), Health::Failing);
        assert_eq!(of(EndpointStatus::Enabled, false, Some(at(401))), Health::Enabled);
        assert_eq!(of(EndpointStatus::Enabled, false, Some(at(400))), Health::Failing);
        assert_eq!(of(EndpointStatus::Paused, true, Some(at(0))), Health::Paused);
        assert_eq!(of(EndpointStatus::Disabled, true, Some(at(0))), Health::Disabled);
    }
}
