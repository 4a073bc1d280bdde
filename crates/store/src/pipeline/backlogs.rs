//! Backlogs: the queued deliveries of an endpoint, drained by one owner.
//!
//! A statement that queues deliveries holds each endpoint's backlog, or creates the backlog, in the same commit
//! ([`with_backlogs`]). Only `end_backlogs`, a function in the database, ends a backlog.

use std::time::Duration;

use fanfare_domain::{
    delivery::QueueReason,
    ids::{ApplicationId, EndpointId, ProcessId},
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    connection::store::{milliseconds, row_count},
    pipeline::columns::Columns,
};

/// A backlog found or created by a statement that queued a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TouchedBacklog {
    /// Endpoint of the backlog.
    pub endpoint: EndpointId,
    /// Application of the endpoint.
    pub application: ApplicationId,
    /// Process that drains the backlog; `None` if unowned.
    pub owner: Option<ProcessId>,
}

/// A backlog taken over by a process, with the state of its breaker.
#[derive(Debug, Clone, Copy)]
pub struct TakenBacklog {
    /// Endpoint of the backlog.
    pub endpoint: EndpointId,
    /// Application of the endpoint.
    pub application: ApplicationId,
    /// Consecutive failed attempts, as counted by the last owner.
    pub failures: u32,
    /// Time of the next probe; `None` if the breaker is closed.
    pub next_probe: Option<Timestamp>,
    /// End of the rest that the endpoint asked for.
    pub rests_until: Option<Timestamp>,
}

/// A backlog to release.
#[derive(Debug, Clone, Copy)]
pub struct ReleasedBacklog {
    /// Endpoint of the backlog.
    pub endpoint: EndpointId,
    /// Time until another process may take over the backlog.
    pub look_in: Duration,
    /// Reason of the wait; `None` leaves the reason unchanged.
    pub reason: Option<QueueReason>,
}

/// Breaker of a backlog's endpoint after a probe, and its rest.
#[derive(Debug, Clone, Copy)]
pub struct Probed {
    /// Endpoint of the backlog.
    pub endpoint: EndpointId,
    /// Consecutive failed attempts.
    pub failures: u32,
    /// Time until the next probe; `None` if the breaker is closed.
    pub next_in: Option<Duration>,
    /// Time until the end of the rest that the endpoint asked for.
    pub rest: Option<Duration>,
}

/// A backlog, as the API shows it.
#[derive(Debug, Clone)]
pub struct BacklogRow {
    /// Process that drains the backlog; `None` if unowned.
    pub owner: Option<ProcessId>,
    /// Reason of the wait.
    pub reason: String,
    /// Beginning of the backlog.
    pub since: Timestamp,
    /// Consecutive failed attempts.
    pub failures: u32,
    /// Time of the next probe; `None` if the breaker is closed.
    pub next_probe: Option<Timestamp>,
    /// End of the rest that the endpoint asked for, perhaps in the past.
    pub rests_until: Option<Timestamp>,
    /// Queued deliveries, counted up to a bound.
    pub queued: i64,
}

/// Completes a statement that queues deliveries. The CTE `queued` must yield (endpoint_id, application_id, reason) of
/// the queued deliveries. Holds the endpoints' backlogs, or creates them with the owner `process` (a parameter of type
/// uuid, or NULL). The CTE `touched` yields (endpoint_id, application_id, owner).
///
/// The new backlog of a paused endpoint has no owner: a dispatcher looks at the endpoint's state after 2 s.
pub(crate) fn with_backlogs(process: &str) -> String {
    format!(
        "held AS MATERIALIZED (
    SELECT b.endpoint_id, b.application_id, b.owner FROM endpoint_backlogs b
    WHERE b.endpoint_id IN (SELECT endpoint_id FROM queued) ORDER BY b.endpoint_id FOR KEY SHARE
), created AS (
    INSERT INTO endpoint_backlogs AS b (endpoint_id, application_id, owner, reason, next_look)
    SELECT DISTINCT ON (endpoint_id) endpoint_id, application_id,
           CASE WHEN reason = 'paused' THEN NULL ELSE {process}::uuid END, coalesce(reason, 'retry'),
           now() + CASE WHEN reason = 'paused' THEN interval '2 s' ELSE interval '0' END
    FROM queued WHERE endpoint_id NOT IN (SELECT endpoint_id FROM held) ORDER BY endpoint_id
    ON CONFLICT (endpoint_id) DO UPDATE SET application_id = excluded.application_id
    RETURNING b.endpoint_id, b.application_id, b.owner
), touched AS (
    SELECT * FROM held UNION ALL SELECT * FROM created
)"
    )
}

/// Rows of the endpoints $2 owned by the process $1, locked in the common order of all statements.
const OWNED_IN_ORDER: &str = "(SELECT endpoint_id FROM endpoint_backlogs WHERE owner = $1 AND endpoint_id = ANY ($2)
                               ORDER BY endpoint_id FOR NO KEY UPDATE) mine";

