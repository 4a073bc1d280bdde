//! The database as the stages see it: it may be away, and then they wait.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_store::{Store, StoreError};
use jiff::Timestamp;
use tokio::{sync::watch, time::Instant};

/// The waits between tries of a statement.
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(2);

/// The longest wait for an answer. Longer than the server's own limit for a statement: this is for a
/// server that has fallen silent.
const STATEMENT_TIMEOUT: Duration = Duration::from_secs(20);

/// The store, and whether it answers. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Database {
    pub(crate) store: Store,
    available: watch::Sender<bool>,
    open: Arc<AtomicBool>,
    waiting: Arc<AtomicUsize>,
}

/// What came of a statement that was tried until the database answered.
pub(crate) struct Tried<T> {
    pub(crate) result: Result<T, StoreError>,
    /// Whether an earlier try may have been committed without our hearing of it.
    pub(crate) unknown_commit: bool,
    /// No later than the commit: when the last try began, or the first where an earlier try may have been committed.
    pub(crate) tried_at: Instant,
}

impl Database {
    pub(crate) fn new(store: Store) -> Self {
        Self { store, available: watch::Sender::new(false), open: Arc::default(), waiting: Arc::default() }
    }

    /// Whether messages may come in: all is loaded, the database answers, and nothing waits for it any more.
    pub(crate) fn availability(&self) -> watch::Receiver<bool> {
        self.available.subscribe()
    }

    /// Tries a statement until the database takes it, or says that one of its values cannot be taken. Any
    /// other refusal (privileges, a schema or a database that is not there) is waited for as an outage is:
    /// it is no fault of the messages. A statement that is given here must bear being committed twice.
    pub(crate) async fn until_answered<T, F>(&self, what: &'static str, statement: impl Fn() -> F) -> Tried<T>
    where
        F: Future<Output = Result<T, StoreError>>,
    {
        let mut unknown_commit = false;
        let mut wait = FIRST_WAIT;
        let mut waiting = None;
        let first_tried_at = Instant::now();
        loop {
            let tried_at = if unknown_commit { first_tried_at } else { Instant::now() };
            let error = match self.store.in_time(STATEMENT_TIMEOUT, statement()).await {
                Err(error) if error.may_pass() => error,
                result => {
                    drop(waiting);
                    self.answers(true);
                    return Tried { result, unknown_commit, tried_at };
                }
            };
            if !matches!(error, StoreError::Conflict(_)) {
                unknown_commit = true;
                // One lost connection is no outage: messages go back to the broker only after a second try.
                if wait > FIRST_WAIT && waiting.is_none() {
                    waiting = Some(Waiting::new(&self.waiting));
                    self.answers(false);
                }
                tracing::warn!(%error, what, "waiting for the database");
            }
            tokio::time::sleep(wait).await;
            wait = (wait * 2).min(LONGEST_WAIT);
        }
    }

    /// The time by the database's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.store.now()
    }

    /// Lets messages come in: from now on the database's answers decide whether they do.
    pub(crate) fn open(&self) {
        self.open.store(true, Ordering::Release);
        self.answers(true);
    }

    fn answers(&self, available: bool) {
        // What has waited for the database goes first, outcomes above all: only then new messages come in.
        let nobody_waits = self.waiting.load(Ordering::Acquire) == 0;
        let available = available && nobody_waits && self.open.load(Ordering::Acquire);
        self.available.send_if_modified(|before| std::mem::replace(before, available) != available);
    }
}

/// Counts a statement that waits for the database, for as long as it is kept.
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
