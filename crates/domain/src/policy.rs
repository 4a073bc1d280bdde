//! What becomes of a delivery after an attempt: the schedule, and the decision.

use std::{fmt, str::FromStr, time::Duration};

use jiff::Timestamp;

use crate::{delivery::FailureReason, moment::later, outcome::Outcome};

/// The longest wait that an endpoint's `Retry-After` is heeded for.
const MAX_RETRY_AFTER: Duration = Duration::from_secs(120 * 60);

/// The waits after each failed attempt. The last attempt is the one after the last wait.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Schedule(Vec<Duration>);

/// Why a text is no schedule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no list of waits such as \"60s,5m,15m,60m,120m\": whole numbers from 1 on, with the unit s, m or h, 24h at most, 50 waits at most"
)]
pub struct NotASchedule(String);

impl Schedule {
    /// Each wait, in order.
    pub fn waits(&self) -> &[Duration] {
        &self.0
    }

    /// How many attempts the endpoint may fail before its delivery does.
    pub fn max_attempts(&self) -> usize {
        self.0.len() + 1
    }
}

impl FromStr for Schedule {
    type Err = NotASchedule;

    fn from_str(text: &str) -> Result<Self, NotASchedule> {
        let waits: Option<Vec<Duration>> = text.split(',').map(|wait| parse_wait(wait.trim())).collect();
        waits.filter(|waits| waits.len() <= 50).map(Self).ok_or_else(|| NotASchedule(text.to_owned()))
    }
}

impl fmt::Display for Schedule {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let waits: Vec<String> = self.0.iter().map(|&wait| wait_name(wait)).collect();
        formatter.write_str(&waits.join(","))
    }
}

fn parse_wait(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        _ => return None,
    };
    let number: u64 = number.parse().ok()?;
    let wait = Duration::from_secs(number.checked_mul(seconds)?);
    (1..=86400).contains(&wait.as_secs()).then_some(wait)
}

/// A wait in the words of the schedule and of the delay queues: seconds below two minutes, hours from
/// more than 120 minutes on, minutes between, and always the smaller unit where it does not divide.
pub fn wait_name(wait: Duration) -> String {
    match wait.as_secs() {
        seconds if seconds < 120 || seconds % 60 != 0 => format!("{seconds}s"),
        seconds if seconds <= 7200 || seconds % 3600 != 0 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3600),
    }
}

/// What an endpoint's deliveries are tried by.
#[derive(Debug, Clone)]
pub struct Policy {
    /// The waits between attempts.
    pub schedule: Schedule,
    /// The deadline of one attempt, from name resolution to the end of the response.
    pub timeout: Duration,
    /// How long beyond its whole schedule a delivery may stay unfinished for reasons of our own.
    pub expiry: Duration,
}

/// What follows from an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// The endpoint has the event.
    Delivered,
    /// Try again then.
    Retry {
        /// When the next attempt is due.
        due: Timestamp,
    },
    /// Never again by itself.
    Failed(FailureReason),
}

impl Policy {
    /// When a delivery of an event accepted at this moment ends, whatever it waits for.
    pub fn expires_at(&self, accepted_at: Timestamp) -> Timestamp {
        let attempts = u32::try_from(self.schedule.max_attempts()).unwrap_or(u32::MAX);
        let schedule: Duration = self.schedule.waits().iter().sum();
        later(accepted_at, schedule.saturating_add(self.timeout.saturating_mul(attempts)).saturating_add(self.expiry))
    }

    /// Decides by an attempt's outcome; `failures` are the failed attempts before it that the endpoint
    /// answers for. Attempts of unknown outcome are not among them: they use up no place in the schedule.
    pub fn decide(&self, outcome: Outcome, failures: u32, accepted_at: Timestamp, now: Timestamp) -> Decision {
        if outcome.is_success() {
            return Decision::Delivered;
        }
        let Some(&wait) = self.schedule.waits().get(failures as usize) else {
            return Decision::Failed(FailureReason::AttemptsExhausted);
        };
        let due = later(now, wait.max(asked_wait(outcome, now)));
        if due > self.expires_at(accepted_at) {
            return Decision::Failed(FailureReason::Expired);
        }
        Decision::Retry { due }
    }
}

/// The wait that an endpoint asks for with 429 or 503, where `Retry-After` has that meaning, and as much
/// more as its claim may be early: it would be refused again, at the price of an attempt.
fn asked_wait(outcome: Outcome, now: Timestamp) -> Duration {
    match outcome {
        Outcome::Answered { status: 429 | 503, retry_after: Some(after) } => {
            let asked = after.wait(now).min(MAX_RETRY_AFTER);
            asked + (asked / 50).max(Duration::from_secs(1))
        }
        _ => Duration::ZERO,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::outcome::RetryAfter;

    fn policy(schedule: &str) -> Policy {
        let schedule = schedule.parse().expect("schedule");
        Policy { schedule, timeout: Duration::from_secs(10), expiry: Duration::from_secs(86400) }
    }

    const FAILED: Outcome = Outcome::Answered { status: 500, retry_after: None };

    #[test]
    fn the_default_schedule_sends_six_times() {
        let policy = policy("60s,5m,15m,60m,120m");
        let accepted = Timestamp::UNIX_EPOCH;
        let mut now = accepted;
        let mut waits = Vec::new();
        for failures in 0.. {
            match policy.decide(FAILED, failures, accepted, now) {
                Decision::Retry { due } => waits.push(due.duration_since(now).as_secs()),
                decision => {
                    assert_eq!(decision, Decision::Failed(FailureReason::AttemptsExhausted));
                    break;
                }
            }
            now = later(now, Duration::from_secs(1));
        }
        assert_eq!(waits, [60, 300, 900, 3600, 7200]);
        assert_eq!(policy.schedule.max_attempts(), 6);
    }

    #[test]
    fn retry_after_lengthens_a_wait_and_never_shortens_it() {
        let policy = policy("60s,5m");
        let now = Timestamp::UNIX_EPOCH;
        let wait = |status, seconds| {
            let retry_after = Some(RetryAfter::Wait(Duration::from_secs(seconds)));
            match policy.decide(Outcome::Answered { status, retry_after }, 0, now, now) {
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
    fn refuses_what_is_no_schedule() {
        for text in ["", "60", "0s", "s", "-1s", "1.5s", "25h", "60s,", "60s;5m", "１s", "9999999999999999999h"] {
            assert!(text.parse::<Schedule>().is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn schedules_round_trip(waits in proptest::collection::vec(1u64..=86400, 1..10)) {
            let schedule = Schedule(waits.into_iter().map(Duration::from_secs).collect());
            prop_assert_eq!(schedule.to_string().parse(), Ok(schedule));
        }

        #[test]
        fn every_delivery_ends(failures in 0u32..20, age in 0u64..400_000, status in 100u16..600) {
            let policy = policy("60s,5m,15m,60m,120m");
            let accepted = Timestamp::UNIX_EPOCH;
            let now = later(accepted, Duration::from_secs(age));
            let outcome = Outcome::Answered { status, retry_after: None };
            match policy.decide(outcome, failures, accepted, now) {
                Decision::Delivered => prop_assert!(outcome.is_success()),
                Decision::Retry { due } => {
                    prop_assert!(due > now && due <= policy.expires_at(accepted));
                    prop_assert!((failures as usize) < policy.schedule.waits().len());
                }
                Decision::Failed(_) => prop_assert!(failures >= 5 || now > later(accepted, policy.expiry)),
            }
        }
    }
}
