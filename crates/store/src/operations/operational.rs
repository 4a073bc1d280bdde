//! Operational events: looks at the conditions of endpoints, replays and parked messages, and their told states.
//!
//! All looks leave out the application that the operator names: its endpoints cause no event. A change of states, the events
//! about the change and their open deliveries are one commit. Each state has a version, so that only a process that has
//! read the state changes the state.

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use fanfare_domain::{
    application::EndpointStatus,
    diagnosis::rollup::{HOUR, KEPT, STEP},
    ids::{ApplicationId, DeliveryId, EndpointId, EventId, ProcessId, ReplayId},
    operational::{
        Condition, Figures, ReplayFigures,
        state::{Found, Occurrences, State},
    },
    time::{saturating_add, saturating_sub},
};
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    NewEvent, Persisted, Store, StoreError,
    connection::store::row_count,
    history::health::failing_since,
    operations::{advisory_locks::Job, partitions::first_id, rollups::FAILED},
    pipeline::columns::Columns,
};

/// Failed attempts within this time make an endpoint a candidate.
const NEWEST: Duration = Duration::from_secs(1800);

/// Backlogs that are looked at for the expiry of their first delivery: the oldest. Paused backlogs whose deliveries are
/// counted.
const MAX_BACKLOGS: i64 = 10_000;
const MAX_PAUSED: i64 = 1000;

/// Interval of the looks at held deliveries, and rows that such a look reads, beside the rows of its last endpoint.
const HELD_EVERY: Duration = Duration::from_secs(300);
const HELD_ROWS: i64 = 500_000;

/// Attempts of deliveries accepted within this time are searched for the cause of a failure.
const CAUSE: Duration = Duration::from_secs(2 * 86400);

/// Tolerance for the clock of the process that made the id of a parked message.
const CLOCKS: Duration = Duration::from_secs(600);

/// Occurrences of the last day, at most, are counted: the job may have been off for months.
const MAX_COUNTED: Duration = Duration::from_secs(86400);

/// Longest time whose occurrences are counted in a commit.
const WINDOW: Duration = Duration::from_secs(300);

/// Reasons of failed deliveries that a request caused, or a test.
const REQUESTED: [&str; 3] = ["endpoint_deleted", "erased", "test_failed"];

/// A condition of a subject.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct OperationalKey {
    /// Endpoint, application or replay; the nil id for messages of no known application.
    pub subject: Uuid,
    /// The condition.
    pub condition: Condition,
}

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

/// The application that the operator names, and the end of the counted occurrences.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct OperationalMark {
    /// The application.
    pub application: ApplicationId,
    /// The first look for the application.
    pub begun_at: Timestamp,
    /// End of the counted occurrences.
    pub counted: Timestamp,
    /// True after the first look at the lasting conditions.
    pub is_looked: bool,
}

/// Bounds on held deliveries, as the dispatchers have them.
#[derive(Debug, Clone, Copy)]
pub struct HeldBounds {
    /// Maximum number of held deliveries.
    pub most: usize,
    /// Longest time in state `held`.
    pub max_age: Duration,
}

impl HeldBounds {
    /// Number that is near the limit: four fifths.
    fn near_most(self) -> usize {
        (self.most - self.most / 5).max(1)
    }

    /// Age that is near the limit: four fifths.
    fn near_age(self) -> Duration {
        self.max_age / 5 * 4
    }
}

/// What a look needs to know.
pub struct OperationalLook<'a> {
    /// The operator's application.
    pub mark: OperationalMark,
    /// Bounds on held deliveries.
    pub held: HeldBounds,
    /// Endpoints that fail until a success, with the earliest time of this success.
    pub failing: &'a [(EndpointId, Timestamp)],
    /// Endpoints whose held deliveries were near a limit at the last look.
    pub near_held: &'a [EndpointId],
    /// Lifetime of a delivery to an endpoint, which begins anew when the endpoint is resumed.
    pub lifetime: &'a (dyn Fn(ApplicationId, EndpointId) -> Duration + Sync),
}

