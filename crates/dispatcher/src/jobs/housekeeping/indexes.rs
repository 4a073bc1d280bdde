//! Indexes that a migration left to build: each index of a partitioned table, one partition after the other.

use std::time::Duration;

use tokio_util::sync::CancellationToken;

use crate::database::Database;

/// Interval of the looks for missing indexes.
const EVERY: Duration = Duration::from_secs(60);

/// Builds missing indexes until `stop`. Has no deadline, unlike the other jobs: an index of a large partition takes
/// minutes.
pub(crate) async fn build_indexes(database: Database, stop: CancellationToken) {
    while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
        if !*database.availability().borrow() {
            continue;
        }
        match stop.run_until_cancelled(database.store.build_indexes()).await {
            Some(Ok(None | Some(0))) | None => {}
            Some(Ok(Some(built))) => tracing::info!(built, "built the indexes that a migration left"),
            Some(Err(error)) => tracing::warn!(%error, "cannot build an index; trying again"),
        }
    }
}
