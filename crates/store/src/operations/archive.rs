//! Pages of an expired day's rows, for the archive. The rows are read straight from the day's partitions, also after a
//! detach.

use std::collections::{BTreeMap, HashSet};

use fanfare_domain::{
    diagnosis::rollup::KEPT,
    ids::first_id,
    time::{DAY, begin_of, saturating_add, saturating_sub},
};
use jiff::{Timestamp, civil::Date};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    connection::store::row_count,
    operations::partitions::{DAILY, Day},
};

/// Maximum of rows in a page.
const PAGE_ROWS: usize = 2000;

/// Size of bodies and answers after which a page ends, in bytes. A page has at least one row.
const PAGE_BYTES: i64 = 4 * 1024 * 1024;

/// Without statistics of the partition the planner may choose a scan and a sort of the whole day.
const INDEX_ONLY: &str = "SET LOCAL enable_seqscan = off; SET LOCAL enable_bitmapscan = off";

/// True if the day from $1 to $2, with ids from $3 to $4, has a row that is counted again. Rows before $5 are never
/// counted again.
fn uncounted() -> String {
    let again = "greatest((SELECT final FROM rollup_marks), $5)";
    format!(
        "SELECT EXISTS (SELECT FROM events WHERE accepted_at >= $1 AND accepted_at < $2 AND accepted_at >= {again})
             OR EXISTS (SELECT FROM deliveries WHERE id >= $3 AND id < $4 AND started_at >= {again})
             OR EXISTS (SELECT FROM attempts WHERE delivery_id >= $3 AND delivery_id < $4 AND started_at >= {again})"
    )
}

/// A table partitioned by day.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DailyTable {
    /// Events.
    Events,
    /// Finished deliveries.
    Deliveries,
    /// Attempts.
    Attempts,
}

/// A day below the line of retention, whose tables are not all dropped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ExpiredDay {
    /// The day, in UTC.
    pub date: Date,
    /// Names of the remaining tables, in the order of the drop.
    pub(super) tables: Vec<String>,
}

/// A row for the archive.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ArchivedRow {
    /// Key of the table, in parts of a fixed width: a page's last key begins the next page.
    pub key: Vec<String>,
    /// The row as PostgreSQL writes a row in JSON, without `mailed_to`.
    pub json: String,
}

impl DailyTable {
    fn name(self) -> &'static str {
        match self {
            Self::Events => "events",
            Self::Deliveries => "deliveries",
            Self::Attempts => "attempts",
        }
    }

    /// Columns of the key, the key as texts, the key from the texts `$1`, and the size of a row's long columns.
    fn parts(self) -> [&'static str; 4] {
        match self {
            Self::Events => [
                "application_id, accepted_at, id",
                "application_id::text, to_char(accepted_at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"'), \
                 id::text",
                "($1::text[])[1]::uuid, ($1::text[])[2]::timestamptz, ($1::text[])[3]::uuid",
                "octet_length(body) + 2 * coalesce(octet_length(body_ciphertext), 0)",
            ],
            Self::Deliveries => [
                "application_id, id",
                "application_id::text, id::text",
                "($1::text[])[1]::uuid, ($1::text[])[2]::uuid",
                "2 * coalesce(octet_length(response_body), 0) + coalesce(octet_length(response_headers), 0)",
            ],
            Self::Attempts => [
                "delivery_id, attempt",
                "delivery_id::text, lpad(attempt::text, 10, '0')",
                "($1::text[])[1]::uuid, ($1::text[])[2]::int",
                "2 * coalesce(octet_length(response_body), 0) + coalesce(octet_length(response_headers), 0)",
            ],
        }
    }
}

/// A delivery as JSON, with the members of its own body, if any, from the partition `bodies`.
fn with_own_body(bodies: &str) -> String {
    format!(
        "((to_jsonb(row) - 'mailed_to') || coalesce((SELECT jsonb_strip_nulls(to_jsonb(own) - 'id') FROM {bodies} own
                                                   WHERE own.id = row.id), '{{}}'))::text"
    )
}

/// Size of a delivery's long columns, with its own body.
fn with_own_size(size: &str, partition: &str, bodies: &str) -> String {
    format!(
        "{size} + coalesce((SELECT coalesce(octet_length(own.body), 0) + 2 * coalesce(octet_length(own.body_ciphertext), 0)
                            FROM {bodies} own WHERE own.id = {partition}.id), 0)"
    )
}

impl ExpiredDay {
    /// True if the day's table is not dropped.
    pub fn has(&self, table: DailyTable) -> bool {
        self.table(table).is_some()
    }

