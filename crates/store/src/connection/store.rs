//! The database of a process: connections, deadlines, durability.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use deadpool_postgres::Object;
use fanfare_credentials::Credentials;
use jiff::Timestamp;
use tokio::{sync::watch, time::timeout};
use tokio_postgres::{Client, Config, SimpleQueryMessage};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    Keyring, StoreError,
    connection::{
        caller::{Leased, Share},
        clock::Clock,
        dialler::{Dialled, Dialler, SET_UP_LIMIT},
        pools::{LOST_CLIENTS, PoolState, Pools},
        tls,
    },
};

/// Settings of a process for its database.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// URL of the database.
    pub url: DatabaseUrl,
    /// User and password.
    pub credentials: Credentials,
    /// Maximum of general connections. The store opens up to seven more, for batch statements and the heartbeat, and
    /// the listener one.
    pub connections: usize,
    /// Keys for stored secrets.
    pub keyring: Keyring,
}

/// URL of the database: `postgres://user:password@host:port/database`. As in libpq, `sslmode` is `disable`, `prefer`
/// (default), `require`, `verify-ca` or `verify-full`, and `sslrootcert` names a PEM file.
#[derive(Clone)]
pub struct DatabaseUrl {
    config: Config,
    tls: MakeRustlsConnect,
}

impl FromStr for DatabaseUrl {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (text, tls) = tls::split(text)?;
        let config = Config::from_str(&text).map_err(|error| match std::error::Error::source(&error) {
            Some(reason) => format!("{error}: {reason}"),
            None => error.to_string(),
        })?;
        if config.get_hosts().is_empty() {
            return Err("no host; write it like postgres://user:password@host:5432/database".to_owned());
        }
        Ok(Self { config, tls })
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "DatabaseUrl({:?}, …)", self.config.get_hosts())
    }
}

/// All statements of Fanfare. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    config: Config,
    dialler: Dialler,
    pub(crate) pools: Pools,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) clock: Arc<Clock>,
    /// Changes when the listener finds the open connections silent.
    silence: watch::Sender<()>,
}

/// Comparisons of two sessions. A busy pooler may lend two sessions by chance.
const COMPARED: usize = 10;

impl Store {
    /// Prepares the pools without connecting. Each statement waits for its connection, so that a database may be away
    /// at the start.
    ///
    /// # Errors
    /// If the settings yield no pool.
    pub fn new(settings: StoreSettings) -> Result<Self, StoreError> {
        let DatabaseUrl { mut config, tls } = settings.url;
        let dialler = Dialler::new(tls, settings.credentials);
        config
            .connect_timeout(Duration::from_secs(5))
            .keepalives_idle(Duration::from_secs(30))
            .tcp_user_timeout(Duration::from_secs(15))
            .application_name("fanfare");
        Ok(Self {
            pools: Pools::new(&config, &dialler, settings.connections)?,
            config,
            dialler,
            keyring: Arc::new(settings.keyring),
            clock: Arc::default(),
            silence: watch::Sender::new(()),
        })
    }

    /// The same database over `connections` of their own, general connections and writers, for statements that must
    /// hold up no others. A longer statement than `statement_timeout` fails. [`Self::pools`] shows the connections as
    /// `name`.
    ///
    /// # Errors
    /// If the settings yield no pool.
    pub fn beside(
        &self,
        name: &'static str,
        connections: [usize; 2],
        statement_timeout: Duration,
    ) -> Result<Self, StoreError> {
        let pools = self.pools.beside((&self.config, &self.dialler), name, connections, statement_timeout)?;
        Ok(Self { pools, ..self.clone() })
    }

    /// The database's time, while a [`Directory`](crate::Directory) follows the clock.
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// Deviation of the machine's clock from the database's clock.
    pub fn clock_offset(&self) -> Duration {
        self.clock.offset().unsigned_abs()
    }

    /// States of the process's connections by user, also of [`Self::beside`].
    pub fn pools(&self) -> Vec<PoolState> {
        self.pools.states()
    }

    /// Dials a connection outside the pools. The client gets answers only while the caller polls the driver.
    pub(crate) async fn dial(&self) -> Result<(Client, Dialled), StoreError> {
        let dialled = timeout(SET_UP_LIMIT, async {
            let (client, mut connection) = self.dialler.dial(&self.config).await?;
            tokio::select! {
                biased;
                set = client.batch_execute(LOST_CLIENTS) => set?,
                ended = &mut connection => {
                    ended?;
                    return Err(StoreError::Unavailable("the database ended a new connection".into()));
                }
            }
            Ok((client, connection))
        });
        dialled.await.unwrap_or_else(|late| Err(StoreError::Unavailable(late.into())))
    }

