//! What the broker does not tell of: a connection that fell silent, and a consumer that is open and gets nothing,
//! although its queue has something for it. The connection is then built anew.

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

/// How often the connection is asked for an answer, and how long that may take before another one is asked.
const ASK: Duration = Duration::from_secs(2);
const ASK_TIMEOUT: Duration = Duration::from_secs(3);

/// A broker that has answered a new connection has answered the old one before, but for so much.
const GRACE: Duration = Duration::from_secs(1);

/// How often a consumer is looked at.
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

/// Ends with an error when the connection fails, or does not answer while a new one does. Heartbeats tell that as well, but
/// take twice as long. As long as no new one is to be had, the broker is slow, or away, and nothing is gained by leaving
/// this one.
pub(crate) async fn watch_connection(settings: &BrokerSettings, connection: &Connection) -> lapin::Error {
    watch(settings, connection).await.map_or_else(|error| error, |()| is_silent())
}

/// Ends well when the connection is silent.
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

/// A question that costs the broker nothing: nobody consumes on this channel.
async fn ask(channel: &Channel) -> lapin::Result<()> {
    channel.basic_qos(1, BasicQosOptions::default()).await
}

/// Ends with an error when the consumer has fallen silent.
pub(crate) async fn watch_consumer(connection: &Connection, flow: &Flow) -> lapin::Error {
    loop {
        sleep(LOOK).await;
        if !flow.is_silent(Instant::now()) {
            continue;
        }
        let waiting = timeout(ANSWER_TIMEOUT, ready(connection, &flow.queue));
        match waiting.await.unwrap_or_else(|_| Err(timed_out())) {
            Ok(waiting) if waiting > 0 && flow.is_silent(Instant::now()) => {
                tracing::warn!(queue = flow.queue, waiting, "a consumer fell silent while messages wait for it");
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
