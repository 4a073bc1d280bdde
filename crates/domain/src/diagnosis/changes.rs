//! Changes in the audit log that may explain a failure.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    diagnosis::rollup::STEP,
    time::{saturating_add, saturating_sub},
};

/// Operations that change how a webhook takes events, as the audit log names them.
pub const CHANGES: [&str; 11] = [
    "create_webhook",
    "change_webhook",
    "put_webhook",
    "put_webhook_configs",
    "enable_webhook",
    "disable_webhook",
    "pause_webhook",
    "delete_webhook",
    "rotate_secret",
    "end_rotation",
    "change_application",
];

/// Longest time from a change to the failure that the change may have caused.
const CAUSE_WITHIN: Duration = Duration::from_secs(1800);

/// First and last moment of the changes that may have caused a failure since `since`. The beginning of a failure is
/// known to [`STEP`].
pub fn causes_of(since: Timestamp) -> (Timestamp, Timestamp) {
    (saturating_sub(since, CAUSE_WITHIN), saturating_add(since, STEP))
}

/// True if a change at this moment may have caused a failure since `since`.
pub fn may_have_caused(change: Timestamp, since: Timestamp) -> bool {
    let (first, last) = causes_of(since);
    (first..=last).contains(&change)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a moment")
    }

    proptest! {
        #[test]
        fn a_cause_is_shortly_before(change in -10_000i64..10_000, since in -10_000i64..10_000) {
            let before = since - change;
            prop_assert_eq!(may_have_caused(at(change), at(since)), (-300..=1800).contains(&before));
        }
    }

    #[test]
    fn the_ends_of_time_have_causes() {
        assert!(may_have_caused(Timestamp::MIN, Timestamp::MIN) && may_have_caused(Timestamp::MAX, Timestamp::MAX));
    }
}
