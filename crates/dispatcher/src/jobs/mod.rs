//! What is done beside the way of an event, each job by one process at a time, but for `lanes`: that is about what each
//! process has in its memory.

mod holds;
mod lanes;
mod mail;
mod partitions;
mod reconciler;
mod replays;

use std::{future::Future, time::Duration};

use fanfare_broker::BrokerSettings;
use fanfare_store::{AdvisoryLock, Job, Store, StoreError};
use tokio_util::sync::CancellationToken;

pub(crate) use holds::Holds;
pub(crate) use lanes::LaneKeeper;
pub(crate) use mail::{Mail, Mailer, SmtpServer};
pub(crate) use partitions::Partitions;
pub(crate) use reconciler::Reconciler;
pub(crate) use replays::Replays;

use crate::{database::Database, settle::Settler};

/// The longest that a job may take in one turn.
const TURN_TIMEOUT: Duration = Duration::from_secs(120);

/// The longest that taking or leaving a lock may take.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

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
            match self.store().in_time(LOCK_TIMEOUT, self.store().try_lock(self.job)).await {
                Ok(Some(lock)) => return Some(lock),
                Ok(None) => {}
                Err(error) => self.failed(&error),
            }
        }
    }

    /// Does what is to be done in a turn, and ends it. What is not done in time is left to the next one.
    async fn take(&self, lock: AdvisoryLock, work: impl Future<Output = Result<(), StoreError>>) {
        if let Err(error) = self.store().in_time(TURN_TIMEOUT, work).await {
            self.failed(&error);
        }
        // Where that takes long, the connection is closed, and the lock gone with it.
        let _ = tokio::time::timeout(LOCK_TIMEOUT, lock.unlock()).await;
    }

    fn store(&self) -> &Store {
        &self.database.store
    }

    fn failed(&self, error: &StoreError) {
        tracing::warn!(%error, job = ?self.job, "a job failed; it is done again later");
    }
}

/// Whether more than `most` claims are due already, or nobody can say: a job that makes more of them due waits.
async fn is_behind(broker: &BrokerSettings, settler: &Settler, most: u32, job: Job) -> bool {
    match broker.queue_depth(&settler.topology.deliveries_queue()).await {
        Ok(depth) if depth <= most => return false,
        Ok(depth) => tracing::info!(depth, ?job, "claims are due; the job waits until fewer are"),
        Err(error) => tracing::warn!(%error, ?job, "cannot look at the backlog; the job waits"),
    }
    true
}
