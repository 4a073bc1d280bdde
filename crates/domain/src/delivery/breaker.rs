//! Circuit breaker of an endpoint: stops attempts after failures, and probes for recovery.

use std::time::Duration;

/// Wait before the first probe. Each failed probe doubles the wait.
const FIRST_PROBE: Duration = Duration::from_secs(1);

/// Longest wait between two probes, without the jitter: an endpoint that stays away gets at most a probe a minute.
const LONGEST_PROBE: Duration = Duration::from_secs(60);

/// Largest fraction of a wait that jitter adds, so that endpoints that failed together are probed at different times.
const JITTER: f64 = 0.2;

/// Opens after a run of failures, and then permits only a probe now and then: an ordinary attempt. A success closes the
/// breaker.
///
/// Moments are durations since any fixed moment.
#[derive(Debug, Clone, Default)]
pub struct Breaker {
    failures: u32,
    open: Option<Open>,
}

#[derive(Debug, Clone)]
struct Open {
    interval: Duration,
    next_probe: Duration,
    is_probing: bool,
}

impl Breaker {
    /// Creates the open breaker of another process, with the time of the next probe.
    pub fn resume(failures: u32, next_probe: Duration) -> Self {
        Self { failures, open: Some(Open { interval: FIRST_PROBE, next_probe, is_probing: false }) }
    }

    /// Permits or refuses an attempt. An attempt while the breaker is open is the probe. The next probe must wait for
    /// another interval, even if the probe's outcome never arrives.
    ///
    /// # Errors
    /// The moment of the next probe.
    pub fn pass(&mut self, now: Duration) -> Result<(), Duration> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if now < open.next_probe {
            return Err(open.next_probe);
        }
        open.next_probe = now + open.interval;
        open.is_probing = true;
        Ok(())
    }

    /// Records a failed attempt; returns true if the breaker has just opened. The breaker opens after `most` failures
    /// in a row. `random` in 0..1 spreads the probes.
    pub fn record_failure(&mut self, most: u32, now: Duration, random: f64) -> bool {
        self.failures = self.failures.saturating_add(1);
        let after = |interval: Duration| now + interval.mul_f64(1.0 + JITTER * random.clamp(0.0, 1.0));
        let Some(open) = &mut self.open else {
            if self.failures < most {
                return false;
            }
            self.open = Some(Open { interval: FIRST_PROBE, next_probe: after(FIRST_PROBE), is_probing: false });
            return true;
        };
        // Attempts in flight since before the opening give no new information.
        if std::mem::take(&mut open.is_probing) {
            open.interval = (open.interval * 2).min(LONGEST_PROBE);
            open.next_probe = after(open.interval);
        }
        false
    }

    /// Records a successful attempt; returns true if the breaker was open.
    pub fn record_success(&mut self) -> bool {
        self.failures = 0;
        self.open.take().is_some()
    }

    /// Failures in a row, including failures while the breaker was open.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// True if the breaker is open.
    pub fn is_open(&self) -> bool {
        self.open.is_some()
    }

    /// True if a probe is in flight.
    pub fn is_probing(&self) -> bool {
        self.open.as_ref().is_some_and(|open| open.is_probing)
    }

    /// Moment of the next probe; `None` if the breaker is closed.
    pub fn next_probe(&self) -> Option<Duration> {
        self.open.as_ref().map(|open| open.next_probe)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MOST: u32 = 10;

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for number in 1..=MOST {
            assert_eq!(breaker.pass(seconds(0)), Ok(()));
            assert_eq!(breaker.record_failure(MOST, seconds(0), 0.0), number == MOST);
        }
        breaker
    }

    #[test]
    fn probes_come_ever_less_often_until_one_succeeds() {
        let mut breaker = opened();
        let mut now = Duration::ZERO;
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(breaker.pass(now), Err(now + seconds(wait)));
            now += seconds(wait);
            assert_eq!((breaker.pass(now), breaker.is_probing()), (Ok(()), true));
            assert!(breaker.pass(now).is_err(), "only one probe at a time");
            assert!(!breaker.record_failure(MOST, now, 0.0));
            assert!(!breaker.record_failure(MOST, now, 0.0), "attempts that began before the opening do not count");
        }
        assert!(breaker.record_success());
        assert_eq!((breaker.pass(now), breaker.next_probe()), (Ok(()), None));
        assert!(!breaker.record_failure(MOST, now, 0.0));
    }

    #[test]
    fn a_probe_without_an_outcome_is_followed_by_another() {
        let mut breaker = opened();
        assert_eq!(breaker.pass(seconds(1)), Ok(()));
        assert_eq!(breaker.pass(seconds(1)), Err(seconds(2)));
        assert_eq!(breaker.pass(seconds(2)), Ok(()));
    }

    proptest! {
        /// After any steps, a probe is possible within the longest wait, and a success closes the breaker.
        #[test]
        fn no_endpoint_is_left_alone_for_ever(steps in prop::collection::vec((0u64..100, 0u8..3, 0.0f64..1.0), 0..200)) {
            let (mut breaker, mut now) = (Breaker::default(), Duration::ZERO);
            for (wait, step, random) in steps {
                now += seconds(wait);
                match step {
                    0 => drop(breaker.pass(now)),
                    1 => drop(breaker.record_failure(MOST, now, random)),
                    _ => {
                        breaker.record_success();
                        prop_assert_eq!(breaker.pass(now), Ok(()));
                    }
                }
                let latest = now + LONGEST_PROBE.mul_f64(1.0 + JITTER);
                prop_assert!(breaker.next_probe().unwrap_or_default() <= latest);
                prop_assert_eq!(breaker.clone().pass(latest), Ok(()));
            }
        }
    }
}