    /// Connection for all statements except batch statements.
    pub(crate) async fn connection(&self) -> Result<Leased, StoreError> {
        Leased::take(&self.pools.general, &self.dialler, Share::general()).await
    }

    /// Connection of a lock that a session holds: kept by the owner until the unlock.
    pub(crate) async fn lock_connection(&self) -> Result<Object, StoreError> {
        Ok(self.pools.general.get().await?)
    }

    /// Connection for the batches of events. No other statement may hold up a batch.
    pub(crate) async fn inserter(&self) -> Result<Object, StoreError> {
        Ok(self.pools.inserts.get().await?)
    }

    /// Connection of the heartbeat. No other statement delays a heartbeat.
    pub(crate) async fn heartbeats(&self) -> Result<Object, StoreError> {
        Ok(self.pools.heartbeats.get().await?)
    }

    /// Connection for statements that reach rows by primary key only.
    pub(crate) async fn writer(&self) -> Result<Leased, StoreError> {
        Leased::take(&self.pools.writers, &self.dialler, Share::writers()).await
    }

    /// Runs `work` with a deadline, and fails early if the listener finds the connections silent. After either,
    /// drops idle pooled connections: a connection without an answer may stay silent for ever. The next statement then
    /// dials anew.
    ///
    /// # Errors
    /// Errors of `work`; [`StoreError::Unavailable`] after the deadline.
    pub async fn with_deadline<T>(
        &self,
        limit: Duration,
        work: impl Future<Output = Result<T, StoreError>>,
    ) -> Result<T, StoreError> {
        let mut silence = self.silence.subscribe();
        let answered = tokio::time::timeout(limit, async {
            tokio::select! {
                biased;
                answered = work => Some(answered),
                _ = silence.changed() => None,
            }
        });
        match answered.await {
            Ok(Some(answered)) => answered,
            Ok(None) | Err(_) => {
                self.pools.close_unused();
                Err(StoreError::Unavailable("the database did not answer in time".into()))
            }
        }
    }

    /// Fails all work in [`Self::with_deadline`]: silent connections never answer.
    pub(crate) fn leave_connections(&self) {
        self.pools.close_unused();
        self.silence.send_replace(());
    }

    /// Checks that commits are durable: an ack relies on a durable commit.
    ///
    /// # Errors
    /// [`StoreError::NotDurable`] with the setting at fault.
    pub async fn check_durability(&self) -> Result<(), StoreError> {
        let connection = self.connection().await?;
        for setting in ["fsync", "synchronous_commit"] {
            let value: String = connection.query_one("SELECT current_setting($1)", &[&setting]).await?.get(0);
            if value == "off" {
                return Err(StoreError::NotDurable { setting, value });
            }
        }
        Ok(())
    }

    /// Checks that each connection has a session of PostgreSQL: locks, notices and settings belong to sessions.
    ///
    /// # Errors
    /// [`StoreError::SharedSessions`] behind a pooler that lends sessions to transactions.
    pub async fn check_sessions(&self) -> Result<(), StoreError> {
        let (one, driver_of_one) = self.dial().await?;
        let (other, driver_of_other) = self.dial().await?;
        tokio::spawn(driver_of_one);
        tokio::spawn(driver_of_other);
        let compared = timeout(SET_UP_LIMIT, async {
            let first = [session(&one).await?, session(&other).await?];
            for _ in 0..COMPARED {
                let now = [session(&one).await?, session(&other).await?];
                // A quiet pooler lends both connections the same session; a busy one lends others from time to time.
                if now != first || now[0] == now[1] {
                    return Err(StoreError::SharedSessions);
                }
            }
            Ok(())
        });
        compared.await.unwrap_or_else(|late| Err(StoreError::Unavailable(late.into())))
    }

    /// Asks the database for an answer.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.connection().await?.simple_query("SELECT 1").await?;
        Ok(())
    }
}

/// The process of the session. A simple query: a pooler may lose prepared statements.
async fn session(client: &Client) -> Result<Option<String>, StoreError> {
    let messages = client.simple_query("SELECT pg_backend_pid()").await?;
    let process = |message: &SimpleQueryMessage| match message {
        SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    };
    Ok(messages.iter().find_map(process))
}

/// Converts a number of rows to the type of SQL.
pub(crate) fn row_count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Converts a duration to the milliseconds of SQL.
pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
