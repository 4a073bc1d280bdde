//! Advisory locks: each job runs in one process at a time.

use deadpool_postgres::Object;

use crate::{Store, StoreError};

/// First number of the two-number advisory locks. The second number is 0 to create partitions, and the job's number for
/// a job. The lock of the migrations has a single number.
pub(crate) const LOCK_SPACE: i32 = 6683;

/// A job under an advisory lock.
#[derive(Debug, Clone, Copy)]
pub enum Job {
    /// Walks over all open deliveries.
    Sweep,
    /// Bounds the deliveries held for paused endpoints.
    Holding,
    /// Creates and drops partitions.
    Partitions,
    /// Mails failure notices to the owners of endpoints.
    Mail,
    /// Advances replays of past events.
    Replays,
    /// Sends a suspect, a delivery with which processes died, and nothing else meanwhile.
    Suspects,
    /// Removes dead rows of the open deliveries.
    Vacuum,
    /// Counts rows for the metrics.
    Census,
    /// Archives days below the line of retention.
    Archive,
    /// Counts attempts and events for charts.
    Rollups,
    /// Bounds the parked messages.
    Parked,
    /// Tells endpoints the deliveries of each day.
    Digests,
    /// Tells changes of state to the application that the operator names.
    OperationalEvents,
}

impl Job {
    /// Name of the job in metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::Sweep => "sweep",
            Self::Holding => "holding",
            Self::Partitions => "partitions",
            Self::Mail => "mail",
            Self::Replays => "replays",
            Self::Suspects => "suspects",
            Self::Vacuum => "vacuum",
            Self::Census => "census",
            Self::Archive => "archive",
            Self::Rollups => "rollups",
            Self::Parked => "parked",
            Self::Digests => "digests",
            Self::OperationalEvents => "operational_events",
        }
    }
}

/// An advisory lock of a session. The lock ends with this value, or with the session.
pub struct AdvisoryLock {
    connection: Option<Object>,
}

impl AdvisoryLock {
    /// The lock that the connection's session has just got.
    pub(crate) fn of(connection: Object) -> Self {
        Self { connection: Some(connection) }
    }

    /// False once the connection has ended, and the lock with the session.
    pub fn is_held(&self) -> bool {
        self.connection.as_ref().is_some_and(|connection| !connection.is_closed())
    }

    /// Unlocks, and returns the connection to the pool.
    pub async fn unlock(mut self) {
        let Some(connection) = &self.connection else { return };
        // `self` keeps the connection until the answer: a cancelled unlock closes the connection.
        if connection.batch_execute("SELECT pg_advisory_unlock_all()").await.is_ok() {
            drop(self.connection.take());
        }
    }
}

impl Drop for AdvisoryLock {
    fn drop(&mut self) {
        // The connection must not return to the pool with the lock: closing it ends the session.
        if let Some(connection) = self.connection.take() {
            drop(Object::take(connection));
        }
    }
}

impl Store {
    /// Tries to lock a job; `None` while another process holds the lock.
    pub async fn try_lock(&self, job: Job) -> Result<Option<AdvisoryLock>, StoreError> {
        let number = match job {
            Job::Sweep => 1,
            Job::Holding => 2,
            Job::Partitions => 3,
            Job::Mail => 4,
            Job::Replays => 5,
            Job::Suspects => 6,
            Job::Vacuum => 7,
            Job::Census => 8,
            Job::Archive => 9,
            Job::Rollups => 10,
            Job::Parked => 11,
            Job::Digests => 12,
            Job::OperationalEvents => 13,
        };
        let connection = self.lock_connection().await?;
        let statement = "SELECT pg_try_advisory_lock($1, $2::int)";
        let locked: bool = connection.query_one(statement, &[&LOCK_SPACE, &number]).await?.get(0);
        Ok(locked.then(|| AdvisoryLock::of(connection)))
    }
}
