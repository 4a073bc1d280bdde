//! What is done beside the way of an event, each job by one process at a time.

mod holds;
mod mail;
mod partitions;
mod reconciler;

use std::time::Duration;

use fanfare_store::{AdvisoryLock, Job, StoreError};
use tokio_util::sync::CancellationToken;

pub(crate) use holds::Holds;
pub(crate) use mail::{Mail, Mailer, SmtpServer};
pub(crate) use partitions::Partitions;
pub(crate) use reconciler::Reconciler;

use crate::database::Database;

/// The times at which this process is to do a job.
struct Turns {
    database: Database,
    job: Job,
    every: Duration,
    stop: CancellationToken,
}

impl Turns {
    /// Waits for the next turn, which lasts for as long as the lock is kept; none once the process stops.
    /// A turn that another process has, or that the database is away for, is left out.
    async fn next(&self) -> Option<AdvisoryLock> {
        loop {
            self.stop.run_until_cancelled(tokio::time::sleep(self.every)).await?;
            if !*self.database.availability().borrow() {
                continue;
            }
            match self.database.store.try_lock(self.job).await {
                Ok(Some(lock)) => return Some(lock),
                Ok(None) => {}
                Err(error) => self.failed(&error),
            }
        }
    }

    /// Ends a turn.
    async fn end(&self, lock: AdvisoryLock, done: Result<(), StoreError>) {
        lock.unlock().await;
        if let Err(error) = done {
            self.failed(&error);
        }
    }

    fn failed(&self, error: &StoreError) {
        tracing::warn!(%error, job = ?self.job, "a job failed; it is done again later");
    }
}
