//! Persists events and their open deliveries, in one commit per batch.

pub(crate) mod opening;
pub(crate) mod statement;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use deadpool_postgres::GenericClient;
use fanfare_domain::{
    application::Application,
    delivery::QueueReason,
    endpoint::template::Shaped,
    event::{Content, Event},
    ids::{ApplicationId, DeliveryId, EndpointId, EventId, LeaseId, ProcessId},
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    pipeline::{backlogs::TouchedBacklog, bodies::StoredBody, columns::Columns},
};
use opening::{Deliveries, RESULT, open_wanted, persisted};
use statement::{Kinds, event_columns};

/// An event to persist.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The accepted event.
    pub event: Event,
    /// Moment of acceptance, in whole milliseconds.
    pub accepted_at: Timestamp,
    /// Rendered payload.
    pub body: String,
    /// Payload without the values of redacted members, if any. `body` is then stored encrypted.
    pub redacted: Option<String>,
    /// Digest that detects a key used for two different events. `None` with redacted members: hidden values could be
    /// tried against a digest.
    pub content: Option<Content>,
    /// Time of delivery of a delayed event. The event then has no deliveries yet.
    pub due_at: Option<Timestamp>,
    /// Number of endpoints that matched; 0 for a delayed event.
    pub matches: usize,
    /// True if a fan-out writes the deliveries later, in chunks.
    pub is_wide: bool,
    /// Place of an event with an ordering key in the order of arrival at this process.
    pub position: i64,
    /// Deliveries of the event; empty for a fan-out.
    pub deliveries: Vec<NewDelivery>,
}

impl NewEvent {
    /// An event with its rendered payload, without a match.
    pub fn of(application: &Application, event: Event, accepted_at: Timestamp, body: String) -> Self {
        let redacted = application.redaction.redact(&body);
        Self {
            content: redacted.is_none().then(|| Content::of(&event.event_type, &event.data)),
            event,
            accepted_at,
            body,
            redacted,
            due_at: None,
            matches: 0,
            is_wide: false,
            position: 0,
            deliveries: Vec::new(),
        }
    }
}

/// A delivery to persist.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// Id derived from the moment of acceptance, the event and the endpoint.
    pub id: DeliveryId,
    /// Endpoint of the delivery.
    pub endpoint: EndpointId,
    /// First state of the delivery.
    pub start: Start,
    /// Time at which the delivery fails as expired.
    pub expires_at: Timestamp,
    /// True if the endpoint's feed lists the delivery.
    pub in_feed: bool,
    /// The delivery's own body; `None` for the event's.
    pub shaped: Option<Arc<Shaped>>,
}

/// First state of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// Sent at once under this lease, or queued if the endpoint has a backlog.
    Sending(Lease),
    /// Queued in the endpoint's backlog.
    Queued(QueueReason),
    /// Waits for the delivery before, of the same ordering key: the endpoint has FIFO.
    InOrder,
    /// Skipped, as the endpoint is disabled.
    Skipped,
    /// Skipped, as the receiver reads the feed.
    Read,
    /// Failed, as the endpoint's template has no body for the event.
    NotRendered {
        /// True if the endpoint's owner gets a notice.
        notifies_owner: bool,
    },
}

/// A lease: the right to send deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Id of the lease.
    pub id: LeaseId,
    /// Duration, from the commit.
    pub duration: std::time::Duration,
}

/// Result of a batch.
#[derive(Debug, Default)]
pub struct Persisted {
    /// New events. The batch writes nothing of the other events, which were persisted before.
    pub new: HashSet<EventId>,
    /// Numbers of the deliveries of events with an ordering key.
    pub sequences: HashMap<DeliveryId, u64>,
    /// Deliveries with [`Start::Sending`] that were queued, since the endpoint has a backlog.
    pub queued: HashSet<DeliveryId>,
    /// Backlogs of the queued deliveries.
    pub backlogs: Vec<TouchedBacklog>,
}

/// A chunk of the deliveries of a fan-out.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// Event of the fan-out.
    pub event: EventId,
    /// Application of the event.
    pub application: ApplicationId,
    /// Deliveries to the next endpoints behind the mark, in the order of the endpoints' ids.
    pub deliveries: &'a [NewDelivery],
    /// Last endpoint of the previous chunk. The chunk is written only if the mark is still at this endpoint.
    pub from: EndpointId,
    /// Last endpoint covered by this chunk.
    pub to: EndpointId,
    /// True if no endpoint follows.
    pub is_last: bool,
}

impl Store {
    /// Persists a batch of events with their deliveries, in one commit. New backlogs get the owner `process`.
    ///
    /// The batch must be sorted by id, without a duplicate, or replicas deadlock.
    ///
    /// # Errors
    /// [`StoreError::Data`] if the database refuses any row; no row of the batch is then stored.
    pub async fn persist(&self, process: ProcessId, batch: &[&NewEvent]) -> Result<Persisted, StoreError> {
        self.persist_in(&self.inserter().await?, process, batch).await
    }

    pub(crate) async fn persist_in(
        &self,
        connection: &impl GenericClient,
        process: ProcessId,
        batch: &[&NewEvent],
    ) -> Result<Persisted, StoreError> {
        let bodies = batch.iter().map(|new| Ok((*new, StoredBody::of(new, &self.keyring)?)));
        let rows = bodies.collect::<Result<Vec<_>, StoreError>>()?;
        let pairs = batch.iter().flat_map(|new| new.deliveries.iter().map(|delivery| (new.event.id, delivery)));
        let opening = Deliveries::of(pairs, &self.keyring)?;
        let kinds = Kinds::of(batch);
        let events = event_columns(&rows, 2, kinds);
        let deliveries = opening.columns(events.end());
        let statement = kinds.statement(&events.table("i"), &deliveries.table("d"), &opening);
        let statement = connection.prepare_cached(&statement).await?;
        let parameters: Vec<_> =
            [&process.0 as _].into_iter().chain(events.values()).chain(deliveries.values()).collect();
        let rows = connection.query(&statement, &parameters).await?;
        Ok(persisted(&rows))
    }