/// Result of a look at the lasting conditions.
#[derive(Debug, Default)]
pub struct LastingConditions {
    /// The conditions that hold, without disabled endpoints whose state is told.
    pub found: Vec<FoundCondition>,
    /// Conditions that the look has left out.
    pub unknown: Vec<OperationalKey>,
}

/// A lasting condition of an endpoint that holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FoundCondition {
    /// Endpoint and condition.
    pub key: OperationalKey,
    /// Application of the endpoint.
    pub application: ApplicationId,
    /// Beginning and figures.
    pub found: Found,
}

/// Occurrences of a recurring condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Occurred {
    /// Subject and condition.
    pub key: OperationalKey,
    /// Application of the subject; `None` for messages of no known application.
    pub application: Option<ApplicationId>,
    /// Numbers and times.
    pub occurrences: Occurrences,
}

/// A finished replay.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedReplay {
    /// Application of the replay.
    pub application: ApplicationId,
    /// Time of the end.
    pub at: Timestamp,
    /// Figures of the replay.
    pub figures: ReplayFigures,
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
}

/// All states but told states of endpoints that are still disabled: their number grows. Parameter: operator's application.
const STATES: &str = "
SELECT subject, condition, application_id, holds, since, seen_at, told, changes, free_at, figures, event_id, version
FROM operational_states s
WHERE application_id IS DISTINCT FROM $1
  AND NOT (condition = 'disabled' AND holds AND told
           AND EXISTS (SELECT FROM endpoints e WHERE e.id = s.subject AND e.status = 'disabled' AND e.deleted_at IS NULL))";

/// Leaves out told states, as the states do. Parameters: operator's application, first look.
const DISABLED: &str = "
SELECT e.id, e.application_id, e.status_since AS since, e.status_reason AS reason FROM endpoints e
WHERE e.status = 'disabled' AND e.deleted_at IS NULL AND e.status_since >= $2 AND e.application_id <> $1
  AND NOT EXISTS (SELECT FROM operational_states s
                  WHERE s.subject = e.id AND s.condition = 'disabled' AND s.holds AND s.told)";

// Endpoints are looked up one by one: by a join, the planner may compare each row with each endpoint.

/// Parameters: operator's application.
const BREAKERS: &str = "
SELECT b.endpoint_id AS id, b.application_id, b.since, b.failures FROM endpoint_backlogs b
CROSS JOIN LATERAL (SELECT FROM endpoints p WHERE p.id = b.endpoint_id AND p.status = 'enabled' AND p.deleted_at IS NULL
                    LIMIT 1) p
WHERE b.next_probe IS NOT NULL AND b.application_id <> $1";

/// A delivery that was queued before a resumption gets a new lifetime then, as its lease decides. Parameters: operator's
/// application, newest beginning of a backlog, maximum of backlogs, latest expiry.
const EXPIRING: &str = "
WITH oldest AS MATERIALIZED (
    SELECT endpoint_id, resumed_at FROM endpoint_backlogs WHERE since < $2 AND application_id <> $1 ORDER BY since LIMIT $3
)
SELECT p.id, p.application_id, o.expires_at, CASE WHEN o.since < oldest.resumed_at THEN oldest.resumed_at END AS resumed_at
FROM oldest
CROSS JOIN LATERAL (SELECT p.id, p.application_id FROM endpoints p
                    WHERE p.id = oldest.endpoint_id AND p.status = 'enabled' AND p.deleted_at IS NULL LIMIT 1) p
CROSS JOIN LATERAL (SELECT o.expires_at, o.since FROM open_deliveries o
                    WHERE o.endpoint_id = p.id AND o.state = 'queued' AND o.class < 2 ORDER BY o.class, o.id LIMIT 1) o
WHERE o.expires_at < $4";

/// Moves the time of the last look at held deliveries, if the look is due. Parameter: interval in seconds.
const HELD_DUE: &str = "
UPDATE operational_marks SET held_at = now() WHERE held_at <= now() - $1::float8 * interval '1 second'";

