//! `/api/v1/usage` and `/api/v1/applications/{id}/usage`: usage by UTC day, for bills and quotas.

mod csv;

use std::collections::BTreeMap;

use axum::{
    extract::State,
    response::{IntoResponse, Response},
};
use fanfare_domain::{
    ids::ApplicationId,
    time::{day_of, end_of_day},
};
use fanfare_store::{ApplicationUsage, QuotaUse, Selected, Usage, UsageFilter};
use jiff::{Timestamp, ToSpan, civil::Date};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{
    http::{
        answer::{Answer, Page},
        authentication::{Administrator, KeyApplication},
        error::{ApiError, Failures},
        paging::Paging,
        parameters::{Path, Query},
    },
    routes::{
        applications::{no_such_application, reached, selected},
        plans::Limits,
    },
    state::ApiState,
};

/// The maximum of days in a request.
const MAX_DAYS: i32 = 400;

/// Share of a quota from which a warning is shown, in percent.
const NEAR: u64 = 80;

/// Counts of an application in a time. Test events count nowhere.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
pub struct Figures {
    /// The accepted events.
    pub events: i64,
    /// The deliveries whose first attempt began in the time.
    pub deliveries: i64,
    /// All attempts that began in the time: delivered, failed and unknown. Resends and replays count.
    pub attempts: i64,
    /// The attempts that delivered.
    pub delivered: i64,
    /// The attempts that failed.
    pub failed: i64,
    /// The attempts whose process died before it recorded the outcome.
    pub unknown: i64,
    /// The bytes of the bodies of these events.
    pub stored_bytes: i64,
}

impl From<Usage> for Figures {
    fn from(usage: Usage) -> Self {
        let Usage { events, deliveries, taken, failed, unknown, bytes } = usage;
        let attempts = taken.saturating_add(failed).saturating_add(unknown);
        Self { events, deliveries, attempts, delivered: taken, failed, unknown, stored_bytes: bytes }
    }
}

/// Usage of a UTC day.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageDay {
    #[schema(value_type = String, format = Date)]
    pub day: Date,
    /// False while the figures may still change: until 24 hours after the end of the day.
    #[serde(rename = "final")]
    pub is_final: bool,
    #[serde(flatten)]
    pub figures: Figures,
}

/// State of a quota.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum QuotaState {
    Ok,
    /// At least 80 % are used.
    Near,
    /// The quota is used up: publishing over HTTP is refused.
    Full,
}

/// A quota and its use.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
pub struct Quota {
    /// `events_per_day` or `stored_bytes`.
    #[schema(example = "events_per_day")]
    pub name: &'static str,
    pub limit: u64,
    pub used: u64,
    /// The used share of the limit, in whole percent, rounded down.
    pub percent: u64,
    pub state: QuotaState,
    /// The time at which the quota of events begins anew; absent for stored bytes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    pub renewed_at: Option<Timestamp>,
}

impl Quota {
    fn new(name: &'static str, limit: u64, used: i64, renewed_at: Option<Timestamp>) -> Self {
        let used = used.max(0).unsigned_abs();
        let percent = used.saturating_mul(100) / limit.max(1);
        let state = match percent {
            100.. => QuotaState::Full,
            NEAR.. => QuotaState::Near,
            _ => QuotaState::Ok,
        };
        Self { name, limit, used, percent, state, renewed_at }
    }
}

/// Usage of an application.
#[derive(Debug, Serialize, ToSchema)]
pub struct UsageReport {
    #[schema(value_type = String)]
    pub application: ApplicationId,
    #[schema(value_type = String, format = Date)]
    pub from: Date,
    #[schema(value_type = String, format = Date)]
    pub to: Date,
    /// The time up to which events and attempts are counted.
    #[schema(value_type = String, format = DateTime)]
    pub counted_until: Timestamp,
    pub plan: Option<String>,
    /// The limits in force: the application's own, or else the plan's.
    pub limits: Limits,
    /// The quotas with their use today. Empty without a quota.
    pub quotas: Vec<Quota>,
    /// The sum of the days.
    pub total: Figures,
    /// The days with usage, the oldest first.
    pub days: Vec<UsageDay>,
}

