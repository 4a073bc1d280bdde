//! The first page of an application: troubles, the last day, counts, and webhooks.

use askama::Template;
use axum::{extract::State, response::Response};
use fanfare_api::{
    http::{
        authentication::{KeyApplication, Scope},
        error::ApiError,
        parameters::{Path, Query},
    },
    routes::{
        audit_log::{self, Shown},
        deliveries::{
            self,
            counts::{self, Count, CountQuery},
        },
        events,
        overview::{
            self,
            findings::{FindingView, SubjectView},
            stats::{self, Stats, StatsBucket, StatsQuery},
        },
        webhooks::{self, health, health::WebhookHealth},
    },
};
use fanfare_domain::{access::session::Right, diagnosis::changes::CHANGES};
use jiff::{SignedDuration, Timestamp};

use crate::{
    Console,
    application::events::publish_command,
    frame::{
        Frame,
        chart::{self, Bar, LinkedBar},
        fault::Fault,
        marks::{self, Mark, filters},
        place::Place,
        respond::page,
    },
};

/// Webhooks on the page; the page of webhooks has all.
const WEBHOOKS: usize = 10;

/// Entries of the audit log that are searched for changes to mark.
const MAX_ENTRIES: usize = 100;

/// A number that leads to its rows.
struct Number {
    label: &'static str,
    value: String,
    href: String,
}

/// A step to the first delivery.
struct FirstStep {
    is_done: bool,
    text: &'static str,
    href: String,
}

#[derive(Template)]
#[template(path = "application/overview/overview.html")]
struct Overview {
    frame: Frame,
    findings: Vec<FindingView>,
    chart: Mark,
    buckets: Vec<StatsBucket>,
    total: StatsBucket,
    counted_until: Timestamp,
    numbers: Vec<Number>,
    webhooks: Vec<WebhookHealth>,
    has_more: bool,
    first_steps: Vec<FirstStep>,
    command: String,
}

impl Overview {
    /// The share of attempts that webhooks took.
    fn share(&self) -> Option<String> {
        let all = self.total.taken + self.total.failed;
        (all > 0).then(|| share(self.total.taken, all))
    }

    /// The page about the finding, and the link's text.
    fn link(&self, finding: &FindingView) -> Option<(String, &'static str)> {
        match &finding.subject {
            SubjectView::Webhook { webhook, .. } => Some((format!("{}/webhooks/{webhook}", self.frame.base), "Look")),
            _ => None,
        }
    }

    fn spark(&self, webhook: &WebhookHealth) -> Mark {
        let bars: Vec<Bar> = webhook.hours.iter().map(|hour| Bar { taken: hour.taken, failed: hour.failed }).collect();
        let (taken, failed) = bars.iter().fold((0, 0), |(taken, failed), bar| (taken + bar.taken, failed + bar.failed));
        chart::sparkline(&bars, &format!("last 24 hours: {taken} taken, {failed} failed"))
    }

    /// Time of a bucket, as its row of the table.
    fn hour(&self, bucket: &StatsBucket) -> String {
        marks::exactly(&bucket.at)[..16].to_owned()
    }
}

/// A share in percent with one decimal, never rounded up to 100.
fn share(part: u64, all: u64) -> String {
    let tenths = u128::from(part) * 1000 / u128::from(all.max(1));
    format!("{}.{} %", tenths / 10, tenths % 10)
}

/// Shows the page.
pub(crate) async fn show(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    let api = || State(console.api.clone());
    let id = Path(place.application.to_string());
    let findings = overview::of_application(api(), id, KeyApplication(Some(place.application))).await?.data.findings;
    let day = StatsQuery { webhook: None, since: None, until: None, step: None };
    let stats = stats::show(api(), Scope(Some(place.application)), Query(day)).await?.data;
    let counted = counts::show(api(), place.authorized(), Query(CountQuery::default())).await?.data;
    let filter = webhooks::Filter { limit: Some(WEBHOOKS), ..webhooks::Filter::default() };
    let webhooks = health::list(api(), place.authorized(), Query(filter)).await?;
    let log = |state: &str| format!("{}/deliveries?state={state}", place.base);
    let number = |label, count: &Count, state: &str| Number { label, value: text(count), href: log(state) };
    let numbers = vec![
        number("Waiting", &sum(&counted.scheduled, &counted.queued), "scheduled,queued"),
        number("Held", &counted.held, "held"),
        number("Sending", &counted.sending, "sending"),
        number("Failed", &counted.failed, "failed"),
        number("Skipped", &counted.skipped, "skipped"),
    ];
    let frame = place.frame("Overview").live();
    let frame = frame.call(format!("/applications/{}/overview", place.application)).call("/stats");
    let frame = frame.call("/deliveries/counts").call("/webhooks/health");
    let shown = Overview {
        findings,
        chart: day_chart(&console, &place, &stats).await?,
        counted_until: stats.counted_until,
        first_steps: first_steps(&console, &place, &stats, !webhooks.data.is_empty()).await?,
        buckets: stats.buckets,
        total: stats.total,
        numbers,
        has_more: webhooks.next.is_some(),
        webhooks: webhooks.data,
        command: publish_command(&frame),
        frame,
    };
    page(&place.visitor, &shown)
}

