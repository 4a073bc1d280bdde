//! Jobs beside the way of an event. `presence` and `recovery` run in each process; the others in one process at a time, under
//! an advisory lock.

mod failure_mails;
mod holding;
mod partitions;
mod presence;
mod recovery;
mod replays;
mod suspects;
mod sweep;

use std::{future::Future, time::Duration};

use fanfare_store::{AdvisoryLock, Job, Store, StoreError};
use tokio_util::sync::CancellationToken;

pub(crate) use failure_mails::{Mail, Mailer, SmtpServer};
pub(crate) use holding::Holding;
pub(crate) use partitions::Partitions;
pub(crate) use presence::{Presence, Sight, leave, release};
pub(crate) use recovery::Recovery;
pub(crate) use replays::Replays;
pub(crate) use suspects::Suspects;
pub(crate) use sweep::{Sweep, vacuum};

use crate::database::Database;

/// The longest that one run of a job may take.
const RUN_TIMEOUT: Duration = Duration::from_secs(120);

/// The longest that taking or leaving a lock may take.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

/// The schedule of a job that one process at a time runs.
struct Schedule {
    database: Database,
    job: Job,
    every: Duration,
    stop: CancellationToken,
}

impl Schedule {
    /// Waits for the next run, which lasts for as long as the lock is kept; `None` once the process stops. A run that another
    /// process has, or that the database is away for, is left out.
    async fn next(&self) -> Option<AdvisoryLock> {
        loop {
            self.stop.run_until_cancelled(tokio::time::sleep(self.every)).await?;
            if !*self.database.availability().borrow() {
                continue;
            }
            match self.store().in_time(LOCK_TIMEOUT, self.store().try_lock(self.job)).await {
                Ok(Some(lock)) => return Some(lock),
                Ok(None) => {}
                Err(error) => self.failed(&error),
            }
        }
    }

    /// Runs the job, and leaves the lock. What is not done in time is left to the next run.
    async fn run(&self, lock: AdvisoryLock, work: impl Future<Output = Result<(), StoreError>>) {
        // Each job commits by single statements: the next run goes on where this one stops.
        if let Some(Err(error)) = self.stop.run_until_cancelled(self.store().in_time(RUN_TIMEOUT, work)).await {
            self.failed(&error);
        }
        // Where that takes long, the connection is closed, and the lock is gone with it.
        let _ = tokio::time::timeout(LOCK_TIMEOUT, lock.unlock()).await;
    }

    fn store(&self) -> &Store {
        &self.database.store
    }

    fn failed(&self, error: &StoreError) {
        tracing::warn!(%error, job = ?self.job, "a job failed; it runs again later");
    }
}
