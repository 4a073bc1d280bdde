//! Texts of findings: times, numbers and names.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

/// A time in UTC: the hour of today, or the date and the hour.
pub(super) fn time(at: Timestamp, now: Timestamp) -> String {
    let (at, now) = (at.to_zoned(TimeZone::UTC), now.to_zoned(TimeZone::UTC));
    let format = if at.date() == now.date() { "%H:%M UTC" } else { "%Y-%m-%d %H:%M UTC" };
    at.strftime(format).to_string()
}

/// A duration in its two largest units.
pub(super) fn duration(duration: Duration) -> String {
    let seconds = duration.as_secs();
    match seconds {
        0..10 => format!("{:.1} s", duration.as_secs_f64()),
        10..120 => format!("{seconds} s"),
        120..7200 => format!("{} min", seconds / 60),
        7200..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} days", seconds / 86400),
    }
}

/// A number with a noun.
pub(super) fn count(number: u64, one: &str, many: &str) -> String {
    if number == 1 { format!("1 {one}") } else { format!("{number} {many}") }
}

/// A number that is counted up to a bound, with a noun.
pub(super) fn bounded(number: u64, bound: u64, one: &str, many: &str) -> String {
    if number >= bound { format!("{bound} or more {many}") } else { count(number, one, many) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_short() {
        let now: Timestamp = "2026-06-18T14:05:00Z".parse().expect("a time");
        assert_eq!(time("2026-06-18T14:02:59Z".parse().expect("a time"), now), "14:02 UTC");
        assert_eq!(time("2026-06-17T14:02:59Z".parse().expect("a time"), now), "2026-06-17 14:02 UTC");
        let of = |seconds| duration(Duration::from_secs(seconds));
        assert_eq!([of(5), of(119), of(120), of(7200), of(172_800)], ["5.0 s", "119 s", "2 min", "2 h", "2 days"]);
        assert_eq!((count(1, "event", "events"), count(0, "event", "events")), ("1 event".into(), "0 events".into()));
        assert_eq!(bounded(10, 10, "event", "events"), "10 or more events");
    }
}
