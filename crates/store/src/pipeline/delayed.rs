//! Delayed events: opens the deliveries of due events, and cancels events that are not yet due.
//!
//! A row of `delayed_events` decides: a due event and a cancelled event both delete the row, so that one of them wins.
//! Each statement locks this row before the event's row.

use std::collections::HashMap;

use fanfare_domain::{
    event::{EventType, trace_context::TraceContext},
    ids::{ApplicationId, EventId, ProcessId},
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Keyring, NewDelivery, Persisted, Store, StoreError,
    connection::store::row_count,
    pipeline::{
        bodies::open_body,
        columns::Columns,
        lease::trace_context,
        persist::{Deliveries, Opening, RESULT, open_wanted, persisted},
    },
};

/// Maximum of the bodies' bytes in a batch of due events. The first event may exceed the bound.
const BATCH_BYTES: i64 = 8 * 1024 * 1024;

/// An event that is due.
#[derive(Debug, Clone)]
pub struct DueEvent {
    /// Id of the event.
    pub id: EventId,
    /// Application of the event.
    pub application: ApplicationId,
    /// Moment of acceptance.
    pub accepted_at: Timestamp,
    /// Content of the event.
    pub content: DueContent,
}

/// Content of a due event.
#[derive(Debug, Clone)]
pub enum DueContent {
    /// The event can be delivered.
    Kept {
        /// Type of the event.
        event_type: EventType,
        /// Payload.
        body: String,
        /// Trace of the event.
        trace: Option<TraceContext>,
        /// Time of delivery, as the publisher set it.
        deliver_at: Timestamp,
    },
    /// This process lacks the encryption key, or the row is corrupt.
    Unreadable,
    /// The event is erased, or below the line of retention: nothing of the event is sent.
    Gone,
}

/// Decision on a due event.
#[derive(Debug)]
pub enum DuePlan {
    /// Opens the deliveries.
    Open {
        /// Number of endpoints that matched.
        matches: usize,
        /// True if a fan-out writes the deliveries later, in chunks.
        is_wide: bool,
        /// Deliveries of the event; empty for a fan-out.
        deliveries: Vec<NewDelivery>,
    },
    /// Removes the event from the work list, without a delivery.
    Drop,
    /// Looks at the event again later: another process may be able to read the event.
    Defer,
    /// Leaves the event due, for the next look.
    Leave,
}

/// Result of a batch of due events.
#[derive(Debug, Default)]
pub struct OpenedDue {
    /// The events with their plans, in the order of their times.
    pub events: Vec<(DueEvent, DuePlan)>,
    /// Events of which deliveries were opened, and the queued deliveries.
    pub persisted: Persisted,
}

/// Result of a cancellation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cancellation {
    /// The event is cancelled now.
    Done(Timestamp),
    /// The event was cancelled before, at this time.
    Before(Timestamp),
    /// The event was never delayed, is erased or past its retention, or its deliveries are open already.
    TooLate,
    /// The event does not exist.
    NoSuchEvent,
}

/// Locks the next due events. Events locked by another process, or just being cancelled, are left out.
const TAKE: &str = "
WITH due AS MATERIALIZED (
    SELECT event_id, application_id, accepted_at, due_at FROM delayed_events WHERE due_at <= now()
    ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
), sized AS MATERIALIZED (
    SELECT d.*, row_number() OVER place AS number, sum(coalesce(e.bytes, 0)) OVER place AS bytes FROM due d
    LEFT JOIN LATERAL (
        SELECT octet_length(e.body) + coalesce(octet_length(e.body_ciphertext), 0) AS bytes FROM events e
        WHERE e.application_id = d.application_id AND e.accepted_at = d.accepted_at AND e.id = d.event_id LIMIT 1) e
        ON true
    WINDOW place AS (ORDER BY d.due_at, d.event_id)
)
SELECT s.event_id, s.application_id, s.accepted_at, e.type, e.body, e.body_key_name, e.body_ciphertext, e.traceparent,
       e.tracestate, e.deliver_at, coalesce(e.erased_at IS NULL AND e.accepted_at >= (SELECT line FROM retention), false)
       AS is_kept
FROM sized s
LEFT JOIN LATERAL (
    SELECT * FROM events e
    WHERE e.application_id = s.application_id AND e.accepted_at = s.accepted_at AND e.id = s.event_id LIMIT 1) e ON true
