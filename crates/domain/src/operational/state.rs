//! The told state of a condition: when a change is told, and when it is not.
//!
//! A lasting condition is told after a time without a change, so that a flapping endpoint causes few events. A few
//! events about a condition may follow each other at once, and then one an hour. The told state always becomes the true
//! state.

use std::{collections::BTreeMap, time::Duration};

use jiff::Timestamp;

use crate::{
    ids::DeliveryId,
    operational::{Change, Condition, Course, Figures},
    time::{saturating_add, saturating_sub},
};

/// Events about a condition of an endpoint that may follow each other at once.
const BURST: u32 = 4;

/// Time after which a further event is allowed.
const SPACING: Duration = Duration::from_secs(3600);

/// Time without an occurrence after which the next occurrence is told.
const QUIET: Duration = Duration::from_secs(3600);

/// Time for which an ended state is kept. Longer than all waits: a forgotten state delays no event.
pub const KEPT: Duration = Duration::from_secs(86400);

/// State of a condition, of an endpoint, an application or a replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct State {
    /// True while the condition holds.
    pub holds: bool,
    /// Beginning of the condition, or of its absence.
    pub since: Timestamp,
    /// Time of the look that found the change; of occurrences the time of the last.
    pub seen_at: Timestamp,
    /// The state that receivers know.
    pub told: bool,
    /// Changes that no event has told.
    pub changes: u32,
    /// Time from which a further event would be on schedule, at one event an hour.
    pub free_at: Timestamp,
    /// Figures from the beginning of the condition.
    pub figures: Figures,
}

/// A lasting condition that a look found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Beginning of the condition, by the records.
    pub since: Timestamp,
    /// Figures of the condition.
    pub figures: Figures,
}

/// Occurrences of a condition since the last look.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurrences {
    /// Numbers by reason.
    pub reasons: BTreeMap<String, u64>,
    /// Time of the first and of the last occurrence.
    pub times: (Timestamp, Timestamp),
    /// Delivery of the first occurrence.
    pub first_delivery: Option<DeliveryId>,
}

impl State {
    fn new(since: Timestamp, now: Timestamp) -> Self {
        Self { holds: false, since, seen_at: now, told: false, changes: 0, free_at: now, figures: Figures::default() }
    }

    /// The state after a look at a lasting condition; `None` if nothing has changed.
    pub fn look(known: Option<&Self>, found: Option<&Found>, now: Timestamp) -> Option<Self> {
        if known.is_some_and(|known| known.holds) == found.is_some() {
            return None;
        }
        let mut state = known.cloned().unwrap_or_else(|| Self::new(now, now));
        state.holds = found.is_some();
        state.changes = state.changes.saturating_add(1);
        state.seen_at = now;
        state.since = found.map_or(now, |found| found.since);
        if let Some(found) = found {
            state.figures.clone_from(&found.figures);
        }
        Some(state)
    }

    /// The state after the first look of all: what held before is not told.
    pub fn before(found: &Found, now: Timestamp) -> Self {
        Self { holds: true, told: true, figures: found.figures.clone(), ..Self::new(found.since, now) }
    }

    /// The state after occurrences.
    pub fn count(known: Option<&Self>, occurred: &Occurrences, now: Timestamp) -> Self {
        let (first, last) = occurred.times;
        let mut state = known.cloned().unwrap_or_else(|| Self::new(first, now));
        if !state.holds {
            state.holds = true;
            state.since = first;
            state.changes = state.changes.saturating_add(1);
            state.figures.first_delivery = occurred.first_delivery;
        }
        state.seen_at = last.max(if known.is_some() { state.seen_at } else { last });
        for (reason, count) in &occurred.reasons {
            let sum = state.figures.reasons.entry(reason.clone()).or_default();
            *sum = sum.saturating_add(*count);
        }
        state.figures.count = Some(state.figures.reasons.values().fold(0, |sum, count| sum.saturating_add(*count)));
        state
    }

