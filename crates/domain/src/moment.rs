//! Moments in time, without a clock.

use std::time::Duration;

use jiff::Timestamp;

/// `wait` after `moment`, or the end of time.
pub fn later(moment: Timestamp, wait: Duration) -> Timestamp {
    moment.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// Cuts a moment to whole milliseconds, the unit in which ids and partitions keep it.
pub fn to_milliseconds(moment: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(moment.as_millisecond()).unwrap_or(moment)
}
