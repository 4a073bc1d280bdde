//! Recovery: deliveries whose lease has expired, or whose retry message is overdue, are queued.

use std::time::Duration;

use fanfare_domain::{
    delivery::{FailureReason, MAX_UNKNOWN_ATTEMPTS},
    ids::ProcessId,
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};

use crate::{
    Store, StoreError,
    connection::store::{milliseconds, row_count},
    pipeline::{
        backlogs::{TouchedBacklog, touched, with_backlogs},
        finish::FINISH,
    },
};

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

/// Distance between the floor and the start of a look. A statement takes at most 15 s to commit a row. The shortest
/// lease is 12 s, and a retry counts as missed after 10 s: no row becomes visible 5 s after an earlier look has passed
/// it. Behind an open snapshot, a look reads all dead rows of the margin, at 500 events/s 500 for each second.
const FLOOR_MARGIN: &str = "interval '5 s'";

impl Store {
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
        Ok(recovered(&writer.query(&statement, &parameters).await?))
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
        Ok(recovered(&writer.query(&statement, &parameters).await?))
    }
}

fn recovered(rows: &[Row]) -> Recovered {
    let mut recovered = Recovered::default();
    for row in rows {
        let count = || row.get::<_, i64>("count").unsigned_abs();
        match row.get::<_, &str>("kind") {
            "queued" => (recovered.queued, recovered.reached) = (count(), row.get("reached")),
            "aborted" => recovered.aborted = count(),
            _ => recovered.backlogs.push(touched(row)),
        }
    }
    recovered
}
