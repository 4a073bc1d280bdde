//! Ordering keys: queues the next delivery of each key whose delivery before has ended. Runs in each process.

use std::{sync::Arc, time::Duration};

use fanfare_service::crash_point;
use fanfare_store::StoreError;
use tokio_util::sync::CancellationToken;

use crate::{context::Context, report::looked};

/// Interval of looks without a hint of this process: for deliveries ended by others, or by a process that died.
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
        while stop.run_until_cancelled(hint()).await.is_some() {
            if !*self.context.database.availability().borrow() {
                tokio::time::sleep(EVERY).await;
                continue;
            }
            let store = &self.context.database.store;
            match stop.run_until_cancelled(store.with_deadline(LOOK_TIMEOUT, self.advance())).await {
                Some(Ok(())) => looked("database"),
                Some(Err(error)) => {
                    tracing::warn!(%error, "cannot look for the next deliveries of ordering keys; trying again");
                    // The outcome of the commit may be unknown.
                    self.context.backlogs.look_for_more();
                }
                None => {}
            }
        }
    }

    async fn advance(&self) -> Result<(), StoreError> {
        let (context, store) = (&self.context, &self.context.database.store);
        loop {
            let advance = store.advance_keys(context.process(), BATCH).await?;
            if advance.signals > 0 {
                crash_point("key.advanced");
            }
            context.touched(&advance.backlogs, true);
            if advance.signals < BATCH {
                return Ok(());
            }
        }
    }
}
