//! Events and their open deliveries, written in one commit per batch.

use std::collections::{HashMap, HashSet};

use fanfare_domain::{
    delivery::{QueueReason, State},
    event::{Content, Event},
    ids::{ApplicationId, DeliveryId, EndpointId, EventId, LeaseId, ProcessId},
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    connection::store::milliseconds,
    pipeline::{
        backlogs::{TouchedBacklog, touched, with_backlogs},
        bodies::StoredBody,
        columns::Columns,
    },
};

/// An event that is to be written.
#[derive(Debug, Clone)]
pub struct NewEvent {
    /// The event.
    pub event: Event,
    /// The moment of acceptance, in whole milliseconds.
    pub accepted_at: Timestamp,
    /// The rendered payload.
    pub body: String,
    /// The payload without the values of redacted members, where there are any. The payload is then stored encrypted.
    pub redacted: Option<String>,
    /// A digest that tells a key used for another event. `None` where members are redacted: their values could be tried out
    /// against a digest.
    pub content: Option<Content>,
    /// The number of endpoints that matched.
    pub matches: usize,
    /// Its deliveries are written later, in chunks.
    pub is_wide: bool,
    /// Its deliveries, unless it is wide.
    pub deliveries: Vec<NewDelivery>,
}

/// A delivery that is to be written.
#[derive(Debug, Clone)]
pub struct NewDelivery {
    /// Its id, derived from the moment of acceptance, the event and the endpoint.
    pub id: DeliveryId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// What becomes of it.
    pub start: Start,
    /// When it fails as expired.
    pub expires_at: Timestamp,
}

/// The first state of a delivery.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// It is sent at once under this lease, unless its endpoint has a backlog.
    Sending(Lease),
    /// It joins the endpoint's backlog.
    Queued(QueueReason),
    /// Its endpoint is disabled.
    Skipped,
}

/// The right to send deliveries.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Lease {
    /// Its id.
    pub id: LeaseId,
    /// How long it lasts from its commit on.
    pub duration: std::time::Duration,
}

/// What a batch has written.
#[derive(Debug, Default)]
pub struct Persisted {
    /// The events that are new. Nothing is written of the others, which had been persisted before.
    pub new: HashSet<EventId>,
    /// The deliveries that were to be sent at once, and are queued since their endpoint has a backlog.
    pub queued: HashSet<DeliveryId>,
    /// The backlogs of the deliveries that are queued.
    pub backlogs: Vec<TouchedBacklog>,
}

/// A chunk of a wide event's deliveries.
#[derive(Debug)]
pub struct Chunk<'a> {
    /// The event.
    pub event: EventId,
    /// Its application.
    pub application: ApplicationId,
    /// The deliveries of the next endpoints behind the mark, in the order of their endpoints' ids.
    pub deliveries: &'a [NewDelivery],
    /// The last endpoint of the chunk before: the chunk is written only where the mark is still there.
    pub from: EndpointId,
    /// The last endpoint that the chunk covers.
    pub to: EndpointId,
    /// No endpoint follows.
    pub is_last: bool,
}

