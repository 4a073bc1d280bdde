//! Persists events and their open deliveries, in one commit per batch.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use deadpool_postgres::GenericClient;
use fanfare_domain::{
    application::Application,
    delivery::{FailureReason, QueueReason, READ_BY_FEED, State},
    endpoint::template::Shaped,
    event::{Content, Event, ordering::OrderingKey},
    ids::{ApplicationId, DeliveryId, EndpointId, EventId, LeaseId, ProcessId},
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Keyring, KeyringError, Store, StoreError,
    connection::store::milliseconds,
    pipeline::{
        backlogs::{TouchedBacklog, touched, with_backlogs},
        bodies::StoredBody,
        columns::Columns,
    },
};

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

/// Writes the own bodies of the deliveries `wanted`, and the notices of the deliveries without a body.
const KEEP_BODIES: &str = ", kept_bodies AS (
    INSERT INTO delivery_bodies (id, body, body_key_name, body_ciphertext, fault)
    SELECT id, own_body, own_key_name, own_ciphertext, fault FROM wanted WHERE shaped ORDER BY id
), noticed AS (
    INSERT INTO failure_notices (delivery_id, application_id, endpoint_id)
    SELECT id, application_id, endpoint_id FROM wanted WHERE notifies
    ON CONFLICT (endpoint_id, delivery_id) DO UPDATE SET failed_at = now()
)";

/// Class, key and number of an open delivery: only a delivery that waits for the delivery before has a place in the
/// order.
const PLACE: &str =
    ", CASE WHEN reason = 'in_order' THEN 2 ELSE 0 END, CASE WHEN reason = 'in_order' THEN ordering_key END,
           CASE WHEN reason = 'in_order' THEN sequence END";

/// Adds the keys of the deliveries that wait for the delivery before to the work list.
const SIGNAL: &str = ", signalled AS (
    INSERT INTO ordering_signals (endpoint_id, key)
    SELECT DISTINCT endpoint_id, ordering_key FROM wanted WHERE reason = 'in_order'
)";

/// Opens the deliveries of the CTE `wanted`, with the columns of [`Deliveries::columns`] and `application_id`; with
/// deliveries in order also with the columns `ordering_key` and `sequence`.
pub(super) fn open_wanted(process: &str, deliveries: &Deliveries<'_>) -> String {
    let backlogs = with_backlogs(process);
    let (ends, shaped, keep_bodies) = match deliveries.has_bodies {
        true => ("state IN ('skipped', 'failed')", ", shaped", KEEP_BODIES),
        false => ("state = 'skipped'", "", ""),
    };
    let (places, place, signal, backlogged) = match deliveries.has_order {
        true => (", class, ordering_key, sequence", PLACE, SIGNAL, " AND reason <> 'in_order'"),
        false => ("", "", "", ""),
    };
    format!(
        "blocked AS MATERIALIZED (
    SELECT b.endpoint_id FROM endpoint_backlogs b
    WHERE b.endpoint_id IN (SELECT endpoint_id FROM wanted) AND NOT b.is_ending ORDER BY b.endpoint_id FOR KEY SHARE
), placed AS MATERIALIZED (
    SELECT w.*, w.state = 'sending' AND w.endpoint_id NOT IN (SELECT endpoint_id FROM blocked) AS at_once FROM wanted w
), opened AS (
    INSERT INTO open_deliveries (id, event_id, application_id, endpoint_id, state, reason, listed, lease_id, lease_until,
                                 expires_at{shaped}{places})
    SELECT id, event_id, application_id, endpoint_id, CASE WHEN at_once THEN 'sending' ELSE 'queued' END,
           CASE WHEN at_once THEN NULL ELSE coalesce(reason, 'backlog') END,
           NOT at_once OR delivery_accepted_at(id) < now() - interval '1 s',
           CASE WHEN at_once THEN lease_id END,
           CASE WHEN at_once THEN now() + lease_ms * interval '1 millisecond' END, expires_at{shaped}{place}
    FROM placed WHERE NOT {ends} ORDER BY id
    RETURNING id, endpoint_id, application_id, state, reason
), queued AS (
    SELECT id, endpoint_id, application_id, reason FROM opened WHERE state = 'queued'{backlogged}
), skipped AS (
    INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, reason, attempt, failures)
    SELECT application_id, id, event_id, endpoint_id, state, reason, 0, 0 FROM wanted
    WHERE {ends} ORDER BY id
), listed AS (
    INSERT INTO feed_entries (endpoint_id, id, application_id, event_id)
    SELECT endpoint_id, id, application_id, event_id FROM wanted WHERE in_feed ORDER BY id
){keep_bodies}{signal}, {backlogs}"
    )
}

