//! Operational events: looks at the conditions of endpoints, replays and parked messages, and their told states.
//!
//! All looks leave out the application that the operator names: its endpoints cause no event.

pub(crate) mod lasting;
pub(crate) mod occurrences;
pub(crate) mod states;

use std::time::Duration;

use fanfare_domain::{
    ids::ApplicationId,
    operational::Condition,
    time::{DAY, saturating_add, saturating_sub},
};
use jiff::Timestamp;
use uuid::Uuid;

/// Occurrences of the last day, at most, are counted: the job may have been off for months.
const MAX_COUNTED: Duration = DAY;

/// Longest time whose occurrences are counted in a commit.
const WINDOW: Duration = Duration::from_secs(300);

/// A condition of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationalKey {
    /// Endpoint, application or replay; the nil id for messages of no known application.
    pub subject: Uuid,
    /// The condition.
    pub condition: Condition,
}

/// The application that the operator names, and the end of the counted occurrences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationalMark {
    /// The application.
    pub application: ApplicationId,
    /// The first look for the application.
    pub begun_at: Timestamp,
    /// End of the counted occurrences.
    pub counted: Timestamp,
    /// True after the first look at the lasting conditions.
    pub is_looked: bool,
}

impl OperationalMark {
    /// The next occurrences to count: from `counted` of the result, at most a day before `settled`, to the returned
    /// end. `None` if all are counted.
    pub fn window(&self, settled: Timestamp) -> Option<(Self, Timestamp)> {
        let counted = self.counted.max(saturating_sub(settled, MAX_COUNTED));
        (counted < settled).then(|| (Self { counted, ..*self }, saturating_add(counted, WINDOW).min(settled)))
    }
}