fn text(count: &Count) -> String {
    format!("{}{}", marks::number(&count.deliveries), if count.has_more { "+" } else { "" })
}

fn sum(first: &Count, second: &Count) -> Count {
    Count { deliveries: first.deliveries + second.deliveries, has_more: first.has_more || second.has_more }
}

/// The steps to the first delivery; empty once there is a delivery.
async fn first_steps(
    console: &Console,
    place: &Place,
    stats: &Stats,
    has_webhook: bool,
) -> Result<Vec<FirstStep>, ApiError> {
    if stats.total.taken + stats.total.failed > 0 {
        return Ok(Vec::new());
    }
    // The charts count with a delay, the lists at once.
    let filter = deliveries::filter::Filter { limit: Some(1), ..Default::default() };
    let api = || State(console.api.clone());
    if !deliveries::list(api(), place.authorized(), Query(filter)).await?.data.is_empty() {
        return Ok(Vec::new());
    }
    let filter = events::Filter { limit: Some(1), ..Default::default() };
    let has_events = !events::list(api(), place.authorized(), Query(filter)).await?.data.is_empty();
    let step = |is_done, text, page: &str| FirstStep { is_done, text, href: format!("{}{page}", place.base) };
    Ok(vec![
        step(has_webhook, "Add a webhook: the URL that receives events.", "/webhooks/new"),
        step(has_events, "Publish an event.", "/events"),
        step(false, "See the delivery arrive.", "/deliveries"),
    ])
}

/// The chart of the last day: each bar leads to the deliveries of its hour, changes are marked.
async fn day_chart(console: &Console, place: &Place, stats: &Stats) -> Result<Mark, Fault> {
    let filter = audit_log::Filter { subject: None, before: None, limit: Some(MAX_ENTRIES) };
    let scope = Scope(Some(place.application));
    let changes = audit_log::list(State(console.api.clone()), scope, Query(filter)).await?.data;
    let is_change =
        |entry: &Shown| CHANGES.contains(&entry.action.as_str()) && entry.outcome.as_deref() == Some("done");
    let hour = SignedDuration::from_hours(1);
    let bar = |bucket: &StatsBucket| {
        let end = bucket.at.saturating_add(hour).unwrap_or(bucket.at);
        let is_within = |at: Timestamp| at >= bucket.at && at < end;
        let change = changes
            .iter()
            .find(|change| is_change(change) && is_within(change.at))
            .map(|change| change.action.replace('_', " "));
        LinkedBar {
            bar: Bar { taken: bucket.taken, failed: bucket.failed },
            href: format!("{}/deliveries?since={}&until={end}", place.base, bucket.at),
            label: format!(
                "{} UTC: {} attempts taken, {} failed",
                &marks::exactly(&bucket.at)[11..16],
                bucket.taken,
                bucket.failed
            ),
            change,
        }
    };
    let bars: Vec<LinkedBar> = stats.buckets.iter().map(bar).collect();
    Ok(chart::linked(&bars, "Attempts of the last 24 hours, by hour"))
}

#[cfg(test)]
mod tests {
    use super::share;

    #[test]
    fn a_share_below_all_is_below_a_hundred_percent() {
        assert_eq!(share(99_999, 100_000), "99.9 %");
        assert_eq!(share(100_000, 100_000), "100.0 %");
        assert_eq!(share(0, 0), "0.0 %");
    }
}
