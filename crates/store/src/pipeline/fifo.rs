//! FIFO per ordering key: deliveries that wait for the delivery before, and parked keys.
//!
//! Persist opens such a delivery queued in the class [`IN_ORDER`]. `advance_keys`, a function in the database, moves
//! the first delivery of each key to class 0, from where it goes the way of all queued deliveries.

use fanfare_domain::{
    diagnosis::findings::MAX_PARKED_KEYS,
    event::ordering::OrderingKey,
    ids::{ApplicationId, DeliveryId, EndpointId, ProcessId},
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    connection::store::row_count,
    pipeline::backlogs::{TouchedBacklog, touched},
};

/// Class of deliveries that wait for the delivery before. No drain leases the class, and no backlog goes on for it.
pub(crate) const IN_ORDER: i16 = 2;

/// Result of a step through the work list.
#[derive(Debug, Default)]
pub struct Advance {
    /// Number of handled signals.
    pub signals: usize,
    /// Backlogs of the deliveries whose turn has come.
    pub backlogs: Vec<TouchedBacklog>,
}

/// An ordering key that waits at an endpoint with FIFO.
#[derive(Debug, Clone)]
pub struct WaitingKey {
    /// The key.
    pub key: String,
    /// Its first open delivery, with its number; `None` for a parked key without a waiting delivery.
    pub first: Option<(DeliveryId, u64)>,
    /// Number of open deliveries, counted up to a bound.
    pub open: i64,
    /// Time at which the key was parked, if it is parked.
    pub parked_at: Option<Timestamp>,
    /// The given-up delivery that parked the key.
    pub parked_by: Option<DeliveryId>,
}

impl Store {
    /// Queues the deliveries whose turn has come, for up to `limit` signals.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] the deliveries may have been queued.
    pub async fn advance_keys(&self, process: ProcessId, limit: usize) -> Result<Advance, StoreError> {
        let connection = self.writer().await?;
        let statement = connection.prepare_cached("SELECT * FROM advance_keys($1, $2)").await?;
        let most = i32::try_from(limit).unwrap_or(i32::MAX);
        let mut advance = Advance::default();
        for row in connection.query(&statement, &[&process.0, &most]).await? {
            match row.get::<_, Option<Uuid>>("endpoint_id") {
                None => advance.signals = usize::try_from(row.get::<_, i32>("signals")).unwrap_or_default(),
                Some(_) => advance.backlogs.push(touched(&row)),
            }
        }
        Ok(advance)
    }

    /// Lists the ordering keys of an endpoint with deliveries in order, and its parked keys, in the order of keys,
    /// behind `after`. Each key's deliveries are counted up to `most`.
    pub async fn waiting_keys(
        &self,
        endpoint: EndpointId,
        after: Option<&str>,
        limit: usize,
        most: usize,
    ) -> Result<Vec<WaitingKey>, StoreError> {
        // Steps from key to key by the index: a key may have a million deliveries.
        let statement = "
WITH RECURSIVE step (key, n) AS (
    SELECT coalesce($2, ''), 0
    UNION ALL
    SELECT least((SELECT min(o.ordering_key) FROM open_deliveries o
                  WHERE o.endpoint_id = $1 AND o.ordering_key IS NOT NULL AND o.ordering_key > s.key),
                 (SELECT min(k.key) FROM ordering_keys k
                  WHERE k.endpoint_id = $1 AND k.parked_at IS NOT NULL AND k.key > s.key)), s.n + 1
    FROM step s WHERE s.key IS NOT NULL AND s.n < $3
)
SELECT s.key, k.parked_at, k.parked_by, f.id, f.sequence,
       (SELECT count(*) FROM (SELECT FROM open_deliveries o
                              WHERE o.endpoint_id = $1 AND o.ordering_key = s.key LIMIT $4) q) AS open
FROM step s LEFT JOIN ordering_keys k ON k.endpoint_id = $1 AND k.key = s.key
LEFT JOIN LATERAL (SELECT o.id, o.sequence FROM open_deliveries o WHERE o.endpoint_id = $1 AND o.ordering_key = s.key
                   ORDER BY o.sequence LIMIT 1) f ON true
WHERE s.key IS NOT NULL AND s.n > 0 ORDER BY s.key";
        let steps = i32::try_from(limit).unwrap_or(i32::MAX);
        let rows = self.connection().await?.query(statement, &[&endpoint.0, &after, &steps, &row_count(most)]).await?;
        Ok(rows.iter().map(read).collect())
    }

    /// Counts the parked keys of an endpoint, up to [`MAX_PARKED_KEYS`].
    pub async fn count_parked_keys(&self, endpoint: EndpointId) -> Result<u64, StoreError> {
        let statement = "SELECT count(*) FROM (SELECT FROM ordering_keys
                                               WHERE endpoint_id = $1 AND parked_at IS NOT NULL LIMIT $2) rows";
        let most = i64::try_from(MAX_PARKED_KEYS).unwrap_or(i64::MAX);
        let count: i64 = self.connection().await?.query_one(statement, &[&endpoint.0, &most]).await?.get(0);
        Ok(count.unsigned_abs())
    }

    /// Ends the parking of a key, or of all keys: their next deliveries are sent. Returns the number of resumed keys.
    pub async fn resume_keys(
        &self,
        application: ApplicationId,
        endpoint: EndpointId,
        key: Option<&OrderingKey>,
    ) -> Result<u64, StoreError> {
        let statement = "WITH resumed AS (
                             UPDATE ordering_keys k SET parked_at = NULL, parked_by = NULL FROM endpoints p
                             WHERE k.endpoint_id = $2 AND ($3::text IS NULL OR k.key = $3) AND k.parked_at IS NOT NULL
                               AND p.id = k.endpoint_id AND p.application_id = $1
                             RETURNING k.endpoint_id, k.key
                         )
                         INSERT INTO ordering_signals (endpoint_id, key) SELECT endpoint_id, key FROM resumed";
        let key = key.map(OrderingKey::as_str);
        let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 3] = [&application.0, &endpoint.0, &key];
        Ok(self.connection().await?.execute(statement, &parameters).await?)
    }
}

fn read(row: &Row) -> WaitingKey {
    let first = row.get::<_, Option<Uuid>>("id").map(DeliveryId);
    WaitingKey {
        key: row.get("key"),
        first: first.zip(row.get::<_, Option<i64>>("sequence").map(i64::unsigned_abs)),
        open: row.get("open"),
        parked_at: row.get("parked_at"),
        parked_by: row.get::<_, Option<Uuid>>("parked_by").map(DeliveryId),
    }
}
