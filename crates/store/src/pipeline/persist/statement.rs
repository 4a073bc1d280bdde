//! The statement that inserts events with their deliveries.

use fanfare_domain::event::{Event, ordering::OrderingKey};

use super::{
    NewEvent,
    opening::{Deliveries, RESULT, open_wanted},
};
use crate::pipeline::{bodies::StoredBody, columns::Columns};

pub(super) fn event_columns<'a>(
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
pub(super) struct Kinds {
    /// True with an event that has an ordering key.
    ordered: bool,
    /// True with a delayed event.
    delayed: bool,
}

impl Kinds {
    pub(super) fn of(batch: &[&NewEvent]) -> Self {
        Self {
            ordered: batch.iter().any(|new| new.event.ordering_key.is_some()),
            delayed: batch.iter().any(|new| new.due_at.is_some()),
        }
    }

    /// Statement of [`Store::persist`](crate::Store::persist), with the tables of events and of deliveries.
    pub(super) fn statement(self, events: &str, deliveries: &str, opening: &Deliveries<'_>) -> String {
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
