//! Timestamp arithmetic, without a clock.

use std::time::Duration;

use jiff::Timestamp;

/// `moment` plus `wait`, or [`Timestamp::MAX`] on overflow.
pub fn saturating_add(moment: Timestamp, wait: Duration) -> Timestamp {
    moment.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// `moment` minus `wait`, or [`Timestamp::MIN`] on overflow.
pub fn saturating_sub(moment: Timestamp, wait: Duration) -> Timestamp {
    moment.checked_sub(wait).unwrap_or(Timestamp::MIN)
}

/// Truncates to whole milliseconds, the unit of ids and partitions.
pub fn to_milliseconds(moment: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(moment.as_millisecond()).unwrap_or(moment)
}
