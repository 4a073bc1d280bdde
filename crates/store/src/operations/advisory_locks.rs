//! Jobs that one process at a time does, each under an advisory lock of its own.

use deadpool_postgres::Object;

use crate::{Store, StoreError};

/// The first number of all advisory locks but the migrations', which has one number only. The second is 0
/// for the making of partitions, and that of the job for a job.
pub(crate) const LOCK_SPACE: i32 = 6683;

/// A job that one process at a time does.
#[derive(Debug, Clone, Copy)]
pub enum Job {
    /// Walks over all open deliveries.
    Sweep,
    /// Bounds the deliveries that are held for paused endpoints.
    Holding,
    /// Creates and drops partitions.
    Partitions,
    /// Tells owners of failed deliveries by mail.
    Mail,
    /// Sends events of the past again.
    Replays,
    /// Sends a delivery that killed processes, and nothing else meanwhile.
    Suspects,
    /// Removes dead rows of the open deliveries.
    Vacuum,
}

/// The right to do a job, for as long as this is kept: a session's advisory lock, gone with the session.
pub struct AdvisoryLock {
    connection: Option<Object>,
}

impl AdvisoryLock {
    /// Gives the right back, so that the connection can be used on.
    pub async fn unlock(mut self) {
        let Some(connection) = &self.connection else { return };
        // Kept until the answer is there: where nobody waits for that any more, it is closed instead.
        if connection.batch_execute("SELECT pg_advisory_unlock_all()").await.is_ok() {
            drop(self.connection.take());
        }
    }
}

impl Drop for AdvisoryLock {
    fn drop(&mut self) {
        // The connection must not go back to the pool with the lock: closing it ends the session.
        if let Some(connection) = self.connection.take() {
            drop(Object::take(connection));
        }
    }
}

impl Store {
    /// The right to do a job; none while another process has it.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn try_lock(&self, job: Job) -> Result<Option<AdvisoryLock>, StoreError> {
        let number = match job {
            Job::Sweep => 1,
            Job::Holding => 2,
            Job::Partitions => 3,
            Job::Mail => 4,
            Job::Replays => 5,
            Job::Suspects => 6,
            Job::Vacuum => 7,
        };
        let connection = self.connection().await?;
        let statement = "SELECT pg_try_advisory_lock($1, $2::int)";
        let locked: bool = connection.query_one(statement, &[&LOCK_SPACE, &number]).await?.get(0);
        Ok(locked.then_some(AdvisoryLock { connection: Some(connection) }))
    }
}
