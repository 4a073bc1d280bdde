//! Fan-outs of wide events: who inserts their deliveries, and how far that is.

use fanfare_domain::{
    event::EventType,
    ids::{ApplicationId, EndpointId, EventId, ProcessId},
    traceparent::Traceparent,
};
use jiff::Timestamp;
use tokio_postgres::Row;

use crate::{Keyring, Store, StoreError, connection::store::row_count, pipeline::bodies::open_body};

/// A fan-out that a process has taken over.
#[derive(Debug, Clone)]
pub struct FanOut {
    /// The event.
    pub event: EventId,
    /// Its application.
    pub application: ApplicationId,
    /// When the event was accepted.
    pub accepted_at: Timestamp,
    /// The last endpoint whose delivery was written.
    pub mark: EndpointId,
    /// The event's type.
    pub event_type: EventType,
    /// The payload; `None` where it is encrypted with a key that this process lacks.
    pub body: Option<String>,
    /// The trace that the event belongs to.
    pub traceparent: Option<Traceparent>,
}

impl Store {
    /// Takes over up to `limit` fan-outs that have no owner.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn take_fan_outs(&self, process: ProcessId, limit: usize) -> Result<Vec<FanOut>, StoreError> {
        let statement = "WITH taken AS (
                             UPDATE fan_outs f SET owner = $1
                             FROM (SELECT event_id FROM fan_outs WHERE owner IS NULL
                                   ORDER BY accepted_at LIMIT $2 FOR UPDATE SKIP LOCKED) free
                             WHERE f.event_id = free.event_id
                             RETURNING f.event_id, f.application_id, f.accepted_at, f.mark
                         )
                         SELECT t.*, e.type, e.body, e.body_key_name, e.body_ciphertext, e.traceparent
                         FROM taken t JOIN events e ON e.application_id = t.application_id
                                                   AND e.accepted_at = t.accepted_at AND e.id = t.event_id";
        let rows = self.writer().await?.query(statement, &[&process.0, &row_count(limit)]).await?;
        rows.iter().map(|row| fan_out(&self.keyring, row)).collect()
    }

    /// Gives up the fan-outs of a process, which others may take over at once.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn release_fan_outs(&self, process: ProcessId) -> Result<(), StoreError> {
        self.writer().await?.execute("UPDATE fan_outs SET owner = NULL WHERE owner = $1", &[&process.0]).await?;
        Ok(())
    }
}

fn fan_out(keyring: &Keyring, row: &Row) -> Result<FanOut, StoreError> {
    let event = EventId(row.get("event_id"));
    let event_type: &str = row.get("type");
    Ok(FanOut {
        event,
        application: ApplicationId(row.get("application_id")),
        accepted_at: row.get("accepted_at"),
        mark: EndpointId(row.get("mark")),
        event_type: EventType::parse(event_type)
            .map_err(|fault| StoreError::corrupt("events", format!("type {event_type:?}, which {}", fault.message)))?,
        body: open_body(keyring, event, row).ok(),
        traceparent: row.get::<_, &str>("traceparent").parse().ok(),
    })
}