/// The statement's `wanted` CTE has the columns of [`delivery_columns`], and `application_id`. This opens them.
fn open_wanted(process: &str) -> String {
    let backlogs = with_backlogs(process);
    format!(
        "blocked AS MATERIALIZED (
    SELECT b.endpoint_id FROM endpoint_backlogs b
    WHERE b.endpoint_id IN (SELECT endpoint_id FROM wanted) AND NOT b.is_ending ORDER BY b.endpoint_id FOR KEY SHARE
), placed AS MATERIALIZED (
    SELECT w.*, w.state = 'sending' AND w.endpoint_id NOT IN (SELECT endpoint_id FROM blocked) AS at_once FROM wanted w
), opened AS (
    INSERT INTO open_deliveries (id, event_id, application_id, endpoint_id, state, reason, listed, lease_id, lease_until,
                                 expires_at)
    SELECT id, event_id, application_id, endpoint_id, CASE WHEN at_once THEN 'sending' ELSE 'queued' END,
           CASE WHEN at_once THEN NULL ELSE coalesce(reason, 'backlog') END,
           NOT at_once OR delivery_accepted_at(id) < now() - interval '1 s',
           CASE WHEN at_once THEN lease_id END,
           CASE WHEN at_once THEN now() + lease_ms * interval '1 millisecond' END, expires_at
    FROM placed WHERE state <> 'skipped' ORDER BY id
    RETURNING id, endpoint_id, application_id, state, reason
), queued AS (
    SELECT id, endpoint_id, application_id, reason FROM opened WHERE state = 'queued'
), skipped AS (
    INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, attempt, failures)
    SELECT application_id, id, event_id, endpoint_id, 'skipped', 0, 0 FROM wanted WHERE state = 'skipped' ORDER BY id
), {backlogs}"
    )
}

/// The rows that a statement with [`open_wanted`] returns, beside those of `events` (uuid).
const RESULT: &str = "
SELECT 'queued' AS kind, id, NULL::uuid AS endpoint_id, NULL::uuid AS application_id, NULL::uuid AS owner
FROM queued WHERE reason = 'backlog'
UNION ALL SELECT 'backlog', NULL, endpoint_id, application_id, owner FROM touched";

fn delivery_columns<'a>(
    rows: &'a [(EventId, &'a NewDelivery)],
    first: usize,
) -> Columns<'a, (EventId, &'a NewDelivery)> {
    let lease = |new: &NewDelivery| if let Start::Sending(lease) = new.start { Some(lease) } else { None };
    Columns::new(rows, first)
        .column("id", "uuid", |(_, new)| new.id.0)
        .column("event_id", "uuid", |(event, _)| event.0)
        .column("endpoint_id", "uuid", |(_, new)| new.endpoint.0)
        .column("state", "text", |(_, new)| new.start.state().as_str())
        .column("reason", "text", |(_, new)| new.start.reason().map(QueueReason::as_str))
        .column("lease_id", "uuid", move |(_, new)| lease(new).map(|lease| lease.id.0))
        .column("lease_ms", "bigint", move |(_, new)| lease(new).map(|lease| milliseconds(lease.duration)))
        .column("expires_at", "timestamptz", |(_, new)| new.expires_at)
}

fn event_columns<'a>(
    rows: &'a [(&'a NewEvent, StoredBody<'a>)],
    first: usize,
) -> Columns<'a, (&'a NewEvent, StoredBody<'a>)> {
    Columns::new(rows, first)
        .column("id", "uuid", |(new, _)| new.event.id.0)
        .column("accepted_at", "timestamptz", |(new, _)| new.accepted_at)
        .column("application_id", "uuid", |(new, _)| new.event.application.0)
        .column("type", "text", |(new, _)| new.event.event_type.as_str())
        .column("key", "text", |(new, _)| new.event.key.as_deref())
        .column("occurred_at", "timestamptz", |(new, _)| new.event.occurred_at)
        .column("body", "text", |(_, body)| body.shown)
        .column("matches", "int", |(new, _)| i32::try_from(new.matches).unwrap_or(i32::MAX))
        .column("traceparent", "text", |(new, _)| new.event.traceparent.to_string())
        .column("content", "bytea", |(new, _)| new.content.as_ref().map(|content| content.0.as_slice()))
        .column("body_key_name", "text", |(_, body)| body.key_name())
        .column("body_ciphertext", "bytea", |(_, body)| body.ciphertext())
        .column("derived", "bool", |(new, _)| new.event.id.accepted_at().is_none())
        .column("is_wide", "bool", |(new, _)| new.is_wide)
}

