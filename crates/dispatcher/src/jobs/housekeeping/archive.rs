//! The archive: writes the days below the line of retention, under a lock of its own. The partitions job drops a day
//! once the database marks the day as archived.

use std::{sync::Arc, time::Duration};

use fanfare_archive::{Archive, ArchiveError, DayWriter, Manifest, Row, Table};
use fanfare_store::{DailyTable, ExpiredDay, Job, StoreError};
use tokio::{
    sync::Notify,
    time::{Instant, sleep},
};
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use crate::{
    database::Database,
    jobs::{RUN_TIMEOUT, Schedule},
    metric,
};

/// Interval of the job.
const EVERY: Duration = Duration::from_secs(600);

/// Wait before the first run.
const FIRST: Duration = Duration::from_secs(1);

/// Deadline of a run: many days may wait after an outage of the object storage. Each statement and each request has a
/// deadline of its own.
const LONGEST_RUN: Duration = Duration::from_secs(30 * 24 * 3600);

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
    /// Wakes the partitions job, which drops archived days.
    pub(crate) archived: Arc<Notify>,
}

/// The reason why a day was not archived.
#[derive(Debug, thiserror::Error)]
enum DayError {
    #[error(transparent)]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error(
        "the archive has this day with other events: a copy of the database needs a FANFARE_ARCHIVE_URL of its own"
    )]
    OtherEvents,
}

impl ArchiveDays {
    /// Runs the job until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut schedule = Schedule::new(self.database.clone(), Job::Archive, FIRST, stop);
        while let Some(lock) = schedule.next().await {
            schedule.run_within(LONGEST_RUN, lock, self.archive_all()).await;
            schedule.every = EVERY;
        }
    }

    /// Archives all days below the line whose deliveries are ended, oldest first. A day that cannot be archived is
    /// kept, and does not delay the others.
    async fn archive_all(&self) -> Result<(), StoreError> {
        let store = &self.database.store;
        let deployment = store.with_deadline(RUN_TIMEOUT, store.require_archive()).await?;
        let Some(line) = store.ended_line().await? else { return Ok(()) };
        for day in store.with_deadline(RUN_TIMEOUT, store.days_to_archive(line)).await? {
            match self.archive_day(&day, deployment).await {
                Ok(()) => self.archived.notify_one(),
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
            // An earlier run was interrupted behind the manifest, or the manifest is another deployment's.
            Some(manifest) => {
                if manifest.deployment == deployment {
                    self.check_same_events(day, &manifest).await?;
                }
                self.archive.adopt(manifest, deployment).await?
            }
            None => self.write(day, deployment).await?,
        };
        store.with_deadline(RUN_TIMEOUT, store.mark_archived(day)).await?;
        report(&manifest, began.elapsed());
        Ok(())
    }

    /// Refuses a manifest of other events. A copy of the database has the same deployment.
    async fn check_same_events(&self, day: &ExpiredDay, manifest: &Manifest) -> Result<(), DayError> {
        let store = &self.database.store;
        let range = store.with_deadline(PAGE_TIMEOUT, store.event_range(day)).await?;
        let range = range.map(|keys| keys.map(|key| key.join("/")));
        let here = range.as_ref().map(|[first, last]| (first.as_str(), last.as_str()));
        // The table of events is dropped last.
        let is_same = !day.has(DailyTable::Events) || here == manifest.range(Table::Events);
        if is_same { Ok(()) } else { Err(DayError::OtherEvents) }
    }

    async fn write(&self, day: &ExpiredDay, deployment: Uuid) -> Result<Manifest, DayError> {
        let store = &self.database.store;
        let schema = store.with_deadline(PAGE_TIMEOUT, store.newest_migration()).await?;
        let mut writer = self.archive.write_day(day.date);
        let written = match self.append_all(day, &mut writer).await {
            Ok(()) => writer.finish(self.database.now(), schema, deployment).await.map_err(DayError::from),
            Err(error) => Err(error),
        };
        if written.is_err() {
            writer.discard().await;
        }
        written
    }

    async fn append_all(&self, day: &ExpiredDay, writer: &mut DayWriter<'_>) -> Result<(), DayError> {
        let store = &self.database.store;
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
        Ok(())
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
