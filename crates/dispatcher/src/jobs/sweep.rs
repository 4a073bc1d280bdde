//! The sweep: a walk over all open deliveries that backs every other rule. And their vacuum.

use std::time::Duration;

use fanfare_domain::delivery::FailureReason;
use fanfare_store::{Job, PAGES, StoreError, Swept};
use tokio_util::sync::CancellationToken;

use super::Schedule;
use crate::{database::Database, metric};

/// How often it walks.
const EVERY: Duration = Duration::from_secs(600);

/// How often dead rows are removed. Autovacuum visits a table once a minute, when most of its pages are dead rows already.
const VACUUMS_EVERY: Duration = Duration::from_secs(10);

/// The job of the sweep.
pub(crate) struct Sweep {
    pub(crate) database: Database,
}

impl Sweep {
    /// Walks until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let schedule = Schedule { database: self.database.clone(), job: Job::Sweep, every: EVERY, stop };
        while let Some(lock) = schedule.next().await {
            schedule.run(lock, self.walk()).await;
        }
    }

    async fn walk(&self) -> Result<(), StoreError> {
        let store = &self.database.store;
        let pages = store.open_pages().await?;
        let mut page = 0;
        while page < pages {
            let Swept { expired, unowned } = store.sweep(page).await?;
            if expired > 0 {
                tracing::warn!(deliveries = expired, "the sweep ended deliveries that had expired");
                let labels = [("state", "failed"), ("reason", FailureReason::Expired.as_str())];
                metrics::counter!(metric::DELIVERIES, &labels).increment(expired);
            }
            if unowned > 0 {
                tracing::warn!(rows = unowned, "the sweep found queued deliveries that no backlog had");
                metrics::counter!(metric::RECOVERED, "kind" => "sweep").increment(unowned);
            }
            page += PAGES;
        }
        Ok(())
    }
}

/// Removes the dead rows of the open deliveries until `stop`.
pub(crate) async fn vacuum(database: Database, stop: CancellationToken) {
    let schedule = Schedule { database: database.clone(), job: Job::Vacuum, every: VACUUMS_EVERY, stop };
    while let Some(lock) = schedule.next().await {
        schedule.run(lock, database.store.vacuum_open()).await;
    }
}
