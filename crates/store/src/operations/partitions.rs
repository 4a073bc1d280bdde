//! Partitions: days of events, deliveries, attempts and rollups, and months of event keys.

use fanfare_domain::{
    ids::first_id,
    time::{DAY, begin_of, day_of, saturating_add},
};
use jiff::{Timestamp, ToSpan, civil::Date};

use crate::{Store, StoreError, operations::advisory_locks::LOCK_SPACE};

/// Tables partitioned by the day of acceptance.
pub(super) const DAILY: [&str; 6] =
    ["attempts", "deliveries", "delivery_bodies", "delivery_sequences", "events", "feed_entries"];

/// Tables partitioned by the day of the counted time.
const ROLLUPS: [&str; 2] = ["rollups", "rollups_hourly"];

/// Days for which partitions are created ahead: the partitions job may fail unnoticed for as long.
const DAYS_AHEAD: i64 = 7;

/// Days back for which partitions are created: an event may wait in the broker for the first dispatcher.
const DAYS_BACK: i64 = 2;

/// Lock timeout on a parent table: all users of the table wait behind the wait for the lock.
pub(super) const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '400ms'";

/// A day in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Day {
    pub(super) from: Timestamp,
    pub(super) to: Timestamp,
}

impl Day {
    /// Day of a moment, shifted by `offset` days.
    pub(super) fn of(moment: Timestamp, offset: i64) -> Self {
        let from = begin_of(day_of(moment).saturating_add(offset.days()));
        Self { from, to: saturating_add(from, DAY) }
    }

    /// Suffix of partition names; names sort by time.
    pub(super) fn name(self) -> String {
        day_of(self.from).strftime("p%Y%m%d").to_string()
    }
}

/// Bounds of a table's partition for a day, in the syntax of the statement.
fn bounds(table: &str, day: Day) -> String {
    match table {
        "deliveries" | "attempts" | "feed_entries" | "delivery_sequences" | "delivery_bodies" => {
            format!("FROM ('{}') TO ('{}')", first_id(day.from), first_id(day.to))
        }
        _ => format!("FROM ('{}') TO ('{}')", day.from, day.to),
    }
}

/// First day of the month of a moment, shifted by `offset` months.
fn month(moment: Timestamp, offset: i16) -> Date {
    let date = day_of(moment);
    let months = i32::from(date.year()) * 12 + i32::from(date.month()) - 1 + i32::from(offset);
    let (year, month) = (months.div_euclid(12), months.rem_euclid(12) + 1);
    jiff::civil::date(i16::try_from(year).unwrap_or(date.year()), i8::try_from(month).unwrap_or(1), 1)
}

impl Store {
    /// Creates the missing partitions of the days around `now`, and of the months of event keys.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] after the lock timeout.
    pub async fn create_partitions(&self, now: Timestamp) -> Result<(), StoreError> {
        for table in DAILY.into_iter().chain(ROLLUPS) {
            let days = (-DAYS_BACK..=DAYS_AHEAD).map(|offset| Day::of(now, offset));
            let wanted = days.map(|day| (format!("{table}_{}", day.name()), bounds(table, day)));
            self.attach_missing(table, "INCLUDING ALL", wanted.collect()).await?;
        }
        let months = (-1..=1).map(|offset| month(now, offset));
        let wanted = months.map(|month| {
            let name = format!("event_keys_p{:04}{:02}", month.year(), month.month());
            (name, format!("IN ('{month}')"))
        });
        self.attach_missing("event_keys", "", wanted.collect()).await
    }

    /// Creates the missing partitions of an older day.
    ///
    /// # Errors
    /// [`StoreError::Conflict`] after the lock timeout.
    pub async fn create_partitions_of(&self, moment: Timestamp) -> Result<(), StoreError> {
        let day = Day::of(moment, 0);
        for table in DAILY {
            let wanted = vec![(format!("{table}_{}", day.name()), bounds(table, day))];
            self.attach_missing(table, "INCLUDING ALL", wanted).await?;
        }
        Ok(())
    }

    /// Creates tables and attaches them as partitions: reads and writes pass the parent's lock of ATTACH, but wait for
    /// CREATE … PARTITION OF.
    async fn attach_missing(
        &self,
        table: &str,
        including: &str,
        wanted: Vec<(String, String)>,
    ) -> Result<(), StoreError> {
        let names: Vec<&str> = wanted.iter().map(|(name, _)| name.as_str()).collect();
        let statement = "SELECT relname::text FROM pg_class WHERE relname = ANY ($1) AND relispartition";
        let mut connection = self.connection().await?;
        let present: Vec<String> = connection.query(statement, &[&names]).await?.iter().map(|row| row.get(0)).collect();
        let missing: Vec<_> = wanted.iter().filter(|(name, _)| !present.contains(name)).collect();
        if missing.is_empty() {
            return Ok(());
        }
        let transaction = connection.transaction().await?;
        // Two processes with concurrent creations of the same table would fail.
        transaction.execute("SELECT pg_advisory_xact_lock($1, 0)", &[&LOCK_SPACE]).await?;
        transaction.batch_execute(LOCK_TIMEOUT).await?;
        let again: Vec<String> = transaction.query(statement, &[&names]).await?.iter().map(|row| row.get(0)).collect();
        for (name, bounds) in missing.into_iter().filter(|(name, _)| !again.contains(name)) {
            let mut statements = format!("CREATE TABLE IF NOT EXISTS {name} (LIKE {table} {including});");
            if table == "event_keys" {
                statements += &format!("ALTER TABLE {name} ADD PRIMARY KEY (event_id);");
            }
            statements += &format!("ALTER TABLE {table} ATTACH PARTITION {name} FOR VALUES {bounds};");
            transaction.batch_execute(&statements).await?;
        }
        transaction.commit().await?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn moment(text: &str) -> Timestamp {
        text.parse().expect("a timestamp")
    }

    #[test]
    fn days_are_those_of_utc() {
        let day = Day::of(moment("2026-12-31T23:59:59.999Z"), 0);
        assert_eq!(day.name(), "p20261231");
        assert_eq!(day.from.to_string(), "2026-12-31T00:00:00Z");
        assert_eq!(day.to.to_string(), "2027-01-01T00:00:00Z");
        assert_eq!(Day::of(day.to, 0).name(), "p20270101");
        assert_eq!(Day::of(day.to, -1), day);
    }

    #[test]
    fn months_pass_the_turn_of_the_year() {
        let december = moment("2026-12-31T23:00:00Z");
        let names: Vec<String> = (-1..=1).map(|offset| month(december, offset).to_string()).collect();
        assert_eq!(names, ["2026-11-01", "2026-12-01", "2027-01-01"]);
    }

    #[test]
    fn ids_begin_with_the_milliseconds() {
        let id = first_id(moment("2026-12-31T00:00:00Z"));
        assert_eq!(id.as_u128() >> 80, 1_798_675_200_000);
        assert_eq!(id.as_u128() & ((1 << 80) - 1), 0);
    }
}
