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
use fanfare_domain::access::session::Right;

use crate::{
    Console,
    application::{day, events::publish_command},
    frame::{
        Frame,
        chart::{self, Bar},
        fault::Fault,
        marks::{self, Mark, filters},
        place::Place,
        respond::page,
    },
};

/// Webhooks on the page; the page of webhooks has all.
const WEBHOOKS: usize = 10;

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
    stats: Stats,
    numbers: Vec<Number>,
    webhooks: Vec<WebhookHealth>,
    has_more: bool,
    first_steps: Vec<FirstStep>,
    command: String,
}

impl Overview {
    /// The share of attempts that webhooks took.
    fn share(&self) -> Option<String> {
        let all = self.stats.total.taken + self.stats.total.failed;
        (all > 0).then(|| day::share(self.stats.total.taken, all))
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

    fn hour(&self, bucket: &StatsBucket) -> String {
        day::hour(bucket)
    }

    fn attempts(&self, bucket: &StatsBucket) -> String {
        day::attempts(&self.frame.base, None, &self.stats, bucket)
    }

    /// The address of the events of the day without a webhook.
    fn unmatched(&self) -> String {
        let Stats { since, counted_until, .. } = self.stats;
        format!("{}/events?unmatched=true&since={since}&until={counted_until}", self.frame.base)
    }
}

/// Shows the page.
pub(crate) async fn show(State(console): State<Console>, place: Place) -> Result<Response, Fault> {
    let api = || State(console.api.clone());
    let id = Path(place.application.to_string());
    let filter = webhooks::Filter { limit: Some(WEBHOOKS), ..webhooks::Filter::default() };
    // At the same time: the pages have two connections to the database.
    let (findings, stats, counted, webhooks) = tokio::try_join!(
        overview::of_application(api(), id, KeyApplication(Some(place.application))),
        stats::show(api(), Scope(Some(place.application)), Query(StatsQuery::default())),
        counts::show(api(), place.authorized(), Query(CountQuery::default())),
        health::list(api(), place.authorized(), Query(filter)),
    )?;
    let (findings, stats, counted) = (findings.data.findings, stats.data, counted.data);
    let log = |state: &str| format!("{}/deliveries?state={state}", place.base);
    let number = |label, count: &Count, state: &str| Number { label, value: text(count), href: log(state) };
    let numbers = vec![
        number("Waiting", &sum(&counted.scheduled, &counted.queued), "scheduled,queued"),
        number("Held", &counted.held, "held"),
        number("Sending", &counted.sending, "sending"),
        number("Failed", &counted.failed, "failed"),
        number("Skipped", &counted.skipped, "skipped"),
    ];
    let changes = day::changes(&console, &place, None, Some(stats.since)).await?;
    let frame = place.frame("Overview").live();
    let frame = frame.call(format!("/applications/{}/overview", place.application)).call("/stats");
    let frame = frame.call("/deliveries/counts").call("/webhooks/health");
    let shown = Overview {
        findings,
        chart: day::chart(&place.base, None, &stats, &changes),
        first_steps: first_steps(&console, &place, &stats, !webhooks.data.is_empty()).await?,
        stats,
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
