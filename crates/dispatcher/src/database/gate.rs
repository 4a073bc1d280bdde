//! The gate to the database: messages come in while all is loaded, the database answers, and no statement waits.

use std::{
    future::Future,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    time::Duration,
};

use tokio::sync::watch;

/// Interval between the questions of [`Gate::reopen`].
const ASK: Duration = Duration::from_secs(2);

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Gate {
    is_open: watch::Sender<bool>,
    is_loaded: Arc<AtomicBool>,
    waiting: Arc<AtomicUsize>,
}

impl Gate {
    /// Creates a shut gate.
    pub(crate) fn new() -> Self {
        Self { is_open: watch::Sender::new(false), is_loaded: Arc::default(), waiting: Arc::default() }
    }

    /// True while the gate is open.
    pub(crate) fn watch(&self) -> watch::Receiver<bool> {
        self.is_open.subscribe()
    }

    /// Opens the gate. From now on only the database's answers decide.
    pub(crate) fn mark_loaded(&self) {
        self.is_loaded.store(true, Ordering::Release);
        self.answered();
    }

    /// Opens the gate after an answer of the database, unless a statement waits: waiting statements go first, most
    /// importantly records of outcomes.
    pub(crate) fn answered(&self) {
        let nobody_waits = self.waiting.load(Ordering::Acquire) == 0;
        self.set(nobody_waits && self.is_loaded.load(Ordering::Acquire));
    }

    /// Shuts the gate for a statement that waits for the database.
    pub(crate) fn shut(&self) -> Waiting {
        self.waiting.fetch_add(1, Ordering::AcqRel);
        self.set(false);
        Waiting(Arc::clone(&self.waiting))
    }

    /// Asks the database while the gate is shut and no statement waits, and opens the gate after an answer. A waiting
    /// statement may end without an answer, by the limit of its job; without messages, no other statement would find
    /// out that the database answers again. Never ends.
    pub(crate) async fn reopen<F: Future<Output = bool>>(&self, answers: impl Fn() -> F) {
        let mut is_open = self.watch();
        // The sender lives as long as `self`.
        while is_open.wait_for(|is_open| !is_open).await.is_ok() {
            tokio::time::sleep(ASK).await;
            if self.waiting.load(Ordering::Acquire) == 0 && answers().await {
                self.answered();
            }
        }
    }

    fn set(&self, is_open: bool) {
        self.is_open.send_if_modified(|before| std::mem::replace(before, is_open) != is_open);
    }
}

/// Counts a waiting statement until dropped.
pub(crate) struct Waiting(Arc<AtomicUsize>);

impl Drop for Waiting {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use std::future::ready;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_wait_that_is_cancelled_leaves_no_gate_shut() {
        let gate = Gate::new();
        let reopened = gate.clone();
        let answers = Arc::<AtomicBool>::default();
        let asked = Arc::clone(&answers);
        let task = tokio::spawn(async move { reopened.reopen(|| ready(asked.load(Ordering::Acquire))).await });
        gate.mark_loaded();
        assert!(*gate.watch().borrow());
        let (waiting, another) = (gate.shut(), gate.shut());
        assert!(!*gate.watch().borrow());
        drop(waiting);
        answers.store(true, Ordering::Release);
        tokio::time::sleep(10 * ASK).await;
        assert!(!*gate.watch().borrow(), "a statement waits");
        answers.store(false, Ordering::Release);
        drop(another);
        tokio::time::sleep(10 * ASK).await;
        assert!(!*gate.watch().borrow(), "the database is away");
        answers.store(true, Ordering::Release);
        gate.watch().wait_for(|is_open| *is_open).await.expect("an open gate");
        task.abort();
    }

    #[test]
    fn an_answer_opens_the_gate_only_after_all_is_loaded() {
        let gate = Gate::new();
        gate.answered();
        assert!(!*gate.watch().borrow());
        gate.mark_loaded();
        assert!(*gate.watch().borrow());
        let waiting = gate.shut();
        gate.answered();
        assert!(!*gate.watch().borrow());
        drop(waiting);
        gate.answered();
        assert!(*gate.watch().borrow());
    }
}
