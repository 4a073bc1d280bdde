//! The sweep: a slow walk over all open deliveries, by ranges of pages, which repairs broken invariants.

use fanfare_domain::delivery::FailureReason;
use tokio_postgres::types::ToSql;

use crate::{
    Store, StoreError,
    pipeline::{backlogs::with_backlogs, fifo::IN_ORDER, finish::FINISH},
};

/// Result of a step of the sweep.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Swept {
    /// Number of deliveries that failed as expired.
    pub expired: u64,
    /// Number of queued deliveries and backlogs without an existing owner: an invariant was broken.
    pub unowned: u64,
}

/// Pages of a step, which takes 7 to 110 ms.
pub const PAGES: i64 = 10_000;

/// Rows of a step.
const RANGE: &str = "o.ctid >= ('(' || $1::bigint || ',0)')::tid AND o.ctid < ('(' || $2::bigint || ',0)')::tid";

impl Store {
    /// Number of pages of `open_deliveries`.
    pub async fn open_pages(&self) -> Result<i64, StoreError> {
        let statement = "SELECT pg_relation_size('open_deliveries') / current_setting('block_size')::bigint";
        Ok(self.connection().await?.query_one(statement, &[]).await?.get(0))
    }

    /// Sweeps the pages from `page` on. Ends expired deliveries, unless their endpoint is paused. Gives queued
    /// deliveries without a backlog an unowned backlog. Signals the keys of deliveries that need not wait in order.
    pub async fn sweep(&self, page: i64) -> Result<Swept, StoreError> {
        let connection = self.connection().await?;
        let expired = format!(
            "WITH chosen AS MATERIALIZED (
    SELECT o.id FROM open_deliveries o JOIN endpoints p ON p.id = o.endpoint_id
    WHERE {RANGE} AND o.state IN ('queued', 'scheduled') AND o.class < {IN_ORDER} AND o.expires_at < now() - interval '1 minute'
      AND delivery_accepted_at(o.id) >= (SELECT line FROM retention)
      AND (p.status <> 'paused' OR p.deleted_at IS NOT NULL)
      AND NOT EXISTS (SELECT FROM endpoint_backlogs b WHERE b.endpoint_id = o.endpoint_id AND o.since < b.resumed_at)
    LIMIT 5000 FOR UPDATE OF o SKIP LOCKED
), ended AS (
    DELETE FROM open_deliveries o WHERE o.id = ANY (ARRAY(SELECT id FROM chosen))
    RETURNING o.id, o.event_id, o.application_id, o.endpoint_id, o.finished_once, o.replay_id, o.failures,
              o.attempt - 1 AS attempt, 'failed' AS state, $3::text AS reason, true AS notifies
), {FINISH}
SELECT count(*) FROM ended"
        );
        let reason = FailureReason::Expired.as_str();
        let end = page + PAGES;
        let parameters: [&(dyn ToSql + Sync); 3] = [&page, &end, &reason];
        let expired: i64 = connection.query_one(&expired, &parameters).await?.get(0);
        let unowned = format!(
            "WITH queued AS MATERIALIZED (
    SELECT o.id, o.endpoint_id, o.application_id, coalesce(o.reason, 'retry') AS reason FROM open_deliveries o
    WHERE {RANGE} AND o.state = 'queued' AND o.class < {IN_ORDER} AND o.since < now() - interval '1 minute'
      AND NOT EXISTS (SELECT FROM endpoint_backlogs b WHERE b.endpoint_id = o.endpoint_id)
    FOR UPDATE SKIP LOCKED
), {}
SELECT count(*) FROM queued WHERE EXISTS (SELECT FROM touched)",
            with_backlogs("NULL")
        );
        let unowned: i64 = connection.query_one(&unowned, &[&page, &end]).await?.get(0);
        // No process has this owner's id: a process that had long been dead committed late.
        let orphans = "UPDATE endpoint_backlogs b SET owner = NULL, next_look = now()
                       FROM (SELECT endpoint_id FROM endpoint_backlogs o
                             WHERE owner IS NOT NULL AND NOT EXISTS (SELECT FROM processes p WHERE p.id = o.owner)
                             ORDER BY endpoint_id FOR NO KEY UPDATE SKIP LOCKED) orphans
                       WHERE b.endpoint_id = orphans.endpoint_id";
        let orphans = connection.execute(orphans, &[]).await?;
        let turns = format!(
            "INSERT INTO ordering_signals (endpoint_id, key)
SELECT w.endpoint_id, w.ordering_key FROM (
    SELECT DISTINCT o.endpoint_id, o.ordering_key FROM open_deliveries o
    WHERE {RANGE} AND o.state = 'queued' AND o.class = {IN_ORDER} AND o.since < now() - interval '1 minute') w
JOIN endpoints p ON p.id = w.endpoint_id
CROSS JOIN LATERAL (SELECT o.class FROM open_deliveries o WHERE o.endpoint_id = w.endpoint_id
                                                            AND o.ordering_key = w.ordering_key
                    ORDER BY o.sequence LIMIT 1) first
WHERE first.class = {IN_ORDER} OR p.fifo IS NULL OR p.status = 'disabled' OR p.deleted_at IS NOT NULL"
        );
        connection.execute(&turns, &[&page, &end]).await?;
        Ok(Swept { expired: expired.unsigned_abs(), unowned: unowned.unsigned_abs() + orphans })
    }

    /// Vacuums `open_deliveries`, since autovacuum visits the table once a minute only. If the user does not own the
    /// table, PostgreSQL warns and vacuums nothing.
    pub async fn vacuum_open(&self) -> Result<(), StoreError> {
        let connection = self.connection().await?;
        connection.batch_execute("SET statement_timeout = '110s'").await?;
        let vacuumed = connection.batch_execute("VACUUM (TRUNCATE off) open_deliveries").await;
        connection.batch_execute("RESET statement_timeout").await?;
        Ok(vacuumed?)
    }
}