    /// The state of something that happens once, such as the end of a replay.
    pub fn once(at: Timestamp, figures: Figures, now: Timestamp) -> Self {
        Self { holds: true, changes: 1, figures, ..Self::new(at, now) }
    }

    /// The state without the occurrences, after an hour without any; `None` before.
    pub fn quiet(&self, condition: Condition, now: Timestamp) -> Option<Self> {
        let is_over = condition.course() == Course::Recurring
            && self.holds
            && self.told
            && saturating_add(self.seen_at, QUIET) <= now;
        is_over.then(|| Self { holds: false, told: false, ..self.clone() })
    }

    /// The change to tell now, if any.
    pub fn due(&self, condition: Condition, now: Timestamp) -> Option<Change> {
        if self.holds == self.told {
            return None;
        }
        let (change, wait) = if self.holds {
            (Change::Begins, condition.begins_after())
        } else {
            (Change::Ends, condition.ends_after())
        };
        let is_settled = saturating_add(self.seen_at, wait) <= now;
        let is_free = saturating_sub(self.free_at, SPACING * (BURST - 1)) <= now;
        (is_settled && is_free).then_some(change)
    }

    /// The state after the event about the change that is due.
    pub fn tell(&self, condition: Condition, now: Timestamp) -> Self {
        let mut state = self.clone();
        state.changes = 0;
        state.free_at = saturating_add(self.free_at.max(now), SPACING);
        match condition.course() {
            Course::Lasting => state.told = state.holds,
            Course::Recurring => {
                state.told = true;
                state.figures.reasons.clear();
                state.figures.count = None;
            }
            Course::Single => (state.holds, state.told) = (false, false),
        }
        state
    }

