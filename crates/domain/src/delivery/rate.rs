//! Rate limit of an endpoint: tokens, spaced evenly (the generic cell rate algorithm, ITU-T I.371).

use std::time::Duration;

/// Largest burst after a pause, as a time of the rate; at least one token.
const BURST: Duration = Duration::from_millis(50);

/// Tokens of an endpoint.
///
/// Moments are durations since any fixed moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Tokens {
    /// Moment up to which tokens have been taken.
    taken_until: Duration,
}

impl Tokens {
    /// Number of tokens available now, at `per_second`.
    pub fn available(&self, now: Duration, per_second: f64) -> usize {
        let free = (now + burst(per_second)).saturating_sub(self.taken_until.max(now));
        // Floating-point error may leave a sum of such parts just below a whole.
        (free.as_secs_f64() * per_second + 1e-4) as usize
    }

    /// Takes `count` tokens.
    pub fn take(&mut self, now: Duration, per_second: f64, count: usize) {
        let length = Duration::from_secs_f64(count as f64 / per_second.max(f64::MIN_POSITIVE));
        self.taken_until = self.taken_until.max(now) + length;
    }

    /// Moment of the next available token.
    pub fn next(&self, now: Duration, per_second: f64) -> Duration {
        let each = Duration::from_secs_f64(1.0 / per_second.max(f64::MIN_POSITIVE));
        (self.taken_until + each).saturating_sub(burst(per_second)).max(now)
    }
}

fn burst(per_second: f64) -> Duration {
    BURST.max(Duration::from_secs_f64(1.0 / per_second.max(f64::MIN_POSITIVE)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_slow_rate_gives_one_token_at_a_time() {
        let (mut tokens, start) = (Tokens::default(), Duration::from_secs(100));
        assert_eq!(tokens.available(start, 2.0), 1);
        tokens.take(start, 2.0, 1);
        assert_eq!((tokens.available(start, 2.0), tokens.next(start, 2.0)), (0, start + Duration::from_millis(500)));
        assert_eq!(tokens.available(start + Duration::from_millis(500), 2.0), 1);
        assert_eq!(tokens.available(start + Duration::from_secs(60), 2.0), 1, "a pause saves no tokens");
    }

    proptest! {
        #[test]
        fn the_rate_is_kept(rate in 1u32..10_000, steps in prop::collection::vec(1u64..2000, 1..200)) {
            let (mut tokens, mut now, mut taken) = (Tokens::default(), Duration::from_secs(1), 0);
            let start = now;
            for step in steps {
                let count = tokens.available(now, f64::from(rate));
                tokens.take(now, f64::from(rate), count);
                taken += count;
                let next = tokens.next(now, f64::from(rate));
                prop_assert!(tokens.available(next, f64::from(rate)) >= 1);
                let most = (now - start + burst(f64::from(rate))).as_secs_f64() * f64::from(rate);
                prop_assert!(taken as f64 <= most + 1.0, "{} of {}", taken, most);
                now += Duration::from_millis(step);
            }
        }
    }
}
