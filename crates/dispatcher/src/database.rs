//! Statements of the stages, tried until the database answers.

mod gate;

use std::{
    future::Future,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fanfare_domain::ids::ProcessId;
use fanfare_store::{Store, StoreError};
use jiff::Timestamp;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use self::gate::Gate;

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
    gate: Gate,
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
        Self { store, process, gate: Gate::new() }
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
        self.gate.watch()
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
                    self.gate.answered();
                    return RetryOutcome { result, unknown_commit, tried_at };
                }
            };
            if !matches!(error, StoreError::Conflict(_)) {
                unknown_commit = true;
                // A single lost connection is no outage: messages go back to the broker only after a second failed try.
                if wait > FIRST_WAIT && waiting.is_none() {
                    waiting = Some(self.gate.shut());
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

    /// Lets messages come in.
    pub(crate) fn mark_loaded(&self) {
        self.gate.mark_loaded();
    }

    /// Lets messages come in again after an outage whose last waiting statement was cancelled. Runs until `stop`.
    pub(crate) async fn reopen(self, stop: CancellationToken) {
        let answers = || async { self.store.with_deadline(STATEMENT_TIMEOUT, self.store.ping()).await.is_ok() };
        stop.run_until_cancelled(self.gate.reopen(answers)).await;
    }
}
