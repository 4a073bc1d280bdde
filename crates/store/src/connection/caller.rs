//! The connections of a caller: at most the caller's share, and no statement after the caller has hung up.
//!
//! A dropped future leaves its statement running on the server. [`with_caller`] cancels the statement, and closes the
//! connection instead of handing it to the next caller.

use std::{
    cell::Cell,
    ops::{Deref, DerefMut},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use deadpool_postgres::{Object, Pool};
use tokio::{
    runtime::Handle,
    sync::{OwnedSemaphorePermit, Semaphore},
    task::JoinHandle,
    time::timeout,
};

use crate::{StoreError, connection::dialler::Dialler};

/// Longest wait for a connection of the caller's share, as for a connection of the pool.
const WAIT: Duration = Duration::from_secs(5);

tokio::task_local! {
    /// The caller's share, if bounded.
    static SHARE: Option<Share>;
}

/// Connections that the requests of a caller may use at a time. Cheap to clone.
#[derive(Debug, Clone)]
pub struct Share {
    general: Arc<Semaphore>,
    writers: Arc<Semaphore>,
}

impl Share {
    /// Creates a share of the general connections and of the writers of [`Store::beside`](crate::Store::beside).
    pub fn new([general, writers]: [usize; 2]) -> Self {
        Self { general: Arc::new(Semaphore::new(general)), writers: Arc::new(Semaphore::new(writers)) }
    }

    /// General connections of the present caller.
    pub(crate) fn general() -> Option<Arc<Semaphore>> {
        present().map(|share| share.general)
    }

    /// Writers of the present caller.
    pub(crate) fn writers() -> Option<Arc<Semaphore>> {
        present().map(|share| share.writers)
    }
}

/// The share of the caller whose work this task does.
fn present() -> Option<Share> {
    SHARE.try_with(Option::clone).unwrap_or_default()
}

thread_local! {
    /// True while an unfinished future of [`with_caller`] is being dropped on this thread.
    static IS_ABANDONED: Cell<bool> = const { Cell::new(false) };
}

/// A connection of a pool.
pub(crate) struct Leased {
    /// Empty only during the drop.
    object: Option<Object>,
    dialler: Dialler,
    /// Part of the caller's share.
    place: Option<OwnedSemaphorePermit>,
}

impl Leased {
    /// Takes a connection of `share`; without a share, any connection.
    ///
    /// # Errors
    /// [`StoreError::Busy`] if the caller's other statements use the share for 5 s.
    pub(crate) async fn take(
        pool: &Pool,
        dialler: &Dialler,
        share: Option<Arc<Semaphore>>,
    ) -> Result<Self, StoreError> {
        let place = match share {
            // The semaphore is never closed.
            Some(share) => timeout(WAIT, share.acquire_owned()).await.map_err(|_| StoreError::Busy)?.ok(),
            None => None,
        };
        Ok(Self { object: Some(pool.get().await?), dialler: dialler.clone(), place })
    }
}

impl Deref for Leased {
    type Target = Object;

    fn deref(&self) -> &Object {
        self.object.as_ref().expect("a connection until the drop")
    }
}

impl DerefMut for Leased {
    fn deref_mut(&mut self) -> &mut Object {
        self.object.as_mut().expect("a connection until the drop")
    }
}

impl Drop for Leased {
    fn drop(&mut self) {
        if !IS_ABANDONED.get() {
            return;
        }
        let Some(object) = self.object.take() else { return };
        let (dialler, place) = (self.dialler.clone(), self.place.take());
        // Without a runtime the process ends, and the server ends the session.
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            if let Err(error) = dialler.cancel(&object.cancel_token()).await {
                tracing::warn!(
                    %error,
                    "cannot cancel a statement whose caller has hung up: the statement runs until its deadline"
                );
            }
            // Not before: the connection counts until the server has heard of its end.
            drop(Object::take(object));
            drop(place);
        });
    }
}

/// Spawns `work` with the share of the present caller. The work goes on after the caller has hung up.
pub fn spawn_for_caller<F>(work: F) -> JoinHandle<F::Output>
where
    F: Future<Output: Send> + Send + 'static,
{
    tokio::spawn(SHARE.scope(present(), work))
}

/// Runs `work` with at most the connections of `share` at a time. If the returned future is dropped before the end, the
/// statements of `work` are cancelled.
pub fn with_caller<F: Future + Send>(share: Option<Share>, work: F) -> impl Future<Output = F::Output> + Send {
    WithCaller { mark: Mark { is_unfinished: true }, work: Box::pin(SHARE.scope(share, work)), _end: End }
}

/// Drops its fields in this order.
struct WithCaller<F> {
    mark: Mark,
    work: Pin<Box<F>>,
    _end: End,
}

/// Marks the thread at the drop of unfinished work.
struct Mark {
    is_unfinished: bool,
}

/// Takes the mark away.
struct End;

impl<F: Future> Future for WithCaller<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let ended = self.work.as_mut().poll(context);
        self.mark.is_unfinished &= ended.is_pending();
        ended
    }
}

impl Drop for Mark {
    fn drop(&mut self) {
        IS_ABANDONED.set(self.is_unfinished);
    }
}

impl Drop for End {
    fn drop(&mut self) {
        IS_ABANDONED.set(false);
    }
}
