//! Counts of attempts and events over time, from the rollups.

use std::collections::BTreeMap;

use fanfare_domain::{
    diagnosis::rollup::{BUCKETS, Counts, FailureCounts, HOUR, Histogram, STEP},
    ids::{ApplicationId, EndpointId},
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{Store, StoreError, operations::rollups::count_columns};

/// Subject of counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatsSubject {
    /// The whole deployment.
    All,
    /// An application.
    Application(ApplicationId),
    /// An endpoint.
    Endpoint(EndpointId),
}

/// Length of a bucket of time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StatsStep {
    /// Five minutes; such counts are kept for two days.
    FiveMinutes,
    /// An hour; such counts are kept as long as events.
    Hour,
}

impl StatsSubject {
    pub(crate) fn id(self) -> Uuid {
        match self {
            Self::All => Uuid::nil(),
            Self::Application(application) => application.0,
            Self::Endpoint(endpoint) => endpoint.0,
        }
    }
}

impl StatsStep {
    /// Length of the step.
    pub fn duration(self) -> std::time::Duration {
        match self {
            Self::FiveMinutes => STEP,
            Self::Hour => HOUR,
        }
    }
}

impl Store {
    /// Counts of a subject from `since` to `until`, by the beginning of each step. Steps without a count are missing.
    pub async fn stats(
        &self,
        subject: StatsSubject,
        (since, until): (Timestamp, Timestamp),
        step: StatsStep,
    ) -> Result<BTreeMap<Timestamp, Counts>, StoreError> {
        let columns = count_columns().join(", ");
        let fine = |since: &str, at: &str| {
            format!("SELECT {at} AS step, {columns} FROM rollups WHERE subject = $1 AND at >= {since} AND at < $3")
        };
        let statement = match step {
            StatsStep::FiveMinutes => fine("$2", "at"),
            // An hour has a row of its own from an hour after its end on.
            StatsStep::Hour => format!(
                "SELECT at AS step, {columns} FROM rollups_hourly
                 WHERE subject = $1 AND at >= $2 AND at < least($3, (SELECT hourly FROM rollup_marks))
                 UNION ALL {}",
                fine("greatest($2, (SELECT hourly FROM rollup_marks))", "date_bin('1 hour', at, 'epoch')")
            ),
        };
        let rows = self.query_by_kept_plan(&statement, &[&subject.id(), &since, &until]).await?;
        let mut steps: BTreeMap<Timestamp, Counts> = BTreeMap::new();
        for row in &rows {
            steps.entry(row.get("step")).or_default().add(&counts(row));
        }
        Ok(steps)
    }
}

/// Reads the columns of [`count_columns`].
pub(crate) fn counts(row: &Row) -> Counts {
    let count = |column: &str| u64::from(row.get::<_, i32>(column).unsigned_abs());
    let histogram = |kind: &str| {
        let mut buckets = [0; BUCKETS];
        for (bucket, number) in buckets.iter_mut().zip(0..) {
            *bucket = count(&format!("{kind}{number}"));
        }
        Histogram(buckets)
    };
    Counts {
        taken: count("taken"),
        failed: FailureCounts {
            redirected: count("failed_3xx"),
            client_error: count("failed_4xx"),
            server_error: count("failed_5xx"),
            timed_out: count("timed_out"),
            no_connection: count("no_connection"),
            tls_failed: count("tls_failed"),
            forbidden: count("forbidden"),
            unknown: count("unknown"),
            other: count("other"),
        },
        events: count("events"),
        unmatched: count("unmatched"),
        durations: histogram("d"),
        lags: histogram("l"),
    }
}
