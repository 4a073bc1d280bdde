//! Silence of our own name servers: evidence about the time of an attempt, not about the time after the attempt.

use std::time::Duration;

/// Time in which working name servers answer a test question. A look-up repeats its question after 333 ms: a later
/// answer may belong to the repetition.
pub const PROMPT: Duration = Duration::from_millis(300);

/// Longest time until a look-up repeats its question. A host without an answer by then fails by itself.
const REPEATED_WITHIN: Duration = Duration::from_secs(5);

/// Interval of the test questions while a look-up waits.
pub const INTERVAL: Duration = Duration::from_millis(500);

/// Results of test questions to the name servers. Moments are durations since any fixed moment.
#[derive(Debug, Clone, Copy, Default)]
pub struct Silence {
    /// Moment of the last permitted test question.
    asked: Option<Duration>,
    /// Moment of the last recorded test question.
    recorded: Option<Duration>,
    /// Moments of the first and the last test question of a series without a prompt answer.
    unanswered: Option<[Duration; 2]>,
    /// Moment of the first test question after the series.
    over: Option<Duration>,
}

impl Silence {
    /// Permits a test question, unless the last is too recent.
    pub fn ask(&mut self, now: Duration) -> bool {
        let is_due = self.asked.is_none_or(|asked| now >= asked + INTERVAL);
        if is_due {
            self.asked = Some(now);
        }
        is_due
    }

    /// Records the result of the test question that was asked at `asked`. The result of an older question than the last
    /// recorded is ignored.
    pub fn record(&mut self, asked: Duration, is_prompt: bool) {
        if self.recorded.is_some_and(|last| asked <= last) {
            return;
        }
        self.recorded = Some(asked);
        match (is_prompt, self.unanswered) {
            (false, Some([first, _])) if self.over.is_none() => self.unanswered = Some([first, asked]),
            (false, _) => (self.unanswered, self.over) = (Some([asked, asked]), None),
            (true, _) => self.over = self.over.or(self.unanswered.map(|_| asked)),
        }
    }

    /// True if the silence may be the reason why a look-up between two moments had no answer. False once the look-up
    /// has repeated its question after the silence. A single test question may be lost on its way: a silence has two.
    pub fn explains(&self, began: Duration, ended: Duration) -> bool {
        let is_between =
            self.unanswered.is_some_and(|[first, last]| first < last && began <= last + PROMPT && first <= ended);
        is_between && self.over.is_none_or(|over| ended < over + REPEATED_WITHIN)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(milliseconds: u64) -> Duration {
        Duration::from_millis(milliseconds)
    }

    #[test]
    fn silence_within_a_look_up_explains_its_failure() {
        let mut silence = Silence::default();
        assert!(silence.ask(at(0)) && !silence.ask(at(499)) && silence.ask(at(500)));
        assert!(!silence.explains(at(0), at(2000)), "nothing is known");
        silence.record(at(500), true);
        assert!(!silence.explains(at(0), at(2000)), "all were answered");
        silence.record(at(1000), false);
        assert!(!silence.explains(at(0), at(2000)), "a single question was lost");
        silence.record(at(1500), false);
        silence.record(at(1400), true);
        assert!(silence.explains(at(0), at(2000)) && silence.explains(at(1800), at(9000)), "not over");
        silence.record(at(2500), true);
        silence.record(at(3000), true);
        assert!(silence.explains(at(1700), at(3200)) && silence.explains(at(1700), at(7499)));
        assert!(!silence.explains(at(1700), at(7500)), "the question was repeated after the silence");
        assert!(!silence.explains(at(1801), at(4000)) && !silence.explains(at(0), at(999)), "at another time");
        silence.record(at(9000), false);
        assert!(!silence.explains(at(1700), at(9100)), "another series begins");
    }

    proptest! {
        /// Name servers that answer explain no failure; name servers that are silent explain each failure at that time.
        #[test]
        fn only_silence_explains(
            mut asked in proptest::collection::vec(0u64..10_000, 2..20),
            began in 0u64..10_000,
            lasts in 0u64..10_000,
        ) {
            asked.sort_unstable();
            asked.dedup();
            let (mut answering, mut silent) = (Silence::default(), Silence::default());
            for &moment in &asked {
                answering.record(at(moment), true);
                silent.record(at(moment), false);
            }
            let (first, last) = (asked[0], asked[asked.len() - 1]);
            let is_silence = asked.len() > 1 && began <= last + 300 && first <= began + lasts;
            prop_assert!(!answering.explains(at(began), at(began + lasts)));
            prop_assert_eq!(silent.explains(at(began), at(began + lasts)), is_silence);
        }
    }
}