/// Inserts the events of `input` that are new: the CTE `fresh` yields (id, application_id, accepted_at).
///
/// A key is looked up in all months. Two copies of a message may be written in different months, neither seeing the other:
/// in the first hour of a month the insert into the month before decides.
const INSERT_EVENTS: &str = "
known AS MATERIALIZED (
    SELECT event_id FROM event_keys WHERE event_id IN (SELECT id FROM input WHERE derived)
), month AS MATERIALIZED (
    SELECT date_trunc('month', now() AT TIME ZONE 'UTC')::date AS current,
           date_trunc('month', now() AT TIME ZONE 'UTC' - interval '1 hour')::date AS before
), keyed_before AS (
    INSERT INTO event_keys (event_id, month, accepted_at)
    SELECT id, month.before, accepted_at FROM input, month
    WHERE derived AND id NOT IN (SELECT event_id FROM known) AND month.before <> month.current ORDER BY id
    ON CONFLICT DO NOTHING RETURNING event_id
), keyed AS (
    INSERT INTO event_keys (event_id, month, accepted_at)
    SELECT id, month.current, accepted_at FROM input, month
    WHERE derived AND id NOT IN (SELECT event_id FROM known)
      AND (month.before = month.current OR id IN (SELECT event_id FROM keyed_before)) ORDER BY id
    ON CONFLICT DO NOTHING RETURNING event_id
), fresh_derived AS (
    -- Their keys guard them: no second look for a conflict.
    INSERT INTO events (id, accepted_at, application_id, type, key, occurred_at, body, matches, traceparent, content,
                        body_key_name, body_ciphertext)
    SELECT id, accepted_at, application_id, type, key, occurred_at, body, matches, traceparent, content, body_key_name,
           body_ciphertext
    FROM input WHERE derived AND id IN (SELECT event_id FROM keyed) ORDER BY id
    RETURNING id, application_id, accepted_at
), fresh_timed AS (
    INSERT INTO events (id, accepted_at, application_id, type, key, occurred_at, body, matches, traceparent, content,
                        body_key_name, body_ciphertext)
    SELECT id, accepted_at, application_id, type, key, occurred_at, body, matches, traceparent, content, body_key_name,
           body_ciphertext
    FROM input WHERE NOT derived ORDER BY id
    ON CONFLICT DO NOTHING RETURNING id, application_id, accepted_at
), fresh AS (
    SELECT * FROM fresh_derived UNION ALL SELECT * FROM fresh_timed
)";