/// Result rows of a statement with [`open_wanted`], beside the rows of kind `event`.
pub(super) const RESULT: &str = "
SELECT 'queued' AS kind, id, NULL::uuid AS endpoint_id, NULL::uuid AS application_id, NULL::uuid AS owner,
       NULL::bigint AS sequence
FROM queued WHERE reason = 'backlog'
UNION ALL SELECT 'backlog', NULL, endpoint_id, application_id, owner, NULL FROM touched";

/// Deliveries to open, sorted by id.
pub(super) struct Deliveries<'a> {
    rows: Vec<Opening<'a>>,
    /// True with a delivery that has a body of its own. Other batches have the text of the statement without the parts
    /// of such bodies.
    has_bodies: bool,
    /// True with a delivery that waits for the delivery before.
    has_order: bool,
}

/// A delivery to open.
pub(super) struct Opening<'a> {
    pub(super) event: EventId,
    new: &'a NewDelivery,
    /// Stored form of the delivery's own body.
    own: Option<StoredBody<'a>>,
}

impl<'a> Deliveries<'a> {
    /// Sorts the deliveries, and encrypts their bodies where necessary.
    pub(super) fn of(
        pairs: impl Iterator<Item = (EventId, &'a NewDelivery)>,
        keyring: &Keyring,
    ) -> Result<Self, KeyringError> {
        let opening = |(event, new): (EventId, &'a NewDelivery)| {
            let shaped = new.shaped.as_deref().map(|shaped| StoredBody::of_delivery(new.id, shaped, keyring));
            Ok(Opening { event, new, own: shaped.transpose()?.flatten() })
        };
        let mut rows = pairs.map(opening).collect::<Result<Vec<_>, KeyringError>>()?;
        rows.sort_unstable_by_key(|row| row.new.id);
        let has_bodies = rows.iter().any(|row| row.new.shaped.is_some());
        let has_order = rows.iter().any(|row| row.new.start == Start::InOrder);
        Ok(Self { rows, has_bodies, has_order })
    }

    /// Columns of the deliveries, from the parameter `first` on.
    pub(super) fn columns(&'a self, first: usize) -> Columns<'a, Opening<'a>> {
        let columns = delivery_columns(&self.rows, first);
        if !self.has_bodies {
            return columns;
        }
        let fault = |new: &'a NewDelivery| match new.shaped.as_deref() {
            Some(Shaped::Failed(sentence)) => Some(sentence.as_str()),
            _ => None,
        };
        columns
            .column("shaped", "bool", |row| row.new.shaped.is_some())
            .column("own_body", "text", |row| row.own.as_ref().map(|own| own.shown))
            .column("own_key_name", "text", |row| row.own.as_ref().and_then(StoredBody::key_name))
            .column("own_ciphertext", "bytea", |row| row.own.as_ref().and_then(StoredBody::ciphertext))
            .column("fault", "text", move |row| fault(row.new))
            .column("notifies", "bool", |row| row.new.start == Start::NotRendered { notifies_owner: true })
    }
}

fn delivery_columns<'a>(rows: &'a [Opening<'a>], first: usize) -> Columns<'a, Opening<'a>> {
    let lease = |new: &NewDelivery| if let Start::Sending(lease) = new.start { Some(lease) } else { None };
    Columns::new(rows, first)
        .column("id", "uuid", |row| row.new.id.0)
        .column("event_id", "uuid", |row| row.event.0)
        .column("endpoint_id", "uuid", |row| row.new.endpoint.0)
        .column("state", "text", |row| row.new.start.state().as_str())
        .column("reason", "text", |row| row.new.start.reason())
        .column("lease_id", "uuid", move |row| lease(row.new).map(|lease| lease.id.0))
        .column("lease_ms", "bigint", move |row| lease(row.new).map(|lease| milliseconds(lease.duration)))
        .column("expires_at", "timestamptz", |row| row.new.expires_at)
        .column("in_feed", "bool", |row| row.new.in_feed)
}

