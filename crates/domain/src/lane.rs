//! What a lane decides: how many attempts may be on their way to its endpoint, and whether a delivery may wait in it.

use std::time::Duration;

use crate::{breaker::Breaker, outcome::Outcome};

/// The longest expected wait with which a delivery still queues in its lane, so that a burst to one
/// fast endpoint is not thrown back.
pub const MAX_EXPECTED_WAIT: Duration = Duration::from_secs(1);

/// An attempt that takes longer is slow: it and its lane then use what is kept for the slow.
pub const SLOW_AFTER: Duration = Duration::from_secs(1);

/// How long a lane that is not used is kept, where its endpoint is healthy: what is known of that is soon learnt anew.
const KEPT: Duration = Duration::from_secs(600);

/// The same where its endpoint fails. What waits to be sent again may come back after as much as a day.
const KEPT_FAILING: Duration = Duration::from_secs(25 * 3600);

/// What a lane without any experience expects of an attempt, and how many it dares to have on their way.
const FIRST_GUESS: Duration = Duration::from_millis(100);
const FIRST_BOUND: usize = 2;

/// What bounds every lane of a process.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Attempts that may be on their way to one endpoint at once.
    pub attempts: usize,
    /// Failures in a row after which the breaker opens.
    pub failures: u32,
}

/// What is known of the attempts to one endpoint.
///
/// The bound on those that are on their way at once grows with each that is answered, and is halved by each that is
/// not answered at all.
#[derive(Debug, Clone)]
pub struct Lane {
    limits: Limits,
    bound: usize,
    /// The largest that the bound has been.
    peak: usize,
    typical: Duration,
    pace: Pace,
    breaker: Breaker,
}

/// How soon attempts are expected to be answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Nobody knows yet.
    Unknown,
    /// Within [`SLOW_AFTER`].
    Fast,
    /// Not as soon.
    Slow,
}

impl Pace {
    /// The word in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Fast => "fast",
            Self::Slow => "slow",
        }
    }
}

impl Lane {
    /// A lane that nothing is known of: it has yet to prove that it is fast.
    pub fn new(limits: Limits) -> Self {
        let bound = FIRST_BOUND.min(limits.attempts);
        Self { limits, bound, peak: bound, typical: FIRST_GUESS, pace: Pace::Unknown, breaker: Breaker::default() }
    }

    /// Attempts that may be on their way at once.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// How soon attempts are expected to be answered.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.breaker.failures()
    }

    /// When the breaker lets the next attempt pass; none where it is closed.
    pub fn next_probe(&self) -> Option<Duration> {
        self.breaker.next_probe()
    }

    /// Whether there is something to see of it, where so many deliveries wait for their turn: its endpoint is not at its
    /// best.
    pub fn is_notable(&self, waiting: usize) -> bool {
        waiting > 0 || self.failures() > 0 || self.pace == Pace::Slow || self.bound < self.peak
    }

    /// The breaker.
    pub fn breaker(&mut self) -> &mut Breaker {
        &mut self.breaker
    }

    /// Whether the lane of an endpoint that was last sent to so long ago need not be kept.
    pub fn is_forgettable(&self, unused: Duration) -> bool {
        unused >= if self.failures() == 0 { KEPT } else { KEPT_FAILING }
    }

    /// How long one more delivery would wait for its turn behind those that were `admitted`, where half of those that may
    /// be on their way are of this `age` at least.
    ///
    /// An endpoint that has begun to hang is known by the age of what is on its way, long before
    /// anything has come back: an attempt will take at least as long again as these have so far.
    pub fn expected_wait(&self, admitted: usize, age: Duration) -> Duration {
        let ahead = (admitted + 1).saturating_sub(self.bound);
        let rounds = ahead.div_ceil(self.bound);
        let each = self.typical.max(age);
        each.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
    }

    /// An attempt has been on its way for longer than [`SLOW_AFTER`].
    pub fn is_late(&mut self) {
        self.pace = Pace::Slow;
    }

    /// An attempt ended. Says whether the breaker opened or closed by that.
    pub fn ended(&mut self, outcome: Outcome, is_failure: bool, took: Duration, now: Duration) -> Option<Switched> {
        self.typical = (self.typical * 9 + took) / 10;
        match outcome {
            Outcome::Answered { .. } => {
                self.pace = if took < SLOW_AFTER { Pace::Fast } else { Pace::Slow };
                self.bound = (self.bound + 1).min(self.limits.attempts);
                self.peak = self.peak.max(self.bound);
            }
            Outcome::TimedOut | Outcome::ConnectionFailed | Outcome::ConnectionClosed => {
                self.bound = (self.bound / 2).max(1);
                if took >= SLOW_AFTER {
                    self.pace = Pace::Slow;
                }
            }
            _ => {}
        }
        if is_failure {
            return self.breaker.failed(self.limits.failures, now).then_some(Switched::Opened);
        }
        self.breaker.succeeded().then_some(Switched::Closed)
    }
}

/// What one application may use of a budget of the process: half of it, so that no application, however many endpoints
/// it has, leaves nothing to the others.
pub fn share(budget: usize) -> usize {
    (budget / 2).max(1)
}

/// Whether there is room in the slow budget, or in an application's share of it, for an endpoint of this pace, where
/// `free` of all its `places` are free. What is known to be slow gets none of the last quarter: those whom nobody knows
/// yet would have to wait for it.
pub fn has_room(pace: Pace, free: usize, places: usize) -> bool {
    let kept = if pace == Pace::Unknown { 0 } else { places / 4 };
    free > kept
}

