//! Resends deliveries by request of a customer: opens finished deliveries again, and queues scheduled deliveries.
//!
//! A resend is one statement, so that no lock is held across a round trip. The statement locks the finished rows in the
//! order of ids and reads the attempt numbers behind the locks. The insert of open rows has ON CONFLICT, which detects
//! an open row committed after the statement's snapshot.

use std::{collections::HashMap, time::Duration};

use fanfare_domain::{
    delivery::{QueueReason, State},
    ids::{ApplicationId, DeliveryId, EndpointId, EventId},
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    Store, StoreError,
    configuration::endpoints::TAKES_DELIVERIES,
    connection::store::{milliseconds, row_count},
    history::delivery_pages::IS_OPEN,
    pipeline::backlogs::with_backlogs,
};

/// Selects the deliveries to resend.
#[derive(Debug, Clone, Default)]
pub struct ResendFilter {
    /// Deliveries with these ids; `None` for all ids.
    pub deliveries: Option<Vec<DeliveryId>>,
    /// True if a search found the ids. Like a request without ids, the request then leaves out tests, and resent
    /// deliveries that are still waiting.
    pub is_found: bool,
    /// Deliveries to this endpoint.
    pub endpoint: Option<EndpointId>,
    /// Deliveries of this event.
    pub event: Option<EventId>,
    /// Deliveries in one of these states.
    pub states: Vec<State>,
    /// Deliveries of events accepted from this moment on.
    pub since: Option<Timestamp>,
    /// Deliveries of events accepted before this moment.
    pub until: Option<Timestamp>,
    /// Deliveries older than this delivery.
    pub before: Option<DeliveryId>,
    /// Deliveries newer than this delivery.
    pub after: Option<DeliveryId>,
    /// Maximum of deliveries, the newest first.
    pub limit: usize,
}

/// A delivery queued again, or to be queued again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ResentDelivery {
    /// Id of the delivery.
    pub delivery: DeliveryId,
    /// Event of the delivery.
    pub event: EventId,
    /// Endpoint of the delivery.
    pub endpoint: EndpointId,
    /// Number of the next attempt.
    pub attempt: u32,
}

impl Store {
    /// Queues deliveries again. A finished delivery begins its schedule anew, a scheduled delivery keeps its place in
    /// the schedule, and a queued delivery stays unchanged. Leaves out deliveries in state `sending`, deliveries of
    /// erased events, deliveries below the line of retention, and deliveries to endpoints that are disabled,
    /// deleted, or read by their feed only.
    ///
    /// From now on each delivery may take its endpoint's lifetime in `lifetimes`, or else `otherwise`.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] the deliveries may have been queued.
    pub async fn resend(
        &self,
        application: ApplicationId,
        filter: &ResendFilter,
        lifetimes: &HashMap<EndpointId, Duration>,
        otherwise: Duration,
    ) -> Result<Vec<ResentDelivery>, StoreError> {
        let Some((least, greatest)) = self.bounds_of_resend(filter).await? else { return Ok(Vec::new()) };
        let ids = filter.deliveries.as_ref().map(|ids| ids.iter().map(|id| id.0).collect::<Vec<Uuid>>());
        let (endpoint, event) = (filter.endpoint.map(|id| id.0), filter.event.map(|id| id.0));
        let endpoints: Vec<Uuid> = lifetimes.keys().map(|id| id.0).collect();
        let own: Vec<i64> = lifetimes.values().map(|lifetime| milliseconds(*lifetime)).collect();
        let otherwise = milliseconds(otherwise);
        let (limit, reason) = (row_count(filter.limit), QueueReason::Resent.as_str());
        let parameters: [&(dyn ToSql + Sync); 11] =
            [&application.0, &least, &greatest, &ids, &endpoint, &event, &limit, &reason, &endpoints, &own, &otherwise];
        // Writer connections plan look-ups by index only: the statement joins a short list with partitioned tables.
        let connection = self.writer().await?;
        let rows = connection.query(&statement(filter), &parameters).await?;
        Ok(rows.iter().map(read).collect())
    }

