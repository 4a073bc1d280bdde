//! Replays: what somebody wants sent again, how far that is, and the deliveries that it makes due.

use std::collections::HashSet;

use fanfare_domain::{
    application::Application,
    delivery::DeferralReason,
    event::EventType,
    ids::{ApplicationId, DeliveryId, EndpointId, EventId, ReplayId},
    replay::{ReplayState, Replayed, Selection},
    subscription::Subscription,
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    rescue::{UNFINISHED, Unfinished},
    store::row_count,
};

/// What is to be sent again.
#[derive(Debug, Clone)]
pub struct NewReplay {
    /// Its id.
    pub id: ReplayId,
    /// Its application.
    pub application: ApplicationId,
    /// The endpoint; none for all.
    pub endpoint: Option<EndpointId>,
    /// Types and wildcards; none for all.
    pub event_types: Vec<String>,
    /// Which deliveries.
    pub states: Vec<Replayed>,
    /// Of events accepted from this moment on.
    pub since: Timestamp,
    /// Of events accepted before this moment.
    pub until: Timestamp,
    /// Deliveries in a second.
    pub rate_per_second: u32,
}

/// A replay, and how far it is.
#[derive(Debug, Clone)]
pub struct Replay {
    /// What is to be sent again.
    pub of: NewReplay,
    /// Where it stands.
    pub state: ReplayState,
    /// The event that it has gone through last, and when that was accepted.
    pub reached: Option<(Timestamp, EventId)>,
    /// Events that it has gone through.
    pub events: i64,
    /// Deliveries that it has made due.
    pub deliveries: i64,
    /// When it was made.
    pub created_at: Timestamp,
    /// When it was done or cancelled.
    pub finished_at: Option<Timestamp>,
}

/// An event that a replay goes through.
#[derive(Debug, Clone)]
pub struct PastEvent {
    /// Its id.
    pub id: EventId,
    /// When it was accepted.
    pub accepted_at: Timestamp,
    /// What happened.
    pub event_type: EventType,
}

/// A delivery that a replay would send, if it is in one of the states that are meant.
#[derive(Debug, Clone, Copy)]
pub struct Wanted {
    /// Its event.
    pub event: EventId,
    /// When that was accepted.
    pub accepted_at: Timestamp,
    /// Its endpoint.
    pub endpoint: EndpointId,
}

/// What a replay has gone through in one step.
#[derive(Debug, Clone, Copy)]
pub struct Step {
    /// The last event of the step before, if there was any: a step happens only where the replay is there still.
    pub from: Option<(Timestamp, EventId)>,
    /// The last event, if there was any.
    pub reached: Option<(Timestamp, EventId)>,
    /// How many.
    pub events: usize,
    /// Whether there are no more.
    pub is_last: bool,
}

// Before the rows are changed, in a statement of its own: one that waits for a lock goes on with the newest row, and with
// the attempts as they were before it waited, and would give the number of one that was made meanwhile to another.
const LOCK: &str = "SELECT FROM deliveries d
                    JOIN unnest($1::uuid[], $2::timestamptz[]) AS w(id, accepted_at)
                      ON d.id = w.id AND d.accepted_at = w.accepted_at
                    ORDER BY d.id FOR UPDATE OF d";

/// Deliveries that are looked for in one statement.
const AT_ONCE: usize = 5000;

const COLUMNS: &str = "id, application_id, endpoint_id, event_types, states, since, until, rate_per_second, state, \
                       reached_at, reached_event, events, deliveries, created_at, finished_at";

const WANTED: &str = "unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::uuid[])
                      AS w(id, accepted_at, event_id, endpoint_id)";

impl Wanted {
    /// The deliveries of these events that a replay would send, in the events' order.
    pub fn of(selection: &Selection, application: &Application, events: &[PastEvent]) -> Vec<Self> {
        let of_event = |event: &PastEvent| {
            let (id, accepted_at) = (event.id, event.accepted_at);
            let endpoints = selection.endpoints(application, &event.event_type).into_iter();
            endpoints.map(move |endpoint| Self { event: id, accepted_at, endpoint: endpoint.id })
        };
        events.iter().flat_map(of_event).collect()
    }
}

