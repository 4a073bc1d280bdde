//! Rollups: counts attempts and events by time, for charts.
//!
//! The job `rollups` reads a minute of `attempts`, `deliveries` and `events` by BRIN indexes, and writes a row for each
//! endpoint, each application and the whole deployment.

use deadpool_postgres::{Object, Transaction};
use fanfare_domain::{
    diagnosis::rollup::{BUCKETS, Count, DURATION_BOUNDS_MS, HOUR, LAG_BOUNDS_MS, Marks, STEP, next_count},
    time::{saturating_add, saturating_sub},
};
use jiff::Timestamp;
use tokio_postgres::types::ToSql;

use crate::{Store, StoreError, operations::partitions::first_id, pipeline::record::INLINE_WITHIN};

/// Columns of the results of attempts, in the order of their classes in [`counted`].
pub(crate) const RESULTS: [&str; 10] = [
    "taken",
    "failed_3xx",
    "failed_4xx",
    "failed_5xx",
    "timed_out",
    "no_connection",
    "tls_failed",
    "forbidden",
    "unknown",
    "other",
];

/// Number of failed attempts of a row.
pub(crate) const FAILED: &str =
    "(failed_3xx + failed_4xx + failed_5xx + timed_out + no_connection + tls_failed + forbidden + unknown + other)";

/// Classes of events with and without a matching endpoint.
const MATCHED: usize = 10;
const UNMATCHED: usize = 11;

/// Class of an attempt `a`. The rules of the application's dialect decided whether the attempt was taken.
const CLASS: &str = "CASE WHEN a.taken THEN 0 ELSE CASE a.outcome
        WHEN 'answered' THEN CASE a.status / 100 WHEN 3 THEN 1 WHEN 4 THEN 2 WHEN 5 THEN 3 ELSE 9 END
        WHEN 'timed_out' THEN 4
        WHEN 'connection_failed' THEN 5 WHEN 'connection_closed' THEN 5 WHEN 'name_not_resolved' THEN 5
        WHEN 'tls_failed' THEN 6 WHEN 'address_forbidden' THEN 7 WHEN 'unknown' THEN 8 ELSE 9 END END";

impl Store {
    /// Takes the next step of the counting. False if nothing was due. A mark moves in the commit that counts: a repeated or
    /// interrupted call counts each minute once.
    pub async fn count_rollups(&self, now: Timestamp) -> Result<bool, StoreError> {
        match next_count(self.rollup_marks().await?, now) {
            None => return Ok(false),
            Some(Count::Minutes { from, to }) => self.count_minutes(from, to).await?,
            Some(Count::Hour { from, is_last }) => self.count_hour(from, is_last).await?,
        }
        Ok(true)
    }

    /// Progress of the counting.
    pub async fn rollup_marks(&self) -> Result<Marks, StoreError> {
        let statement = "SELECT counted, hourly, final FROM rollup_marks";
        let row = self.connection().await?.query_one(statement, &[]).await?;
        Ok(Marks { counted: row.get(0), hourly: row.get(1), last: row.get(2) })
    }

    async fn count_minutes(&self, from: Timestamp, to: Timestamp) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let transaction = begin(&mut connection).await?;
        let moved = "UPDATE rollup_marks SET counted = $2 WHERE counted <= $1";
        // First: the row's lock keeps another process from the same minutes.
        if transaction.execute(moved, &[&from, &to]).await? > 0 {
            count(&transaction, (from, to), false).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Counts an hour anew. Each commit replaces rows, so that a repetition is harmless; a long transaction would hold up
    /// the vacuum of the open deliveries.
    async fn count_hour(&self, from: Timestamp, is_last: bool) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let (mut begins, to) = (from, saturating_add(from, HOUR));
        while begins < to {
            let ends = saturating_add(begins, STEP);
            let transaction = begin(&mut connection).await?;
            count(&transaction, (begins, ends), true).await?;
            transaction.commit().await?;
            begins = ends;
        }
        let mark = if is_last { "final" } else { "hourly" };
        let transaction = connection.transaction().await?;
        transaction.execute(&sum_hour(), &[&from, &to]).await?;
        transaction.execute(&format!("UPDATE rollup_marks SET {mark} = greatest({mark}, $1)"), &[&to]).await?;
        Ok(transaction.commit().await?)
    }
}

/// Begins a transaction for [`count`]. Only bitmap scans use BRIN; on a partition without statistics the planner may
/// choose another index.
async fn begin(connection: &mut Object) -> Result<Transaction<'_>, StoreError> {
    let transaction = connection.transaction().await?;
    transaction.batch_execute("SET LOCAL enable_seqscan = off; SET LOCAL enable_indexscan = off").await?;
    Ok(transaction)
}

