//! The table of running processes: heartbeats, and the release of dead processes' backlogs and fan-outs.

use std::time::Duration;

use fanfare_domain::ids::ProcessId;
use jiff::Timestamp;
use tokio_postgres::{Row, types::ToSql};
use uuid::Uuid;

use crate::{
    Store, StoreError,
    connection::store::{milliseconds, row_count},
    pipeline::columns::Columns,
};

/// Kind of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ProcessKind {
    /// Delivers events.
    Dispatcher,
    /// Accepts events and serves the API.
    Ingest,
}

/// Row of a starting process.
#[derive(Debug, Clone)]
pub struct NewProcess {
    /// Id of the process.
    pub id: ProcessId,
    /// Kind of the process.
    pub kind: ProcessKind,
    /// Version of Fanfare.
    pub version: String,
    /// Digests of the settings on which all processes must agree, as a JSON object.
    pub settings: String,
    /// Name of the machine or pod.
    pub host: Option<String>,
}

/// State of a process, written with each heartbeat.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ProcessReport {
    /// Free places for attempts.
    pub free_places: usize,
    /// Events in the last 10 s: persisted by a dispatcher, or published over HTTP by ingest.
    pub events: u64,
    /// Attempts in the last 10 s.
    pub attempts: u64,
    /// Places in use: attempts in flight, or not yet recorded.
    pub places_used: usize,
    /// All places.
    pub places: usize,
    /// Bytes of the payloads in the places.
    pub bytes_used: usize,
    /// Maximum bytes of payloads.
    pub bytes: usize,
    /// Lanes of slow endpoints.
    pub lanes_slow: usize,
    /// Lanes with an open breaker.
    pub lanes_open: usize,
    /// Owned backlogs.
    pub backlogs: usize,
    /// Owned backlogs that wait for a place.
    pub backlogs_waiting: usize,
    /// Deliveries in waiting backlogs, counted up to 1,000 each.
    pub due: u64,
    /// Longest wait of a backlog for a place.
    pub longest_wait: Duration,
    /// Un-acked event messages.
    pub events_in_hand: usize,
    /// Un-acked retry messages.
    pub retries_in_hand: usize,
    /// True while the process is connected to the broker and may publish.
    pub has_broker: bool,
    /// True while the database answers the process's statements.
    pub has_database: bool,
    /// Sum of the versions of all applications in the loaded configuration.
    pub configuration: i64,
    /// Deviation of the machine's clock from the database's.
    pub clock_offset: Duration,
    /// Maximum of held deliveries of an endpoint; `None` for ingest.
    pub max_held: Option<usize>,
    /// Longest time for which deliveries are held; `None` for ingest.
    pub max_held_age: Option<Duration>,
}

/// A process on record: alive, or declared dead within the last hour.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessRow {
    /// Id of the process, as in logs.
    pub id: ProcessId,
    /// Kind of the process.
    pub kind: ProcessKind,
    /// Version of Fanfare.
    pub version: String,
    /// Digests of settings, as in [`NewProcess::settings`].
    pub settings: String,
    /// Name of the machine or pod.
    pub host: Option<String>,
    /// Start of the process.
    pub started_at: Timestamp,
    /// Last heartbeat.
    pub seen_at: Option<Timestamp>,
    /// True if the last heartbeat is still valid.
    pub is_alive: bool,
    /// State of the process at the last heartbeat.
    pub report: ProcessReport,
}

/// A living process.
#[derive(Debug, Clone)]
pub struct LivingProcess {
    /// Id of the process.
    pub id: ProcessId,
    /// Kind of the process.
    pub kind: ProcessKind,
    /// Free places for attempts.
    pub free_places: usize,
    /// Digests of settings, as in [`NewProcess::settings`].
    pub settings: String,
}

impl ProcessKind {
    /// Name in the database and the API.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Dispatcher => "dispatcher",
            Self::Ingest => "ingest",
        }
    }
}

