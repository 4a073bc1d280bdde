//! Moments in time, without a clock.

use std::time::Duration;

use jiff::Timestamp;

/// `wait` after `moment`, or the end of time.
pub fn later(moment: Timestamp, wait: Duration) -> Timestamp {
    moment.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// `wait` before `moment`, or the beginning of time.
pub fn earlier(moment: Timestamp, wait: Duration) -> Timestamp {
    moment.checked_sub(wait).unwrap_or(Timestamp::MIN)
}

/// Cuts a moment to whole milliseconds, the unit in which ids and partitions keep it.
pub fn to_milliseconds(moment: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(moment.as_millisecond()).unwrap_or(moment)
}
