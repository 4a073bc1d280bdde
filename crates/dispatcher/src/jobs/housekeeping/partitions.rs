//! Partitions: creates the partitions of the coming days, and ends the retention of old partitions, of usage and
//! of the audit log. With an archive, a day is dropped after its archiving.

use std::{sync::Arc, time::Duration};

use fanfare_domain::{
    diagnosis::rollup,
    time::{day_of, saturating_sub},
};
use fanfare_store::{Job, StoreError};
use tokio::sync::Notify;
use tokio_util::sync::CancellationToken;

use crate::{database::Database, jobs::Schedule};

/// Interval of the job. Partitions are created days ahead.
const EVERY: Duration = Duration::from_secs(600);

/// Wait before the first run: the job may not have run for days.
const FIRST: Duration = Duration::from_secs(1);

/// Wait between the rise of the line and the drop: no statement that read the old line takes longer to commit.
const LINE_WAIT: Duration = Duration::from_secs(30);

/// Maximum of audit log entries deleted by a statement.
const AUDIT_ENTRIES: usize = 5000;

/// Maximum of days of usage deleted by a statement.
const USAGE_DAYS: usize = 5000;

pub(crate) struct Partitions {
    pub(crate) database: Database,
    pub(crate) retention: Duration,
    pub(crate) audit_retention: Duration,
    pub(crate) usage_retention: Duration,
    /// True if this process archives days. The first run may come before the first run of the archive.
    pub(crate) has_archive: bool,
    /// Notified of archived days, which can be dropped.
    pub(crate) archived: Arc<Notify>,
}

impl Partitions {
    /// Runs the job until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut schedule = Schedule::new(self.database.clone(), Job::Partitions, FIRST, stop);
        schedule.wake = Arc::clone(&self.archived);
        while let Some(lock) = schedule.next().await {
            schedule.run(lock, self.roll()).await;
            schedule.every = EVERY;
        }
    }

    async fn roll(&self) -> Result<(), StoreError> {
        let (now, store) = (self.database.now(), &self.database.store);
        store.create_partitions(now).await?;
        store.raise_line(saturating_sub(now, self.retention)).await?;
        let Some(line) = store.line().await? else { return Ok(()) };
        if store.has_below_line().await? {
            if store.ended_line().await? < Some(line) {
                tokio::time::sleep(LINE_WAIT).await;
            }
            let expired = store.end_below_line(line).await?;
            if expired > 0 {
                tracing::warn!(deliveries = expired, "deliveries open at the end of their retention have failed");
            }
        }
        store.mark_ended(line).await?;
        if self.has_archive {
            store.require_archive().await?;
        }
        for table in store.drop_below_line(line).await? {
            tracing::info!(table, "dropped a table at the end of its retention");
        }
        for table in store.drop_rollups(saturating_sub(now, rollup::KEPT), line).await? {
            tracing::info!(table, "dropped counts at the end of their retention");
        }
        let purged = store.purge_below_line(line).await?;
        if purged > 0 {
            tracing::warn!(deliveries = purged, "removed open deliveries below the line of retention");
        }
        store.forget_digests(line).await?;
        store.drop_sessions().await?;
        let oldest = day_of(saturating_sub(now, self.usage_retention));
        while store.drop_usage(oldest, USAGE_DAYS).await? > 0 {}
        while store.drop_audit_entries(self.audit_retention, AUDIT_ENTRIES).await? > 0 {}
        Ok(())
    }
}