impl Store {
    /// Writes the row of a starting process, or revives the row of a process declared dead.
    pub async fn register(&self, new: &NewProcess, lifetime: Duration) -> Result<(), StoreError> {
        let statement = "INSERT INTO processes (id, kind, version, settings, alive_until, host)
                         VALUES ($1, $2, $3, $4, now() + $5::bigint * interval '1 millisecond', $6)
                         ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until, is_dead = false";
        let connection = self.connection().await?;
        let NewProcess { id, kind, version, settings, host } = new;
        let lifetime = milliseconds(lifetime);
        connection.execute(statement, &[&id.0, &kind.as_str(), version, settings, &lifetime, host]).await?;
        Ok(())
    }

    /// Renews the row of a process, with its state. Returns all living processes, or `None` if this process was
    /// declared dead.
    pub async fn renew(
        &self,
        process: ProcessId,
        report: &ProcessReport,
        lifetime: Duration,
    ) -> Result<Option<Vec<LivingProcess>>, StoreError> {
        let columns = report_columns(std::slice::from_ref(report));
        let statement = format!(
            "WITH renewed AS (
                 UPDATE processes p SET alive_until = now() + $2::bigint * interval '1 millisecond', seen_at = now(), {}
                 FROM {} WHERE p.id = $1 AND NOT p.is_dead RETURNING p.id
             )
             SELECT p.id, p.kind, p.free_places, p.settings FROM processes p, renewed
             -- The statement's snapshot has the row of $1 as before the renewal.
             WHERE p.alive_until > now() AND NOT p.is_dead OR p.id = $1 ORDER BY p.id",
            columns.assignments("i"),
            columns.table("i")
        );
        let connection = self.heartbeats().await?;
        let statement = connection.prepare_cached(&statement).await?;
        let lifetime = milliseconds(lifetime);
        let parameters: Vec<&(dyn ToSql + Sync)> =
            [&process.0 as &(dyn ToSql + Sync), &lifetime].into_iter().chain(columns.values()).collect();
        let rows = connection.query(&statement, &parameters).await?;
        Ok((!rows.is_empty()).then(|| rows.iter().map(living).collect()))
    }

    /// All processes on record, ingest last.
    pub async fn processes(&self) -> Result<Vec<ProcessRow>, StoreError> {
        let statement = "SELECT *, alive_until > now() AND NOT is_dead AS is_alive FROM processes ORDER BY kind, id";
        let rows = self.connection().await?.query(statement, &[]).await?;
        Ok(rows.iter().map(process_row).collect())
    }

    /// Removes the row of a stopping process.
    pub async fn unregister(&self, process: ProcessId) -> Result<(), StoreError> {
        self.connection().await?.execute("DELETE FROM processes WHERE id = $1", &[&process.0]).await?;
        Ok(())
    }

    /// Declares processes dead that did not renew their rows. Releases up to `limit` of their backlogs and all their
    /// fan-outs. After an hour, removes the rows of dead processes without backlogs and fan-outs. Returns the number of
    /// released backlogs.
    pub async fn release_dead(&self, limit: usize) -> Result<u64, StoreError> {
        let connection = self.writer().await?;
        let dead = "WITH declared AS (
                        UPDATE processes SET is_dead = true WHERE alive_until < now() AND NOT is_dead RETURNING id
                    )
                    SELECT id FROM declared UNION SELECT id FROM processes WHERE is_dead";
        let dead: Vec<Uuid> = connection.query(dead, &[]).await?.iter().map(|row| row.get(0)).collect();
        if dead.is_empty() {
            return Ok(0);
        }
        // Materialized: a nested loop would run the look again for each row, beyond the limit.
        let statement = "WITH orphans AS MATERIALIZED (
                             SELECT endpoint_id FROM endpoint_backlogs WHERE owner = ANY ($1)
                             LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
                         )
                         UPDATE endpoint_backlogs b SET owner = NULL, next_look = now()
                         FROM orphans WHERE b.endpoint_id = orphans.endpoint_id";
        let released = connection.execute(statement, &[&dead, &row_count(limit)]).await?;
        connection.execute("UPDATE fan_outs SET owner = NULL WHERE owner = ANY ($1)", &[&dead]).await?;
        // A statement of a dead process may wait for the database and commit late. The row stays for an hour, so that a
        // later look finds the late backlogs.
        let statement = "DELETE FROM processes p WHERE is_dead AND alive_until < now() - interval '1 hour'
                           AND NOT EXISTS (SELECT FROM endpoint_backlogs b WHERE b.owner = p.id)
                           AND NOT EXISTS (SELECT FROM fan_outs f WHERE f.owner = p.id)";
        connection.execute(statement, &[]).await?;
        Ok(released)
    }
}

