//! The states of a delivery, and the reasons for them.

use std::time::Duration;

/// Attempts of unknown outcome in a row from which on a delivery is leased alone: the process that holds its lease sends
/// nothing else.
pub const ALONE_FROM: u32 = 2;

/// Attempts of unknown outcome in a row after which a delivery fails as aborted. The last two were made alone, so that no
/// other delivery can have killed their process.
pub const MAX_UNKNOWN_ATTEMPTS: u32 = ALONE_FROM + 2;

/// The part of a lease beyond the attempt's deadline: time to wait in the lane and to record, and for clocks to differ.
const LEASE_MARGIN: Duration = Duration::from_secs(11);

/// An attempt begins within this of its lease, or the delivery is given back. The rest of the margin is for the record,
/// and for clocks to differ.
pub const BEGIN_WITHIN: Duration = Duration::from_secs(5);

/// How long a process may keep a delivery that it has leased, for an attempt with this deadline.
pub fn lease_duration(timeout: Duration) -> Duration {
    timeout + LEASE_MARGIN
}

/// The state of a delivery. The API uses the same words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// A process holds its lease and attempts it.
    Sending,
    /// It waits for its retry time.
    Scheduled,
    /// Its endpoint cannot take it now.
    Queued,
    /// It is queued, and its endpoint is paused. The database has no such state.
    Held,
    /// The endpoint has it.
    Delivered,
    /// It was given up, for a [`FailureReason`].
    Failed,
    /// Its endpoint was disabled.
    Skipped,
}

impl State {
    /// All states.
    pub const ALL: [Self; 7] =
        [Self::Sending, Self::Scheduled, Self::Queued, Self::Held, Self::Delivered, Self::Failed, Self::Skipped];

    /// The word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sending => "sending",
            Self::Scheduled => "scheduled",
            Self::Queued => "queued",
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

    /// Whether the delivery has finished, until it is requested again.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Delivered | Self::Failed | Self::Skipped)
    }
}

/// Why a delivery was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    /// The endpoint failed every attempt of its schedule.
    AttemptsExhausted,
    /// It was still unfinished long after its schedule's end.
    Expired,
    /// Each process that attempted it died, the last two while they sent nothing else.
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

/// Why a delivery is queued. It uses up no attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueReason {
    /// Its lane has no room: too many attempts to its endpoint are in flight.
    LaneFull,
    /// Its application uses its half of the process's places.
    ApplicationBusy,
    /// All places of the process are in use.
    ProcessBusy,
    /// Its endpoint has a rate, and no token is left now.
    RateLimited,
    /// Its endpoint fails again and again: the breaker is open.
    BreakerOpen,
    /// Its endpoint has a backlog, which goes first.
    Backlog,
    /// Its endpoint is paused.
    Paused,
    /// Its retry time has come.
    Retry,
    /// The process that held its lease stopped before it was sent.
    ShuttingDown,
    /// The process that held its lease died, or recorded nothing in time.
    LeaseExpired,
    /// A resend was requested.
    Resent,
    /// A replay sends it.
    Replayed,
    /// The process cannot read the application's settings, or the payload.
    ApplicationUnreadable,
    /// The process sends a delivery that killed other processes, and nothing else meanwhile.
    Isolated,
}

impl QueueReason {
    /// All reasons.
    pub const ALL: [Self; 14] = [
        Self::LaneFull,
        Self::ApplicationBusy,
        Self::ProcessBusy,
        Self::RateLimited,
        Self::BreakerOpen,
        Self::Backlog,
        Self::Paused,
        Self::Retry,
        Self::ShuttingDown,
        Self::LeaseExpired,
        Self::Resent,
        Self::Replayed,
        Self::ApplicationUnreadable,
        Self::Isolated,
    ];

    /// The word in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LaneFull => "lane_full",
            Self::ApplicationBusy => "application_busy",
            Self::ProcessBusy => "process_busy",
            Self::RateLimited => "rate_limited",
            Self::BreakerOpen => "breaker_open",
            Self::Backlog => "backlog",
            Self::Paused => "paused",
            Self::Retry => "retry",
            Self::ShuttingDown => "shutting_down",
            Self::LeaseExpired => "lease_expired",
            Self::Resent => "resent",
            Self::Replayed => "replayed",
            Self::ApplicationUnreadable => "application_unreadable",
            Self::Isolated => "isolated",
        }
    }

    /// Reads the word.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
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
        for reason in QueueReason::ALL {
            assert_eq!(QueueReason::parse(reason.as_str()), Some(reason));
        }
    }
}
