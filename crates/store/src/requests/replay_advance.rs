//! Steps of a replay: a job finds the next events, and queues the selected deliveries.

use std::{collections::HashSet, time::Duration};

use fanfare_domain::{
    application::Application,
    delivery::{QueueReason, replay::Selection},
    endpoint::filter::FilteredEvent,
    event::EventType,
    ids::{DeliveryId, EndpointId, EventId, ProcessId, ReplayId},
    time::saturating_add,
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    Keyring, NewReplay, Store, StoreError,
    connection::store::row_count,
    history::delivery_pages::IS_OPEN,
    pipeline::{
        access_tokens::LACKS_TOKEN,
        backlogs::{TouchedBacklog, touched, with_backlogs},
        bodies::open_body,
        columns::Columns,
    },
};

/// A past event within a replay.
#[derive(Debug, Clone)]
pub struct PastEvent {
    /// Id of the event.
    pub id: EventId,
    /// Acceptance of the event.
    pub accepted_at: Timestamp,
    /// Type of the event.
    pub event_type: EventType,
    /// Complete body, if asked for.
    pub body: Option<String>,
}

/// A delivery to replay, if its state is among the replay's states.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Event of the delivery.
    pub event: EventId,
    /// Acceptance of the event.
    pub accepted_at: Timestamp,
    /// Endpoint of the delivery.
    pub endpoint: EndpointId,
    /// Time at which the delivery, queued now, fails as expired.
    pub expires_at: Timestamp,
}

/// A step of a replay.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// Last event of the previous step, if any. The step happens only if the cursor is still at this event.
    pub from: Option<(Timestamp, EventId)>,
    /// Last event of this step, if any.
    pub reached: Option<(Timestamp, EventId)>,
    /// Number of events in this step.
    pub events: usize,
    /// True if no events follow.
    pub is_last: bool,
}

/// Result of a step.
#[derive(Debug, Clone)]
pub struct Advanced {
    /// Number of queued deliveries.
    pub queued: usize,
    /// Backlogs of the queued deliveries.
    pub backlogs: Vec<TouchedBacklog>,
}

/// Maximum of deliveries in one statement.
const AT_ONCE: usize = 5000;

/// Finds deliveries in one of the states $2 and without an open row.
const STILL_WANTED: &str = "
SELECT w.event_id, w.endpoint_id FROM {WANTED}
LEFT JOIN deliveries d ON d.application_id = $1 AND d.id = w.id
WHERE coalesce(d.state, 'unmatched') = ANY ($2)
  AND coalesce((SELECT true FROM open_deliveries o WHERE o.id = w.id), false) = false";

impl Wanted {
    /// Lists the deliveries of `events` to replay, in the order of the events. Queued now, each has its endpoint's
    /// lifetime, with `expiry` for waits not caused by the endpoint. Filters need the bodies of the events, and may
    /// take milliseconds for each endpoint and event.
    pub fn of(
        selection: &Selection,
        application: &Application,
        events: &[PastEvent],
        now: Timestamp,
        expiry: Duration,
    ) -> Vec<Self> {
        events.iter().flat_map(|event| Self::of_event(selection, application, event, now, expiry).0).collect()
    }

    /// Like [`Self::of`], of a single event. Returns the steps of the filters, too.
    pub fn of_event(
        selection: &Selection,
        application: &Application,
        event: &PastEvent,
        now: Timestamp,
        expiry: Duration,
    ) -> (Vec<Self>, u64) {
        let body = event.body.as_deref().unwrap_or_default();
        let mut filtered = FilteredEvent::new(&application.dialect, &event.event_type, body);
        let endpoints = selection.endpoints(application, &mut filtered).into_iter();
        let wanted = endpoints.map(|endpoint| {
            let expires_at = saturating_add(now, endpoint.policy.lifetime(expiry));
            Self { event: event.id, accepted_at: event.accepted_at, endpoint: endpoint.id, expires_at }
        });
        (wanted.collect(), filtered.steps())
    }

