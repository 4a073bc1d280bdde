//! Pools of connections. Each user of the database has its own pools, so that no user holds up another.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use deadpool_postgres::{Hook, HookError, Manager, ManagerConfig, Pool, QueueMode, RecyclingMethod, Runtime, Timeouts};
use tokio::time::timeout;
use tokio_postgres::Config;

use crate::{
    StoreError,
    connection::dialler::{Dialler, SET_UP_LIMIT},
};

/// Connections of a user of the database.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolState {
    /// Name of the user: a value of the label `pool` of a metric.
    pub name: &'static str,
    /// Counts by state: `used` and `idle` connections, `waiting` statements, and the `limit` of connections.
    pub states: [(&'static str, usize); 4],
}

/// Deadline of a statement. A longer statement would hold up all statements behind it.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(15);

/// Connections for the batches of events.
const BATCH_CONNECTIONS: usize = 2;

/// Connections for the other batch statements: record, lease, retries and recovery.
const WRITERS: usize = 4;

/// Idle time after which a connection is closed: PostgreSQL pays for each connection, and most processes are quiet most
/// of the time.
const MAX_IDLE: Duration = Duration::from_secs(60);

/// On a partition without statistics the planner may choose a scan, which is slower by an order of magnitude.
const INDEXES_ONLY: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off;";

/// Batch statements join a small list with a partitioned table by its primary key. On a partition without statistics
/// the planner may choose a scan, which is slower by an order of magnitude. The look for due events decides within a
/// transaction: the server ends the session of a process that stands still meanwhile, and frees the events.
const KEY_LOOKUPS_ONLY: &str = "SET enable_seqscan = off; SET enable_bitmapscan = off; SET enable_hashjoin = off; \
                                SET enable_mergejoin = off; SET plan_cache_mode = force_generic_plan; \
                                SET idle_in_transaction_session_timeout = 30000;";

/// The server ends the session of a vanished process after a minute, and frees its locks. By its own defaults the
/// server needs two hours.
pub(crate) const LOST_CLIENTS: &str =
    "SET tcp_keepalives_idle = 30; SET tcp_keepalives_interval = 10; SET tcp_keepalives_count = 3;";

/// The pools of a user. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Pools {
    /// For all statements except batch statements.
    pub(crate) general: Pool,
    /// For the batches of events.
    pub(crate) inserts: Pool,
    /// For statements that reach rows by primary key only.
    pub(crate) writers: Pool,
    /// For the heartbeat.
    pub(crate) heartbeats: Pool,
    /// All pools of the process by name, of all users.
    all: Arc<Mutex<Vec<(&'static str, Pool)>>>,
}

impl Pools {
    pub(crate) fn new(config: &Config, dialler: &Dialler, connections: usize) -> Result<Self, StoreError> {
        let general = pool(config, dialler, "", connections, STATEMENT_TIMEOUT)?;
        let inserts = pool(config, dialler, INDEXES_ONLY, BATCH_CONNECTIONS, STATEMENT_TIMEOUT)?;
        let writers = pool(config, dialler, KEY_LOOKUPS_ONLY, WRITERS, STATEMENT_TIMEOUT)?;
        let heartbeats = pool(config, dialler, "", 1, STATEMENT_TIMEOUT)?;
        let all = vec![
            ("general", general.clone()),
            ("batch", writers.clone()),
            ("events", inserts.clone()),
            ("heartbeat", heartbeats.clone()),
        ];
        Ok(Self { general, inserts, writers, heartbeats, all: Arc::new(Mutex::new(all)) })
    }

    /// General connections and writers for another user.
    pub(crate) fn beside(
        &self,
        (config, dialler): (&Config, &Dialler),
        name: &'static str,
        [connections, writers]: [usize; 2],
        statement_timeout: Duration,
    ) -> Result<Self, StoreError> {
        let general = pool(config, dialler, "", connections, statement_timeout)?;
        let writers = pool(config, dialler, KEY_LOOKUPS_ONLY, writers, statement_timeout)?;
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend([(name, general.clone()), (name, writers.clone())]);
        Ok(Self { general, writers, ..self.clone() })
    }

    /// States of all pools of the process, summed up by name.
    pub(crate) fn states(&self) -> Vec<PoolState> {
        let mut states: Vec<PoolState> = Vec::new();
        for (name, pool) in self.all() {
            let status = pool.status();
            let used = status.size.saturating_sub(status.available);
            let counts = [used, status.available, status.waiting, status.max_size];
            match states.iter_mut().find(|state| state.name == name) {
                Some(state) => state.states.iter_mut().zip(counts).for_each(|((_, sum), count)| *sum += count),
                None => {
                    let [used, idle, waiting, limit] = counts;
                    let states_of_pool = [("used", used), ("idle", idle), ("waiting", waiting), ("limit", limit)];
                    states.push(PoolState { name, states: states_of_pool });
                }
            }
        }
        states
    }

    /// Closes all idle connections of the process, of all users.
    pub(crate) fn close_unused(&self) {
        for (_, pool) in self.all() {
            pool.retain(|_, _| false);
        }
    }

    /// Closes connections of the process that no statement has used lately.
    pub(crate) fn close_idle(&self) {
        for (_, pool) in self.all() {
            pool.retain(|_, metrics| metrics.last_used() < MAX_IDLE);
        }
    }

    fn all(&self) -> Vec<(&'static str, Pool)> {
        self.all.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn pool(
    config: &Config,
    dialler: &Dialler,
    planner: &str,
    size: usize,
    statement_timeout: Duration,
) -> Result<Pool, StoreError> {
    let deadline = statement_timeout.as_millis();
    // Statements, since poolers refuse options of a connection. Without JIT: a disabled scan of a small table counts as
    // so expensive that PostgreSQL would compile each plan.
    let settings =
        format!("{LOST_CLIENTS} SET statement_timeout = {deadline}; SET lock_timeout = 5000; SET jit = off; {planner}");
    let set_up = Hook::async_fn(move |object: &mut deadpool_postgres::ClientWrapper, _| {
        let settings = settings.clone();
        Box::pin(async move {
            let set = timeout(SET_UP_LIMIT, object.batch_execute(&settings)).await;
            set.map_err(|_| HookError::message("the database did not take the settings of a connection in time"))?
                .map_err(HookError::Backend)
        })
    });
    let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
    let manager = Manager::from_connect(config.clone(), dialler.clone(), recycling);
    // deadpool waits for ever by default.
    let timeouts = Timeouts {
        wait: Some(Duration::from_secs(5)),
        create: Some(Duration::from_secs(5)),
        recycle: Some(Duration::from_secs(2)),
    };
    Pool::builder(manager)
        .max_size(size.max(1))
        .timeouts(timeouts)
        // The connection used last first: the others become idle, and are closed.
        .queue_mode(QueueMode::Lifo)
        .post_create(set_up)
        .runtime(Runtime::Tokio1)
        .build()
        .map_err(|error| StoreError::Unavailable(Box::new(error)))
}