WHERE s.number = 1 OR s.bytes <= $2 ORDER BY s.number";

/// Opens the deliveries `wanted`, and takes the events `input` off the work list. Parameters: process, then the columns.
///
/// `wanted` waits for the events' rows, which are thereby locked before any backlog.
fn open_statement(
    events: &Columns<'_, Planned<'_>>,
    deliveries: &Columns<'_, Opening<'_>>,
    opening: &Deliveries<'_>,
) -> String {
    format!(
        "WITH input AS MATERIALIZED (SELECT * FROM {}), ended AS (
    DELETE FROM delayed_events d USING input i WHERE d.event_id = i.id
    RETURNING d.event_id, d.application_id, d.accepted_at
), fresh AS MATERIALIZED (
    SELECT i.* FROM ended JOIN input i ON i.id = ended.event_id WHERE i.is_open
), matched AS (
    UPDATE events e SET matches = f.matches FROM fresh f
    WHERE e.application_id = f.application_id AND e.accepted_at = f.accepted_at AND e.id = f.id AND e.erased_at IS NULL
    RETURNING e.id, e.application_id, e.accepted_at, f.is_wide
), spread AS (
    INSERT INTO fan_outs (event_id, application_id, accepted_at, owner)
    SELECT id, application_id, accepted_at, $1 FROM matched WHERE is_wide
), wanted AS MATERIALIZED (
    -- No join: without a hash join the planner would compare each delivery with each event.
    SELECT d.* FROM {} WHERE coalesce(d.event_id IN (SELECT id FROM matched), false)
), {}
SELECT 'event' AS kind, id, NULL::uuid AS endpoint_id, NULL::uuid AS application_id, NULL::uuid AS owner,
       NULL::bigint AS sequence
FROM matched
UNION ALL {RESULT}",
        events.table("i"),
        deliveries.table("d"),
        open_wanted("$1", opening)
    )
}

/// An event with its plan.
type Planned<'a> = &'a (DueEvent, DuePlan);

fn event_columns<'a>(rows: &'a [Planned<'a>]) -> Columns<'a, Planned<'a>> {
    let matches = |plan: &DuePlan| match plan {
        DuePlan::Open { matches, .. } => i32::try_from(*matches).unwrap_or(i32::MAX),
        DuePlan::Drop | DuePlan::Defer | DuePlan::Leave => 0,
    };
    Columns::new(rows, 2)
        .column("id", "uuid", |(event, _)| event.id.0)
        .column("accepted_at", "timestamptz", |(event, _)| event.accepted_at)
        .column("application_id", "uuid", |(event, _)| event.application.0)
        .column("matches", "int", move |(_, plan)| matches(plan))
        .column("is_wide", "bool", |(_, plan)| matches!(plan, DuePlan::Open { is_wide: true, .. }))
        .column("is_open", "bool", |(_, plan)| matches!(plan, DuePlan::Open { .. }))
}

/// The deliveries to open with their events.
fn deliveries<'a>(planned: &[Planned<'a>]) -> Vec<(EventId, &'a NewDelivery)> {
    let mut pairs = Vec::new();
    for (event, plan) in planned {
        if let DuePlan::Open { deliveries, .. } = plan {
            pairs.extend(deliveries.iter().map(|delivery| (event.id, delivery)));
        }
    }
    pairs
}

