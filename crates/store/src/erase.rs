//! Events that somebody wants gone, with all that could tell what was in them.

use fanfare_domain::{
    delivery::FailureReason,
    ids::{ApplicationId, DeliveryId, EventId},
};

use crate::{Store, StoreError};

/// What came of erasing an event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Erasure {
    /// Its data are gone.
    Done,
    /// There is no such event.
    NoSuchEvent,
    /// It is just being sent, or fanned out: what comes of that would be written down afterwards.
    UnderWay,
}

impl Store {
    /// Removes the body of an event, its publisher's id, and what its endpoints have answered. That there was one of its
    /// type, and what became of its deliveries, stays on record; those that have not ended fail as `erased`, and none can be
    /// sent again.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn erase_event(&self, application: ApplicationId, event: EventId) -> Result<Erasure, StoreError> {
        let Some(accepted_at) = self.accepted_at(event).await? else { return Ok(Erasure::NoSuchEvent) };
        let (first, last) = DeliveryId::bounds(accepted_at);
        let mut connection = self.connection().await?;
        let transaction = connection.transaction().await?;
        let statement = "SELECT id FROM deliveries
                         WHERE id >= $1 AND id <= $2 AND accepted_at = $3 AND event_id = $4 AND application_id = $5
                         ORDER BY id FOR UPDATE";
        transaction.query(statement, &[&first.0, &last.0, &accepted_at, &event.0, &application.0]).await?;
        // In a statement of its own, behind the locks, which sees what those that were waited for have done.
        let statement = "SELECT e.fanned_out AND NOT EXISTS (
                             SELECT FROM deliveries d WHERE d.id >= $4 AND d.id <= $5 AND d.accepted_at = e.accepted_at
                                                        AND d.event_id = e.id AND d.state || '' = 'sending'
                         )
                         FROM events e WHERE e.id = $1 AND e.accepted_at = $2 AND e.application_id = $3 FOR UPDATE OF e";
        let found =
            transaction.query_opt(statement, &[&event.0, &accepted_at, &application.0, &first.0, &last.0]).await?;
        match found.map(|row| row.get::<_, bool>(0)) {
            None => return Ok(Erasure::NoSuchEvent),
            Some(false) => return Ok(Erasure::UnderWay),
            Some(true) => {}
        }
        let statement = "UPDATE attempts SET response_headers = NULL, response_body = NULL,
                                             error = CASE outcome WHEN 'unknown' THEN 'erased' END
                         WHERE accepted_at = $3 AND delivery_id IN (
                             SELECT id FROM deliveries WHERE id >= $1 AND id <= $2 AND accepted_at = $3 AND event_id = $4)";
        transaction.execute(statement, &[&first.0, &last.0, &accepted_at, &event.0]).await?;
        let statement = "UPDATE deliveries SET state = 'failed', reason = $5, sequence = sequence + 1, due_at = NULL,
                                               finished_at = now()
                         WHERE id >= $1 AND id <= $2 AND accepted_at = $3 AND event_id = $4
                           AND state || '' IN ('waiting', 'held')";
        let reason = FailureReason::Erased.as_str();
        transaction.execute(statement, &[&first.0, &last.0, &accepted_at, &event.0, &reason]).await?;
        // What was parked of it, as a copy that said something else, say.
        let statement = "DELETE FROM parked p USING events e
                         WHERE e.id = $1 AND e.accepted_at = $2 AND p.message_id = e.key AND p.routing_key LIKE $3 || '.%'";
        transaction.execute(statement, &[&event.0, &accepted_at, &application.to_string()]).await?;
        let statement = "UPDATE events SET body = '', key = NULL, content = NULL, body_key_name = NULL,
                                           body_ciphertext = NULL, erased_at = coalesce(erased_at, now())
                         WHERE id = $1 AND accepted_at = $2";
        transaction.execute(statement, &[&event.0, &accepted_at]).await?;
        transaction.commit().await?;
        Ok(Erasure::Done)
    }
}
