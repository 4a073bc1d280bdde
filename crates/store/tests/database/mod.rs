//! A database for each test, copied from a template, with common helpers.

mod authentication;
mod events;
mod look;
mod measure;
mod server;

use std::{future::poll_fn, time::Duration};

use fanfare_domain::ids::{ApplicationId, EndpointId, LeaseId, ProcessId};
use fanfare_store::{Outbox, Store};
use tokio_postgres::{AsyncMessage, Client, NoTls, Row, types::ToSql};
use uuid::Uuid;

pub(crate) use authentication::{authenticate, oauth2};
pub(crate) use events::{
    LEASE, Sent, accepted, delivered, failed, keyed, lease_of, moment, scheduled, sorted, starting, timed, to,
};
pub(crate) use look::Finished;
pub(crate) use server::{Database, settings};

/// Application of most tests.
pub(crate) const APPLICATION: ApplicationId = ApplicationId(Uuid::from_u128(0xa));

/// Two processes, and a third declared dead.
pub(crate) const ONE: ProcessId = ProcessId(Uuid::from_u128(0x101));
pub(crate) const TWO: ProcessId = ProcessId(Uuid::from_u128(0x102));
pub(crate) const DEAD: ProcessId = ProcessId(Uuid::from_u128(0x103));

/// Endpoints 1 to 20 of the application.
pub(crate) fn endpoint(number: u128) -> EndpointId {
    EndpointId(Uuid::from_u128(number))
}

pub(crate) fn lease_id(number: u128) -> LeaseId {
    LeaseId(Uuid::from_u128(0x1000 + number))
}

/// Rows of the template.
pub(crate) const TEMPLATE: &str = "
INSERT INTO applications (id, name) VALUES ('00000000-0000-0000-0000-00000000000a', 'tests');
INSERT INTO endpoints (id, application_id, url, event_types)
    SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid, '00000000-0000-0000-0000-00000000000a',
           'https://receiver.example/', '{*}'
    FROM generate_series(1, 20) n;
";

/// Connects outside the store's pools. Drops notices of the server.
pub(crate) async fn connect(url: &str) -> Client {
    let (client, mut connection) = tokio_postgres::connect(url, NoTls).await.expect("a connection");
    tokio::spawn(async move {
        while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
            drop::<AsyncMessage>(message);
        }
    });
    client
}

impl Database {
    /// Opens another connection.
    pub(crate) async fn connect(&self) -> Client {
        connect(&self.url).await
    }

    /// A store with separate pools.
    pub(crate) fn another_store(&self) -> Store {
        server::store(&self.url)
    }

    /// The outbox in the table of this name.
    pub(crate) fn outbox(&self, table: &str, keeps: bool) -> Outbox {
        Outbox::new(server::settings(&self.url), table.parse().expect("a table"), keeps).expect("an outbox")
    }

    /// Runs statements.
    pub(crate) async fn run(&self, statements: &str) {
        self.client.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
    }

    /// Rows of a statement.
    pub(crate) async fn rows(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Vec<Row> {
        self.client.query(statement, parameters).await.unwrap_or_else(|error| panic!("{statement}: {error:?}"))
    }

    /// Counts the rows of a FROM clause.
    pub(crate) async fn count(&self, from: &str) -> i64 {
        self.rows(&format!("SELECT count(*) FROM {from}"), &[]).await[0].get(0)
    }

    /// Makes `now()` return this time in statements of new sessions.
    pub(crate) async fn set_clock(&self, time: &str) {
        self.run(&format!(
            "CREATE SCHEMA IF NOT EXISTS clock; CREATE TABLE IF NOT EXISTS clock.time (at timestamptz);
             TRUNCATE clock.time; INSERT INTO clock.time VALUES ('{time}');
             CREATE OR REPLACE FUNCTION clock.now() RETURNS timestamptz LANGUAGE sql STABLE
                 AS 'SELECT at FROM clock.time';
             DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET search_path = clock, public, pg_catalog', current_database());
             END $$"
        ))
        .await;
    }

    /// Waits until `sessions` sessions of the database wait for a lock.
    pub(crate) async fn await_waiting(&self, sessions: i64) {
        self.await_sessions(sessions, "%", 400).await;
    }

    /// Waits until a session of the database waits for a lock with a statement like `pattern`.
    pub(crate) async fn await_waiting_statement(&self, pattern: &str) {
        self.await_sessions(1, pattern, 6_000).await;
    }

    async fn await_sessions(&self, sessions: i64, pattern: &str, looks: u32) {
        let waiting = format!(
            "pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '{pattern}'"
        );
        for _ in 0..looks {
            if self.count(&waiting).await >= sessions {
                return;
            }
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        panic!("fewer than {sessions} sessions wait for a lock with a statement like {pattern}");
    }
}