fn event_columns<'a>(
    rows: &'a [(&'a NewEvent, StoredBody<'a>)],
    first: usize,
    kinds: Kinds,
) -> Columns<'a, (&'a NewEvent, StoredBody<'a>)> {
    let columns = Columns::new(rows, first)
        .column("id", "uuid", |(new, _)| new.event.id.0)
        .column("accepted_at", "timestamptz", |(new, _)| new.accepted_at)
        .column("application_id", "uuid", |(new, _)| new.event.application.0)
        .column("type", "text", |(new, _)| new.event.event_type.as_str())
        .column("key", "text", |(new, _)| new.event.key.as_deref())
        .column("occurred_at", "timestamptz", |(new, _)| new.event.occurred_at)
        .column("body", "text", |(_, body)| body.shown)
        .column("matches", "int", |(new, _)| i32::try_from(new.matches).unwrap_or(i32::MAX))
        .column("traceparent", "text", |(new, _)| traceparent(&new.event))
        .column("tracestate", "text", |(new, _)| new.event.trace.as_ref().and_then(|trace| trace.state.as_deref()))
        .column("content", "bytea", |(new, _)| new.content.as_ref().map(|content| content.0.as_slice()))
        .column("body_key_name", "text", |(_, body)| body.key_name())
        .column("body_ciphertext", "bytea", |(_, body)| body.ciphertext())
        .column("derived", "bool", |(new, _)| new.event.id.accepted_at().is_none())
        .column("is_wide", "bool", |(new, _)| new.is_wide);
    let columns = if kinds.ordered {
        columns
            .column("ordering_key", "text", |(new, _)| new.event.ordering_key.as_ref().map(OrderingKey::as_str))
            .column("position", "bigint", |(new, _)| new.position)
    } else {
        columns
    };
    if kinds.delayed { columns.column("deliver_at", "timestamptz", |(new, _)| new.due_at) } else { columns }
}

/// The CTE `wanted` from the deliveries `deliveries` of new events.
fn wanted(deliveries: &str) -> String {
    format!(
        "wanted AS MATERIALIZED (
    SELECT d.*, fresh.application_id FROM {deliveries} JOIN fresh ON fresh.id = d.event_id
)"
    )
}

/// The CTE `wanted`, after the deliveries of events with an ordering key have got their numbers. `wanted` depends on
/// the locks of the keys, in order, before any backlog is locked. A concurrent statement with the same key waits.
fn wanted_in_order(deliveries: &str) -> String {
    format!(
        "given AS MATERIALIZED (
    SELECT d.*, fresh.application_id FROM {deliveries} JOIN fresh ON fresh.id = d.event_id
), ordered AS MATERIALIZED (
    SELECT g.id, g.endpoint_id, i.ordering_key AS key,
           row_number() OVER (PARTITION BY g.endpoint_id, i.ordering_key ORDER BY i.position) AS nth
    FROM given g JOIN input i ON i.id = g.event_id WHERE i.ordering_key IS NOT NULL
), raised AS (
    INSERT INTO ordering_keys AS k (endpoint_id, key, last)
    SELECT endpoint_id, key, max(nth) FROM ordered GROUP BY endpoint_id, key ORDER BY endpoint_id, key
    ON CONFLICT (endpoint_id, key) DO UPDATE SET last = k.last + excluded.last
    RETURNING k.endpoint_id, k.key, k.last
), numbered AS MATERIALIZED (
    SELECT o.id, o.key, r.last - max(o.nth) OVER (PARTITION BY o.endpoint_id, o.key) + o.nth AS sequence
    FROM ordered o JOIN raised r ON r.endpoint_id = o.endpoint_id AND r.key = o.key
), kept AS (
    INSERT INTO delivery_sequences (id, sequence) SELECT id, sequence FROM numbered ORDER BY id
), wanted AS MATERIALIZED (
    SELECT g.*, n.key AS ordering_key, n.sequence FROM given g LEFT JOIN numbered n ON n.id = g.id
)"
    )
}

/// Text of the column `traceparent`: empty without a trace, since the first release reads no NULL there.
pub(crate) fn traceparent(event: &Event) -> String {
    event.trace.as_ref().map(|trace| trace.parent.to_string()).unwrap_or_default()
}

/// Inserts the new events of `input`. The CTE `fresh` yields (id, application_id, accepted_at) of each new event.
///
/// A key is looked up in all months. Two copies of a message may be written in different months, without a view of each
/// other. In the first hour of a month the insert into the previous month therefore decides.
///
/// `further` names further columns of `input` and `events`, each with a comma before.
fn insert_events(further: &str) -> String {
    format!(
        "known AS MATERIALIZED (
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
    -- The keys guard these events: no second check for a conflict.
    INSERT INTO events (id, accepted_at, application_id, type, key, occurred_at, body, matches, traceparent, tracestate,
                        content, body_key_name, body_ciphertext{further})
    SELECT id, accepted_at, application_id, type, key, occurred_at, body, matches, traceparent, tracestate, content,
           body_key_name, body_ciphertext{further}
    FROM input WHERE derived AND id IN (SELECT event_id FROM keyed) ORDER BY id
    RETURNING id, application_id, accepted_at
), fresh_timed AS (
    INSERT INTO events (id, accepted_at, application_id, type, key, occurred_at, body, matches, traceparent, tracestate,
                        content, body_key_name, body_ciphertext{further})
    SELECT id, accepted_at, application_id, type, key, occurred_at, body, matches, traceparent, tracestate, content,
           body_key_name, body_ciphertext{further}
    FROM input WHERE NOT derived ORDER BY id
    ON CONFLICT DO NOTHING RETURNING id, application_id, accepted_at
), fresh AS (
    SELECT * FROM fresh_derived UNION ALL SELECT * FROM fresh_timed
)"
    )
}

