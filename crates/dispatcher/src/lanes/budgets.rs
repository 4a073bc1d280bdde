//! The two budgets of a process, how many attempts may be on their way to all endpoints together, and the share of them
//! that each application may use.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use fanfare_domain::{
    delivery::DeferralReason,
    ids::ApplicationId,
    lane::{MAX_EXPECTED_WAIT, Pace, has_room, share},
};
use tokio::{
    sync::{AcquireError, OwnedSemaphorePermit, Semaphore},
    time::timeout,
};

/// Attempts that may be on their way at once: in the whole process, or of one application. One uses the fast budget for
/// its first second only, and then the slow one; one to an endpoint that has not proven itself uses the slow one from
/// the start. However many endpoints hang, they use up nothing but that.
struct Budgets {
    fast: Budget,
    slow: Budget,
}

struct Budget {
    size: usize,
    places: Arc<Semaphore>,
}

/// The budgets of the process, and the shares of those applications that have lanes.
pub(super) struct Shares {
    whole: Arc<Budgets>,
    shares: Mutex<HashMap<ApplicationId, Arc<Share>>>,
}

/// What one application may use of the budgets of the process.
pub(super) struct Share {
    own: Budgets,
    whole: Arc<Budgets>,
}

/// A place in a budget, and in the application's share of it. Both are given back when it is dropped.
pub(super) struct Permit {
    _own: OwnedSemaphorePermit,
    _whole: OwnedSemaphorePermit,
}

impl Shares {
    /// Of a process that may have so many attempts on their way that are fast, and so many that are slow.
    pub(super) fn new(fast: usize, slow: usize) -> Self {
        Self { whole: Arc::new(Budgets::new(fast, slow)), shares: Mutex::default() }
    }

    /// That of an application.
    pub(super) fn of(&self, application: ApplicationId) -> Arc<Share> {
        let new = || {
            let Budgets { fast, slow } = self.whole.as_ref();
            let own = Budgets::new(share(fast.size), share(slow.size));
            Arc::new(Share { own, whole: Arc::clone(&self.whole) })
        };
        Arc::clone(self.shares().entry(application).or_insert_with(new))
    }

    /// Places of the process that are used: in the fast budget, and in the slow one.
    pub(super) fn used(&self) -> (usize, usize) {
        (self.whole.fast.used(), self.whole.slow.used())
    }

    /// Forgets those that no lane has, and of which nothing is used.
    pub(super) fn forget_unused(&self) {
        self.shares().retain(|_, share| Arc::strong_count(share) > 1 || share.own.is_used());
    }

    /// Nothing that holds this lock can panic halfway.
    fn shares(&self) -> MutexGuard<'_, HashMap<ApplicationId, Arc<Share>>> {
        self.shares.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

// The application's place is always taken before that of the process, and whoever has both waits for nothing but to go
// over into the slow budget, which nobody leaves later than by the end of his attempt: no two can wait for each other.
impl Share {
    /// A place in the slow budget for an endpoint of this pace, if there is one at once.
    pub(super) fn try_slow(&self, pace: Pace) -> Result<Permit, DeferralReason> {
        let own = self.own.slow.try_take(pace).ok_or(DeferralReason::ApplicationBusy)?;
        let whole = self.whole.slow.try_take(pace).ok_or(DeferralReason::LaneFull)?;
        Ok(Permit { _own: own, _whole: whole })
    }

    /// Waits for a place in the fast budget, for one in the application's share of it not for long: whoever waits keeps
    /// the message from others.
    pub(super) async fn fast(&self) -> Result<Permit, DeferralReason> {
        let own = timeout(MAX_EXPECTED_WAIT, self.own.fast.take()).await;
        let own = own.map_err(|_| DeferralReason::ApplicationBusy)?.map_err(no_more)?;
        let whole = self.whole.fast.take().await.map_err(no_more)?;
        Ok(Permit { _own: own, _whole: whole })
    }

    /// Waits for a place in the slow budget.
    pub(super) async fn slow(&self) -> Result<Permit, DeferralReason> {
        let own = self.own.slow.take().await.map_err(no_more)?;
        let whole = self.whole.slow.take().await.map_err(no_more)?;
        Ok(Permit { _own: own, _whole: whole })
    }

    /// Whether it is no use to wait for a place in the fast budget: all are taken, and those who would go over into
    /// the slow one after a second cannot.
    pub(super) fn is_stuck(&self) -> bool {
        self.own.fast.is_used_up() && self.own.slow.is_used_up()
    }
}

impl Budgets {
    fn new(fast: usize, slow: usize) -> Self {
        Self { fast: Budget::new(fast), slow: Budget::new(slow) }
    }

    fn is_used(&self) -> bool {
        self.fast.used() + self.slow.used() > 0
    }
}

impl Budget {
    fn new(size: usize) -> Self {
        Self { size, places: Arc::new(Semaphore::new(size)) }
    }

    async fn take(&self) -> Result<OwnedSemaphorePermit, AcquireError> {
        Arc::clone(&self.places).acquire_owned().await
    }

    fn try_take(&self, pace: Pace) -> Option<OwnedSemaphorePermit> {
        let has_room = has_room(pace, self.places.available_permits(), self.size);
        has_room.then(|| Arc::clone(&self.places).try_acquire_owned().ok())?
    }

    fn used(&self) -> usize {
        self.size.saturating_sub(self.places.available_permits())
    }

    fn is_used_up(&self) -> bool {
        self.places.available_permits() == 0
    }
}

/// Nobody closes a budget.
fn no_more(_: AcquireError) -> DeferralReason {
    DeferralReason::LaneFull
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn taken(share: &Share, pace: Pace) -> Vec<Permit> {
        std::iter::from_fn(|| share.try_slow(pace).ok()).collect()
    }

    #[tokio::test]
    async fn an_application_has_half_and_gives_it_back() {
        let shares = Shares::new(2, 8);
        let [one, two, three] = [1, 2, 3].map(|number| ApplicationId::new(Timestamp::UNIX_EPOCH, [number; 10]));
        let share = shares.of(one);
        let of_slow = taken(&share, Pace::Slow);
        let of_unknown = taken(&share, Pace::Unknown);
        assert_eq!((of_slow.len(), of_unknown.len()), (3, 1), "a part of the share is for those whom nobody knows");
        assert_eq!(share.try_slow(Pace::Unknown).err(), Some(DeferralReason::ApplicationBusy));
        assert!(!share.is_stuck());
        let fast = share.fast().await;
        assert!(fast.is_ok() && share.is_stuck());

        let other = taken(&shares.of(two), Pace::Unknown);
        assert_eq!(other.len(), 4, "the other half is for others");
        assert_eq!(shares.used(), (1, 8));
        assert_eq!(shares.of(three).try_slow(Pace::Unknown).err(), Some(DeferralReason::LaneFull));

        drop(share);
        shares.forget_unused();
        assert!(shares.of(one).is_stuck(), "what is used of it is not forgotten");
        assert_eq!(shares.shares().len(), 2);
        drop((of_slow, of_unknown, fast, other));
        shares.forget_unused();
        assert!(shares.shares().is_empty());
        assert_eq!(taken(&shares.of(three), Pace::Unknown).len(), 4);
        assert_eq!(shares.used(), (0, 0));
    }
}
