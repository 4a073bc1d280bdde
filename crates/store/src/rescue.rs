//! What the database knows to be unfinished, and whose claim may be gone.

use std::time::Duration;

use deadpool_postgres::Object;
use fanfare_domain::{
    claim::Claim,
    delivery::{State, hold_claim_due},
    ids::{ApplicationId, DeliveryId, EndpointId, EventId, TakingId},
    traceparent::Traceparent,
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    store::{milliseconds, row_count},
};

/// A delivery that has not ended.
#[derive(Debug, Clone)]
pub struct Unfinished {
    /// The delivery.
    pub delivery: DeliveryId,
    /// Its event.
    pub event: EventId,
    /// Its application.
    pub application: ApplicationId,
    /// Its endpoint.
    pub endpoint: EndpointId,
    /// `Sending` or `Waiting`.
    pub state: State,
    /// The attempt that it is at.
    pub attempt: u32,
    /// Its sequence.
    pub sequence: u32,
    /// Deferrals in a row.
    pub deferrals: u32,
    /// `Waiting`: when it is due; `Sending`: when its hold ends.
    pub due: Timestamp,
    /// `Sending`: whose it is.
    pub taken_by: Option<TakingId>,
    /// The trace that its event belongs to.
    pub traceparent: Option<Traceparent>,
}

impl Unfinished {
    /// Exactly the claim that the row waits for.
    pub fn claim(&self, now: Timestamp) -> Claim {
        let due = match self.state {
            State::Sending => hold_claim_due(self.due, now),
            _ => self.due,
        };
        Claim {
            delivery: self.delivery,
            event: self.event,
            application: self.application,
            endpoint: self.endpoint,
            attempt: self.attempt,
            sequence: self.sequence,
            due,
            made: now,
            deferrals: self.deferrals,
        }
    }
}

pub(crate) const UNFINISHED: &str = "d.id, d.event_id, d.application_id, d.endpoint_id, d.state, d.attempt, d.sequence, \
                          d.deferrals, d.due_at, d.taken_by";

impl Store {
    /// Whether any delivery is due, or past its hold, by more than `overdue`.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn has_overdue(&self, overdue: Duration) -> Result<bool, StoreError> {
        let statement = "SELECT EXISTS (SELECT FROM deliveries WHERE state IN ('sending', 'waiting')
                                        AND due_at < now() - $1::bigint * interval '1 millisecond')";
        Ok(self.connection().await?.query_one(statement, &[&milliseconds(overdue)]).await?.get(0))
    }

    /// Makes stale whatever claims there may be of up to `limit` deliveries that are due, or past their
    /// hold, by more than `overdue`, and returns the claims' new state, due now.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn rescue(&self, overdue: Duration, limit: usize) -> Result<Vec<Unfinished>, StoreError> {
        let statement = format!(
            "UPDATE deliveries d SET sequence = d.sequence + 1, due_at = now()
             FROM (SELECT id, accepted_at FROM deliveries
                   WHERE state IN ('sending', 'waiting') AND due_at < now() - $1::bigint * interval '1 millisecond'
                   ORDER BY due_at LIMIT $2 FOR UPDATE SKIP LOCKED) stale
             WHERE d.id = stale.id AND d.accepted_at = stale.accepted_at
             RETURNING {UNFINISHED}"
        );
        let connection = self.connection().await?;
        let limit = row_count(limit);
        let rows = connection.query(&statement, &[&milliseconds(overdue), &limit]).await?;
        self.with_traces(&connection, &rows).await
    }

    /// The deliveries of an event that have not ended.
    pub(crate) async fn unfinished_of(
        &self,
        connection: &Object,
        event: EventId,
        accepted_at: Timestamp,
    ) -> Result<Vec<Unfinished>, StoreError> {
        let (least, greatest) = DeliveryId::bounds(accepted_at);
        let statement = format!(
            "SELECT {UNFINISHED} FROM deliveries d
             WHERE d.accepted_at = $1 AND d.id BETWEEN $2 AND $3 AND d.event_id = $4 AND d.state IN ('sending', 'waiting')"
        );
        let rows = connection.query(&statement, &[&accepted_at, &least.0, &greatest.0, &event.0]).await?;
        self.with_traces(connection, &rows).await
    }

    /// Those of these deliveries that have not ended.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn unfinished(&self, deliveries: &[DeliveryId]) -> Result<Vec<Unfinished>, StoreError> {
        let ids: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.0).collect();
        let accepted: Vec<Timestamp> = deliveries.iter().map(|delivery| delivery.accepted_at()).collect();
        let statement = format!(
            "SELECT {UNFINISHED} FROM unnest($1::uuid[], $2::timestamptz[]) AS i(id, accepted_at)
             JOIN deliveries d ON d.id = i.id AND d.accepted_at = i.accepted_at
             WHERE d.state IN ('sending', 'waiting')"
        );
        let connection = self.writer().await?;
        let rows = connection.query(&statement, &[&ids, &accepted]).await?;
        self.with_traces(&connection, &rows).await
    }

    /// A second look-up instead of a join: these statements lock rows or are planned around an index.
    pub(crate) async fn with_traces(&self, connection: &Object, rows: &[Row]) -> Result<Vec<Unfinished>, StoreError> {
        let mut unfinished = rows.iter().map(read_unfinished).collect::<Result<Vec<_>, _>>()?;
        let events: Vec<Uuid> = unfinished.iter().map(|one| one.event.0).collect();
        let accepted: Vec<Timestamp> = unfinished.iter().map(|one| one.delivery.accepted_at()).collect();
        let statement = "SELECT e.id, e.traceparent FROM unnest($1::uuid[], $2::timestamptz[]) AS i(id, accepted_at)
                         JOIN events e ON e.id = i.id AND e.accepted_at = i.accepted_at";
        let traces: std::collections::HashMap<Uuid, Option<Traceparent>> = connection
            .query(statement, &[&events, &accepted])
            .await?
            .iter()
            .map(|row| (row.get(0), row.get::<_, &str>(1).parse().ok()))
            .collect();
        for one in &mut unfinished {
            one.traceparent = traces.get(&one.event.0).copied().flatten();
        }
        Ok(unfinished)
    }
}

fn read_unfinished(row: &Row) -> Result<Unfinished, StoreError> {
    let state: &str = row.get("state");
    let due: Option<Timestamp> = row.get("due_at");
    Ok(Unfinished {
        delivery: DeliveryId(row.get("id")),
        event: EventId(row.get("event_id")),
        application: ApplicationId(row.get("application_id")),
        endpoint: EndpointId(row.get("endpoint_id")),
        state: State::parse(state).ok_or_else(|| StoreError::corrupt("deliveries", format!("state {state:?}")))?,
        attempt: row.get::<_, i32>("attempt").cast_unsigned(),
        sequence: row.get::<_, i32>("sequence").cast_unsigned(),
        deferrals: row.get::<_, i32>("deferrals").cast_unsigned(),
        due: due.ok_or_else(|| StoreError::corrupt("deliveries", format!("{state} without due_at")))?,
        taken_by: row.get::<_, Option<Uuid>>("taken_by").map(TakingId),
        traceparent: None,
    })
}
