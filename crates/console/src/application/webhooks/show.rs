//! The page of a webhook: state, diagnosis, chart, attempts, settings, changes and actions.

mod diagnosis;

use askama::Template;
use axum::{extract::State, response::Response};
use fanfare_api::{
    http::{authentication::Scope, error::ApiError, parameters::Query},
    routes::{
        audit_log::Shown as Change,
        deliveries::attempts::{self, AttemptLog, AttemptsQuery},
        overview::stats::{self, Stats, StatsBucket, StatsQuery},
        webhooks::{
            self, Webhook,
            backlog::{self, Backlog},
            health::{self, WebhookHealth},
        },
    },
};
use fanfare_domain::access::session::Right;
use jiff::Timestamp;

use crate::{
    application::{
        day,
        webhooks::{
            form::credentials,
            form::settings::fifo_in_words,
            form::template,
            in_words,
            secret::overlap,
            show::diagnosis::{Drain, Facts, attempt_in_words, diagnosis, drain_in_words},
            subject::Subject,
        },
    },
    frame::{
        Frame,
        fault::Fault,
        marks::{self, filters},
        respond::page,
    },
};

/// Number of changes on the page.
const MAX_CHANGES: usize = 5;

#[derive(Template)]
#[template(path = "application/webhooks/show/show.html")]
struct Shown {
    frame: Frame,
    title: String,
    webhook: Webhook,
    health: WebhookHealth,
    backlog: Option<Backlog>,
    stats: Stats,
    chart: marks::Mark,
    attempts: Vec<AttemptLog>,
    changes: Vec<Change>,
    diagnosis: Vec<String>,
    /// Sentences on a client certificate that ends, and on a failing token server.
    credentials: Vec<String>,
    /// Number of held deliveries, and the time of their drain.
    held: Option<String>,
    drain: Option<Drain>,
    overlap: Option<Timestamp>,
}

impl Shown {
    /// Waiting deliveries of a webhook that is not paused.
    fn waiting(&self) -> i64 {
        if self.webhook.status == "paused" { 0 } else { self.backlog.as_ref().map_or(0, |backlog| backlog.queued) }
    }

    /// Held deliveries of a paused webhook.
    fn held(&self) -> i64 {
        self.webhook.held.as_ref().map_or(0, |held| held.deliveries)
    }

    /// The share of taken attempts in percent.
    fn taken(&self) -> String {
        let (taken, failed) = (self.stats.total.taken, self.stats.total.failed);
        if taken + failed == 0 { "–".to_owned() } else { day::share(taken, taken + failed) }
    }

    fn hour(&self, bucket: &StatsBucket) -> String {
        day::hour(bucket)
    }

    /// The address of the attempts that a bucket counts.
    fn counted(&self, bucket: &StatsBucket) -> String {
        day::attempts(&self.frame.base, Some(&self.webhook.id.to_string()), &self.stats, bucket)
    }

    /// The failures of the day by kind, the most frequent first.
    fn failures(&self) -> String {
        let kinds = &self.stats.total.failures;
        let mut kinds = [
            ("3xx", kinds.status_3xx),
            ("4xx", kinds.status_4xx),
            ("5xx", kinds.status_5xx),
            ("timeout", kinds.timed_out),
            ("no connection", kinds.no_connection),
            ("TLS", kinds.tls_failed),
            ("forbidden address", kinds.address_forbidden),
            ("unknown", kinds.unknown),
            ("other", kinds.other),
        ]
        .to_vec();
        kinds.retain(|(_, number)| *number > 0);
        kinds.sort_by_key(|(_, number)| std::cmp::Reverse(*number));
        let kinds: Vec<String> = kinds.iter().map(|(kind, number)| format!("{kind} ×{number}")).collect();
        if kinds.is_empty() { "none".to_owned() } else { kinds.join(" · ") }
    }

    /// The median and the 95th percentile of the answer time.
    fn answer_times(&self) -> Option<(String, String)> {
        // Durations of attempts are far below the limit of the number.
        let took = |milliseconds: f64| marks::took(milliseconds as u64);
        self.stats.total.duration.map(|duration| (took(duration.p50_ms), took(duration.p95_ms)))
    }

    fn template(&self) -> Option<String> {
        self.webhook.template.as_deref().map(|text| template::shown(text.get()))
    }

