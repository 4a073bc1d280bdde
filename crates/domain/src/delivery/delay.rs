//! Delay queues. Each holds a message for a fixed time, and a wait is a sequence of at most three queues.

use std::{collections::BTreeSet, time::Duration};

use crate::time::duration_name;

/// The default schedule (60s, 5m, 15m, 60m and 120m), and delays by which every wait up to 28 h is a sum of at most
/// three, at most 5 % or 2 s late. A search found the delays; a test below verifies every wait.
const FIXED: [u64; 20] =
    [1, 4, 7, 12, 16, 26, 60, 80, 180, 300, 510, 900, 1560, 2880, 3600, 7200, 11400, 14400, 31200, 49200];

/// Maximum passes through delay queues for a wait.
const MAX_PASSES: u32 = 3;

/// Longest planned wait, since a message may ask for any number.
const LONGEST: Duration = Duration::from_secs(30 * 86400);

/// Permitted lateness of a wait: the larger of this time and a fraction of the wait.
const LATE: Duration = Duration::from_secs(2);
const LATE_PART: u32 = 20;

/// The delays that have a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DelayQueues(BTreeSet<Duration>);

impl DelayQueues {
    /// Creates the fixed delays and a delay for each wait of a schedule, so that such a wait takes one pass.
    pub fn new(waits: impl IntoIterator<Item = Duration>) -> Self {
        Self(FIXED.into_iter().map(Duration::from_secs).chain(waits).collect())
    }

    /// The delay of each queue, shortest first.
    pub fn delays(&self) -> impl Iterator<Item = Duration> + '_ {
        self.0.iter().copied()
    }

    /// Plans the delays of a wait, longest first: as few passes as possible, then the earliest end. Never empty.
    pub fn plan(&self, wait: Duration) -> Vec<Duration> {
        let longest = self.0.last().copied().unwrap_or(LATE);
        let mut plan = Vec::new();
        let wait = wait.min(LONGEST);
        let mut left = wait;
        // A wait beyond any sum of three; no schedule has such a wait.
        while left > longest * 3 {
            plan.push(longest);
            left -= longest;
        }
        let tolerance = LATE.max(wait / LATE_PART);
        let fitting = (1..=MAX_PASSES).find_map(|passes| self.sum(left, passes, tolerance));
        let sums = (1..=MAX_PASSES).filter_map(|passes| self.sum(left, passes, longest * 3));
        let earliest = || sums.min_by_key(|plan| plan.iter().sum::<Duration>());
        plan.extend(fitting.or_else(earliest).unwrap_or_else(|| vec![longest; MAX_PASSES as usize]));
        plan
    }

    /// The smallest sum of `passes` delays that is at least `wait`, and at most `tolerance` more.
    fn sum(&self, wait: Duration, passes: u32, tolerance: Duration) -> Option<Vec<Duration>> {
        if passes == 1 {
            let delay = self.0.range(wait..=wait + tolerance).next()?;
            return Some(vec![*delay]);
        }
        // The longest delay comes first, and is at least the mean.
        let shorter = self.0.range(wait / passes..wait + tolerance).rev();
        let rest = |&delay: &Duration| {
            let mut plan = self.sum(wait.saturating_sub(delay), passes - 1, tolerance)?;
            // Longest first, so that each plan is found once.
            plan.first().is_none_or(|next| *next <= delay).then(|| {
                plan.insert(0, delay);
                plan
            })
        };
        shorter.filter_map(rest).min_by_key(|plan| plan.iter().sum::<Duration>())
    }
}

/// Routing key on the deliveries exchange, and last part of the queue's name.
pub fn delay_name(delay: Duration) -> String {
    duration_name(delay)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn queues() -> DelayQueues {
        DelayQueues::new([60, 300, 900, 1800, 3600, 7200, 43200, 86400].map(Duration::from_secs))
    }

    #[test]
    fn each_wait_of_a_schedule_is_one_pass() {
        for delay in queues().delays() {
            assert_eq!(queues().plan(delay), [delay]);
        }
        assert_eq!(queues().plan(Duration::ZERO), [Duration::from_secs(1)]);
    }

    #[test]
    fn delays_are_named_by_their_duration() {
        let queues = DelayQueues::new([Duration::from_secs(1800)]);
        let names: Vec<String> = queues.delays().map(delay_name).collect();
        for name in ["1s", "60s", "5m", "15m", "30m", "60m", "120m"] {
            assert!(names.iter().any(|queue| queue == name), "{name} in {names:?}");
        }
    }

    #[test]
    fn a_wait_beyond_every_schedule_is_waited_for() {
        let week = Duration::from_secs(7 * 86400);
        assert!(queues().plan(week).iter().sum::<Duration>() >= week);
        assert!(queues().plan(Duration::MAX).len() < 100);
    }

    /// A plan for a wait is also a plan for each longer wait that does not exceed the plan's sum. The waits just above
    /// the sums thus stand for all waits.
    #[test]
    fn every_wait_up_to_28_hours_has_a_plan_in_time() {
        let (queues, mut wait) = (DelayQueues::new([]), Duration::from_millis(1));
        while wait <= Duration::from_secs(28 * 3600) {
            let plan = queues.plan(wait);
            let whole: Duration = plan.iter().sum();
            assert!(plan.len() <= MAX_PASSES as usize && whole >= wait, "{plan:?} for {wait:?}");
            assert!(whole - wait <= LATE.max(wait / LATE_PART), "{plan:?} for {wait:?}");
            wait = whole + Duration::from_millis(1);
        }
    }

    #[test]
    fn a_wait_without_a_sum_in_time_ends_at_the_earliest_sum() {
        let queues = DelayQueues([10, 1000].map(Duration::from_secs).into());
        assert_eq!(queues.plan(Duration::from_secs(15)), [10, 10].map(Duration::from_secs));
        assert_eq!(queues.plan(Duration::from_secs(31)), [1000].map(Duration::from_secs));
    }

    proptest! {
        #[test]
        fn no_wait_is_early_or_late(milliseconds in 1u64..100_800_000, fraction in 1u64..10_000) {
            let wait = Duration::from_millis(milliseconds.div_ceil(fraction));
            let plan = DelayQueues::new([]).plan(wait);
            let whole: Duration = plan.iter().sum();
            prop_assert!((1..=MAX_PASSES as usize).contains(&plan.len()), "{plan:?}");
            prop_assert!(whole >= wait && whole - wait <= LATE.max(wait / LATE_PART), "{plan:?} for {wait:?}");
        }
    }
}
