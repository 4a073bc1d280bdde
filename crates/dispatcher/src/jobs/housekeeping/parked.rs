//! The bound on parked messages: the oldest go first, so that a publisher's mistakes fill no disk.

use std::time::Duration;

use fanfare_store::{Job, StoreError};
use tokio_util::sync::CancellationToken;

use crate::{configuration::ParkedLimits, database::Database, jobs::Schedule, metric};

/// Interval of the job. A publisher may send a thousand unreadable messages a second.
const EVERY: Duration = Duration::from_secs(10);

/// Messages deleted by a statement: many more would not end within the statement's deadline.
const AT_ONCE: usize = 5000;

/// Deletes the parked messages beyond `limits` until `stop`.
pub(crate) async fn trim_parked(database: Database, limits: ParkedLimits, stop: CancellationToken) {
    let schedule = Schedule::new(database.clone(), Job::Parked, EVERY, stop);
    while let Some(lock) = schedule.next().await {
        schedule.run(lock, trim(&database, limits)).await;
    }
}

async fn trim(database: &Database, limits: ParkedLimits) -> Result<(), StoreError> {
    loop {
        let deleted = database.store.trim_parked(limits.messages, limits.bytes, AT_ONCE).await?;
        if deleted > 0 {
            tracing::warn!(messages = deleted, "deleted the oldest parked messages: there were too many");
            metrics::counter!(metric::PARKED_DELETED).increment(deleted);
        }
        if deleted < AT_ONCE as u64 {
            return Ok(());
        }
    }
}
