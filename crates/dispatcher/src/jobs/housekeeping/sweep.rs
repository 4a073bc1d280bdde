//! The sweep, a walk over all open deliveries that repairs broken invariants; and the vacuum of the open deliveries.

use std::time::Duration;

use fanfare_domain::delivery::FailureReason;
use fanfare_store::{Job, PAGES, StoreError, Swept};
use tokio_util::sync::CancellationToken;

use crate::{database::Database, jobs::Schedule, metric};

/// Interval of the sweep.
const EVERY: Duration = Duration::from_secs(600);

/// Interval of the vacuum. Autovacuum visits a table only once a minute, when dead rows already fill most pages.
const VACUUMS_EVERY: Duration = Duration::from_secs(10);

/// Maximum of temporary endpoints that a run deletes.
const MAX_EXPIRED: usize = 1000;

/// Maximum of ordering keys of deleted endpoints that a run deletes.
const MAX_KEYS: usize = 10_000;

pub(crate) struct Sweep {
    pub(crate) database: Database,
}

impl Sweep {
    /// Runs the job until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let schedule = Schedule::new(self.database.clone(), Job::Sweep, EVERY, stop);
        while let Some(lock) = schedule.next().await {
            schedule.run(lock, self.sweep()).await;
        }
    }

    async fn sweep(&self) -> Result<(), StoreError> {
        self.walk().await?;
        self.delete_expired_endpoints().await?;
        self.database.store.forget_ordering_keys(MAX_KEYS).await?;
        Ok(())
    }

    /// Deletes temporary endpoints whose feed was not read for a while.
    async fn delete_expired_endpoints(&self) -> Result<(), StoreError> {
        let store = &self.database.store;
        for (application, endpoint) in store.expired_endpoints(MAX_EXPIRED).await? {
            if store.delete_expired_endpoint(application, endpoint).await? {
                tracing::info!(%application, %endpoint, "deleted a temporary endpoint: its feed is no longer read");
            }
        }
        Ok(())
    }

    async fn walk(&self) -> Result<(), StoreError> {
        let store = &self.database.store;
        let pages = store.open_pages().await?;
        let mut page = 0;
        while page < pages {
            let Swept { expired, unowned } = store.sweep(page).await?;
            if expired > 0 {
                tracing::warn!(deliveries = expired, "the sweep ended expired deliveries");
                let labels = [("state", "failed"), ("reason", FailureReason::Expired.as_str())];
                metrics::counter!(metric::DELIVERIES, &labels).increment(expired);
            }
            if unowned > 0 {
                tracing::warn!(rows = unowned, "the sweep found queued deliveries without a backlog; report the fault");
                metrics::counter!(metric::RECOVERED, "kind" => "sweep").increment(unowned);
            }
            page += PAGES;
        }
        Ok(())
    }
}

/// Vacuums the open deliveries until `stop`.
pub(crate) async fn vacuum(database: Database, stop: CancellationToken) {
    let schedule = Schedule::new(database.clone(), Job::Vacuum, VACUUMS_EVERY, stop);
    while let Some(lock) = schedule.next().await {
        schedule.run(lock, database.store.vacuum_open()).await;
    }
}