/// Counts a time within five minutes. Adds to the rows, or replaces the rows.
async fn count(
    transaction: &Transaction<'_>,
    (from, to): (Timestamp, Timestamp),
    replaces: bool,
) -> Result<(), StoreError> {
    let lags = LAG_BOUNDS_MS.map(|bound| format!("{bound} milliseconds"));
    // An inline success begins soon after its acceptance: the bounds spare the other partitions.
    let (first, last) = (first_id(saturating_sub(from, INLINE_WITHIN)), first_id(to));
    let parameters: [&(dyn ToSql + Sync); 6] =
        [&from, &to, &DURATION_BOUNDS_MS.as_slice(), &lags.as_slice(), &first, &last];
    transaction.execute(&counted(replaces), &parameters).await?;
    Ok(())
}

/// Columns of all counts.
pub(crate) fn count_columns() -> Vec<String> {
    let buckets = ["d", "l"].into_iter().flat_map(|kind| (0..BUCKETS).map(move |bucket| format!("{kind}{bucket}")));
    RESULTS.into_iter().chain(["events", "unmatched"]).map(str::to_owned).chain(buckets).collect()
}

/// Counts the rows from $1 to $2. First by few columns: the many sums then read few rows.
fn counted(replaces: bool) -> String {
    let sum = |condition: String| format!("coalesce(sum(n) FILTER (WHERE {condition}), 0)::int");
    let results = (0..RESULTS.len()).map(|class| sum(format!("class = {class}")));
    let events = [sum(format!("class >= {MATCHED}")), sum(format!("class = {UNMATCHED}"))];
    let buckets = ["d", "l"].into_iter().flat_map(|kind| (0..BUCKETS).map(move |bucket| format!("{kind} = {bucket}")));
    let sums: Vec<String> = results.chain(events).chain(buckets.map(sum)).collect();
    let columns = count_columns();
    let added = |name: &String| match replaces {
        true => format!("{name} = excluded.{name}"),
        false => format!("{name} = r.{name} + excluded.{name}"),
    };
    let updates: Vec<String> = columns.iter().map(added).collect();
    format!(
        "WITH seen AS (
    SELECT d.application_id, d.endpoint_id, d.started_at AS moment, 0 AS class, width_bucket(d.duration_ms, $3::int[]) AS d,
           width_bucket(d.started_at - delivery_accepted_at(d.id), $4::text[]::interval[]) AS l
    FROM deliveries d WHERE d.started_at >= $1 AND d.started_at < $2 AND d.id >= $5 AND d.id < $6
    UNION ALL
    SELECT a.application_id, a.endpoint_id, a.started_at, {CLASS}, width_bucket(a.duration_ms, $3::int[]),
           CASE WHEN a.attempt = 1
                THEN width_bucket(a.started_at - delivery_accepted_at(a.delivery_id), $4::text[]::interval[]) END
    FROM attempts a WHERE a.started_at >= $1 AND a.started_at < $2 AND NOT a.is_test
    UNION ALL
    SELECT e.application_id, NULL, e.accepted_at, CASE WHEN e.matches = 0 THEN {UNMATCHED} ELSE {MATCHED} END, NULL, NULL
    FROM events e WHERE e.accepted_at >= $1 AND e.accepted_at < $2 AND NOT e.is_test
), counted AS MATERIALIZED (
    SELECT application_id, endpoint_id, date_bin('5 minutes', moment, 'epoch') AS at, class, d, l, count(*) AS n
    FROM seen GROUP BY 1, 2, 3, 4, 5, 6
)
INSERT INTO rollups AS r (subject, at, kind, {})
SELECT coalesce(endpoint_id, application_id, '00000000-0000-0000-0000-000000000000'), at,
       CASE grouping(application_id, endpoint_id) WHEN 0 THEN 2 WHEN 1 THEN 1 ELSE 0 END, {}
FROM counted GROUP BY GROUPING SETS ((at, application_id, endpoint_id), (at, application_id), (at))
-- Events have no endpoint.
HAVING grouping(endpoint_id) = 1 OR endpoint_id IS NOT NULL
ON CONFLICT (subject, at) DO UPDATE SET {}",
        columns.join(", "),
        sums.join(",\n       "),
        updates.join(", ")
    )
}

/// Sums the rows of five minutes from $1 to $2 into the rows of the hour.
fn sum_hour() -> String {
    let columns = count_columns();
    let sums: Vec<String> = columns.iter().map(|name| format!("sum({name})::int")).collect();
    let updates: Vec<String> = columns.iter().map(|name| format!("{name} = excluded.{name}")).collect();
    format!(
        "INSERT INTO rollups_hourly (subject, at, kind, {})
         SELECT subject, $1, kind, {} FROM rollups WHERE at >= $1 AND at < $2 GROUP BY subject, kind
         ON CONFLICT (subject, at) DO UPDATE SET {}",
        columns.join(", "),
        sums.join(", "),
        updates.join(", ")
    )
}
