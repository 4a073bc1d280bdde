//! Deliveries that are held for paused endpoints: let go when the endpoint is resumed, and bounded by age
//! and number until then.

use fanfare_domain::{
    delivery::FailureReason,
    ids::{DeliveryId, EndpointId},
};
use jiff::Timestamp;

use crate::{
    Store, StoreError,
    rescue::{UNFINISHED, Unfinished},
};

/// What is held for a paused endpoint.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held {
    /// So many deliveries.
    pub deliveries: i64,
    /// When the event of the oldest was accepted.
    pub oldest_accepted_at: Option<Timestamp>,
}

/// The endpoints that have held deliveries, one index look-up for each however many it has.
const HELD_ENDPOINTS: &str = "
WITH RECURSIVE held(id) AS (
    (SELECT endpoint_id FROM deliveries WHERE state = 'held' ORDER BY endpoint_id LIMIT 1)
    UNION ALL
    SELECT (SELECT endpoint_id FROM deliveries WHERE state = 'held' AND endpoint_id > held.id
            ORDER BY endpoint_id LIMIT 1)
    FROM held WHERE held.id IS NOT NULL
)";

impl Store {
    /// What is held for an endpoint, counted up to `most`.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn held(&self, endpoint: EndpointId, most: i64) -> Result<Held, StoreError> {
        let statement = "SELECT count(*), min(accepted_at) FROM (
                             SELECT accepted_at FROM deliveries WHERE state = 'held' AND endpoint_id = $1
                             ORDER BY id LIMIT $2) held";
        let row = self.connection().await?.query_one(statement, &[&endpoint.0, &most]).await?;
        Ok(Held { deliveries: row.get(0), oldest_accepted_at: row.get(1) })
    }

    /// Lets up to `limit` held deliveries of endpoints that are no longer paused wait again, due now. They
    /// have as long as they had at first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn release(&self, limit: usize) -> Result<Vec<Unfinished>, StoreError> {
        let statement = format!(
            "UPDATE deliveries d SET state = 'waiting', sequence = d.sequence + 1, due_at = now(),
                                     expires_at = now() + (d.expires_at - d.accepted_at)
             FROM ({HELD_ENDPOINTS}
                   SELECT h.id, h.accepted_at
                   FROM held JOIN endpoints e ON e.id = held.id AND (e.status <> 'paused' OR e.deleted_at IS NOT NULL)
                   CROSS JOIN LATERAL (SELECT id, accepted_at FROM deliveries
                                       WHERE state = 'held' AND endpoint_id = e.id
                                       ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED) h
                   LIMIT $1) released
             WHERE d.id = released.id AND d.accepted_at = released.accepted_at
             RETURNING {UNFINISHED}"
        );
        let connection = self.connection().await?;
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let rows = connection.query(&statement, &[&limit]).await?;
        self.with_traces(&connection, &rows).await
    }

    /// Gives up to `limit` held deliveries up: those of events accepted before `oldest`, and, of each endpoint,
    /// those beyond the newest `most`. Tells how many.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn end_held(&self, oldest: Timestamp, most: usize, limit: usize) -> Result<u64, StoreError> {
        let statement = format!(
            "WITH ended AS (
                 {HELD_ENDPOINTS}
                 SELECT h.id, h.accepted_at, h.reason
                 FROM held CROSS JOIN LATERAL (
                     SELECT d.id, d.accepted_at,
                            CASE WHEN d.id < $1 THEN '{too_long}' ELSE '{too_many}' END AS reason
                     FROM deliveries d
                     WHERE d.state = 'held' AND d.endpoint_id = held.id
                       AND d.id < greatest($1, (SELECT n.id FROM deliveries n
                                                WHERE n.state = 'held' AND n.endpoint_id = held.id
                                                ORDER BY n.id DESC OFFSET $2::bigint - 1 LIMIT 1))
                     ORDER BY d.id LIMIT $3
                 ) h
                 WHERE held.id IS NOT NULL LIMIT $3
             )
             UPDATE deliveries d
             SET state = 'failed', reason = ended.reason, sequence = d.sequence + 1, finished_at = now()
             FROM ended WHERE d.id = ended.id AND d.accepted_at = ended.accepted_at AND d.state = 'held'",
            too_long = FailureReason::HeldTooLong.as_str(),
            too_many = FailureReason::TooManyHeld.as_str(),
        );
        let most = i64::try_from(most.max(1)).unwrap_or(i64::MAX);
        let limit = i64::try_from(limit).unwrap_or(i64::MAX);
        let oldest = DeliveryId::bounds(oldest).0;
        Ok(self.connection().await?.execute(&statement, &[&oldest.0, &most, &limit]).await?)
    }
}
