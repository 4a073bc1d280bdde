//! The ladder of delay queues, and the way of a claim through it.

use std::{collections::BTreeSet, time::Duration};

use jiff::Timestamp;

use crate::wait::wait_name;

/// Rungs that deferrals need whatever the schedule is.
const SHORT_RUNGS: [u64; 3] = [1, 5, 30];

/// Rungs that shorten the way of any other due time (Retry-After, expiry of a hold).
const LONG_RUNGS: [u64; 5] = [60, 300, 900, 3600, 7200];

/// A claim that is early by less than this, or by less than 1 % of its wait, counts as due. Of a wait
/// that is shorter than twice this, it is half.
const TOLERANCE: Duration = Duration::from_secs(1);

/// The delay queues there are: each holds its messages for one fixed time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ladder(BTreeSet<Duration>);

/// Where a claim goes next.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Hop {
    /// To those that are due.
    Due,
    /// Into the delay queue of this wait; when it comes out early, it hops again.
    Delay(Duration),
}

impl Ladder {
    /// The ladder for all the waits that schedules ask for.
    pub fn new(waits: impl IntoIterator<Item = Duration>) -> Self {
        let fixed = SHORT_RUNGS.into_iter().chain(LONG_RUNGS).map(Duration::from_secs);
        Self(fixed.chain(waits).collect())
    }

    /// The wait of each delay queue, shortest first.
    pub fn rungs(&self) -> impl Iterator<Item = Duration> + '_ {
        self.0.iter().copied()
    }

    /// The next hop of a claim that was to wait `wait` until `due`: the longest delay that does not make
    /// it late by more than the tolerance that lets it be early.
    pub fn next_hop(&self, due: Timestamp, wait: Duration, now: Timestamp) -> Hop {
        let remaining = remaining(due, now);
        if is_due(due, wait, now) {
            return Hop::Due;
        }
        let reach = remaining + tolerance(remaining);
        match self.0.range(..=reach).next_back() {
            Some(&rung) => Hop::Delay(rung),
            None => Hop::Due,
        }
    }
}

/// Whether a claim that was to wait `wait` until `due` may be acted upon.
pub fn is_due(due: Timestamp, wait: Duration, now: Timestamp) -> bool {
    let remaining = remaining(due, now);
    remaining.is_zero() || remaining < tolerance(wait)
}

/// The routing key on the deliveries exchange, and the last part of the queue's name.
pub fn rung_name(rung: Duration) -> String {
    wait_name(rung)
}

fn remaining(due: Timestamp, now: Timestamp) -> Duration {
    Duration::try_from(due.duration_since(now)).unwrap_or(Duration::ZERO)
}

fn tolerance(wait: Duration) -> Duration {
    TOLERANCE.min(wait / 2).max(wait / 100)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::moment::later;

    fn ladder() -> Ladder {
        Ladder::new([60, 300, 900, 1800, 3600, 7200, 43200, 86400].map(Duration::from_secs))
    }

    #[test]
    fn each_wait_of_the_schedule_is_one_hop() {
        let due = Timestamp::UNIX_EPOCH;
        for rung in ladder().rungs() {
            // The claim is published a little after its due time was set.
            let now =
                due.checked_sub(rung).expect("in range").checked_add(Duration::from_millis(40)).expect("in range");
            assert_eq!(ladder().next_hop(due, rung, now), Hop::Delay(rung), "{rung:?}");
        }
    }

    #[test]
    fn names_are_those_of_the_queues() {
        let names: Vec<String> = ladder().rungs().map(rung_name).collect();
        assert_eq!(names, ["1s", "5s", "30s", "60s", "5m", "15m", "30m", "60m", "120m", "12h", "24h"]);
    }

    proptest! {
        #[test]
        fn hops_lead_to_the_due_time(milliseconds in 0u64..400_000_000) {
            let ladder = ladder();
            let start = Timestamp::UNIX_EPOCH;
            let wait = Duration::from_millis(milliseconds);
            let due = later(start, wait);
            let mut now = start;
            let mut hops = 0;
            while let Hop::Delay(rung) = ladder.next_hop(due, wait, now) {
                now = later(now, rung);
                hops += 1;
                prop_assert!(hops < 40, "goes round in circles");
                if is_due(due, wait, now) {
                    break;
                }
            }
            prop_assert!(is_due(due, wait, now));
            let late = Duration::try_from(now.duration_since(due)).unwrap_or(Duration::ZERO);
            prop_assert!(late <= tolerance(wait), "late by {late:?}");
        }
    }
}