    /// Beginning of the day.
    pub fn begin(&self) -> Timestamp {
        begin_of(self.date)
    }

    /// Name of the day's table, unless dropped.
    fn table(&self, table: DailyTable) -> Option<&str> {
        self.tables.iter().find(|name| name.starts_with(table.name())).map(String::as_str)
    }
}

impl Store {
    /// Forbids the drop of days that are not archived, also to other processes. Returns the id of this deployment.
    pub async fn require_archive(&self) -> Result<Uuid, StoreError> {
        let connection = self.connection().await?;
        connection.execute("UPDATE retention SET archives = true WHERE NOT archives", &[]).await?;
        Ok(connection.query_one("SELECT deployment FROM retention", &[]).await?.get(0))
    }

    /// Permits the drop of days that are not archived. False if that was permitted already.
    pub async fn release_archive(&self) -> Result<bool, StoreError> {
        let statement = "UPDATE retention SET archives = false WHERE archives";
        Ok(self.connection().await?.execute(statement, &[]).await? > 0)
    }

    /// Marks a day as archived: the day may be dropped.
    pub async fn mark_archived(&self, day: &ExpiredDay) -> Result<(), StoreError> {
        let statement = "INSERT INTO archived_days (day) VALUES ($1::text::date) ON CONFLICT DO NOTHING";
        self.connection().await?.execute(statement, &[&day.date.to_string()]).await?;
        Ok(())
    }

    /// Days below the line that are not archived, oldest first.
    pub async fn days_to_archive(&self, line: Timestamp) -> Result<Vec<ExpiredDay>, StoreError> {
        let archived = self.archived_days().await?;
        let days = self.expired_days(line).await?;
        Ok(days.into_iter().filter(|day| !archived.contains(&day.date)).collect())
    }

    /// Days below the line that may be dropped, oldest first, and the beginning of the oldest day that may not. A day
    /// with rows that the job `rollups` counts anew stays: a count without these rows would lower the usage.
    pub(super) async fn days_to_drop(&self, line: Timestamp) -> Result<(Vec<ExpiredDay>, Timestamp), StoreError> {
        let connection = self.connection().await?;
        let archives: bool = connection.query_one("SELECT archives FROM retention", &[]).await?.get(0);
        let archived = if archives { Some(self.archived_days().await?) } else { None };
        let (mut ready, mut kept) = (Vec::new(), Vec::new());
        let (uncounted, never_again) = (uncounted(), saturating_sub(self.now(), KEPT));
        for day in self.expired_days(line).await? {
            let is_archived = archived.as_ref().is_none_or(|archived| archived.contains(&day.date));
            let (from, to) = (day.begin(), saturating_add(day.begin(), DAY));
            let parameters: [&(dyn ToSql + Sync); 5] = [&from, &to, &first_id(from), &first_id(to), &never_again];
            if is_archived && !connection.query_one(&uncounted, &parameters).await?.get::<_, bool>(0) {
                ready.push(day);
            } else {
                kept.push(day);
            }
        }
        Ok((ready, kept.first().map_or(line, ExpiredDay::begin)))
    }

    async fn archived_days(&self) -> Result<HashSet<Date>, StoreError> {
        let rows = self.connection().await?.query("SELECT to_char(day, 'YYYY-MM-DD') FROM archived_days", &[]).await?;
        let date = |text: &str| {
            text.parse().map_err(|error| StoreError::corrupt("archived_days", format!("{text:?}: {error}")))
        };
        rows.iter().map(|row| date(row.get(0))).collect()
    }

    /// Days below the line of retention with tables that are not dropped, oldest first.
    pub async fn expired_days(&self, line: Timestamp) -> Result<Vec<ExpiredDay>, StoreError> {
        let statement = format!(
            "SELECT relname::text, right(relname::text, 8) FROM pg_class
             WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
               AND relname ~ '^({})_p[0-9]{{8}}$' AND right(relname::text, 9) < $1 ORDER BY 2, 1",
            DAILY.join("|")
        );
        let rows = self.connection().await?.query(&statement, &[&Day::of(line, 0).name()]).await?;
        let mut days: BTreeMap<Date, Vec<String>> = BTreeMap::new();
        for row in rows {
            let (table, digits): (String, &str) = (row.get(0), row.get(1));
            let date = Date::strptime("%Y%m%d", digits)
                .map_err(|error| StoreError::corrupt("pg_class", format!("{table}: {error}")))?;
            days.entry(date).or_default().push(table);
        }
        // The names of the tables sort in the order of the drop.
        Ok(days.into_iter().map(|(date, tables)| ExpiredDay { date, tables }).collect())
    }