    fn id(&self) -> DeliveryId {
        DeliveryId::derive(self.accepted_at, self.event, self.endpoint)
    }
}

impl Store {
    /// Lists the next events of a replay, in the order of acceptance. Leaves out test events, erased events, events
    /// with an unfinished fan-out, and delayed events that are not yet due or were cancelled. Reads the bodies only
    /// `with_bodies`.
    ///
    /// # Errors
    /// If a body is encrypted by a key that this process lacks.
    pub async fn past_events(
        &self,
        of: &NewReplay,
        reached: Option<(Timestamp, EventId)>,
        limit: usize,
        with_bodies: bool,
    ) -> Result<Vec<PastEvent>, StoreError> {
        let place = match reached {
            Some(_) => "accepted_at >= $5 AND (accepted_at, id) > ($5, $6)",
            None => "$5::timestamptz IS NULL AND $6::uuid IS NULL",
        };
        let bodies = if with_bodies { ", body, body_key_name, body_ciphertext" } else { "" };
        let statement = format!(
            "SELECT id, accepted_at, type{bodies} FROM events e
             WHERE application_id = $1 AND accepted_at >= greatest($2, (SELECT line FROM retention)) AND accepted_at < $3
               AND {place} AND NOT is_test AND erased_at IS NULL AND cancelled_at IS NULL
               AND (SELECT f.event_id FROM fan_outs f WHERE f.event_id = e.id) IS NULL
               AND (deliver_at IS NULL OR (SELECT d.event_id FROM delayed_events d WHERE d.event_id = e.id) IS NULL)
             ORDER BY accepted_at, id LIMIT $4"
        );
        let (moment, event) = reached.map(|(moment, event)| (moment, event.0)).unzip();
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&of.application.0, &of.since, &of.until, &row_count(limit), &moment, &event];
        let rows = self.connection().await?.query(&statement, &parameters).await?;
        rows.iter().map(|row| past_event(row, with_bodies.then_some(&self.keyring))).collect()
    }

    /// Filters deliveries by the replay's states. Returns event and endpoint of each remaining delivery. An open
    /// delivery is in none of these states.
    pub async fn still_wanted(
        &self,
        of: &NewReplay,
        wanted: &[Wanted],
    ) -> Result<HashSet<(EventId, EndpointId)>, StoreError> {
        let states = of.states();
        let connection = self.writer().await?;
        let mut found = HashSet::new();
        for part in wanted.chunks(AT_ONCE) {
            let columns = columns(part, 3);
            let statement = STILL_WANTED.replace("{WANTED}", &columns.table("w"));
            let statement = connection.prepare_cached(&statement).await?;
            let first: [&(dyn ToSql + Sync); 2] = [&of.application.0, &states];
            let parameters: Vec<_> = first.into_iter().chain(columns.values()).collect();
            let rows = connection.query(&statement, &parameters).await?;
            found.extend(rows.iter().map(|row| (EventId(row.get(0)), EndpointId(row.get(1)))));
        }
        Ok(found)
    }

    /// Counts the queued deliveries of a replay, up to `most`.
    pub async fn queued_of_replay(&self, id: ReplayId, most: usize) -> Result<usize, StoreError> {
        // Endpoints that are paused, dead, resting or without a token do not count: the replay to others continues. No
        // joins: with a hash join the planner would read all endpoints before the first row.
        let statement = format!(
            "SELECT count(*) FROM (
                 SELECT FROM open_deliveries o WHERE replay_id = $1 AND state = 'queued'
                   AND NOT coalesce((SELECT b.owner IS NULL AND b.reason = 'paused' OR b.next_probe IS NOT NULL
                                            OR b.rests_until > now()
                                     FROM endpoint_backlogs b WHERE b.endpoint_id = o.endpoint_id), false)
                   AND NOT coalesce((SELECT {LACKS_TOKEN} FROM endpoints p WHERE p.id = o.endpoint_id), false)
                 LIMIT $2) queued"
        );
        let row = self.connection().await?.query_one(&statement, &[&id.0, &row_count(most)]).await?;
        Ok(usize::try_from(row.get::<_, i64>(0)).unwrap_or_default())
    }

    /// Takes a step in one commit: queues deliveries, behind all others of their endpoints, and moves the cursor. New
    /// backlogs get the owner `process`. `None` if the replay does not run any more, or another process has taken this
    /// step.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] the step may have been taken; the replay's cursor shows the outcome.
    pub async fn advance_replay(
        &self,
        of: &NewReplay,
        step: Step,
        wanted: &[Wanted],
        process: Option<ProcessId>,
    ) -> Result<Option<Advanced>, StoreError> {
        let mut sorted = wanted.to_vec();
        sorted.sort_unstable_by_key(|delivery| delivery.id().0);
        let columns =
            columns(&sorted, FIRST_COLUMN).column("expires_at", "timestamptz", |delivery| delivery.expires_at);
        let statement = advance_statement(&columns);
        let (moment, event) = step.reached.map(|(moment, event)| (moment, event.0)).unzip();
        let (from_moment, from_event) = step.from.map(|(moment, event)| (moment, event.0)).unzip();
        let (process, reason) = (process.map(|id| id.0), QueueReason::Replayed.as_str());
        let (events, states) = (row_count(step.events), of.states());
        let first: [&(dyn ToSql + Sync); FIRST_COLUMN - 1] =
            [&of.id.0, &from_moment, &from_event, &moment, &event, &events, &step.is_last, &states, &reason, &process];
        let parameters: Vec<_> = first.into_iter().chain(columns.values()).collect();
        let connection = self.writer().await?;
        let statement = connection.prepare_cached(&statement).await?;
        let rows = connection.query(&statement, &parameters).await?;
        let Some(row) = rows.first() else { return Ok(None) };
        let queued = usize::try_from(row.get::<_, i64>("queued")).unwrap_or_default();
        let has_backlog = |row: &&Row| row.get::<_, Option<Uuid>>("endpoint_id").is_some();
        Ok(Some(Advanced { queued, backlogs: rows.iter().filter(has_backlog).map(touched).collect() }))
    }
}

