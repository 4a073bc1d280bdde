//! Statements that queue deliveries: given-back leases, recovered deliveries.

use std::time::Duration;

use fanfare_domain::{
    delivery::{FailureReason, MAX_UNKNOWN_ATTEMPTS, QueueReason},
    ids::{DeliveryId, LeaseId, ProcessId},
};
use jiff::Timestamp;
use tokio_postgres::types::ToSql;

use crate::{
    Store, StoreError,
    connection::store::{milliseconds, row_count},
    pipeline::{
        backlogs::{TouchedBacklog, touched, with_backlogs},
        columns::Columns,
        finish::FINISH,
    },
};

/// A leased delivery to give back unsent.
#[derive(Debug, Clone, Copy)]
pub struct GiveBack {
    /// Id of the delivery.
    pub delivery: DeliveryId,
    /// Lease to end.
    pub lease: LeaseId,
    /// Reason of the give-back.
    pub reason: QueueReason,
}

/// Result of a recovery.
#[derive(Debug, Default)]
pub struct Recovered {
    /// Number of queued deliveries.
    pub queued: u64,
    /// Number of deliveries that failed as aborted.
    pub aborted: u64,
    /// Backlogs of the queued deliveries.
    pub backlogs: Vec<TouchedBacklog>,
    /// Latest lease end or due time among the recovered rows: the floor of the next look.
    pub reached: Option<Timestamp>,
}

/// Distance between the floor and the start of a look: no statement takes longer to commit.
const FLOOR_MARGIN: &str = "interval '30 s'";

