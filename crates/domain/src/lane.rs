//! What a lane decides: whether a delivery may wait in it, and how long one that may not is deferred.

use std::time::Duration;

/// The longest expected wait with which a delivery still queues in its lane, so that a burst to one
/// fast endpoint is not thrown back.
pub const MAX_EXPECTED_WAIT: Duration = Duration::from_secs(1);

/// The longest wait before a deferred delivery is tried again.
const MAX_DEFERRAL: Duration = Duration::from_secs(300);

/// What is known of the attempts to one endpoint.
#[derive(Debug, Clone, Copy)]
pub struct Load {
    /// Attempts that may be on their way at once.
    pub bound: usize,
    /// Attempts on their way, and deliveries that wait for their turn.
    pub admitted: usize,
    /// How long an attempt lately took.
    pub typical: Duration,
    /// How long the oldest attempt on its way has taken so far.
    pub oldest: Duration,
}

impl Load {
    /// How long one more delivery would wait for its turn.
    ///
    /// An endpoint that has begun to hang is known by the age of what is on its way, long before
    /// anything has come back: an attempt will take at least as long again as the oldest has so far.
    pub fn expected_wait(&self) -> Duration {
        let ahead = (self.admitted + 1).saturating_sub(self.bound);
        let rounds = ahead.div_ceil(self.bound.max(1));
        let each = self.typical.max(self.oldest);
        each.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
    }

    /// Whether one more delivery may queue.
    pub fn admits(&self) -> bool {
        self.expected_wait() <= MAX_EXPECTED_WAIT
    }
}

/// How long the `count`-th deferral in a row (from 1 on) waits: min(2^count s, 5 min), of which a half
/// is spread by `random` in 0..1, so that what was deferred together does not come back together.
pub fn deferral_wait(count: u32, random: f64) -> Duration {
    let whole = Duration::from_secs(1 << count.clamp(1, 16)).min(MAX_DEFERRAL);
    whole.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

/// The new typical duration after an attempt took `last`: a moving average over some ten attempts.
pub fn typical_after(typical: Duration, last: Duration) -> Duration {
    (typical * 9 + last) / 10
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_burst_to_a_fast_endpoint_queues_and_a_hanging_one_is_left() {
        let load =
            Load { bound: 16, admitted: 160, typical: Duration::from_millis(20), oldest: Duration::from_millis(5) };
        assert!(load.admits());
        assert!(!Load { oldest: Duration::from_secs(2), ..load }.admits());
        assert!(Load { oldest: Duration::from_secs(2), admitted: 15, ..load }.admits());
        assert!(!Load { admitted: 100_000, ..load }.admits());
    }

    proptest! {
        #[test]
        fn a_free_lane_always_admits(bound in 1usize..100, admitted in 0usize..100, typical in 0u64..100, oldest in 0u64..100) {
            prop_assume!(admitted < bound);
            let load = Load { bound, admitted, typical: Duration::from_secs(typical), oldest: Duration::from_secs(oldest) };
            prop_assert_eq!(load.expected_wait(), Duration::ZERO);
        }

        #[test]
        fn deferrals_grow_within_bounds(count in 0u32..100, random in 0.0f64..1.0) {
            let wait = deferral_wait(count, random);
            prop_assert!(wait >= Duration::from_secs(1) && wait <= MAX_DEFERRAL);
            prop_assert!(deferral_wait(count + 1, random) >= wait);
        }
    }
}
