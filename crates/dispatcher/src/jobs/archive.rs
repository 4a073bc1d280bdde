//! The archive: writes the days below the line of retention, under a lock of its own. The partitions job drops a day
//! once the database marks the day as archived.

use std::time::Duration;

use fanfare_archive::{Archive, ArchiveError, Manifest, Row, Table};
use fanfare_store::{DailyTable, ExpiredDay, Job, StoreError};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::{RUN_TIMEOUT, Schedule, partitions::drop_days};
use crate::{database::Database, metric};

/// Interval of the job.
const EVERY: Duration = Duration::from_secs(600);

/// Wait before the first run.
const FIRST: Duration = Duration::from_secs(1);

/// Deadline of a run. Each statement and each request has a deadline of its own.
const LONGEST_RUN: Duration = Duration::from_secs(24 * 3600);

/// Deadline of a page. The server ends the statement earlier.
const PAGE_TIMEOUT: Duration = Duration::from_secs(20);

/// Longest pause after a page. The job pauses for as long as a page took, so that other statements keep their pace.
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// The tables in the order of the objects.
const TABLES: [(DailyTable, Table); 3] = [
    (DailyTable::Events, Table::Events),
    (DailyTable::Deliveries, Table::Deliveries),
    (DailyTable::Attempts, Table::Attempts),
];

/// Archives days.
pub(crate) struct ArchiveDays {
    pub(crate) archive: Archive,
    pub(crate) database: Database,
}

/// The reason why a day was not archived.
#[derive(Debug, thiserror::Error)]
enum DayError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl ArchiveDays {
    /// Runs the job until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut schedule = Schedule { database: self.database.clone(), job: Job::Archive, every: FIRST, stop };
        while let Some(lock) = schedule.next().await {
            schedule.run_within(LONGEST_RUN, lock, self.archive_all()).await;
            schedule.every = EVERY;
        }
    }

    /// Archives all days below the line, oldest first, and drops them. A day that cannot be archived is kept, and does
    /// not delay the others.
    async fn archive_all(&self) -> Result<(), StoreError> {
        let store = &self.database.store;
        let deployment = store.with_deadline(RUN_TIMEOUT, store.require_archive()).await?;
        let Some(line) = store.line().await? else { return Ok(()) };
        for day in store.with_deadline(RUN_TIMEOUT, store.days_to_archive(line)).await? {
            match self.archive_day(&day, deployment).await {
                Ok(()) => self.drop_archived(line).await?,
                Err(error) => {
                    metrics::counter!(metric::ARCHIVE_FAILURES).increment(1);
                    tracing::error!(
                        day = %day.date, %error,
                        "cannot archive a day; the day is kept, and the next run tries again"
                    );
                    // Without the database, every further day would fail, too.
                    store.with_deadline(PAGE_TIMEOUT, store.ping()).await?;
                }
            }
        }
        Ok(())
    }

    async fn archive_day(&self, day: &ExpiredDay, deployment: Uuid) -> Result<(), DayError> {
        let (store, began) = (&self.database.store, Instant::now());
        let manifest = match self.archive.manifest(day.date).await? {
            // An earlier run was interrupted behind the manifest.
            Some(manifest) => self.archive.adopt(manifest, deployment).await?,
            None => self.write(day, deployment).await?,
        };
        store.with_deadline(RUN_TIMEOUT, store.mark_archived(day)).await?;
        report(&manifest, began.elapsed());
        Ok(())
    }

    async fn write(&self, day: &ExpiredDay, deployment: Uuid) -> Result<Manifest, DayError> {
        let store = &self.database.store;
        let schema = store.with_deadline(PAGE_TIMEOUT, store.newest_migration()).await?;
        let mut writer = self.archive.write_day(day.date);
        for (source, table) in TABLES {
            if !day.has(source) {
                tracing::warn!(day = %day.date, %table, "a table of the day was dropped before the archiving");
            }
            let mut after: Option<Vec<String>> = None;
            loop {
                let began = Instant::now();
                let page = store.page_of_day(day, source, after.as_deref());
                let page = store.with_deadline(PAGE_TIMEOUT, page).await?;
                let Some(last) = page.last() else { break };
                after = Some(last.key.clone());
                let rows = page.into_iter().map(|row| Row { key: row.key.join("/"), json: row.json });
                writer.append(table, rows.collect()).await?;
                sleep(began.elapsed().min(LONGEST_PAUSE)).await;
            }
        }
        Ok(writer.finish(self.database.now(), schema, deployment).await?)
    }

    /// Drops archived days, unless the partitions job runs meanwhile, and does the same.
    async fn drop_archived(&self, line: Timestamp) -> Result<(), StoreError> {
        let store = &self.database.store;
        let Some(lock) = store.with_deadline(RUN_TIMEOUT, store.try_lock(Job::Partitions)).await? else {
            return Ok(());
        };
        let dropped = store.with_deadline(RUN_TIMEOUT, drop_days(store, line)).await;
        lock.unlock().await;
        dropped
    }
}

fn report(manifest: &Manifest, took: Duration) {
    let rows = |table| manifest.rows(table);
    for table in Table::ALL {
        metrics::counter!(metric::ARCHIVED_ROWS, "table" => table.name()).increment(rows(table));
    }
    metrics::counter!(metric::ARCHIVED_BYTES).increment(manifest.bytes());
    tracing::info!(
        day = %manifest.day,
        events = rows(Table::Events),
        deliveries = rows(Table::Deliveries),
        attempts = rows(Table::Attempts),
        bytes = manifest.bytes(),
        seconds = took.as_secs_f64(),
        "archived a day"
    );
}
