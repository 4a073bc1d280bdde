//! The outbox table in a publisher's database.

use std::time::Duration;

use fanfare_domain::event::{outbox::OutboxRow, trace_context::TraceContext};
use tokio_postgres::Row;

use crate::{
    Store, StoreError, StoreSettings,
    operations::advisory_locks::{AdvisoryLock, LOCK_SPACE},
};

/// Size of the payloads in hand from which no further row is read.
const MAX_BYTES: i64 = 16 * 1024 * 1024;

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

/// Rows that a relay leaves for a while: by position, and all rows of the same application and ordering key.
#[derive(Debug, Clone, Default)]
pub struct LeftRows {
    /// Positions of the rows.
    pub positions: Vec<i64>,
    /// Applications of the rows, and their ordering keys.
    pub keys: Vec<(String, String)>,
}

impl Outbox {
    /// Prepares connections to the publisher's database. With `keeps`, published rows stay in the table with the time of
    /// publishing; otherwise published rows are deleted.
    ///
    /// # Errors
    /// If the settings yield no pool.
    pub fn new(settings: StoreSettings, table: OutboxTable, keeps: bool) -> Result<Self, StoreError> {
        Ok(Self { store: Store::new(settings)?, table, keeps })
    }

    /// Becomes the active relay of the table; `None` while another process is.
    pub async fn try_lock(&self) -> Result<Option<AdvisoryLock>, StoreError> {
        let connection = self.store.lock_connection().await?;
        let statement = "SELECT pg_try_advisory_lock($1, hashtext($2))";
        let is_locked: bool = connection.query_one(statement, &[&LOCK_SPACE, &self.table.0]).await?.get(0);
        Ok(is_locked.then(|| AdvisoryLock::of(connection)))
    }

    /// The first rows in order, at most `limit` rows and 16 MiB, that are neither published nor refused, without rows in `left`.
    pub async fn next(&self, limit: usize, left: &LeftRows) -> Result<Vec<OutboxRow>, StoreError> {
        let statement = format!(
            "SELECT position, application, type, id, data, time, ordering_key, traceparent, tracestate
             FROM (SELECT position::int8, application::text, type::text, id::text, data::text, time::timestamptz,
                          ordering_key::text, traceparent::text, tracestate::text,
                          sum(octet_length(data::text)) OVER (ORDER BY position) - octet_length(data::text) AS before
                   FROM (SELECT * FROM {} o
                         WHERE published_at IS NULL AND refused IS NULL AND position <> ALL ($2)
                           AND NOT EXISTS (SELECT FROM unnest($3::text[], $4::text[]) AS l(application, ordering_key)
                                           WHERE l.application = o.application AND l.ordering_key = o.ordering_key)
                         ORDER BY position LIMIT $1) first) summed
             WHERE before < $5 ORDER BY position",
            self.table.0
        );
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let (applications, keys): (Vec<&str>, Vec<&str>) =
            left.keys.iter().map(|(application, key)| (application.as_str(), key.as_str())).unzip();
        let connection = self.store.connection().await?;
        let rows = connection.query(&statement, &[&limit, &left.positions, &applications, &keys, &MAX_BYTES]).await?;
        rows.iter().map(row).collect()
    }

    /// Deletes published rows, or marks them.
    pub async fn published(&self, positions: &[i64]) -> Result<(), StoreError> {
        let table = &self.table.0;
        let statement = match self.keeps {
            true => format!("UPDATE {table} SET published_at = clock_timestamp() WHERE position = ANY ($1)"),
            false => format!("DELETE FROM {table} WHERE position = ANY ($1)"),
        };
        self.store.connection().await?.execute(&statement, &[&positions]).await?;
        Ok(())
    }

    /// Marks a row that can never be published with the reason.
    pub async fn refuse(&self, position: i64, reason: &str) -> Result<(), StoreError> {
        let statement = format!("UPDATE {} SET refused = $2 WHERE position = $1", self.table.0);
        self.store.connection().await?.execute(&statement, &[&position, &reason]).await?;
        Ok(())
    }

    /// The age of the oldest row that waits; zero without a row.
    pub async fn age(&self) -> Result<Duration, StoreError> {
        let statement = format!(
            "SELECT coalesce((SELECT extract(epoch FROM clock_timestamp() - time)::float8 FROM {}
                              WHERE published_at IS NULL AND refused IS NULL ORDER BY position LIMIT 1), 0)",
            self.table.0
        );
        let seconds: f64 = self.store.connection().await?.query_one(&statement, &[]).await?.get(0);
        Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
    }
}

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