/// Counts the held deliveries of paused endpoints one endpoint after the other, until the rows to read are used up: `held`
/// is NULL for the other endpoints. Parameters: operator's application, maximum of backlogs, number near the limit, rows
/// to read, endpoints to count first.
const HELD: &str = "
WITH RECURSIVE paused AS MATERIALIZED (
    SELECT p.id, p.application_id, row_number() OVER (ORDER BY p.id = ANY ($5) DESC, random()) AS place
    FROM endpoint_backlogs b
    CROSS JOIN LATERAL (SELECT p.id, p.application_id FROM endpoints p
                        WHERE p.id = b.endpoint_id AND p.status = 'paused' AND p.deleted_at IS NULL LIMIT 1) p
    WHERE b.application_id <> $1 ORDER BY place LIMIT $2
), counted AS (
    SELECT 0::bigint AS place, $4::bigint AS rows, 0::bigint AS held
    UNION ALL
    SELECT p.place, c.rows - q.held, q.held FROM counted c JOIN paused p ON p.place = c.place + 1
    CROSS JOIN LATERAL (SELECT count(*) AS held FROM (SELECT FROM open_deliveries o WHERE o.endpoint_id = p.id
                                                      AND o.state = 'queued' LIMIT $3) n) q
    WHERE c.rows > 0
)
SELECT p.id, p.application_id, c.held, first.since FROM paused p LEFT JOIN counted c USING (place)
LEFT JOIN LATERAL (SELECT o.since FROM open_deliveries o WHERE o.endpoint_id = p.id AND o.state = 'queued'
                   ORDER BY o.class, o.id LIMIT 1) first ON true";

/// Parameter: endpoints.
const STATUSES: &str = "SELECT id, status FROM endpoints WHERE id = ANY ($1) AND deleted_at IS NULL";

/// Parameters: known endpoints with the earliest time of a success, oldest rollup, operator's application.
const STILL_FAILING: &str = "
SELECT k.id, p.application_id, k.since FROM unnest($1::uuid[], $2::timestamptz[]) AS k(id, since)
CROSS JOIN LATERAL (SELECT p.application_id FROM endpoints p
                    WHERE p.id = k.id AND p.status = 'enabled' AND p.deleted_at IS NULL
                      AND p.application_id <> $4 LIMIT 1) p
WHERE NOT EXISTS (SELECT FROM rollups r WHERE r.subject = k.id AND r.at >= $3 AND r.at > k.since AND r.taken > 0)";

