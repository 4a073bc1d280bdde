//! Told states. A change of states, the events about the change and their open deliveries are one commit.
//!
//! Each state has a version, so that only a process that has read the state changes the state.

use std::{collections::HashMap, time::Duration};

use fanfare_domain::{
    endpoint::EndpointStatus,
    ids::{ApplicationId, EndpointId, EventId, ProcessId, first_id},
    operational::{Change, Condition, state::State},
    time::saturating_sub,
};
use jiff::Timestamp;
use tokio_postgres::Row;
use uuid::Uuid;

use super::{OperationalKey, OperationalMark};
use crate::{
    ConditionNotice, NewEvent, Persisted, Store, StoreError, connection::store::row_count,
    operations::advisory_locks::Job, pipeline::columns::Columns,
};

/// Attempts of deliveries accepted within this time are searched for the cause of a failure.
const CAUSE: Duration = Duration::from_secs(2 * 86400);

/// A stored state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct OperationalState {
    /// Subject and condition.
    pub key: OperationalKey,
    /// Application of the subject; `None` for messages of no known application.
    pub application: Option<ApplicationId>,
    /// The state.
    pub state: State,
    /// Event of the last change, with this change.
    pub event: Option<EventId>,
    /// Version that was read; 0 for a new state.
    pub version: i32,
}

/// An endpoint in an event.
#[derive(Debug, Clone)]
pub struct ToldEndpoint {
    /// Display name.
    pub name: Option<String>,
    /// URL.
    pub url: String,
    /// Status; `None` for a deleted endpoint.
    pub status: Option<EndpointStatus>,
    /// Beginning of the status; `None` if unknown.
    pub status_since: Option<Timestamp>,
    /// Status or outcome of the last failed attempt.
    pub cause: Option<String>,
}

/// A change of states, written in one commit.
#[derive(Debug, Default)]
pub struct OperationalChange<'a> {
    /// The states after the change, each key once.
    pub states: &'a [OperationalState],
    /// End of the counted occurrences before and after the change.
    pub counted: Option<(Timestamp, Timestamp)>,
    /// Events that tell the change, with their deliveries.
    pub events: &'a [&'a NewEvent],
    /// Changes to report to owners by mail, each condition of an endpoint once.
    pub notices: &'a [ConditionNotice],
}

/// All states but told states of endpoints that are still disabled: their number grows. Parameter: operator's
/// application.
const STATES: &str = "
SELECT subject, condition, application_id, holds, since, seen_at, told, changes, free_at, figures, event_id, version
FROM operational_states s
WHERE application_id IS DISTINCT FROM $1
  AND NOT (condition = 'disabled' AND holds AND told
           AND EXISTS (SELECT FROM endpoints e WHERE e.id = s.subject AND e.status = 'disabled' AND e.deleted_at IS NULL))";

/// Parameter: endpoints.
const STATUSES: &str = "SELECT id, status FROM endpoints WHERE id = ANY ($1) AND deleted_at IS NULL";

/// Parameters: endpoints, smallest id of a delivery that is searched for a cause.
const ENDPOINTS: &str = "
SELECT p.id, p.name, p.url, p.status, p.status_since, p.deleted_at IS NOT NULL AS is_deleted, a.status AS answer, a.outcome
FROM endpoints p
LEFT JOIN LATERAL (SELECT a.outcome, a.status FROM attempts a WHERE a.endpoint_id = p.id AND a.delivery_id >= $2
                     AND NOT a.taken AND NOT a.is_test ORDER BY a.started_at DESC LIMIT 1) a ON true
WHERE p.id = ANY ($1)";

/// Adds and changes states whose version is known. Returns their number.
fn note_statement(states: &Columns<'_, OperationalState>) -> String {
    format!(
        "WITH input AS MATERIALIZED (SELECT * FROM {}), added AS (
    INSERT INTO operational_states (subject, condition, application_id, holds, since, seen_at, told, changes, free_at,
                                    figures, event_id, told_at, version)
    SELECT subject, condition, application_id, holds, since, seen_at, told, changes, free_at, figures, event_id,
           CASE WHEN event_id IS NOT NULL THEN now() END, 1
    FROM input WHERE version = 0 ON CONFLICT DO NOTHING RETURNING subject
), changed AS (
    UPDATE operational_states s
    SET holds = i.holds, since = i.since, seen_at = i.seen_at, told = i.told, changes = i.changes, free_at = i.free_at,
        figures = i.figures, event_id = coalesce(i.event_id, s.event_id), version = s.version + 1,
        told_at = CASE WHEN i.event_id IS DISTINCT FROM s.event_id AND i.event_id IS NOT NULL THEN now() ELSE s.told_at END
    FROM input i WHERE s.subject = i.subject AND s.condition = i.condition AND s.version = i.version
    RETURNING s.subject
)
SELECT (SELECT count(*) FROM added) + (SELECT count(*) FROM changed)",
        states.table("i")
    )
}

