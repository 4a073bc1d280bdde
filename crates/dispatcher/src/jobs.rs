//! Background jobs. `presence`, `recovery`, `due_events`, `ordering_keys` and `token_fetches` run in each process.
//! Every other job runs in a single process at a time, under an advisory lock.

mod digests;
mod due_events;
mod holding;
pub(crate) mod housekeeping;
mod operational_events;
mod ordering_keys;
mod owner_mails;
mod presence;
mod recovery;
mod replays;
mod suspects;
mod token_fetches;

use std::{future::Future, sync::Arc, time::Duration};

use fanfare_domain::{
    delivery::QueueReason,
    endpoint::{Endpoint, EndpointStatus, Feed},
};
use fanfare_store::{AdvisoryLock, Job, Start, Store, StoreError};
use tokio::{sync::Notify, time::Instant};
use tokio_util::sync::CancellationToken;

pub(crate) use digests::Digests;
pub(crate) use due_events::DueEvents;
pub(crate) use holding::Holding;
pub(crate) use operational_events::OperationalEvents;
pub(crate) use ordering_keys::OrderingKeys;
pub(crate) use owner_mails::OwnerMails;
pub(crate) use presence::{Presence, Sight, leave, release};
pub(crate) use recovery::Recovery;
pub(crate) use replays::Replays;
pub(crate) use suspects::Suspects;
pub(crate) use token_fetches::TokenFetches;

use crate::{database::Database, metric, report::unix_seconds};

/// Deadline of a run.
const RUN_TIMEOUT: Duration = Duration::from_secs(120);

/// Deadline for a lock, and for an unlock.
const LOCK_TIMEOUT: Duration = Duration::from_secs(20);

/// First state of a delivery of an event that a job writes: the delivery is never sent before the commit's answer.
fn first_state(endpoint: &Endpoint) -> Start {
    match (endpoint.feed, endpoint.status) {
        (Feed::Only, _) => Start::Read,
        (_, EndpointStatus::Disabled) => Start::Skipped,
        (_, EndpointStatus::Paused) => Start::Queued(QueueReason::Paused),
        (_, EndpointStatus::Enabled) => Start::Queued(QueueReason::Backlog),
    }
}

/// Schedule of a job under an advisory lock.
struct Schedule {
    database: Database,
    job: Job,
    every: Duration,
    stop: CancellationToken,
    /// Begins the next run at once.
    wake: Arc<Notify>,
}

impl Schedule {
    fn new(database: Database, job: Job, every: Duration, stop: CancellationToken) -> Self {
        Self { database, job, every, stop, wake: Arc::default() }
    }

    /// Waits for the next run, and locks the job; `None` after `stop`. Skips a run during an outage of the database, or
    /// while another process holds the lock.
    async fn next(&self) -> Option<AdvisoryLock> {
        loop {
            let woken = tokio::time::timeout(self.every, self.wake.notified());
            let _ = self.stop.run_until_cancelled(woken).await?;
            if !*self.database.availability().borrow() {
                continue;
            }
            match self.store().with_deadline(LOCK_TIMEOUT, self.store().try_lock(self.job)).await {
                Ok(Some(lock)) => return Some(lock),
                Ok(None) => {}
                Err(error) => self.failed(&error),
            }
        }
    }

    /// Runs the job until the end, the deadline or `stop`, then unlocks.
    async fn run(&self, lock: AdvisoryLock, work: impl Future<Output = Result<(), StoreError>>) {
        self.run_within(RUN_TIMEOUT, lock, work).await;
    }

    /// Like [`Self::run`], with another deadline.
    async fn run_within(
        &self,
        limit: Duration,
        lock: AdvisoryLock,
        work: impl Future<Output = Result<(), StoreError>>,
    ) {
        let began = Instant::now();
        // Each job commits statement by statement: the next run continues an interrupted run.
        let result = self.stop.run_until_cancelled(self.store().with_deadline(limit, work)).await;
        match &result {
            Some(Ok(())) => metrics::gauge!(metric::JOB_SUCCESS, "task" => self.job.name()).set(unix_seconds()),
            Some(Err(error)) => self.failed(error),
            None => {}
        }
        if let Some(result) = result {
            self.note(began.elapsed(), result.err().map(|error| error.to_string())).await;
        }
        // After the deadline the connection is closed, which ends the lock.
        let _ = tokio::time::timeout(LOCK_TIMEOUT, lock.unlock()).await;
    }

    /// Notes the run for operators.
    async fn note(&self, duration: Duration, error: Option<String>) {
        let (process, error) = (self.database.process(), error.as_deref());
        let noting = self.store().note_run(self.job, process, duration, error);
        if let Err(error) = self.store().with_deadline(LOCK_TIMEOUT, noting).await {
            tracing::debug!(%error, job = ?self.job, "cannot note the run of a job");
        }
    }

    fn store(&self) -> &Store {
        &self.database.store
    }

    fn failed(&self, error: &StoreError) {
        tracing::warn!(%error, job = ?self.job, "a job failed; the next run tries again");
    }
}
