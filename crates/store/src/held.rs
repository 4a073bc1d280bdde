//! Deliveries that are held for paused endpoints: let go when the endpoint is resumed, and bounded by age
//! and number until then.

use fanfare_domain::{delivery::FailureReason, ids::EndpointId};
use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    rescue::{UNFINISHED, Unfinished},
    store::row_count,
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
                             ORDER BY due_at, id LIMIT $2) held";
        let row = self.connection().await?.query_one(statement, &[&endpoint.0, &most]).await?;
        Ok(Held { deliveries: row.get(0), oldest_accepted_at: row.get(1) })
    }

    /// Lets held deliveries of endpoints that are no longer paused wait again, due now: up to `pace` of each, and
    /// up to `most` of all, in turns. They have their endpoint's whole lifetime from their next taking on.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn release(&self, pace: usize, most: usize) -> Result<Vec<Unfinished>, StoreError> {
        let statement = format!(
            "UPDATE deliveries d
             SET state = 'waiting', sequence = d.sequence + 1, due_at = now(), expires_at = NULL
             FROM ({HELD_ENDPOINTS}
                   SELECT h.id, h.accepted_at
                   FROM held JOIN endpoints e ON e.id = held.id AND (e.status <> 'paused' OR e.deleted_at IS NOT NULL)
                   CROSS JOIN LATERAL (
                       SELECT id, accepted_at, row_number() OVER () AS place
                       FROM (SELECT id, accepted_at FROM deliveries WHERE state = 'held' AND endpoint_id = e.id
                             ORDER BY due_at, id LIMIT $1 FOR UPDATE SKIP LOCKED) locked
                   ) h
                   ORDER BY h.place LIMIT $2) released
             WHERE d.id = released.id AND d.accepted_at = released.accepted_at
             RETURNING {UNFINISHED}"
        );
        let connection = self.connection().await?;
        let rows = connection.query(&statement, &[&row_count(pace), &row_count(most)]).await?;
        self.with_traces(&connection, &rows).await
    }

    /// Gives up to `limit` deliveries up that are held since before `oldest`; those who own the endpoints in
    /// `notifying` are told. Says how many.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn end_held_too_long(
        &self,
        oldest: Timestamp,
        notifying: &[EndpointId],
        limit: usize,
    ) -> Result<u64, StoreError> {
        let of_endpoint = "SELECT id, accepted_at FROM deliveries
                           WHERE state = 'held' AND endpoint_id = held.id AND due_at < $1 ORDER BY due_at, id LIMIT $4";
        self.end_held(of_endpoint, &oldest, FailureReason::HeldTooLong, notifying, limit).await
    }

    /// Gives up to `limit` deliveries up that are more than the newest `most` held for their endpoint; those who
    /// own the endpoints in `notifying` are told. Says how many. Reads `most` entries of an index for each
    /// endpoint that holds as many: not to be done at every turn.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn end_too_many_held(
        &self,
        most: usize,
        notifying: &[EndpointId],
        limit: usize,
    ) -> Result<u64, StoreError> {
        let of_endpoint = "SELECT id, accepted_at FROM deliveries WHERE state = 'held' AND endpoint_id = held.id
                           ORDER BY due_at DESC, id DESC OFFSET $1 LIMIT $4";
        self.end_held(of_endpoint, &row_count(most), FailureReason::TooManyHeld, notifying, limit).await
    }

    /// Gives up what `of_endpoint` finds by its `bound` ($1) for each endpoint that holds something.
    async fn end_held(
        &self,
        of_endpoint: &str,
        bound: &(dyn ToSql + Sync),
        reason: FailureReason,
        notifying: &[EndpointId],
        limit: usize,
    ) -> Result<u64, StoreError> {
        let statement = format!(
            "{HELD_ENDPOINTS}, ended AS MATERIALIZED (
                 SELECT h.id, h.accepted_at FROM held CROSS JOIN LATERAL ({of_endpoint}) h LIMIT $4
             ), given_up AS (
                 UPDATE deliveries d
                 SET state = 'failed', reason = $2, sequence = d.sequence + 1, due_at = NULL, finished_at = now()
                 FROM ended WHERE d.id = ended.id AND d.accepted_at = ended.accepted_at AND d.state = 'held'
                 RETURNING d.id, d.accepted_at, d.application_id, d.endpoint_id
             ), noticed AS (
                 INSERT INTO failure_notices AS n (delivery_id, accepted_at, application_id, endpoint_id)
                 SELECT id, accepted_at, application_id, endpoint_id FROM given_up WHERE endpoint_id = ANY($3)
                 ON CONFLICT (endpoint_id, delivery_id) DO UPDATE SET failed_at = now()
             )
             SELECT count(*) FROM given_up"
        );
        let notifying: Vec<Uuid> = notifying.iter().map(|endpoint| endpoint.0).collect();
        let connection = self.connection().await?;
        let ended: i64 =
            connection.query_one(&statement, &[bound, &reason.as_str(), &notifying, &row_count(limit)]).await?.get(0);
        Ok(ended.unsigned_abs())
    }
}
