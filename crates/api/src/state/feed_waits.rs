//! Waits of readers for the next entry of a feed.

use std::{sync::Arc, time::Duration};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::timeout,
};
use tokio_util::sync::CancellationToken;

/// Maximum of waiting readers of a process. Each holds a connection, and asks the database twice a second. Further
/// readers are answered at once.
const MOST: usize = 200;

/// Interval between two looks for an entry.
const LOOK: Duration = Duration::from_millis(500);

/// The waits of this process. Cheap to clone.
#[derive(Clone)]
pub struct FeedWaits {
    free: Arc<Semaphore>,
    stop: CancellationToken,
}

impl FeedWaits {
    /// Waits that end at `stop`.
    pub fn new(stop: CancellationToken) -> Self {
        Self { free: Arc::new(Semaphore::new(MOST)), stop }
    }

    /// A place for a reader that waits; `None` if all are taken.
    pub(crate) fn begin(&self) -> Option<OwnedSemaphorePermit> {
        Arc::clone(&self.free).try_acquire_owned().ok()
    }

    /// Waits until the time of another look. False if the process stops.
    pub(crate) async fn goes_on(&self) -> bool {
        timeout(LOOK, self.stop.cancelled()).await.is_err()
    }
}
