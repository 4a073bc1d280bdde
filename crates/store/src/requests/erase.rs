//! Erasure: removes the content of an event, and all copies.

use deadpool_postgres::Transaction;
use fanfare_domain::{
    delivery::FailureReason,
    ids::{ApplicationId, DeliveryId, EventId},
};
use jiff::Timestamp;
use tokio_postgres::types::ToSql;

use crate::{Store, StoreError};

/// Result of an erasure.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erasure {
    /// The content is gone.
    Done,
    /// The event does not exist.
    NoSuchEvent,
    /// The event is being sent or fanned out: a later record would store content again.
    UnderWay,
}

/// An event, and the bounds of its deliveries' ids. Statements have the parameters $1 to $5: application, moment of
/// acceptance, event, least id, greatest id.
struct Erased {
    application: ApplicationId,
    accepted_at: Timestamp,
    event: EventId,
    least: DeliveryId,
    greatest: DeliveryId,
}

const OF_EVENT: &str = "application_id = $1 AND $2::timestamptz IS NOT NULL AND event_id = $3 AND id BETWEEN $4 AND $5";

const END_DELAY: &str = "DELETE FROM delayed_events WHERE event_id = $2 AND application_id = $1";

// Locks in the order of a record: open rows before finished rows.
const LOCK_OPEN: &str = "SELECT id FROM open_deliveries WHERE {OF_EVENT} ORDER BY id FOR UPDATE";
const LOCK_FINISHED: &str = "SELECT id FROM deliveries WHERE {OF_EVENT} ORDER BY id FOR UPDATE";

const LOCK_EVENT: &str = "SELECT id FROM events WHERE application_id = $1 AND accepted_at = $2 AND id = $3 FOR UPDATE";

const END_OPEN: &str = "
WITH ended AS (
    DELETE FROM open_deliveries WHERE {OF_EVENT} AND state IN ('scheduled', 'queued') RETURNING *
)
INSERT INTO deliveries AS d (application_id, id, event_id, endpoint_id, state, reason, attempt, failures, replay_id)
SELECT application_id, id, event_id, endpoint_id, 'failed', $6, attempt - 1, failures, replay_id FROM ended ORDER BY id
ON CONFLICT (application_id, id) DO UPDATE
SET state = excluded.state, reason = excluded.reason, attempt = excluded.attempt, failures = excluded.failures,
    finished_at = now(), replay_id = excluded.replay_id";

// A separate statement behind the locks: its snapshot includes the rows of each statement that held a lock.
const IS_UNDER_WAY: &str = "
SELECT EXISTS (SELECT FROM open_deliveries WHERE {OF_EVENT}) OR EXISTS (SELECT FROM fan_outs WHERE event_id = $3)";

const ERASE_ATTEMPTS: &str = "
UPDATE attempts SET response_headers = NULL, response_body = NULL, error = CASE outcome WHEN 'unknown' THEN 'erased' END
WHERE application_id = $1 AND $2::timestamptz IS NOT NULL AND event_id = $3 AND delivery_id BETWEEN $4 AND $5";

const ERASE_INLINE: &str = "UPDATE deliveries SET response_headers = NULL, response_body = NULL
                            WHERE {OF_EVENT} AND started_at IS NOT NULL";

const ERASE_BODIES: &str = "
DELETE FROM delivery_bodies
WHERE id BETWEEN $4 AND $5 AND id = ANY (ARRAY(SELECT id FROM deliveries WHERE {OF_EVENT}))";

/// Deletes parked copies of the event, by the key or else the event's id: for example a copy with other content under
/// the same key.
const ERASE_PARKED: &str = "
DELETE FROM parked p USING events e
WHERE e.application_id = $1 AND e.accepted_at = $2 AND e.id = $3 AND p.message_id = coalesce(e.key, $5)
  AND p.routing_key LIKE $4 || '.%'";

const ERASE_EVENT: &str = "
UPDATE events SET body = '', key = NULL, content = NULL, body_key_name = NULL, body_ciphertext = NULL,
                  tracestate = NULL, ordering_key = NULL, erased_at = coalesce(erased_at, now())
WHERE application_id = $1 AND accepted_at = $2 AND id = $3";

impl Store {
    /// Removes the body of an event, its publisher's id, and the endpoints' responses. The event's type and the states
    /// of its deliveries stay. Deliveries that have not ended fail as `erased`, and no delivery can be sent again.
    pub async fn erase_event(&self, application: ApplicationId, event: EventId) -> Result<Erasure, StoreError> {
        let Some(accepted_at) = self.accepted_at(event).await? else { return Ok(Erasure::NoSuchEvent) };
        let (least, greatest) = DeliveryId::bounds(accepted_at);
        let erased = Erased { application, accepted_at, event, least, greatest };
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        // First, like all users of both rows. A due event is then either open here, or never opened.
        transaction.execute(END_DELAY, &[&application.0, &event.0]).await?;
        erased.execute(&transaction, LOCK_OPEN).await?;
        erased.execute(&transaction, LOCK_FINISHED).await?;
        if transaction.query_opt(LOCK_EVENT, &[&application.0, &accepted_at, &event.0]).await?.is_none() {
            return Ok(Erasure::NoSuchEvent);
        }
        let reason = FailureReason::Erased.as_str();
        let [first, second, third, fourth, fifth] = erased.parameters();
        let parameters: [&(dyn ToSql + Sync); 6] = [first, second, third, fourth, fifth, &reason];
        transaction.execute(&of_event(END_OPEN), &parameters).await?;
        let under_way = transaction.query_one(&of_event(IS_UNDER_WAY), &erased.parameters()).await?;
        if under_way.get(0) {
            return Ok(Erasure::UnderWay);
        }
        erased.execute(&transaction, ERASE_ATTEMPTS).await?;
        erased.execute(&transaction, ERASE_INLINE).await?;
        erased.execute(&transaction, ERASE_BODIES).await?;
        let (name, id) = (application.to_string(), event.to_string());
        transaction.execute(ERASE_PARKED, &[&application.0, &accepted_at, &event.0, &name, &id]).await?;
        transaction.execute(ERASE_EVENT, &[&application.0, &accepted_at, &event.0]).await?;
        transaction.commit().await?;
        Ok(Erasure::Done)
    }
}

impl Erased {
    fn parameters(&self) -> [&(dyn ToSql + Sync); 5] {
        [&self.application.0, &self.accepted_at, &self.event.0, &self.least.0, &self.greatest.0]
    }

    async fn execute(&self, transaction: &Transaction<'_>, statement: &str) -> Result<u64, StoreError> {
        Ok(transaction.execute(&of_event(statement), &self.parameters()).await?)
    }
}

fn of_event(statement: &str) -> String {
    statement.replace("{OF_EVENT}", OF_EVENT)
}
