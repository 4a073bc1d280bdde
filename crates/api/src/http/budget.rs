//! The budget of bytes: requests whose bodies a process holds at a time, shared fairly by application.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use axum::{
    body::HttpBody,
    extract::{Request, State},
    middleware::Next,
    response::{IntoResponse, Response},
};
use fanfare_domain::access::api_key::{Caller, Role};
use fanfare_store::Directory;
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

use crate::http::{
    authentication::authenticate,
    body::discard,
    error::{ApiError, ErrorCode},
    shares::Owner,
};

/// Copies of a body from the request to the broker's confirm: the body, and the messages made of it.
const COPIES: usize = 2;

/// Longest wait for room.
const WAIT: Duration = Duration::from_secs(2);

/// The budget of this process. Cheap to clone.
#[derive(Clone)]
pub struct Budget {
    directory: Directory,
    /// Taken for a body of unknown length.
    largest: usize,
    whole: Arc<Semaphore>,
    /// Bytes of a caller.
    share: usize,
    /// The number of applications and admin keys bounds the map.
    callers: Arc<Mutex<HashMap<Owner, Arc<Semaphore>>>>,
}

impl Budget {
    /// Creates a budget of `bytes`, of which a caller gets half at most. `largest` is the longest body, in bytes.
    pub fn new(directory: Directory, bytes: usize, largest: usize) -> Self {
        let bytes = bytes.min(Semaphore::MAX_PERMITS);
        Self { directory, largest, whole: Arc::new(Semaphore::new(bytes)), share: bytes / 2, callers: Arc::default() }
    }

    /// Takes room for a body of `length` bytes: first of the caller's share, then of all.
    ///
    /// # Errors
    /// 429 if the caller's other requests use its share, 503 if all requests together use the budget.
    async fn take(&self, caller: &Caller, length: usize) -> Result<[OwnedSemaphorePermit; 2], ApiError> {
        let own = {
            let mut callers = self.callers.lock().unwrap_or_else(PoisonError::into_inner);
            Arc::clone(callers.entry(Owner::of(caller)).or_insert_with(|| Arc::new(Semaphore::new(self.share))))
        };
        // A body beyond the share takes all of the share.
        let count = u32::try_from(length.saturating_mul(COPIES).min(self.share)).unwrap_or(u32::MAX);
        let busy = |code, message: &str| ApiError::new(code, message).retry_after(1);
        let message = "other requests of the application or admin key use its share of memory: wait for answers";
        let own =
            within(own.acquire_many_owned(count)).await.ok_or_else(|| busy(ErrorCode::TooManyRequests, message))?;
        let message = "the requests in progress use all memory: send the request again later";
        let whole = within(Arc::clone(&self.whole).acquire_many_owned(count)).await;
        Ok([own, whole.ok_or_else(|| busy(ErrorCode::Overloaded, message))?])
    }
}

async fn within(
    room: impl Future<Output = Result<OwnedSemaphorePermit, AcquireError>>,
) -> Option<OwnedSemaphorePermit> {
    // The semaphores are never closed.
    timeout(WAIT, room).await.ok()?.ok()
}

/// Takes room for the body of a request before the body is read, until the answer. The routes refuse callers without a
/// valid key, and do not read their bodies.
pub async fn within_budget(State(budget): State<Budget>, request: Request, next: Next) -> Response {
    let hint = request.body().size_hint();
    let length = hint.upper().map_or(budget.largest, |length| usize::try_from(length).unwrap_or(usize::MAX));
    if length == 0 {
        return next.run(request).await;
    }
    let Ok(caller) = authenticate(request.headers(), &budget.directory, &Role::ALL) else {
        return next.run(request).await;
    };
    // The routes refuse a longer body.
    match budget.take(&caller, length.min(budget.largest)).await {
        Ok(_room) => next.run(request).await,
        Err(error) => {
            discard(request.into_body()).await;
            error.into_response()
        }
    }
}
