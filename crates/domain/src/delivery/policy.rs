//! Decides the next step of a delivery after an attempt, by schedule and rules.

use std::time::Duration;

use jiff::Timestamp;

use crate::{
    delivery::{
        FailureReason,
        answer::Action,
        outcome::{Outcome, OutcomeClass, OutcomeRules},
    },
    time::{duration_name, parse_duration, saturating_add},
};

/// Longest wait of a delivery for which an endpoint's `Retry-After` is heeded.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120 * 60);

/// Longest rest of an endpoint by `Retry-After`. A wrong header thus costs little, and an endpoint under maintenance
/// gets an attempt every ten minutes at most.
pub const MAX_REST: Duration = Duration::from_secs(10 * 60);

/// Maximum waits of a schedule.
const MAX_WAITS: usize = 50;

/// Waits after failed attempts. The last attempt follows the last wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Vec<Duration>);

/// The reason why texts are not a schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InvalidSchedule {
    /// A text that is not a wait.
    #[error("holds {0:?}, which is not a wait: write a whole number and s, m or h, from \"1s\" to \"24h\"")]
    Wait(String),
    /// More than 50 waits.
    #[error("has more than {MAX_WAITS} waits")]
    TooLong,
}

impl Schedule {
    /// Parses waits such as `60s` and `5m`. An empty schedule means one attempt.
    ///
    /// # Errors
    /// If a text is not a wait, or for more than 50 waits.
    pub fn parse<T: AsRef<str>>(waits: &[T]) -> Result<Self, InvalidSchedule> {
        let wait = |text: &T| {
            let wait = parse_duration(text.as_ref()).filter(|wait| wait.subsec_millis() == 0);
            wait.filter(|wait| (1..=86400).contains(&wait.as_secs()))
                .ok_or_else(|| InvalidSchedule::Wait(text.as_ref().chars().take(32).collect()))
        };
        if waits.len() > MAX_WAITS {
            return Err(InvalidSchedule::TooLong);
        }
        waits.iter().map(wait).collect::<Result<_, _>>().map(Self)
    }

    /// Waits, in order.
    pub fn waits(&self) -> &[Duration] {
        &self.0
    }

    /// Waits as text.
    pub fn names(&self) -> Vec<String> {
        self.0.iter().map(|&wait| duration_name(wait)).collect()
    }

    /// Number of failed attempts after which the delivery fails.
    pub fn max_attempts(&self) -> usize {
        self.0.len() + 1
    }
}

/// Permitted rates of an endpoint, in attempts per second.
pub const RATES: std::ops::RangeInclusive<u32> = 1..=10_000;

/// Permitted deadlines of an attempt.
pub const TIMEOUTS: std::ops::RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(60);

/// Rules for the attempts of an endpoint's deliveries.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Waits between attempts.
    pub schedule: Schedule,
    /// Maximum random extension of each wait, in percent, so that deliveries that failed at the same moment are not
    /// retried at the same moment.
    pub jitter_percent: u8,
    /// Deadline of an attempt, from name resolution to the end of the response.
    pub timeout: Duration,
    /// Maximum attempts per second in all processes together; `None` for no limit.
    pub rate_per_second: Option<u32>,
    /// Classifies outcomes as success, failure, or the immediate end of a delivery.
    pub rules: OutcomeRules,
}

/// The next step after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The endpoint has the event.
    Delivered,
    /// Another attempt.
    Retry {
        /// Time of the next attempt.
        due: Timestamp,
    },
    /// No further attempt, unless requested.
    Failed(FailureReason),
}

impl Policy {
    /// Longest lifetime of a delivery that begins now. `allowance` is for delays caused by Fanfare itself. An older
    /// delivery has expired, whatever the delivery waits for.
    pub fn lifetime(&self, allowance: Duration) -> Duration {
        let attempts = u32::try_from(self.schedule.max_attempts()).unwrap_or(u32::MAX);
        let schedule: Duration = self.schedule.waits().iter().map(|&wait| self.longest(wait)).sum();
        schedule.saturating_add(self.timeout.saturating_mul(attempts)).saturating_add(allowance)
    }

