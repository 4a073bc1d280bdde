//! The last run of each job, and the depths of the broker's queues.

use std::time::Duration;

use fanfare_domain::ids::ProcessId;
use jiff::Timestamp;
use uuid::Uuid;

use crate::{Job, Store, StoreError, connection::store::milliseconds, pipeline::columns::Columns};

/// The last run of a job.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct JobRun {
    /// Name of the job.
    pub job: String,
    /// Process of the run.
    pub process: ProcessId,
    /// End of the run.
    pub ended_at: Timestamp,
    /// Duration of the run.
    pub duration: Duration,
    /// Message of the error; `None` after a success.
    pub error: Option<String>,
    /// End of the last successful run.
    pub succeeded_at: Option<Timestamp>,
}

/// Depth of a queue of the broker.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueDepthRow {
    /// Name of the queue, without the prefix.
    pub queue: String,
    /// Messages that wait in the broker.
    pub ready: i64,
    /// Messages that waited a minute before.
    pub ready_before: i64,
    /// Consumers of all processes.
    pub consumers: i64,
    /// Time of the look.
    pub looked_at: Timestamp,
}

impl Store {
    /// Notes a run of a job. A run within 10 s of the last with the same outcome is not noted: some jobs run each
    /// second.
    pub async fn note_run(
        &self,
        job: Job,
        process: ProcessId,
        duration: Duration,
        error: Option<&str>,
    ) -> Result<(), StoreError> {
        let statement = "INSERT INTO job_runs AS r (job, process_id, duration_ms, error, succeeded_at)
                         VALUES ($1, $2, $3, $4, CASE WHEN $4::text IS NULL THEN now() END)
                         ON CONFLICT (job) DO UPDATE
                         SET process_id = excluded.process_id, ended_at = now(), duration_ms = excluded.duration_ms,
                             error = excluded.error, succeeded_at = coalesce(excluded.succeeded_at, r.succeeded_at)
                         WHERE r.ended_at < now() - interval '10 s' OR r.error IS DISTINCT FROM excluded.error";
        let connection = self.connection().await?;
        connection.execute(statement, &[&job.name(), &process.0, &milliseconds(duration), &error]).await?;
        Ok(())
    }

    /// The last runs of all jobs, by name.
    pub async fn job_runs(&self) -> Result<Vec<JobRun>, StoreError> {
        let statement = "SELECT job, process_id, ended_at, duration_ms, error, succeeded_at FROM job_runs ORDER BY job";
        let rows = self.connection().await?.query(statement, &[]).await?;
        let run = |row: &tokio_postgres::Row| JobRun {
            job: row.get(0),
            process: ProcessId(row.get::<_, Uuid>(1)),
            ended_at: row.get(2),
            duration: Duration::from_millis(row.get::<_, i64>(3).unsigned_abs()),
            error: row.get(4),
            succeeded_at: row.get(5),
        };
        Ok(rows.iter().map(run).collect())
    }

    /// Notes the depths of queues in the row of the minute, unless another process has just done so. Deletes the rows
    /// of the day before.
    pub async fn note_depths(&self, depths: &[(String, u32, u32)]) -> Result<(), StoreError> {
        let columns = Columns::new(depths, 1)
            .column("queue", "text", |depth| depth.0.as_str())
            .column("ready", "bigint", |depth| i64::from(depth.1))
            .column("consumers", "bigint", |depth| i64::from(depth.2));
        let statement = format!(
            "WITH ended AS (DELETE FROM queue_depths WHERE at < now() - interval '1 day')
             INSERT INTO queue_depths AS q (queue, at, ready, consumers)
             SELECT queue, date_trunc('minute', now()), ready, consumers FROM {}
             ON CONFLICT (queue, at) DO UPDATE
             SET ready = excluded.ready, consumers = excluded.consumers, looked_at = now()
             WHERE q.looked_at < now() - interval '9 s'",
            columns.table("i")
        );
        let connection = self.connection().await?;
        connection.execute(&statement, &columns.values().collect::<Vec<_>>()).await?;
        Ok(())
    }

    /// The last known depth of each queue, by name.
    pub async fn queue_depths(&self) -> Result<Vec<QueueDepthRow>, StoreError> {
        let statement = "SELECT DISTINCT ON (queue) queue, ready, consumers, looked_at,
                                coalesce(lag(ready) OVER (PARTITION BY queue ORDER BY at), 0)
                         FROM queue_depths WHERE at > now() - interval '10 minutes' ORDER BY queue, at DESC";
        let rows = self.connection().await?.query(statement, &[]).await?;
        let depth = |row: &tokio_postgres::Row| QueueDepthRow {
            queue: row.get(0),
            ready: row.get(1),
            ready_before: row.get(4),
            consumers: row.get(2),
            looked_at: row.get(3),
        };
        Ok(rows.iter().map(depth).collect())
    }
}
