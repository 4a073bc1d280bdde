//! Rate limit per second, as a leaky bucket.

use std::time::Duration;

/// Level of a leaky bucket. The bucket holds one second of the rate, or `burst` if larger.
///
/// Times are durations since any fixed moment.
#[derive(Debug, Clone, Copy, PartialEq, Default)]
pub struct LeakyBucket {
    /// Level at the moment `at`.
    taken: f64,
    at: Duration,
}

impl LeakyBucket {
    /// Takes `count` at `now` from a rate of `per_second`: all or nothing. `count` must not exceed `burst`, or the
    /// bucket might never have room.
    ///
    /// # Errors
    /// The wait until the bucket has room, if no other caller takes the room first.
    pub fn take(&mut self, now: Duration, per_second: u32, burst: u32, count: u32) -> Result<(), Duration> {
        let per_second = per_second.max(1);
        let leaked = now.saturating_sub(self.at).as_secs_f64() * f64::from(per_second);
        *self = Self { taken: (self.taken - leaked).max(0.0), at: now.max(self.at) };
        let excess = self.taken + f64::from(count) - f64::from(per_second.max(burst));
        if excess > 0.0 {
            return Err(Duration::from_secs_f64(excess / f64::from(per_second)));
        }
        self.taken += f64::from(count);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_second_is_worth_its_rate() {
        let (mut bucket, start) = (LeakyBucket::default(), Duration::from_secs(100));
        assert_eq!((0..50).filter(|_| bucket.take(start, 10, 1, 1).is_ok()).count(), 10);
        let wait = bucket.take(start, 10, 1, 1).expect_err("nothing is left");
        assert_eq!(wait, Duration::from_millis(100));
        assert_eq!(bucket.take(start + wait, 10, 1, 1), Ok(()));
        assert_eq!(bucket.take(start + Duration::from_secs(60), 10, 1000, 1000), Ok(()), "a batch passes a low rate");
        let then = start + Duration::from_secs(60);
        assert!(bucket.take(then, 10, 1000, 1).is_err());
        assert!(
            bucket.take(then + Duration::from_millis(1), 1_000_000, 1000, 1).is_ok(),
            "another rate counts at once"
        );
    }

    proptest! {
        /// For any requests: at most the rate and the bucket's content pass. A request repeated after the returned wait
        /// passes.
        #[test]
        fn never_more_than_its_rate(
            per_second in 1u32..5000, burst in 1u32..1000,
            asked in proptest::collection::vec((0u64..500, 1u32..1000), 1..60),
        ) {
            let (mut bucket, mut now, mut taken) = (LeakyBucket::default(), Duration::ZERO, 0);
            for (later, count) in asked {
                now += Duration::from_millis(later);
                let count = count.min(burst);
                match bucket.take(now, per_second, burst, count) {
                    Ok(()) => taken += count,
                    Err(wait) => {
                        let rounding = Duration::from_micros(1);
                        prop_assert_eq!(bucket.clone().take(now + wait + rounding, per_second, burst, count), Ok(()));
                    }
                }
                let most = now.as_secs_f64() * f64::from(per_second) + f64::from(per_second.max(burst));
                prop_assert!(f64::from(taken) <= most + 0.01, "{} of {}", taken, most);
            }
        }
    }
}
