//! Holding: bounds the held deliveries of paused endpoints, by age and by number.

use std::time::Duration;

use fanfare_domain::{delivery::FailureReason, endpoint::EndpointStatus, ids::EndpointId};
use fanfare_store::{Directory, Job, StoreError};
use tokio_util::sync::CancellationToken;

use super::Schedule;
use crate::{configuration::HeldLimits, database::Database, metric};

/// Interval of the job.
const EVERY: Duration = Duration::from_secs(5);

/// Maximum of deliveries ended by a statement.
const BATCH: usize = 1000;

pub(crate) struct Holding {
    pub(crate) database: Database,
    pub(crate) directory: Directory,
    pub(crate) limits: HeldLimits,
}

impl Holding {
    /// Runs the job until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let schedule = Schedule::new(self.database.clone(), Job::Holding, EVERY, stop);
        while let Some(lock) = schedule.next().await {
            schedule.run(lock, self.look()).await;
        }
    }

    async fn look(&self) -> Result<(), StoreError> {
        let store = &self.database.store;
        for endpoint in store.paused_backlogs().await? {
            let notifies_owner = self.notifies_owner(endpoint);
            let HeldLimits { max_age, most } = self.limits;
            while tell(
                store.end_held_too_long(endpoint, max_age, notifies_owner, BATCH).await?,
                FailureReason::HeldTooLong,
            ) {}
            while tell(
                store.end_too_many_held(endpoint, most, notifies_owner, BATCH).await?,
                FailureReason::TooManyHeld,
            ) {}
        }
        Ok(())
    }

    fn notifies_owner(&self, endpoint: EndpointId) -> bool {
        let snapshot = self.directory.snapshot();
        let mut endpoints = snapshot.applications.values().filter_map(|application| application.endpoint(endpoint));
        endpoints.any(|endpoint| endpoint.notifies_owner && endpoint.status == EndpointStatus::Paused)
    }
}

/// Logs and counts ended deliveries. True if more may follow.
fn tell(ended: u64, reason: FailureReason) -> bool {
    if ended > 0 {
        let reason = reason.as_str();
        tracing::warn!(deliveries = ended, reason, "deliveries held for a paused endpoint have failed");
        metrics::counter!(metric::DELIVERIES, "state" => "failed", "reason" => reason).increment(ended);
    }
    ended == BATCH as u64
}
