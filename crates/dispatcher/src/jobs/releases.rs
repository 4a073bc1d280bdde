//! Lets held deliveries go when their endpoint is no longer paused.

use std::time::Duration;

use fanfare_store::{Job, StoreError};
use tokio_util::sync::CancellationToken;

use super::Turns;
use crate::{database::Database, settle::Settler};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(2);

/// Deliveries that are released in one look: a resumed endpoint gets what it missed at a pace, not at once.
const BATCH: usize = 200;

/// The releases.
pub(crate) struct Releases {
    pub(crate) database: Database,
    pub(crate) settler: Settler,
}

impl Releases {
    /// Releases until `stop`. What is committed and not published when the process dies is rescued.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let turns = Turns { database: self.database.clone(), job: Job::Releases, every: EVERY, stop };
        while let Some(lock) = turns.next().await {
            let done = self.release().await;
            turns.end(lock, done).await;
        }
    }

    async fn release(&self) -> Result<(), StoreError> {
        let released = self.database.store.release(BATCH).await?;
        self.settler.publish_due(&released).await;
        Ok(())
    }
}