impl Store {
    /// The mark of the operator's application. Another application gets the mark with a commit that forgets all states,
    /// and keeps the counted time. `None` for an unknown application, or while an index of a look is not yet built.
    pub async fn operational_mark(&self, application: ApplicationId) -> Result<Option<OperationalMark>, StoreError> {
        let known = "SELECT application_id, begun_at, counted, is_looked FROM operational_marks FOR UPDATE";
        let first = "INSERT INTO operational_marks (application_id) SELECT id FROM applications WHERE id = $1
                     ON CONFLICT DO NOTHING";
        let named = "UPDATE operational_marks SET application_id = a.id, begun_at = now(), is_looked = false, held_at = '-infinity'
                     FROM applications a WHERE a.id = $1 AND application_id <> $1";
        let is_built = "SELECT i.indisvalid FROM pg_index i WHERE i.indexrelid = to_regclass('deliveries_given_up')";
        let mut connection = self.connection().await?;
        if !connection.query_opt(is_built, &[]).await?.is_some_and(|row| row.get(0)) {
            return Ok(None);
        }
        let transaction = connection.transaction().await?;
        transaction.execute(first, &[&application.0]).await?;
        transaction.query_opt(known, &[]).await?;
        if transaction.execute(named, &[&application.0]).await? > 0 {
            transaction.execute("DELETE FROM operational_states", &[]).await?;
        }
        let row = transaction.query_opt(known, &[]).await?;
        transaction.commit().await?;
        Ok(row.filter(|row| row.get::<_, Uuid>("application_id") == application.0).map(|row| OperationalMark {
            application,
            begun_at: row.get("begun_at"),
            counted: row.get("counted"),
            is_looked: row.get("is_looked"),
        }))
    }

    /// Notes the end of the first look.
    pub async fn note_first_look(&self, application: ApplicationId) -> Result<(), StoreError> {
        let statement = "UPDATE operational_marks SET is_looked = true WHERE application_id = $1";
        self.connection().await?.execute(statement, &[&application.0]).await.map(drop).map_err(StoreError::from)
    }

    /// The states that a look compares: told states of disabled endpoints only after their end.
    pub async fn operational_states(&self, application: ApplicationId) -> Result<Vec<OperationalState>, StoreError> {
        let rows = self.query_by_kept_plan(STATES, &[&application.0]).await?;
        rows.iter().filter_map(|row| read_state(row).transpose()).collect()
    }

    /// Statuses of endpoints that are not deleted.
    pub async fn statuses(&self, endpoints: &[EndpointId]) -> Result<HashMap<EndpointId, EndpointStatus>, StoreError> {
        let ids: Vec<Uuid> = endpoints.iter().map(|endpoint| endpoint.0).collect();
        let rows = self.query_by_kept_plan(STATUSES, &[&ids]).await?;
        let status = |row: &Row| Some((EndpointId(row.get("id")), EndpointStatus::parse(row.get("status"))?));
        Ok(rows.iter().filter_map(status).collect())
    }

    /// The last events, the newest first.
    pub async fn last_operational_events(
        &self,
        limit: usize,
    ) -> Result<Vec<(OperationalState, Timestamp)>, StoreError> {
        let statement = "SELECT * FROM operational_states WHERE told_at IS NOT NULL ORDER BY told_at DESC LIMIT $1";
        let rows = self.connection().await?.query(statement, &[&row_count(limit)]).await?;
        let read = |row: &Row| Ok(read_state(row)?.map(|state| (state, row.get("told_at"))));
        rows.iter().filter_map(|row| read(row).transpose()).collect()
    }

    /// The application that the operator names; `None` if the job did not run in the last minute.
    pub async fn operational_application(&self) -> Result<Option<ApplicationId>, StoreError> {
        let statement = "SELECT application_id FROM operational_marks
                         WHERE EXISTS (SELECT FROM job_runs WHERE job = $1 AND ended_at > now() - interval '1 minute')";
        let job = Job::OperationalEvents.name();
        let row = self.connection().await?.query_opt(statement, &[&job]).await?;
        Ok(row.map(|row| ApplicationId(row.get(0))))
    }

    /// Forgets states that ended before the moment.
    pub async fn forget_operational_states(&self, before: Timestamp) -> Result<u64, StoreError> {
        let statement = "DELETE FROM operational_states WHERE NOT holds AND NOT told AND seen_at <= $1";
        Ok(self.connection().await?.execute(statement, &[&before]).await?)
    }

    /// Endpoints for events, deleted or not.
    pub async fn told_endpoints(
        &self,
        endpoints: &[EndpointId],
    ) -> Result<HashMap<EndpointId, ToldEndpoint>, StoreError> {
        let ids: Vec<Uuid> = endpoints.iter().map(|endpoint| endpoint.0).collect();
        let recent = first_id(saturating_sub(self.now(), CAUSE));
        let rows = self.query_by_kept_plan(ENDPOINTS, &[&ids, &recent]).await?;
        let told = |row: &Row| {
            let answer: Option<i32> = row.get("answer");
            let status = EndpointStatus::parse(row.get("status"));
            let told = ToldEndpoint {
                name: row.get("name"),
                url: row.get("url"),
                status: status.filter(|_| !row.get::<_, bool>("is_deleted")),
                status_since: row.get("status_since"),
                cause: answer.map(|answer| answer.to_string()).or_else(|| row.get("outcome")),
            };
            (EndpointId(row.get("id")), told)
        };
        Ok(rows.iter().map(told).collect())
    }