/// Reads a row of `touched`.
pub(crate) fn touched(row: &Row) -> TouchedBacklog {
    TouchedBacklog {
        endpoint: EndpointId(row.get("endpoint_id")),
        application: ApplicationId(row.get("application_id")),
        owner: row.get::<_, Option<Uuid>>("owner").map(ProcessId),
    }
}

impl Store {
    /// Takes over up to `limit` backlogs that have no owner and are due for a look.
    pub async fn take_backlogs(&self, process: ProcessId, limit: usize) -> Result<Vec<TakenBacklog>, StoreError> {
        let statement = "UPDATE endpoint_backlogs b SET owner = $1, is_ending = false
                         FROM (SELECT endpoint_id FROM endpoint_backlogs WHERE owner IS NULL AND next_look <= now()
                               ORDER BY next_look LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED) due
                         WHERE b.endpoint_id = due.endpoint_id
                         RETURNING b.endpoint_id, b.application_id, b.failures, b.next_probe, b.rests_until";
        let connection = self.writer().await?;
        let statement = connection.prepare_cached(statement).await?;
        let rows = connection.query(&statement, &[&process.0, &row_count(limit)]).await?;
        Ok(rows.iter().map(taken).collect())
    }

    /// Lists the backlogs of a process. The owner begins all backlogs missing in its memory.
    pub async fn owned_backlogs(&self, process: ProcessId) -> Result<Vec<TakenBacklog>, StoreError> {
        let statement = "SELECT endpoint_id, application_id, failures, next_probe, rests_until
                         FROM endpoint_backlogs WHERE owner = $1";
        let connection = self.writer().await?;
        let statement = connection.prepare_cached(statement).await?;
        let rows = connection.query(&statement, &[&process.0]).await?;
        Ok(rows.iter().map(taken).collect())
    }

    /// Releases backlogs of a process.
    pub async fn release_backlogs(&self, process: ProcessId, released: &[ReleasedBacklog]) -> Result<(), StoreError> {
        let columns = Columns::new(released, 2)
            .column("endpoint_id", "uuid", |backlog| backlog.endpoint.0)
            .column("look_ms", "bigint", |backlog| milliseconds(backlog.look_in))
            .column("reason", "text", |backlog| backlog.reason.map(QueueReason::as_str));
        let statement = format!(
            "UPDATE endpoint_backlogs b
             SET owner = NULL, reason = coalesce(i.reason, b.reason),
                 -- The process may not know yet that the endpoint was resumed.
                 next_look = now() + CASE WHEN b.resumed_at > now() - interval '15 s' THEN least(i.look_ms, 1000)
                                          ELSE i.look_ms END * interval '1 millisecond'
             FROM {}, {OWNED_IN_ORDER} WHERE b.endpoint_id = i.endpoint_id AND b.endpoint_id = mine.endpoint_id",
            columns.table("i")
        );
        let connection = self.writer().await?;
        let statement = connection.prepare_cached(&statement).await?;
        let parameters: Vec<_> = [&process.0 as _].into_iter().chain(columns.values()).collect();
        connection.execute(&statement, &parameters).await?;
        Ok(())
    }

    /// Releases all backlogs of a process. Another process may take them over at once.
    pub async fn release_all_backlogs(&self, process: ProcessId) -> Result<(), StoreError> {
        let statement = "UPDATE endpoint_backlogs b SET owner = NULL, next_look = now()
                         FROM (SELECT endpoint_id FROM endpoint_backlogs WHERE owner = $1
                               ORDER BY endpoint_id FOR NO KEY UPDATE) mine
                         WHERE b.endpoint_id = mine.endpoint_id";
        self.writer().await?.execute(statement, &[&process.0]).await?;
        Ok(())
    }

    /// Ends the empty backlogs of a process among `endpoints`. Returns the endpoints whose backlog the process no
    /// longer owns.
    pub async fn end_backlogs(
        &self,
        process: ProcessId,
        endpoints: &[EndpointId],
    ) -> Result<Vec<EndpointId>, StoreError> {
        let endpoints: Vec<Uuid> = endpoints.iter().map(|endpoint| endpoint.0).collect();
        let connection = self.writer().await?;
        let statement = connection.prepare_cached("SELECT end_backlogs($1, $2)").await?;
        let rows = connection.query(&statement, &[&process.0, &endpoints]).await?;
        Ok(rows.iter().map(|row| EndpointId(row.get(0))).collect())
    }

    /// Marks backlogs as ending, or as no longer ending. First attempts pass beside an ending backlog. Otherwise the
    /// backlog of a busy endpoint would never end, since each persist that queues holds the backlog's row.
    pub async fn mark_ending(
        &self,
        process: ProcessId,
        endpoints: &[EndpointId],
        is_ending: bool,
    ) -> Result<(), StoreError> {
        let endpoints: Vec<Uuid> = endpoints.iter().map(|endpoint| endpoint.0).collect();
        let statement = format!(
            "UPDATE endpoint_backlogs b SET is_ending = $3 FROM {OWNED_IN_ORDER}
             WHERE b.endpoint_id = mine.endpoint_id AND b.is_ending <> $3"
        );
        let connection = self.writer().await?;
        let statement = connection.prepare_cached(&statement).await?;
        connection.execute(&statement, &[&process.0, &endpoints, &is_ending]).await?;
        Ok(())
    }

