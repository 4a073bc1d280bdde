//! A consumer that is open and gets nothing, although its queue has something for it: the connection is built anew.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lapin::Connection;
use tokio::time::Instant;

use crate::connection::{ready, timed_out};

/// How often the consumers are looked at.
const LOOK: Duration = Duration::from_secs(20);

/// How long a consumer that has room may get nothing while messages wait. One that is healthy gets them at once.
const SILENT_AFTER: Duration = Duration::from_secs(60);

/// The longest that the broker may take to say how many messages wait.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What comes from one queue.
pub(crate) struct Flow {
    queue: String,
    prefetch: usize,
    last: Mutex<Instant>,
    places: Place,
}

/// Kept by a message until its end: so many are on their way.
pub(crate) type Place = Arc<()>;

impl Flow {
    pub(crate) fn new(queue: String, prefetch: usize) -> Self {
        Self { queue, prefetch, last: Mutex::new(Instant::now()), places: Place::default() }
    }

    /// A place for a message that has just come.
    pub(crate) fn place(&self) -> Place {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Arc::clone(&self.places)
    }

    /// Whether it could get messages, and got none for long.
    fn is_silent(&self, now: Instant) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let on_their_way = Arc::strong_count(&self.places) - 1;
        on_their_way < self.prefetch && now.saturating_duration_since(last) >= SILENT_AFTER
    }
}

/// Ends with an error when one of the consumers has fallen silent.
pub(crate) async fn watch_over(connection: &Connection, flows: &[Arc<Flow>]) -> lapin::Error {
    loop {
        tokio::time::sleep(LOOK).await;
        for flow in flows.iter().filter(|flow| flow.is_silent(Instant::now())) {
            let waiting = tokio::time::timeout(ANSWER_TIMEOUT, ready(connection, &flow.queue));
            match waiting.await.unwrap_or_else(|_| Err(timed_out())) {
                Ok(waiting) if waiting > 0 && flow.is_silent(Instant::now()) => {
                    tracing::warn!(queue = flow.queue, waiting, "a consumer fell silent while messages wait for it");
                    return lapin::ErrorKind::InvalidChannelState(lapin::ChannelState::Error, "silent").into();
                }
                Ok(_) => {}
                Err(error) => return error,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_consumer_with_room_that_got_nothing_for_long_is_silent() {
        let flow = Flow::new("queue".to_owned(), 2);
        let silent_at = || Instant::now() + SILENT_AFTER;
        assert!(!flow.is_silent(Instant::now()));
        assert!(flow.is_silent(silent_at()));
        let first = flow.place();
        assert!(!flow.is_silent(Instant::now()));
        assert!(flow.is_silent(silent_at()), "it has room for another");
        let second = flow.place();
        assert!(!flow.is_silent(silent_at()), "it has what it may have");
        drop((first, second));
        assert!(flow.is_silent(silent_at()));
    }
}
