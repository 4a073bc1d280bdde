//! Usage of applications by UTC day. The job `rollups` writes the rows, in the commits that count.

use std::collections::BTreeMap;

use fanfare_domain::{application::plan::Limits, ids::ApplicationId};
use jiff::{Timestamp, civil::Date};
use tokio_postgres::{Row, types::ToSql};

use crate::{
    Store, StoreError,
    configuration::{
        applications::{Selected, labels},
        plans::limits,
    },
    connection::store::row_count,
};

/// Counts of an application in a time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Accepted events, without tests.
    pub events: i64,
    /// Deliveries whose first attempt began in the time.
    pub deliveries: i64,
    /// Attempts that were taken.
    pub taken: i64,
    /// Attempts that failed.
    pub failed: i64,
    /// Attempts whose process died before it recorded the outcome.
    pub unknown: i64,
    /// Bytes of the bodies of these events.
    pub bytes: i64,
}

/// Progress of the counting.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UsageMarks {
    /// End of the counted time.
    pub counted: Timestamp,
    /// First UTC day whose figures may still change.
    pub settled: Date,
}

/// What an application uses of its quotas.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QuotaUse {
    /// Name of the plan.
    pub plan: Option<String>,
    /// Own limits, before the plan's.
    pub own: Limits,
    /// Limits of the plan.
    pub of_plan: Option<Limits>,
    /// Events of the day.
    pub events: i64,
    /// Bytes stored in all.
    pub bytes: i64,
}

/// Selects the rows of [`Store::usage_of_applications`].
#[derive(Debug, Clone)]
pub struct UsageFilter {
    /// First and last day.
    pub days: (Date, Date),
    /// Only applications with these.
    pub selected: Selected,
    /// Only applications older than this.
    pub before: Option<ApplicationId>,
    /// Maximum of applications.
    pub limit: usize,
}

/// An application with usage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ApplicationUsage {
    /// Id of the application.
    pub id: ApplicationId,
    /// Display name.
    pub name: String,
    /// Name of the plan.
    pub plan: Option<String>,
    /// Labels of the application.
    pub labels: BTreeMap<String, String>,
    /// Sum of the days.
    pub usage: Usage,
}

impl Store {
    /// Usage of an application by day, from `from` to `to`. A day without usage has no row.
    pub async fn usage(&self, id: ApplicationId, from: Date, to: Date) -> Result<Vec<(Date, Usage)>, StoreError> {
        let statement = "SELECT day, events, deliveries, taken, failed, unknown, bytes FROM usage_days
                         WHERE application_id = $1 AND day BETWEEN $2 AND $3 ORDER BY day";
        let rows = self.connection().await?.query(statement, &[&id.0, &from, &to]).await?;
        Ok(rows.iter().map(|row| (row.get("day"), read(row))).collect())
    }

    /// Progress of the counting.
    pub async fn usage_marks(&self) -> Result<UsageMarks, StoreError> {
        let statement = "SELECT counted, settled FROM rollup_marks";
        let row = self.connection().await?.query_one(statement, &[]).await?;
        Ok(UsageMarks { counted: row.get(0), settled: row.get(1) })
    }

    /// What an application uses of its quotas in a UTC day; `None` if the application does not exist.
    pub async fn quota_use(&self, id: ApplicationId, day: Date) -> Result<Option<QuotaUse>, StoreError> {
        let connection = self.connection().await?;
        let statement =
            "SELECT a.plan, a.publish_rate, a.events_per_day, a.stored_bytes, a.max_webhooks, u.events, u.bytes
                         FROM applications a CROSS JOIN LATERAL (
                             SELECT coalesce(sum(events) FILTER (WHERE day = $2), 0)::bigint AS events,
                                    coalesce(sum(bytes), 0)::bigint AS bytes
                             FROM usage_days WHERE application_id = a.id
                               AND day >= (SELECT (line AT TIME ZONE 'UTC')::date FROM retention)) u
                         WHERE a.id = $1";
        let Some(row) = connection.query_opt(statement, &[&id.0, &day]).await? else { return Ok(None) };
        let plan: Option<String> = row.get("plan");
        let of_plan = "SELECT publish_rate, events_per_day, stored_bytes, max_webhooks FROM plans WHERE name = $1";
        let of_plan = match &plan {
            Some(plan) => connection.query_opt(of_plan, &[plan]).await?.as_ref().map(limits),
            None => None,
        };
        Ok(Some(QuotaUse { plan, own: limits(&row), of_plan, events: row.get("events"), bytes: row.get("bytes") }))
    }

    /// Applications with usage in some days, newest first, with the sums of the days.
    pub async fn usage_of_applications(&self, filter: &UsageFilter) -> Result<Vec<ApplicationUsage>, StoreError> {
        let (from, to) = filter.days;
        let (before, limit) = (filter.before.map(|id| id.0), row_count(filter.limit));
        let labels_json = filter.selected.labels_json();
        let mut parameters: Vec<&(dyn ToSql + Sync)> = vec![&from, &to, &before, &limit];
        let selected = filter.selected.condition(labels_json.as_ref(), &mut parameters);
        let statement = format!(
            "SELECT a.id, a.name, a.plan, a.labels::text AS labels, u.*
             FROM applications a CROSS JOIN LATERAL (
                 SELECT sum(events)::bigint AS events, sum(deliveries)::bigint AS deliveries, sum(taken)::bigint AS taken,
                        sum(failed)::bigint AS failed, sum(unknown)::bigint AS unknown, sum(bytes)::bigint AS bytes
                 FROM usage_days WHERE application_id = a.id AND day BETWEEN $1 AND $2 HAVING count(*) > 0) u
             WHERE ($3::uuid IS NULL OR a.id < $3) {selected} ORDER BY a.id DESC LIMIT $4"
        );
        let rows = self.connection().await?.query(&statement, &parameters).await?;
        let read = |row: &Row| {
            let (id, labels) = (ApplicationId(row.get("id")), labels(row)?);
            Ok(ApplicationUsage { id, name: row.get("name"), plan: row.get("plan"), labels, usage: read(row) })
        };
        rows.iter().map(read).collect()
    }

    /// Removes the usage of days before `oldest`, at most `limit` rows. Returns the number of rows.
    pub async fn drop_usage(&self, oldest: Date, limit: usize) -> Result<u64, StoreError> {
        let statement = "DELETE FROM usage_days WHERE (day, application_id) IN (
                             SELECT day, application_id FROM usage_days WHERE day < $1 ORDER BY day, application_id LIMIT $2)";
        Ok(self.connection().await?.execute(statement, &[&oldest, &row_count(limit)]).await?)
    }
}

fn read(row: &Row) -> Usage {
    Usage {
        events: row.get("events"),
        deliveries: row.get("deliveries"),
        taken: row.get("taken"),
        failed: row.get("failed"),
        unknown: row.get("unknown"),
        bytes: row.get("bytes"),
    }
}