    /// Finds the deliveries that [`Self::resend`] would queue now. Changes nothing.
    pub async fn resendable(
        &self,
        application: ApplicationId,
        filter: &ResendFilter,
    ) -> Result<Vec<ResentDelivery>, StoreError> {
        let Some((least, greatest)) = self.bounds_of_resend(filter).await? else { return Ok(Vec::new()) };
        let ids = filter.deliveries.as_ref().map(|ids| ids.iter().map(|id| id.0).collect::<Vec<Uuid>>());
        let (endpoint, event) = (filter.endpoint.map(|id| id.0), filter.event.map(|id| id.0));
        let (limit, reason) = (row_count(filter.limit), QueueReason::Resent.as_str());
        let parameters: [&(dyn ToSql + Sync); 8] =
            [&application.0, &least, &greatest, &ids, &endpoint, &event, &limit, &reason];
        let rows = self.writer().await?.query(&count_statement(filter), &parameters).await?;
        Ok(rows.iter().map(read).collect())
    }

    /// Least and greatest id of the deliveries of a filter; `None` if the event does not exist.
    async fn bounds_of_resend(&self, filter: &ResendFilter) -> Result<Option<(Uuid, Uuid)>, StoreError> {
        let mut least = filter.since.map_or(Uuid::nil(), |since| DeliveryId::bounds(since).0.0);
        let mut greatest = filter.until.map_or(Uuid::max(), |until| DeliveryId::bounds(until).0.0);
        if let Some(event) = filter.event {
            let Some(accepted_at) = self.accepted_at(event).await? else { return Ok(None) };
            let (first, last) = DeliveryId::bounds(accepted_at);
            (least, greatest) = (least.max(first.0), greatest.min(last.0));
        }
        if let Some((first, last)) = filter.deliveries.as_ref().and_then(|ids| ids.iter().min().zip(ids.iter().max())) {
            (least, greatest) = (least.max(first.0), greatest.min(last.0));
        }
        if let Some(before) = filter.before {
            greatest = greatest.min(Uuid::from_u128(before.0.as_u128().saturating_sub(1)));
        }
        if let Some(after) = filter.after {
            least = least.max(Uuid::from_u128(after.0.as_u128().saturating_add(1)));
        }
        Ok(Some((least, greatest)))
    }
}

fn read(row: &Row) -> ResentDelivery {
    ResentDelivery {
        delivery: DeliveryId(row.get("id")),
        event: EventId(row.get("event_id")),
        endpoint: EndpointId(row.get("endpoint_id")),
        attempt: row.get::<_, i32>("attempt").cast_unsigned(),
    }
}

/// Statement that only finds the deliveries of a resend. Parameters: the first eight of a resend.
fn count_statement(filter: &ResendFilter) -> String {
    format!(
        "WITH found AS MATERIALIZED ({})
SELECT found.id, coalesce(o.event_id, d.event_id) AS event_id, coalesce(o.endpoint_id, d.endpoint_id) AS endpoint_id,
       coalesce(o.attempt, d.attempt + 1) AS attempt
FROM found
LEFT JOIN open_deliveries o ON o.id = found.id
LEFT JOIN deliveries d ON d.application_id = $1 AND d.id = found.id
WHERE ($4::uuid[] IS NULL OR $5::uuid IS NULL OR $6::uuid IS NULL OR $8::text IS NULL OR true)
ORDER BY id DESC",
        found(filter)
    )
}

/// Ids of the deliveries to queue, newest first.
fn found(filter: &ResendFilter) -> String {
    format!(
        "SELECT id FROM (({}) UNION ({})) AS both_tables ORDER BY id DESC LIMIT $7",
        finished_rows(filter),
        open_rows(filter)
    )
}