    /// True if the state may be forgotten.
    pub fn is_over(&self, now: Timestamp) -> bool {
        !self.holds && !self.told && saturating_add(self.seen_at, KEPT) <= now
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Interval of the looks.
    const TURN: u64 = 10;

    fn at(seconds: u64) -> Timestamp {
        Timestamp::from_second(1_800_000_000 + i64::try_from(seconds).unwrap_or(0)).expect("a moment")
    }

    fn lasting() -> impl Strategy<Value = Condition> {
        prop::sample::select(
            Condition::ALL.into_iter().filter(|condition| condition.course() == Course::Lasting).collect::<Vec<_>>(),
        )
    }

    /// Runs looks with the truth of each turn. Returns the last state, the told changes with their counts, and the
    /// number of changes of the truth.
    fn run(condition: Condition, truth: &[bool]) -> (Option<State>, Vec<(u64, Change, u32)>, u32) {
        let (mut state, mut told, mut flips, mut before): (Option<State>, _, _, _) = (None, Vec::new(), 0, false);
        for (turn, holds) in (0..).zip(truth) {
            let now = at(turn * TURN);
            flips += u32::from(*holds != before);
            before = *holds;
            let found = holds.then(|| Found { since: now, figures: Figures::default() });
            if let Some(next) = State::look(state.as_ref(), found.as_ref(), now) {
                state = Some(next);
            }
            if let Some(known) = &mut state
                && let Some(change) = known.due(condition, now)
            {
                told.push((turn * TURN, change, known.changes));
                *known = known.tell(condition, now);
            }
        }
        (state, told, flips)
    }

    /// The truth of each turn, as durations of states that alternate.
    fn truth() -> impl Strategy<Value = Vec<bool>> {
        let lengths = prop_oneof![3 => 1_usize..10, 2 => 1_usize..100, 1 => 1_usize..500];
        vec(lengths, 1..60).prop_map(|lengths| {
            let turns = lengths.into_iter().zip([true, false].into_iter().cycle());
            turns.flat_map(|(length, holds)| std::iter::repeat_n(holds, length)).collect()
        })
    }

    proptest! {
        #[test]
        fn the_told_state_becomes_the_true_state((condition, mut truth) in (lasting(), truth())) {
            let last = truth.last().copied().unwrap_or_default();
            let longest = SPACING + condition.begins_after().max(condition.ends_after());
            truth.extend(std::iter::repeat_n(last, usize::try_from(longest.as_secs() / TURN).unwrap_or(0) + 2));
            let (state, ..) = run(condition, &truth);
            let state = state.expect("a state");
            prop_assert_eq!((state.holds, state.told, state.changes == 0 || state.told == state.holds), (last, last, true));
        }

        #[test]
        fn events_alternate_and_are_fewer_than_changes((condition, truth) in (lasting(), truth())) {
            let (state, told, flips) = run(condition, &truth);
            prop_assert!(told.len() <= flips as usize);
            for (nth, (_, change, changes)) in told.iter().enumerate() {
                prop_assert_eq!(*change, if nth % 2 == 0 { Change::Begins } else { Change::Ends });
                prop_assert_eq!(changes % 2, 1, "a told change follows an odd number of changes");
            }
            let counted: u32 = told.iter().map(|(.., changes)| changes).sum();
            prop_assert_eq!(counted + state.map_or(0, |state| state.changes), flips, "each change counts once");
        }

        #[test]
        fn a_flapping_endpoint_has_few_events_then_one_an_hour((condition, truth) in (lasting(), truth())) {
            let (_, told, _) = run(condition, &truth);
            for (first, (from, ..)) in told.iter().enumerate() {
                for (last, (to, ..)) in told.iter().enumerate().skip(first) {
                    let allowed = u64::from(BURST) + (to - from) / SPACING.as_secs();
                    prop_assert!((last - first + 1) as u64 <= allowed, "{} events in {} s", last - first + 1, to - from);
                }
            }
        }

        #[test]
        fn each_occurrence_counts_once_and_an_event_follows_an_hour_of_quiet(
            gaps in vec((1_u64..7200, 1_u64..5), 1..40),
        ) {
            let condition = Condition::GivingUp;
            let (mut state, mut time, mut counted, mut told): (Option<State>, _, _, _) = (None, 0, 0, Vec::new());
            let mut occurred = 0;
            for (gap, count) in gaps {
                // The looks between two occurrences.
                for _ in 0..gap / TURN {
                    time += TURN;
                    state = state.map(|known| known.quiet(condition, at(time)).unwrap_or(known));
                }
                let occurrences = Occurrences {
                    reasons: BTreeMap::from([("expired".to_owned(), count)]),
                    times: (at(time), at(time)),
                    first_delivery: None,
                };
                occurred += count;
                let mut known = State::count(state.as_ref(), &occurrences, at(time));
                if known.due(condition, at(time)).is_some() {
                    counted += known.figures.count.unwrap_or_default();
                    told.push(time);
                    known = known.tell(condition, at(time));
                }
                state = Some(known);
            }
            let left = state.and_then(|state| state.figures.count).unwrap_or_default();
            prop_assert_eq!(counted + left, occurred);
            prop_assert!(told.windows(2).all(|pair| pair[1] - pair[0] >= QUIET.as_secs()));
        }
    }

    #[test]
    fn a_breaker_that_is_open_for_less_than_a_minute_is_not_told() {
        let condition = Condition::BreakerOpen;
        assert_eq!(run(condition, &[true, true, true, false, false]).1, []);
        let (_, told, _) = run(condition, &[true; 8]);
        assert_eq!(told, [(60, Change::Begins, 1)]);
    }

    #[test]
    fn a_replay_is_told_once_and_forgotten_after_a_day() {
        let state = State::once(at(0), Figures::default(), at(5));
        assert_eq!(state.due(Condition::ReplayFinished, at(5)), Some(Change::Begins));
        let told = state.tell(Condition::ReplayFinished, at(5));
        assert_eq!(told.due(Condition::ReplayFinished, at(100)), None);
        assert!(!told.is_over(at(86400)) && told.is_over(at(86405)));
    }
}