    /// Writes the breakers and rests of a process's backlogs, for the API and for the next owner.
    pub async fn note_probes(&self, process: ProcessId, probed: &[Probed]) -> Result<(), StoreError> {
        let columns = Columns::new(probed, 2)
            .column("endpoint_id", "uuid", |backlog| backlog.endpoint.0)
            .column("failures", "int", |backlog| backlog.failures.cast_signed())
            .column("next_ms", "bigint", |backlog| backlog.next_in.map(milliseconds))
            .column("rest_ms", "bigint", |backlog| backlog.rest.map(milliseconds));
        let statement = format!(
            "UPDATE endpoint_backlogs b
             SET failures = i.failures, next_probe = now() + i.next_ms * interval '1 millisecond',
                 rests_until = now() + i.rest_ms * interval '1 millisecond',
                 reason = CASE WHEN i.rest_ms IS NOT NULL THEN 'retry_after'
                               WHEN i.next_ms IS NOT NULL THEN 'breaker_open'
                               WHEN b.reason IN ('breaker_open', 'retry_after') THEN 'backlog' ELSE b.reason END
             FROM {}, {OWNED_IN_ORDER} WHERE b.endpoint_id = i.endpoint_id AND b.endpoint_id = mine.endpoint_id",
            columns.table("i")
        );
        let connection = self.writer().await?;
        let statement = connection.prepare_cached(&statement).await?;
        let parameters: Vec<_> = [&process.0 as _].into_iter().chain(columns.values()).collect();
        connection.execute(&statement, &parameters).await?;
        Ok(())
    }

    /// Counts the queued deliveries of `endpoints`, each endpoint up to `most`.
    pub async fn count_queued(&self, endpoints: &[EndpointId], most: usize) -> Result<u64, StoreError> {
        if endpoints.is_empty() {
            return Ok(0);
        }
        let endpoints: Vec<Uuid> = endpoints.iter().map(|endpoint| endpoint.0).collect();
        let statement = "SELECT coalesce(sum(q.count), 0)::bigint FROM unnest($1::uuid[]) AS e(id) CROSS JOIN LATERAL (
                             SELECT count(*) FROM (SELECT FROM open_deliveries o
                                                   WHERE o.endpoint_id = e.id AND o.state = 'queued' LIMIT $2) c) q";
        let count: i64 = self.writer().await?.query_one(statement, &[&endpoints, &row_count(most)]).await?.get(0);
        Ok(count.unsigned_abs())
    }

    /// Lists the paused endpoints with unowned backlogs.
    pub async fn paused_backlogs(&self) -> Result<Vec<EndpointId>, StoreError> {
        let statement = "SELECT b.endpoint_id FROM endpoint_backlogs b JOIN endpoints p ON p.id = b.endpoint_id
                         WHERE b.owner IS NULL AND p.status = 'paused' AND p.deleted_at IS NULL ORDER BY b.endpoint_id";
        let rows = self.connection().await?.query(statement, &[]).await?;
        Ok(rows.iter().map(|row| EndpointId(row.get(0))).collect())
    }

    /// Finds the backlog of an endpoint, with its deliveries counted up to `most`.
    pub async fn backlog(&self, endpoint: EndpointId, most: usize) -> Result<Option<BacklogRow>, StoreError> {
        let statement = "SELECT b.owner, b.reason, b.since, b.failures, b.next_probe, b.rests_until,
                                (SELECT count(*) FROM (SELECT FROM open_deliveries o
                                                       WHERE o.endpoint_id = $1 AND o.state = 'queued' LIMIT $2) q)
                         FROM endpoint_backlogs b WHERE b.endpoint_id = $1";
        let row = self.connection().await?.query_opt(statement, &[&endpoint.0, &row_count(most)]).await?;
        Ok(row.map(|row| BacklogRow {
            owner: row.get::<_, Option<Uuid>>(0).map(ProcessId),
            reason: row.get(1),
            since: row.get(2),
            failures: row.get::<_, i32>(3).cast_unsigned(),
            next_probe: row.get(4),
            rests_until: row.get(5),
            queued: row.get(6),
        }))
    }
}

fn taken(row: &Row) -> TakenBacklog {
    TakenBacklog {
        endpoint: EndpointId(row.get("endpoint_id")),
        application: ApplicationId(row.get("application_id")),
        failures: row.get::<_, i32>("failures").cast_unsigned(),
        next_probe: row.get("next_probe"),
        rests_until: row.get("rests_until"),
    }
}
