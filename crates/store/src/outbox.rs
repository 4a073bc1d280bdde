//! The outbox table in a publisher's database.

use std::time::Duration;

use fanfare_domain::event::{outbox::OutboxRow, trace_context::TraceContext};
use tokio_postgres::Row;

use crate::{
    Store, StoreError, StoreSettings,
    connection::store::row_count,
    operations::advisory_locks::{AdvisoryLock, LOCK_SPACE},
};

/// Stored size of the payloads in hand, in bytes, from which no further row is read. PostgreSQL compresses large
/// payloads.
const MAX_BYTES: i64 = 4 * 1024 * 1024;

/// Deadline of a statement.
const DEADLINE: Duration = Duration::from_secs(10);

/// An outbox table. Cheap to clone.
#[derive(Clone)]
pub struct Outbox {
    store: Store,
    table: OutboxTable,
    keeps: bool,
}

/// Name of an outbox table: `table` or `schema.table`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OutboxTable(String);

/// The text is not the name of a table.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("expected table or schema.table, of lower-case letters, digits and _")]
pub struct InvalidTable;

impl std::str::FromStr for OutboxTable {
    type Err = InvalidTable;

    fn from_str(text: &str) -> Result<Self, InvalidTable> {
        let is_word = |word: &str| {
            word.starts_with(|first: char| first.is_ascii_lowercase() || first == '_')
                && word.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        let words: Vec<&str> = text.split('.').collect();
        if words.len() <= 2 && words.into_iter().all(is_word) { Ok(Self(text.to_owned())) } else { Err(InvalidTable) }
    }
}

/// Rows that a relay defers: by position, and all rows of the same application and ordering key.
#[derive(Debug, Clone, Default)]
pub struct DeferredRows {
    /// Positions of the rows.
    pub positions: Vec<i64>,
    /// Applications of the rows.
    pub applications: Vec<String>,
    /// Ordering keys of the rows, for each entry of `applications`.
    pub ordering_keys: Vec<String>,
}

impl Outbox {
    /// Prepares connections to the publisher's database. With `keeps`, published rows stay in the table with the time
    /// of publishing; otherwise published rows are deleted.
    ///
    /// # Errors
    /// If the settings yield no pool.
    pub fn new(settings: StoreSettings, table: OutboxTable, keeps: bool) -> Result<Self, StoreError> {
        Ok(Self { store: Store::new(settings)?, table, keeps })
    }

    /// Becomes the active relay of the table; `None` while another process is.
    pub async fn try_lock(&self) -> Result<Option<AdvisoryLock>, StoreError> {
        let locked = async {
            let connection = self.store.lock_connection().await?;
            let statement = "SELECT pg_try_advisory_lock($1, $2::text::regclass::oid::int)";
            let is_locked: bool = connection.query_one(statement, &[&LOCK_SPACE, &self.table.0]).await?.get(0);
            Ok(is_locked.then(|| AdvisoryLock::of(connection)))
        };
        self.store.with_deadline(DEADLINE, locked).await
    }

    /// The rights on the table that the relay needs and the user lacks.
    pub async fn missing_rights(&self) -> Result<Vec<&'static str>, StoreError> {
        let needed = if self.keeps { ["SELECT", "UPDATE"].as_slice() } else { &["SELECT", "UPDATE", "DELETE"] };
        let looked = async {
            let connection = self.store.connection().await?;
            let mut missing = Vec::new();
            for right in needed {
                let statement = "SELECT has_table_privilege($1::text, $2::text)";
                if !connection.query_one(statement, &[&self.table.0, right]).await?.get::<_, bool>(0) {
                    missing.push(*right);
                }
            }
            Ok(missing)
        };
        self.store.with_deadline(DEADLINE, looked).await
    }

