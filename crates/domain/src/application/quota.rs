//! Quotas: what an application may publish in a UTC day, and keep stored.
//!
//! The database counts all persisted events, a few minutes late. A process adds its own later events, and cannot know
//! the later events of other processes. Thereby a quota is exceeded at most by the events of other processes that the
//! database has not counted: accepted from the counted moment on, or not yet persisted.

use std::{collections::VecDeque, time::Duration};

use jiff::{Timestamp, civil::Date};

use crate::{
    application::plan::Limits,
    diagnosis::rollup::{MINUTE, floor},
    time::{begin_of, day_of, saturating_sub},
};

/// Age of minutes that are merged: the counts of the database are normally younger.
const MERGED_AFTER: Duration = Duration::from_secs(600);

/// Events, and the bytes of their bodies.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Amount {
    /// Number of events.
    pub events: u64,
    /// Bytes of their bodies.
    pub bytes: u64,
}

/// The counts of an application in the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Counted {
    /// End of the counted time.
    pub to: Timestamp,
    /// UTC day whose events are counted.
    pub day: Date,
    /// Events of the day, and bytes that are stored in all.
    pub amount: Amount,
}

impl Amount {
    /// The sum with another amount.
    fn plus(self, other: Self) -> Self {
        Self { events: self.events.saturating_add(other.events), bytes: self.bytes.saturating_add(other.bytes) }
    }

    /// The rest without another amount.
    fn less(self, other: Self) -> Self {
        Self { events: self.events.saturating_sub(other.events), bytes: self.bytes.saturating_sub(other.bytes) }
    }
}

/// Events that a process has accepted for an application.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Recent {
    /// By minute. Minutes of a day older than [`MERGED_AFTER`] are one sum, at the last of the minutes.
    minutes: VecDeque<(Timestamp, Amount)>,
    /// Newest UTC day, and all events of the day.
    today: Option<(Date, u64)>,
}

impl Recent {
    /// Adds events accepted at a moment.
    pub fn add(&mut self, at: Timestamp, amount: Amount) {
        let (minute, day) = (floor(at, MINUTE), day_of(at));
        // The clock may go back a little: such an event counts in the newest minute, and in the newest day.
        match self.minutes.back_mut() {
            Some((newest, sum)) if *newest >= minute => *sum = sum.plus(amount),
            _ => {
                self.minutes.push_back((minute, amount));
                self.merge(saturating_sub(minute, MERGED_AFTER));
            }
        }
        match &mut self.today {
            Some((today, events)) if *today >= day => *events = events.saturating_add(amount.events),
            today => *today = Some((day, amount.events)),
        }
    }

    /// Gives back an event of a moment. The broker has not accepted the event.
    pub fn give_back(&mut self, at: Timestamp, amount: Amount) {
        let (minute, day) = (floor(at, MINUTE), day_of(at));
        if let Some((_, sum)) = self.minutes.iter_mut().find(|(known, _)| *known >= minute) {
            *sum = sum.less(amount);
        }
        if let Some((today, events)) = &mut self.today
            && *today == day
        {
            *events = events.saturating_sub(amount.events);
        }
    }

    /// Merges the minutes of each day before a moment.
    fn merge(&mut self, before: Timestamp) {
        let mut merged: VecDeque<(Timestamp, Amount)> = VecDeque::new();
        for (minute, amount) in self.minutes.drain(..) {
            match merged.back_mut() {
                Some((last, sum)) if minute < before && day_of(*last) == day_of(minute) => {
                    (*last, *sum) = (minute, sum.plus(amount));
                }
                _ => merged.push_back((minute, amount)),
            }
        }
        self.minutes = merged;
    }

    /// Forgets the minutes before a moment. The sum of the day stays.
    pub fn forget(&mut self, before: Timestamp) {
        while self.minutes.front().is_some_and(|(minute, _)| *minute < before) {
            self.minutes.pop_front();
        }
    }

    /// Sum of the minutes from a moment on.
    pub fn since(&self, from: Timestamp) -> Amount {
        let later = self.minutes.iter().rev().take_while(|(minute, _)| *minute >= from);
        later.fold(Amount::default(), |sum, (_, added)| sum.plus(*added))
    }

    /// All events of a UTC day, also events that the database has counted. Earlier days are forgotten.
    fn of_day(&self, day: Date) -> u64 {
        self.today.map_or(0, |(today, events)| if today == day { events } else { 0 })
    }
}

/// A quota without room.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Exceeded {
    /// Of events in the UTC day.
    EventsPerDay(u64),
    /// Of stored bytes.
    StoredBytes(u64),
}

/// Events of the day and stored bytes of an application at a moment.
pub fn used(counted: Counted, recent: &Recent, now: Timestamp) -> Amount {
    let today = day_of(now);
    let counted_today = if counted.day == today { counted.amount.events } else { 0 };
    let own_today = recent.since(counted.to.max(begin_of(today))).events;
    let own = recent.since(counted.to).bytes;
    // Behind a backlog, the database has counted a time without the events that are not yet persisted.
    let events = counted_today.saturating_add(own_today).max(recent.of_day(today));
    Amount { events, bytes: counted.amount.bytes.saturating_add(own) }
}

