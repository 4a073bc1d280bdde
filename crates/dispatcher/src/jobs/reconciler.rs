//! Rescues deliveries whose claim is gone. The database is the truth, the broker the transport.

use std::time::Duration;

use fanfare_broker::BrokerSettings;
use fanfare_service::crash_point;
use fanfare_store::{Job, StoreError};
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Turns, is_behind};
use crate::{database::Database, metric, settle::Settler};

/// How often it looks, at the most.
const EVERY: Duration = Duration::from_secs(10);

/// Deliveries that are rescued in one look.
const BATCH: usize = 1000;

/// Claims in the deliveries queue that are nearly none. Behind a larger backlog, claims are late and not
/// lost.
const NEARLY_EMPTY: u32 = 100;

/// The reconciler.
pub(crate) struct Reconciler {
    pub(crate) database: Database,
    pub(crate) broker: BrokerSettings,
    pub(crate) settler: Settler,
    /// True while messages come in, which they do only while broker and database are both up.
    pub(crate) consuming: watch::Receiver<bool>,
    /// How overdue a delivery must be, and how long broker and database must have been up: before that,
    /// claims may only be slow.
    pub(crate) patience: Duration,
}

impl Reconciler {
    /// Looks for lost claims until `stop`.
    pub(crate) async fn run(mut self, stop: CancellationToken) {
        let mut up_since = Instant::now();
        let every = EVERY.min(self.patience);
        let turns = Turns { database: self.database.clone(), job: Job::Reconciler, every, stop };
        while let Some(lock) = turns.next().await {
            if self.consuming.has_changed().unwrap_or(true) {
                self.consuming.mark_unchanged();
                up_since = Instant::now();
            }
            let is_settled = *self.consuming.borrow() && up_since.elapsed() >= self.patience;
            let work = async { if is_settled { self.look().await } else { Ok(()) } };
            turns.take(lock, work).await;
        }
    }

    async fn look(&self) -> Result<(), StoreError> {
        let Self { database, broker, settler, patience, .. } = self;
        if !database.store.has_overdue(*patience).await? {
            return Ok(());
        }
        if is_behind(broker, settler, NEARLY_EMPTY, Job::Reconciler).await {
            return Ok(());
        }
        let rescued = database.store.rescue(*patience, BATCH).await?;
        if !rescued.is_empty() {
            tracing::warn!(deliveries = rescued.len(), "rescued deliveries whose claims were gone");
            metrics::counter!(metric::RESCUED).increment(rescued.len() as u64);
            crash_point("rescue.committed");
            settler.publish_due(&rescued).await;
        }
        Ok(())
    }
}