impl NewReplay {
    /// Which events go to which endpoints.
    ///
    /// # Errors
    /// When one of its types cannot be read.
    pub fn selection(&self) -> Result<Selection, StoreError> {
        let types = self.event_types.iter().map(|text| {
            Subscription::parse(text)
                .map_err(|fault| StoreError::corrupt("replays", format!("type {text:?}, which {}", fault.message)))
        });
        Ok(Selection { endpoint: self.endpoint, types: types.collect::<Result<_, _>>()? })
    }

    fn states(&self) -> Vec<&'static str> {
        self.states.iter().map(|one| one.as_str()).collect()
    }
}

impl Store {
    /// Writes a replay down, which is thereby begun; none where `most` of the application's run or are paused already.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn create_replay(&self, new: &NewReplay, most: i64) -> Result<Option<Replay>, StoreError> {
        let statement = format!(
            "INSERT INTO replays (id, application_id, endpoint_id, event_types, states, since, until, rate_per_second)
             SELECT $1, $2, $3, $4, $5, $6, $7, $8
             WHERE (SELECT count(*) FROM replays WHERE application_id = $2 AND state IN ('running', 'paused')) < $9
             RETURNING {COLUMNS}"
        );
        let endpoint = new.endpoint.map(|id| id.0);
        let rate = new.rate_per_second.cast_signed();
        let (types, states) = (&new.event_types, new.states());
        let row = self
            .connection()
            .await?
            .query_opt(
                &statement,
                &[&new.id.0, &new.application.0, &endpoint, types, &states, &new.since, &new.until, &rate, &most],
            )
            .await?;
        row.as_ref().map(read).transpose()
    }

    /// A replay of an application.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn replay(&self, application: ApplicationId, id: ReplayId) -> Result<Option<Replay>, StoreError> {
        let statement = format!("SELECT {COLUMNS} FROM replays WHERE id = $1 AND application_id = $2");
        let row = self.connection().await?.query_opt(&statement, &[&id.0, &application.0]).await?;
        row.as_ref().map(read).transpose()
    }

    /// A page of an application's replays, newest first.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn replays(
        &self,
        application: ApplicationId,
        before: Option<ReplayId>,
        limit: usize,
    ) -> Result<Vec<Replay>, StoreError> {
        let statement = format!(
            "SELECT {COLUMNS} FROM replays WHERE application_id = $1 AND ($2::uuid IS NULL OR id < $2)
             ORDER BY id DESC LIMIT $3"
        );
        let before = before.map(|id| id.0);
        let rows = self.connection().await?.query(&statement, &[&application.0, &before, &row_count(limit)]).await?;
        rows.iter().map(read).collect()
    }

    /// Those of all applications that run.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn running_replays(&self) -> Result<Vec<Replay>, StoreError> {
        let statement = format!("SELECT {COLUMNS} FROM replays WHERE state = 'running' ORDER BY id");
        let rows = self.connection().await?.query(&statement, &[]).await?;
        rows.iter().map(read).collect()
    }

    /// Lets a replay go on, wait, or end; none where it has ended before, or there is none.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn turn_replay(
        &self,
        application: ApplicationId,
        id: ReplayId,
        to: ReplayState,
    ) -> Result<Option<Replay>, StoreError> {
        let statement = format!(
            "UPDATE replays SET state = $3, finished_at = CASE WHEN $3 = 'cancelled' THEN now() END
             WHERE id = $1 AND application_id = $2 AND state IN ('running', 'paused')
             RETURNING {COLUMNS}"
        );
        let row = self.connection().await?.query_opt(&statement, &[&id.0, &application.0, &to.as_str()]).await?;
        row.as_ref().map(read).transpose()
    }

    /// The next events that a replay goes through, in the order of their acceptance. Tests are none of them.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn past_events(
        &self,
        of: &NewReplay,
        reached: Option<(Timestamp, EventId)>,
        limit: usize,
    ) -> Result<Vec<PastEvent>, StoreError> {
        let statement = "SELECT id, accepted_at, type FROM events
                         WHERE application_id = $1 AND accepted_at >= $2 AND accepted_at < $3
                           AND ($4::timestamptz IS NULL OR accepted_at >= $4 AND (accepted_at, id) > ($4, $5::uuid))
                           AND NOT is_test AND fanned_out AND erased_at IS NULL
                         ORDER BY accepted_at, id LIMIT $6";
        let (moment, event) = reached.map(|(moment, event)| (moment, event.0)).unzip();
        let rows = self
            .connection()
            .await?
            .query(statement, &[&of.application.0, &of.since, &of.until, &moment, &event, &row_count(limit)])
            .await?;
        rows.iter().map(past_event).collect()
    }

    /// Those of these deliveries that are in one of the states that a replay means, by event and endpoint.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn still_wanted(
        &self,
        of: &NewReplay,
        wanted: &[Wanted],
    ) -> Result<HashSet<(EventId, EndpointId)>, StoreError> {
        let statement = format!(
            "SELECT w.event_id, w.endpoint_id
             FROM {WANTED} LEFT JOIN deliveries d ON d.id = w.id AND d.accepted_at = w.accepted_at
             WHERE coalesce(d.state, 'unmatched') = ANY($5)"
        );
        let connection = self.writer().await?;
        let statement = connection.prepare_cached(&statement).await?;
        let mut found = HashSet::new();
        for part in wanted.chunks(AT_ONCE) {
            let (ids, accepted, events, endpoints) = arrays(part);
            let rows = connection.query(&statement, &[&ids, &accepted, &events, &endpoints, &of.states()]).await?;
            found.extend(rows.iter().map(|row| (EventId(row.get(0)), EndpointId(row.get(1)))));
        }
        Ok(found)
    }

    /// How many deliveries of a replay have been neither tried nor put off yet, counted up to `most`. What an endpoint
    /// does not take holds up nobody else.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn unfinished_of_replay(&self, id: ReplayId, most: usize) -> Result<usize, StoreError> {
        let statement = "SELECT count(*) FROM (SELECT FROM deliveries
                         WHERE replay_id = $1 AND state IN ('sending', 'waiting') AND failures = 0 AND deferrals = 0
                         LIMIT $2) unfinished";
        let row = self.connection().await?.query_one(statement, &[&id.0, &row_count(most)]).await?;
        Ok(usize::try_from(row.get::<_, i64>(0)).unwrap_or_default())
    }

    /// Makes deliveries due that a replay wants, those that there are not yet among them, and notes how far it has come:
    /// in one commit. None where it does not run any more, or somebody else has taken this step.
    ///
    /// # Errors
    /// When the database is away; a commit may then have happened, and the claims are left to the reconciler.
    pub async fn advance_replay(
        &self,
        of: &NewReplay,
        step: Step,
        wanted: &[Wanted],
    ) -> Result<Option<Vec<Unfinished>>, StoreError> {
        let statement = format!(
            "WITH replay AS MATERIALIZED (
                 SELECT * FROM replays
                 WHERE id = $5 AND state = 'running' AND reached_at IS NOT DISTINCT FROM $11::timestamptz
                   AND reached_event IS NOT DISTINCT FROM $12::uuid
                 FOR UPDATE
             ), wanted AS MATERIALIZED (
                 SELECT w.*, r.states, r.application_id FROM replay r, {WANTED}
                 JOIN events e ON e.id = w.event_id AND e.accepted_at = w.accepted_at AND e.erased_at IS NULL
             ), chosen AS MATERIALIZED (
                 SELECT d.id, d.accepted_at FROM wanted w
                 JOIN deliveries d ON d.id = w.id AND d.accepted_at = w.accepted_at
                 WHERE d.state || '' = ANY(w.states) ORDER BY d.id FOR UPDATE OF d
             ), resent AS (
                 UPDATE deliveries d
                 SET state = 'waiting', reason = $6, due_at = now(), sequence = d.sequence + 1,
                     attempt = d.attempt + EXISTS (SELECT FROM attempts a WHERE a.delivery_id = d.id
                                                   AND a.accepted_at = d.accepted_at AND a.attempt = d.attempt)::int,
                     failures = 0, unknowns = 0, deferrals = 0, taken_by = NULL, taken_at = NULL, finished_at = NULL,
                     expires_at = NULL, replay_id = $5
                 FROM chosen WHERE d.id = chosen.id AND d.accepted_at = chosen.accepted_at
                 RETURNING {UNFINISHED}
             ), planted AS (
                 INSERT INTO deliveries AS d (id, accepted_at, event_id, application_id, endpoint_id, state, reason,
                                              attempt, sequence, due_at, replay_id)
                 SELECT id, accepted_at, event_id, application_id, endpoint_id, 'waiting', $6, 1, 1, now(), $5
                 FROM wanted WHERE 'unmatched' = ANY(states) ORDER BY id
                 ON CONFLICT DO NOTHING
                 RETURNING {UNFINISHED}
             ), due AS (
                 SELECT * FROM resent UNION ALL SELECT * FROM planted
             ), noted AS (
                 UPDATE replays r
                 SET reached_at = coalesce($7, r.reached_at), reached_event = coalesce($8, r.reached_event),
                     events = r.events + $9, deliveries = r.deliveries + (SELECT count(*) FROM due),
                     state = CASE WHEN $10 THEN 'done' ELSE r.state END, finished_at = CASE WHEN $10 THEN now() END
                 FROM replay WHERE r.id = replay.id
                 RETURNING r.id
             )
             SELECT due.* FROM noted LEFT JOIN due ON true"
        );
        let (ids, accepted, events, endpoints) = arrays(wanted);
        let (moment, event) = step.reached.map(|(moment, event)| (moment, event.0)).unzip();
        let (from_moment, from_event) = step.from.map(|(moment, event)| (moment, event.0)).unzip();
        let (reason, count) = (DeferralReason::Replayed.as_str(), row_count(step.events));
        let mut connection = self.writer().await?;
        let transaction = connection.transaction().await?;
        let lock = transaction.prepare_cached(LOCK).await?;
        transaction.execute(&lock, &[&ids, &accepted]).await?;
        let prepared = transaction.prepare_cached(&statement).await?;
        let rows = transaction
            .query(
                &prepared,
                &[
                    &ids,
                    &accepted,
                    &events,
                    &endpoints,
                    &of.id.0,
                    &reason,
                    &moment,
                    &event,
                    &count,
                    &step.is_last,
                    &from_moment,
                    &from_event,
                ],
            )
            .await?;
        transaction.commit().await?;
        if rows.is_empty() {
            return Ok(None);
        }
        let due: Vec<Row> = rows.into_iter().filter(|row| row.get::<_, Option<Uuid>>("id").is_some()).collect();
        self.with_traces(&connection, &due).await.map(Some)
    }
}

