//! Partitions: creates the partitions of the coming days, and ends the retention of old partitions and of the audit
//! log. With an archive, a day is archived before the drop.

use std::time::Duration;

use fanfare_archive::Archive;
use fanfare_domain::time::saturating_sub;
use fanfare_store::{AdvisoryLock, Job, StoreError};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;

use super::{RUN_TIMEOUT, Schedule, archive_days::ArchiveDays};
use crate::database::Database;

/// Interval of the job. Partitions are created days ahead.
const EVERY: Duration = Duration::from_secs(600);

/// Wait before the first run: the job may not have run for days.
const FIRST: Duration = Duration::from_secs(1);

/// Wait between the rise of the line and the drop: no statement that read the old line takes longer to commit.
const LINE_WAIT: Duration = Duration::from_secs(30);

/// Deadline of a run with its archived days. Each statement and each request has a deadline of its own.
const ARCHIVE_RUN_TIMEOUT: Duration = Duration::from_secs(24 * 3600);

/// Maximum of audit log entries deleted by a statement.
const AUDIT_ENTRIES: usize = 5000;

pub(crate) struct Partitions {
    pub(crate) database: Database,
    pub(crate) retention: Duration,
    pub(crate) audit_retention: Duration,
    /// Destination of days before their drop; `None` drops days without a copy.
    pub(crate) archive: Option<Archive>,
}

impl Partitions {
    /// Runs the job until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut schedule = Schedule { database: self.database.clone(), job: Job::Partitions, every: FIRST, stop };
        while let Some(lock) = schedule.next().await {
            schedule.run_within(ARCHIVE_RUN_TIMEOUT, lock, async |lock| self.roll(lock, &schedule.stop).await).await;
            schedule.every = EVERY;
        }
    }

    async fn roll(&self, lock: &AdvisoryLock, stop: &CancellationToken) -> Result<(), StoreError> {
        let store = &self.database.store;
        let Some(line) = store.with_deadline(RUN_TIMEOUT, self.prepare(stop)).await? else { return Ok(()) };
        match &self.archive {
            Some(archive) => ArchiveDays { archive, database: &self.database, lock }.run(line).await?,
            None => store.with_deadline(RUN_TIMEOUT, self.drop_days(line)).await?,
        }
        store.with_deadline(RUN_TIMEOUT, self.purge(line)).await
    }

    /// Creates partitions, raises the line, and ends the open deliveries below the line. Returns the line.
    async fn prepare(&self, stop: &CancellationToken) -> Result<Option<Timestamp>, StoreError> {
        let (now, store) = (self.database.now(), &self.database.store);
        store.create_partitions(now).await?;
        let is_raised = store.raise_line(saturating_sub(now, self.retention)).await?;
        let Some(line) = store.line().await? else { return Ok(None) };
        if store.has_below_line().await? {
            if is_raised {
                stop.run_until_cancelled(tokio::time::sleep(LINE_WAIT)).await;
            }
            let expired = store.end_below_line(line).await?;
            if expired > 0 {
                tracing::warn!(deliveries = expired, "deliveries open at the end of their retention have failed");
            }
        }
        Ok(Some(line))
    }

    async fn drop_days(&self, line: Timestamp) -> Result<(), StoreError> {
        for table in self.database.store.drop_below_line(line).await? {
            tracing::info!(table, "dropped a table at the end of its retention");
        }
        Ok(())
    }

    async fn purge(&self, line: Timestamp) -> Result<(), StoreError> {
        let store = &self.database.store;
        let purged = store.purge_below_line(line).await?;
        if purged > 0 {
            tracing::warn!(deliveries = purged, "removed open deliveries below the line of retention");
        }
        while store.drop_audit_entries(self.audit_retention, AUDIT_ENTRIES).await? > 0 {}
        Ok(())
    }
}
