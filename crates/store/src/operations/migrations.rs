//! Runs the embedded migrations.

use std::time::Duration;

use jiff::Timestamp;
use refinery_core::{Error, Migration, Report, Runner, error::Kind};
use tokio_postgres::{Client, error::SqlState};

use crate::{Store, StoreError};

/// A migration of this release.
struct Embedded {
    /// Name of the file, `V<version>__<name>`.
    name: &'static str,
    /// Purpose, locks and their duration, for `fanfare migrate --plan`. Not in the file: a released file never changes.
    purpose: &'static str,
    sql: &'static str,
}

/// Migrations of this release, in their order. A list instead of refinery's macro: the macro compiles refinery and its
/// regular expressions a second time.
const MIGRATIONS: [Embedded; 21] = [
    Embedded {
        name: "V1__schema",
        purpose: "The schema of the first release. Locks: none on existing tables.",
        sql: include_str!("../../migrations/V1__schema.sql"),
    },
    Embedded {
        name: "V2__tracestate",
        purpose: "A column for the trace state of events. Locks: events and all its partitions, exclusively, for \
                  milliseconds. The migration waits at most 2 s for each lock, and tries again up to 30 times. Writes of \
                  events wait as long as the migration.",
        sql: include_str!("../../migrations/V2__tracestate.sql"),
    },
    Embedded {
        name: "V3__trace_context",
        purpose: "A column for endpoints that receive trace contexts. Locks: endpoints, exclusively, for milliseconds.",
        sql: include_str!("../../migrations/V3__trace_context.sql"),
    },
    Embedded {
        name: "V4__archived_days",
        purpose: "Marks of archived days. Locks: retention, exclusively, for milliseconds.",
        sql: include_str!("../../migrations/V4__archived_days.sql"),
    },
    Embedded {
        name: "V5__sessions",
        purpose: "Sessions of the web pages, and the visitor in the audit log. Locks: audit_log, exclusively, for \
                  milliseconds.",
        sql: include_str!("../../migrations/V5__sessions.sql"),
    },
    Embedded {
        name: "V6__rollups",
        purpose: "Counts of attempts and events for charts, the state of processes, queues and jobs, and three indexes \
                  that `fanfare migrate` builds afterwards. Locks: processes, attempts and deliveries, exclusively, and writes of \
                  secrets, events and deliveries, for milliseconds. The migration waits at most 2 s for each lock, and \
                  tries again up to 30 times.",
        sql: include_str!("../../migrations/V6__rollups.sql"),
    },
    Embedded {
        name: "V7__search",
        purpose: "Indexes for searches: parked messages by message id, reason and routing key, and scheduled \
                  deliveries by endpoint. Locks: parked and open_deliveries, against writes, while the indexes are \
                  built: about a second for each million of open deliveries.",
        sql: include_str!("../../migrations/V7__search.sql"),
    },
    Embedded {
        name: "V8__parked_sizes",
        purpose: "A column for the sizes of parked messages. Locks: parked, exclusively, for milliseconds.",
        sql: include_str!("../../migrations/V8__parked_sizes.sql"),
    },
    Embedded {
        name: "V9__versions",
        purpose: "Versions of endpoints, of the settings of applications and of keys. Locks: endpoints and applications, \
                  exclusively, while an index of endpoints is built: about a second for each million of endpoints.",
        sql: include_str!("../../migrations/V9__versions.sql"),
    },
    Embedded {
        name: "V10__feeds",
        purpose: "Feeds: columns of endpoints, an index of temporary endpoints, and a table of entries. Locks: endpoints, \
                  exclusively, for milliseconds.",
        sql: include_str!("../../migrations/V10__feeds.sql"),
    },
    Embedded {
        name: "V11__schemas",
        purpose: "A table for the schemas of event types, and their version in applications. Locks: applications and \
                  event_types, exclusively, for milliseconds.",
        sql: include_str!("../../migrations/V11__schemas.sql"),
    },
    Embedded {
        name: "V12__order",
        purpose: "Order: columns of events, endpoints and open deliveries, tables of numbers and of keys to advance, an \
                  index and a trigger of open deliveries. Locks: events with all partitions, endpoints and \
                  open_deliveries, exclusively, for milliseconds, and about a second for each million of open \
                  deliveries.",
        sql: include_str!("../../migrations/V12__order.sql"),
    },
    Embedded {
        name: "V13__filters",
        purpose: "A column for the filters of endpoints. Locks: endpoints, exclusively, for milliseconds.",
        sql: include_str!("../../migrations/V13__filters.sql"),
    },
    Embedded {
        name: "V14__delayed_events",
        purpose: "Delayed events: a table of events that are not yet due, and columns of events. Locks: events and all its \
                  partitions, exclusively, for milliseconds. The migration waits at most 2 s for each lock, and tries \
                  again up to 30 times. Writes of events wait as long as the migration.",
        sql: include_str!("../../migrations/V14__delayed_events.sql"),
    },
    Embedded {
        name: "V15__templates",
        purpose: "Columns for the templates of endpoints, and a table of the bodies that templates make. Locks: endpoints \
                  and open_deliveries, exclusively, for milliseconds. The migration waits at most 2 s for each lock, and \
                  tries again up to 30 times.",
        sql: include_str!("../../migrations/V15__templates.sql"),
    },
    Embedded {
        name: "V16__digests",
        purpose: "Daily digests: a column of endpoints, an index of endpoints with digests, and a table of what was \
                  told. Locks: endpoints, exclusively, while the index is built: about 0.1 s for each million of endpoints.",
        sql: include_str!("../../migrations/V16__digests.sql"),
    },
    Embedded {
        name: "V17__rests",
        purpose: "A column for the wait that an endpoint asked for, and two indexes for the overview. Locks: \
                  endpoint_backlogs, exclusively, for milliseconds; endpoints against writes, while the indexes are \
                  built: about 0.1 s for each million of endpoints.",
        sql: include_str!("../../migrations/V17__rests.sql"),
    },
    Embedded {
        name: "V18__signing_keys",
        purpose: "Asymmetric signatures: a column of endpoints, and a table of keys of applications. Locks: endpoints, \
                  exclusively, and applications, against writes, for milliseconds.",
        sql: include_str!("../../migrations/V18__signing_keys.sql"),
    },
    Embedded {
        name: "V19__operational_events",
        purpose: "Operational events: a column, a trigger and an index of endpoints, an index of replays, tables of told \
                  states, and an index of deliveries that `fanfare migrate` builds afterwards. Locks: endpoints, \
                  exclusively, and writes of replays and deliveries, for milliseconds, and while the index of endpoints is \
                  built: about 0.1 s for each million of endpoints. The migration waits at most 2 s for each lock, and \
                  tries again up to 30 times.",
        sql: include_str!("../../migrations/V19__operational_events.sql"),
    },
    Embedded {
        name: "V20__plans",
        purpose: "Plans, labels and usage: tables of plans and of the usage by day, and columns of applications and of \
                  the counts. Locks: rollup_marks, applications, rollups and rollups_hourly with all partitions, \
                  exclusively, for milliseconds. The migration waits at most 2 s for each lock, and tries again up to 30 times.",
        sql: include_str!("../../migrations/V20__plans.sql"),
    },
    Embedded {
        name: "V21__authentication",
        purpose: "Columns for the authentication and the client certificates of endpoints, an index of endpoints with a \
                  certificate, and a table of the tokens of token servers. Locks: endpoints, exclusively, while the index \
                  is built: about 0.1 s for each million of endpoints.",
        sql: include_str!("../../migrations/V21__authentication.sql"),
    },
];

