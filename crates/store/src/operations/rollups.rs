//! Rollups: counts attempts and events by time, for charts.
//!
//! The job `rollups` reads a minute of `attempts`, `deliveries` and `events` by BRIN indexes, and writes a row for each
//! endpoint, each application and the whole deployment.

use deadpool_postgres::{Object, Transaction};
use fanfare_domain::{
    diagnosis::rollup::{BUCKETS, Count, DURATION_BOUNDS_MS, HOUR, LAG_BOUNDS_MS, Marks, STEP, floor, next_count},
    ids::first_id,
    time::{begin_of, saturating_add, saturating_sub},
};
use jiff::{Timestamp, ToSpan, civil::Date};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::{Store, StoreError, pipeline::record::INLINE_WITHIN};

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

/// Bytes of the body of an event `e`. An erasure takes them away: a later count lowers no sum.
const BYTES: &str = "(octet_length(e.body) + coalesce(octet_length(e.body_ciphertext), 0))";

/// Counted rows from $1 to $2. $3 and $4 are the ids of [`ids_of_inline`].
const OF_DELIVERIES: &str = "d.started_at >= $1 AND d.started_at < $2 AND d.id >= $3 AND d.id < $4";
const OF_ATTEMPTS: &str = "a.started_at >= $1 AND a.started_at < $2 AND NOT a.is_test";
const OF_EVENTS: &str = "e.accepted_at >= $1 AND e.accepted_at < $2 AND NOT e.is_test";

impl Store {
    /// Takes the next step of the counting. False if nothing was due. A mark moves in the commit that counts: a
    /// repeated or interrupted call counts each minute once.
    pub async fn count_rollups(&self, now: Timestamp) -> Result<bool, StoreError> {
        let marks = self.rollup_marks().await?;
        match next_count(marks, now) {
            None => return Ok(false),
            Some(Count::Minutes { from, to }) => self.count_minutes(from, to, marks.lag(now)).await?,
            Some(Count::Hour { from, is_last }) => self.count_hour(from, is_last).await?,
            Some(Count::Day(day)) => self.settle_day(day).await?,
        }
        Ok(true)
    }

    /// Progress of the counting.
    pub async fn rollup_marks(&self) -> Result<Marks, StoreError> {
        let statement = "SELECT counted, hourly, final, settled, lagged FROM rollup_marks";
        let row = self.connection().await?.query_one(statement, &[]).await?;
        Ok(Marks { counted: row.get(0), hourly: row.get(1), last: row.get(2), settled: row.get(3), lagged: row.get(4) })
    }

