//! Presence: the heartbeat of the process, for dispatchers and operators. Accepting events does not need the heartbeat.

use std::time::Duration;

use fanfare_store::{NewProcess, Store, StoreError};
use tokio_util::sync::CancellationToken;

/// The validity of a heartbeat, and the interval between two heartbeats.
const LIFETIME: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_secs(2);

/// The deadline of a heartbeat.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Renews the row of the process until `stop`, then removes the row.
pub(crate) async fn run(store: Store, process: NewProcess, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = store.with_deadline(TIMEOUT, renew(&store, &process)).await {
            tracing::debug!(%error, "the heartbeat failed");
        }
        stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
    }
    if let Err(error) = store.with_deadline(TIMEOUT, store.unregister(process.id)).await {
        tracing::debug!(%error, "cannot remove the row of this process; the row expires");
    }
}

async fn renew(store: &Store, process: &NewProcess) -> Result<(), StoreError> {
    if store.renew(process.id, 0, LIFETIME).await?.is_none() {
        store.register(process, LIFETIME).await?;
    }
    Ok(())
}