/// Puts the delayed events among `fresh` onto the work list.
const DELAY_FRESH: &str = "delayed AS (
    INSERT INTO delayed_events (event_id, application_id, accepted_at, due_at)
    SELECT id, fresh.application_id, fresh.accepted_at, deliver_at FROM fresh JOIN input USING (id)
    WHERE deliver_at IS NOT NULL ORDER BY id
), ";

/// Kinds of events in a batch. A batch without a kind has another text of the statement, without the kind's parts:
/// ordinary events cost the same whether others are ordered or delayed.
#[derive(Debug, Clone, Copy)]
struct Kinds {
    /// True with an event that has an ordering key.
    ordered: bool,
    /// True with a delayed event.
    delayed: bool,
}

impl Kinds {
    fn of(batch: &[&NewEvent]) -> Self {
        Self {
            ordered: batch.iter().any(|new| new.event.ordering_key.is_some()),
            delayed: batch.iter().any(|new| new.due_at.is_some()),
        }
    }

    /// Statement of [`Store::persist`], with the tables of events and of deliveries.
    fn statement(self, events: &str, deliveries: &str, opening: &Deliveries<'_>) -> String {
        let delay = if self.delayed { DELAY_FRESH } else { "" };
        let (wanted, numbers) = if self.ordered {
            let numbers = "
UNION ALL SELECT 'number', id, NULL, NULL, NULL, sequence FROM numbered";
            (wanted_in_order(deliveries), numbers)
        } else {
            (wanted(deliveries), "")
        };
        let further = match (self.ordered, self.delayed) {
            (false, false) => "",
            (true, false) => ", ordering_key",
            (false, true) => ", deliver_at",
            (true, true) => ", ordering_key, deliver_at",
        };
        format!(
            "WITH input AS MATERIALIZED (SELECT * FROM {events}), {}, {delay}spread AS (
    INSERT INTO fan_outs (event_id, application_id, accepted_at, owner)
    SELECT id, application_id, accepted_at, $1 FROM fresh WHERE id IN (SELECT id FROM input WHERE is_wide)
), {wanted}, {}
SELECT 'event' AS kind, id, NULL::uuid AS endpoint_id, NULL::uuid AS application_id, NULL::uuid AS owner,
       NULL::bigint AS sequence FROM fresh
UNION ALL {RESULT}{numbers}",
            insert_events(further),
            open_wanted("$1", opening)
        )
    }
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

impl Start {
    fn state(self) -> State {
        match self {
            Self::Sending(_) => State::Sending,
            Self::Queued(_) | Self::InOrder => State::Queued,
            Self::Skipped | Self::Read => State::Skipped,
            Self::NotRendered { .. } => State::Failed,
        }
    }

    fn reason(self) -> Option<&'static str> {
        match self {
            Self::Queued(reason) => Some(reason.as_str()),
            Self::InOrder => Some(QueueReason::InOrder.as_str()),
            Self::Read => Some(READ_BY_FEED),
            Self::NotRendered { .. } => Some(FailureReason::NotRendered.as_str()),
            Self::Sending(_) | Self::Skipped => None,
        }
    }
}

pub(super) fn persisted(rows: &[Row]) -> Persisted {
    let mut persisted = Persisted::default();
    for row in rows {
        match row.get::<_, &str>("kind") {
            "event" => drop(persisted.new.insert(EventId(row.get("id")))),
            "queued" => drop(persisted.queued.insert(DeliveryId(row.get("id")))),
            "number" => drop(persisted.sequences.insert(DeliveryId(row.get("id")), sequence(row))),
            _ => persisted.backlogs.push(touched(row)),
        }
    }
    persisted
}

/// The column `sequence`, from 1 on.
pub(crate) fn sequence(row: &Row) -> u64 {
    row.get::<_, i64>("sequence").unsigned_abs()
}
