//! Rollups: counts of attempts in buckets, their percentiles, and the schedule of the counting.

use std::time::Duration;

use jiff::{Timestamp, civil::Date};

use crate::time::{day_of, saturating_add, saturating_sub};

/// Number of buckets of a [`Histogram`].
pub const BUCKETS: usize = 14;

/// Lower bounds of the buckets of durations, in milliseconds. The first bucket begins at zero.
pub const DURATION_BOUNDS_MS: [i32; BUCKETS - 1] =
    [5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 20000, 30000];

/// Lower bounds of the buckets of times from acceptance to the first attempt, in milliseconds.
pub const LAG_BOUNDS_MS: [i32; BUCKETS - 1] =
    [5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 30000, 300_000, 3_600_000];

/// Duration of the finest rollup.
pub const STEP: Duration = Duration::from_secs(300);

/// Duration of an hourly rollup.
pub const HOUR: Duration = Duration::from_secs(3600);

/// Time for which the finest rollups are kept.
pub const KEPT: Duration = Duration::from_secs(2 * 86400);

/// Age of a minute at its count. The longest attempt takes a minute, and is recorded within the rest.
const COUNTED_AFTER: Duration = Duration::from_secs(90);

/// Age of an hour at each new count. An attempt may be recorded late, behind an outage.
const RECOUNTED_AFTER: [Duration; 2] = [HOUR, Duration::from_secs(24 * 3600)];

/// Lag of the count after which the last counts of hours wait: other processes may have been away, too.
const LAG: Duration = Duration::from_secs(2 * 3600);

/// Time that a count covers at least.
pub const MINUTE: Duration = Duration::from_secs(60);

/// Counts in buckets. Histograms can be added up, unlike percentiles.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Histogram(pub [u64; BUCKETS]);

impl Histogram {
    /// Adds the counts of another histogram.
    pub fn add(&mut self, other: &Self) {
        for (count, added) in self.0.iter_mut().zip(other.0) {
            *count = count.saturating_add(added);
        }
    }

    /// Percentile in milliseconds, interpolated within its bucket; `None` without a count. In the last bucket, the
    /// bucket's lower bound. `bounds` are the lower bounds of all buckets but the first.
    pub fn percentile(&self, bounds: &[i32; BUCKETS - 1], share: f64) -> Option<f64> {
        let total: u64 = self.0.iter().fold(0, |sum, count| sum.saturating_add(*count));
        if total == 0 {
            return None;
        }
        // Counts are exact in `f64` up to 2^53.
        let rank = share.clamp(0.0, 1.0) * total as f64;
        let mut below = 0.0;
        for (bucket, &count) in self.0.iter().enumerate() {
            let count = count as f64;
            if count > 0.0 && below + count >= rank {
                let lower = bucket.checked_sub(1).map_or(0.0, |before| f64::from(bounds[before]));
                let upper = bounds.get(bucket).map_or(lower, |&bound| f64::from(bound));
                return Some(lower + (upper - lower) * ((rank - below) / count).clamp(0.0, 1.0));
            }
            below += count;
        }
        bounds.last().map(|&bound| f64::from(bound))
    }
}

/// Failed attempts by kind.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct FailureCounts {
    /// Answers with a status 3xx.
    pub redirected: u64,
    /// Answers with a status 4xx.
    pub client_error: u64,
    /// Answers with a status 5xx.
    pub server_error: u64,
    /// No answer within the deadline.
    pub timed_out: u64,
    /// No connection: refused, closed, or the name has no address.
    pub no_connection: u64,
    /// No TLS session.
    pub tls_failed: u64,
    /// The address may not be called.
    pub forbidden: u64,
    /// The process died before it recorded the outcome.
    pub unknown: u64,
    /// Answers that are not HTTP, or that the dialect takes for a failure, and requests that cannot be made.
    pub other: u64,
}

impl FailureCounts {
    /// Number of all failures.
    pub fn total(&self) -> u64 {
        self.by_kind().iter().fold(0, |sum, (_, count)| sum.saturating_add(*count))
    }

    /// Counts by kind, with the kind's name in words.
    pub fn by_kind(&self) -> [(&'static str, u64); 9] {
        [
            ("3xx", self.redirected),
            ("4xx", self.client_error),
            ("5xx", self.server_error),
            ("timed out", self.timed_out),
            ("no connection", self.no_connection),
            ("TLS failed", self.tls_failed),
            ("address forbidden", self.forbidden),
            ("process died", self.unknown),
            ("other", self.other),
        ]
    }
}

/// Counts of a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Attempts that the endpoint took.
    pub taken: u64,
    /// Failed attempts.
    pub failed: FailureCounts,
    /// Events; 0 for an endpoint.
    pub events: u64,
    /// Events without a matching endpoint.
    pub unmatched: u64,
    /// Durations of the attempts, by [`DURATION_BOUNDS_MS`].
    pub durations: Histogram,
    /// Times from acceptance to the first attempt, by [`LAG_BOUNDS_MS`].
    pub lags: Histogram,
}

