//! Presence: the heartbeat of the process, by which dispatchers and operators see it. Accepting events does not depend on it.

use std::time::Duration;

use fanfare_store::{NewProcess, Store, StoreError};
use tokio_util::sync::CancellationToken;

/// How long a process counts as living after its last heartbeat, and how often it renews that.
const LIFETIME: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_secs(2);

/// The longest that a heartbeat may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Renews the row of the process until `stop`, and removes it.
pub(crate) async fn run(store: Store, process: NewProcess, stop: CancellationToken) {
    while !stop.is_cancelled() {
        if let Err(error) = store.in_time(TIMEOUT, renew(&store, &process)).await {
            tracing::debug!(%error, "the heartbeat failed");
        }
        stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
    }
    if let Err(error) = store.in_time(TIMEOUT, store.unregister(process.id)).await {
        tracing::debug!(%error, "cannot remove the row of this process");
    }
}

async fn renew(store: &Store, process: &NewProcess) -> Result<(), StoreError> {
    if store.renew(process.id, 0, LIFETIME).await?.is_none() {
        store.register(process, LIFETIME).await?;
    }
    Ok(())
}
