//! The table of running processes: heartbeats, and the release of dead processes' backlogs and fan-outs.

use std::time::Duration;

use fanfare_domain::ids::ProcessId;
use tokio_postgres::Row;
use uuid::Uuid;

use crate::{
    Store, StoreError,
    connection::store::{milliseconds, row_count},
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
    fn as_str(self) -> &'static str {
        match self {
            Self::Dispatcher => "dispatcher",
            Self::Ingest => "ingest",
        }
    }
}

impl Store {
    /// Writes the row of a starting process, or revives the row of a process declared dead.
    pub async fn register(&self, new: &NewProcess, lifetime: Duration) -> Result<(), StoreError> {
        let statement = "INSERT INTO processes (id, kind, version, settings, alive_until)
                         VALUES ($1, $2, $3, $4, now() + $5::bigint * interval '1 millisecond')
                         ON CONFLICT (id) DO UPDATE SET alive_until = excluded.alive_until, is_dead = false";
        let connection = self.connection().await?;
        connection
            .execute(statement, &[&new.id.0, &new.kind.as_str(), &new.version, &new.settings, &milliseconds(lifetime)])
            .await?;
        Ok(())
    }

    /// Renews the row of a process. Returns all living processes, or `None` if this process was declared dead.
    pub async fn renew(
        &self,
        process: ProcessId,
        free_places: usize,
        lifetime: Duration,
    ) -> Result<Option<Vec<LivingProcess>>, StoreError> {
        let statement = "WITH renewed AS (
                             UPDATE processes SET alive_until = now() + $3::bigint * interval '1 millisecond',
                                                  free_places = $2
                             WHERE id = $1 AND NOT is_dead RETURNING id
                         )
                         SELECT p.id, p.kind, p.free_places, p.settings FROM processes p, renewed
                         -- The statement's snapshot has the row of $1 as before the renewal.
                         WHERE p.alive_until > now() AND NOT p.is_dead OR p.id = $1 ORDER BY p.id";
        let connection = self.heartbeats().await?;
        let statement = connection.prepare_cached(statement).await?;
        let free = i32::try_from(free_places).unwrap_or(i32::MAX);
        let rows = connection.query(&statement, &[&process.0, &free, &milliseconds(lifetime)]).await?;
        Ok((!rows.is_empty()).then(|| rows.iter().map(living).collect()))
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
        let statement = "UPDATE endpoint_backlogs b SET owner = NULL, next_look = now()
                         FROM (SELECT endpoint_id FROM endpoint_backlogs WHERE owner = ANY ($1)
                               LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED) orphans
                         WHERE b.endpoint_id = orphans.endpoint_id";
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

fn living(row: &Row) -> LivingProcess {
    LivingProcess {
        id: ProcessId(row.get("id")),
        kind: if row.get::<_, &str>("kind") == "ingest" { ProcessKind::Ingest } else { ProcessKind::Dispatcher },
        free_places: usize::try_from(row.get::<_, i32>("free_places")).unwrap_or_default(),
        settings: row.get("settings"),
    }
}