impl Counts {
    /// Adds the counts of another time.
    pub fn add(&mut self, other: &Self) {
        let FailureCounts { redirected, client_error, server_error, timed_out, .. } = other.failed;
        let FailureCounts { no_connection, tls_failed, forbidden, unknown, other: rest, .. } = other.failed;
        let own = &mut self.failed;
        let sums = [
            (&mut self.taken, other.taken),
            (&mut own.redirected, redirected),
            (&mut own.client_error, client_error),
            (&mut own.server_error, server_error),
            (&mut own.timed_out, timed_out),
            (&mut own.no_connection, no_connection),
            (&mut own.tls_failed, tls_failed),
            (&mut own.forbidden, forbidden),
            (&mut own.unknown, unknown),
            (&mut own.other, rest),
            (&mut self.events, other.events),
            (&mut self.unmatched, other.unmatched),
        ];
        for (sum, count) in sums {
            *sum = sum.saturating_add(count);
        }
        self.durations.add(&other.durations);
        self.lags.add(&other.lags);
    }

    /// Share of the attempts that were taken; `None` without an attempt.
    pub fn share_taken(&self) -> Option<f64> {
        let attempts = self.taken.saturating_add(self.failed.total());
        // Counts are exact in `f64` up to 2^53.
        (attempts > 0).then(|| self.taken as f64 / attempts as f64)
    }
}

/// Progress of the counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Marks {
    /// End of the counted minutes.
    pub counted: Timestamp,
    /// End of the hours that were counted anew once.
    pub hourly: Timestamp,
    /// End of the hours that were counted anew twice.
    pub last: Timestamp,
    /// First UTC day whose usage may still change.
    pub settled: Date,
    /// Last count of a minute more than two hours old: messages may have waited as long.
    pub lagged: Option<Timestamp>,
}

impl Marks {
    /// The moment of a count, if the count lags by more than two hours.
    pub fn lag(&self, now: Timestamp) -> Option<Timestamp> {
        (saturating_add(self.counted, LAG) < now).then_some(now)
    }

    /// True if the last count of an hour waits: events and attempts of the lag may still be recorded. An hour waits no
    /// longer than its finest rollups, of which `oldest` is the first, are there.
    fn holds(&self, hour: Timestamp, oldest: Timestamp, now: Timestamp) -> bool {
        let is_recent = self.lagged.is_some_and(|lagged| saturating_add(lagged, RECOUNTED_AFTER[1]) > now);
        is_recent && saturating_add(oldest, 3 * HOUR) < hour
    }
}

/// The next step of the counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Count {
    /// Count the time from `from` to `to`, at most [`STEP`]. `from` is later than the mark if that time is too old.
    Minutes {
        /// First counted moment.
        from: Timestamp,
        /// End of the counted time.
        to: Timestamp,
    },
    /// Count the hour anew, for the first time or the last.
    Hour {
        /// Beginning of the hour.
        from: Timestamp,
        /// True for the last count.
        is_last: bool,
    },
    /// Settle the usage of a UTC day: all its hours were counted anew twice.
    Day(Date),
}

/// The next step of the counting; `None` if nothing is due.
pub fn next_count(marks: Marks, now: Timestamp) -> Option<Count> {
    let oldest = floor(saturating_sub(now, KEPT), STEP);
    let due = floor(saturating_sub(now, COUNTED_AFTER), MINUTE);
    let from = floor(marks.counted, MINUTE).max(oldest);
    if from < due {
        let to = due.min(saturating_add(floor(from, STEP), STEP));
        return Some(Count::Minutes { from, to });
    }
    let hours = [marks.hourly, marks.last].into_iter().zip(RECOUNTED_AFTER).zip([false, true]);
    let hour = hours
        .map(|((mark, age), is_last)| (floor(mark, HOUR).max(saturating_add(floor(oldest, HOUR), HOUR)), age, is_last))
        .find(|(from, age, is_last)| {
            saturating_add(*from, HOUR + *age) <= now && !(*is_last && marks.holds(*from, oldest, now))
        })
        .map(|(from, _, is_last)| Count::Hour { from, is_last });
    let day = || (marks.settled < day_of(marks.last)).then_some(Count::Day(marks.settled));
    hour.or_else(day)
}

