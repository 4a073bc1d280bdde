//! Ordering keys: after the end of a delivery, queues the next delivery of the key. Runs in each process.

use std::{sync::Arc, time::Duration};

use fanfare_service::crash_point;
use fanfare_store::StoreError;
use tokio_util::sync::CancellationToken;

use crate::{context::Context, report::looked};

/// Interval of looks without a hint, for deliveries ended by other processes.
const EVERY: Duration = Duration::from_secs(1);

/// Maximum of signals handled by a statement.
const BATCH: usize = 500;

/// Deadline of a look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct OrderingKeys {
    pub(crate) context: Arc<Context>,
}

impl OrderingKeys {
    /// Looks after each hint, and once a second, until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let hint = || tokio::time::timeout(EVERY, self.context.order_changed.notified());
        let mut limit = BATCH;
        while stop.run_until_cancelled(hint()).await.is_some() {
            while *self.context.database.availability().borrow() && !stop.is_cancelled() {
                match self.advance(limit).await {
                    Ok(signals) => {
                        looked("database");
                        if signals < limit {
                            break;
                        }
                        limit = (limit * 2).min(BATCH);
                    }
                    Err(error) => {
                        tracing::warn!(%error, limit, "cannot look for the next deliveries of ordering keys; trying again");
                        // The outcome of the commit may be unknown.
                        self.context.backlogs.look_for_more();
                        // A smaller batch may do, such as a batch without the keys that take long.
                        limit = (limit / 2).max(1);
                        stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
                    }
                }
            }
        }
    }

    /// Handles up to `limit` signals, and returns the number. A begun look is finished: this process owns the look's
    /// new backlogs.
    async fn advance(&self, limit: usize) -> Result<usize, StoreError> {
        let (context, store) = (&self.context, &self.context.database.store);
        let advancing = store.advance_keys(context.process(), limit);
        let advance = store.with_deadline(LOOK_TIMEOUT, advancing).await?;
        if advance.signals > 0 {
            crash_point("key.advanced");
        }
        context.touched(&advance.backlogs, true);
        Ok(advance.signals)
    }
}
