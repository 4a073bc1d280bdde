//! The two budgets of a process: how many attempts may be on their way to all endpoints together.

use std::sync::Arc;

use fanfare_domain::lane::Pace;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

/// Attempts that may be on their way in the whole process. One uses the fast budget for its first second only, and then
/// the slow one; one to an endpoint that has not proven itself uses the slow one from the start. However many endpoints
/// hang, they use up nothing but that.
pub(super) struct Budgets {
    fast: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    slow_size: usize,
}

/// A part of a budget. Given back when it is dropped.
pub(super) struct Permit {
    _budget: OwnedSemaphorePermit,
}

impl Budgets {
    /// So many attempts that are fast, and so many that are slow.
    pub(super) fn new(fast: usize, slow: usize) -> Self {
        Self { fast: Arc::new(Semaphore::new(fast)), slow: Arc::new(Semaphore::new(slow)), slow_size: slow }
    }

    /// A part of the slow budget for an endpoint of this pace, if there is one at once. What is known to be slow gets
    /// none of the last quarter: those whom nobody knows yet would have to wait for it.
    pub(super) fn try_slow(&self, pace: Pace) -> Option<Permit> {
        let is_free = pace == Pace::Unknown || self.slow.available_permits() > self.slow_size / 4;
        let permit = is_free.then(|| Arc::clone(&self.slow).try_acquire_owned().ok())?;
        permit.map(|budget| Permit { _budget: budget })
    }

    /// Waits for a part of the fast budget.
    pub(super) async fn fast(&self) -> Option<Permit> {
        taken(&self.fast).await
    }

    /// Waits for a part of the slow budget.
    pub(super) async fn slow(&self) -> Option<Permit> {
        taken(&self.slow).await
    }
}

/// None only where nobody may have any more, which is never said.
async fn taken(budget: &Arc<Semaphore>) -> Option<Permit> {
    let budget = Arc::clone(budget).acquire_owned().await.ok()?;
    Some(Permit { _budget: budget })
}
