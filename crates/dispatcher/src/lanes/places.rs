//! Places: room for an attempt in the process and in the application's share, by number and by bytes.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use fanfare_domain::{
    delivery::{
        QueueReason,
        lane::{Pace, has_room, share},
    },
    ids::ApplicationId,
};
use tokio::sync::Notify;

/// Bounds of a process.
#[derive(Debug, Clone, Copy)]
pub(crate) struct PlaceLimits {
    /// Maximum of attempts in flight or not yet recorded.
    pub(crate) attempts: usize,
    /// Maximum bytes of the attempts' payloads.
    pub(crate) bytes: usize,
}

pub(crate) struct Places {
    limits: PlaceLimits,
    used: Mutex<Used>,
    /// True while no delivery gets a place, except a delivery that is sent alone.
    is_closed: AtomicBool,
    /// Notified when a place becomes free.
    pub(crate) freed: Arc<Notify>,
}

#[derive(Default)]
struct Used {
    whole: Amount,
    applications: HashMap<ApplicationId, Amount>,
}

/// Number of places, and bytes of the payloads.
#[derive(Debug, Default, Clone, Copy)]
struct Amount {
    places: usize,
    bytes: usize,
    /// Number of places held by drains.
    drained: usize,
}

/// Room for an attempt, held until the attempt is recorded. After the death of a process, unrecorded attempts are sent
/// again: places bound the repeats, even while the database does not answer.
pub(crate) struct Place {
    places: Arc<Places>,
    application: ApplicationId,
    bytes: usize,
    is_drained: bool,
}

impl Places {
    pub(crate) fn new(limits: PlaceLimits) -> Arc<Self> {
        Arc::new(Self { limits, used: Mutex::default(), is_closed: AtomicBool::new(false), freed: Arc::default() })
    }

    /// Takes a place for an attempt to an endpoint with `pace`. Drains hold at most three quarters of an application's
    /// share: while many endpoints of the application drain, first attempts to the others still get a place.
    ///
    /// # Errors
    /// The reason to queue the delivery.
    pub(super) fn take(
        self: &Arc<Self>,
        application: ApplicationId,
        pace: Pace,
        bytes: usize,
        is_drained: bool,
    ) -> Result<Place, QueueReason> {
        let PlaceLimits { attempts, bytes: most_bytes } = self.limits;
        let mut used = self.used();
        if self.is_closed.load(Ordering::Acquire) {
            return Err(QueueReason::Isolated);
        }
        let own = used.applications.get(&application).copied().unwrap_or_default();
        let drains_have_room = |drained: usize, places: usize| {
            let most = drained_most(places);
            !is_drained || has_room(pace, most.saturating_sub(drained), most)
        };
        if !drains_have_room(own.drained, share(attempts))
            || !fits(own, pace, bytes, share(attempts), share(most_bytes))
        {
            return Err(QueueReason::ApplicationBusy);
        }
        if !drains_have_room(used.whole.drained, attempts) || !fits(used.whole, pace, bytes, attempts, most_bytes) {
            return Err(QueueReason::ProcessBusy);
        }
        Ok(self.taken(&mut used, application, bytes, is_drained))
    }

    /// Takes a place for a delivery that is sent alone, beyond all bounds.
    pub(super) fn take_alone(self: &Arc<Self>, application: ApplicationId, bytes: usize) -> Place {
        self.taken(&mut self.used(), application, bytes, false)
    }

    fn taken(self: &Arc<Self>, used: &mut Used, application: ApplicationId, bytes: usize, is_drained: bool) -> Place {
        used.whole.add(bytes, is_drained);
        used.applications.entry(application).or_default().add(bytes, is_drained);
        Place { places: Arc::clone(self), application, bytes, is_drained }
    }

    pub(crate) fn used_places(&self) -> usize {
        self.used().whole.places
    }

    /// Number of places in use, and bytes of their payloads.
    pub(crate) fn used_amount(&self) -> (usize, usize) {
        let Amount { places, bytes, .. } = self.used().whole;
        (places, bytes)
    }

    /// Number of free places.
    pub(crate) fn free(&self) -> usize {
        self.limits.attempts.saturating_sub(self.used_places())
    }

    /// Number of places that drains may still take. While events wait to be persisted, drains hold at most a quarter of
    /// all places, otherwise three quarters.
    pub(crate) fn left_to_drains(&self, events_wait: bool) -> usize {
        let most = if events_wait { self.limits.attempts / 4 } else { drained_most(self.limits.attempts) };
        most.saturating_sub(self.used().whole.drained)
    }

    /// True if less than a quarter of all places is free, or of the drains' places.
    pub(crate) fn is_nearly_full(&self) -> bool {
        let places = self.limits.attempts;
        self.free() * 4 < places || self.left_to_drains(false) * 4 < drained_most(places)
    }

    /// Stops or resumes giving places.
    pub(crate) fn close(&self, is_closed: bool) {
        // Behind the lock: no place is being given now.
        let used = self.used();
        self.is_closed.store(is_closed, Ordering::Release);
        drop(used);
        self.freed.notify_one();
    }