    async fn count_minutes(&self, from: Timestamp, to: Timestamp, lag: Option<Timestamp>) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let transaction = begin(&mut connection).await?;
        let moved = "UPDATE rollup_marks SET counted = $2, lagged = greatest(lagged, $3) WHERE counted <= $1";
        // First: the row's lock keeps another process from the same minutes.
        if transaction.execute(moved, &[&from, &to, &lag]).await? > 0 {
            count(&transaction, (from, to), false).await?;
        }
        Ok(transaction.commit().await?)
    }

    /// Counts an hour anew, except steps without attempts recorded late. Each commit replaces rows, so that a
    /// repetition is harmless; a long transaction would hold up the vacuum of the open deliveries.
    async fn count_hour(&self, from: Timestamp, is_last: bool) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let (mut begins, to) = (from, saturating_add(from, HOUR));
        while begins < to {
            let ends = saturating_add(begins, STEP);
            let transaction = begin(&mut connection).await?;
            // First: another process must not add the same difference to the usage.
            transaction.execute("SELECT FROM rollup_marks FOR UPDATE", &[]).await?;
            if !is_complete(&transaction, (begins, ends)).await? {
                count(&transaction, (begins, ends), true).await?;
            }
            transaction.commit().await?;
            begins = ends;
        }
        let mark = if is_last { "final" } else { "hourly" };
        let transaction = connection.transaction().await?;
        transaction.execute(&format!("UPDATE rollup_marks SET {mark} = greatest({mark}, $1)"), &[&to]).await?;
        transaction.execute(&sum_hour(), &[&from, &to]).await?;
        Ok(transaction.commit().await?)
    }

    /// Settles the usage of a UTC day: afterwards, the figures never change. The hours also have what a process of an
    /// earlier release counted. A figure is never lowered: an outage of the job may have left hours without a row.
    async fn settle_day(&self, day: Date) -> Result<(), StoreError> {
        let next = day.saturating_add(1.day());
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        let moved = "UPDATE rollup_marks SET settled = $2 WHERE settled = $1";
        if transaction.execute(moved, &[&day, &next]).await? > 0 {
            transaction.execute(&settled(), &[&begin_of(day), &begin_of(next), &day]).await?;
        }
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

/// Counts a time within a step. Adds to the rows, or replaces the rows.
async fn count(
    transaction: &Transaction<'_>,
    (from, to): (Timestamp, Timestamp),
    replaces: bool,
) -> Result<(), StoreError> {
    let durations = DURATION_BOUNDS_MS.map(f64::from);
    let lags = LAG_BOUNDS_MS.map(|bound| f64::from(bound) / 1000.0);
    let (first, last) = ids_of_inline(from, to);
    let at = floor(from, STEP);
    let parameters: [&(dyn ToSql + Sync); 7] =
        [&from, &to, &first, &last, &at, &durations.as_slice(), &lags.as_slice()];
    transaction.execute(&counted(replaces), &parameters).await?;
    Ok(())
}

/// True if the row of a step counts all attempts and events. A late record adds a row, or completes an `unknown` row.
/// To count rows takes a third of the time of [`count`].
async fn is_complete(transaction: &Transaction<'_>, (from, to): (Timestamp, Timestamp)) -> Result<bool, StoreError> {
    let statement = format!(
        "SELECT coalesce(sum(r.taken + {FAILED}), 0) = (SELECT count(*) FROM deliveries d WHERE {OF_DELIVERIES})
                                                       + (SELECT count(*) FROM attempts a WHERE {OF_ATTEMPTS})
            AND coalesce(sum(r.unknown), 0)
                = (SELECT count(*) FROM attempts a WHERE {OF_ATTEMPTS} AND a.outcome = 'unknown')
            AND coalesce(sum(r.events), 0) = (SELECT count(*) FROM events e WHERE {OF_EVENTS})
            AND coalesce(sum(r.bytes), 0) >= (SELECT coalesce(sum({BYTES}), 0) FROM events e WHERE {OF_EVENTS})
         FROM rollups r WHERE r.subject = '00000000-0000-0000-0000-000000000000' AND r.at = $1"
    );
    let (first, last) = ids_of_inline(from, to);
    Ok(transaction.query_one(&statement, &[&from, &to, &first, &last]).await?.get(0))
}

/// First and last id of the inline successes of a time. An inline success begins soon after its acceptance: the bounds
/// spare the other partitions.
fn ids_of_inline(from: Timestamp, to: Timestamp) -> (Uuid, Uuid) {
    (first_id(saturating_sub(from, INLINE_WITHIN)), first_id(to))
}

/// Columns of all counts.
pub(crate) fn count_columns() -> Vec<String> {
    let buckets = ["d", "l"].into_iter().flat_map(|kind| (0..BUCKETS).map(move |bucket| format!("{kind}{bucket}")));
    RESULTS.into_iter().chain(["events", "unmatched"]).map(str::to_owned).chain(buckets).collect()
}

/// Counts the rows from $1 to $2, within the step that begins at $5. First by few columns: the many sums then read few
/// rows. $6 and $7 are the bounds of durations in milliseconds and of lags in seconds, as `float8`: PostgreSQL finds
/// buckets of other types much slower.
fn counted(replaces: bool) -> String {
    let sum = |condition: String| format!("coalesce(sum(n) FILTER (WHERE {condition}), 0)::int");
    let results = (0..RESULTS.len()).map(|class| sum(format!("class = {class}")));
    let events = [sum(format!("class >= {MATCHED}")), sum(format!("class = {UNMATCHED}"))];
    let buckets = ["d", "l"].into_iter().flat_map(|kind| (0..BUCKETS).map(move |bucket| format!("{kind} = {bucket}")));
    let sums: Vec<String> = results.chain(events).chain(buckets.map(sum)).collect();
    let columns = count_columns();
    let named: Vec<String> = sums.iter().zip(&columns).map(|(sum, name)| format!("{sum} AS {name}")).collect();
    let added = |name: &String| match replaces {
        true => format!("{name} = excluded.{name}"),
        false => format!("{name} = r.{name} + excluded.{name}"),
    };
    let updates: Vec<String> = columns.iter().map(added).collect();
    let bytes = if replaces { "greatest(r.bytes, excluded.bytes)" } else { "r.bytes + excluded.bytes" };
    let emptied = if replaces { emptied() } else { String::new() };
    let (usage, columns) = (used(replaces), columns.join(", "));
    format!(
        "WITH counted AS MATERIALIZED (
    SELECT d.application_id, d.endpoint_id, 0 AS class, width_bucket(d.duration_ms::float8, $6::float8[]) AS d,
           width_bucket(date_part('epoch', d.started_at - delivery_accepted_at(d.id)), $7::float8[]) AS l, count(*) AS n,
           0::bigint AS bytes
    FROM deliveries d WHERE {OF_DELIVERIES} GROUP BY 1, 2, 4, 5
    UNION ALL
    SELECT a.application_id, a.endpoint_id, {CLASS}, width_bucket(a.duration_ms::float8, $6::float8[]),
           CASE WHEN a.attempt = 1
                THEN width_bucket(date_part('epoch', a.started_at - delivery_accepted_at(a.delivery_id)), $7::float8[])
                END,
           count(*), 0::bigint
    FROM attempts a WHERE {OF_ATTEMPTS} GROUP BY 1, 2, 3, 4, 5
    UNION ALL
    SELECT e.application_id, NULL::uuid, CASE WHEN e.matches = 0 AND e.deliver_at IS NULL THEN {UNMATCHED} ELSE {MATCHED} END, NULL::int, NULL::int,
           count(*), sum({BYTES})::bigint
    FROM events e WHERE {OF_EVENTS} GROUP BY 1, 3
), found AS MATERIALIZED (
    SELECT coalesce(endpoint_id, application_id, '00000000-0000-0000-0000-000000000000') AS subject,
           CASE grouping(application_id, endpoint_id) WHEN 0 THEN 2 WHEN 1 THEN 1 ELSE 0 END AS kind, {},
           coalesce(sum(bytes), 0)::bigint AS bytes
    FROM counted GROUP BY GROUPING SETS ((application_id, endpoint_id), (application_id), ())
    -- Events have no endpoint, and the whole deployment may have no row.
    HAVING count(*) > 0 AND (grouping(endpoint_id) = 1 OR endpoint_id IS NOT NULL)
), sums AS MATERIALIZED (
    SELECT * FROM found{emptied}
), {usage}
INSERT INTO rollups AS r (subject, at, kind, {columns}, bytes)
SELECT subject, $5, kind, {columns}, bytes FROM sums
ON CONFLICT (subject, at) DO UPDATE SET {}, bytes = {bytes}",
        named.join(",\n       "),
        updates.join(", ")
    )
}