/// Parameters: operator's application, times, reasons to leave out.
const GIVEN_UP: &str = "
SELECT d.endpoint_id AS subject, d.application_id, d.reason, count(*) AS count, min(d.finished_at) AS first,
       max(d.finished_at) AS last, min(d.id::text COLLATE \"C\")::uuid AS delivery
FROM deliveries d
WHERE d.state = 'failed' AND d.finished_at > $2 AND d.finished_at <= $3 AND d.application_id <> $1
  AND d.reason <> ALL ($4)
GROUP BY 1, 2, 3";

/// Parameters: smallest id, times.
const PARKED: &str = "
SELECT split_part(coalesce(routing_key, ''), '.', 1) AS name, reason, count(*) AS count, min(parked_at) AS first,
       max(parked_at) AS last
FROM parked WHERE id >= $1 AND parked_at > $2 AND parked_at <= $3 GROUP BY 1, 2";

/// Parameters: operator's application, times.
const FINISHED: &str = "
SELECT id, application_id, state, events, deliveries, created_at, finished_at FROM replays
WHERE finished_at IS NOT NULL AND finished_at > $2 AND finished_at <= $3 AND application_id <> $1";

/// Parameters: endpoints, smallest id of a delivery that is searched for a cause.
const ENDPOINTS: &str = "
SELECT p.id, p.name, p.url, p.status, p.status_since, p.deleted_at IS NOT NULL AS is_deleted, a.status AS answer, a.outcome
FROM endpoints p
LEFT JOIN LATERAL (SELECT a.outcome, a.status FROM attempts a WHERE a.endpoint_id = p.id AND a.delivery_id >= $2
                     AND NOT a.taken AND NOT a.is_test ORDER BY a.started_at DESC LIMIT 1) a ON true
WHERE p.id = ANY ($1)";

/// Endpoints whose every attempt failed for longer than an hour. Parameters: operator's application, newest rollups, oldest
/// rollups, latest beginning.
fn failing() -> String {
    format!(
        "WITH e AS MATERIALIZED (
    SELECT DISTINCT r.subject AS id FROM rollups r WHERE r.kind = 2 AND r.taken = 0 AND r.at >= $2 AND {FAILED} > 0
)
SELECT e.id, p.application_id, failing.since FROM e
CROSS JOIN LATERAL (SELECT p.application_id FROM endpoints p WHERE p.id = e.id AND p.status = 'enabled'
                      AND p.deleted_at IS NULL AND p.application_id <> $1 LIMIT 1) p
{}
WHERE failing.since <= $4",
        failing_since("$3")
    )
}

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
    /// The mark of the operator's application. Another application gets the mark with a commit that forgets all states, and
    /// keeps the counted time. `None` for an unknown application, or while an index of a look is not yet built.
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

    /// The lasting conditions that hold.
    pub async fn lasting_conditions(&self, look: &OperationalLook<'_>) -> Result<LastingConditions, StoreError> {
        let LastingConditions { mut found, unknown } = self.near_held_limit(look).await?;
        found.extend(self.disabled(&look.mark).await?);
        found.extend(self.failing(&look.mark, look.failing).await?);
        found.extend(self.open_breakers(&look.mark).await?);
        found.extend(self.expiring(look).await?);
        Ok(LastingConditions { found, unknown })
    }

    async fn disabled(&self, mark: &OperationalMark) -> Result<Vec<FoundCondition>, StoreError> {
        let rows = self.query_by_kept_plan(DISABLED, &[&mark.application.0, &mark.begun_at]).await?;
        let figures = |row: &Row| Figures { reason: row.get("reason"), ..Figures::default() };
        Ok(rows.iter().map(|row| found(row, Condition::Disabled, row.get("since"), figures(row))).collect())
    }

    async fn failing(
        &self,
        mark: &OperationalMark,
        known: &[(EndpointId, Timestamp)],
    ) -> Result<Vec<FoundCondition>, StoreError> {
        let now = self.now();
        let (newest, oldest) = (saturating_sub(now, NEWEST), saturating_sub(now, KEPT));
        // A rollup names the beginning of its step.
        let since = saturating_sub(now, HOUR + STEP);
        let parameters: [&(dyn ToSql + Sync); 4] = [&mark.application.0, &newest, &oldest, &since];
        let mut rows = self.query_by_kept_plan(&failing(), &parameters).await?;
        if !known.is_empty() {
            let (ids, times): (Vec<Uuid>, Vec<Timestamp>) = known.iter().map(|(id, since)| (id.0, *since)).unzip();
            rows.extend(self.query_by_kept_plan(STILL_FAILING, &[&ids, &times, &oldest, &mark.application.0]).await?);
        }
        let found: BTreeMap<OperationalKey, FoundCondition> = rows
            .iter()
            .rev()
            .map(|row| found(row, Condition::Failing, row.get("since"), Figures::default()))
            .map(|found| (found.key, found))
            .collect();
        Ok(found.into_values().collect())
    }

    async fn open_breakers(&self, mark: &OperationalMark) -> Result<Vec<FoundCondition>, StoreError> {
        let rows = self.connection().await?.query(BREAKERS, &[&mark.application.0]).await?;
        let failures = |row: &Row| u64::from(row.get::<_, i32>("failures").unsigned_abs());
        let figures = |row: &Row| Figures { failures: Some(failures(row)), ..Figures::default() };
        Ok(rows.iter().map(|row| found(row, Condition::BreakerOpen, row.get("since"), figures(row))).collect())
    }

    async fn expiring(&self, look: &OperationalLook<'_>) -> Result<Vec<FoundCondition>, StoreError> {
        let now = self.now();
        let (newest, latest) = (saturating_sub(now, HOUR), saturating_add(now, HOUR));
        let parameters: [&(dyn ToSql + Sync); 4] = [&look.mark.application.0, &newest, &MAX_BACKLOGS, &latest];
        let rows = self.connection().await?.query(EXPIRING, &parameters).await?;
        let found = |row: &Row| {
            let ids = (ApplicationId(row.get("application_id")), EndpointId(row.get("id")));
            let renewed = |resumed_at| saturating_add(resumed_at, (look.lifetime)(ids.0, ids.1));
            let renewed: Option<Timestamp> = row.get::<_, Option<Timestamp>>("resumed_at").map(renewed);
            let expires_at = row.get::<_, Timestamp>("expires_at").max(renewed.unwrap_or(Timestamp::MIN));
            let figures = Figures { expires_at: Some(expires_at), ..Figures::default() };
            let since = saturating_sub(expires_at, HOUR);
            (expires_at < latest).then(|| found(row, Condition::BacklogNearLimit, since, figures))
        };
        Ok(rows.iter().filter_map(found).collect())
    }

    /// Looks at held deliveries seldom: the look reads many rows. Between, the known conditions are unknown.
    async fn near_held_limit(&self, look: &OperationalLook<'_>) -> Result<LastingConditions, StoreError> {
        let (now, bounds) = (self.now(), look.held);
        let key = |subject| OperationalKey { subject, condition: Condition::HeldNearLimit };
        let connection = self.connection().await?;
        if connection.execute(HELD_DUE, &[&HELD_EVERY.as_secs_f64()]).await? == 0 {
            let unknown = look.near_held.iter().map(|endpoint| key(endpoint.0)).collect();
            return Ok(LastingConditions { unknown, ..LastingConditions::default() });
        }
        let (near, old) = (row_count(bounds.near_most()), saturating_sub(now, bounds.near_age()));
        let known: Vec<Uuid> = look.near_held.iter().map(|endpoint| endpoint.0).collect();
        let parameters: [&(dyn ToSql + Sync); 5] = [&look.mark.application.0, &MAX_PAUSED, &near, &HELD_ROWS, &known];
        let mut looked = LastingConditions::default();
        for row in connection.query(HELD, &parameters).await? {
            let Some(since) = row.get::<_, Option<Timestamp>>("since") else { continue };
            let held: Option<i64> = row.get("held");
            if held.is_none_or(|held| held < near) && since > old {
                looked.unknown.extend(held.is_none().then(|| key(row.get("id"))));
                continue;
            }
            let figures = Figures {
                held: held.map(i64::unsigned_abs),
                max_held: u64::try_from(bounds.most).ok(),
                held_until: Some(saturating_add(since, bounds.max_age)),
                ..Figures::default()
            };
            let since = saturating_add(since, bounds.near_age()).min(now);
            looked.found.push(found(&row, Condition::HeldNearLimit, since, figures));
        }
        Ok(looked)
    }

    /// Deliveries given up, and messages parked, behind the mark and up to `until`.
    pub async fn occurrences(&self, mark: &OperationalMark, until: Timestamp) -> Result<Vec<Occurred>, StoreError> {
        let from = mark.counted;
        let reasons = REQUESTED.as_slice();
        let parameters: [&(dyn ToSql + Sync); 4] = [&mark.application.0, &from, &until, &reasons];
        let mut occurred: HashMap<OperationalKey, Occurred> = HashMap::new();
        for row in self.query_by_kept_plan(GIVEN_UP, &parameters).await? {
            let application = Some(ApplicationId(row.get("application_id")));
            let key = OperationalKey { subject: row.get("subject"), condition: Condition::GivingUp };
            let first = DeliveryId(row.get("delivery"));
            add(&mut occurred, key, application, occurrences(&row, Some(first)));
        }
        let rows = self.query_by_kept_plan(PARKED, &[&first_id(saturating_sub(from, CLOCKS)), &from, &until]).await?;
        let named = |row: &Row| row.get::<_, &str>("name").parse::<ApplicationId>().ok();
        let named_ids: Vec<Uuid> = rows.iter().filter_map(named).map(|id| id.0).collect();
        let statement = "SELECT id FROM applications WHERE id = ANY ($1)";
        let known = self.connection().await?.query(statement, &[&named_ids]).await?;
        let known: Vec<Uuid> = known.iter().map(|row| row.get(0)).collect();
        for row in &rows {
            let application = named(row).filter(|id| known.contains(&id.0));
            if application == Some(mark.application) {
                continue;
            }
            let subject = application.map_or_else(Uuid::nil, |id| id.0);
            let key = OperationalKey { subject, condition: Condition::MessagesParked };
            add(&mut occurred, key, application, occurrences(row, None));
        }
        Ok(occurred.into_values().collect())
    }

    /// Replays that ended behind the mark and up to `until`.
    pub async fn finished_replays(
        &self,
        mark: &OperationalMark,
        until: Timestamp,
    ) -> Result<Vec<FinishedReplay>, StoreError> {
        let rows = self.query_by_kept_plan(FINISHED, &[&mark.application.0, &mark.counted, &until]).await?;
        let count = |row: &Row, column: &str| row.get::<_, i64>(column).unsigned_abs();
        let replay = |row: &Row| FinishedReplay {
            application: ApplicationId(row.get("application_id")),
            at: row.get("finished_at"),
            figures: ReplayFigures {
                id: ReplayId(row.get("id")),
                state: row.get("state"),
                events: count(row, "events"),
                deliveries: count(row, "deliveries"),
                created_at: row.get("created_at"),
            },
        };
        Ok(rows.iter().map(replay).collect())
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

    /// Writes a change in one commit; `None` if another process has changed a state or the mark meanwhile, or the operator
    /// names another application than `application`. A new backlog gets the owner `process`.
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
        // Last: the statement locks the backlogs, and the commit follows at once.
        let persisted = match change.events {
            [] => Persisted::default(),
            events => self.persist_in(&transaction, process, events).await?,
        };
        transaction.commit().await?;
        Ok(Some(persisted))
    }
}

