//! States of a delivery, the reasons for a state, and the decisions on attempts.

pub mod answer;
pub mod breaker;
pub mod delay;
pub mod digest;
pub mod egress;
pub mod feed;
pub mod lane;
pub mod outcome;
pub mod policy;
pub mod rate;
pub mod replay;
pub mod retry;
pub mod silence;

use std::time::Duration;

/// After this many attempts of unknown outcome in a row, a delivery is leased alone: the process with the lease sends
/// nothing else.
pub const ALONE_FROM: u32 = 2;

/// After this many attempts of unknown outcome in a row, a delivery fails as aborted. The last two attempts were made
/// alone, so that no other delivery can have killed the process.
pub const MAX_UNKNOWN_ATTEMPTS: u32 = ALONE_FROM + 2;

/// Part of a lease beyond the attempt's deadline: time to wait in the lane and to record, and tolerance for clocks.
const LEASE_MARGIN: Duration = Duration::from_secs(11);

/// An attempt begins within this time of the lease, or the delivery is given back. The rest of the margin is for the
/// record and for differing clocks.
pub const BEGIN_WITHIN: Duration = Duration::from_secs(5);

/// Duration of a lease for an attempt with the deadline `timeout`.
pub fn lease_duration(timeout: Duration) -> Duration {
    timeout + LEASE_MARGIN
}

/// State of a delivery. The API uses the same names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum State {
    /// A process holds the lease and attempts the delivery.
    Sending,
    /// The delivery waits for the retry time.
    Scheduled,
    /// The endpoint cannot take the delivery now.
    Queued,
    /// Queued, and the endpoint is paused. The database has no such state.
    Held,
    /// The endpoint has the event.
    Delivered,
    /// Given up, for a [`FailureReason`].
    Failed,
    /// Not sent: the endpoint was disabled, or only its feed is read ([`READ_BY_FEED`]).
    Skipped,
}

impl State {
    /// All states.
    pub const ALL: [Self; 7] =
        [Self::Sending, Self::Scheduled, Self::Queued, Self::Held, Self::Delivered, Self::Failed, Self::Skipped];

    /// Name in the database and the API.
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

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|state| state.as_str() == text)
    }

    /// True if the delivery has finished, until a new request.
    pub fn is_finished(self) -> bool {
        matches!(self, Self::Delivered | Self::Failed | Self::Skipped)
    }
}

/// Reason of a skipped delivery that the endpoint's feed lists instead.
pub const READ_BY_FEED: &str = "feed";

/// The reason why a delivery was given up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailureReason {
    /// The endpoint failed every attempt of the schedule.
    AttemptsExhausted,
    /// The delivery was still unfinished long after the schedule's end.
    Expired,
    /// Each process that attempted the delivery died; the last two processes sent nothing else.
    Aborted,
    /// The endpoint no longer exists.
    EndpointDeleted,
    /// The endpoint answered that the event will never be accepted.
    Rejected,
    /// The endpoint answered that no more events are wanted, and has been disabled.
    EndpointGone,
    /// The endpoint was paused longer than deliveries are held.
    HeldTooLong,
    /// The endpoint was paused, and more deliveries were held after this delivery than are kept.
    TooManyHeld,
    /// A failed test; tests are sent once.
    TestFailed,
    /// The event was erased on request.
    Erased,
    /// The endpoint's template has no body for the event.
    NotRendered,
    /// The endpoint asked for no further attempt of this delivery.
    StoppedByReceiver,
    /// The endpoint asked to be disabled.
    DisabledByReceiver,
}

impl FailureReason {
    /// All reasons.
    pub const ALL: [Self; 13] = [
        Self::AttemptsExhausted,
        Self::Expired,
        Self::Aborted,
        Self::EndpointDeleted,
        Self::Rejected,
        Self::EndpointGone,
        Self::HeldTooLong,
        Self::TooManyHeld,
        Self::TestFailed,
        Self::Erased,
        Self::NotRendered,
        Self::StoppedByReceiver,
        Self::DisabledByReceiver,
    ];

    /// Name in the database and the API.
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
            Self::NotRendered => "not_rendered",
            Self::StoppedByReceiver => "stopped_by_receiver",
            Self::DisabledByReceiver => "disabled_by_receiver",
        }
    }

    /// True if the endpoint works, and refused by its answer.
    pub fn is_refusal(self) -> bool {
        matches!(self, Self::Rejected | Self::EndpointGone | Self::StoppedByReceiver | Self::DisabledByReceiver)
    }

    /// Parses the name.
    pub fn parse(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| reason.as_str() == text)
    }
}

/// The reason why a delivery is queued. Queueing uses up no attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum QueueReason {
    /// The lane has no room: too many attempts to the endpoint are in flight.
    LaneFull,
    /// The application uses its half of the process's places.
    ApplicationBusy,
    /// All places of the process are in use.
    ProcessBusy,
    /// The endpoint has a rate, and no token is left now.
    RateLimited,
    /// The endpoint fails repeatedly: the breaker is open.
    BreakerOpen,
    /// The endpoint asked for a wait, by `Retry-After`.
    RetryAfter,
    /// No connection can be made for a reason of ours: name servers, egress proxy, descriptors, ports or routes.
    EgressUnavailable,
    /// The endpoint has no live token of its token server.
    TokenUnavailable,
    /// The endpoint has a backlog, with precedence.
    Backlog,
    /// The endpoint is paused.
    Paused,
    /// The retry time has come.
    Retry,
    /// The process with the lease stopped before sending.
    ShuttingDown,
    /// The process with the lease died, or recorded no outcome in time.
    LeaseExpired,
    /// A resend was requested.
    Resent,
    /// A replay sends the delivery.
    Replayed,
    /// The process cannot read the application's settings, or the payload.
    ApplicationUnreadable,
    /// The process sends a delivery that killed other processes, and meanwhile nothing else.
    Isolated,
    /// The delivery before, of the same ordering key, has not ended.
    InOrder,
}

impl QueueReason {
    /// All reasons.
    pub const ALL: [Self; 18] = [
        Self::LaneFull,
        Self::ApplicationBusy,
        Self::ProcessBusy,
        Self::RateLimited,
        Self::BreakerOpen,
        Self::RetryAfter,
        Self::EgressUnavailable,
        Self::TokenUnavailable,
        Self::Backlog,
        Self::Paused,
        Self::Retry,
        Self::ShuttingDown,
        Self::LeaseExpired,
        Self::Resent,
        Self::Replayed,
        Self::ApplicationUnreadable,
        Self::Isolated,
        Self::InOrder,
    ];

    /// Name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::LaneFull => "lane_full",
            Self::ApplicationBusy => "application_busy",
            Self::ProcessBusy => "process_busy",
            Self::RateLimited => "rate_limited",
            Self::BreakerOpen => "breaker_open",
            Self::RetryAfter => "retry_after",
            Self::EgressUnavailable => "egress_unavailable",
            Self::TokenUnavailable => "token_unavailable",
            Self::Backlog => "backlog",
            Self::Paused => "paused",
            Self::Retry => "retry",
            Self::ShuttingDown => "shutting_down",
            Self::LeaseExpired => "lease_expired",
            Self::Resent => "resent",
            Self::Replayed => "replayed",
            Self::ApplicationUnreadable => "application_unreadable",
            Self::Isolated => "isolated",
            Self::InOrder => "in_order",
        }
    }

    /// Parses the name.
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
        for reason in FailureReason::ALL {
            assert_eq!(FailureReason::parse(reason.as_str()), Some(reason));
        }
    }
}
