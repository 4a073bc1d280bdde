//! Makes the partitions of the coming days, and ends the retention of past ones and of the audit log.

use std::time::Duration;

use fanfare_domain::moment::earlier;
use fanfare_store::{Job, StoreError};
use tokio_util::sync::CancellationToken;

use super::Schedule;
use crate::database::Database;

/// How often it looks. Partitions are made days ahead.
const EVERY: Duration = Duration::from_secs(600);

/// The first look: a process that starts may find that nothing has looked for days.
const FIRST: Duration = Duration::from_secs(1);

/// The wait between the rise of the line and the drop: no statement that read the old line takes longer to commit.
const LINE_WAIT: Duration = Duration::from_secs(30);

/// Entries of the audit log that are deleted at once.
const AUDIT_ENTRIES: usize = 5000;

/// The partitions job.
pub(crate) struct Partitions {
    pub(crate) database: Database,
    pub(crate) retention: Duration,
    pub(crate) audit_retention: Duration,
}

impl Partitions {
    /// Keeps the partitions right until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut schedule = Schedule { database: self.database.clone(), job: Job::Partitions, every: FIRST, stop };
        while let Some(lock) = schedule.next().await {
            schedule.run(lock, self.roll(&schedule.stop)).await;
            schedule.every = EVERY;
        }
    }

    async fn roll(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let (now, store) = (self.database.now(), &self.database.store);
        store.create_partitions(now).await?;
        let is_raised = store.raise_line(earlier(now, self.retention)).await?;
        let Some(line) = store.line().await? else { return Ok(()) };
        if store.has_below_line().await? {
            if is_raised {
                stop.run_until_cancelled(tokio::time::sleep(LINE_WAIT)).await;
            }
            let expired = store.end_below_line(line).await?;
            if expired > 0 {
                tracing::warn!(deliveries = expired, "deliveries were open at the end of their retention");
            }
            for table in store.drop_below_line(line).await? {
                tracing::info!(table, "dropped a table at the end of its retention");
            }
        }
        let purged = store.purge_below_line(line).await?;
        if purged > 0 {
            tracing::warn!(deliveries = purged, "removed deliveries whose retention had ended while they were open");
        }
        while store.drop_audit_entries(self.audit_retention, AUDIT_ENTRIES).await? > 0 {}
        Ok(())
    }
}
