//! `/api/v1/stats`: counts of attempts and events over time, for charts.

use axum::extract::State;
use fanfare_domain::{
    diagnosis::rollup::{Counts, DURATION_BOUNDS_MS, FailureCounts, LAG_BOUNDS_MS, floor},
    time::{saturating_add, saturating_sub},
};
use fanfare_store::{StatsStep, StatsSubject};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::Answer,
        authentication::{AuthorizedApplication, Scope},
        error::{ApiError, ErrorCode, Failures},
        parameters::{APPLICATION, Query, timestamp},
    },
    state::ApiState,
};

/// The highest number of steps in an answer.
const MAX_STEPS: u32 = 1000;

/// The default number of steps.
const DEFAULT_STEPS: u32 = 24;

/// Selects the counts.
#[derive(Debug, Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct StatsQuery {
    /// A webhook. Default: the application; with an admin key without `application`, all applications together.
    pub webhook: Option<String>,
    /// The beginning, rounded down to a step. Default: 24 steps before `until`.
    pub since: Option<String>,
    /// The end, rounded up to a step. Default: now.
    pub until: Option<String>,
    /// `5m` or `1h`. Default: `1h`. Counts of five minutes are kept for two days, counts of an hour as long as events.
    #[param(example = "1h")]
    pub step: Option<String>,
}

/// Counts of attempts and events over time.
#[derive(Debug, Serialize, ToSchema)]
pub struct Stats {
    #[schema(value_type = String, format = DateTime)]
    pub since: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    pub until: Timestamp,
    /// `5m` or `1h`.
    #[schema(example = "1h")]
    pub step: &'static str,
    /// The end of the counted time. Attempts are counted about two minutes after their start.
    #[schema(value_type = String, format = DateTime)]
    pub counted_until: Timestamp,
    /// The whole time.
    pub total: StatsBucket,
    /// Each step, the oldest first.
    pub buckets: Vec<StatsBucket>,
}

/// Counts of a time. An attempt counts at its start, an event at its acceptance.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct StatsBucket {
    /// The beginning of the time.
    #[schema(value_type = String, format = DateTime)]
    pub at: Timestamp,
    /// The attempts that were taken.
    pub taken: u64,
    /// The failed attempts.
    pub failed: u64,
    /// The failed attempts by kind.
    pub failures: FailuresByKind,
    /// The duration of attempts; `null` without an attempt.
    pub duration: Option<DurationPercentiles>,
    /// The time from acceptance to the first attempt; `null` without a first attempt.
    pub first_attempt: Option<LagPercentiles>,
    /// The events; 0 for a webhook.
    pub events: u64,
    /// The events without a matching webhook.
    pub unmatched: u64,
}

/// Failed attempts by kind.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct FailuresByKind {
    pub status_3xx: u64,
    pub status_4xx: u64,
    pub status_5xx: u64,
    pub timed_out: u64,
    /// The connection was refused or closed, or the name has no address.
    pub no_connection: u64,
    pub tls_failed: u64,
    pub address_forbidden: u64,
    /// The dispatcher died before it recorded the outcome.
    pub unknown: u64,
    pub other: u64,
}

/// Percentiles of durations, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct DurationPercentiles {
    pub p50_ms: f64,
    pub p95_ms: f64,
    pub p99_ms: f64,
}

/// Percentiles of the time from acceptance to the first attempt, in milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, ToSchema)]
pub struct LagPercentiles {
    pub p50_ms: f64,
    pub p95_ms: f64,
}

impl StatsBucket {
    pub(crate) fn new(at: Timestamp, counts: &Counts) -> Self {
        let FailureCounts { redirected, client_error, server_error, timed_out, no_connection, .. } = counts.failed;
        let FailureCounts { tls_failed, forbidden, unknown, other, .. } = counts.failed;
        let duration = |share| counts.durations.percentile(&DURATION_BOUNDS_MS, share);
        let lag = |share| counts.lags.percentile(&LAG_BOUNDS_MS, share);
        let duration = duration(0.5).zip(duration(0.95)).zip(duration(0.99));
        Self {
            at,
            taken: counts.taken,
            failed: counts.failed.total(),
            failures: FailuresByKind {
                status_3xx: redirected,
                status_4xx: client_error,
                status_5xx: server_error,
                timed_out,
                no_connection,
                tls_failed,
                address_forbidden: forbidden,
                unknown,
                other,
            },
            duration: duration.map(|((p50_ms, p95_ms), p99_ms)| DurationPercentiles { p50_ms, p95_ms, p99_ms }),
            first_attempt: lag(0.5).zip(lag(0.95)).map(|(p50_ms, p95_ms)| LagPercentiles { p50_ms, p95_ms }),
            events: counts.events,
            unmatched: counts.unmatched,
        }
    }
}

/// Counts attempts and events over time: of a webhook, of an application, or of the whole deployment.
#[utoipa::path(get, path = "/stats", operation_id = "show_stats", tag = "stats",
    params(StatsQuery), responses((status = 200, body = Answer<Stats>), Failures))]
pub async fn show(
    State(api): State<ApiState>,
    Scope(application): Scope,
    Query(query): Query<StatsQuery>,
) -> Result<Answer<Stats>, ApiError> {
    let subject = match (application, &query.webhook) {
        (Some(application), Some(webhook)) => StatsSubject::Endpoint(
            api.endpoint(&AuthorizedApplication { application, may_see_payloads: true }, webhook).await?.id,
        ),
        (Some(application), None) => StatsSubject::Application(application),
        (None, None) => StatsSubject::All,
        (None, Some(_)) => {
            let message = "this key belongs to no application: name the webhook's application by ?application=app_…";
            return Err(ApiError::new(ErrorCode::MissingApplication, message).at(APPLICATION));
        }
    };
    let (step, name) = match query.step.as_deref() {
        Some("5m") => (StatsStep::FiveMinutes, "5m"),
        None | Some("1h") => (StatsStep::Hour, "1h"),
        Some(_) => return Err(ApiError::invalid("step", "must be `5m` or `1h`")),
    };
    let (since, until) = range(&query, step, api.store.now())?;
    let counted = api.store.stats(subject, (since, until), step).await?;
    let counted_until = api.store.rollup_marks().await?.counted;
    let mut total = Counts::default();
    let mut buckets = Vec::new();
    let mut at = since;
    while at < until {
        let counts = counted.get(&at).copied().unwrap_or_default();
        total.add(&counts);
        buckets.push(StatsBucket::new(at, &counts));
        at = saturating_add(at, step.duration());
    }
    let total = StatsBucket::new(since, &total);
    Ok(Answer::of(Stats { since, until, step: name, counted_until, total, buckets }))
}

/// The time of the counts, in whole steps.
fn range(query: &StatsQuery, step: StatsStep, now: Timestamp) -> Result<(Timestamp, Timestamp), ApiError> {
    let length = step.duration();
    let parse = |field, text: &Option<String>| text.as_deref().map(|text| timestamp(field, text)).transpose();
    let end = parse("until", &query.until)?.unwrap_or(now);
    let floored = floor(end, length);
    let until = if floored < end { saturating_add(floored, length) } else { floored };
    let since = parse("since", &query.since)?.unwrap_or_else(|| saturating_sub(until, length * DEFAULT_STEPS));
    let since = floor(since, length);
    if since >= until {
        return Err(ApiError::invalid("since", "must be before `until`"));
    }
    if since < saturating_sub(until, length * MAX_STEPS) {
        let message = format!("must be at most {MAX_STEPS} steps before `until`: choose a later time, or `step=1h`");
        return Err(ApiError::invalid("since", message));
    }
    Ok((since, until))
}