    /// Decides by an attempt's outcome. `failures` is the number of earlier failed attempts that the endpoint is
    /// responsible for. Attempts of unknown outcome do not count, and use up no place in the schedule. `expires_at`
    /// ends the delivery in any state. `chance` is random.
    pub fn decide(
        &self,
        outcome: Outcome,
        failures: u32,
        expires_at: Option<Timestamp>,
        now: Timestamp,
        chance: u32,
    ) -> Decision {
        self.decide_class(self.rules.of(outcome), outcome, failures, (expires_at, now), chance)
    }

    /// Decides by the outcome of an attempt with a token that was fetched. A 401 refuses the token, and not the event:
    /// a rejection is a failure instead, and the next attempt has a new token.
    pub fn decide_with_token(
        &self,
        outcome: Outcome,
        failures: u32,
        expires_at: Option<Timestamp>,
        now: Timestamp,
        chance: u32,
    ) -> Decision {
        let class = match (self.rules.of(outcome), outcome.status()) {
            (OutcomeClass::Rejected, Some(401)) => OutcomeClass::Failed,
            (class, _) => class,
        };
        self.decide_class(class, outcome, failures, (expires_at, now), chance)
    }

    fn decide_class(
        &self,
        class: OutcomeClass,
        outcome: Outcome,
        failures: u32,
        (expires_at, now): (Option<Timestamp>, Timestamp),
        chance: u32,
    ) -> Decision {
        match class {
            OutcomeClass::Delivered => return Decision::Delivered,
            OutcomeClass::Gone => return Decision::Failed(FailureReason::EndpointGone),
            OutcomeClass::Rejected | OutcomeClass::Failed if outcome.action() == Some(Action::Disable) => {
                return Decision::Failed(FailureReason::DisabledByReceiver);
            }
            OutcomeClass::Rejected => return Decision::Failed(FailureReason::Rejected),
            OutcomeClass::Failed if outcome.action() == Some(Action::Stop) => {
                return Decision::Failed(FailureReason::StoppedByReceiver);
            }
            OutcomeClass::Failed => {}
        }
        let Some(&wait) = self.schedule.waits().get(failures as usize) else {
            return Decision::Failed(FailureReason::AttemptsExhausted);
        };
        let jitter = (self.longest(wait) - wait).mul_f64(f64::from(chance) / f64::from(u32::MAX));
        let asked = asked_wait(outcome, now, MAX_RETRY_AFTER).unwrap_or_default();
        let due = saturating_add(now, (wait + jitter).max(asked));
        if expires_at.is_some_and(|end| due > end) {
            return Decision::Failed(FailureReason::Expired);
        }
        Decision::Retry { due }
    }

    /// The reason to disable the endpoint after an attempt, also after a success; `None` to go on.
    pub fn disables(&self, outcome: Outcome) -> Option<FailureReason> {
        match self.rules.of(outcome) {
            OutcomeClass::Gone => Some(FailureReason::EndpointGone),
            _ => {
                outcome.action().filter(|action| *action == Action::Disable).map(|_| FailureReason::DisabledByReceiver)
            }
        }
    }

    fn longest(&self, wait: Duration) -> Duration {
        wait + wait * u32::from(self.jitter_percent) / 100
    }
}

/// The rest of the whole endpoint that an outcome asks for, at most [`MAX_REST`] and a margin.
pub fn asked_rest(outcome: Outcome, now: Timestamp) -> Option<Duration> {
    asked_wait(outcome, now, MAX_REST)
}