    /// Writes a change in one commit; `None` if another process has changed a state or the mark meanwhile, or the
    /// operator names another application than `application`. A new backlog gets the owner `process`.
    ///
    /// # Errors
    /// After [`StoreError::Unavailable`] the change may have been written; the next look finds the states as they are.
    pub async fn change_operational(
        &self,
        process: ProcessId,
        application: ApplicationId,
        change: &OperationalChange<'_>,
    ) -> Result<Option<Persisted>, StoreError> {
        let columns = state_columns(change.states);
        let mut connection = self.inserter().await?;
        let transaction = connection.transaction().await?;
        let named = "SELECT FROM operational_marks WHERE application_id = $1 FOR UPDATE";
        if transaction.query_opt(named, &[&application.0]).await?.is_none() {
            return Ok(None);
        }
        if let Some((from, until)) = change.counted {
            let statement = "UPDATE operational_marks SET counted = $2 WHERE counted = $1";
            if transaction.execute(statement, &[&from, &until]).await? != 1 {
                return Ok(None);
            }
        }
        if !change.states.is_empty() {
            let note = transaction.prepare_cached(&note_statement(&columns)).await?;
            let parameters: Vec<_> = columns.values().collect();
            if transaction.query_one(&note, &parameters).await?.get::<_, i64>(0) != row_count(change.states.len()) {
                return Ok(None);
            }
        }
        if !change.notices.is_empty() {
            let columns = notice_columns(change.notices);
            let note = transaction.prepare_cached(&notices_statement(&columns)).await?;
            let parameters: Vec<_> = columns.values().collect();
            transaction.execute(&note, &parameters).await?;
        }
        // Last: the statement locks the backlogs, and the commit follows at once.
        let persisted = match change.events {
            [] => Persisted::default(),
            events => self.persist_in(&transaction, process, events).await?,
        };
        transaction.commit().await?;
        Ok(Some(persisted))
    }
}

fn notice_columns(notices: &[ConditionNotice]) -> Columns<'_, ConditionNotice> {
    Columns::new(notices, 1)
        .column("endpoint_id", "uuid", |notice| notice.endpoint.0)
        .column("condition", "text", |notice| notice.condition.as_str())
        .column("begins", "bool", |notice| notice.change == Change::Begins)
        .column("since", "timestamptz", |notice| notice.since)
        .column("reason", "text", |notice| notice.reason.clone())
}

/// Notes changes for mails. The newest change of a condition replaces an earlier one.
fn notices_statement(notices: &Columns<'_, ConditionNotice>) -> String {
    format!(
        "INSERT INTO condition_notices (endpoint_id, condition, begins, since, reason)
         SELECT endpoint_id, condition, begins, since, reason FROM {} ORDER BY endpoint_id, condition
         ON CONFLICT (endpoint_id, condition) DO UPDATE
         SET begins = excluded.begins, since = excluded.since, reason = excluded.reason, told_at = now()",
        notices.table("i")
    )
}

fn state_columns(states: &[OperationalState]) -> Columns<'_, OperationalState> {
    Columns::new(states, 1)
        .column("subject", "uuid", |state| state.key.subject)
        .column("condition", "text", |state| state.key.condition.as_str())
        .column("application_id", "uuid", |state| state.application.map(|id| id.0))
        .column("holds", "bool", |state| state.state.holds)
        .column("since", "timestamptz", |state| state.state.since)
        .column("seen_at", "timestamptz", |state| state.state.seen_at)
        .column("told", "bool", |state| state.state.told)
        .column("changes", "int", |state| i32::try_from(state.state.changes).unwrap_or(i32::MAX))
        .column("free_at", "timestamptz", |state| state.state.free_at)
        .column("figures", "text", |state| serde_json::to_string(&state.state.figures).unwrap_or_default())
        .column("event_id", "uuid", |state| state.event.map(|event| event.0))
        .column("version", "int", |state| state.version)
}

/// `None` for a condition of a newer release.
fn read_state(row: &Row) -> Result<Option<OperationalState>, StoreError> {
    let Some(condition) = Condition::parse(row.get("condition")) else { return Ok(None) };
    let key = OperationalKey { subject: row.get("subject"), condition };
    let figures = serde_json::from_str(row.get("figures"))
        .map_err(|error| StoreError::corrupt("operational_states", format!("{}: {error}", key.subject)))?;
    Ok(Some(OperationalState {
        key,
        application: row.get::<_, Option<Uuid>>("application_id").map(ApplicationId),
        state: State {
            holds: row.get("holds"),
            since: row.get("since"),
            seen_at: row.get("seen_at"),
            told: row.get("told"),
            changes: row.get::<_, i32>("changes").unsigned_abs(),
            free_at: row.get("free_at"),
            figures,
        },
        event: row.get::<_, Option<Uuid>>("event_id").map(EventId),
        version: row.get("version"),
    }))
}
