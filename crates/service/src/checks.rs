//! Checks of large events, apart from the loops that all events pass.

use std::{
    collections::HashMap,
    num::NonZero,
    panic::resume_unwind,
    sync::{Arc, Mutex, PoisonError, Weak},
    thread::available_parallelism,
};

use fanfare_domain::ids::ApplicationId;
use tokio::{sync::Semaphore, task::spawn_blocking};
use tracing::Span;

/// Largest data to check without a thread, in bytes. The costliest accepted schema takes 2 µs a byte.
pub const CHECKED_AT_ONCE: usize = 8 * 1024;

/// Threads for checks: at most one for an application, and one for a processor. Costly checks of an application delay
/// no other application. Cheap to clone.
#[derive(Clone)]
pub struct Checks {
    processors: Arc<Semaphore>,
    applications: Arc<Mutex<HashMap<ApplicationId, Weak<Semaphore>>>>,
}

impl Default for Checks {
    fn default() -> Self {
        let processors = available_parallelism().map_or(1, NonZero::get);
        Self { processors: Arc::new(Semaphore::new(processors)), applications: Arc::default() }
    }
}

impl Checks {
    /// Runs a check in a thread, in the turn of the application.
    pub async fn run<T: Send + 'static>(
        &self,
        application: ApplicationId,
        check: impl FnOnce() -> T + Send + 'static,
    ) -> T {
        let closed = "neither semaphore is ever closed";
        let turn = self.turns_of(application).acquire_owned().await.expect(closed);
        let processor = Arc::clone(&self.processors).acquire_owned().await.expect(closed);
        let span = Span::current();
        let checked = spawn_blocking(move || {
            // Held until the end, even if the caller has gone.
            let _held = (turn, processor);
            span.in_scope(check)
        });
        checked.await.unwrap_or_else(|error| resume_unwind(error.into_panic()))
    }

    fn turns_of(&self, application: ApplicationId) -> Arc<Semaphore> {
        let mut applications = self.applications.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(turns) = applications.get(&application).and_then(Weak::upgrade) {
            return turns;
        }
        applications.retain(|_, turns| turns.strong_count() > 0);
        let turns = Arc::new(Semaphore::new(1));
        applications.insert(application, Arc::downgrade(&turns));
        turns
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use tokio::{join, sync::oneshot};

    use super::*;

    #[tokio::test(flavor = "multi_thread")]
    async fn checks_of_an_application_take_turns_and_delay_no_other() {
        let checks = Checks { processors: Arc::new(Semaphore::new(2)), applications: Arc::default() };
        let [loud, quiet] = [1, 2]
            .map(|number| format!("app_0000000000000000000000000{number}").parse::<ApplicationId>().expect("an id"));
        let (begin, begun) = oneshot::channel();
        let (end, ended) = mpsc::channel::<()>();
        let first = checks.run(loud, move || {
            begin.send(()).expect("a listener");
            ended.recv().is_err()
        });
        let others = async {
            begun.await.expect("the first check begins");
            let second = tokio::spawn({
                let checks = checks.clone();
                async move { checks.run(loud, || 2).await }
            });
            assert_eq!(checks.run(quiet, || 3).await, 3, "another application does not wait");
            assert!(!second.is_finished(), "the second check of the application waits");
            drop(end);
            second.await.expect("a result")
        };
        assert_eq!(join!(first, others), (true, 2));
        checks.run(quiet, || ()).await;
        assert!(checks.applications.lock().expect("no panic").len() <= 2);
    }
}