/// Selects the days of a report.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Days {
    /// The first UTC day. Default: the first day of this month.
    pub from: Option<String>,
    /// The last UTC day, at most 400 days from the first. Default: today.
    pub to: Option<String>,
}

/// Shows the usage of an application by UTC day, and its quotas.
#[utoipa::path(get, path = "/applications/{id}/usage", operation_id = "show_application_usage", tag = "applications",
    params(("id" = String, Path), Days), responses((status = 200, body = Answer<UsageReport>), Failures))]
pub async fn of_application(
    State(api): State<ApiState>,
    Path(application): Path<String>,
    KeyApplication(application_of_key): KeyApplication,
    Query(days): Query<Days>,
) -> Result<Answer<UsageReport>, ApiError> {
    let application = reached(&application, application_of_key)?;
    let now = api.store.now();
    let today = day_of(now);
    let to = days.to.as_deref().map(|text| day("to", text)).transpose()?.unwrap_or(today);
    let from = days.from.as_deref().map(|text| day("from", text)).transpose()?;
    let from = from.unwrap_or_else(|| today.first_of_month().min(to));
    if from > to || from < to.saturating_sub((MAX_DAYS - 1).days()) {
        return Err(ApiError::invalid("from", format!("must be at most {MAX_DAYS} days before `to`, and not after")));
    }
    let uses = api.store.quota_use(application, today).await?.ok_or_else(no_such_application)?;
    let marks = api.store.usage_marks().await?;
    let rows = api.store.usage(application, from, to).await?;
    let total = rows.iter().fold(Usage::default(), |sum, (_, day)| added(sum, *day));
    let limits = uses.own.within(uses.of_plan);
    let days = rows
        .into_iter()
        .map(|(day, usage)| UsageDay { day, is_final: day < marks.settled, figures: usage.into() })
        .collect();
    Ok(Answer::of(UsageReport {
        application,
        from,
        to,
        counted_until: marks.counted,
        quotas: quotas(&uses, now),
        plan: uses.plan,
        limits: limits.into(),
        total: total.into(),
        days,
    }))
}

fn quotas(uses: &QuotaUse, now: Timestamp) -> Vec<Quota> {
    let limits = uses.own.within(uses.of_plan);
    let events =
        limits.events_per_day.map(|limit| Quota::new("events_per_day", limit, uses.events, Some(end_of_day(now))));
    let bytes = limits.stored_bytes.map(|limit| Quota::new("stored_bytes", limit, uses.bytes, None));
    events.into_iter().chain(bytes).collect()
}

fn added(sum: Usage, day: Usage) -> Usage {
    Usage {
        events: sum.events.saturating_add(day.events),
        deliveries: sum.deliveries.saturating_add(day.deliveries),
        taken: sum.taken.saturating_add(day.taken),
        failed: sum.failed.saturating_add(day.failed),
        unknown: sum.unknown.saturating_add(day.unknown),
        bytes: sum.bytes.saturating_add(day.bytes),
    }
}

/// Usage of an application in a day or a month.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ApplicationUsage)]
pub struct Row {
    #[schema(value_type = String)]
    pub application: ApplicationId,
    pub name: String,
    pub plan: Option<String>,
    pub labels: BTreeMap<String, String>,
    /// False while the figures may still change.
    #[serde(rename = "final")]
    pub is_final: bool,
    #[serde(flatten)]
    pub figures: Figures,
}

/// Selects the applications and the days of a list.
#[derive(Default, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct Filter {
    /// A UTC day, such as `2026-11-28`.
    pub day: Option<String>,
    /// A month, such as `2026-11`. Default without `day`: this month.
    pub month: Option<String>,
    /// Only applications with this label, `key:value`.
    pub label: Option<String>,
    /// Only applications in this plan.
    pub plan: Option<String>,
    /// `json` or `csv`. The header `next` of an answer in CSV is the `next` of the page. Default: `json`.
    pub format: Option<String>,
    /// The `next` of the previous page.
    pub before: Option<String>,
    /// 1 to 100. Default: 50.
    pub limit: Option<usize>,
}

/// Lists the applications with usage in a day or a month, newest first. Requires an admin key.
#[utoipa::path(get, path = "/usage", operation_id = "list_usage", tag = "applications", params(Filter),
    responses((status = 200, content((Page<Row> = "application/json"), (String = "text/csv"))), Failures))]