    fn used(&self) -> MutexGuard<'_, Used> {
        // No holder of this lock can panic halfway.
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Amount {
    fn add(&mut self, bytes: usize, is_drained: bool) {
        self.places += 1;
        self.bytes += bytes;
        self.drained += usize::from(is_drained);
    }

    fn remove(&mut self, bytes: usize, is_drained: bool) {
        self.places -= 1;
        self.bytes -= bytes;
        self.drained -= usize::from(is_drained);
    }
}

/// Maximum of places held by drains, of `places`.
fn drained_most(places: usize) -> usize {
    places - places / 4
}

/// True if another attempt fits. A payload larger than the bound fits if no other bytes are in use.
fn fits(used: Amount, pace: Pace, bytes: usize, places: usize, most_bytes: usize) -> bool {
    let free = places.saturating_sub(used.places);
    has_room(pace, free, places) && (used.bytes == 0 || used.bytes + bytes <= most_bytes)
}

impl Place {
    /// Corrects the bytes of the payload, once known.
    pub(super) fn set_bytes(&mut self, bytes: usize) {
        let mut used = self.places.used();
        let before = std::mem::replace(&mut self.bytes, bytes);
        for amount in [Some(self.application), None] {
            let amount = match amount {
                Some(application) => used.applications.entry(application).or_default(),
                None => &mut used.whole,
            };
            amount.bytes = amount.bytes - before + bytes;
        }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut used = self.places.used();
        used.whole.remove(self.bytes, self.is_drained);
        if let Some(own) = used.applications.get_mut(&self.application) {
            own.remove(self.bytes, self.is_drained);
            if own.places == 0 {
                used.applications.remove(&self.application);
            }
        }
        drop(used);
        self.places.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;

    fn application(number: u8) -> ApplicationId {
        ApplicationId::new(Timestamp::UNIX_EPOCH, [number; 10])
    }

    fn fill(places: &Arc<Places>, application: ApplicationId, pace: Pace) -> Vec<Place> {
        std::iter::from_fn(|| places.take(application, pace, 10, false).ok()).collect()
    }

    #[test]
    fn an_application_has_half_and_gives_it_back() {
        let places = Places::new(PlaceLimits { attempts: 16, bytes: 10_000 });
        let [first, second, third] = [1, 2, 3].map(application);
        let slow = fill(&places, first, Pace::Slow);
        let fast = fill(&places, first, Pace::Fast);
        assert_eq!((slow.len(), fast.len()), (4, 4), "half of the share is reserved for faster endpoints");
        assert_eq!(places.take(first, Pace::Fast, 1, false).err(), Some(QueueReason::ApplicationBusy));
        let other = fill(&places, second, Pace::Fast);
        assert_eq!((other.len(), places.free()), (8, 0));
        assert_eq!(places.take(third, Pace::Fast, 1, false).err(), Some(QueueReason::ProcessBusy));
        drop((slow, fast, other));
        assert_eq!((places.free(), places.used().applications.len()), (16, 0));
    }

    #[test]
    fn drains_of_an_application_leave_places_to_its_first_attempts() {
        let places = Places::new(PlaceLimits { attempts: 16, bytes: 1000 });
        let application = application(1);
        let drained: Vec<_> = std::iter::from_fn(|| places.take(application, Pace::Fast, 1, true).ok()).collect();
        assert_eq!(drained.len(), 6, "three quarters of the share");
        let first = fill(&places, application, Pace::Fast);
        assert_eq!(first.len(), 2);
        drop(drained);
        assert!(places.take(application, Pace::Fast, 1, true).is_ok());
    }

    #[test]
    fn bytes_are_bounded_and_one_large_payload_fits() {
        let places = Places::new(PlaceLimits { attempts: 100, bytes: 100 });
        let mut large = places.take(application(1), Pace::Fast, 500, false).ok();
        assert!(large.is_some());
        assert_eq!(places.take(application(1), Pace::Fast, 1, false).err(), Some(QueueReason::ApplicationBusy));
        assert_eq!(places.take(application(2), Pace::Fast, 1, false).err(), Some(QueueReason::ProcessBusy));
        if let Some(place) = &mut large {
            place.set_bytes(10);
        }
        assert!(places.take(application(2), Pace::Fast, 50, false).is_ok());
    }

    #[test]
    fn drains_leave_places_to_events_that_wait() {
        let places = Places::new(PlaceLimits { attempts: 16, bytes: 1000 });
        let drained: Vec<_> = (0..3).filter_map(|_| places.take(application(1), Pace::Fast, 1, true).ok()).collect();
        assert_eq!((places.left_to_drains(true), places.left_to_drains(false)), (1, 9));
        drop(drained);
        places.close(true);
        assert_eq!(places.take(application(1), Pace::Fast, 1, false).err(), Some(QueueReason::Isolated));
        assert_eq!(places.used_places(), 0);
    }
}