/// Zeros for the rows of step $5 that a count anew no longer finds: a late record moved their `unknown` attempt to the
/// step of its real start. Such a row of an endpoint has no taken attempt: each condition has its own index.
fn emptied() -> String {
    let zeros: Vec<&str> = count_columns().iter().map(|_| "0").collect();
    let zeros = zeros.join(", ");
    let of = |condition: &str| {
        format!(
            "
    UNION ALL
    SELECT r.subject, r.kind, {zeros}, 0::bigint FROM rollups r
    WHERE r.at = $5 AND {condition} AND NOT EXISTS (SELECT FROM found f WHERE f.subject = r.subject)"
        )
    };
    let conditions = ["r.subject = '00000000-0000-0000-0000-000000000000'", "r.kind = 1", "r.kind = 2 AND r.taken = 0"];
    conditions.map(of).concat()
}

/// Adds the counted attempts and events to the usage of the day. Where the count replaces rows, adds only the
/// difference to the rows before: the statement sees these as they were.
fn used(replaces: bool) -> String {
    let [failed, first] = [failed_of("s"), first_of("s")];
    let [failed_before, first_before] = [failed_of("o"), first_of("o")];
    let (added, before) = match replaces {
        false => (
            format!("s.events, {first}, s.taken, {failed}, s.unknown, s.bytes"),
            String::new(),
        ),
        true => (
            format!(
                "s.events - coalesce(o.events, 0), {first} - coalesce({first_before}, 0), s.taken - coalesce(o.taken, 0),
           {failed} - coalesce({failed_before}, 0), s.unknown - coalesce(o.unknown, 0),
           greatest(s.bytes - coalesce(o.bytes, 0), 0)"
            ),
            " LEFT JOIN rollups o ON o.subject = s.subject AND o.at = $5 AND o.kind = 1".to_owned(),
        ),
    };
    format!(
        "used AS (
    INSERT INTO usage_days AS u (application_id, day, events, deliveries, taken, failed, unknown, bytes)
    SELECT s.subject, ($5::timestamptz AT TIME ZONE 'UTC')::date, {added} FROM sums s{before} WHERE s.kind = 1
    ON CONFLICT (application_id, day) DO UPDATE SET
        events = u.events + excluded.events, deliveries = u.deliveries + excluded.deliveries,
        taken = u.taken + excluded.taken, failed = u.failed + excluded.failed,
        unknown = u.unknown + excluded.unknown, bytes = u.bytes + excluded.bytes
)"
    )
}

