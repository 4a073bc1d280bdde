//! Facts about the database, for `fanfare doctor` and `fanfare verify`.

use std::time::{Duration, Instant};

use fanfare_domain::ids::ApplicationId;
use jiff::Timestamp;

use crate::{Store, StoreError, connection::store::row_count, operations::migrations::newest_known};

/// Number of commits that are measured.
const COMMITS: usize = 50;

/// Facts about the database.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DatabaseFacts {
    /// Version, as `server_version`.
    pub version: String,
    /// Version as a number, such as 150018.
    pub version_number: i32,
    /// False on a standby.
    pub is_primary: bool,
    /// Protocol of the encrypted connection, if encrypted.
    pub tls: Option<String>,
    /// User of the connection.
    pub user: String,
    /// True for a superuser.
    pub is_superuser: bool,
    /// True if the user owns all tables, or there are none.
    pub owns_tables: bool,
    /// Newest migration in the database; 0 for none.
    pub migration: i64,
    /// Newest migration of this release.
    pub known_migration: i64,
    /// Invalid indexes.
    pub invalid_indexes: Vec<String>,
    /// Settings of the server, by name.
    pub settings: Vec<(String, String)>,
    /// Number of attached standbys.
    pub standbys: i64,
    /// Open sessions of all users.
    pub sessions: i64,
    /// Replication slots without a receiver, which keep the log for ever.
    pub idle_slots: Vec<String>,
    /// Process ids and ages in seconds of transactions older than five minutes.
    pub old_transactions: Vec<(i32, i64)>,
    /// Deviation of this machine's clock.
    pub clock_offset: Duration,
}

/// Counts of an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ApplicationCounts {
    /// Open deliveries.
    pub open: usize,
    /// Failed deliveries.
    pub failed: usize,
    /// Attempts on record.
    pub attempts: usize,
}

/// Settings of the server that the doctor judges.
const SETTINGS: [&str; 9] = [
    "autovacuum",
    "fsync",
    "full_page_writes",
    "log_min_duration_statement",
    "log_parameter_max_length",
    "log_statement",
    "max_connections",
    "synchronous_commit",
    "synchronous_standby_names",
];

/// Facts about the session. The number of sessions includes those of other users, whose details only monitors may see.
const SESSION: &str = "
SELECT current_setting('server_version') AS version, current_setting('server_version_num')::int AS number,
       NOT pg_is_in_recovery() AS is_primary,
       (SELECT s.version FROM pg_stat_ssl s WHERE s.pid = pg_backend_pid() AND s.ssl) AS tls,
       current_user::text AS user, r.rolsuper AS is_superuser,
       NOT EXISTS (SELECT FROM pg_class c
                   WHERE c.relnamespace = current_schema()::regnamespace AND c.relkind IN ('r', 'p')
                     AND NOT pg_has_role(c.relowner, 'USAGE')) AS owns_tables,
       (SELECT count(*) FROM pg_stat_replication r
        WHERE NOT EXISTS (SELECT FROM pg_replication_slots s WHERE s.active_pid = r.pid AND s.slot_type = 'logical')
          AND r.application_name NOT IN ('pg_basebackup', 'pg_receivewal')) AS standbys,
       (SELECT coalesce(sum(numbackends), 0)::bigint FROM pg_stat_database) AS sessions
FROM pg_roles r WHERE r.rolname = current_user";

const INVALID_INDEXES: &str = "
SELECT c.relname::text FROM pg_index x JOIN pg_class c ON c.oid = x.indexrelid
WHERE c.relnamespace = current_schema()::regnamespace AND NOT (x.indisvalid AND x.indisready) ORDER BY 1";

const IDLE_SLOTS: &str = "SELECT slot_name::text FROM pg_replication_slots WHERE NOT active ORDER BY 1";

/// Transactions older than five minutes; of other users, only as far as the user may see them.
const OLD_TRANSACTIONS: &str = "
SELECT pid, extract(epoch FROM now() - xact_start)::bigint FROM pg_stat_activity
WHERE xact_start < now() - interval '5 minutes' AND backend_type = 'client backend' ORDER BY 2 DESC";

