//! Connecting to the broker.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use lapin::{Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable, uri::AMQPUri};

use fanfare_domain::delay::Ladder;

use crate::{InvalidPrefix, Topology};

/// A connection that is not there after this long is given up and tried again.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// Seconds between heartbeats: a broker that fell silent is noticed after two. RabbitMQ's own default of
/// 60 s would take two minutes.
const HEARTBEAT: u16 = 10;

/// What a process tells about its broker.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    url: String,
    /// Declared at every connection.
    topology: Topology,
    name: String,
}

/// Why a process cannot have these settings.
#[derive(Debug, thiserror::Error)]
pub enum InvalidSettings {
    /// The URL cannot be read.
    #[error("AMQP_URL: {0}")]
    Url(String),
    /// The prefix cannot stand in names.
    #[error("FANFARE_PREFIX: {0}")]
    Prefix(#[from] InvalidPrefix),
}

impl BrokerSettings {
    /// The settings of a process whose name is shown in the broker's list of connections.
    ///
    /// # Errors
    /// With the one of url and prefix that cannot be used.
    pub fn new(url: String, prefix: &str, ladder: Ladder, name: &str) -> Result<Self, InvalidSettings> {
        url.parse::<AMQPUri>().map_err(InvalidSettings::Url)?;
        let topology = Topology::new(prefix, ladder)?;
        Ok(Self { url, topology, name: name.to_owned() })
    }

    /// The exchanges and queues.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Messages that are ready in a queue, and with nobody yet.
    ///
    /// # Errors
    /// When the broker is away or there is no such queue.
    pub async fn queue_depth(&self, queue: &str) -> lapin::Result<u32> {
        let connection = self.connect("looks").await?;
        let channel = connection.create_channel().await?;
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let depth = channel.queue_declare(queue.into(), options, FieldTable::default()).await?.message_count();
        connection.close(200, "".into()).await?;
        Ok(depth)
    }

    /// A connection on which the topology has been declared.
    pub(crate) async fn connect(&self, purpose: &str) -> lapin::Result<Connection> {
        let mut uri: AMQPUri =
            self.url.parse().map_err(|error: String| std::io::Error::new(std::io::ErrorKind::InvalidInput, error))?;
        uri.query.heartbeat = Some(uri.query.heartbeat.unwrap_or(HEARTBEAT));
        let properties =
            ConnectionProperties::default().with_connection_name(format!("{} {purpose}", self.name).into());
        let connected = tokio::time::timeout(CONNECT_TIMEOUT, async {
            let connection = Connection::connect_uri(uri, properties).await?;
            let channel = connection.create_channel().await?;
            self.topology.declare(&channel).await?;
            channel.close(200, "declared".into()).await?;
            Ok(connection)
        });
        connected.await.unwrap_or_else(|_| Err(std::io::Error::from(std::io::ErrorKind::TimedOut).into()))
    }
}

/// The waits between attempts to connect: 0.2 s to 10 s with jitter, for ever.
pub(crate) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(10))
        .without_max_times()
        .with_jitter()
        .build()
}
