//! Decisions of a lane: the bound on attempts in flight to an endpoint, and admission to the lane.

use std::time::Duration;

use crate::delivery::{breaker::Breaker, outcome::Outcome};

/// Longest expected wait with which a delivery still waits in the lane, so that a burst to a fast endpoint is not
/// queued.
pub const MAX_EXPECTED_WAIT: Duration = Duration::from_secs(1);

/// An attempt that takes longer is slow. Attempt and lane then use the room of slow endpoints.
pub const SLOW_AFTER: Duration = Duration::from_secs(1);

/// Time after which the unused lane of a healthy endpoint is dropped. A new lane learns quickly.
const KEPT: Duration = Duration::from_secs(600);

/// The same time for a failing endpoint. Retries may return after as much as a day.
const KEPT_FAILING: Duration = Duration::from_secs(25 * 3600);

/// First expected duration of an attempt, and first bound, of a lane without experience.
const FIRST_GUESS: Duration = Duration::from_millis(100);
const FIRST_BOUND: usize = 2;

/// Limits of every lane in a process.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Maximum attempts in flight to an endpoint.
    pub attempts: usize,
    /// Failures in a row after which the breaker opens.
    pub failures: u32,
}

/// Experience with the attempts to an endpoint.
///
/// The bound on attempts in flight grows with each answered attempt, and halves with each attempt that gets no answer
/// at all.
#[derive(Debug, Clone)]
pub struct Lane {
    limits: Limits,
    bound: usize,
    typical: Duration,
    pace: Pace,
    breaker: Breaker,
    /// Moment before which the endpoint asked for no attempt.
    rests_until: Option<Duration>,
}

/// The end of an attempt.
#[derive(Debug, Clone, Copy)]
pub struct Ended {
    /// Outcome of the attempt.
    pub outcome: Outcome,
    /// True if the endpoint failed. A refusal is no failure.
    pub is_failure: bool,
    /// Wait that the endpoint asked for.
    pub rest: Option<Duration>,
    /// Duration of the attempt.
    pub took: Duration,
}

/// Expected response time of an endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pace {
    /// Not known yet.
    Unknown,
    /// Within [`SLOW_AFTER`].
    Fast,
    /// Longer than [`SLOW_AFTER`].
    Slow,
}

impl Pace {
    /// Name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Unknown => "unknown",
            Self::Fast => "fast",
            Self::Slow => "slow",
        }
    }
}

impl Lane {
    /// Creates a lane without experience. The endpoint has yet to prove a fast pace.
    pub fn new(limits: Limits) -> Self {
        let bound = FIRST_BOUND.min(limits.attempts);
        Self {
            limits,
            bound,
            typical: FIRST_GUESS,
            pace: Pace::Unknown,
            breaker: Breaker::default(),
            rests_until: None,
        }
    }

    /// Maximum attempts in flight.
    pub fn bound(&self) -> usize {
        self.bound
    }

    /// Expected response time.
    pub fn pace(&self) -> Pace {
        self.pace
    }

    /// Failures in a row.
    pub fn failures(&self) -> u32 {
        self.breaker.failures()
    }

    /// Moment of the breaker's next probe; `None` if the breaker is closed.
    pub fn next_probe(&self) -> Option<Duration> {
        self.breaker.next_probe()
    }

    /// Moment before which the endpoint asked for no attempt; `None` if the endpoint does not rest.
    pub fn rests_until(&self, now: Duration) -> Option<Duration> {
        self.rests_until.filter(|until| now < *until)
    }

    /// Rests until a moment, or longer if the endpoint asked for it.
    pub fn rest(&mut self, until: Duration) {
        self.rests_until = self.rests_until.max(Some(until));
    }

    /// Takes over the breaker that another process left open.
    pub fn resume_breaker(&mut self, failures: u32, next_probe: Duration) {
        if !self.breaker.is_open() {
            self.breaker = Breaker::resume(failures, next_probe);
        }
    }

    /// Circuit breaker of the endpoint.
    pub fn breaker(&mut self) -> &mut Breaker {
        &mut self.breaker
    }

    /// True if the lane may be dropped after being unused for this long.
    pub fn is_forgettable(&self, unused: Duration) -> bool {
        unused >= if self.failures() == 0 { KEPT } else { KEPT_FAILING }
    }

