//! Fan-outs: their owners and their progress.

use fanfare_domain::{
    event::{EventType, trace_context::TraceContext},
    ids::{ApplicationId, EndpointId, EventId, ProcessId},
};
use jiff::Timestamp;
use tokio_postgres::Row;

use crate::{
    Keyring, Store, StoreError,
    connection::store::row_count,
    pipeline::{bodies::open_body, lease::trace_context},
};

/// A fan-out taken over by a process.
#[derive(Debug, Clone)]
pub struct FanOut {
    /// Event of the fan-out.
    pub event: EventId,
    /// Application of the event.
    pub application: ApplicationId,
    /// Acceptance of the event.
    pub accepted_at: Timestamp,
    /// Time of delivery of a delayed event.
    pub deliver_at: Option<Timestamp>,
    /// Mark: the last endpoint whose delivery was written.
    pub mark: EndpointId,
    /// Type of the event.
    pub event_type: EventType,
    /// Payload; `None` if this process lacks the encryption key.
    pub body: Option<String>,
    /// Trace of the event.
    pub trace: Option<TraceContext>,
}

impl Store {
    /// Takes over up to `limit` fan-outs without an owner, oldest acceptance first.
    pub async fn take_fan_outs(&self, process: ProcessId, limit: usize) -> Result<Vec<FanOut>, StoreError> {
        let statement = "WITH taken AS (
                             UPDATE fan_outs f SET owner = $1
                             FROM (SELECT event_id FROM fan_outs WHERE owner IS NULL
                                   ORDER BY accepted_at LIMIT $2 FOR UPDATE SKIP LOCKED) free
                             WHERE f.event_id = free.event_id
                             RETURNING f.event_id, f.application_id, f.accepted_at, f.mark
                         )
                         SELECT t.*, e.type, e.body, e.body_key_name, e.body_ciphertext, e.traceparent, e.tracestate, e.deliver_at
                         FROM taken t JOIN events e ON e.application_id = t.application_id
                                                   AND e.accepted_at = t.accepted_at AND e.id = t.event_id";
        let rows = self.writer().await?.query(statement, &[&process.0, &row_count(limit)]).await?;
        rows.iter().map(|row| fan_out(&self.keyring, row)).collect()
    }

    /// Releases the fan-outs of a process. Another process may take them over at once.
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
        deliver_at: row.get("deliver_at"),
        mark: EndpointId(row.get("mark")),
        event_type: EventType::parse(event_type)
            .map_err(|fault| StoreError::corrupt("events", format!("type {event_type:?}, which {}", fault.message)))?,
        body: open_body(keyring, event, row).ok(),
        trace: trace_context(row),
    })
}
