//! Waits of readers for the next entry of a feed.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fanfare_domain::ids::ApplicationId;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

/// Maximum of waiting readers of a process. Each holds a connection, and asks the database twice a second. Further
/// readers are answered at once.
const MOST: usize = 200;

/// Maximum of waiting readers of an application in a process.
const MOST_OF_APPLICATION: usize = 50;

/// Interval between two looks for an entry.
const LOOK: Duration = Duration::from_millis(500);

/// The waits of this process. Cheap to clone.
#[derive(Clone)]
pub struct FeedWaits {
    waiting: Arc<Mutex<HashMap<ApplicationId, usize>>>,
    stop: CancellationToken,
}

/// The place of a waiting reader, free again when dropped.
pub(crate) struct FeedWait {
    waiting: Arc<Mutex<HashMap<ApplicationId, usize>>>,
    application: ApplicationId,
}

impl Drop for FeedWait {
    fn drop(&mut self) {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        match waiting.get_mut(&self.application) {
            Some(readers) if *readers > 1 => *readers -= 1,
            _ => {
                waiting.remove(&self.application);
            }
        }
    }
}

impl FeedWaits {
    /// Waits that end at `stop`.
    pub fn new(stop: CancellationToken) -> Self {
        Self { waiting: Arc::default(), stop }
    }

    /// A place for a reader that waits; `None` if all are taken.
    pub(crate) fn begin(&self, application: ApplicationId) -> Option<FeedWait> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let (all, own): (usize, usize) = (waiting.values().sum(), waiting.get(&application).copied().unwrap_or(0));
        if all >= MOST || own >= MOST_OF_APPLICATION {
            return None;
        }
        waiting.insert(application, own + 1);
        Some(FeedWait { waiting: Arc::clone(&self.waiting), application })
    }

    /// Waits until the time of another look. False if the process stops.
    pub(crate) async fn goes_on(&self) -> bool {
        timeout(LOOK, self.stop.cancelled()).await.is_err()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_application_cannot_take_all_places() {
        let waits = FeedWaits::new(CancellationToken::new());
        let application = |number: u8| format!("app_000000000000000000000000{number:02}").parse().expect("an id");
        let mut places = Vec::new();
        for number in 1..=4 {
            places.extend((0..=MOST_OF_APPLICATION).filter_map(|_| waits.begin(application(number))));
            assert_eq!(places.len(), usize::from(number) * MOST_OF_APPLICATION);
        }
        assert!(waits.begin(application(5)).is_none(), "all places of the process are taken");
        places.pop();
        assert!(waits.begin(application(1)).is_none() && waits.begin(application(5)).is_some());
        drop(places);
        assert!(waits.waiting.lock().expect("no panic").is_empty());
    }
}
