//! The days in which events, deliveries and attempts are kept.

use std::time::Duration;

use jiff::{Timestamp, tz::TimeZone};

use crate::{Store, StoreError, jobs::LOCK_SPACE};

/// The tables that are partitioned by the day of acceptance.
const TABLES: [&str; 3] = ["events", "deliveries", "attempts"];

/// Days for which partitions are made ahead: as long as the job that makes them may fail unnoticed.
const DAYS_AHEAD: i64 = 7;

/// Days back for which partitions are made as well: an event may have been accepted by ingest
/// while it waited in the broker for the first dispatcher.
const DAYS_BACK: i64 = 2;

/// Keys that are deleted by one statement, and statements in one turn of the job.
const KEYS_PER_STEP: i64 = 10_000;
const MAX_KEY_STEPS: usize = 1_000;

/// A partition's day: its name's ending, its first moment and the next day's.
struct Day {
    name: String,
    from: Timestamp,
    to: Timestamp,
}

impl Day {
    fn of(moment: Timestamp, offset: i64) -> Self {
        const SECONDS: i64 = 86400;
        let start = moment.as_second().div_euclid(SECONDS) + offset;
        let at = |day: i64| Timestamp::from_second(day * SECONDS).unwrap_or(moment);
        let from = at(start);
        let name = from.to_zoned(TimeZone::UTC).strftime("p%Y%m%d").to_string();
        Self { name, from, to: at(start + 1) }
    }
}

impl Store {
    /// Makes the partitions of the days around `now` that are not there yet.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn create_partitions(&self, now: Timestamp) -> Result<(), StoreError> {
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        // Even with IF NOT EXISTS, two that create the same table at once get in each other's way.
        transaction.execute("SELECT pg_advisory_xact_lock($1, 0)", &[&LOCK_SPACE]).await?;
        for day in (-DAYS_BACK..=DAYS_AHEAD).map(|offset| Day::of(now, offset)) {
            for table in TABLES {
                // Rows of deliveries are updated twice: room on the page keeps the new version near the old.
                let storage = if table == "deliveries" { " WITH (fillfactor = 70)" } else { "" };
                let statement = format!(
                    "CREATE TABLE IF NOT EXISTS {table}_{} PARTITION OF {table} FOR VALUES FROM ('{}') TO ('{}'){storage}",
                    day.name, day.from, day.to
                );
                transaction.batch_execute(&statement).await?;
            }
        }
        transaction.commit().await?;
        Ok(())
    }

    /// Drops the partitions, and the keys, of events accepted longer than `retention` ago, after
    /// ending what is unfinished in them. Returns the names of what it dropped.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn drop_old_partitions(&self, now: Timestamp, retention: Duration) -> Result<Vec<String>, StoreError> {
        let Ok(oldest) = now.checked_sub(retention) else { return Ok(Vec::new()) };
        let limit = Day::of(oldest, 0);
        let mut connection = self.connection().await?;
        let statement = "SELECT c.relname FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid
                         WHERE i.inhparent = 'deliveries'::regclass AND c.relname < $1 ORDER BY 1";
        let old = connection.query(statement, &[&format!("deliveries_{}", limit.name)]).await?;
        let mut dropped = Vec::new();
        for row in old {
            let name: &str = row.get(0);
            let Some(day) = name.strip_prefix("deliveries_") else { continue };
            // What is unfinished ends first, visibly; nothing is older than a schedule unless it was forgotten.
            let expire = format!(
                "UPDATE {name} SET state = 'failed', reason = 'expired', sequence = sequence + 1, due_at = NULL,
                                   taken_by = NULL, taken_at = NULL, finished_at = now()
                 WHERE state IN ('sending', 'waiting', 'held')"
            );
            let expired = connection.execute(&expire, &[]).await?;
            if expired > 0 {
                tracing::warn!(partition = name, expired, "deliveries were unfinished at the end of their retention");
            }
            // Everybody else queues up behind a lock on the whole table that is waited for.
            let transaction = connection.transaction().await?;
            transaction.batch_execute("SET LOCAL lock_timeout = '500ms'").await?;
            for table in ["attempts", "deliveries", "events"] {
                transaction.batch_execute(&format!("DROP TABLE IF EXISTS {table}_{day}")).await?;
                dropped.push(format!("{table}_{day}"));
            }
            transaction.commit().await?;
        }
        // In steps, each far below the statement timeout: what one turn of the job leaves, the next takes.
        let statement = "DELETE FROM event_keys WHERE event_id = ANY (ARRAY(
                             SELECT event_id FROM event_keys WHERE accepted_at < $1 LIMIT $2))";
        for _ in 0..MAX_KEY_STEPS {
            if connection.execute(statement, &[&limit.from, &KEYS_PER_STEP]).await? < KEYS_PER_STEP.cast_unsigned() {
                break;
            }
        }
        Ok(dropped)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn days_are_those_of_utc() {
        let day = Day::of("2026-12-31T23:59:59.999Z".parse().expect("timestamp"), 0);
        assert_eq!(day.name, "p20261231");
        assert_eq!(day.from.to_string(), "2026-12-31T00:00:00Z");
        assert_eq!(day.to.to_string(), "2027-01-01T00:00:00Z");
        assert_eq!(Day::of(day.to, 0).name, "p20270101");
        assert_eq!(Day::of(day.to, -1).name, "p20261231");
    }
}