/// By delivery, so that the rows are locked in the order in which all others lock them.
#[allow(clippy::type_complexity)] // four columns of one list
fn arrays(wanted: &[Wanted]) -> (Vec<Uuid>, Vec<Timestamp>, Vec<Uuid>, Vec<Uuid>) {
    let id = |one: &Wanted| DeliveryId::derive(one.accepted_at, one.event, one.endpoint).0;
    let mut sorted: Vec<(Uuid, &Wanted)> = wanted.iter().map(|one| (id(one), one)).collect();
    sorted.sort_unstable_by_key(|(id, _)| *id);
    (
        sorted.iter().map(|(id, _)| *id).collect(),
        sorted.iter().map(|(_, one)| one.accepted_at).collect(),
        sorted.iter().map(|(_, one)| one.event.0).collect(),
        sorted.iter().map(|(_, one)| one.endpoint.0).collect(),
    )
}

fn past_event(row: &Row) -> Result<PastEvent, StoreError> {
    let text: &str = row.get("type");
    let event_type = EventType::parse(text)
        .map_err(|fault| StoreError::corrupt("events", format!("type {text:?}, which {}", fault.message)))?;
    Ok(PastEvent { id: EventId(row.get("id")), accepted_at: row.get("accepted_at"), event_type })
}