/// Advisory lock of a migration: a second `fanfare migrate` waits for the first.
const LOCK: i64 = 0x66616e66617265;

/// Advisory lock of the building of indexes. Another lock, since a migration must not wait for hours.
const INDEXES_LOCK: i64 = LOCK + 1;

/// Rights of ingest's role, in the form for operators: the role is called [`INGEST_ROLE`].
const ROLES: &str = include_str!("../../../../deploy/roles.sql");
const INGEST_ROLE: &str = "fanfare_ingest";

/// Interval between two checks of the schema at a process's start, and between two tries of a migration.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// Lock timeout of a migration, and the maximum of tries.
const LOCK_TIMEOUT: Duration = Duration::from_secs(2);
const MAX_TRIES: usize = 30;

/// The work of a migration that has not run yet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PlannedMigration {
    /// Version and name.
    pub name: String,
    /// Purpose, locks and their duration.
    pub purpose: &'static str,
}

impl Store {
    /// Brings the schema up to date, and creates the partitions of the coming days. Returns the names of the migrations
    /// run by this call. Indexes of partitioned tables may be missing afterwards: [`Self::build_indexes`].
    ///
    /// # Errors
    /// [`StoreError::Migration`] if a migration fails. Finished migrations stay.
    pub async fn migrate(&self, now: Timestamp) -> Result<Vec<String>, StoreError> {
        self.check_sessions().await?;
        // A connection outside the pool: a migration may take longer than the pool's statement timeout.
        let (mut client, connection) = self.dial().await?;
        let connection = tokio::spawn(connection);
        client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
        let report = run(&mut client).await?;
        drop(client);
        // The session's end releases the lock.
        let _ = connection.await;
        self.create_partitions(now).await?;
        Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
    }

