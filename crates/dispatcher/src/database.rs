//! Statements of the stages, tried until the database answers.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_domain::ids::ProcessId;
use fanfare_store::{Store, StoreError};
use jiff::Timestamp;
use tokio::{sync::watch, time::Instant};

/// Waits between two tries of a statement, doubled up to the longest.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// Deadline of a try, for a server that has fallen silent. Longer than the server's own limit for a statement.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);

/// The store and its availability. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) store: Store,
    process: Arc<Mutex<ProcessId>>,
    available: watch::Sender<bool>,
    open: Arc<AtomicBool>,
    waiting: Arc<AtomicUsize>,
}

/// Result of a statement after the last try.
pub(crate) struct RetryOutcome<T> {
    pub(crate) result: Result<T, StoreError>,
    /// True if an earlier try may have committed without an answer.
    pub(crate) unknown_commit: bool,
    /// Start of the last try, or of the first try if an earlier try may have committed: no later than the commit.
    pub(crate) tried_at: Instant,
}

impl Database {
    pub(crate) fn new(store: Store) -> Self {
        let process = Arc::new(Mutex::new(ProcessId::new(store.now(), rand::random())));
        Self { store, process, available: watch::Sender::new(false), open: Arc::default(), waiting: Arc::default() }
    }

    /// Id of this process in the database.
    pub(crate) fn process(&self) -> ProcessId {
        *self.process.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives this process a new id.
    pub(crate) fn renew_process(&self) -> ProcessId {
        let new = ProcessId::new(self.now(), rand::random());
        *self.process.lock().unwrap_or_else(PoisonError::into_inner) = new;
        new
    }

    /// True while messages may come in: all is loaded, the database answers, and no statement waits.
    pub(crate) fn availability(&self) -> watch::Receiver<bool> {
        self.available.subscribe()
    }

    /// Tries a statement until the database accepts the statement or refuses a value. Any other refusal (privileges, a
    /// missing schema or database) counts as an outage, since the messages are not at fault. A second commit of the
    /// statement must be harmless.
    pub(crate) async fn retry_until_available<T, F>(
        &self,
        what: &'static str,
        statement: impl Fn() -> F,
    ) -> RetryOutcome<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut unknown_commit = false;
        let mut wait = FIRST_WAIT;
        let mut waiting = None;
        let first_tried_at = Instant::now();
        loop {
            let tried_at = if unknown_commit { first_tried_at } else { Instant::now() };
            let error = match self.store.with_deadline(STATEMENT_TIMEOUT, statement()).await {
                Err(error) if error.may_pass() => error,
                result => {
                    drop(waiting);
                    self.set_available(true);
                    return RetryOutcome { result, unknown_commit, tried_at };
                }
            };
            if !matches!(error, StoreError::Conflict(_)) {
                unknown_commit = true;
                // A single lost connection is no outage: messages go back to the broker only after a second failed try.
                if wait > FIRST_WAIT && waiting.is_none() {
                    waiting = Some(Waiting::new(&self.waiting));
                    self.set_available(false);
                }
                tracing::warn!(%error, what, "waiting for the database");
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// Time of the database's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.store.now()
    }

    /// Lets messages come in. From now on only the database's answers decide.
    pub(crate) fn mark_loaded(&self) {
        self.open.store(true, Ordering::Release);
        self.set_available(true);
    }

    fn set_available(&self, available: bool) {
        // Waiting statements go first, most importantly records of outcomes. New messages come in afterwards.
        let nobody_waits = self.waiting.load(Ordering::Acquire) == 0;
        let available = available && nobody_waits && self.open.load(Ordering::Acquire);
        self.available.send_if_modified(|before| std::mem::replace(before, available) != available);
    }
}

/// Counts a waiting statement until dropped.
struct Waiting(Arc<AtomicUsize>);

impl Waiting {
    fn new(count: &Arc<AtomicUsize>) -> Self {
        count.fetch_add(1, Ordering::AcqRel);
        Self(Arc::clone(count))
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