impl Store {
    /// Gives leased deliveries back unsent. A lease already recovered changes nothing.
    ///
    /// The batch must be sorted by delivery.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] the batch may have been queued.
    pub async fn give_back(&self, process: ProcessId, batch: &[GiveBack]) -> Result<Vec<TouchedBacklog>, StoreError> {
        let columns = Columns::new(batch, 2)
            .column("id", "uuid", |back| back.delivery.0)
            .column("lease_id", "uuid", |back| back.lease.0)
            .column("reason", "text", |back| back.reason.as_str());
        let statement = format!(
            "WITH input AS MATERIALIZED (SELECT * FROM {}), queued AS (
    UPDATE open_deliveries o
    SET state = 'queued', reason = i.reason, since = now(), lease_id = NULL, lease_until = NULL, listed = true
    FROM input i WHERE o.id = i.id AND o.id = ANY ({}) AND o.lease_id = i.lease_id AND o.state || '' = 'sending'
    RETURNING o.id, o.endpoint_id, o.application_id, o.reason
), {} SELECT * FROM touched",
            columns.table("i"),
            columns.parameter("id"),
            with_backlogs("$1")
        );
        let writer = self.writer().await?;
        let statement = writer.prepare_cached(&statement).await?;
        let parameters: Vec<_> = [&process.0 as _].into_iter().chain(columns.values()).collect();
        Ok(writer.query(&statement, &parameters).await?.iter().map(touched).collect())
    }

    /// Queues up to `limit` deliveries with an expired lease, each with the next attempt number, and writes the
    /// `unknown` attempts. A delivery that was sent alone at its last deaths fails as aborted. Earlier looks have
    /// covered all leases that ended before `floor`.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] the deliveries may have been queued.
    pub async fn recover_leases(
        &self,
        process: ProcessId,
        floor: Option<Timestamp>,
        limit: usize,
    ) -> Result<Recovered, StoreError> {
        let statement = format!(
            "WITH expired AS MATERIALIZED (
    SELECT o.id, o.lease_until, o.since, o.unknowns + 1 >= $4 AS is_aborted FROM open_deliveries o
    WHERE o.state = 'sending' AND o.lease_until < now()
      AND o.lease_until > coalesce($2::timestamptz - {FLOOR_MARGIN}, '-infinity')
      -- Retention ends older rows: the partition may be gone.
      AND delivery_accepted_at(o.id) >= (SELECT line FROM retention)
    ORDER BY o.lease_until LIMIT $3 FOR UPDATE SKIP LOCKED
), queued AS (
    UPDATE open_deliveries o
    SET state = 'queued', reason = 'lease_expired', attempt = o.attempt + 1, unknowns = o.unknowns + 1, since = now(),
        lease_id = NULL, lease_until = NULL, listed = true
    WHERE o.id = ANY (ARRAY(SELECT id FROM expired WHERE NOT is_aborted))
    RETURNING o.id, o.event_id, o.application_id, o.endpoint_id, o.reason, o.attempt - 1 AS attempt
), ended AS (
    DELETE FROM open_deliveries o WHERE o.id = ANY (ARRAY(SELECT id FROM expired WHERE is_aborted))
    RETURNING o.id, o.event_id, o.application_id, o.endpoint_id, o.finished_once, o.replay_id, o.failures, o.attempt,
              'failed' AS state, $5::text AS reason, true AS notifies
), {FINISH}, {}, unknown AS (
    INSERT INTO attempts (delivery_id, attempt, event_id, application_id, endpoint_id, started_at, outcome)
    SELECT id, attempt, event_id, application_id, endpoint_id, since, 'unknown'
    FROM (SELECT id, attempt, event_id, application_id, endpoint_id FROM queued
          UNION ALL SELECT id, attempt, event_id, application_id, endpoint_id FROM ended) recovered
    JOIN expired USING (id)
    ON CONFLICT DO NOTHING
)
SELECT 'backlog' AS kind, endpoint_id, application_id, owner, NULL::bigint AS count, NULL::timestamptz AS reached FROM touched
UNION ALL SELECT 'queued', NULL, NULL, NULL, count(*), (SELECT max(lease_until) FROM expired) FROM queued
UNION ALL SELECT 'aborted', NULL, NULL, NULL, count(*), NULL FROM ended",
            with_backlogs("$1"),
        );
        let writer = self.writer().await?;
        let statement = writer.prepare_cached(&statement).await?;
        let (most, aborted) = (MAX_UNKNOWN_ATTEMPTS.cast_signed(), FailureReason::Aborted.as_str());
        let parameters: [&(dyn ToSql + Sync); 5] = [&process.0, &floor, &row_count(limit), &most, &aborted];
        let rows = writer.query(&statement, &parameters).await?;
        let mut recovered = Recovered::default();
        for row in &rows {
            let count = || row.get::<_, i64>("count").unsigned_abs();
            match row.get::<_, &str>("kind") {
                "queued" => (recovered.queued, recovered.reached) = (count(), row.get("reached")),
                "aborted" => recovered.aborted = count(),
                _ => recovered.backlogs.push(touched(row)),
            }
        }
        Ok(recovered)
    }

    /// Queues up to `limit` scheduled deliveries that are overdue by more than `late`: their retry message did not
    /// come. Earlier looks have covered all due times before `floor`.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] the deliveries may have been queued.
    pub async fn recover_scheduled(
        &self,
        process: ProcessId,
        late: Duration,
        floor: Option<Timestamp>,
        limit: usize,
    ) -> Result<Recovered, StoreError> {
        let statement = format!(
            "WITH due AS MATERIALIZED (
    SELECT o.id, o.due_at FROM open_deliveries o
    WHERE o.state = 'scheduled' AND o.due_at < now() - $4::bigint * interval '1 millisecond'
      AND o.due_at > coalesce($2::timestamptz - {FLOOR_MARGIN}, '-infinity')
    ORDER BY o.due_at LIMIT $3 FOR UPDATE SKIP LOCKED
), queued AS (
    UPDATE open_deliveries o SET state = 'queued', reason = 'retry', since = now(), due_at = NULL
    WHERE o.id = ANY (ARRAY(SELECT id FROM due)) RETURNING o.id, o.endpoint_id, o.application_id, o.reason
), {}
SELECT 'backlog' AS kind, endpoint_id, application_id, owner, NULL::bigint AS count, NULL::timestamptz AS reached FROM touched
UNION ALL SELECT 'queued', NULL, NULL, NULL, count(*), (SELECT max(due_at) FROM due) FROM queued",
            with_backlogs("$1")
        );
        let writer = self.writer().await?;
        let statement = writer.prepare_cached(&statement).await?;
        let parameters: [&(dyn ToSql + Sync); 4] = [&process.0, &floor, &row_count(limit), &milliseconds(late)];
        let rows = writer.query(&statement, &parameters).await?;
        let mut recovered = Recovered::default();
        for row in &rows {
            match row.get::<_, &str>("kind") {
                "queued" => {
                    recovered.queued = row.get::<_, i64>("count").unsigned_abs();
                    recovered.reached = row.get("reached");
                }
                _ => recovered.backlogs.push(touched(row)),
            }
        }
        Ok(recovered)
    }
}