/// First parameter behind the parameters of the step.
const FIRST_COLUMN: usize = 11;

/// Statement of a step. Parameters: replay, cursor before (two), cursor behind (two), events, is-last, states, reason,
/// process, deliveries.
///
/// Locks the finished rows, and the events of deliveries that never existed. The insert of open rows has ON CONFLICT,
/// which detects an open row committed after the statement's snapshot.
fn advance_statement<T>(columns: &Columns<'_, T>) -> String {
    let (wanted, with_backlogs) = (columns.table("i"), with_backlogs("$10"));
    format!(
        "WITH replay AS MATERIALIZED (
    SELECT id, application_id FROM replays
    WHERE id = $1 AND state = 'running' AND reached_at IS NOT DISTINCT FROM $2::timestamptz
      AND reached_event IS NOT DISTINCT FROM $3::uuid
    FOR UPDATE
), wanted AS MATERIALIZED (
    SELECT i.*, r.application_id FROM replay r CROSS JOIN {wanted}
    WHERE i.accepted_at >= (SELECT line FROM retention)
      AND coalesce((SELECT true FROM open_deliveries o WHERE o.id = i.id), false) = false
), again AS MATERIALIZED (
    SELECT w.*, d.attempt FROM wanted w
    JOIN deliveries d ON d.application_id = w.application_id AND d.id = w.id
    JOIN events e ON e.application_id = w.application_id AND e.accepted_at = w.accepted_at AND e.id = w.event_id
    WHERE d.state || '' = ANY ($8) AND e.erased_at IS NULL AND NOT {IS_OPEN}
    ORDER BY d.id FOR UPDATE OF d FOR KEY SHARE OF e
), never AS MATERIALIZED (
    SELECT w.* FROM wanted w
    JOIN events e ON e.application_id = w.application_id AND e.accepted_at = w.accepted_at AND e.id = w.event_id
    WHERE 'unmatched' = ANY ($8) AND e.erased_at IS NULL
      AND (SELECT d.id FROM deliveries d WHERE d.application_id = w.application_id AND d.id = w.id) IS NULL
      AND (SELECT f.event_id FROM fan_outs f WHERE f.event_id = w.event_id) IS NULL
    ORDER BY w.id FOR KEY SHARE OF e
), queued AS (
    INSERT INTO open_deliveries AS o (id, event_id, application_id, endpoint_id, state, reason, class, listed,
                                      finished_once, attempt, expires_at, replay_id, shaped)
    SELECT id, event_id, application_id, endpoint_id, 'queued', $9, 1, true, finished_once, attempt, expires_at, $1,
           coalesce((SELECT CASE WHEN NOT p.had_template THEN false
                                 WHEN finished_once THEN EXISTS (SELECT FROM delivery_bodies b WHERE b.id = rows.id)
                                 ELSE p.template IS NOT NULL END
                     FROM endpoints p WHERE p.id = rows.endpoint_id), false)
    FROM (SELECT id, event_id, application_id, endpoint_id, true AS finished_once, attempt + 1 AS attempt, expires_at
          FROM again
          UNION ALL
          SELECT id, event_id, application_id, endpoint_id, false, 1, expires_at FROM never) rows
    ORDER BY id
    ON CONFLICT (id) DO NOTHING
    RETURNING o.id, o.endpoint_id, o.application_id, o.reason, o.shaped
), listed AS (
    INSERT INTO feed_entries (endpoint_id, id, application_id, event_id)
    SELECT n.endpoint_id, n.id, n.application_id, n.event_id FROM never n JOIN endpoints p ON p.id = n.endpoint_id
    -- Otherwise the entry comes with the body.
    WHERE p.feed <> 'none' AND n.id IN (SELECT id FROM queued WHERE NOT shaped)
), {with_backlogs}, noted AS (
    UPDATE replays r
    SET reached_at = coalesce($4, r.reached_at), reached_event = coalesce($5, r.reached_event), events = r.events + $6,
        deliveries = r.deliveries + (SELECT count(*) FROM queued), state = CASE WHEN $7 THEN 'done' ELSE r.state END,
        finished_at = CASE WHEN $7 THEN now() END
    FROM replay WHERE r.id = replay.id
    RETURNING r.id
)
SELECT (SELECT count(*) FROM queued) AS queued, t.endpoint_id, t.application_id, t.owner
FROM noted LEFT JOIN touched t ON true"
    )
}

fn columns(wanted: &[Wanted], first: usize) -> Columns<'_, Wanted> {
    Columns::new(wanted, first)
        .column("id", "uuid", |delivery| delivery.id().0)
        .column("accepted_at", "timestamptz", |delivery| delivery.accepted_at)
        .column("event_id", "uuid", |delivery| delivery.event.0)
        .column("endpoint_id", "uuid", |delivery| delivery.endpoint.0)
}

/// Reads an event, with its body if a keyring is given.
fn past_event(row: &Row, keyring: Option<&Keyring>) -> Result<PastEvent, StoreError> {
    let (id, text): (_, &str) = (EventId(row.get("id")), row.get("type"));
    let event_type = EventType::parse(text)
        .map_err(|fault| StoreError::corrupt("events", format!("type {text:?}, which {}", fault.message)))?;
    let body = keyring.map(|keyring| open_body(keyring, id, row)).transpose()?;
    Ok(PastEvent { id, accepted_at: row.get("accepted_at"), event_type, body })
}
