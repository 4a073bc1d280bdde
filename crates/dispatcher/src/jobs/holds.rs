//! Lets held deliveries go when their endpoint is no longer paused, and bounds them until then.

use std::time::Duration;

use fanfare_domain::{application::EndpointStatus, delivery::FailureReason, ids::EndpointId, moment::earlier};
use fanfare_service::crash_point;
use fanfare_store::{Directory, Job, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::Turns;
use crate::{configuration::Holding, database::Database, metric, settle::Settler};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(2);

/// How often it counts: that takes a walk along all that is held.
const COUNTS_EVERY: Duration = Duration::from_secs(30);

/// Deliveries that are released, and that are given up, in one look.
const MOST_RELEASED: usize = 5000;
const BATCH: usize = 1000;

/// The job of holding.
pub(crate) struct Holds {
    pub(crate) database: Database,
    pub(crate) directory: Directory,
    pub(crate) settler: Settler,
    pub(crate) bounds: Holding,
}

impl Holds {
    /// Releases and bounds until `stop`. What is committed and not published when the process dies is
    /// rescued.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let turns = Turns { database: self.database.clone(), job: Job::Holds, every: EVERY, stop };
        let mut counted = None;
        while let Some(lock) = turns.next().await {
            turns.take(lock, self.look(&mut counted)).await;
        }
    }

    async fn look(&self, counted: &mut Option<Instant>) -> Result<(), StoreError> {
        let Self { database, settler, bounds, .. } = self;
        // A resumed endpoint gets what it missed at a pace, not at once.
        let pace = bounds.release_rate.saturating_mul(EVERY.as_secs() as usize);
        let released = database.store.release(pace, MOST_RELEASED).await?;
        if !released.is_empty() {
            crash_point("release.committed");
        }
        settler.publish_due(&released).await;
        let notifying = self.notifying();
        let oldest = earlier(database.now(), bounds.max_age);
        let ended = database.store.end_held_too_long(oldest, &notifying, BATCH).await?;
        tell(ended, FailureReason::HeldTooLong);
        if counted.is_none_or(|counted| counted.elapsed() >= COUNTS_EVERY) {
            let ended = database.store.end_too_many_held(bounds.most, &notifying, BATCH).await?;
            tell(ended, FailureReason::TooManyHeld);
            // A full batch may have left some.
            *counted = (ended < BATCH as u64).then(Instant::now);
        }
        Ok(())
    }

    /// The paused endpoints whose owners are told of failed deliveries.
    fn notifying(&self) -> Vec<EndpointId> {
        let snapshot = self.directory.snapshot();
        let endpoints = snapshot.applications.values().flat_map(|application| application.endpoints());
        let told = endpoints.filter(|one| one.notifies_owner && one.status == EndpointStatus::Paused);
        told.map(|endpoint| endpoint.id).collect()
    }
}

fn tell(ended: u64, reason: FailureReason) {
    if ended > 0 {
        let reason = reason.as_str();
        tracing::warn!(deliveries = ended, reason, "gave deliveries up that were held for paused endpoints");
        metrics::counter!(metric::DELIVERIES, "state" => "failed", "reason" => reason).increment(ended);
    }
}