impl Store {
    /// Gathers facts about the database.
    ///
    /// # Errors
    /// If the database is away, or refuses a question; [`StoreError::SharedSessions`].
    pub async fn examine(&self) -> Result<DatabaseFacts, StoreError> {
        self.check_sessions().await?;
        let migration = self.newest_migration().await?;
        // A connection outside the pools: the facts of a pooled session would be the pool's settings.
        let (client, connection) = self.dial().await?;
        tokio::spawn(connection);
        let row = client.query_one(SESSION, &[]).await?;
        let text = async |statement: &str| -> Result<Vec<String>, StoreError> {
            Ok(client.query(statement, &[]).await?.iter().map(|row| row.get(0)).collect())
        };
        let (invalid_indexes, idle_slots) = (text(INVALID_INDEXES).await?, text(IDLE_SLOTS).await?);
        let old_transactions =
            client.query(OLD_TRANSACTIONS, &[]).await?.iter().map(|row| (row.get(0), row.get(1))).collect();
        let settings = "SELECT name, setting FROM pg_settings WHERE name = ANY ($1) ORDER BY name";
        let settings = client.query(settings, &[&SETTINGS.as_slice()]).await?;
        let now: Timestamp = client.query_one("SELECT clock_timestamp()", &[]).await?.get(0);
        let clock_offset = Timestamp::now().duration_since(now).unsigned_abs();
        Ok(DatabaseFacts {
            version: row.get("version"),
            version_number: row.get("number"),
            is_primary: row.get("is_primary"),
            tls: row.get("tls"),
            user: row.get("user"),
            is_superuser: row.get("is_superuser"),
            owns_tables: row.get("owns_tables"),
            migration,
            known_migration: newest_known()?,
            invalid_indexes,
            settings: settings.iter().map(|row| (row.get(0), row.get(1))).collect(),
            standbys: row.get("standbys"),
            sessions: row.get("sessions"),
            idle_slots,
            old_transactions,
            clock_offset,
        })
    }

    /// Durations of commits, sorted. Each commit writes to the log, and leaves no row. A commit waits for a synchronous
    /// standby without a limit: the caller sets the limit.
    ///
    /// # Errors
    /// If the database is away, or a standby.
    pub async fn measure_commits(&self) -> Result<Vec<Duration>, StoreError> {
        let (client, connection) = self.dial().await?;
        tokio::spawn(connection);
        let mut commits = Vec::new();
        for _ in 0..COMMITS {
            let began = Instant::now();
            client.execute("SELECT pg_logical_emit_message(true, 'fanfare doctor', '')", &[]).await?;
            commits.push(began.elapsed());
        }
        commits.sort_unstable();
        Ok(commits)
    }

    /// Counts the deliveries and attempts of an application.
    pub async fn application_counts(&self, application: ApplicationId) -> Result<ApplicationCounts, StoreError> {
        let statement = "
SELECT (SELECT count(*) FROM open_deliveries WHERE application_id = $1),
       (SELECT count(*) FROM deliveries WHERE application_id = $1 AND state = 'failed'),
       (SELECT count(*) FROM attempts WHERE application_id = $1)
           + (SELECT count(*) FROM deliveries WHERE application_id = $1 AND started_at IS NOT NULL)";
        let row = self.connection().await?.query_one(statement, &[&application.0]).await?;
        let count = |column| usize::try_from(row.get::<_, i64>(column)).unwrap_or_default();
        Ok(ApplicationCounts { open: count(0), failed: count(1), attempts: count(2) })
    }

    /// URLs of up to `limit` enabled endpoints, the newest first.
    pub async fn sample_urls(&self, limit: usize) -> Result<Vec<String>, StoreError> {
        let statement =
            "SELECT url FROM endpoints WHERE deleted_at IS NULL AND status = 'enabled' ORDER BY id DESC LIMIT $1";
        let rows = self.connection().await?.query(statement, &[&row_count(limit)]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }
}
