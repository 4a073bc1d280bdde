//! Delayed events: opens the deliveries of due events, and cancels events that are not yet due.
//!
//! A row of `delayed_events` decides: a due event and a cancelled event both delete the row, so that one of them wins.
//! Each statement locks this row before the event's row.
//!
//! A process leases due rows, decides without a lock, and opens the deliveries in one statement.

use std::{collections::HashMap, time::Duration};

use fanfare_domain::{
    event::{EventType, trace_context::TraceContext},
    ids::{ApplicationId, EventId, ProcessId},
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Keyring, NewDelivery, Persisted, Store, StoreError,
    connection::store::{milliseconds, row_count},
    pipeline::{
        bodies::open_body,
        columns::Columns,
        lease::trace_context,
        persist::opening::{Deliveries, Opening, RESULT, open_wanted, persisted},
    },
};

/// Maximum of the bodies' bytes in a batch of due events. The first event may exceed the bound.
const BATCH_BYTES: i64 = 8 * 1024 * 1024;

/// Lease of a due event. The events of a process that dies are opened after this time.
const LEASE: &str = "interval '20 s'";

/// A leased event that is due.
#[derive(Debug, Clone)]
pub struct DueEvent {
    /// Id of the event.
    pub id: EventId,
    /// Application of the event.
    pub application: ApplicationId,
    /// Moment of acceptance.
    pub accepted_at: Timestamp,
    /// End of the lease. The row has this time as long as the lease holds.
    pub leased_until: Timestamp,
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

/// Decision that ends the delay of an event.
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

/// Leases the next due events. Events locked by another process, or just being cancelled, are left out.
const TAKE: &str = "
WITH due AS MATERIALIZED (
    SELECT event_id, application_id, accepted_at, due_at FROM delayed_events
    WHERE due_at <= now() AND (leased_until IS NULL OR leased_until <= now())
    ORDER BY due_at LIMIT $1 FOR UPDATE SKIP LOCKED
), sized AS MATERIALIZED (
    SELECT d.*, row_number() OVER place AS number, sum(coalesce(e.bytes, 0)) OVER place AS bytes FROM due d
    LEFT JOIN LATERAL (
        SELECT octet_length(e.body) + coalesce(octet_length(e.body_ciphertext), 0) AS bytes FROM events e
        WHERE e.application_id = d.application_id AND e.accepted_at = d.accepted_at AND e.id = d.event_id LIMIT 1) e
        ON true
    WINDOW place AS (ORDER BY d.due_at, d.event_id)
), leased AS (
    UPDATE delayed_events d SET leased_until = now() + {LEASE} FROM sized s
    WHERE d.event_id = s.event_id AND (s.number = 1 OR s.bytes <= $2) RETURNING d.event_id, d.leased_until
)
SELECT s.event_id, s.application_id, s.accepted_at, l.leased_until, e.type, e.body, e.body_key_name, e.body_ciphertext,
       e.traceparent, e.tracestate, e.deliver_at,
       coalesce(e.erased_at IS NULL AND e.accepted_at >= (SELECT line FROM retention), false) AS is_kept
FROM sized s JOIN leased l ON l.event_id = s.event_id
LEFT JOIN LATERAL (
    SELECT * FROM events e
    WHERE e.application_id = s.application_id AND e.accepted_at = s.accepted_at AND e.id = s.event_id LIMIT 1) e ON true
ORDER BY s.number";

/// Opens the deliveries `wanted`, and takes the events `input` off the work list. Parameters: process, then the
/// columns.
///
/// `wanted` waits for the events' rows, which are thereby locked before any backlog.
fn open_statement(
    events: &Columns<'_, Planned<'_>>,
    deliveries: &Columns<'_, Opening<'_>>,
    opening: &Deliveries<'_>,
) -> String {
    format!(
        "WITH input AS MATERIALIZED (SELECT * FROM {}), ended AS (
    DELETE FROM delayed_events d USING input i WHERE d.event_id = i.id AND d.leased_until = i.leased_until
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
        DuePlan::Drop => 0,
    };
    Columns::new(rows, 2)
        .column("id", "uuid", |(event, _)| event.id.0)
        .column("accepted_at", "timestamptz", |(event, _)| event.accepted_at)
        .column("application_id", "uuid", |(event, _)| event.application.0)
        .column("leased_until", "timestamptz", |(event, _)| event.leased_until)
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
    /// Leases up to `limit` due events, the earliest first.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] events may be leased: they are due again when the lease ends.
    pub async fn take_due(&self, limit: usize) -> Result<Vec<DueEvent>, StoreError> {
        let connection = self.writer().await?;
        let take = connection.prepare_cached(&TAKE.replace("{LEASE}", LEASE)).await?;
        let rows = connection.query(&take, &[&row_count(limit), &BATCH_BYTES]).await?;
        Ok(rows.iter().map(|row| due_event(&self.keyring, row)).collect())
    }

    /// Ends the delay of leased events, and opens their deliveries. Leaves out cancelled events, and events whose lease
    /// has ended. A death at any point leaves each event due, or its deliveries open.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] the deliveries may be open: their leases end, and recovery queues them.
    pub async fn open_due(&self, process: ProcessId, planned: &[(DueEvent, DuePlan)]) -> Result<Persisted, StoreError> {
        if planned.is_empty() {
            return Ok(Persisted::default());
        }
        let planned: Vec<Planned<'_>> = planned.iter().collect();
        let opening = Deliveries::of(deliveries(&planned).into_iter(), &self.keyring)?;
        let columns = event_columns(&planned);
        let applications: HashMap<EventId, Uuid> =
            planned.iter().map(|(event, _)| (event.id, event.application.0)).collect();
        let wanted = opening
            .columns(columns.end())
            .column("application_id", "uuid", |row| applications.get(&row.event).copied());
        let connection = self.writer().await?;
        let statement = connection.prepare_cached(&open_statement(&columns, &wanted, &opening)).await?;
        let parameters: Vec<_> = [&process.0 as _].into_iter().chain(columns.values()).chain(wanted.values()).collect();
        Ok(persisted(&connection.query(&statement, &parameters).await?))
    }

    /// Ends the leases of events: a next look finds the events at once, or after a wait. The wait is the time for which
    /// the event is overdue, within the bounds `wait`: events that no process can open hold up no others.
    pub async fn release_due(
        &self,
        events: &[&DueEvent],
        wait: Option<(Duration, Duration)>,
    ) -> Result<(), StoreError> {
        if events.is_empty() {
            return Ok(());
        }
        let columns = Columns::new(events, 3).column("id", "uuid", |event| event.id.0).column(
            "leased_until",
            "timestamptz",
            |event| event.leased_until,
        );
        let statement = format!(
            "UPDATE delayed_events d
             SET leased_until = CASE WHEN $1::bigint IS NOT NULL THEN
                 now() + least(greatest($1::bigint * interval '1 millisecond', now() - d.due_at),
                               $2::bigint * interval '1 millisecond') END
             FROM {} WHERE d.event_id = i.id AND d.leased_until = i.leased_until",
            columns.table("i")
        );
        let connection = self.writer().await?;
        let statement = connection.prepare_cached(&statement).await?;
        let (shortest, longest) =
            wait.map(|(shortest, longest)| (milliseconds(shortest), milliseconds(longest))).unzip();
        let parameters: Vec<_> = [&shortest as _, &longest as _].into_iter().chain(columns.values()).collect();
        connection.execute(&statement, &parameters).await?;
        Ok(())
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
        leased_until: row.get("leased_until"),
        content: content(),
    }
}