    /// The first rows in order, at most `limit` rows of 4 MiB, that are neither published nor refused nor deferred.
    pub async fn next(&self, limit: usize, deferred: &DeferredRows) -> Result<Vec<OutboxRow>, StoreError> {
        let statement = format!(
            "WITH first AS (
                 SELECT position, pg_column_size(data) AS size FROM {table} o
                 WHERE published_at IS NULL AND refused IS NULL
                   AND NOT EXISTS (SELECT FROM unnest($2::bigint[]) AS d(position) WHERE d.position = o.position)
                   AND NOT EXISTS (SELECT FROM unnest($3::text[], $4::text[]) AS d(application, ordering_key)
                                   WHERE d.application = o.application AND d.ordering_key = o.ordering_key)
                 ORDER BY position LIMIT $1
             ), summed AS (SELECT position, sum(size) OVER (ORDER BY position) - size AS before FROM first)
             SELECT {COLUMNS} FROM summed JOIN {table} o USING (position) WHERE before < $5 ORDER BY position",
            table = self.table.0
        );
        let limit = row_count(limit);
        let DeferredRows { positions, applications, ordering_keys } = deferred;
        let read = async {
            let connection = self.store.connection().await?;
            let rows =
                connection.query(&statement, &[&limit, positions, applications, ordering_keys, &MAX_BYTES]).await?;
            rows.iter().map(row).collect()
        };
        self.store.with_deadline(DEADLINE, read).await
    }

    /// The row at a position, unless published or refused meanwhile.
    pub async fn at(&self, position: i64) -> Result<Option<OutboxRow>, StoreError> {
        let statement = format!(
            "SELECT {COLUMNS} FROM {} o WHERE position = $1 AND published_at IS NULL AND refused IS NULL",
            self.table.0
        );
        let read = async {
            let found = self.store.connection().await?.query_opt(&statement, &[&position]).await?;
            found.as_ref().map(row).transpose()
        };
        self.store.with_deadline(DEADLINE, read).await
    }

    /// Deletes published rows, or marks them.
    pub async fn published(&self, positions: &[i64]) -> Result<(), StoreError> {
        let table = &self.table.0;
        let statement = match self.keeps {
            true => format!("UPDATE {table} SET published_at = clock_timestamp() WHERE position = ANY ($1)"),
            false => format!("DELETE FROM {table} WHERE position = ANY ($1)"),
        };
        let written = async {
            self.store.connection().await?.execute(&statement, &[&positions]).await?;
            Ok(())
        };
        self.store.with_deadline(DEADLINE, written).await
    }

    /// Marks a row that can never be published with the reason.
    pub async fn refuse(&self, position: i64, reason: &str) -> Result<(), StoreError> {
        let statement = format!("UPDATE {} SET refused = $2 WHERE position = $1", self.table.0);
        let written = async {
            self.store.connection().await?.execute(&statement, &[&position, &reason]).await?;
            Ok(())
        };
        self.store.with_deadline(DEADLINE, written).await
    }

    /// The time since the insertion of the oldest row that waits; zero without a row.
    pub async fn age(&self) -> Result<Duration, StoreError> {
        let statement = format!(
            "SELECT coalesce((SELECT extract(epoch FROM clock_timestamp() - inserted_at)::float8 FROM {}
                              WHERE published_at IS NULL AND refused IS NULL ORDER BY position LIMIT 1), 0)",
            self.table.0
        );
        let read = async { Ok(self.store.connection().await?.query_one(&statement, &[]).await?.get::<_, f64>(0)) };
        let seconds = self.store.with_deadline(DEADLINE, read).await?;
        Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
    }
}

/// Columns of a row, by types that do not depend on the table's: a publisher may have made the table in another way.
const COLUMNS: &str =
    "o.position::int8 AS position, application::text, type::text, id::text, data::text, ordering_key::text,
    CASE WHEN isfinite(time) THEN to_char(time AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') END AS time,
    traceparent::text, tracestate::text";

fn row(row: &Row) -> Result<OutboxRow, StoreError> {
    let traceparent: Option<&str> = row.try_get("traceparent")?;
    let tracestate = row.try_get("tracestate")?;
    Ok(OutboxRow {
        position: row.try_get("position")?,
        application: row.try_get("application")?,
        event_type: row.try_get("type")?,
        id: row.try_get("id")?,
        data: row.try_get("data")?,
        time: row.try_get("time")?,
        ordering_key: row.try_get("ordering_key")?,
        trace: traceparent.and_then(|parent| TraceContext::of_headers(parent, tracestate)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_a_plain_name() {
        for name in ["fanfare_outbox", "billing.outbox2", "_o"] {
            assert_eq!(name.parse(), Ok(OutboxTable(name.to_owned())));
        }
        for name in ["", "a.b.c", "a b", "Outbox", "2a", "a;DROP TABLE b", "a.", "\"a\"", "a--"] {
            assert_eq!(name.parse::<OutboxTable>(), Err(InvalidTable), "{name}");
        }
    }
}