/// Statement of a resend. Parameters: application, least id, greatest id, ids, endpoint, event, limit, reason,
/// endpoints with their lifetimes, lifetime of other endpoints.
fn statement(filter: &ResendFilter) -> String {
    let with_backlogs = with_backlogs("NULL");
    format!(
        "WITH lifetimes AS MATERIALIZED (
    SELECT p.id AS endpoint_id, now() + coalesce(l.milliseconds, $11::bigint) * interval '1 millisecond' AS expires_at,
           p.had_template
    FROM endpoints p LEFT JOIN unnest($9::uuid[], $10::bigint[]) AS l(endpoint_id, milliseconds) ON l.endpoint_id = p.id
    -- Names each parameter with its type: the conditions below may lack some parameters.
    WHERE p.application_id = $1 AND ($4::uuid[] IS NULL OR $5::uuid IS NULL OR $6::uuid IS NULL OR true)
), found AS MATERIALIZED (
    {}
), chosen AS MATERIALIZED (
    SELECT d.id, d.event_id, d.endpoint_id, d.attempt
    FROM found
    JOIN deliveries d ON d.application_id = $1 AND d.id = found.id
    JOIN events e ON e.application_id = $1 AND e.accepted_at = delivery_accepted_at(d.id) AND e.id = d.event_id
    WHERE {} AND e.erased_at IS NULL AND NOT {IS_OPEN} ORDER BY d.id FOR UPDATE OF d FOR KEY SHARE OF e
), opened AS (
    INSERT INTO open_deliveries AS o (id, event_id, application_id, endpoint_id, state, reason, listed, finished_once,
                                      attempt, expires_at, shaped)
    SELECT c.id, c.event_id, $1, c.endpoint_id, 'queued', $8, true, true, c.attempt + 1, l.expires_at,
           l.had_template AND EXISTS (SELECT FROM delivery_bodies b WHERE b.id = c.id)
    FROM chosen c JOIN lifetimes l ON l.endpoint_id = c.endpoint_id ORDER BY c.id
    ON CONFLICT (id) DO NOTHING
    RETURNING o.id, o.event_id, o.application_id, o.endpoint_id, o.attempt, o.reason
), due AS MATERIALIZED (
    SELECT o.id FROM found JOIN open_deliveries o ON o.id = found.id
    WHERE o.state = 'scheduled' ORDER BY o.id FOR UPDATE OF o SKIP LOCKED
), moved AS (
    UPDATE open_deliveries o
    SET state = 'queued', reason = $8, class = 0, listed = true, since = now(), due_at = NULL,
        expires_at = greatest(o.expires_at, l.expires_at)
    FROM due, lifetimes l WHERE o.id = due.id AND l.endpoint_id = o.endpoint_id
    RETURNING o.id, o.event_id, o.application_id, o.endpoint_id, o.attempt, o.reason
), queued AS (
    SELECT * FROM opened UNION ALL SELECT * FROM moved
), {with_backlogs}
SELECT id, event_id, endpoint_id, attempt FROM queued
UNION ALL
SELECT o.id, o.event_id, o.endpoint_id, o.attempt FROM found JOIN open_deliveries o ON o.id = found.id
WHERE o.state = 'queued'
ORDER BY id DESC",
        found(filter),
        finished_states(filter)
    )
}

/// Rows named by the filter, by ids or by bounds of ids. PostgreSQL plans without the parameters' values, so that the
/// text holds only applicable conditions. `table` is the alias of `deliveries` or `open_deliveries`.
fn source(filter: &ResendFilter, name: &str, table: &str) -> String {
    match filter.deliveries {
        // OFFSET keeps the look-up by primary key: the planner would rather walk the rows between the ids.
        Some(_) => format!(
            "unnest($4::uuid[]) AS named(id)
             CROSS JOIN LATERAL (SELECT * FROM {name} x WHERE x.application_id = $1 AND x.id = named.id OFFSET 0) {table}"
        ),
        None => format!("{name} {table}"),
    }
}