    /// A page of a table's rows behind `after`, sorted by key. Empty at the end, and for a dropped table.
    pub async fn page_of_day(
        &self,
        day: &ExpiredDay,
        table: DailyTable,
        after: Option<&[String]>,
    ) -> Result<Vec<ArchivedRow>, StoreError> {
        let Some(partition) = day.table(table) else { return Ok(Vec::new()) };
        let [key, texts, from_texts, size] = table.parts();
        // The archive outlives the retention: it has no addresses of mails.
        let (whole, size) = match (table, self.own_bodies_of_day(day).await?) {
            (DailyTable::Deliveries, Some(bodies)) => (with_own_body(bodies), with_own_size(size, partition, bodies)),
            (DailyTable::Deliveries, None) => ("(to_jsonb(row) - 'mailed_to')::text".to_owned(), size.to_owned()),
            _ => ("row_to_json(row)::text".to_owned(), size.to_owned()),
        };
        let place = if after.is_some() { format!("({key}) > ({from_texts})") } else { "$1::text[] IS NULL".to_owned() };
        // The long columns are read only for the rows of the page: `octet_length` reads no TOAST.
        let statement = format!(
            "WITH keys AS MATERIALIZED (
                 SELECT {key}, sum(size) OVER (ORDER BY {key} ROWS UNBOUNDED PRECEDING) - size AS before
                 FROM (SELECT {key}, {size} AS size FROM {partition} WHERE {place} ORDER BY {key} LIMIT $2) page
             )
             SELECT ARRAY[{texts}] AS key, whole.json
             FROM keys CROSS JOIN LATERAL (
                 SELECT {whole} AS json FROM {partition} row
                 WHERE {same} LIMIT 1
             ) whole WHERE before < $3 ORDER BY {key}",
            same =
                key.split(", ").map(|column| format!("row.{column} = keys.{column}")).collect::<Vec<_>>().join(" AND "),
        );
        let mut connection = self.connection().await?;
        let transaction = connection.build_transaction().read_only(true).start().await?;
        transaction.batch_execute(INDEX_ONLY).await?;
        let rows = transaction.query(&statement, &[&after, &row_count(PAGE_ROWS), &PAGE_BYTES]).await?;
        transaction.commit().await?;
        Ok(rows.iter().map(|row| ArchivedRow { key: row.get(0), json: row.get(1) }).collect())
    }

    /// Name of the day's table of the deliveries' own bodies; `None` without such a body.
    async fn own_bodies_of_day<'a>(&self, day: &'a ExpiredDay) -> Result<Option<&'a str>, StoreError> {
        let Some(bodies) = day.tables.iter().find(|name| name.starts_with("delivery_bodies")) else { return Ok(None) };
        let statement = format!("SELECT EXISTS (SELECT FROM {bodies})");
        let has_any: bool = self.connection().await?.query_one(&statement, &[]).await?.get(0);
        Ok(has_any.then_some(bodies.as_str()))
    }

    /// Keys of the day's first and last event. `None` without events, and after the drop of the table.
    pub async fn event_range(&self, day: &ExpiredDay) -> Result<Option<[Vec<String>; 2]>, StoreError> {
        let Some(partition) = day.table(DailyTable::Events) else { return Ok(None) };
        let [key, texts, ..] = DailyTable::Events.parts();
        let end = |order: &str| {
            let columns: Vec<String> = key.split(", ").map(|column| format!("{column} {order}")).collect();
            format!("(SELECT ARRAY[{texts}] FROM {partition} ORDER BY {} LIMIT 1)", columns.join(", "))
        };
        let mut connection = self.connection().await?;
        let transaction = connection.build_transaction().read_only(true).start().await?;
        transaction.batch_execute(INDEX_ONLY).await?;
        let row = transaction.query_one(&format!("SELECT {}, {}", end("ASC"), end("DESC")), &[]).await?;
        transaction.commit().await?;
        let (first, last): (Option<_>, Option<_>) = (row.get(0), row.get(1));
        Ok(first.zip(last).map(|(first, last)| [first, last]))
    }

    /// Detaches and drops the tables of a day, the events last, and the mark of the day. After an error, a call with
    /// the remaining tables continues.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] after the lock timeout.
    pub async fn drop_day(&self, day: &ExpiredDay) -> Result<(), StoreError> {
        for table in &day.tables {
            let parent = table.split_once("_p").map_or(table.as_str(), |(parent, _)| parent);
            self.drop_partition(parent, table).await?;
        }
        let statement = "DELETE FROM archived_days WHERE day = $1::text::date";
        self.connection().await?.execute(statement, &[&day.date.to_string()]).await?;
        Ok(())
    }
}