impl Store {
    /// Opens the deliveries of up to `limit` due events, the earliest first, in one transaction. `plan` decides on each
    /// event while the event is locked. A death at any point leaves each event due, or its deliveries open.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] the deliveries may be open: their leases end, and recovery queues them.
    pub async fn open_due(
        &self,
        process: ProcessId,
        limit: usize,
        mut plan: impl FnMut(&DueEvent) -> DuePlan,
    ) -> Result<OpenedDue, StoreError> {
        let mut connection = self.writer().await?;
        let transaction = connection.transaction().await?;
        let take = transaction.prepare_cached(TAKE).await?;
        let rows = transaction.query(&take, &[&row_count(limit), &BATCH_BYTES]).await?;
        let due = rows.iter().map(|row| due_event(&self.keyring, row));
        let events: Vec<(DueEvent, DuePlan)> = due
            .map(|event| {
                let plan = plan(&event);
                (event, plan)
            })
            .collect();
        let decided = events.iter().filter(|(_, plan)| !matches!(plan, DuePlan::Leave));
        let (deferred, ended): (Vec<Planned<'_>>, Vec<_>) =
            decided.partition(|(_, plan)| matches!(plan, DuePlan::Defer));
        if !deferred.is_empty() {
            let ids: Vec<Uuid> = deferred.iter().map(|(event, _)| event.id.0).collect();
            transaction.execute(DEFER, &[&ids]).await?;
        }
        let mut opened = Persisted::default();
        if !ended.is_empty() {
            let opening = Deliveries::of(deliveries(&ended).into_iter(), &self.keyring)?;
            let columns = event_columns(&ended);
            let applications: HashMap<EventId, Uuid> =
                ended.iter().map(|(event, _)| (event.id, event.application.0)).collect();
            let wanted = opening
                .columns(columns.end())
                .column("application_id", "uuid", |row| applications.get(&row.event).copied());
            let statement = transaction.prepare_cached(&open_statement(&columns, &wanted, &opening)).await?;
            let parameters: Vec<_> =
                [&process.0 as _].into_iter().chain(columns.values()).chain(wanted.values()).collect();
            opened = persisted(&transaction.query(&statement, &parameters).await?);
        }
        transaction.commit().await?;
        Ok(OpenedDue { events, persisted: opened })
    }

    /// Defers the earliest due event, whose deliveries the database refuses. Returns the event.
    pub async fn defer_due(&self) -> Result<Option<EventId>, StoreError> {
        let statement = "UPDATE delayed_events SET due_at = now() + interval '10 minutes' WHERE event_id = (
                             SELECT event_id FROM delayed_events WHERE due_at <= now()
                             ORDER BY due_at LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING event_id";
        let row = self.writer().await?.query_opt(statement, &[]).await?;
        Ok(row.map(|row| EventId(row.get(0))))
    }

    /// Cancels an event that is not yet due. `author` is shown with the event.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] the event may be cancelled; a repeated call tells.
    pub async fn cancel_event(
        &self,
        application: ApplicationId,
        event: EventId,
        author: &str,
    ) -> Result<Cancellation, StoreError> {
        let connection = self.writer().await?;
        let cancel = connection.prepare_cached(CANCEL).await?;
        if let Some(row) = connection.query_opt(&cancel, &[&application.0, &event.0, &author]).await? {
            return Ok(Cancellation::Done(row.get(0)));
        }
        drop(connection);
        // Behind the cancellation's wait for a lock: the event's row shows which of the others has won.
        Ok(match self.event(application, event).await? {
            None => Cancellation::NoSuchEvent,
            Some(row) => row.cancelled_at.map_or(Cancellation::TooLate, Cancellation::Before),
        })
    }
}

/// Takes an event off the work list, and marks the event.
const CANCEL: &str = "
WITH ended AS (
    DELETE FROM delayed_events
    WHERE event_id = $2 AND application_id = $1 AND accepted_at >= (SELECT line FROM retention) RETURNING accepted_at
)
UPDATE events e SET cancelled_at = date_trunc('milliseconds', now()), cancelled_by = $3 FROM ended
WHERE e.application_id = $1 AND e.accepted_at = ended.accepted_at AND e.id = $2
RETURNING e.cancelled_at";

/// Defers events: another process may be able to read them.
const DEFER: &str = "UPDATE delayed_events SET due_at = now() + interval '10 s' WHERE event_id = ANY ($1)";

fn due_event(keyring: &Keyring, row: &Row) -> DueEvent {
    let id = EventId(row.get("event_id"));
    let content = || {
        if !row.get::<_, bool>("is_kept") {
            return DueContent::Gone;
        }
        let (event_type, body) = (EventType::parse(row.get("type")), open_body(keyring, id, row));
        match (event_type, body) {
            (Ok(event_type), Ok(body)) => {
                DueContent::Kept { event_type, body, trace: trace_context(row), deliver_at: row.get("deliver_at") }
            }
            _ => DueContent::Unreadable,
        }
    };
    DueEvent {
        id,
        application: ApplicationId(row.get("application_id")),
        accepted_at: row.get("accepted_at"),
        content: content(),
    }
}
