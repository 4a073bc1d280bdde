//! Clock of the database. All processes use this time; the clock of a machine may be wrong.

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use fanfare_domain::time::saturating_add;
use jiff::{SignedDuration, Timestamp};
use tokio::time::Instant;

/// Deviation of the machine's clock above which a warning is logged.
const WRONG: Duration = Duration::from_secs(2);

/// Last answer of the database's clock, and the monotonic instant of that answer.
#[derive(Default)]
pub(crate) struct Clock(RwLock<Option<(Timestamp, Instant)>>);

impl Clock {
    /// The database's time. Before the database's first answer, the machine's time.
    pub(crate) fn now(&self) -> Timestamp {
        let heard = *self.0.read().unwrap_or_else(PoisonError::into_inner);
        heard.map_or_else(Timestamp::now, |(time, at)| saturating_add(time, at.elapsed()))
    }

    /// Stores the database's answer `time` to a question asked at `asked_at`, as the time at half of the round trip.
    pub(crate) fn set(&self, time: Timestamp, asked_at: Instant) {
        let heard = (time, asked_at + asked_at.elapsed() / 2);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(heard);
    }

    /// Deviation of the machine's clock; negative if the clock is behind.
    pub(crate) fn offset(&self) -> SignedDuration {
        Timestamp::now().duration_since(self.now())
    }

    /// Logs a warning if the machine's clock deviates by more than [`WRONG`].
    pub(crate) fn compare(&self) {
        let error = self.offset();
        if error.unsigned_abs() > WRONG {
            tracing::warn!(
                seconds = error.as_secs(),
                "this machine's clock differs from the database's clock, which Fanfare uses; synchronise both machines"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_follows_the_database_and_advances() {
        let clock = Clock::default();
        let between = |from: Timestamp, to: Timestamp| (from..=to).contains(&clock.now());
        assert!(
            between(Timestamp::now(), saturating_add(Timestamp::now(), Duration::from_secs(60))),
            "the machine's time before the first answer"
        );
        let (said, asked_at) = (Timestamp::UNIX_EPOCH, Instant::now());
        clock.set(said, asked_at);
        assert!(between(said, saturating_add(said, Duration::from_secs(60))));
        let before = clock.now();
        std::thread::sleep(Duration::from_millis(20));
        assert!(clock.now() >= saturating_add(before, Duration::from_millis(20)));
    }
}
