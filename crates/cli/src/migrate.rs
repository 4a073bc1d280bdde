//! `fanfare migrate`: brings the schema up to date, builds indexes, and gives ingest its rights.

use std::{future::Future, time::Duration};

use anyhow::Context;
use clap::Args;
use fanfare_store::{Store, StoreError};
use jiff::Timestamp;
use tokio::time::{Instant, sleep};

/// Wait between two tries to reach the database.
const TRY_AGAIN: Duration = Duration::from_millis(500);

#[derive(Args)]
pub(crate) struct MigrateArguments {
    /// Seconds to wait for a database that does not answer yet.
    #[arg(long, default_value_t = 0)]
    wait: u64,
    /// Prints the migrations that are missing, with their locks, and the indexes to build. Changes nothing.
    #[arg(long, conflicts_with_all = ["leave_indexes", "ingest_role"])]
    plan: bool,
    /// Leaves indexes of large tables to the dispatchers, which build one partition after the other.
    #[arg(long)]
    leave_indexes: bool,
    /// Role of ingest. Gets the rights of deploy/roles.sql, anew after each migration.
    #[arg(long)]
    ingest_role: Option<String>,
}

pub(crate) async fn run(store: &Store, arguments: &MigrateArguments) -> anyhow::Result<()> {
    let end = Instant::now() + Duration::from_secs(arguments.wait);
    if arguments.plan {
        return plan(store, end).await;
    }
    let migrated = waiting(end, || store.migrate(Timestamp::now())).await;
    let applied = migrated.context("cannot bring the schema up to date")?;
    if applied.is_empty() {
        println!("the schema is up to date");
    }
    applied.iter().for_each(|name| println!("applied {name}"));
    if !arguments.leave_indexes {
        let built = store.build_indexes().await.context("the schema is up to date, but an index cannot be built")?;
        match built {
            Some(0) => {}
            Some(built) => println!("built {built} indexes"),
            None => println!("another process builds the indexes"),
        }
    }
    if let Some(role) = &arguments.ingest_role {
        let granted = store.grant_ingest(role).await;
        granted.with_context(|| format!("cannot give the role {role} its rights; create it: CREATE ROLE … LOGIN"))?;
        println!("{role} has the rights of ingest");
    }
    Ok(())
}

async fn plan(store: &Store, end: Instant) -> anyhow::Result<()> {
    let planned = waiting(end, || store.planned()).await;
    let (migrations, indexes) = planned.context("cannot read the schema")?;
    if migrations.is_empty() && indexes.is_empty() {
        println!("the schema is up to date");
    }
    for migration in migrations {
        println!("{}: {}", migration.name, migration.purpose);
    }
    for index in indexes {
        println!("index {index}: built without blocking writes");
    }
    Ok(())
}

/// Tries again until `end` while the database is away.
async fn waiting<T, F: Future<Output = Result<T, StoreError>>>(
    end: Instant,
    mut work: impl FnMut() -> F,
) -> Result<T, StoreError> {
    loop {
        match work().await {
            Err(error) if error.is_transient() && Instant::now() < end => {
                eprintln!("waiting for the database: {error}");
                sleep(TRY_AGAIN).await;
            }
            done => return done,
        }
    }
}
