//! The time by the database's clock, on which all processes agree, however wrong their own clocks are.

use std::{
    sync::{PoisonError, RwLock},
    time::Duration,
};

use fanfare_domain::moment::later;
use jiff::Timestamp;
use tokio::time::Instant;

/// An error of the process's own clock that is worth a word in the log.
const WRONG: Duration = Duration::from_secs(2);

/// The database's clock as it was when it was last heard of, and goes on since then.
#[derive(Default)]
pub(crate) struct Clock(RwLock<Option<(Timestamp, Instant)>>);

impl Clock {
    /// The time. Before anything was heard of the database it is that of the process's own clock.
    pub(crate) fn now(&self) -> Timestamp {
        let heard = *self.0.read().unwrap_or_else(PoisonError::into_inner);
        heard.map_or_else(Timestamp::now, |(time, at)| later(time, at.elapsed()))
    }

    /// The database said that it was `time` there, some time between `asked_at` and now.
    pub(crate) fn set(&self, time: Timestamp, asked_at: Instant) {
        let heard = (time, asked_at + asked_at.elapsed() / 2);
        *self.0.write().unwrap_or_else(PoisonError::into_inner) = Some(heard);
    }

    /// Says where the process's own clock is wrong.
    pub(crate) fn compare(&self) {
        let error = Timestamp::now().duration_since(self.now());
        if error.unsigned_abs() > WRONG {
            tracing::warn!(seconds = error.as_secs(), "this machine's clock is not that of the database, which counts");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_what_the_database_said_and_goes_on() {
        let clock = Clock::default();
        let between = |from: Timestamp, to: Timestamp| (from..=to).contains(&clock.now());
        assert!(between(Timestamp::now(), later(Timestamp::now(), Duration::from_secs(60))), "its own before that");
        let (said, asked_at) = (Timestamp::UNIX_EPOCH, Instant::now());
        clock.set(said, asked_at);
        assert!(between(said, later(said, Duration::from_secs(60))));
        let before = clock.now();
        std::thread::sleep(Duration::from_millis(20));
        assert!(clock.now() >= later(before, Duration::from_millis(20)));
    }
}
