//! Depths of the queues, read on a connection of its own: the connection for publishing may be blocked.

use std::time::Duration;

use lapin::{Channel, Connection, options::QueueDeclareOptions, types::FieldTable};
use tokio::time::timeout;

use crate::{
    BrokerSettings,
    connection::{answered, close, timed_out},
};

/// Longest duration of a look at all queues.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);

/// Depth of a queue.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueueDepth {
    /// Name of the queue, without the prefix.
    pub queue: String,
    /// Messages that wait in the broker.
    pub ready: u32,
    /// Consumers of all processes.
    pub consumers: u32,
}

/// Reader of the depths of all queues. Keeps a connection.
pub struct QueueDepths {
    settings: BrokerSettings,
    open: Option<(Connection, Channel)>,
}

impl QueueDepths {
    /// Creates a reader without connecting.
    pub fn new(settings: BrokerSettings) -> Self {
        Self { settings, open: None }
    }

    /// Reads the depths of all queues.
    ///
    /// # Errors
    /// If the broker is away, or a queue does not exist. The next call connects anew.
    pub async fn read(&mut self) -> lapin::Result<Vec<QueueDepth>> {
        let read = timeout(LOOK_TIMEOUT, self.ask()).await.unwrap_or_else(|_| Err(timed_out()));
        if read.is_err()
            && let Some((connection, _)) = self.open.take()
        {
            close(connection).await;
        }
        read
    }

    async fn ask(&mut self) -> lapin::Result<Vec<QueueDepth>> {
        let Self { settings, open } = self;
        let (_, channel) = match open {
            Some(open) => open,
            None => {
                let connection = settings.look().await?;
                let channel = answered(connection.create_channel()).await?;
                open.insert((connection, channel))
            }
        };
        let mut depths = Vec::new();
        for (name, queue) in settings.topology().queue_names() {
            let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
            let declared = answered(channel.queue_declare(queue.into(), options, FieldTable::default())).await?;
            let (ready, consumers) = (declared.message_count(), declared.consumer_count());
            depths.push(QueueDepth { queue: name, ready, consumers });
        }
        Ok(depths)
    }
}