    /// Builds the missing indexes of partitioned tables, without blocking writes. Returns the number of built indexes;
    /// `None` while another process builds.
    ///
    /// # Errors
    /// If the database is away, or an index cannot be built. The next call continues.
    pub async fn build_indexes(&self) -> Result<Option<usize>, StoreError> {
        let (client, connection) = self.dial().await?;
        tokio::spawn(connection);
        let is_alone: bool = client.query_one("SELECT pg_try_advisory_lock($1)", &[&INDEXES_LOCK]).await?.get(0);
        if !is_alone {
            return Ok(None);
        }
        let built = build_indexes(&client).await?;
        // The session's end would release the lock later than this call returns.
        client.execute("SELECT pg_advisory_unlock($1)", &[&INDEXES_LOCK]).await?;
        Ok(Some(built))
    }

    /// Gives a role the rights of ingest, and takes all other rights on tables away.
    ///
    /// # Errors
    /// If the role does not exist, or the tables have another owner.
    pub async fn grant_ingest(&self, role: &str) -> Result<(), StoreError> {
        // A connection outside the pool: an error leaves the transaction of the file open.
        let (client, connection) = self.dial().await?;
        tokio::spawn(connection);
        let quoted: String = client.query_one("SELECT quote_ident($1)", &[&role]).await?.get(0);
        // Without the comments, which a line break in the role's name would end.
        let statements: Vec<&str> = ROLES.lines().filter(|line| !line.starts_with("--")).collect();
        Ok(client.batch_execute(&statements.join("\n").replace(INGEST_ROLE, &quoted)).await?)
    }

    /// Migrations that [`Self::migrate`] would run, and indexes that [`Self::build_indexes`] would build, each as
    /// `index on partition`. Changes and locks nothing.
    pub async fn planned(&self) -> Result<(Vec<PlannedMigration>, Vec<String>), StoreError> {
        let newest = self.newest_migration().await?;
        let all = migrations()?.into_iter().zip(MIGRATIONS);
        let missing = all.filter(|(migration, _)| i64::from(migration.version()) > newest);
        let planned = missing
            .map(|(migration, Embedded { purpose, .. })| PlannedMigration { name: migration.to_string(), purpose });
        let connection = self.connection().await?;
        let indexes = connection.query(MISSING_INDEXES, &[]).await?;
        let indexes =
            indexes.iter().map(|row| format!("{} on {}", row.get::<_, &str>("child"), row.get::<_, &str>("partition")));
        Ok((planned.collect(), indexes.collect()))
    }

