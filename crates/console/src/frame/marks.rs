//! Small marks of the pages: times, durations, states, ids. All are pure.

pub(crate) mod filters;
pub(crate) mod words;

use std::{fmt, time::Duration};

use askama::filters::HtmlSafe;
use jiff::{Timestamp, tz::TimeZone};

use crate::frame::marks::filters::visible;

/// HTML that a function of the pages made from escaped texts.
pub(crate) struct Mark(String);

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.0)
    }
}

impl HtmlSafe for Mark {}

impl Mark {
    /// Wraps HTML whose foreign texts are escaped.
    pub(crate) fn of_html(html: String) -> Self {
        Self(html)
    }
}

/// Escapes a text for HTML, with hidden characters as their code.
pub(crate) fn escaped(text: &str) -> String {
    let text = visible(text);
    let mut html = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '&' => html.push_str("&amp;"),
            '<' => html.push_str("&lt;"),
            '>' => html.push_str("&gt;"),
            '"' => html.push_str("&quot;"),
            '\'' => html.push_str("&#39;"),
            other => html.push(other),
        }
    }
    html
}

/// A time in UTC, with the time that has passed or remains. The script can show the browser's zone.
pub(crate) fn when(at: &Timestamp, now: &Timestamp) -> Mark {
    let utc = at.to_zoned(TimeZone::UTC);
    let exact = utc.strftime("%Y-%m-%dT%H:%M:%S%.3fZ");
    let is_today = utc.date() == now.to_zoned(TimeZone::UTC).date();
    let shown = if is_today { utc.strftime("%H:%M:%S") } else { utc.strftime("%Y-%m-%d %H:%M:%S") };
    Mark(format!("<time datetime=\"{exact}\"><b>{shown}</b> <i>{}</i></time>", distance(*at, *now)))
}

/// Like [`when`], for the time of the answer itself. A change of this time alone is no new content: the script takes
/// the time from the `Date` of each answer.
pub(crate) fn passing(at: &Timestamp, now: &Timestamp) -> Mark {
    Mark(when(at, now).0.replacen("<time", "<time data-passing", 1))
}

/// The time in UTC, as a person copies it: `2026-06-18 14:02:11.402 UTC`.
pub(crate) fn exactly(at: &Timestamp) -> String {
    at.to_zoned(TimeZone::UTC).strftime("%Y-%m-%d %H:%M:%S%.3f UTC").to_string()
}

/// The time between a moment and now, in words. Never negative.
pub(crate) fn distance(at: Timestamp, now: Timestamp) -> String {
    let seconds = now.as_second() - at.as_second();
    match seconds {
        0..=1 => "now".to_owned(),
        2.. => format!("{} ago", span(seconds.unsigned_abs())),
        _ => format!("in {}", span(seconds.unsigned_abs())),
    }
}

/// Seconds in their largest unit: `59 s`, `4 min`, `3 h`, `12 d`.
fn span(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86400),
    }
}

/// A duration: `84 ms`, `1.2 s`, `2 min 05 s`, `3 h 04 min`.
pub(crate) fn took(milliseconds: u64) -> String {
    let seconds = milliseconds / 1000;
    match milliseconds {
        0..1000 => format!("{milliseconds} ms"),
        1000..60_000 => format!("{}.{} s", seconds, milliseconds % 1000 / 100),
        60_000..3_600_000 => format!("{} min {:02} s", seconds / 60, seconds % 60),
        _ => format!("{} h {:02} min", seconds / 3600, seconds % 3600 / 60),
    }
}

/// A duration of fractions of milliseconds.
pub(crate) fn took_about(milliseconds: &f64) -> String {
    took(
        Duration::try_from_secs_f64(milliseconds / 1000.0)
            .unwrap_or_default()
            .as_millis()
            .try_into()
            .unwrap_or(u64::MAX),
    )
}

/// A size: `312 bytes`, `1.5 KiB`, `12 MiB`.
pub(crate) fn size(bytes: usize) -> String {
    let tenths = |unit: usize| format!("{}.{}", bytes / unit, bytes % unit * 10 / unit);
    match bytes {
        1 => "1 byte".to_owned(),
        0..1024 => format!("{bytes} bytes"),
        1024..1_048_576 => format!("{} KiB", tenths(1024)),
        _ => format!("{} MiB", tenths(1_048_576)),
    }
}

/// The size of a body as in the API's answers.
pub(crate) fn bytes(count: &i32) -> String {
    size(usize::try_from(*count).unwrap_or_default())
}

