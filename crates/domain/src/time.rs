//! Timestamp arithmetic without a clock, and durations as text: `60s`, `5m`, `120m`, `12h`.

use std::time::Duration;

use jiff::{Timestamp, civil::Date, tz::TimeZone};

/// Duration of a UTC day.
pub const DAY: Duration = Duration::from_secs(86400);

/// `moment` plus `wait`, or [`Timestamp::MAX`] on overflow.
pub fn saturating_add(moment: Timestamp, wait: Duration) -> Timestamp {
    moment.checked_add(wait).unwrap_or(Timestamp::MAX)
}

/// `moment` minus `wait`, or [`Timestamp::MIN`] on overflow.
pub fn saturating_sub(moment: Timestamp, wait: Duration) -> Timestamp {
    moment.checked_sub(wait).unwrap_or(Timestamp::MIN)
}

/// UTC day of a moment.
pub fn day_of(moment: Timestamp) -> Date {
    moment.to_zoned(TimeZone::UTC).date()
}

/// First moment of a UTC day. The last days of the calendar begin at the last moment that can be told.
pub fn begin_of(day: Date) -> Timestamp {
    day.to_zoned(TimeZone::UTC).map_or(Timestamp::MAX, |begin| begin.timestamp())
}

/// End of the UTC day of a moment.
pub fn end_of_day(moment: Timestamp) -> Timestamp {
    saturating_add(begin_of(day_of(moment)), DAY)
}

/// Truncates to whole milliseconds, the unit of ids and partitions.
pub fn to_milliseconds(moment: Timestamp) -> Timestamp {
    Timestamp::from_millisecond(moment.as_millisecond()).unwrap_or(moment)
}

/// Parses a whole number and a unit: `500ms`, `10s`, `5m`, `24h` or `30d`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let milliseconds = match unit {
        "ms" => 1,
        "s" => 1_000,
        "m" => 60_000,
        "h" => 3_600_000,
        "d" => 86_400_000,
        _ => return None,
    };
    number.parse::<u64>().ok()?.checked_mul(milliseconds).map(Duration::from_millis)
}

/// Formats whole seconds as in the names of the delay queues: seconds below two minutes, hours above 120 minutes,
/// minutes between. A wait that the unit does not divide gets the next smaller unit.
pub fn duration_name(wait: Duration) -> String {
    match wait.as_secs() {
        seconds if seconds < 120 || seconds % 60 != 0 => format!("{seconds}s"),
        seconds if seconds <= 7200 || seconds % 3600 != 0 => format!("{}m", seconds / 60),
        seconds => format!("{}h", seconds / 3600),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_numbers_with_a_unit_and_nothing_else() {
        assert_eq!(parse_duration("1500ms"), Some(Duration::from_millis(1500)));
        assert_eq!(parse_duration("30d"), Some(Duration::from_secs(30 * 86400)));
        for text in ["", "60", "s", "-1s", "1.5s", "60 s", "１s", "9999999999999999999h", "1w", "1e2s"] {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }

    #[test]
    fn a_day_ends_at_midnight() {
        let midnight: Timestamp = "2026-11-28T00:00:00Z".parse().expect("a time");
        assert_eq!(end_of_day(midnight), midnight + DAY);
        assert_eq!(end_of_day(midnight - Duration::from_secs(1)), midnight);
        assert_eq!(begin_of(day_of(midnight)), midnight);
    }

    proptest! {
        #[test]
        fn names_can_be_read(seconds in 0u64..1_000_000) {
            let wait = Duration::from_secs(seconds);
            prop_assert_eq!(parse_duration(&duration_name(wait)), Some(wait));
        }
    }
}