    /// Version of the newest migration in the database; 0 without a schema.
    pub async fn newest_migration(&self) -> Result<i64, StoreError> {
        let connection = self.connection().await?;
        let present = "SELECT to_regclass('refinery_schema_history') IS NOT NULL";
        if !connection.query_one(present, &[]).await?.get::<_, bool>(0) {
            return Ok(0);
        }
        let newest = "SELECT coalesce(max(version), 0)::bigint FROM refinery_schema_history";
        Ok(connection.query_one(newest, &[]).await?.get(0))
    }

    /// True if the schema has all migrations of this release. Indexes may still be missing: without them statements are
    /// slower, but correct.
    pub async fn is_migrated(&self) -> Result<bool, StoreError> {
        Ok(self.newest_migration().await? >= newest_known()?)
    }

    /// Waits at a process's start until the database answers and has this release's schema.
    ///
    /// # Errors
    /// [`StoreError::SharedSessions`]: no wait helps.
    pub async fn wait_until_migrated(&self) -> Result<(), StoreError> {
        let is_migrated = async || {
            self.check_sessions().await?;
            self.is_migrated().await
        };
        loop {
            match is_migrated().await {
                Ok(true) => return Ok(()),
                Err(error @ StoreError::SharedSessions) => return Err(error),
                Ok(false) => tracing::warn!("the database has not the schema of this release; run: fanfare migrate"),
                Err(error) => tracing::warn!(%error, "waiting for the database"),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}

/// Runs the missing migrations. All users of a table wait behind a migration's wait for a lock on the whole table. The
/// migration therefore gives up after [`LOCK_TIMEOUT`], and tries again. It also tries again after a deadlock: a
/// statement of the running processes may lock the same tables in another order.
async fn run(client: &mut Client) -> Result<Report, StoreError> {
    be_impatient(client).await?;
    for _ in 1..MAX_TRIES {
        match runner()?.run_async(client).await {
            Err(error) if lacks_lock(&error) => wait_for_lock().await,
            report => return Ok(report?),
        }
    }
    Ok(runner()?.run_async(client).await?)
}

fn migrations() -> Result<Vec<Migration>, Error> {
    MIGRATIONS.iter().map(|migration| Migration::unapplied(migration.name, migration.sql)).collect()
}

/// Version of the newest migration of this release.
pub(super) fn newest_known() -> Result<i64, Error> {
    Ok(migrations()?.iter().map(|migration| i64::from(migration.version())).max().unwrap_or(0))
}

/// Ignores unknown migrations: an operator may return to this release, whose `fanfare migrate` then does nothing.
fn runner() -> Result<Runner, Error> {
    Ok(Runner::new(&migrations()?).set_abort_missing(false))
}

async fn be_impatient(client: &Client) -> Result<(), StoreError> {
    Ok(client.batch_execute(&format!("SET lock_timeout = '{}ms'", LOCK_TIMEOUT.as_millis())).await?)
}

async fn wait_for_lock() {
    tracing::warn!("another session holds a lock needed by a migration; trying again");
    tokio::time::sleep(LOOK_AGAIN).await;
}

fn lacks_lock(error: &Error) -> bool {
    let Kind::Connection(_, source) = error.kind() else { return false };
    let code = source.downcast_ref::<tokio_postgres::Error>().and_then(tokio_postgres::Error::code);
    code.is_some_and(|code| [SqlState::LOCK_NOT_AVAILABLE, SqlState::T_R_DEADLOCK_DETECTED].contains(code))
}

/// Indexes declared `ON ONLY` a partitioned table that a partition lacks, or that are half built there.
const MISSING_INDEXES: &str = "SELECT format('%I', i.relname) AS parent, format('%I', i.relname || replace(p.relname, t.relname, '')) AS child,
                          format('%I', p.relname) AS partition, substring(pg_get_indexdef(i.oid) FROM ' USING .*') AS definition,
                          half.indexrelid IS NOT NULL AS is_half_built
                   FROM pg_index x
                   JOIN pg_class i ON i.oid = x.indexrelid AND i.relkind = 'I' AND NOT x.indisvalid
                   JOIN pg_class t ON t.oid = x.indrelid AND t.relnamespace = current_schema()::regnamespace
                   JOIN pg_inherits h ON h.inhparent = t.oid
                   JOIN pg_class p ON p.oid = h.inhrelid
                   LEFT JOIN pg_class c ON c.relname = i.relname || replace(p.relname, t.relname, '')
                                       AND c.relnamespace = t.relnamespace
                   LEFT JOIN pg_index half ON half.indexrelid = c.oid AND NOT half.indisvalid
                   WHERE NOT EXISTS (SELECT FROM pg_inherits a JOIN pg_index b ON b.indexrelid = a.inhrelid
                                     WHERE a.inhparent = i.oid AND b.indrelid = p.oid)
                   ORDER BY i.relname, p.relname";

/// Builds the missing indexes one partition after the other, without blocking writes. Within the migration, all writes
/// would wait for all indexes. Rebuilds an index left half-built by an earlier run.
async fn build_indexes(client: &Client) -> Result<usize, StoreError> {
    let missing = client.query(MISSING_INDEXES, &[]).await?;
    for row in &missing {
        let text = |column: &str| row.get::<_, &str>(column);
        let (parent, child, partition, definition) =
            (text("parent"), text("child"), text("partition"), text("definition"));
        if row.get("is_half_built") {
            client.batch_execute(&format!("DROP INDEX CONCURRENTLY {child}")).await?;
        }
        tracing::info!(index = child, "building an index");
        // The build waits for older transactions, and no session waits for the build.
        client.batch_execute("SET lock_timeout = 0").await?;
        client
            .batch_execute(&format!("CREATE INDEX CONCURRENTLY IF NOT EXISTS {child} ON {partition} {definition}"))
            .await?;
        attach(client, parent, child).await?;
    }
    Ok(missing.len())
}

/// Attaches a built index to the index of the whole table. All other users of that index wait behind this statement, so
/// that its own wait for the lock must be short.
async fn attach(client: &Client, parent: &str, child: &str) -> Result<(), StoreError> {
    be_impatient(client).await?;
    let statement = format!("ALTER INDEX {parent} ATTACH PARTITION {child}");
    for _ in 1..MAX_TRIES {
        match client.batch_execute(&statement).await {
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => wait_for_lock().await,
            attached => return Ok(attached?),
        }
    }
    Ok(client.batch_execute(&statement).await?)
}

#[cfg(test)]
mod tests {
    use std::{fs, path::Path};

    use super::{INGEST_ROLE, MIGRATIONS, ROLES, migrations};

    #[test]
    fn each_migration_names_its_locks() {
        for migration in MIGRATIONS {
            assert!(migration.purpose.contains("Locks: "), "{}: {}", migration.name, migration.purpose);
        }
        assert!(ROLES.contains(INGEST_ROLE));
    }

    #[test]
    fn the_list_has_each_file_once_in_order() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("migrations");
        let files = fs::read_dir(folder).expect("the migrations").map(|entry| entry.expect("an entry").path());
        let files = files.filter(|path| path.extension().is_some_and(|extension| extension == "sql"));
        let mut names: Vec<String> =
            files.map(|path| path.file_stem().expect("a name").to_string_lossy().into_owned()).collect();
        names.sort_by_key(|name| name[1..].split("__").next().and_then(|number| number.parse::<u32>().ok()));
        assert_eq!(names, MIGRATIONS.map(|migration| migration.name));
        let versions =
            migrations().expect("valid names").iter().map(|migration| migration.version()).collect::<Vec<_>>();
        assert!(versions.is_sorted_by(|one, next| one < next), "{versions:?}");
    }
}
