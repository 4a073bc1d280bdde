//! Due retries: leased at once, or queued in the endpoint's backlog.

use std::time::Duration;

use fanfare_domain::{
    delivery::ALONE_FROM,
    ids::{ApplicationId, DeliveryId, EndpointId, LeaseId, ProcessId},
};
use uuid::Uuid;

use crate::{
    Store, StoreError,
    connection::store::milliseconds,
    pipeline::{
        backlogs::{TouchedBacklog, with_backlogs},
        columns::Columns,
        lease::{LEASED_COLUMNS, LEASED_WITH_EVENTS, Leased},
    },
};

/// A retry whose message has left its delay queue.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DueRetry {
    /// Id of the delivery.
    pub delivery: DeliveryId,
    /// Number of the due attempt. The message is stale if the row has another number.
    pub attempt: u32,
    /// Duration of the lease, if the process has a permit for the attempt; `None` queues the delivery.
    pub lease: Option<Duration>,
}

/// Result of a batch of due retries.
#[derive(Debug, Default)]
pub struct TakenRetries {
    /// Leased deliveries, sorted by class and id.
    pub leased: Vec<Leased>,
    /// Backlogs of the queued deliveries.
    pub backlogs: Vec<TouchedBacklog>,
}

impl Store {
    /// Leases the deliveries of due retries under the id `lease`. Queues a delivery without a lease, a suspect, and a
    /// delivery whose endpoint has a backlog. A stale message changes nothing.
    ///
    /// The batch must be sorted by delivery, without a duplicate.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] the batch may have been committed; [`Store::leased_under`] finds the leases.
    pub async fn take_retries(
        &self,
        process: ProcessId,
        lease: LeaseId,
        batch: &[DueRetry],
    ) -> Result<TakenRetries, StoreError> {
        let columns = Columns::new(batch, 3)
            .column("id", "uuid", |retry| retry.delivery.0)
            .column("attempt", "int", |retry| retry.attempt.cast_signed())
            .column("lease_ms", "bigint", |retry| retry.lease.map(milliseconds));
        // Deliveries are locked before backlogs: a holder of backlogs never waits for a delivery. No joins with the
        // open deliveries: with the statistics of an emptied table, the planner would scan all of them.
        let statement = format!(
            "WITH due AS MATERIALIZED (
    SELECT o.id, o.endpoint_id, CASE WHEN o.unknowns < {ALONE_FROM} THEN {lease_ms} END AS lease_ms
    FROM open_deliveries o
    WHERE o.id = ANY ({}) AND o.attempt = {} AND o.state || '' = 'scheduled'
    ORDER BY o.id FOR UPDATE
), blocked AS MATERIALIZED (
    SELECT b.endpoint_id FROM endpoint_backlogs b
    WHERE b.endpoint_id IN (SELECT endpoint_id FROM due WHERE lease_ms IS NOT NULL) AND NOT b.is_ending
    ORDER BY b.endpoint_id FOR KEY SHARE
), placed AS MATERIALIZED (
    SELECT id, lease_ms IS NOT NULL AND endpoint_id NOT IN (SELECT endpoint_id FROM blocked) AS at_once FROM due
), leased AS (
    UPDATE open_deliveries o
    SET state = 'sending', reason = NULL, since = now(), due_at = NULL, lease_id = $2,
        lease_until = now() + {lease_ms} * interval '1 millisecond'
    WHERE o.id = ANY (ARRAY(SELECT id FROM placed WHERE at_once))
    RETURNING {LEASED_COLUMNS}
), queued AS (
    UPDATE open_deliveries o SET state = 'queued', reason = 'retry', since = now(), due_at = NULL
    WHERE o.id = ANY (ARRAY(SELECT id FROM placed WHERE NOT at_once))
    RETURNING o.endpoint_id, o.application_id, o.reason
), {}
SELECT l.*, t.endpoint_id AS backlog, t.application_id AS backlog_of, t.owner
FROM ({LEASED_WITH_EVENTS}) l FULL JOIN touched t ON false",
            columns.parameter("id"),
            columns.value("attempt", "id", "o.id"),
            with_backlogs("$1"),
            lease_ms = columns.value("lease_ms", "id", "o.id"),
        );
        let connection = self.writer().await?;
        let statement = connection.prepare_cached(&statement).await?;
        let parameters: Vec<_> = [&process.0 as _, &lease.0 as _].into_iter().chain(columns.values()).collect();
        let rows = connection.query(&statement, &parameters).await?;
        let mut taken = TakenRetries::default();
        let (backlogs, leased): (Vec<_>, Vec<_>) =
            rows.iter().partition(|row| row.get::<_, Option<Uuid>>("backlog").is_some());
        drop(connection);
        taken.leased = self.read_leased(leased).await?;
        taken.backlogs.extend(backlogs.into_iter().map(|row| TouchedBacklog {
            endpoint: EndpointId(row.get("backlog")),
            application: ApplicationId(row.get("backlog_of")),
            owner: row.get::<_, Option<Uuid>>("owner").map(ProcessId),
        }));
        Ok(taken)
    }
}