    /// Expected wait of one more delivery behind the `admitted` deliveries, with at most `bound` attempts in flight.
    /// Half of the attempts in flight have at least this `age`.
    ///
    /// The age of attempts in flight reveals an endpoint that begins to hang, long before an answer is late. An attempt
    /// is expected to take at least as long again.
    pub fn expected_wait(&self, admitted: usize, bound: usize, age: Duration) -> Duration {
        let ahead = (admitted + 1).saturating_sub(bound);
        let rounds = ahead.div_ceil(bound.max(1));
        let each = self.typical.max(age);
        each.saturating_mul(u32::try_from(rounds).unwrap_or(u32::MAX))
    }

    /// Records that an attempt has been in flight for longer than [`SLOW_AFTER`].
    pub fn mark_slow(&mut self) {
        self.pace = Pace::Slow;
    }

    /// Records the end of an attempt. An endpoint that asked for a rest gets half of the attempts at once afterwards.
    /// Returns a change of the breaker, if any.
    pub fn record(&mut self, ended: Ended, now: Duration, random: f64) -> Option<BreakerTransition> {
        let Ended { outcome, is_failure, rest, took } = ended;
        self.typical = (self.typical * 9 + took) / 10;
        match outcome {
            Outcome::Answered { .. } => {
                self.pace = if took < SLOW_AFTER { Pace::Fast } else { Pace::Slow };
                self.bound = match rest {
                    Some(_) => (self.bound / 2).max(1),
                    None => (self.bound + 1).min(self.limits.attempts),
                };
            }
            Outcome::TimedOut | Outcome::ConnectionFailed | Outcome::ConnectionClosed => {
                self.bound = (self.bound / 2).max(1);
                if took >= SLOW_AFTER {
                    self.pace = Pace::Slow;
                }
            }
            _ => {}
        }
        if let Some(rest) = rest {
            self.rest(now + rest);
        }
        if is_failure {
            return self.breaker.record_failure(self.limits.failures, now, random).then_some(BreakerTransition::Opened);
        }
        self.breaker.record_success().then_some(BreakerTransition::Closed)
    }
}

/// The places of the process that an application may use: half, so that no application leaves nothing to the others,
/// however many endpoints the application has.
pub fn share(places: usize) -> usize {
    (places / 2).max(1)
}

/// True if an endpoint of this pace gets a place, with `free` of all `places` left, of the process or of an
/// application's share. Endpoints that hang hold places for long. Half of the places is therefore reserved from slow
/// endpoints, and a quarter from endpoints not known to be fast.
pub fn has_room(pace: Pace, free: usize, places: usize) -> bool {
    let reserved = match pace {
        Pace::Slow => places / 2,
        Pace::Unknown => places / 4,
        Pace::Fast => 0,
    };
    free > reserved
}

/// Bound of an endpoint's lane in each of `dispatchers` processes that send to the endpoint. The owner of the backlog
/// has the whole bound.
pub fn bound_share(bound: usize, dispatchers: usize) -> usize {
    (bound / dispatchers.max(1)).max(1)
}

