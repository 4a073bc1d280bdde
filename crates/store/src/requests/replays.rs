//! Replays: rows and changes of state. `replay_advance` queues the deliveries.

use fanfare_domain::{
    delivery::replay::{ReplayState, Replayed, Selection},
    event::subscription::Subscription,
    ids::{ApplicationId, EndpointId, EventId, ReplayId},
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{Store, StoreError, connection::store::row_count};

/// A request for a replay.
#[derive(Debug, Clone)]
pub struct NewReplay {
    /// Id of the replay.
    pub id: ReplayId,
    /// Application of the replay.
    pub application: ApplicationId,
    /// Endpoint; `None` for all.
    pub endpoint: Option<EndpointId>,
    /// Types and wildcards; empty for all types.
    pub event_types: Vec<String>,
    /// States of the deliveries to send.
    pub states: Vec<Replayed>,
    /// First moment of acceptance.
    pub since: Timestamp,
    /// End of the moments of acceptance, exclusive.
    pub until: Timestamp,
    /// Deliveries a second.
    pub rate_per_second: u32,
}

/// A replay with its progress.
#[derive(Debug, Clone)]
pub struct Replay {
    /// The request.
    pub of: NewReplay,
    /// State of the replay.
    pub state: ReplayState,
    /// Cursor: moment of acceptance and id of the last processed event.
    pub reached: Option<(Timestamp, EventId)>,
    /// Number of processed events.
    pub events: i64,
    /// Number of queued deliveries.
    pub deliveries: i64,
    /// Time of creation.
    pub created_at: Timestamp,
    /// Time of the end, done or cancelled.
    pub finished_at: Option<Timestamp>,
}

const COLUMNS: &str = "id, application_id, endpoint_id, event_types, states, since, until, rate_per_second, state, \
                       reached_at, reached_event, events, deliveries, created_at, finished_at";

impl NewReplay {
    /// Selection of events and endpoints.
    ///
    /// # Errors
    /// [`StoreError::Corrupt`] if a stored type is invalid.
    pub fn selection(&self) -> Result<Selection, StoreError> {
        let types = self.event_types.iter().map(|text| {
            Subscription::parse(text)
                .map_err(|fault| StoreError::corrupt("replays", format!("type {text:?}, which {}", fault.message)))
        });
        Ok(Selection { endpoint: self.endpoint, types: types.collect::<Result<_, _>>()? })
    }

    pub(crate) fn states(&self) -> Vec<&'static str> {
        self.states.iter().map(|state| state.as_str()).collect()
    }
}

impl Store {
    /// Creates a running replay; `None` if `most` replays of the application are running or paused.
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

    /// Finds a replay of an application.
    pub async fn replay(&self, application: ApplicationId, id: ReplayId) -> Result<Option<Replay>, StoreError> {
        let statement = format!("SELECT {COLUMNS} FROM replays WHERE id = $1 AND application_id = $2");
        let row = self.connection().await?.query_opt(&statement, &[&id.0, &application.0]).await?;
        row.as_ref().map(read).transpose()
    }

    /// Lists an application's replays, newest first: one page of replays older than `before`.
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

    /// Lists the running replays of all applications.
    pub async fn running_replays(&self) -> Result<Vec<Replay>, StoreError> {
        let statement = format!("SELECT {COLUMNS} FROM replays WHERE state = 'running' ORDER BY id");
        let rows = self.connection().await?.query(&statement, &[]).await?;
        rows.iter().map(read).collect()
    }

    /// Resumes, pauses or cancels a replay; `None` if the replay has ended or does not exist.
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
