//! The census: counts rows, partitions and bytes for the metrics, in one dispatcher at a time.

use std::time::Duration;

use fanfare_store::{Job, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{database::Database, jobs::Schedule, metric};

/// Interval of the counts.
const EVERY: Duration = Duration::from_secs(60);

/// Wait before the first run.
const FIRST: Duration = Duration::from_secs(5);

/// Interval of the measurement of bytes, which visits each file of the database.
const STORAGE_EVERY: Duration = Duration::from_secs(600);

/// Counts until `stop`.
pub(crate) async fn census(database: Database, stop: CancellationToken) {
    let mut schedule = Schedule::new(database.clone(), Job::Census, FIRST, stop);
    let mut storage = Storage { bytes: Vec::new(), measured: None };
    while let Some(lock) = schedule.next().await {
        schedule.run(lock, count(&database, &mut storage)).await;
        schedule.every = EVERY;
    }
}

/// The last measurement.
struct Storage {
    bytes: Vec<(String, i64)>,
    measured: Option<Instant>,
}

async fn count(database: &Database, storage: &mut Storage) -> Result<(), StoreError> {
    let census = database.store.census().await?;
    let counts = [
        (metric::HELD, census.held),
        (metric::PARKED_MESSAGES, census.parked),
        (metric::NOTICES, census.notices),
        (metric::REPLAYS, census.replays),
        (metric::DAYS_TO_ARCHIVE, census.days_to_archive),
    ];
    // Counts and bytes are exact in `f64` up to 2^53.
    for (name, count) in counts {
        metrics::gauge!(name).set(count as f64);
    }
    for (status, count) in ["enabled", "paused", "disabled"].into_iter().zip(census.endpoints) {
        metrics::gauge!(metric::ENDPOINTS, "status" => status).set(count as f64);
    }
    for (state, count) in [("waiting", census.delayed), ("overdue", census.overdue)] {
        metrics::gauge!(metric::DELAYED_EVENTS, "state" => state).set(count as f64);
    }
    for (state, count) in [("parked", census.parked_keys), ("overdue", census.overdue_signals)] {
        metrics::gauge!(metric::ORDERING_KEYS, "state" => state).set(count as f64);
    }
    metrics::gauge!(metric::PARTITIONS_AHEAD).set(census.partitions_ahead);
    if storage.measured.is_none_or(|measured| measured.elapsed() >= STORAGE_EVERY) {
        *storage = Storage { bytes: database.store.storage().await?, measured: Some(Instant::now()) };
    }
    for (table, bytes) in &storage.bytes {
        metrics::gauge!(metric::STORAGE, "table" => table.clone()).set(*bytes as f64);
    }
    Ok(())
}