impl Store {
    /// Writes a batch of events with their deliveries, in one commit. New backlogs are owned by `process`.
    ///
    /// The batch must be sorted by id, without a duplicate, or replicas deadlock.
    ///
    /// # Errors
    /// [`StoreError::Data`] when one row of the batch cannot be stored; then none is.
    pub async fn persist(&self, process: ProcessId, batch: &[&NewEvent]) -> Result<Persisted, StoreError> {
        let bodies = batch.iter().map(|new| Ok((*new, StoredBody::of(new, &self.keyring)?)));
        let rows = bodies.collect::<Result<Vec<_>, StoreError>>()?;
        let mut pairs: Vec<(EventId, &NewDelivery)> =
            batch.iter().flat_map(|new| new.deliveries.iter().map(|delivery| (new.event.id, delivery))).collect();
        pairs.sort_unstable_by_key(|(_, delivery)| delivery.id);
        let events = event_columns(&rows, 2);
        let deliveries = delivery_columns(&pairs, events.end());
        let statement = format!(
            "WITH input AS MATERIALIZED (SELECT * FROM {}), {INSERT_EVENTS}, spread AS (
    INSERT INTO fan_outs (event_id, application_id, accepted_at, owner)
    SELECT id, application_id, accepted_at, $1 FROM fresh WHERE id IN (SELECT id FROM input WHERE is_wide)
), wanted AS MATERIALIZED (
    SELECT d.*, fresh.application_id FROM {} JOIN fresh ON fresh.id = d.event_id
), {}
SELECT 'event' AS kind, id, NULL::uuid AS endpoint_id, NULL::uuid AS application_id, NULL::uuid AS owner FROM fresh
UNION ALL {RESULT}",
            events.table("i"),
            deliveries.table("d"),
            open_wanted("$1")
        );
        let connection = self.inserter().await?;
        let statement = connection.prepare_cached(&statement).await?;
        let parameters: Vec<_> =
            [&process.0 as _].into_iter().chain(events.values()).chain(deliveries.values()).collect();
        let rows = connection.query(&statement, &parameters).await?;
        Ok(persisted(&rows))
    }

    /// Writes a chunk of a wide event's deliveries and moves the mark, in one commit. `None` where the mark is elsewhere by
    /// now, or the process no longer owns the fan-out.
    ///
    /// # Errors
    /// When the database is away, or a row cannot be stored.
    pub async fn persist_chunk(&self, process: ProcessId, chunk: &Chunk<'_>) -> Result<Option<Persisted>, StoreError> {
        let mut pairs: Vec<_> = chunk.deliveries.iter().map(|delivery| (chunk.event, delivery)).collect();
        pairs.sort_unstable_by_key(|(_, delivery)| delivery.id);
        let deliveries = delivery_columns(&pairs, 7);
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
SELECT 'event' AS kind, event_id AS id, NULL::uuid AS endpoint_id, NULL::uuid AS application_id, NULL::uuid AS owner
FROM passed UNION ALL {RESULT}",
            deliveries.table("d"),
            open_wanted("$1")
        );
        let connection = self.inserter().await?;
        let statement = connection.prepare_cached(&statement).await?;
        let fixed: [&(dyn tokio_postgres::types::ToSql + Sync); 6] =
            [&process.0, &chunk.event.0, &chunk.from.0, &chunk.to.0, &chunk.is_last, &chunk.application.0];
        let parameters: Vec<_> = fixed.into_iter().chain(deliveries.values()).collect();
        let persisted = persisted(&connection.query(&statement, &parameters).await?);
        Ok((!persisted.new.is_empty()).then_some(persisted))
    }

    /// The leases of those of these deliveries that are being sent: after a commit of unknown outcome a process finds its
    /// own by them.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn leases(&self, deliveries: &[DeliveryId]) -> Result<HashMap<DeliveryId, LeaseId>, StoreError> {
        let ids: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.0).collect();
        let statement = "SELECT id, lease_id FROM open_deliveries WHERE id = ANY ($1) AND state || '' = 'sending'";
        let rows = self.writer().await?.query(statement, &[&ids]).await?;
        Ok(rows.iter().map(|row| (DeliveryId(row.get(0)), LeaseId(row.get(1)))).collect())
    }

    /// The events among these, found to be persisted already, that were persisted with other content: their publisher used
    /// a key twice.
    ///
    /// # Errors
    /// When the database is away.
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

    /// Whether an event has been persisted.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn is_persisted(&self, application: ApplicationId, event: EventId) -> Result<bool, StoreError> {
        let Some(accepted_at) = self.accepted_at(event).await? else { return Ok(false) };
        let statement = "SELECT EXISTS (SELECT FROM events WHERE application_id = $1 AND accepted_at = $2 AND id = $3)";
        Ok(self.connection().await?.query_one(statement, &[&application.0, &accepted_at, &event.0]).await?.get(0))
    }
}

impl Start {
    fn state(self) -> State {
        match self {
            Self::Sending(_) => State::Sending,
            Self::Queued(_) => State::Queued,
            Self::Skipped => State::Skipped,
        }
    }

    fn reason(self) -> Option<QueueReason> {
        if let Self::Queued(reason) = self { Some(reason) } else { None }
    }
}

fn persisted(rows: &[Row]) -> Persisted {
    let mut persisted = Persisted::default();
    for row in rows {
        match row.get::<_, &str>("kind") {
            "event" => drop(persisted.new.insert(EventId(row.get("id")))),
            "queued" => drop(persisted.queued.insert(DeliveryId(row.get("id")))),
            _ => persisted.backlogs.push(touched(row)),
        }
    }
    persisted
}
