//! Rollups: counts the attempts and events of each minute, for charts. The stages count nothing.

use std::time::Duration;

use fanfare_store::{Job, StoreError};
use tokio_util::sync::CancellationToken;

use crate::{database::Database, jobs::Schedule};

/// Interval of the job.
const EVERY: Duration = Duration::from_secs(60);

/// Wait before the first run.
const FIRST: Duration = Duration::from_secs(5);

/// Counts until `stop`.
pub(crate) async fn rollups(database: Database, stop: CancellationToken) {
    let mut schedule = Schedule::new(database.clone(), Job::Rollups, FIRST, stop);
    while let Some(lock) = schedule.next().await {
        schedule.run(lock, count(&database)).await;
        schedule.every = EVERY;
    }
}

async fn count(database: &Database) -> Result<(), StoreError> {
    while database.store.count_rollups(database.now()).await? {}
    Ok(())
}