/// A number with separated thousands: `10,000`.
pub(crate) fn number(value: &i64) -> String {
    let digits = value.unsigned_abs().to_string();
    let mut text = if *value < 0 { "-".to_owned() } else { String::new() };
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Attempts made of a delivery, by its state and the number of its current, next or last attempt.
pub(crate) fn attempts_made(state: &str, attempt: &u32) -> u32 {
    match state {
        "queued" | "scheduled" | "held" | "skipped" => attempt.saturating_sub(1),
        _ => *attempt,
    }
}

/// A number that was counted up to a bound: `10,000+` at the bound.
pub(crate) fn bounded(value: &i64, most: usize) -> String {
    let is_bounded = usize::try_from(*value).is_ok_and(|value| value >= most);
    format!("{}{}", number(value), if is_bounded { "+" } else { "" })
}

/// Word, class and icon of a state.
pub(crate) fn state(word: &str) -> Mark {
    let (class, path) = match word {
        "delivered" | "enabled" | "done" | "well" | "running" | "valid" => ("good", "M3 8.5l3.5 3.5L13 4.5"),
        "scheduled" | "queued" | "waiting" | "fanning_out" => ("wait", "M8 3.5V8l3 2M8 1.5a6.5 6.5 0 1 0 .01 0z"),
        "failed" | "failing" | "refused" | "revoked" => ("bad", "M4 4l8 8M12 4l-8 8"),
        "held" | "paused" => ("hold", "M5.5 3.5v9M10.5 3.5v9"),
        "sending" => ("send", "M2.5 8h10M9 4l4 4-4 4"),
        _ => ("off", "M3.5 8h9"),
    };
    let icon = format!("<svg viewBox=\"0 0 16 16\" aria-hidden=\"true\"><path d=\"{path}\"/></svg>");
    Mark(format!("<span class=\"state {class}\">{icon}{}</span>", escaped(&word.replace('_', " "))))
}

/// A text to copy, such as an id or a URL, with a button that the script shows.
pub(crate) fn copy(text: &str) -> Mark {
    let text = escaped(text);
    Mark(format!(
        "<code class=\"copy\">{text}</code><button type=\"button\" class=\"copies\" data-copy=\"{text}\" hidden>copy</button>"
    ))
}

/// The name of a webhook; without a name, host and path of its URL, shortened.
pub(crate) fn webhook(name: &Option<String>, url: &str) -> String {
    const MOST: usize = 60;
    let address = || {
        let path = url::Url::parse(url).map(|url| url.path().to_owned()).unwrap_or_default();
        let whole = format!("{}{}", host(url), if path == "/" { "" } else { &path });
        match whole.char_indices().nth(MOST) {
            Some((end, _)) => format!("{}…", &whole[..end]),
            None => whole,
        }
    };
    name.clone().unwrap_or_else(address)
}

/// The host of a URL in its ASCII form; the whole text if the text is no URL.
pub(crate) fn host(url: &str) -> String {
    url::Url::parse(url).ok().and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_else(|| url.to_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn distances_are_never_negative(at in -10_000_000_000_i64..10_000_000_000, now in -10_000_000_000_i64..10_000_000_000) {
            let moment = |seconds| Timestamp::from_second(seconds).expect("in range");
            let text = distance(moment(at), moment(now));
            prop_assert!(!text.contains('-'), "{}", text);
            prop_assert_eq!(text.starts_with("in "), at > now);
        }

        #[test]
        fn escaped_texts_end_no_attribute_and_begin_no_tag(text: String) {
            let html = escaped(&text);
            prop_assert!(!html.contains(['<', '>', '"', '\'']));
        }

        #[test]
        fn numbers_keep_their_digits(value: i64) {
            prop_assert_eq!(number(&value).replace(',', ""), value.to_string());
        }
    }

    #[test]
    fn prints_durations_and_sizes() {
        assert_eq!([84, 1234, 125_000, 11_040_000].map(took), ["84 ms", "1.2 s", "2 min 05 s", "3 h 04 min"]);
        assert_eq!([1, 312, 1536, 12_582_912].map(size), ["1 byte", "312 bytes", "1.5 KiB", "12.0 MiB"]);
        assert_eq!(number(&1_234_567), "1,234,567");
    }

    #[test]
    fn prints_times_with_the_date_of_another_day() {
        let moment = |text: &str| text.parse::<Timestamp>().expect("a time");
        let (at, now) = (moment("2026-06-18T14:02:11.402Z"), moment("2026-06-18T14:06:12Z"));
        let html = "<time datetime=\"2026-06-18T14:02:11.402Z\"><b>14:02:11</b> <i>4 min ago</i></time>";
        assert_eq!(when(&at, &now).to_string(), html);
        assert!(when(&at, &moment("2026-06-19T00:00:00Z")).to_string().contains("<b>2026-06-18 14:02:11</b>"));
        assert_eq!(exactly(&at), "2026-06-18 14:02:11.402 UTC");
    }

    #[test]
    fn hosts_are_ascii() {
        assert_eq!(host("https://bücher.example:8443/a"), "xn--bcher-kva.example");
    }
}
