//! The states of a delivery, and the words for why it is in one.

use std::time::Duration;

use jiff::Timestamp;

use crate::moment::later;

/// Attempts of unknown outcome in a row after which a delivery is given up: whatever kills the process
/// each time must not do so for ever.
pub const MAX_UNKNOWN_ATTEMPTS: u32 = 3;

/// What a taking lasts beyond the attempt's deadline, before another process may take the delivery
/// over: time to wait in the lane, to record, and for clocks to differ.
const HOLD_MARGIN: Duration = Duration::from_secs(11);

/// An attempt begins within this of its taking, or the delivery is given back: what is left of the margin is for
/// the record, and for clocks to differ.
pub const BEGIN_WITHIN: Duration = Duration::from_secs(5);

/// How long a process may keep a delivery that it has taken.
pub fn hold(timeout: Duration) -> Duration {
    timeout + HOLD_MARGIN
}

/// When a claim on a delivery that somebody holds is due.
///
/// Some seconds after the hold's end: a claim may come a second early and by another clock, and one that
/// meets the row too early is lost. And some seconds from `now`: where the database was away for longer
/// than the hold, whoever holds it has its outcome ready and must be able to record it first.
pub fn hold_claim_due(hold_until: Timestamp, now: Timestamp) -> Timestamp {
    later(hold_until, Duration::from_secs(3)).max(later(now, Duration::from_secs(10)))
}

/// Where a delivery stands. The word is the same in the database and in the API.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// A process has taken it and attempts it.
    Sending,
    /// It waits for its due time, for a retry or because it was deferred.
    Waiting,
    /// Its endpoint is paused.
    Held,
    /// The endpoint has it.
    Delivered,
    /// It was given up, for a [`FailureReason`].
    Failed,
    /// Its endpoint was disabled.
    Skipped,
}

impl State {
    /// All of them.
    pub const ALL: [Self; 6] = [Self::Sending, Self::Waiting, Self::Held, Self::Delivered, Self::Failed, Self::Skipped];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Waiting => "waiting",
            Self::Held => "held",
            Self::Delivered => "delivered",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }
}

/// Why a delivery was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    /// The endpoint failed every attempt of its schedule.
    AttemptsExhausted,
    /// It was still unfinished long after its schedule's end.
    Expired,
    /// Each process that attempted it died ([`MAX_UNKNOWN_ATTEMPTS`] times).
    Aborted,
    /// Its endpoint no longer exists.
    EndpointDeleted,
    /// The endpoint answered that it will never take it.
    Rejected,
    /// The endpoint answered that it wants nothing any more, and has been disabled.
    EndpointGone,
    /// Its endpoint was paused for longer than deliveries are held.
    HeldTooLong,
    /// Its endpoint was paused, and more deliveries were held after it than are kept.
    TooManyHeld,
    /// It was a test, which is sent once.
    TestFailed,
    /// Somebody has had its event erased.
    Erased,
}

impl FailureReason {
    /// The word in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::AttemptsExhausted => "attempts_exhausted",
            Self::Expired => "expired",
            Self::Aborted => "aborted",
            Self::EndpointDeleted => "endpoint_deleted",
            Self::Rejected => "rejected",
            Self::EndpointGone => "endpoint_gone",
            Self::HeldTooLong => "held_too_long",
            Self::TooManyHeld => "too_many_held",
            Self::TestFailed => "test_failed",
            Self::Erased => "erased",
        }
    }
}

/// Why a delivery waits though its endpoint did not fail. Uses up no attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeferralReason {
    /// Its turn would come, or came, too late: the bound of the lane or of the process is used up.
    LaneFull,
    /// Its application has as many attempts on their way as one may have.
    ApplicationBusy,
    /// Its endpoint fails again and again, and is left alone for a while.
    BreakerOpen,
    /// The event has more endpoints than are attempted straight from its message.
    WideFanOut,
    /// The process that had taken it was shutting down.
    ShuttingDown,
    /// Somebody asked for it to be sent again.
    Resent,
    /// A replay sends it.
    Replayed,
    /// Its endpoint gets as many attempts in a second as it is to get.
    RateLimited,
    /// Its application's settings cannot be read by the process that met its claim.
    ApplicationUnreadable,
}

impl DeferralReason {
    /// The word in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LaneFull => "lane_full",
            Self::ApplicationBusy => "application_busy",
            Self::BreakerOpen => "breaker_open",
            Self::WideFanOut => "wide_fan_out",
            Self::ShuttingDown => "shutting_down",
            Self::Resent => "resent",
            Self::Replayed => "replayed",
            Self::RateLimited => "rate_limited",
            Self::ApplicationUnreadable => "application_unreadable",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_round_trip() {
        for state in State::ALL {
            assert_eq!(State::parse(state.as_str()), Some(state));
        }
        assert_eq!(State::parse("lost"), None);
    }
}