/// Conditions on every row.
fn conditions(filter: &ResendFilter, table: &str) -> String {
    let id = format!("{table}.id");
    let endpoint = filter.endpoint.map(|_| format!("AND {table}.endpoint_id = $5")).unwrap_or_default();
    let of_event = filter.event.map(|_| format!("AND {table}.event_id = $6")).unwrap_or_default();
    // A request without ids means neither tests nor resent deliveries that are still waiting.
    let is_named = filter.deliveries.is_some() && !filter.is_found;
    let event = if is_named { "e.erased_at IS NULL" } else { "e.erased_at IS NULL AND NOT e.is_test" };
    let again = if is_named || table == "d" { "" } else { "AND o.reason IS DISTINCT FROM $8" };
    format!(
        "{table}.application_id = $1 AND {id} BETWEEN $2 AND $3 {endpoint} {of_event} {again}
         AND delivery_accepted_at({id}) >= (SELECT line FROM retention)
         AND EXISTS (SELECT FROM endpoints p WHERE p.id = {table}.endpoint_id AND p.application_id = $1
                       AND {TAKES_DELIVERIES})
         AND coalesce((SELECT {event} FROM events e
                       WHERE e.application_id = $1 AND e.accepted_at = delivery_accepted_at({id})
                         AND e.id = {table}.event_id), false)"
    )
}

fn finished_rows(filter: &ResendFilter) -> String {
    format!(
        "SELECT d.id FROM {} WHERE {} AND NOT {IS_OPEN} AND {} ORDER BY d.id DESC LIMIT $7",
        source(filter, "deliveries", "d"),
        finished_states(filter),
        conditions(filter, "d")
    )
}

/// Condition on the state of a finished row.
fn finished_states(filter: &ResendFilter) -> String {
    let states: Vec<State> = filter.states.iter().copied().filter(|state| state.is_finished()).collect();
    let words: Vec<String> = states.iter().map(|state| format!("'{}'", state.as_str())).collect();
    match words.as_slice() {
        [] => "false".to_owned(),
        // An index by state is in the order of ids for a single state only.
        [word] => {
            let partial = if *word == "'delivered'" { "" } else { "d.state <> 'delivered' AND " };
            format!("{partial}d.state = {word}")
        }
        words => format!("d.state IN ({})", words.join(", ")),
    }
}

fn open_rows(filter: &ResendFilter) -> String {
    let paused = format!(
        "EXISTS (SELECT FROM endpoints p WHERE p.id = o.endpoint_id AND p.status = 'paused'
                                           AND p.application_id = $1 AND {TAKES_DELIVERIES})"
    );
    let state = |state: &State| match state {
        State::Scheduled => Some("o.state = 'scheduled'".to_owned()),
        State::Queued => Some(format!("o.state = 'queued' AND NOT {paused}")),
        State::Held => Some(format!("o.state = 'queued' AND {paused}")),
        _ => None,
    };
    let states: Vec<String> = filter.states.iter().filter_map(state).collect();
    let states = if states.is_empty() { "false".to_owned() } else { format!("({})", states.join(" OR ")) };
    // Named deliveries are found by their ids, listed or not.
    let listed = if filter.deliveries.is_some() { "" } else { "AND o.listed" };
    format!(
        "SELECT o.id FROM {} WHERE {states} {listed} AND {} ORDER BY o.id DESC LIMIT $7",
        source(filter, "open_deliveries", "o"),
        conditions(filter, "o")
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_statement_looks_only_where_its_states_are() {
        let of = |states: &[State]| statement(&ResendFilter { states: states.to_vec(), ..ResendFilter::default() });
        let failed = of(&[State::Failed]);
        assert!(failed.contains("d.state <> 'delivered' AND d.state = 'failed'"), "{failed}");
        assert!(failed.contains("FROM open_deliveries o WHERE false "), "{failed}");
        assert!(of(&[State::Scheduled]).contains("FROM deliveries d WHERE false"));
    }
}