/// Columns of a report, from the parameter $3 on.
fn report_columns(report: &[ProcessReport]) -> Columns<'_, ProcessReport> {
    Columns::new(report, 3)
        .column("free_places", "int", |report| int(report.free_places))
        .column("events", "int", |report| i32::try_from(report.events).unwrap_or(i32::MAX))
        .column("attempts", "int", |report| i32::try_from(report.attempts).unwrap_or(i32::MAX))
        .column("places_used", "int", |report| int(report.places_used))
        .column("places", "int", |report| int(report.places))
        .column("bytes_used", "bigint", |report| row_count(report.bytes_used))
        .column("bytes", "bigint", |report| row_count(report.bytes))
        .column("lanes_slow", "int", |report| int(report.lanes_slow))
        .column("lanes_open", "int", |report| int(report.lanes_open))
        .column("backlogs", "int", |report| int(report.backlogs))
        .column("backlogs_waiting", "int", |report| int(report.backlogs_waiting))
        .column("due", "bigint", |report| i64::try_from(report.due).unwrap_or(i64::MAX))
        .column("longest_wait_ms", "bigint", |report| milliseconds(report.longest_wait))
        .column("events_in_hand", "int", |report| int(report.events_in_hand))
        .column("retries_in_hand", "int", |report| int(report.retries_in_hand))
        .column("has_broker", "bool", |report| report.has_broker)
        .column("has_database", "bool", |report| report.has_database)
        .column("configuration", "bigint", |report| report.configuration)
        .column("clock_offset_ms", "bigint", |report| milliseconds(report.clock_offset))
        .column("max_held", "bigint", |report| report.max_held.map(row_count))
        .column("max_held_age_s", "bigint", |report| report.max_held_age.map(|age| milliseconds(age) / 1000))
}

fn int(count: usize) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}

fn process_row(row: &Row) -> ProcessRow {
    let count = |column: &str| usize::try_from(row.get::<_, i32>(column)).unwrap_or_default();
    let large = |column: &str| row.get::<_, i64>(column).unsigned_abs();
    let size = |count: u64| usize::try_from(count).unwrap_or(usize::MAX);
    let bound = |column: &str| row.get::<_, Option<i64>>(column).map(i64::unsigned_abs);
    ProcessRow {
        id: ProcessId(row.get("id")),
        kind: kind(row),
        version: row.get("version"),
        settings: row.get("settings"),
        host: row.get("host"),
        started_at: row.get("started_at"),
        seen_at: row.get("seen_at"),
        is_alive: row.get("is_alive"),
        report: ProcessReport {
            free_places: count("free_places"),
            events: count("events") as u64,
            attempts: count("attempts") as u64,
            places_used: count("places_used"),
            places: count("places"),
            bytes_used: size(large("bytes_used")),
            bytes: size(large("bytes")),
            lanes_slow: count("lanes_slow"),
            lanes_open: count("lanes_open"),
            backlogs: count("backlogs"),
            backlogs_waiting: count("backlogs_waiting"),
            due: large("due"),
            longest_wait: Duration::from_millis(large("longest_wait_ms")),
            events_in_hand: count("events_in_hand"),
            retries_in_hand: count("retries_in_hand"),
            has_broker: row.get("has_broker"),
            has_database: row.get("has_database"),
            configuration: row.get("configuration"),
            clock_offset: Duration::from_millis(large("clock_offset_ms")),
            max_held: bound("max_held").map(size),
            max_held_age: bound("max_held_age_s").map(Duration::from_secs),
        },
    }
}

fn kind(row: &Row) -> ProcessKind {
    if row.get::<_, &str>("kind") == "ingest" { ProcessKind::Ingest } else { ProcessKind::Dispatcher }
}

fn living(row: &Row) -> LivingProcess {
    LivingProcess {
        id: ProcessId(row.get("id")),
        kind: kind(row),
        free_places: usize::try_from(row.get::<_, i32>("free_places")).unwrap_or_default(),
        settings: row.get("settings"),
    }
}
