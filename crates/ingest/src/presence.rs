//! Presence: the heartbeat of the process, for dispatchers and operators. Accepting events does not need the heartbeat.

use std::{sync::Arc, time::Duration};

use fanfare_broker::Publisher;
use fanfare_service::RecentCount;
use fanfare_store::{Directory, NewProcess, ProcessReport, Store, StoreError};
use tokio_util::sync::CancellationToken;

/// The validity of a heartbeat, and the interval between two heartbeats.
const LIFETIME: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_secs(2);

/// The deadline of a heartbeat.
const TIMEOUT: Duration = Duration::from_secs(5);

/// Parts of the process whose state is reported.
pub(crate) struct Reported {
    pub(crate) store: Store,
    pub(crate) directory: Directory,
    pub(crate) publisher: Publisher,
    pub(crate) published: Arc<RecentCount>,
}

impl Reported {
    fn report(&self) -> ProcessReport {
        ProcessReport {
            events: self.published.read(),
            has_broker: self.publisher.is_ready(),
            has_database: true,
            configuration: self.directory.snapshot().version,
            clock_offset: self.store.clock_offset(),
            ..ProcessReport::default()
        }
    }
}

/// Renews the row of the process until `stop`, then removes the row.
pub(crate) async fn run(reported: Reported, process: NewProcess, stop: CancellationToken) {
    let store = &reported.store;
    while !stop.is_cancelled() {
        if let Err(error) = store.with_deadline(TIMEOUT, renew(&reported, &process)).await {
            tracing::debug!(%error, "the heartbeat failed");
        }
        stop.run_until_cancelled(tokio::time::sleep(EVERY)).await;
    }
    if let Err(error) = store.with_deadline(TIMEOUT, store.unregister(process.id)).await {
        tracing::debug!(%error, "cannot remove the row of this process; the row expires");
    }
}

async fn renew(reported: &Reported, process: &NewProcess) -> Result<(), StoreError> {
    let store = &reported.store;
    if store.renew(process.id, &reported.report(), LIFETIME).await?.is_none() {
        store.register(process, LIFETIME).await?;
    }
    Ok(())
}