    fn timeout(&self) -> String {
        let own = self.webhook.timeout_ms.and_then(|timeout| u64::try_from(timeout).ok());
        own.map_or_else(|| "the usual".to_owned(), marks::took)
    }

    fn authentication(&self) -> String {
        credentials::in_words(&self.webhook)
    }

    fn token_until(&self) -> Option<Timestamp> {
        self.webhook.authentication.as_ref()?.state.as_ref()?.token_until
    }

    /// The reason of the backlog in words.
    fn reason(&self) -> String {
        self.backlog.as_ref().map(|backlog| backlog.reason.replace('_', " ")).unwrap_or_default()
    }

    fn result(&self, attempt: &AttemptLog) -> String {
        attempt_in_words(attempt)
    }
}

/// Shows a webhook.
pub(crate) async fn show(subject: Subject) -> Result<Response, Fault> {
    let Found { health, backlog, stats, attempts, changes } = Found::read(&subject).await?;
    let title = subject.title();
    let now = subject.console.api.store.now();
    let Subject { place, webhook, .. } = subject;
    let facts =
        Facts { webhook: &webhook, health: &health, backlog: backlog.as_ref(), attempts: &attempts, changes: &changes };
    let diagnosis = diagnosis(&facts);
    let answer_ms = stats.total.duration.map(|duration| duration.p50_ms);
    let held = webhook.held.as_ref().map(|held| drain_in_words(held.deliveries, webhook.rate_per_second, answer_ms));
    let was_held = draining(&place.visitor.address);
    let queued = backlog.as_ref().map_or(0, |backlog| backlog.queued);
    let credentials = [credentials::ending(&webhook, now), credentials::token_failure(&webhook)];
    let shown = Shown {
        credentials: credentials.into_iter().flatten().collect(),
        frame: place
            .frame("Webhook")
            .live()
            .call(format!("/webhooks/{}", webhook.id))
            .call(format!("/webhooks/{}/health", webhook.id)),
        title,
        drain: Drain::new(was_held, queued).filter(|_| webhook.status == "enabled"),
        overlap: overlap(&webhook),
        chart: day::chart(&place.base, Some(&webhook.id.to_string()), &stats, &changes),
        webhook,
        health,
        backlog,
        stats,
        attempts,
        changes: changes.into_iter().take(MAX_CHANGES).collect(),
        diagnosis,
        held,
    };
    page(&place.visitor, &shown)
}

/// The facts of the page.
struct Found {
    health: WebhookHealth,
    backlog: Option<Backlog>,
    stats: Stats,
    attempts: Vec<AttemptLog>,
    /// Changes of the webhook, newest first.
    changes: Vec<Change>,
}

impl Found {
    async fn read(subject: &Subject) -> Result<Self, ApiError> {
        let webhook = subject.webhook.id.to_string();
        let [of_health, of_backlog, of_attempts] = [(); 3].map(|()| subject.arguments());
        let scope = Scope(Some(subject.place.application));
        let of_webhook = StatsQuery { webhook: Some(webhook.clone()), ..StatsQuery::default() };
        // At the same time: the pages have two connections to the database.
        let (health, backlog, attempts, stats, changes) = tokio::try_join!(
            health::show(of_health.0, of_health.1, of_health.2),
            backlog::show(of_backlog.0, of_backlog.1, of_backlog.2),
            attempts::list(of_attempts.0, of_attempts.1, of_attempts.2, Query(AttemptsQuery { limit: None })),
            stats::show(State(subject.console.api.clone()), scope, Query(of_webhook)),
            day::changes(&subject.console, &subject.place, Some(webhook), None),
        )?;
        let (health, backlog, attempts, stats) = (health.data, backlog.data, attempts.data, stats.data);
        Ok(Self { health, backlog, stats, attempts, changes })
    }
}

/// The number of deliveries that were held before a resume, from the address.
fn draining(address: &str) -> i64 {
    let query = address.split_once('?').map_or("", |(_, query)| query);
    let mut pairs = url::form_urlencoded::parse(query.as_bytes());
    pairs.find(|(name, _)| name == "draining").and_then(|(_, value)| value.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_number_before_a_drain_is_in_the_address() {
        assert_eq!(draining("/x?done=enabled&draining=50"), 50);
        assert_eq!(draining("/x?draining=many"), 0);
    }
}
