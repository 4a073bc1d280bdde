//! The migrations, embedded.

use std::time::Duration;

use jiff::Timestamp;
use tokio_postgres::NoTls;

use crate::{Store, StoreError};

mod embedded {
    // The macro's output, which carries no documentation.
    #![allow(missing_docs, unreachable_pub)]
    refinery::embed_migrations!("migrations");
}

/// Two `fanfare migrate` at once: the second waits for the first.
const LOCK: i64 = 0x66616e66617265;

/// How often a process that starts looks for the schema.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

impl Store {
    /// Brings the schema up to date and makes the partitions for the coming days. Returns the names of
    /// the migrations that it ran.
    ///
    /// # Errors
    /// When the database is away or a migration fails; what was finished before stays.
    pub async fn migrate(&self, now: Timestamp) -> Result<Vec<String>, StoreError> {
        // Its own connection: a migration may take longer than the pool's statement timeout.
        let (mut client, connection) = self.config.connect(NoTls).await?;
        let connection = tokio::spawn(connection);
        client.execute("SELECT pg_advisory_lock($1)", &[&LOCK]).await?;
        let report = embedded::migrations::runner().run_async(&mut client).await?;
        drop(client);
        // The session's end releases the lock.
        let _ = connection.await;
        self.create_partitions(now).await?;
        Ok(report.applied_migrations().iter().map(ToString::to_string).collect())
    }

    /// Whether the schema is that of this release.
    ///
    /// # Errors
    /// When the database is away.
    pub async fn is_migrated(&self) -> Result<bool, StoreError> {
        let connection = self.connection().await?;
        let known = embedded::migrations::runner().get_migrations().iter().map(|one| one.version()).max().unwrap_or(0);
        let present = "SELECT to_regclass('refinery_schema_history') IS NOT NULL";
        if !connection.query_one(present, &[]).await?.get::<_, bool>(0) {
            return Ok(false);
        }
        let newest = "SELECT coalesce(max(version), 0)::bigint FROM refinery_schema_history";
        Ok(connection.query_one(newest, &[]).await?.get::<_, i64>(0) >= i64::from(known))
    }

    /// Waits, at the start of a process, until the database answers and has this release's schema.
    pub async fn wait_until_migrated(&self) {
        loop {
            match self.is_migrated().await {
                Ok(true) => return,
                Ok(false) => tracing::warn!("the database has not the schema of this release; run: fanfare migrate"),
                Err(error) => tracing::warn!(%error, "waiting for the database"),
            }
            tokio::time::sleep(LOOK_AGAIN).await;
        }
    }
}
