//! Ends of deliveries without an attempt: expired, skipped, aborted, held for too long.

use std::time::Duration;

use fanfare_domain::{
    delivery::{FailureReason, State},
    ids::{DeliveryId, EndpointId, LeaseId},
};
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    connection::store::{milliseconds, row_count},
    pipeline::columns::Columns,
};

/// An end without an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Skipped, as the endpoint is disabled.
    Skipped,
    /// Failed for this reason.
    Failed(FailureReason),
}

/// The end of a leased delivery, without an attempt.
#[derive(Debug, Clone, Copy)]
pub struct EndLeased {
    /// Id of the delivery.
    pub delivery: DeliveryId,
    /// Lease of the delivery.
    pub lease: LeaseId,
    /// The end.
    pub end: End,
    /// True if the endpoint's owner gets a notice of a failure.
    pub notifies_owner: bool,
}

impl End {
    /// State of the delivery after the end.
    pub fn state(self) -> State {
        match self {
            Self::Skipped => State::Skipped,
            Self::Failed(_) => State::Failed,
        }
    }

    /// Reason of the state; `None` for a skipped delivery.
    pub fn reason(self) -> Option<&'static str> {
        match self {
            Self::Skipped => None,
            Self::Failed(reason) => Some(reason.as_str()),
        }
    }
}

/// Writes the finished rows of the CTE `ended`, which has deleted the open rows. `ended` yields (id, event_id,
/// application_id, endpoint_id, finished_once, replay_id, failures, attempt, state, reason, notifies). `attempt` is the
/// highest number of an attempt made.
pub(crate) const FINISH: &str = "finished AS (
    INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, reason, attempt, failures, replay_id)
    SELECT application_id, id, event_id, endpoint_id, state, reason, attempt, failures, replay_id
    FROM ended WHERE NOT finished_once ORDER BY id
), finished_again AS (
    UPDATE deliveries d
    SET state = e.state, reason = e.reason, attempt = e.attempt, failures = e.failures, replay_id = e.replay_id,
        finished_at = now()
    FROM ended e WHERE e.finished_once AND d.application_id = e.application_id AND d.id = e.id
), noticed AS (
    INSERT INTO failure_notices (delivery_id, application_id, endpoint_id)
    SELECT id, application_id, endpoint_id FROM ended WHERE notifies AND state = 'failed'
    ON CONFLICT (endpoint_id, delivery_id) DO UPDATE SET failed_at = now()
)";

/// Columns of `ended` from the open row `o`. `o.attempt` is the next attempt, which was not made.
const OF_OPEN_ROW: &str = "o.id, o.event_id, o.application_id, o.endpoint_id, o.finished_once, o.replay_id, o.failures, \
                           o.attempt - 1 AS attempt";

impl Store {
    /// Ends leased deliveries that their process does not send. Returns the number of ended deliveries.
    ///
    /// # Errors
    /// [`StoreError::Data`] if the partition of a delivery is gone.
    pub async fn end_leased(&self, batch: &[EndLeased]) -> Result<u64, StoreError> {
        let columns = Columns::new(batch, 1)
            .column("id", "uuid", |leased| leased.delivery.0)
            .column("lease_id", "uuid", |leased| leased.lease.0)
            .column("state", "text", |leased| leased.end.state().as_str())
            .column("reason", "text", |leased| leased.end.reason())
            .column("notifies", "bool", |leased| leased.notifies_owner);
        let statement = format!(
            "WITH ended AS (
    DELETE FROM open_deliveries o USING {}
    WHERE o.id = i.id AND o.id = ANY ($1) AND o.lease_id = i.lease_id AND o.state || '' = 'sending'
    RETURNING {OF_OPEN_ROW}, i.state, i.reason, i.notifies
), {FINISH}
SELECT count(*) FROM ended",
            columns.table("i")
        );
        let writer = self.writer().await?;
        let statement = writer.prepare_cached(&statement).await?;
        let count: i64 = writer.query_one(&statement, &columns.values().collect::<Vec<_>>()).await?.get(0);
        Ok(count.unsigned_abs())
    }

    /// Ends up to `limit` queued deliveries of a disabled or deleted endpoint. Returns the number of ended deliveries.
    pub async fn end_queued(
        &self,
        endpoint: EndpointId,
        end: End,
        notifies_owner: bool,
        limit: usize,
    ) -> Result<u64, StoreError> {
        let chosen = "SELECT id FROM open_deliveries WHERE endpoint_id = $1 AND state = 'queued'
                      ORDER BY class, id LIMIT $2 FOR UPDATE SKIP LOCKED";
        self.end_chosen(chosen, &endpoint.0, end, notifies_owner, limit).await
    }

    /// Ends up to `limit` deliveries of a paused endpoint that have been held for longer than `age`. Returns the number
    /// of ended deliveries.
    pub async fn end_held_too_long(
        &self,
        endpoint: EndpointId,
        age: Duration,
        notifies_owner: bool,
        limit: usize,
    ) -> Result<u64, StoreError> {
        let age = milliseconds(age);
        // A delivery is at least as old as its hold: the id bounds the rows to read.
        let chosen = format!(
            "SELECT id FROM open_deliveries WHERE endpoint_id = $1 AND state = 'queued' AND class IN (0, 1, 2)
               AND id < (lpad(to_hex((extract(epoch FROM now() - {age} * interval '1 millisecond') * 1000)::bigint), 12, '0')
                         || repeat('0', 20))::uuid
               AND since < now() - {age} * interval '1 millisecond'
             ORDER BY class, id LIMIT $2 FOR UPDATE SKIP LOCKED"
        );
        let end = End::Failed(FailureReason::HeldTooLong);
        self.end_chosen(&chosen, &endpoint.0, end, notifies_owner, limit).await
    }

    /// Ends up to `limit` held deliveries of a paused endpoint, all but the newest `most`. Returns the number of ended
    /// deliveries.
    pub async fn end_too_many_held(
        &self,
        endpoint: EndpointId,
        most: usize,
        notifies_owner: bool,
        limit: usize,
    ) -> Result<u64, StoreError> {
        let chosen = format!(
            "SELECT id FROM open_deliveries WHERE id IN (
                 SELECT id FROM open_deliveries WHERE endpoint_id = $1 AND state = 'queued'
                 ORDER BY class DESC, id DESC OFFSET {most} LIMIT $2) AND state = 'queued' FOR UPDATE SKIP LOCKED"
        );
        let end = End::Failed(FailureReason::TooManyHeld);
        self.end_chosen(&chosen, &endpoint.0, end, notifies_owner, limit).await
    }

    /// Ends the rows selected by the query `chosen`, with the endpoint $1 and the limit $2.
    async fn end_chosen(
        &self,
        chosen: &str,
        endpoint: &Uuid,
        end: End,
        notifies_owner: bool,
        limit: usize,
    ) -> Result<u64, StoreError> {
        let statement = format!(
            "WITH chosen AS MATERIALIZED ({chosen}), ended AS (
    DELETE FROM open_deliveries o WHERE o.id = ANY (ARRAY(SELECT id FROM chosen))
    RETURNING {OF_OPEN_ROW}, $3::text AS state, $4::text AS reason, $5::bool AS notifies
), {FINISH}
SELECT count(*) FROM ended"
        );
        let parameters: [&(dyn ToSql + Sync); 5] =
            [endpoint, &row_count(limit), &end.state().as_str(), &end.reason(), &notifies_owner];
        let count: i64 = self.writer().await?.query_one(&statement, &parameters).await?.get(0);
        Ok(count.unsigned_abs())
    }
}