/// What became of a breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Switched {
    /// It let everything pass, and does no more.
    Opened,
    /// The endpoint is back.
    Closed,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { attempts: 16, failures: 10 };
    const OK: Outcome = Outcome::Answered { status: 200, retry_after: None };
    const QUICKLY: Duration = Duration::from_millis(20);
    const NOW: Duration = Duration::ZERO;

    fn grown() -> Lane {
        let mut lane = Lane::new(LIMITS);
        for _ in 0..LIMITS.attempts {
            lane.ended(OK, false, QUICKLY, NOW);
        }
        lane
    }

    #[test]
    fn a_burst_to_a_fast_endpoint_queues_and_a_hanging_one_is_left() {
        let lane = grown();
        let (young, old) = (Duration::from_millis(5), Duration::from_secs(2));
        assert!(lane.expected_wait(160, young) <= MAX_EXPECTED_WAIT);
        assert!(lane.expected_wait(160, old) > MAX_EXPECTED_WAIT);
        assert_eq!(lane.expected_wait(15, old), Duration::ZERO);
        assert!(lane.expected_wait(100_000, young) > MAX_EXPECTED_WAIT);
    }

    #[test]
    fn the_bound_follows_the_answers() {
        let mut lane = Lane::new(LIMITS);
        assert_eq!((lane.pace(), lane.bound()), (Pace::Unknown, FIRST_BOUND));
        lane.ended(OK, false, QUICKLY, NOW);
        assert_eq!((lane.pace(), lane.bound()), (Pace::Fast, FIRST_BOUND + 1));
        let mut lane = grown();
        assert_eq!(lane.bound(), LIMITS.attempts);
        for bound in [8, 4, 2, 1, 1] {
            lane.ended(Outcome::TimedOut, true, Duration::from_secs(10), NOW);
            assert_eq!((lane.pace(), lane.bound()), (Pace::Slow, bound));
        }
        lane.ended(OK, false, QUICKLY, NOW);
        assert_eq!((lane.pace(), lane.bound()), (Pace::Fast, 2));
        lane.is_late();
        assert_eq!(lane.pace(), Pace::Slow);
        lane.ended(OK, false, SLOW_AFTER, NOW);
        assert_eq!((lane.pace(), lane.bound()), (Pace::Slow, 3), "slow is not dead");
    }

    #[test]
    fn a_run_of_failures_opens_the_breaker_and_a_success_closes_it() {
        let mut lane = grown();
        let failed = Outcome::Answered { status: 500, retry_after: None };
        for _ in 1..LIMITS.failures {
            assert_eq!(lane.ended(failed, true, QUICKLY, NOW), None);
        }
        assert_eq!(lane.ended(failed, true, QUICKLY, NOW), Some(Switched::Opened));
        assert!(lane.breaker().pass(NOW, 1, 0.5).is_err());
        assert_eq!(lane.ended(OK, false, QUICKLY, NOW), Some(Switched::Closed));
        assert_eq!(lane.breaker().pass(NOW, 1, 0.5), Ok(()));
    }

    #[test]
    fn there_is_something_to_see_of_an_endpoint_until_it_is_at_its_best_again() {
        let mut lane = Lane::new(LIMITS);
        assert!(!lane.is_notable(0) && lane.is_notable(1));
        lane.ended(OK, false, QUICKLY, NOW);
        assert!(!lane.is_notable(0));
        lane.ended(OK, false, SLOW_AFTER, NOW);
        assert!(lane.is_notable(0), "slow");
        lane.ended(Outcome::TimedOut, true, QUICKLY, NOW);
        assert_eq!((lane.is_notable(0), lane.bound(), lane.failures()), (true, 2, 1));
        for bound in [3, 4] {
            assert!(lane.is_notable(0), "fewer than before");
            lane.ended(OK, false, QUICKLY, NOW);
            assert_eq!((lane.bound(), lane.failures()), (bound, 0));
        }
        assert!(!lane.is_notable(0));
    }

    #[test]
    fn what_is_known_of_a_failing_endpoint_is_kept_for_longer() {
        let mut lane = grown();
        let failed = Outcome::Answered { status: 500, retry_after: None };
        for kept in [KEPT, KEPT_FAILING] {
            assert!(!lane.is_forgettable(kept - QUICKLY));
            assert!(lane.is_forgettable(kept));
            lane.ended(failed, true, QUICKLY, NOW);
        }
        lane.ended(OK, false, QUICKLY, NOW);
        assert!(lane.is_forgettable(KEPT));
    }

    proptest! {
        #[test]
        fn the_bound_stays_in_its_limits(attempts in 1usize..100, ends in prop::collection::vec((0u8..3, 0u64..3000), 0..100)) {
            let mut lane = Lane::new(Limits { attempts, failures: 10 });
            for (end, milliseconds) in ends {
                let outcome = [OK, Outcome::TimedOut, Outcome::NameNotResolved][usize::from(end)];
                lane.ended(outcome, end > 0, Duration::from_millis(milliseconds), NOW);
                prop_assert!((1..=attempts).contains(&lane.bound()));
                prop_assert_eq!(lane.expected_wait(lane.bound() - 1, Duration::MAX), Duration::ZERO, "a free lane admits");
            }
        }

        #[test]
        fn each_application_leaves_half_to_the_others(budget in 2usize..20_000) {
            let share = share(budget);
            prop_assert!((1..=budget - share).contains(&share));
        }

        #[test]
        fn what_is_slow_leaves_room_to_what_nobody_knows(places in 1usize..20_000) {
            for pace in [Pace::Slow, Pace::Unknown] {
                let taken = (0..places).take_while(|&taken| has_room(pace, places - taken, places)).count();
                prop_assert_eq!(taken, if pace == Pace::Slow { places - places / 4 } else { places });
            }
        }
    }
}