    /// Persists a chunk of a fan-out and moves the mark, in one commit. `None` if the mark has moved, or the process no
    /// longer owns the fan-out.
    ///
    /// # Errors
    /// [`StoreError::Data`] if the database refuses any row; no row of the chunk is then stored.
    pub async fn persist_chunk(&self, process: ProcessId, chunk: &Chunk<'_>) -> Result<Option<Persisted>, StoreError> {
        let pairs = chunk.deliveries.iter().map(|delivery| (chunk.event, delivery));
        let opening = Deliveries::of(pairs, &self.keyring)?;
        let deliveries = opening.columns(7);
        let statement = format!(
            "WITH moved AS (
    UPDATE fan_outs SET mark = $4 WHERE event_id = $2 AND owner = $1 AND mark = $3 AND NOT $5 RETURNING event_id
), ended AS (
    DELETE FROM fan_outs WHERE event_id = $2 AND owner = $1 AND mark = $3 AND $5 RETURNING event_id
), passed AS MATERIALIZED (
    SELECT * FROM moved UNION ALL SELECT * FROM ended
), wanted AS MATERIALIZED (
    SELECT d.*, $6::uuid AS application_id FROM {} JOIN passed ON passed.event_id = d.event_id
), {}
SELECT 'event' AS kind, event_id AS id, NULL::uuid AS endpoint_id, NULL::uuid AS application_id, NULL::uuid AS owner,
       NULL::bigint AS sequence
FROM passed UNION ALL {RESULT}",
            deliveries.table("d"),
            open_wanted("$1", &opening)
        );
        let connection = self.inserter().await?;
        let statement = connection.prepare_cached(&statement).await?;
        let fixed: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&process.0, &chunk.event.0, &chunk.from.0, &chunk.to.0, &chunk.is_last, &chunk.application.0];
        let parameters: Vec<_> = fixed.into_iter().chain(deliveries.values()).collect();
        let persisted = persisted(&connection.query(&statement, &parameters).await?);
        Ok((!persisted.new.is_empty()).then_some(persisted))
    }

    /// Finds the numbers of deliveries. Deliveries of events without an ordering key have none.
    pub async fn sequences(&self, deliveries: &[DeliveryId]) -> Result<HashMap<DeliveryId, u64>, StoreError> {
        let ids: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.0).collect();
        let statement = "SELECT id, sequence FROM delivery_sequences WHERE id = ANY ($1)";
        let rows = self.writer().await?.query(statement, &[&ids]).await?;
        Ok(rows.iter().map(|row| (DeliveryId(row.get("id")), sequence(row))).collect())
    }

    /// Finds the leases of the deliveries in state `sending`. After a commit of unknown outcome, a process recognises
    /// its own leases.
    pub async fn leases(&self, deliveries: &[DeliveryId]) -> Result<HashMap<DeliveryId, LeaseId>, StoreError> {
        let ids: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.0).collect();
        let statement = "SELECT id, lease_id FROM open_deliveries WHERE id = ANY ($1) AND state || '' = 'sending'";
        let rows = self.writer().await?.query(statement, &[&ids]).await?;
        Ok(rows.iter().map(|row| (DeliveryId(row.get(0)), LeaseId(row.get(1)))).collect())
    }

    /// Finds events stored with other content than given: their publisher used a key twice. The events must be
    /// persisted already.
    pub async fn reused(&self, events: &[(ApplicationId, EventId, Content)]) -> Result<HashSet<EventId>, StoreError> {
        let columns = Columns::new(events, 1)
            .column("application_id", "uuid", |(application, ..)| application.0)
            .column("id", "uuid", |(_, event, _)| event.0)
            .column("accepted_at", "timestamptz", |(_, event, _)| event.accepted_at())
            .column("content", "bytea", |(.., content)| content.0.as_slice());
        let statement = format!(
            "SELECT i.id FROM {} LEFT JOIN event_keys k ON k.event_id = i.id
             JOIN events e ON e.application_id = i.application_id AND e.id = i.id
                          AND e.accepted_at = coalesce(i.accepted_at, k.accepted_at)
             WHERE e.content <> i.content",
            columns.table("i")
        );
        let connection = self.writer().await?;
        let statement = connection.prepare_cached(&statement).await?;
        let rows = connection.query(&statement, &columns.values().collect::<Vec<_>>()).await?;
        Ok(rows.iter().map(|row| EventId(row.get(0))).collect())
    }

    /// True if the event has been persisted.
    pub async fn is_persisted(&self, application: ApplicationId, event: EventId) -> Result<bool, StoreError> {
        let Some(accepted_at) = self.accepted_at(event).await? else { return Ok(false) };
        let statement = "SELECT EXISTS (SELECT FROM events WHERE application_id = $1 AND accepted_at = $2 AND id = $3)";
        Ok(self.connection().await?.query_one(statement, &[&application.0, &accepted_at, &event.0]).await?.get(0))
    }
}

/// The column `sequence`, from 1 on.
pub(crate) fn sequence(row: &Row) -> u64 {
    row.get::<_, i64>("sequence").unsigned_abs()
}
