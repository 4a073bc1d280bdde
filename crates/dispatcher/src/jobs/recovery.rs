//! Recovery: queues deliveries with an expired lease, and retries whose message did not come.

use std::{sync::Arc, time::Duration};

use fanfare_domain::time::saturating_sub;
use fanfare_service::crash_point;
use fanfare_store::{Recovered, StoreError};
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::presence::Sight;
use crate::{context::Context, metric, report::looked};

/// Interval of looks.
const EVERY: Duration = Duration::from_secs(1);

/// Maximum of deliveries recovered by a look.
const BATCH: usize = 1000;

/// Lateness from which on a retry is missed: a message takes the delays and at most some seconds.
const LATE: Duration = Duration::from_secs(10);

/// Validity of a floor.
const FLOOR_HOLDS: Duration = Duration::from_secs(600);

/// Deadline of the looks for leases and retries together.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct Recovery {
    pub(crate) context: Arc<Context>,
    pub(crate) sight: Sight,
}

/// Time up to which looks have found all rows. The next look begins shortly before the floor, and skips the dead rows
/// of earlier times.
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
            match stop.run_until_cancelled(store.with_deadline(LOOK_TIMEOUT, looks)).await {
                Some(Ok(())) => looked("database"),
                Some(Err(error)) => tracing::warn!(%error, "cannot look for deliveries to recover; trying again"),
                None => {}
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
        self.finish(&recovered, floor, saturating_sub(now, LATE));
        Ok(recovered.queued)
    }

    /// Begins the backlogs of recovered deliveries, and raises the floor. A look with fewer than `BATCH` deliveries has
    /// covered all times before `covered`.
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

    /// Returns the floor. Resets a floor that is too old, or later than `now`, since the clock went back.
    fn get(&mut self, now: Timestamp) -> Option<Timestamp> {
        if self.since.elapsed() >= FLOOR_HOLDS || self.reached.is_some_and(|reached| reached > now) {
            *self = Self::new();
        }
        self.reached
    }
}