/// Decides on an event. An event passes while its quotas have room: the last event may exceed the quota of bytes.
///
/// # Errors
/// The quota without room.
pub fn admit(limits: &Limits, used: Amount) -> Result<(), Exceeded> {
    match (limits.events_per_day, limits.stored_bytes) {
        (Some(quota), _) if used.events >= quota => Err(Exceeded::EventsPerDay(quota)),
        (_, Some(quota)) if used.bytes >= quota => Err(Exceeded::StoredBytes(quota)),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    const MIDNIGHT: i64 = 1_795_824_000;

    fn at(seconds: i64) -> Timestamp {
        Timestamp::from_second(MIDNIGHT + seconds).expect("a moment")
    }

    fn one(bytes: u64) -> Amount {
        Amount { events: 1, bytes }
    }

    #[test]
    fn the_quota_begins_anew_at_midnight() {
        let mut recent = Recent::default();
        recent.add(at(-30), one(10));
        recent.add(at(30), one(10));
        let counted = Counted { to: at(-180), day: day_of(at(-1)), amount: Amount { events: 7, bytes: 100 } };
        assert_eq!(used(counted, &recent, at(-1)), Amount { events: 9, bytes: 120 });
        assert_eq!(used(counted, &recent, at(40)), Amount { events: 1, bytes: 120 }, "the bytes are still stored");
    }

    #[test]
    fn own_events_count_also_behind_a_backlog() {
        let mut recent = Recent::default();
        (0..5).for_each(|minute| recent.add(at(minute * 60), one(10)));
        let counted = Counted { to: at(3600), day: day_of(at(0)), amount: Amount::default() };
        recent.forget(counted.to);
        assert_eq!(used(counted, &recent, at(3700)).events, 5);
        recent.add(at(3700), one(10));
        recent.give_back(at(3700), one(10));
        assert_eq!(used(counted, &recent, at(3700)), Amount { events: 5, bytes: 0 });
        assert_eq!(used(counted, &recent, at(86400)).events, 0);
    }

    #[test]
    fn old_minutes_of_a_day_are_one_sum() {
        let mut recent = Recent::default();
        (-2000..2000).for_each(|minute| recent.add(at(minute * 60), one(1)));
        assert!(recent.minutes.len() < 20, "{}", recent.minutes.len());
        assert_eq!(recent.since(Timestamp::MIN), Amount { events: 4000, bytes: 4000 });
        assert_eq!(recent.since(at(1999 * 60)), one(1));
    }

    #[test]
    fn each_quota_has_its_own_answer() {
        let limits = Limits { events_per_day: Some(2), stored_bytes: Some(100), ..Limits::default() };
        assert_eq!(admit(&limits, Amount { events: 1, bytes: 99 }), Ok(()));
        assert_eq!(admit(&limits, Amount { events: 2, bytes: 100 }), Err(Exceeded::EventsPerDay(2)));
        assert_eq!(admit(&limits, Amount { events: 1, bytes: 100 }), Err(Exceeded::StoredBytes(100)));
        assert_eq!(admit(&Limits::default(), Amount { events: u64::MAX, bytes: u64::MAX }), Ok(()));
    }

    proptest! {
        /// For any events at several processes, and any age of the counts: an event is refused only at the quota. A day
        /// exceeds the quota at most by the events of other processes since the counts.
        #[test]
        fn a_quota_is_exceeded_only_by_the_other_processes(
            quota in 1u64..60,
            asked in vec((0usize..3, 0i64..200), 1..200),
            counts_every in 1usize..40,
        ) {
            let limits = Limits { events_per_day: Some(quota), ..Limits::default() };
            let mut now = 0;
            let mut recent = [Recent::default(), Recent::default(), Recent::default()];
            let mut accepted: Vec<(i64, usize)> = Vec::new();
            let mut counted = Counted { to: at(0), day: day_of(at(0)), amount: Amount::default() };
            for (number, (process, later)) in asked.iter().enumerate() {
                now = (now + later).min(86399);
                if number % counts_every == 0 {
                    let to = now.div_euclid(60) * 60 - 180;
                    if to > 0 {
                        let events = accepted.iter().filter(|(at, _)| *at < to).count() as u64;
                        counted = Counted { to: at(to), amount: Amount { events, bytes: 0 }, ..counted };
                        recent.iter_mut().for_each(|recent| recent.forget(at(to)));
                    }
                }
                let unseen = accepted.iter().filter(|(time, other)| at(*time) >= counted.to && other != process);
                let unseen = unseen.count() as u64;
                let all = accepted.len() as u64;
                match admit(&limits, used(counted, &recent[*process], at(now))) {
                    Ok(()) => {
                        prop_assert!(all < quota + unseen);
                        recent[*process].add(at(now), one(0));
                        accepted.push((now, *process));
                    }
                    Err(_) => prop_assert!(all >= quota, "{} of {}", all, quota),
                }
            }
        }
    }
}
