//! Connections to the broker.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use fanfare_credentials::Credentials;
use fanfare_domain::delivery::delay::DelayQueues;
use lapin::{Connection, ConnectionProperties, options::QueueDeclareOptions, types::FieldTable};

use crate::{BrokerUrls, HeaderKeys, Prefix, Topology, nodes::Node, wire::open};

/// Longest wait for a node's answer at each step; then the next node is tried. All steps together may take longer:
/// otherwise a busy broker that answers each step late would be left before the last step, each time anew.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Longest wait for the close of a connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(1);

/// Seconds between heartbeats. A silent broker is noticed after two heartbeats. RabbitMQ's own default of 60 s would
/// take two minutes, and less than 5 s could mistake a busy broker for a silent broker.
const HEARTBEAT: u16 = 5;

/// Connection settings of a process.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    urls: BrokerUrls,
    credentials: Credentials,
    topology: Topology,
    /// True if every connection declares the topology.
    declares: bool,
    keys: HeaderKeys,
    /// Longest body that a consumer gets whole, in bytes.
    max_body: usize,
    name: String,
}

impl BrokerSettings {
    /// Creates the settings of a process without keys for Fanfare's own headers. The broker's list of connections shows
    /// `name`.
    pub fn new(
        (urls, credentials): (BrokerUrls, Credentials),
        prefix: Prefix,
        delays: DelayQueues,
        name: &str,
    ) -> Self {
        let topology = Topology::new(prefix, delays);
        Self {
            urls,
            credentials,
            topology,
            declares: true,
            keys: HeaderKeys::default(),
            max_body: usize::MAX,
            name: name.to_owned(),
        }
    }

    /// The same settings with keys for Fanfare's own headers.
    pub fn with_keys(self, keys: HeaderKeys) -> Self {
        Self { keys, ..self }
    }

    /// The same settings with a limit on the bodies of consumed messages, in bytes. A longer body is cut.
    pub fn with_max_body(self, max_body: usize) -> Self {
        Self { max_body, ..self }
    }

    /// The same settings for a user at the broker without the right to declare. Other processes declare the topology.
    pub fn without_declarations(self) -> Self {
        Self { declares: false, ..self }
    }

    pub(crate) fn keys(&self) -> &HeaderKeys {
        &self.keys
    }

    /// Exchanges and queues.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Declares all missing parts of the topology.
    ///
    /// # Errors
    /// If the broker is away, or has a part of the same name with other properties.
    pub async fn declare(&self) -> lapin::Result<()> {
        self.connect(&mut self.turns(), "declares").await?.close(200, "".into()).await
    }

    /// Connects without declaring the topology.
    pub(crate) async fn look(&self) -> lapin::Result<Connection> {
        self.first(&mut self.turns(), "looks", None).await
    }

    /// The nodes in turn, from a random node on, so that connections spread over the nodes. A reconnect continues the
    /// same iterator: the lost node is then the last to be tried.
    pub(crate) fn turns(&self) -> impl Iterator<Item = &Node> + Send {
        self.urls.turns(rand::random_range(0..self.urls.count()))
    }

    /// Connects to the first node that answers, and declares the topology, unless the settings say otherwise.
    pub(crate) async fn connect<'a>(
        &self,
        turns: &mut impl Iterator<Item = &'a Node>,
        purpose: &str,
    ) -> lapin::Result<Connection> {
        self.first(turns, purpose, self.declares.then_some(&self.topology)).await
    }

    async fn first<'a>(
        &self,
        turns: &mut impl Iterator<Item = &'a Node>,
        purpose: &str,
        declare: Option<&Topology>,
    ) -> lapin::Result<Connection> {
        let mut failed = Err(timed_out());
        for node in turns.take(self.urls.count()) {
            failed = self.connect_to(node, purpose, declare).await;
            match &failed {
                Ok(_) => break,
                Err(error) => tracing::debug!(node = node.address(), %error, "a node of the broker cannot be used"),
            }
        }
        failed
    }

    /// All nodes.
    pub(crate) fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.urls.turns(0).take(self.urls.count())
    }

    pub(crate) async fn connect_to(
        &self,
        node: &Node,
        purpose: &str,
        declare: Option<&Topology>,
    ) -> lapin::Result<Connection> {
        let mut url = node.url.clone();
        url.authority.userinfo = node.login(&self.credentials);
        url.query.heartbeat = Some(url.query.heartbeat.unwrap_or(HEARTBEAT));
        let properties =
            ConnectionProperties::default().with_connection_name(format!("{} {purpose}", self.name).into());
        let connection = answered(open(node, url, properties, self.max_body)).await?;
        if let Some(topology) = declare {
            let channel = answered(connection.create_channel()).await?;
            topology.declare(&channel).await?;
            answered(channel.close(200, "declared".into())).await?;
        }
        Ok(connection)
    }
}

/// Closes a connection, and waits at most [`CLOSE_TIMEOUT`]: a broken connection never answers.
pub(crate) async fn close(connection: Connection) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "".into())).await;
}

/// A node's answer, or an error after [`ANSWER_TIMEOUT`].
pub(crate) async fn answered<T>(answer: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| Err(timed_out()))
}

/// The error of a missing answer.
pub(crate) fn timed_out() -> lapin::Error {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// Number of messages in a queue that are not delivered to a consumer.
pub(crate) async fn ready(connection: &Connection, queue: &str) -> lapin::Result<u32> {
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let ready = channel.queue_declare(queue.into(), options, FieldTable::default()).await?.message_count();
    channel.close(200, "".into()).await?;
    Ok(ready)
}

/// Waits between attempts to connect, without end: 0.2 s to 3 s, and with jitter up to twice as long. A returned broker
/// is idle no longer than the last wait.
pub(crate) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(3))
        .without_max_times()
        .with_jitter()
        .build()
}
