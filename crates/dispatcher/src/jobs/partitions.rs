//! Makes the partitions of the coming days, and drops those whose time is over, and so entries of the audit log.

use std::time::Duration;

use fanfare_store::{Job, StoreError};
use tokio_util::sync::CancellationToken;

use super::Turns;
use crate::database::Database;

/// How often it looks. Partitions are made days ahead.
const EVERY: Duration = Duration::from_secs(600);

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
        let turns = Turns { database: self.database.clone(), job: Job::Partitions, every: EVERY, stop };
        while let Some(lock) = turns.next().await {
            turns.take(lock, self.roll()).await;
        }
    }

    async fn roll(&self) -> Result<(), StoreError> {
        let now = self.database.now();
        self.database.store.create_partitions(now).await?;
        for partition in self.database.store.drop_old_partitions(now, self.retention).await? {
            tracing::info!(partition, "dropped a partition at the end of its retention");
        }
        while self.database.store.drop_audit_entries(self.audit_retention, AUDIT_ENTRIES).await? > 0 {}
        Ok(())
    }
}
