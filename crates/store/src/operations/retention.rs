//! The end of retention: raises the line, ends the open deliveries below the line, and drops the partitions there.
//! Nothing is opened below the line.

use fanfare_domain::{delivery::FailureReason, ids::first_id};
use jiff::Timestamp;
use tokio_postgres::types::ToSql;

use crate::{
    Store, StoreError,
    operations::{
        archive::ExpiredDay,
        partitions::{Day, LOCK_TIMEOUT},
    },
    pipeline::finish::FINISH,
};

/// Maximum of open deliveries to end in one statement.
const BATCH: i64 = 1000;

impl Store {
    /// Raises the line of retention to the beginning of a moment's day. False if the line was as high already.
    pub async fn raise_line(&self, oldest: Timestamp) -> Result<bool, StoreError> {
        let statement = "UPDATE retention SET line = $1 WHERE line < $1";
        Ok(self.connection().await?.execute(statement, &[&Day::of(oldest, 0).from]).await? > 0)
    }

    /// The line of retention; `None` if never raised.
    pub async fn line(&self) -> Result<Option<Timestamp>, StoreError> {
        let statement = "SELECT nullif(line, '-infinity') FROM retention";
        Ok(self.connection().await?.query_one(statement, &[]).await?.get(0))
    }

    /// The line below which all deliveries are ended; `None` at first.
    pub async fn ended_line(&self) -> Result<Option<Timestamp>, StoreError> {
        let statement = "SELECT nullif(ended, '-infinity') FROM retention";
        Ok(self.connection().await?.query_one(statement, &[]).await?.get(0))
    }

    /// Marks that all deliveries below a line are ended: nothing below changes any more.
    pub async fn mark_ended(&self, line: Timestamp) -> Result<(), StoreError> {
        let statement = "UPDATE retention SET ended = $1 WHERE ended < $1";
        self.connection().await?.execute(statement, &[&line]).await?;
        Ok(())
    }

    /// True if a partition lies below the line.
    pub async fn has_below_line(&self) -> Result<bool, StoreError> {
        let statement = "SELECT EXISTS (SELECT FROM pg_class, retention
                             WHERE relkind = 'r' AND relname ~ '^deliveries_p[0-9]{8}$'
                               AND relname < 'deliveries_p' || to_char(line AT TIME ZONE 'UTC', 'YYYYMMDD'))";
        Ok(self.connection().await?.query_one(statement, &[]).await?.get(0))
    }

    /// Ends the open deliveries below the line, as expired. Returns the number of ended deliveries.
    pub async fn end_below_line(&self, line: Timestamp) -> Result<u64, StoreError> {
        let statement = format!(
            "WITH chosen AS MATERIALIZED (
    SELECT id FROM open_deliveries WHERE id < $1 ORDER BY id LIMIT $2 FOR UPDATE
), ended AS (
    DELETE FROM open_deliveries o WHERE o.id = ANY (ARRAY(SELECT id FROM chosen))
    RETURNING o.id, o.event_id, o.application_id, o.endpoint_id, o.finished_once, o.replay_id, o.failures,
              o.attempt - 1 AS attempt, 'failed' AS state, $3::text AS reason, true AS notifies
), {FINISH}
SELECT count(*) FROM ended"
        );
        let (first, reason) = (first_id(line), FailureReason::Expired.as_str());
        let parameters: [&(dyn ToSql + Sync); 3] = [&first, &BATCH, &reason];
        let mut total = 0;
        loop {
            let ended: i64 = self.connection().await?.query_one(&statement, &parameters).await?.get(0);
            total += ended.unsigned_abs();
            if ended < BATCH {
                return Ok(total);
            }
        }
    }

    /// Detaches and drops the partitions below the line, each table in transactions of its own; while the database
    /// requires the archive, only of archived days. Returns the names of the dropped tables. A call repeated after an
    /// error continues with the remaining tables.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] after the lock timeout.
    pub async fn drop_below_line(&self, line: Timestamp) -> Result<Vec<String>, StoreError> {
        let (days, kept_from) = self.days_to_drop(line).await?;
        let mut dropped = Vec::new();
        for day in days {
            self.drop_day(&day).await?;
            dropped.extend(day.tables);
        }
        // A key outlives the events of its month.
        let month = &Day::of(kept_from, 0).name()[..7];
        for name in self.tables_before("event_keys", &format!("event_keys_{month}"), 6).await? {
            self.drop_partition("event_keys", &name).await?;
            dropped.push(name);
        }
        Ok(dropped)
    }

    /// Drops the partitions of rollups at the end of their time: rollups of five minutes before `oldest`, and hourly
    /// rollups below the line. Returns the names of the dropped tables.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] after the lock timeout.
    pub async fn drop_rollups(&self, oldest: Timestamp, line: Timestamp) -> Result<Vec<String>, StoreError> {
        let mut dropped = Vec::new();
        for (table, kept_from) in [("rollups", oldest), ("rollups_hourly", line)] {
            let limit = format!("{table}_{}", Day::of(kept_from, 0).name());
            for name in self.tables_before(table, &limit, 8).await? {
                self.drop_partition(table, &name).await?;
                dropped.push(name);
            }
        }
        Ok(dropped)
    }

    /// Removes open deliveries below the line whose partitions are gone. Returns the number of removed deliveries.
    pub async fn purge_below_line(&self, line: Timestamp) -> Result<u64, StoreError> {
        let oldest = self.expired_days(line).await?.first().map_or(line, ExpiredDay::begin);
        let statement = "DELETE FROM open_deliveries WHERE id < $1";
        Ok(self.connection().await?.execute(statement, &[&first_id(oldest)]).await?)
    }

    /// Names of a table's partitions before `limit`, sorted. The name finds a table that was detached before its
    /// process died.
    async fn tables_before(&self, table: &str, limit: &str, digits: i32) -> Result<Vec<String>, StoreError> {
        let statement = "SELECT relname::text FROM pg_class
                         WHERE relkind = 'r' AND relnamespace = current_schema()::regnamespace
                           AND relname ~ ('^' || $1 || '_p[0-9]{' || $3 || '}$') AND relname < $2 ORDER BY 1";
        let rows = self.connection().await?.query(statement, &[&table, &limit, &digits.to_string()]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Detaches a partition, unless detached, and drops the partition.
    pub(super) async fn drop_partition(&self, table: &str, name: &str) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let is_attached = "SELECT relispartition FROM pg_class WHERE oid = $1::text::regclass";
        if connection.query_one(is_attached, &[&name]).await?.get(0) {
            let transaction = connection.transaction().await?;
            transaction.batch_execute(LOCK_TIMEOUT).await?;
            transaction.batch_execute(&format!("ALTER TABLE {table} DETACH PARTITION {name}")).await?;
            transaction.commit().await?;
        }
        let indexes = "SELECT indexrelid::regclass::text FROM pg_index
                       WHERE indrelid = $1::text::regclass AND NOT indisprimary";
        for index in connection.query(indexes, &[&name]).await? {
            connection.batch_execute(&format!("DROP INDEX {}", index.get::<_, &str>(0))).await?;
        }
        Ok(connection.batch_execute(&format!("DROP TABLE {name}")).await?)
    }
}