impl OperationalMark {
    /// The next occurrences to count: from `counted` of the result, at most a day before `settled`, to the returned end.
    /// `None` if all are counted.
    pub fn window(&self, settled: Timestamp) -> Option<(Self, Timestamp)> {
        let counted = self.counted.max(saturating_sub(settled, MAX_COUNTED));
        (counted < settled).then(|| (Self { counted, ..*self }, saturating_add(counted, WINDOW).min(settled)))
    }
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

fn found(row: &Row, condition: Condition, since: Timestamp, figures: Figures) -> FoundCondition {
    FoundCondition {
        key: OperationalKey { subject: row.get("id"), condition },
        application: ApplicationId(row.get("application_id")),
        found: Found { since, figures },
    }
}

fn occurrences(row: &Row, first_delivery: Option<DeliveryId>) -> Occurrences {
    let reasons = BTreeMap::from([(row.get("reason"), row.get::<_, i64>("count").unsigned_abs())]);
    Occurrences { reasons, times: (row.get("first"), row.get("last")), first_delivery }
}

/// Adds the occurrences of a reason.
fn add(
    occurred: &mut HashMap<OperationalKey, Occurred>,
    key: OperationalKey,
    application: Option<ApplicationId>,
    more: Occurrences,
) {
    let Some(known) = occurred.get_mut(&key) else {
        occurred.insert(key, Occurred { key, application, occurrences: more });
        return;
    };
    let known = &mut known.occurrences;
    if more.times.0 < known.times.0 {
        known.first_delivery = more.first_delivery;
    }
    known.times = (known.times.0.min(more.times.0), known.times.1.max(more.times.1));
    for (reason, count) in more.reasons {
        *known.reasons.entry(reason).or_default() += count;
    }
}
