//! Lets held deliveries go when their endpoint is no longer paused, and bounds them until then.

use fanfare_domain::moment::earlier;
use fanfare_store::{Job, StoreError};
use jiff::Timestamp;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

use super::Turns;
use crate::{configuration::Holding, database::Database, metric, settle::Settler};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(2);

/// Deliveries that are given up in one look.
const BATCH: usize = 1000;

/// The job of holding.
pub(crate) struct Holds {
    pub(crate) database: Database,
    pub(crate) settler: Settler,
    pub(crate) bounds: Holding,
}

impl Holds {
    /// Releases and bounds until `stop`. What is committed and not published when the process dies is
    /// rescued.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let turns = Turns { database: self.database.clone(), job: Job::Holds, every: EVERY, stop };
        while let Some(lock) = turns.next().await {
            let done = self.look().await;
            turns.end(lock, done).await;
        }
    }

    async fn look(&self) -> Result<(), StoreError> {
        let Self { database, settler, bounds } = self;
        // A resumed endpoint gets what it missed at a pace, not at once.
        let pace = bounds.release_rate.saturating_mul(EVERY.as_secs() as usize);
        let released = database.store.release(pace).await?;
        settler.publish_due(&released).await;
        let oldest = earlier(Timestamp::now(), bounds.max_age);
        let ended = database.store.end_held(oldest, bounds.most, BATCH).await?;
        if ended > 0 {
            tracing::warn!(deliveries = ended, "gave deliveries up that were held for paused endpoints");
            metrics::counter!(metric::DELIVERIES, "state" => "failed", "reason" => "held").increment(ended);
        }
        Ok(())
    }
}