/// A change of the breaker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakerTransition {
    /// Attempts no longer pass.
    Opened,
    /// The endpoint has recovered.
    Closed,
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const LIMITS: Limits = Limits { attempts: 16, failures: 10 };
    const OK: Outcome = Outcome::answered(200);
    const QUICKLY: Duration = Duration::from_millis(20);
    const NOW: Duration = Duration::ZERO;

    fn ended(outcome: Outcome, is_failure: bool, took: Duration) -> Ended {
        Ended { outcome, is_failure, rest: None, took }
    }

    fn grown() -> Lane {
        let mut lane = Lane::new(LIMITS);
        for _ in 0..LIMITS.attempts {
            lane.record(ended(OK, false, QUICKLY), NOW, 0.0);
        }
        lane
    }

    #[test]
    fn a_burst_to_a_fast_endpoint_queues_and_a_hanging_one_is_left() {
        let lane = grown();
        let (young, old) = (Duration::from_millis(5), Duration::from_secs(2));
        assert!(lane.expected_wait(160, lane.bound(), young) <= MAX_EXPECTED_WAIT);
        assert!(lane.expected_wait(160, lane.bound(), old) > MAX_EXPECTED_WAIT);
        assert_eq!(lane.expected_wait(15, lane.bound(), old), Duration::ZERO);
        assert!(lane.expected_wait(100_000, lane.bound(), young) > MAX_EXPECTED_WAIT);
    }

    #[test]
    fn the_bound_follows_the_answers() {
        let mut lane = Lane::new(LIMITS);
        assert_eq!((lane.pace(), lane.bound()), (Pace::Unknown, FIRST_BOUND));
        lane.record(ended(OK, false, QUICKLY), NOW, 0.0);
        assert_eq!((lane.pace(), lane.bound()), (Pace::Fast, FIRST_BOUND + 1));
        let mut lane = grown();
        assert_eq!(lane.bound(), LIMITS.attempts);
        for bound in [8, 4, 2, 1, 1] {
            lane.record(ended(Outcome::TimedOut, true, Duration::from_secs(10)), NOW, 0.0);
            assert_eq!((lane.pace(), lane.bound()), (Pace::Slow, bound));
        }
        lane.record(ended(OK, false, QUICKLY), NOW, 0.0);
        assert_eq!((lane.pace(), lane.bound()), (Pace::Fast, 2));
        lane.mark_slow();
        assert_eq!(lane.pace(), Pace::Slow);
        lane.record(ended(OK, false, SLOW_AFTER), NOW, 0.0);
        assert_eq!((lane.pace(), lane.bound()), (Pace::Slow, 3), "slow is not dead");
    }

    #[test]
    fn a_run_of_failures_opens_the_breaker_and_a_success_closes_it() {
        let mut lane = grown();
        let failed = Outcome::answered(500);
        for _ in 1..LIMITS.failures {
            assert_eq!(lane.record(ended(failed, true, QUICKLY), NOW, 0.0), None);
        }
        assert_eq!(lane.record(ended(failed, true, QUICKLY), NOW, 0.0), Some(BreakerTransition::Opened));
        assert!(lane.breaker().pass(NOW).is_err());
        assert_eq!(lane.record(ended(OK, false, QUICKLY), NOW, 0.0), Some(BreakerTransition::Closed));
        assert_eq!(lane.breaker().pass(NOW), Ok(()));
    }

    #[test]
    fn the_lane_of_a_failing_endpoint_is_kept_longer() {
        let mut lane = grown();
        let failed = Outcome::answered(500);
        for kept in [KEPT, KEPT_FAILING] {
            assert!(!lane.is_forgettable(kept - QUICKLY));
            assert!(lane.is_forgettable(kept));
            lane.record(ended(failed, true, QUICKLY), NOW, 0.0);
        }
        lane.record(ended(OK, false, QUICKLY), NOW, 0.0);
        assert!(lane.is_forgettable(KEPT));
    }

    #[test]
    fn a_lane_rests_as_asked_and_begins_again_with_fewer_attempts() {
        let mut lane = grown();
        let refused = Outcome::answered(429);
        for (seconds, until) in [(5, 5), (3, 5), (7, 7)] {
            let rest = Some(Duration::from_secs(seconds));
            lane.record(Ended { rest, ..ended(refused, true, QUICKLY) }, NOW, 0.0);
            assert_eq!(lane.rests_until(NOW), Some(Duration::from_secs(until)));
        }
        assert_eq!(lane.bound(), LIMITS.attempts / 8);
        lane.record(ended(OK, false, QUICKLY), NOW, 0.0);
        assert_eq!(
            lane.rests_until(Duration::from_secs(6)),
            Some(Duration::from_secs(7)),
            "an earlier attempt ends no rest"
        );
        assert_eq!(lane.rests_until(Duration::from_secs(7)), None);
        assert_eq!(lane.bound(), LIMITS.attempts / 8 + 1);
    }

    proptest! {
        #[test]
        fn the_bound_stays_in_its_limits(attempts in 1usize..100, ends in prop::collection::vec((0u8..3, 0u64..3000), 0..100)) {
            let mut lane = Lane::new(Limits { attempts, failures: 10 });
            for (end, milliseconds) in ends {
                let outcome = [OK, Outcome::TimedOut, Outcome::NameNotResolved][usize::from(end)];
                lane.record(ended(outcome, end > 0, Duration::from_millis(milliseconds)), NOW, 0.0);
                prop_assert!((1..=attempts).contains(&lane.bound()));
                prop_assert_eq!(lane.expected_wait(lane.bound() - 1, lane.bound(), Duration::MAX), Duration::ZERO, "a free lane admits");
            }
        }

        #[test]
        fn each_application_leaves_half_to_the_others(budget in 2usize..20_000) {
            let share = share(budget);
            prop_assert!((1..=budget - share).contains(&share));
        }

        #[test]
        fn places_are_reserved_for_faster_endpoints(places in 1usize..20_000, dispatchers in 0usize..100) {
            for (pace, reserved) in [(Pace::Slow, places / 2), (Pace::Unknown, places / 4), (Pace::Fast, 0)] {
                let taken = (0..places).take_while(|&taken| has_room(pace, places - taken, places)).count();
                prop_assert_eq!(taken, places - reserved);
            }
            prop_assert!(bound_share(places, dispatchers) * dispatchers.min(places) <= places);
        }
    }
}