/// The wait that an endpoint asks for by `Retry-After` with 429 or 503; other statuses give the header no such meaning.
/// A margin covers differing clocks, since an attempt too early is refused again.
fn asked_wait(outcome: Outcome, now: Timestamp, longest: Duration) -> Option<Duration> {
    let Outcome::Answered { status: 429 | 503, retry_after: Some(after), .. } = outcome else { return None };
    let asked = Some(after.wait(now).min(longest)).filter(|asked| !asked.is_zero())?;
    Some(asked + (asked / 50).max(Duration::from_secs(1)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::delivery::answer::RetryAfter;

    const DEFAULT: [&str; 5] = ["60s", "5m", "15m", "60m", "120m"];

    fn policy(schedule: &[&str]) -> Policy {
        Policy {
            schedule: Schedule::parse(schedule).expect("schedule"),
            jitter_percent: 0,
            timeout: Duration::from_secs(10),
            rate_per_second: None,
            rules: OutcomeRules::default(),
        }
    }

    const FAILED: Outcome = Outcome::answered(500);

    #[test]
    fn the_default_schedule_sends_six_times() {
        let policy = policy(&DEFAULT);
        let mut now = Timestamp::UNIX_EPOCH;
        let mut waits = Vec::new();
        for failures in 0.. {
            match policy.decide(FAILED, failures, None, now, 0) {
                Decision::Retry { due } => waits.push(due.duration_since(now).as_secs()),
                decision => {
                    assert_eq!(decision, Decision::Failed(FailureReason::AttemptsExhausted));
                    break;
                }
            }
            now = saturating_add(now, Duration::from_secs(1));
        }
        assert_eq!(waits, [60, 300, 900, 3600, 7200]);
        assert_eq!(policy.schedule.max_attempts(), 6);
    }

    #[test]
    fn retry_after_lengthens_a_wait_and_never_shortens_it() {
        let policy = policy(&["60s", "5m"]);
        let now = Timestamp::UNIX_EPOCH;
        let wait = |status, seconds| {
            let retry_after = Some(RetryAfter::Wait(Duration::from_secs(seconds)));
            match policy.decide(Outcome::Answered { status, retry_after, action: None }, 0, None, now, 0) {
                Decision::Retry { due } => due.as_second(),
                decision => panic!("{decision:?}"),
            }
        };
        assert_eq!(wait(503, 90), 91);
        assert_eq!(wait(429, 5), 60);
        assert_eq!(wait(500, 90), 60);
        assert_eq!(wait(503, 1_000_000), 7344);
    }

    #[test]
    fn a_rejection_ends_at_once_and_410_is_endpoint_gone() {
        let rules = OutcomeRules::parse(&["2xx"], &["4xx"], &["410"]).expect("rules");
        let policy = Policy { rules, ..policy(&DEFAULT) };
        let decide = |status| {
            let outcome = Outcome::answered(status);
            policy.decide(outcome, 0, None, Timestamp::UNIX_EPOCH, 0)
        };
        assert_eq!(decide(404), Decision::Failed(FailureReason::Rejected));
        assert_eq!(decide(410), Decision::Failed(FailureReason::EndpointGone));
        assert!(matches!(decide(301), Decision::Retry { .. }));
        assert_eq!(decide(204), Decision::Delivered);
        assert_eq!(decide(401), Decision::Failed(FailureReason::Rejected));
        let with_token = |status| {
            let outcome = Outcome::answered(status);
            policy.decide_with_token(outcome, 0, None, Timestamp::UNIX_EPOCH, 0)
        };
        assert!(matches!(with_token(401), Decision::Retry { .. }), "the token was refused, and not the event");
        assert_eq!(with_token(404), Decision::Failed(FailureReason::Rejected));
        assert_eq!(with_token(410), Decision::Failed(FailureReason::EndpointGone));
    }

    #[test]
    fn an_endpoint_rests_as_long_as_it_asks_within_the_bound() {
        let now = Timestamp::UNIX_EPOCH;
        let rest = |status, seconds| {
            let retry_after = Some(RetryAfter::Wait(Duration::from_secs(seconds)));
            asked_rest(Outcome::Answered { status, retry_after, action: None }, now).map(|rest| rest.as_secs())
        };
        assert_eq!(rest(429, 5), Some(6));
        assert_eq!(rest(503, 1_000_000), Some(612));
        assert_eq!((rest(503, 0), rest(500, 90), rest(200, 90)), (None, None, None));
        assert_eq!(asked_rest(Outcome::answered(429), now), None);
    }

    #[test]
    fn a_receiver_stops_a_delivery_or_disables_the_endpoint() {
        let rules = OutcomeRules::parse(&["2xx"], &["4xx"], &["410"]).expect("rules");
        let policy = Policy { rules, ..policy(&DEFAULT) };
        let of = |status, action| {
            let outcome = Outcome::Answered { status, retry_after: None, action: Some(action) };
            (policy.decide(outcome, 0, None, Timestamp::UNIX_EPOCH, 0), policy.disables(outcome))
        };
        let failed = Decision::Failed;
        assert_eq!(of(500, Action::Stop), (failed(FailureReason::StoppedByReceiver), None));
        assert_eq!(of(400, Action::Stop), (failed(FailureReason::Rejected), None));
        assert_eq!(of(200, Action::Stop), (Decision::Delivered, None));
        let by_receiver = Some(FailureReason::DisabledByReceiver);
        assert_eq!(of(200, Action::Disable), (Decision::Delivered, by_receiver));
        assert_eq!(of(500, Action::Disable), (failed(FailureReason::DisabledByReceiver), by_receiver));
        assert_eq!(of(404, Action::Disable), (failed(FailureReason::DisabledByReceiver), by_receiver));
        let gone = Some(FailureReason::EndpointGone);
        assert_eq!(of(410, Action::Disable), (failed(FailureReason::EndpointGone), gone));
        assert_eq!(policy.disables(Outcome::answered(200)), None);
    }

    #[test]
    fn a_schedule_of_no_waits_is_one_attempt() {
        let decision = policy(&[]).decide(FAILED, 0, None, Timestamp::UNIX_EPOCH, 0);
        assert_eq!(decision, Decision::Failed(FailureReason::AttemptsExhausted));
    }

    #[test]
    fn invalid_schedules_are_refused() {
        for text in ["", "60", "0s", "1500ms", "25h", "2d", "1m "] {
            assert!(Schedule::parse(&["60s", text]).is_err(), "{text}");
        }
        assert!(Schedule::parse(&["1s"; 51]).is_err());
    }

    proptest! {
        #[test]
        fn schedules_round_trip(waits in proptest::collection::vec(1u64..=86400, 0..10)) {
            let schedule = Schedule(waits.into_iter().map(Duration::from_secs).collect());
            prop_assert_eq!(Schedule::parse(&schedule.names()), Ok(schedule));
        }

        #[test]
        fn every_delivery_ends(failures in 0u32..20, age in 0u64..400_000, status in 100u16..600, chance: u32) {
            let policy = Policy { jitter_percent: 10, ..policy(&DEFAULT) };
            let now = saturating_add(Timestamp::UNIX_EPOCH, Duration::from_secs(age));
            let expires_at = saturating_add(Timestamp::UNIX_EPOCH, policy.lifetime(Duration::from_secs(86400)));
            let outcome = Outcome::answered(status);
            match policy.decide(outcome, failures, Some(expires_at), now, chance) {
                Decision::Delivered => prop_assert!((200..300).contains(&status)),
                Decision::Retry { due } => {
                    prop_assert!(due > now && due <= expires_at);
                    prop_assert!((failures as usize) < policy.schedule.waits().len());
                }
                Decision::Failed(_) => prop_assert!(failures >= 5 || age > 86400),
            }
        }

        #[test]
        fn jitter_lengthens_by_its_share_at_the_most(percent in 0u8..=100, chance: u32) {
            let policy = Policy { jitter_percent: percent, ..policy(&["100s"]) };
            match policy.decide(FAILED, 0, None, Timestamp::UNIX_EPOCH, chance) {
                Decision::Retry { due } => {
                    let wait = due.duration_since(Timestamp::UNIX_EPOCH).as_millis();
                    prop_assert!((100_000..=100_000 + 1000 * i128::from(percent)).contains(&wait), "{}", wait);
                }
                decision => prop_assert!(false, "{:?}", decision),
            }
        }
    }
}
