//! The chart of a day: each bar leads to the attempts that the bar counts, changes are marked.

use std::time::Duration;

use axum::extract::State;
use fanfare_api::{
    http::{authentication::Scope, error::ApiError, parameters::Query},
    routes::{
        audit_log::{self, Shown as Change},
        overview::stats::{Stats, StatsBucket},
    },
};
use fanfare_domain::time::saturating_add;
use jiff::Timestamp;

use crate::{
    Console,
    frame::{
        chart::{self, Bar, LinkedBar},
        marks::{self, Mark},
        place::Place,
    },
};

/// Length of a bar.
const HOUR: Duration = Duration::from_secs(3600);

/// The changes that may explain a failure, newest first: of a webhook, or of the application with all webhooks.
pub(crate) async fn changes(
    console: &Console,
    place: &Place,
    webhook: Option<String>,
    since: Option<Timestamp>,
) -> Result<Vec<Change>, ApiError> {
    let filter = audit_log::Filter::of_changes(webhook, since);
    let scope = Scope(Some(place.application));
    Ok(audit_log::list(State(console.api.clone()), scope, Query(filter)).await?.data)
}

/// The chart of an application, or of a webhook.
pub(crate) fn chart(base: &str, webhook: Option<&str>, stats: &Stats, changes: &[Change]) -> Mark {
    let bar = |bucket: &StatsBucket| {
        let end = saturating_add(bucket.at, HOUR);
        let within = changes.iter().filter(|change| change.at >= bucket.at && change.at < end);
        let within: Vec<String> = within.map(|change| change.action.replace('_', " ")).collect();
        LinkedBar {
            bar: Bar { taken: bucket.taken, failed: bucket.failed },
            href: attempts(base, webhook, stats, bucket),
            label: format!("{} UTC: {} taken, {} failed", hour(bucket), bucket.taken, bucket.failed),
            change: (!within.is_empty()).then(|| within.join(", ")),
        }
    };
    let bars: Vec<LinkedBar> = stats.buckets.iter().map(bar).collect();
    chart::linked(&bars, "Attempts of the last 24 hours by hour: taken above the line, failed below")
}

/// The address of the attempts that a bucket counts.
pub(crate) fn attempts(base: &str, webhook: Option<&str>, stats: &Stats, bucket: &StatsBucket) -> String {
    attempts_until(base, webhook, stats.counted_until, bucket.at)
}

fn attempts_until(base: &str, webhook: Option<&str>, counted_until: Timestamp, at: Timestamp) -> String {
    let end = saturating_add(at, HOUR);
    // A bar that is not counted to its end leads to the counted attempts only.
    let until = if counted_until > at { end.min(counted_until) } else { end };
    let webhook = webhook.map(|webhook| format!("webhook={webhook}&")).unwrap_or_default();
    format!("{base}/attempts?{webhook}since={at}&until={until}&tests=false")
}

/// The hour of a bucket, such as `2026-06-18 14:00`.
pub(crate) fn hour(bucket: &StatsBucket) -> String {
    marks::exactly(&bucket.at)[..16].to_owned()
}

/// A share in percent with one decimal, never rounded up to 100.
pub(crate) fn share(part: u64, all: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(all.max(1));
    format!("{}.{} %", tenths / 10, tenths % 10)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_below_all_is_below_a_hundred_percent() {
        assert_eq!(share(99_999, 100_000), "99.9 %");
        assert_eq!(share(100_000, 100_000), "100.0 %");
        assert_eq!(share(0, 0), "0.0 %");
    }

    #[test]
    fn a_bar_leads_to_the_counted_attempts() {
        let at = |text: &str| -> Timestamp { text.parse().expect("a time") };
        let address = |counted: &str| attempts_until("/portal", Some("wh_1"), at(counted), at("2026-06-18T14:00:00Z"));
        let expected = |until: &str| {
            format!("/portal/attempts?webhook=wh_1&since=2026-06-18T14:00:00Z&until=2026-06-18T{until}Z&tests=false")
        };
        assert_eq!(address("2026-06-18T16:00:00Z"), expected("15:00:00"));
        assert_eq!(address("2026-06-18T14:20:00Z"), expected("14:20:00"));
        assert_eq!(address("2026-06-18T13:00:00Z"), expected("15:00:00"));
    }
}