pub async fn list(
    State(api): State<ApiState>,
    administrator: Administrator,
    Query(filter): Query<Filter>,
) -> Result<Response, ApiError> {
    let is_csv = match filter.format.as_deref() {
        None | Some("json") => false,
        Some("csv") => true,
        Some(_) => return Err(ApiError::invalid("format", "must be json or csv")),
    };
    let days = days(filter.day.as_deref(), filter.month.as_deref(), day_of(api.store.now()))?;
    let is_first = filter.before.is_none();
    let page = rows(&api, administrator, filter).await?;
    Ok(if is_csv { csv::answer(&page, days, is_first) } else { page.into_response() })
}

/// A page of the applications with usage.
///
/// # Errors
/// Errors of the same request to the API.
pub async fn rows(api: &ApiState, _: Administrator, filter: Filter) -> Result<Page<Row>, ApiError> {
    let (before, size) = Paging { before: filter.before, limit: filter.limit }.parse()?;
    let days = days(filter.day.as_deref(), filter.month.as_deref(), day_of(api.store.now()))?;
    let selected: Selected = selected(filter.label.as_deref(), filter.plan)?;
    let settled = api.store.usage_marks().await?.settled;
    let filter = UsageFilter { days, selected, before, limit: size.rows() };
    let rows = api.store.usage_of_applications(&filter).await?;
    let row = |row: ApplicationUsage| {
        let ApplicationUsage { id, name, plan, labels, usage } = row;
        Row { application: id, name, plan, labels, is_final: days.1 < settled, figures: usage.into() }
    };
    Ok(Page::of(rows.into_iter().map(row).collect(), size, |row| row.application.to_string()))
}

/// First and last day of a filter.
fn days(of_day: Option<&str>, of_month: Option<&str>, today: Date) -> Result<(Date, Date), ApiError> {
    let first = match (of_day, of_month) {
        (Some(_), Some(_)) => return Err(ApiError::invalid("day", "excludes `month`: give only one")),
        (Some(text), None) => {
            let day = day("day", text)?;
            return Ok((day, day));
        }
        (None, Some(text)) => {
            let fault = || ApiError::invalid("month", "must be a month, such as 2026-11");
            // Years of four digits only, as in `day`.
            day("month", &format!("{text}-01")).map_err(|_| fault())?
        }
        (None, None) => today.first_of_month(),
    };
    Ok((first, first.last_of_month()))
}

/// Parses a UTC day of a year from 1970 on.
fn day(field: &str, text: &str) -> Result<Date, ApiError> {
    let fault = || ApiError::invalid(field, "must be a day, such as 2026-11-28");
    let is_plain = text.len() == 10 && text.bytes().all(|byte| byte.is_ascii_digit() || byte == b'-');
    let day: Date = text.parse().map_err(|_| fault())?;
    if is_plain && day.year() >= 1970 { Ok(day) } else { Err(fault()) }
}

#[cfg(test)]
mod tests {
    use jiff::civil::date;

    use super::*;

    #[test]
    fn a_month_has_all_its_days() {
        let today = date(2026, 11, 28);
        assert_eq!(days(None, None, today).expect("days"), (date(2026, 11, 1), date(2026, 11, 30)));
        assert_eq!(days(None, Some("2028-02"), today).expect("days"), (date(2028, 2, 1), date(2028, 2, 29)));
        assert_eq!(days(Some("2026-01-05"), None, today).expect("days"), (date(2026, 1, 5), date(2026, 1, 5)));
        for (day, month) in
            [(Some("2026-1-5"), None), (None, Some("2026")), (None, Some("2026-13")), (Some("x"), Some("y"))]
        {
            assert!(days(day, month, today).is_err(), "{day:?} {month:?}");
        }
    }

    #[test]
    fn a_quota_warns_from_80_percent_on() {
        let state = |used| Quota::new("events_per_day", 1000, used, None).state;
        assert_eq!([state(0), state(799)], [QuotaState::Ok; 2]);
        assert_eq!([state(800), state(999)], [QuotaState::Near; 2]);
        assert_eq!([state(1000), state(i64::MAX)], [QuotaState::Full; 2]);
    }
}