/// Beginning of the step of a moment.
pub fn floor(moment: Timestamp, step: Duration) -> Timestamp {
    let seconds = i64::try_from(step.as_secs()).unwrap_or(1).max(1);
    Timestamp::from_second(moment.as_second().div_euclid(seconds) * seconds).unwrap_or(moment)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::time::begin_of;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(second).expect("a moment")
    }

    #[test]
    fn percentiles_are_interpolated() {
        let mut histogram = Histogram::default();
        assert_eq!(histogram.percentile(&DURATION_BOUNDS_MS, 0.5), None);
        histogram.0[2] = 100;
        assert_eq!(histogram.percentile(&DURATION_BOUNDS_MS, 0.5), Some(15.0));
        histogram.0[BUCKETS - 1] = 100;
        assert_eq!(histogram.percentile(&DURATION_BOUNDS_MS, 0.99), Some(30000.0));
    }

    #[test]
    fn a_minute_waits_for_its_slowest_attempt() {
        let marks = Marks { counted: at(600), hourly: at(0), last: at(0), settled: day_of(at(0)), lagged: None };
        assert_eq!(next_count(marks, at(749)), None);
        assert_eq!(next_count(marks, at(750)), Some(Count::Minutes { from: at(600), to: at(660) }));
        assert_eq!(next_count(marks, at(7000)), Some(Count::Minutes { from: at(600), to: at(900) }));
    }

    #[test]
    fn the_last_count_of_an_hour_waits_a_day_after_a_lag() {
        let hours = |hours: i64| at(hours * 3600);
        let counted = |now| saturating_sub(now, COUNTED_AFTER);
        let last = |lagged: Option<i64>, now: i64| {
            let marks = Marks {
                counted: counted(hours(now)),
                hourly: hours(now - 1),
                last: hours(100),
                settled: day_of(hours(100)),
                lagged: lagged.map(hours),
            };
            next_count(marks, hours(now)).is_some_and(|count| matches!(count, Count::Hour { is_last: true, .. }))
        };
        assert!(last(None, 125));
        assert!(!last(Some(110), 125));
        assert!(!last(Some(110), 133));
        assert!(last(Some(110), 134));
        assert!(last(Some(140), 146), "the finest rollups end soon");
        let marks =
            Marks { counted: hours(9), hourly: hours(0), last: hours(0), settled: day_of(hours(0)), lagged: None };
        assert_eq!(marks.lag(hours(11)), None);
        assert_eq!(marks.lag(hours(12)), Some(hours(12)));
    }

    proptest! {
        /// Follows the marks: each minute is counted once, each hour twice, and each day settled after its hours, in
        /// order, whatever the pauses.
        #[test]
        fn each_minute_is_counted_once(pauses in proptest::collection::vec(1i64..9000, 1..60)) {
            let begin = 1_800_000_000 / 3600 * 3600;
            let (begun, settled) = (at(begin), day_of(at(begin)));
            let mut marks = Marks { counted: begun, hourly: begun, last: begun, settled, lagged: None };
            let mut now = begin;
            for pause in pauses {
                now += pause;
                let mut steps = 0;
                while let Some(count) = next_count(marks, at(now)) {
                    steps += 1;
                    prop_assert!(steps < 2000);
                    match count {
                        Count::Minutes { from, to } => {
                            let oldest = floor(saturating_sub(at(now), KEPT), STEP);
                            prop_assert!(from == marks.counted || from == oldest);
                            prop_assert!(from < to && to <= at(now - 90) && to <= saturating_add(floor(from, STEP), STEP));
                            marks.lagged = marks.lagged.max(marks.lag(at(now)));
                            marks.counted = to;
                        }
                        Count::Hour { from, is_last } => {
                            let mark = if is_last { &mut marks.last } else { &mut marks.hourly };
                            prop_assert!(from >= *mark && from <= marks.counted);
                            *mark = saturating_add(from, HOUR);
                        }
                        Count::Day(day) => {
                            prop_assert_eq!(day, marks.settled);
                            prop_assert!(begin_of(day.tomorrow().expect("a day")) <= marks.last);
                            marks.settled = day.tomorrow().expect("a day");
                        }
                    }
                }
                prop_assert!(marks.last <= marks.hourly);
                prop_assert_eq!(marks.settled, day_of(marks.last).max(day_of(at(begin))));
            }
        }

        #[test]
        fn percentiles_rise(counts in proptest::array::uniform14(0u64..1000), low in 0.0..1.0, high in 0.0..1.0) {
            let histogram = Histogram(counts);
            let (low, high) = if low < high { (low, high) } else { (high, low) };
            let of = |share| histogram.percentile(&LAG_BOUNDS_MS, share);
            prop_assert_eq!(of(low).is_some(), counts.iter().any(|count| *count > 0));
            prop_assert!(of(low) <= of(high));
        }
    }
}