fn read(row: &Row) -> Result<Replay, StoreError> {
    let corrupt = |what: &str, text: &str| StoreError::corrupt("replays", format!("{what} {text:?}"));
    let (state, states): (&str, Vec<&str>) = (row.get("state"), row.get("states"));
    let states = states.into_iter().map(|text| Replayed::parse(text).ok_or_else(|| corrupt("states", text)));
    let reached_at: Option<Timestamp> = row.get("reached_at");
    Ok(Replay {
        of: NewReplay {
            id: ReplayId(row.get("id")),
            application: ApplicationId(row.get("application_id")),
            endpoint: row.get::<_, Option<Uuid>>("endpoint_id").map(EndpointId),
            event_types: row.get("event_types"),
            states: states.collect::<Result<_, _>>()?,
            since: row.get("since"),
            until: row.get("until"),
            rate_per_second: row.get::<_, i32>("rate_per_second").cast_unsigned(),
        },
        state: ReplayState::parse(state).ok_or_else(|| corrupt("state", state))?,
        reached: reached_at.zip(row.get::<_, Option<Uuid>>("reached_event").map(EventId)),
        events: row.get("events"),
        deliveries: row.get("deliveries"),
        created_at: row.get("created_at"),
        finished_at: row.get("finished_at"),
    })
}
