//! Detects faults that the broker does not report: a silent connection, and an open consumer without messages although
//! the queue has some. The supervisor then rebuilds the connection.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use lapin::{Channel, Connection, options::BasicQosOptions};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    BrokerSettings,
    connection::{ready, timed_out},
};

/// Interval between questions to the broker, and longest wait for an answer before a new connection is tried.
const ASK: Duration = Duration::from_secs(2);
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// Further time for the old connection's answer after the broker has answered a new connection.
const GRACE: Duration = Duration::from_secs(1);

/// Interval between checks of a consumer.
const LOOK: Duration = Duration::from_secs(20);

/// Longest time without messages for a consumer with room while messages wait. A healthy consumer gets messages at
/// once.
const SILENT_AFTER: Duration = Duration::from_secs(60);

/// Longest wait for the number of messages in the queue.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Flow of messages from a queue.
pub(crate) struct Flow {
    queue: String,
    prefetch: usize,
    last: Mutex<Instant>,
    places: Place,
}

/// Held by a message until the message ends, so that the strong count gives the number of open messages.
pub(crate) type Place = Arc<()>;

impl Flow {
    pub(crate) fn new(queue: String, prefetch: usize) -> Self {
        Self { queue, prefetch, last: Mutex::new(Instant::now()), places: Place::default() }
    }

    /// Creates a place for a message that has just arrived.
    pub(crate) fn place(&self) -> Place {
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
        Arc::clone(&self.places)
    }

    /// Messages that have not ended.
    pub(crate) fn in_hand(&self) -> usize {
        Arc::strong_count(&self.places) - 1
    }

    /// True if the consumer has room, but has not got any message for long.
    fn is_silent(&self, now: Instant) -> bool {
        let last = *self.last.lock().unwrap_or_else(PoisonError::into_inner);
        self.in_hand() < self.prefetch && now.saturating_duration_since(last) >= SILENT_AFTER
    }
}

/// Returns an error if the connection fails, or does not answer while a new connection does. Heartbeats detect the
/// same, but take twice as long. While no new connection is possible, the broker is slow or away, and leaving this
/// connection gains nothing.
pub(crate) async fn watch_connection(settings: &BrokerSettings, connection: &Connection) -> lapin::Error {
    watch(settings, connection).await.map_or_else(|error| error, |()| is_silent())
}

/// Returns `Ok` if the connection is silent.
async fn watch(settings: &BrokerSettings, connection: &Connection) -> lapin::Result<()> {
    let channel = connection.create_channel().await?;
    let mut turns = settings.turns();
    loop {
        sleep(ASK).await;
        let mut answer = std::pin::pin!(ask(&channel));
        if let Ok(answer) = timeout(ASK_TIMEOUT, &mut answer).await {
            answer?;
            continue;
        }
        loop {
            tokio::select! {
                answer = &mut answer => {
                    answer?;
                    break;
                }
                other = settings.connect(&mut turns, "looks") => match other {
                    Ok(other) => {
                        let _ = timeout(GRACE, other.close(200, "".into())).await;
                        let Ok(answer) = timeout(GRACE, &mut answer).await else { return Ok(()) };
                        answer?;
                        break;
                    }
                    Err(_) => sleep(ASK).await,
                }
            }
        }
    }
}

/// Asks a question that costs the broker nothing, since this channel has no consumer.
async fn ask(channel: &Channel) -> lapin::Result<()> {
    channel.basic_qos(1, BasicQosOptions::default()).await
}

/// Returns an error once the consumer has fallen silent.
pub(crate) async fn watch_consumer(connection: &Connection, flow: &Flow) -> lapin::Error {
    loop {
        sleep(LOOK).await;
        if !flow.is_silent(Instant::now()) {
            continue;
        }
        let waiting = timeout(ANSWER_TIMEOUT, ready(connection, &flow.queue));
        match waiting.await.unwrap_or_else(|_| Err(timed_out())) {
            Ok(waiting) if waiting > 0 && flow.is_silent(Instant::now()) => {
                tracing::warn!(queue = flow.queue, waiting, "a consumer fell silent while messages wait in the queue");
                return is_silent();
            }
            Ok(_) => {}
            Err(error) => return error,
        }
    }
}

fn is_silent() -> lapin::Error {
    lapin::ErrorKind::InvalidChannelState(lapin::ChannelState::Error, "silent").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_consumer_with_room_and_no_message_for_long_is_silent() {
        let flow = Flow::new("queue".to_owned(), 2);
        let silent_at = || Instant::now() + SILENT_AFTER;
        assert!(!flow.is_silent(Instant::now()));
        assert!(flow.is_silent(silent_at()));
        let first = flow.place();
        assert!(!flow.is_silent(Instant::now()));
        assert!(flow.is_silent(silent_at()), "the consumer has room for another message");
        let second = flow.place();
        assert!(!flow.is_silent(silent_at()), "the consumer has no room");
        drop((first, second));
        assert!(flow.is_silent(silent_at()));
    }
}
