//! When an endpoint that fails again and again is left alone, and when it is asked whether it is back.

use std::time::Duration;

use crate::deferral::deferral_wait;

/// The wait before the first probe. Each that fails doubles it.
const FIRST_PROBE: Duration = Duration::from_secs(1);

/// A claim may be due by so much too early, the one for the probe as well.
const EARLY: Duration = Duration::from_secs(1);

/// The longest wait between two probes.
const LONGEST_PROBE: Duration = Duration::from_secs(60);

/// Opens after a run of failures: attempts are then put off, but for one now and then that shows whether the endpoint is
/// back, an ordinary attempt of whatever is due. A success closes it.
///
/// Moments are durations since any fixed one.
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
    /// Whether somebody comes back for the next probe.
    is_awaited: bool,
}

impl Breaker {
    /// Whether an attempt may be made now. One that may while the breaker is open is the probe: no other may before the
    /// interval is over once more, also where nothing ever comes of it.
    ///
    /// # Errors
    /// With how long to put a delivery off for the `count`-th time in a row: one until the next probe, and the others
    /// ever longer, spread by `random` in 0..1.
    pub fn pass(&mut self, now: Duration, count: u32, random: f64) -> Result<(), Duration> {
        let Some(open) = &mut self.open else { return Ok(()) };
        if now + EARLY.min(open.interval / 2) < open.next_probe {
            let wait = open.next_probe - now;
            let is_first = !std::mem::replace(&mut open.is_awaited, true);
            return Err(if is_first { wait } else { wait.max(deferral_wait(count, random)) });
        }
        open.next_probe = now + open.interval;
        (open.is_probing, open.is_awaited) = (true, false);
        Ok(())
    }

    /// An attempt failed; after `most` of them in a row the breaker opens. Says whether it has just done so.
    pub fn failed(&mut self, most: u32, now: Duration) -> bool {
        self.failures = self.failures.saturating_add(1);
        let Some(open) = &mut self.open else {
            if self.failures < most {
                return false;
            }
            let next_probe = now + FIRST_PROBE;
            self.open = Some(Open { interval: FIRST_PROBE, next_probe, is_probing: false, is_awaited: false });
            return true;
        };
        // What was on its way when it opened says nothing new.
        if std::mem::take(&mut open.is_probing) {
            open.interval = (open.interval * 2).min(LONGEST_PROBE);
            (open.next_probe, open.is_awaited) = (now + open.interval, false);
        }
        false
    }

    /// An attempt succeeded. Says whether the breaker was open.
    pub fn succeeded(&mut self) -> bool {
        self.failures = 0;
        self.open.take().is_some()
    }

    /// Failures in a row, some of them while the breaker was open.
    pub fn failures(&self) -> u32 {
        self.failures
    }

    /// When the next probe may be made; none where the breaker is not open.
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

    fn pass(breaker: &mut Breaker, now: Duration) -> Result<(), Duration> {
        breaker.pass(now, 1, 0.5)
    }

    fn opened() -> Breaker {
        let mut breaker = Breaker::default();
        for number in 1..=MOST {
            assert_eq!(pass(&mut breaker, seconds(0)), Ok(()));
            assert_eq!(breaker.failed(MOST, seconds(0)), number == MOST);
        }
        breaker
    }

    #[test]
    fn probes_come_ever_less_often_until_one_succeeds() {
        let mut breaker = opened();
        let mut now = Duration::ZERO;
        for wait in [1, 2, 4, 8, 16, 32, 60, 60] {
            assert_eq!(pass(&mut breaker, now), Err(seconds(wait)), "one comes for the probe");
            assert!(breaker.pass(now, 7, 0.5) >= Err(seconds(64)), "and the others later");
            now += seconds(wait);
            assert_eq!(pass(&mut breaker, now), Ok(()));
            assert!(pass(&mut breaker, now).is_err(), "one at a time");
            assert!(!breaker.failed(MOST, now));
            assert!(!breaker.failed(MOST, now), "what was on its way before says nothing");
        }
        assert!(breaker.succeeded());
        assert_eq!((pass(&mut breaker, now), breaker.next_probe()), (Ok(()), None));
        assert!(!breaker.failed(MOST, now));
    }

    #[test]
    fn the_claim_that_comes_for_the_probe_may_be_a_little_early() {
        let mut breaker = opened();
        let mut now = Duration::ZERO;
        for wait in [1, 2, 4, 8] {
            assert_eq!(breaker.pass(now, 8, 0.5), Err(seconds(wait)));
            now += seconds(wait) - EARLY.min(seconds(wait) / 2);
            assert_eq!(breaker.pass(now, 9, 0.5), Ok(()));
            breaker.failed(MOST, now);
        }
    }

    #[test]
    fn a_probe_that_is_never_heard_of_again_is_followed_by_another() {
        let mut breaker = opened();
        assert_eq!(pass(&mut breaker, seconds(1)), Ok(()));
        assert_eq!(pass(&mut breaker, seconds(1)), Err(seconds(1)));
        assert_eq!(pass(&mut breaker, seconds(2)), Ok(()));
    }

    proptest! {
        /// Whatever happens, somebody may pass within a minute, and a success lets everybody pass.
        #[test]
        fn nobody_is_left_alone_for_ever(steps in prop::collection::vec((0u64..100, 0u8..3), 0..200)) {
            let (mut breaker, mut now) = (Breaker::default(), Duration::ZERO);
            for (wait, step) in steps {
                now += seconds(wait);
                match step {
                    0 => drop(pass(&mut breaker, now)),
                    1 => drop(breaker.failed(MOST, now)),
                    _ => {
                        breaker.succeeded();
                        prop_assert_eq!(pass(&mut breaker, now), Ok(()));
                    }
                }
                prop_assert!(breaker.next_probe().unwrap_or_default() <= now + LONGEST_PROBE);
                prop_assert_eq!(pass(&mut breaker.clone(), now + LONGEST_PROBE), Ok(()));
            }
        }
    }
}
