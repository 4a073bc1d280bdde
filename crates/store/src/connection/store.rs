//! The connections to the database.

use std::{fmt, str::FromStr, sync::Arc, time::Duration};

use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, RecyclingMethod, Runtime, Timeouts};
use jiff::Timestamp;
use tokio::sync::watch;
use tokio_postgres::{Client, Config, Connection, Socket, tls::MakeTlsConnect};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::{
    Keyring, StoreError,
    connection::{clock::Clock, tls},
};

/// What a process tells about its database.
#[derive(Debug, Clone)]
pub struct StoreSettings {
    /// Where it is.
    pub url: DatabaseUrl,
    /// Connections that this process may open, beside seven for the batch statements and the heartbeat, and one that listens.
    pub connections: usize,
    /// The keys that secrets are encrypted with.
    pub keyring: Keyring,
}

/// The database's URL: `postgres://user:password@host:port/database`, with `sslmode` (`disable`, `prefer`, `require`,
/// `verify-ca`, `verify-full`; `prefer` without it) and `sslrootcert`, a PEM file, as libpq has them.
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

/// Every statement of Fanfare. Cheap to clone.
#[derive(Clone)]
pub struct Store {
    config: Config,
    tls: MakeRustlsConnect,
    pool: Pool,
    inserts: Pool,
    writers: Pool,
    heartbeats: Pool,
    pub(crate) keyring: Arc<Keyring>,
    pub(crate) clock: Arc<Clock>,
    /// Changes when the connections that there are fell silent.
    silence: watch::Sender<()>,
}

/// What moves the bytes of a connection.
pub(crate) type Dialled = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// A statement may take this long. Longer ones hold up what waits behind them.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);

/// Connections for the batches of events.
const BATCH_CONNECTIONS: usize = 2;

/// Connections for the other batch statements: record, lease, retries, and recovery beside them.
const WRITERS: usize = 4;

/// On a partition without statistics the planner may choose a scan, which is slower by an order of magnitude.
const INDEXES_ONLY: &str = "-c enable_seqscan=off -c enable_bitmapscan=off";

/// The batch statements join a small list with a partitioned table by its primary key. On a partition
/// without statistics the planner may choose a scan instead, which is slower by an order of magnitude.
const KEY_LOOKUPS_ONLY: &str = "-c enable_seqscan=off -c enable_bitmapscan=off -c enable_hashjoin=off -c enable_mergejoin=off -c plan_cache_mode=force_generic_plan";

/// By these the server ends the session of a process that is gone without a word, with the locks that it holds, after a
/// minute. By its own settings that takes two hours.
const LOST_CLIENTS: &str = "-c tcp_keepalives_idle=30 -c tcp_keepalives_interval=10 -c tcp_keepalives_count=3";

impl Store {
    /// Prepares the pools. Connects to nothing yet: a database that is away at the start is waited for
    /// by whoever needs it.
    ///
    /// # Errors
    /// When a pool cannot be made of the settings.
    pub fn new(settings: StoreSettings) -> Result<Self, StoreError> {
        let DatabaseUrl { mut config, tls } = settings.url;
        let given = config.get_options().unwrap_or_default().to_owned();
        config
            .options(format!("{given} {LOST_CLIENTS}"))
            .connect_timeout(Duration::from_secs(5))
            .keepalives_idle(Duration::from_secs(30))
            .tcp_user_timeout(Duration::from_secs(15))
            .application_name("fanfare");
        Ok(Self {
            pool: pool(&config, &tls, "", settings.connections)?,
            inserts: pool(&config, &tls, INDEXES_ONLY, BATCH_CONNECTIONS)?,
            writers: pool(&config, &tls, KEY_LOOKUPS_ONLY, WRITERS)?,
            heartbeats: pool(&config, &tls, "", 1)?,
            config,
            tls,
            keyring: Arc::new(settings.keyring),
            clock: Arc::default(),
            silence: watch::Sender::new(()),
        })
    }

    /// The time by the database's clock, as long as it is followed ([`Directory`](crate::Directory)).
    pub fn now(&self) -> Timestamp {
        self.clock.now()
    }

    /// A connection beside the pools. It answers only while its other half is polled.
    pub(crate) async fn dial(&self) -> Result<(Client, Dialled), StoreError> {
        Ok(self.config.connect(self.tls.clone()).await?)
    }

    /// A connection for anything but the batch statements.
    pub(crate) async fn connection(&self) -> Result<Object, StoreError> {
        Ok(self.pool.get().await?)
    }

    /// A connection for the batches of events, which nothing else may hold up.
    pub(crate) async fn inserter(&self) -> Result<Object, StoreError> {
        Ok(self.inserts.get().await?)
    }

    /// The connection of the heartbeat, which no other statement delays.
    pub(crate) async fn heartbeats(&self) -> Result<Object, StoreError> {
        Ok(self.heartbeats.get().await?)
    }

    /// A connection for a statement that reaches rows by primary key only.
    pub(crate) async fn writer(&self) -> Result<Object, StoreError> {
        Ok(self.writers.get().await?)
    }

    /// Gives work on the database a limit; it ends before that where connections are found to be silent. One whose
    /// answer did not come by then may be silent for ever, and would go back to its pool: those that are not in use are
    /// closed, so that the next statement takes a new one.
    ///
    /// # Errors
    /// Those of the work, and [`StoreError::Unavailable`] where it took too long.
    pub async fn in_time<T>(
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
                self.close_unused();
                Err(StoreError::Unavailable("no answer came".into()))
            }
        }
    }

    /// Has all work that waits for an answer end: none will come, as its connections are silent.
    pub(crate) fn leave_connections(&self) {
        self.close_unused();
        self.silence.send_replace(());
    }

    fn close_unused(&self) {
        for pool in [&self.pool, &self.inserts, &self.writers, &self.heartbeats] {
            pool.retain(|_, _| false);
        }
    }

    /// Checks that a commit of the database is durable: messages are acked because of it.
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

    /// Whether the database answers.
    ///
    /// # Errors
    /// When it does not.
    pub async fn ping(&self) -> Result<(), StoreError> {
        self.connection().await?.simple_query("SELECT 1").await?;
        Ok(())
    }
}

fn pool(config: &Config, tls: &MakeRustlsConnect, planner: &str, size: usize) -> Result<Pool, StoreError> {
    let mut config = config.clone();
    let given = config.get_options().unwrap_or_default().to_owned();
    let timeout = STATEMENT_TIMEOUT.as_millis();
    // Without compilation: a scan of a small table that is switched off counts as so dear that each plan would be compiled.
    config.options(format!("{given} -c statement_timeout={timeout} -c lock_timeout=5000 -c jit=off {planner}"));
    let manager = Manager::from_config(config, tls.clone(), ManagerConfig { recycling_method: RecyclingMethod::Fast });
    // deadpool's own defaults wait for ever.
    let timeouts = Timeouts {
        wait: Some(Duration::from_secs(5)),
        create: Some(Duration::from_secs(5)),
        recycle: Some(Duration::from_secs(2)),
    };
    Pool::builder(manager)
        .max_size(size.max(1))
        .timeouts(timeouts)
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| StoreError::Unavailable(Box::new(error)))
}

/// A number of rows as the statements take it.
pub(crate) fn row_count(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// A duration as the statements take it.
pub(crate) fn milliseconds(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
