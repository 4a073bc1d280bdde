//! Deliveries that somebody asks to be sent again.

use fanfare_domain::{
    delivery::{DeferralReason, State},
    ids::{ApplicationId, DeliveryId, EndpointId, EventId},
};
use jiff::Timestamp;
use tokio_postgres::types::ToSql;
use uuid::Uuid;

use crate::{Store, StoreError, rescue::Unfinished, store::row_count};

/// Which deliveries to send again.
#[derive(Debug, Clone, Default)]
pub struct ResendFilter {
    /// These; none for all that the rest of the filter finds.
    pub deliveries: Option<Vec<DeliveryId>>,
    /// Those to this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Those of this event.
    pub event: Option<EventId>,
    /// Those in one of these states.
    pub states: Vec<State>,
    /// Those of events accepted from this moment on.
    pub since: Option<Timestamp>,
    /// Those of events accepted before this moment.
    pub until: Option<Timestamp>,
    /// This many at the most, the newest ones.
    pub limit: usize,
}

const CHOOSE: &str = "
WITH wanted AS MATERIALIZED (
    SELECT d.id, d.accepted_at FROM deliveries d
    JOIN endpoints p ON p.id = d.endpoint_id AND p.deleted_at IS NULL AND p.status <> 'disabled'
    WHERE NOT EXISTS (SELECT FROM events e WHERE e.id = d.event_id AND e.accepted_at = d.accepted_at
                                             AND e.erased_at IS NOT NULL)
      AND d.application_id = $1 AND d.id >= $2 AND d.id <= $3 AND d.state = ANY($4) AND d.state <> 'sending'
      AND ($5::uuid[] IS NULL OR d.id = ANY($5)) AND ($6::uuid IS NULL OR d.endpoint_id = $6)
      AND ($7::uuid IS NULL OR d.event_id = $7)
      -- Who names none means none that were found before, which are due already, and no tests.
      AND ($5::uuid[] IS NOT NULL
           OR d.reason IS DISTINCT FROM $9
              AND NOT EXISTS (SELECT FROM events e WHERE e.id = d.event_id AND e.accepted_at = d.accepted_at
                                                     AND e.is_test))
    ORDER BY d.id DESC LIMIT $8
)
SELECT d.id, d.accepted_at FROM wanted w
JOIN deliveries d ON d.id = w.id AND d.accepted_at = w.accepted_at
WHERE d.state = ANY($4) AND d.state <> 'sending'
ORDER BY d.id FOR UPDATE OF d";

// In a statement of its own, behind the locks: one that waits for a lock goes on with the newest row, and with the
// attempts as they were before it waited, and would give the number of one that was made meanwhile to another.
const RESEND: &str = "
UPDATE deliveries d
SET state = 'waiting', reason = $3, due_at = now(), sequence = d.sequence + 1,
    attempt = d.attempt + EXISTS (SELECT FROM attempts a WHERE a.delivery_id = d.id
                                  AND a.accepted_at = d.accepted_at AND a.attempt = d.attempt)::int,
    failures = CASE d.state WHEN 'waiting' THEN d.failures ELSE 0 END, unknowns = 0, deferrals = 0,
    taken_by = NULL, taken_at = NULL, finished_at = NULL,
    expires_at = NULL, replay_id = NULL
FROM unnest($1::uuid[], $2::timestamptz[]) AS chosen(id, accepted_at)
WHERE d.id = chosen.id AND d.accepted_at = chosen.accepted_at
  AND NOT EXISTS (SELECT FROM events e WHERE e.id = d.event_id AND e.accepted_at = d.accepted_at
                                         AND e.erased_at IS NOT NULL)";

impl Store {
    /// Makes deliveries due now, whatever they waited for: their claims, which the caller publishes, make older
    /// ones stale. One that had ended begins its schedule anew; one that waits keeps its place in it. What is
    /// being sent, or goes to an endpoint that is disabled or deleted, is left as it is.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn resend(
        &self,
        application: ApplicationId,
        filter: &ResendFilter,
    ) -> Result<Vec<Unfinished>, StoreError> {
        let mut least = filter.since.map_or(Uuid::nil(), |since| DeliveryId::bounds(since).0.0);
        let mut greatest = filter.until.map_or(Uuid::max(), |until| DeliveryId::bounds(until).0.0);
        if let Some(event) = filter.event {
            let Some(accepted_at) = self.accepted_at(event).await? else { return Ok(Vec::new()) };
            let (first, last) = DeliveryId::bounds(accepted_at);
            (least, greatest) = (least.max(first.0), greatest.min(last.0));
        }
        if let Some((first, last)) = filter.deliveries.as_ref().and_then(|ids| ids.iter().min().zip(ids.iter().max())) {
            (least, greatest) = (least.max(first.0), greatest.min(last.0));
        }
        let ids = filter.deliveries.as_ref().map(|ids| ids.iter().map(|id| id.0).collect::<Vec<Uuid>>());
        let states: Vec<&str> = filter.states.iter().map(|state| state.as_str()).collect();
        let (endpoint, event) = (filter.endpoint.map(|id| id.0), filter.event.map(|id| id.0));
        let limit = row_count(filter.limit);
        let reason = DeferralReason::Resent.as_str();
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        let parameters: [&(dyn ToSql + Sync); 9] =
            [&application.0, &least, &greatest, &states, &ids, &endpoint, &event, &limit, &reason];
        let chosen = transaction.query(CHOOSE, &parameters).await?;
        let ids: Vec<Uuid> = chosen.iter().map(|row| row.get(0)).collect();
        let accepted: Vec<Timestamp> = chosen.iter().map(|row| row.get(1)).collect();
        let resend = format!("{RESEND} RETURNING {}", crate::rescue::UNFINISHED);
        let rows = transaction.query(&resend, &[&ids, &accepted, &reason]).await?;
        transaction.commit().await?;
        self.with_traces(&connection, &rows).await
    }
}
