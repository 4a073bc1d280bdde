//! Days below the line of retention: archived, then dropped.

use std::time::Duration;

use fanfare_archive::{Archive, ArchiveError, Manifest, Row, Table};
use fanfare_store::{AdvisoryLock, DailyTable, ExpiredDay, StoreError};
use jiff::Timestamp;
use tokio::time::Instant;

use super::RUN_TIMEOUT;
use crate::{database::Database, metric};

/// Deadline of a page. The server ends the statement earlier.
const PAGE_TIMEOUT: Duration = Duration::from_secs(20);

/// Duration of a run after which no further day begins: the next run makes partitions first, and goes on.
const LONGEST_RUN: Duration = Duration::from_secs(3600);

/// The tables in the order of the objects.
const TABLES: [(DailyTable, Table); 3] = [
    (DailyTable::Events, Table::Events),
    (DailyTable::Deliveries, Table::Deliveries),
    (DailyTable::Attempts, Table::Attempts),
];

/// Archives and drops days.
pub(super) struct ArchiveDays<'a> {
    pub(super) archive: &'a Archive,
    pub(super) database: &'a Database,
    /// Lock of the job. Two processes must not write a day.
    pub(super) lock: &'a AdvisoryLock,
}

/// The reason why a day was not archived or not dropped.
#[derive(Debug, thiserror::Error)]
enum DayError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The manifest has other events than the database.
    #[error("the archive has this day with other events: give each deployment a FANFARE_ARCHIVE_URL of its own")]
    OtherEvents,
}

impl ArchiveDays<'_> {
    /// Archives and drops all days below the line, oldest first. A day that cannot be archived is kept, and does not
    /// delay the others.
    ///
    /// # Errors
    /// If the database is away.
    pub(super) async fn run(&self, line: Timestamp) -> Result<(), StoreError> {
        let (store, began) = (&self.database.store, Instant::now());
        let days = store.with_deadline(RUN_TIMEOUT, store.expired_days(line)).await?;
        let mut oldest_kept = line;
        for day in &days {
            if began.elapsed() > LONGEST_RUN {
                tracing::info!(day = %day.date, "the next run archives the remaining days");
                oldest_kept = oldest_kept.min(day.begin());
                break;
            }
            match self.archive_and_drop(day).await {
                Ok(()) => {}
                Err(DayError::Store(error)) if error.is_transient() => return Err(error),
                Err(error) => {
                    metrics::counter!(metric::ARCHIVE_FAILURES).increment(1);
                    tracing::error!(
                        day = %day.date, %error,
                        "cannot archive a day; the day is kept, and the next run tries again"
                    );
                    oldest_kept = oldest_kept.min(day.begin());
                }
            }
        }
        for table in store.with_deadline(RUN_TIMEOUT, store.drop_event_keys(oldest_kept)).await? {
            tracing::info!(table, "dropped a table at the end of its retention");
        }
        Ok(())
    }

    async fn archive_and_drop(&self, day: &ExpiredDay) -> Result<(), DayError> {
        let store = &self.database.store;
        match self.archive.manifest(day.date).await? {
            // An earlier run was interrupted after the manifest. The rest of a day that is being dropped must not
            // replace the whole day.
            Some(manifest) => self.check_same_events(day, &manifest).await?,
            None => self.write(day).await?,
        }
        self.lock.check().await?;
        store.with_deadline(RUN_TIMEOUT, store.drop_day(day)).await?;
        tracing::info!(day = %day.date, "dropped an archived day");
        Ok(())
    }

    /// Refuses the manifest of another deployment. The table of events is dropped last.
    async fn check_same_events(&self, day: &ExpiredDay, manifest: &Manifest) -> Result<(), DayError> {
        let store = &self.database.store;
        let range = store.with_deadline(PAGE_TIMEOUT, store.event_range(day)).await?;
        let range = range.map(|keys| keys.map(|key| key.join("/")));
        let here = range.as_ref().map(|[first, last]| (first.as_str(), last.as_str()));
        let is_same = !day.has(DailyTable::Events) || here == manifest.range(Table::Events);
        if is_same { Ok(()) } else { Err(DayError::OtherEvents) }
    }

    async fn write(&self, day: &ExpiredDay) -> Result<(), DayError> {
        let (store, began) = (&self.database.store, Instant::now());
        let schema = store.with_deadline(PAGE_TIMEOUT, store.newest_migration()).await?;
        let mut writer = self.archive.write_day(day.date);
        for (source, table) in TABLES {
            let mut after: Option<Vec<String>> = None;
            loop {
                let page = store.page_of_day(day, source, after.as_deref());
                let page = store.with_deadline(PAGE_TIMEOUT, page).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.key.clone());
                let rows = page.into_iter().map(|row| Row { key: row.key.join("/"), json: row.json });
                writer.append(table, rows.collect()).await?;
            }
        }
        self.lock.check().await?;
        let manifest = writer.finish(self.database.now(), schema).await?;
        let rows = |table| manifest.rows(table);
        for table in Table::ALL {
            metrics::counter!(metric::ARCHIVED_ROWS, "table" => table.name()).increment(rows(table));
        }
        metrics::counter!(metric::ARCHIVED_BYTES).increment(manifest.bytes());
        tracing::info!(
            day = %day.date,
            events = rows(Table::Events),
            deliveries = rows(Table::Deliveries),
            attempts = rows(Table::Attempts),
            bytes = manifest.bytes(),
            seconds = began.elapsed().as_secs_f64(),
            "archived a day"
        );
        Ok(())
    }
}
