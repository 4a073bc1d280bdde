//! Partitions of past days, which no service creates.

use jiff::{SignedDuration, Timestamp, tz::TimeZone};
use tokio_postgres::Client;
use uuid::Uuid;

/// Tables partitioned by the day of acceptance.
pub(crate) const DAILY: [&str; 3] = ["events", "deliveries", "attempts"];

/// A past day in UTC.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Day {
    from: Timestamp,
}

impl Day {
    pub(crate) fn ago(days: i64) -> Self {
        let day = SignedDuration::from_hours(24);
        let today = Timestamp::now().as_second().div_euclid(day.as_secs());
        Self { from: Timestamp::from_second((today - days) * day.as_secs()).expect("a day") }
    }

    /// Returns the last part of the names of the day's partitions.
    pub(crate) fn suffix(self) -> String {
        self.from.to_zoned(TimeZone::UTC).strftime("p%Y%m%d").to_string()
    }

    /// Creates the day's partitions of these tables.
    pub(crate) async fn create(self, database: &Client, tables: &[&str]) {
        let to = self.from + SignedDuration::from_hours(24);
        for table in tables {
            let bound = |at: Timestamp| match *table {
                // Ids begin with the milliseconds.
                "deliveries" | "attempts" => {
                    Uuid::from_u128(u128::from(at.as_millisecond().unsigned_abs()) << 80).to_string()
                }
                _ => at.to_string(),
            };
            let create = format!(
                "CREATE TABLE {table}_{name} (LIKE {table} INCLUDING ALL);
                 ALTER TABLE {table} ATTACH PARTITION {table}_{name} FOR VALUES FROM ('{}') TO ('{}')",
                bound(self.from),
                bound(to),
                name = self.suffix()
            );
            database.batch_execute(&create).await.expect("a partition");
        }
    }
}
