//! Recovery: queries that find deliveries whose lease has ended, and retries whose message did not come.

use std::{sync::Arc, time::Duration};

use fanfare_domain::moment::earlier;
use fanfare_service::crash_point;
use fanfare_store::{Recovered, StoreError};
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::presence::Sight;
use crate::{context::Context, metric};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(1);

/// Deliveries that one look recovers.
const BATCH: usize = 1000;

/// A retry is missed when it is so late: its message takes its delays and some seconds at most.
const LATE: Duration = Duration::from_secs(10);

/// How long a floor is believed.
const FLOOR_HOLDS: Duration = Duration::from_secs(600);

/// The longest that one look may take.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);

/// The job of recovery.
pub(crate) struct Recovery {
    pub(crate) context: Arc<Context>,
    pub(crate) sight: Sight,
}

/// The moment up to which looks have found everything. The next look begins some time before it, and not behind all the
/// rows that were ever there.
struct Floor {
    reached: Option<Timestamp>,
    since: Instant,
}

impl Recovery {
    /// Looks until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (mut leases, mut retries) = (Floor::new(), Floor::new());
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            if !self.sight.is_clear() {
                continue;
            }
            let looks = async {
                while timed(self.leases(&mut leases)).await? == BATCH as u64 {}
                while timed(self.retries(&mut retries)).await? == BATCH as u64 {}
                Ok(())
            };
            let store = &self.context.database.store;
            if let Err(error) = stop.run_until_cancelled(store.in_time(LOOK_TIMEOUT, looks)).await.unwrap_or(Ok(())) {
                tracing::warn!(%error, "cannot look for deliveries to recover");
            }
        }
    }

    async fn leases(&self, floor: &mut Floor) -> Result<u64, StoreError> {
        let (context, store, now) = (&self.context, &self.context.database.store, self.context.now());
        let recovered = store.recover_leases(context.process(), floor.get(now), BATCH).await?;
        let Recovered { queued, aborted, .. } = recovered;
        if queued + aborted > 0 {
            tracing::warn!(queued, aborted, "recovered deliveries whose lease had ended");
            metrics::counter!(metric::RECOVERED, "kind" => "lease").increment(queued + aborted);
            crash_point("recovery.committed");
        }
        self.finish(&recovered, floor, now);
        Ok(queued + aborted)
    }

    async fn retries(&self, floor: &mut Floor) -> Result<u64, StoreError> {
        let (context, store, now) = (&self.context, &self.context.database.store, self.context.now());
        let recovered = store.recover_scheduled(context.process(), LATE, floor.get(now), BATCH).await?;
        if recovered.queued > 0 {
            tracing::warn!(deliveries = recovered.queued, "queued retries whose message did not come");
            metrics::counter!(metric::RECOVERED, "kind" => "retry").increment(recovered.queued);
        }
        self.finish(&recovered, floor, earlier(now, LATE));
        Ok(recovered.queued)
    }

    /// Begins the backlogs of what a look has found. A look that was not full has covered everything before `covered`.
    fn finish(&self, recovered: &Recovered, floor: &mut Floor, covered: Timestamp) {
        self.context.touched(&recovered.backlogs, true);
        let is_full = recovered.queued + recovered.aborted == BATCH as u64;
        floor.reached = if is_full { recovered.reached.or(floor.reached) } else { Some(covered) };
    }
}

async fn timed<T>(look: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let found = look.await;
    metrics::histogram!(metric::RECOVERY_SECONDS).record(began.elapsed());
    found
}

impl Floor {
    fn new() -> Self {
        Self { reached: None, since: Instant::now() }
    }

    /// The floor, unless the clock went back behind it or it is too old to be believed.
    fn get(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.since.elapsed() >= FLOOR_HOLDS || self.reached.is_some_and(|reached| reached > now) {
            *self = Self::new();
        }
        self.reached
    }
}
