//! `/api/v1/overview` and `/api/v1/applications/{id}/overview`: findings, and the state of the deployment.

pub mod findings;
pub mod rows;
pub mod stats;

use std::collections::HashMap;

use axum::extract::State;
use fanfare_domain::{
    diagnosis::{
        findings::{Facts, application_findings, differing_settings, examine, summary},
        rollup::LAG_BOUNDS_MS,
    },
    ids::ApplicationId,
};
use fanfare_store::{ProcessRow, QueueDepthRow};
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use crate::{
    http::{
        answer::Answer,
        authentication::{Administrator, KeyApplication},
        error::{ApiError, Failures},
        parameters::Path,
    },
    routes::{
        applications::{no_such_application, reached},
        overview::{
            findings::FindingView,
            rows::{JobView, LoudApplication, ProcessView, QueueView, TroubledWebhook},
        },
    },
    state::ApiState,
};

/// The state of the deployment.
#[derive(Debug, Serialize, ToSchema)]
pub struct Overview {
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The state in a sentence or two.
    #[schema(example = "Fanfare keeps up.")]
    pub summary: String,
    /// The troubles, the most urgent first.
    pub findings: Vec<FindingView>,
    /// Sentences of the checks without a finding.
    pub well: Vec<&'static str>,
    pub headline: Headline,
    /// Webhooks in trouble: an open breaker, or only failures. At most 50.
    pub webhooks: Vec<TroubledWebhook>,
    /// The applications with the most events in the last minutes. At most 20.
    pub applications: Vec<LoudApplication>,
    pub processes: Vec<ProcessView>,
    pub queues: Vec<QueueView>,
    pub jobs: Vec<JobView>,
}

/// The headline figures.
#[derive(Debug, Clone, PartialEq, Serialize, ToSchema)]
pub struct Headline {
    /// The deliveries that wait for a place in a dispatcher, and late retries.
    pub due: u64,
    /// The longest wait of such a delivery, in milliseconds.
    pub oldest_due_ms: u64,
    /// The 95th percentile of the time from acceptance to the first attempt, in the last counted minutes; `null`
    /// without an attempt.
    pub first_attempt_p95_ms: Option<f64>,
    /// The attempts per second of all dispatchers, in the last 10 s.
    pub attempts_per_second: f64,
    /// The share of attempts that were taken, in the last counted minutes, from 0 to 1; `null` without an attempt.
    pub share_taken: Option<f64>,
    /// The events that wait in the broker.
    pub events_ready: u64,
    /// The events that dispatchers hold un-acked.
    pub events_in_hand: u64,
    /// The retry messages that wait in the broker to be taken.
    pub retries_ready: u64,
    /// The parked messages, counted up to 1,000.
    pub parked: u64,
}

/// Findings of an application.
#[derive(Debug, Serialize, ToSchema)]
pub struct ApplicationOverview {
    #[schema(value_type = String)]
    pub application: ApplicationId,
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The troubles, the most urgent first.
    pub findings: Vec<FindingView>,
    /// Sentences of the checks without a finding.
    pub well: Vec<&'static str>,
}

/// Shows the state of the deployment: whether Fanfare keeps up, the troubles, and the figures behind them.
#[utoipa::path(get, path = "/overview", operation_id = "show_overview", tag = "operation",
    responses((status = 200, body = Answer<Overview>), Failures))]
pub async fn show(State(api): State<ApiState>, _: Administrator) -> Result<Answer<Overview>, ApiError> {
    let endpoints = api.store.troubled_endpoints(None).await?;
    let (processes, queues) = (api.store.processes().await?, api.store.queue_depths().await?);
    let jobs = api.store.job_runs().await?;
    let facts = api.store.facts(&endpoints, &processes, &queues, &jobs).await?;
    let mut ids: Vec<ApplicationId> = endpoints.iter().map(|endpoint| endpoint.fact.application).collect();
    ids.dedup();
    let names: HashMap<_, _> = api.store.names(None, &ids, &[]).await?.applications.into_iter().collect();
    let differing = differing_settings(&facts.processes);
    let examined = examine(&facts);
    let name_of = |application| names.get(&application).cloned().unwrap_or_default();
    Ok(Answer::of(Overview {
        at: facts.now,
        summary: summary(&examined),
        findings: examined.findings.into_iter().map(FindingView::from).collect(),
        well: examined.well,
        headline: headline(&facts, &processes, &queues),
        webhooks: endpoints
            .into_iter()
            .map(|endpoint| {
                let name = name_of(endpoint.fact.application);
                TroubledWebhook::new(endpoint, name)
            })
            .collect(),
        applications: facts.applications.into_iter().map(LoudApplication::from).collect(),
        processes: processes.into_iter().map(|process| ProcessView::new(process, &differing)).collect(),
        queues: queues.into_iter().map(QueueView::from).collect(),
        jobs: jobs.into_iter().map(JobView::from).collect(),
    }))
}

/// Shows the findings of an application.
#[utoipa::path(get, path = "/applications/{id}/overview", operation_id = "show_application_overview",
    tag = "applications", params(("id" = String, Path)),
    responses((status = 200, body = Answer<ApplicationOverview>), Failures))]
pub async fn of_application(
    State(api): State<ApiState>,
    Path(application): Path<String>,
    KeyApplication(application_of_key): KeyApplication,
) -> Result<Answer<ApplicationOverview>, ApiError> {
    let application = reached(&application, application_of_key)?;
    api.store.application(application).await?.ok_or_else(no_such_application)?;
    let facts = api.store.application_facts(application).await?;
    let examined = application_findings(&facts);
    Ok(Answer::of(ApplicationOverview {
        application,
        at: facts.now,
        findings: examined.findings.into_iter().map(FindingView::from).collect(),
        well: examined.well,
    }))
}

fn headline(facts: &Facts, processes: &[ProcessRow], queues: &[QueueDepthRow]) -> Headline {
    let living = || processes.iter().filter(|process| process.is_alive).map(|process| &process.report);
    let ready =
        |name: &str| queues.iter().find(|queue| queue.queue == name).map_or(0, |queue| queue.ready.unsigned_abs());
    let late = facts.due.oldest_retry.map_or(0, |oldest| facts.now.duration_since(oldest).as_millis().max(0));
    let longest = living().map(|report| report.longest_wait.as_millis()).max().unwrap_or(0);
    Headline {
        due: living().map(|report| report.due).sum::<u64>() + facts.due.retries,
        oldest_due_ms: u64::try_from(longest).unwrap_or(u64::MAX).max(u64::try_from(late).unwrap_or(0)),
        first_attempt_p95_ms: facts.recent.lags.percentile(&LAG_BOUNDS_MS, 0.95),
        // Counts are exact in `f64` up to 2^53.
        attempts_per_second: living().map(|report| report.attempts as f64).sum::<f64>() / 10.0,
        share_taken: facts.recent.share_taken(),
        events_ready: ready("events"),
        events_in_hand: living().map(|report| report.events_in_hand as u64).sum(),
        retries_ready: ready("deliveries"),
        parked: facts.parked.iter().map(|group| group.messages).sum(),
    }
}