/// Sums the hours from $1 to $2 into the usage of the day $3. Of the row and the sum, the one with more attempts gives
/// all columns of attempts: the columns stay those of one count.
fn settled() -> String {
    let (failed, first) = (failed_of("h"), first_of("h"));
    let attempts = |row: &str| format!("{row}.taken + {row}.failed + {row}.unknown");
    let (more, before) = (attempts("excluded"), attempts("u"));
    let chosen = ["deliveries", "taken", "failed", "unknown"]
        .map(|name| format!("{name} = CASE WHEN {more} > {before} THEN excluded.{name} ELSE u.{name} END"));
    format!(
        "INSERT INTO usage_days AS u (application_id, day, events, deliveries, taken, failed, unknown, bytes)
         SELECT h.subject, $3, sum(h.events), sum({first}), sum(h.taken), sum({failed}), sum(h.unknown), sum(h.bytes)
         FROM rollups_hourly h WHERE h.kind = 1 AND h.at >= $1 AND h.at < $2 GROUP BY h.subject
         ON CONFLICT (application_id, day) DO UPDATE SET
             events = greatest(u.events, excluded.events), bytes = greatest(u.bytes, excluded.bytes),
             {}",
        chosen.join(", ")
    )
}

/// Failed attempts in a row of counts, without `unknown` attempts.
fn failed_of(row: &str) -> String {
    let failed: Vec<String> = RESULTS
        .into_iter()
        .filter(|name| !["taken", "unknown"].contains(name))
        .map(|name| format!("{row}.{name}"))
        .collect();
    format!("({})::bigint", failed.join(" + "))
}

/// First attempts in a row of counts: each has a time from acceptance.
fn first_of(row: &str) -> String {
    let lags: Vec<String> = (0..BUCKETS).map(|bucket| format!("{row}.l{bucket}")).collect();
    format!("({})::bigint", lags.join(" + "))
}

/// Sums the rows of five minutes from $1 to $2 into the rows of the hour.
fn sum_hour() -> String {
    let columns = count_columns();
    let sums: Vec<String> = columns.iter().map(|name| format!("sum({name})::int")).collect();
    let updates: Vec<String> = columns.iter().map(|name| format!("{name} = excluded.{name}")).collect();
    format!(
        "INSERT INTO rollups_hourly (subject, at, kind, {}, bytes)
         SELECT subject, $1, kind, {}, sum(bytes)::bigint FROM rollups WHERE at >= $1 AND at < $2 GROUP BY subject, kind
         ON CONFLICT (subject, at) DO UPDATE SET {}, bytes = excluded.bytes",
        columns.join(", "),
        sums.join(", "),
        updates.join(", ")
    )
}
