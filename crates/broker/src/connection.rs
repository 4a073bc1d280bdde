//! Connecting to the broker.

use std::time::Duration;

use backon::{BackoffBuilder, ExponentialBackoff, ExponentialBuilder};
use fanfare_domain::delay::DelayQueues;
use lapin::{Connection, ConnectionProperties, options::QueueDeclareOptions, tcp::OwnedTLSConfig, types::FieldTable};

use crate::{BrokerUrls, Prefix, Topology, nodes::Node, stream::open};

/// A node that has not answered after this long, at any step, is given up, and the next one tried. All steps together may
/// take longer: a busy broker that answers each of them late must not be left each time before the last.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// Seconds between heartbeats: a broker that fell silent is noticed after two. RabbitMQ's own default of
/// 60 s would take two minutes, and less than 5 s could take a broker for silent that is only busy.
const HEARTBEAT: u16 = 5;

/// What a process tells about its broker.
#[derive(Debug, Clone)]
pub struct BrokerSettings {
    urls: BrokerUrls,
    /// Declared at every connection.
    topology: Topology,
    name: String,
}

impl BrokerSettings {
    /// The settings of a process whose name is shown in the broker's list of connections.
    pub fn new(urls: BrokerUrls, prefix: Prefix, delays: DelayQueues, name: &str) -> Self {
        Self { urls, topology: Topology::new(prefix, delays), name: name.to_owned() }
    }

    /// The exchanges and queues.
    pub fn topology(&self) -> &Topology {
        &self.topology
    }

    /// Declares the topology, whatever of it is gone.
    ///
    /// # Errors
    /// When the broker is away, or has something of the same name that is not the same.
    pub async fn declare(&self) -> lapin::Result<()> {
        self.connect(&mut self.turns(), "declares").await?.close(200, "".into()).await
    }

    /// Messages that are ready in a queue, and with nobody yet.
    ///
    /// # Errors
    /// When the broker is away or there is no such queue.
    pub async fn queue_depth(&self, queue: &str) -> lapin::Result<u32> {
        let connection = self.first(&mut self.turns(), "looks", None).await?;
        let depth = ready(&connection, queue).await?;
        connection.close(200, "".into()).await?;
        Ok(depth)
    }

    /// The nodes in turn, from any one on, so that connections spread over them. Whoever connects again asks the same
    /// turns: then the node that was lost is the last to be tried.
    pub(crate) fn turns(&self) -> impl Iterator<Item = &Node> + Send {
        self.urls.turns(rand::random_range(0..self.urls.count()))
    }

    /// A connection on which the topology has been declared, to the first node that gives one.
    pub(crate) async fn connect<'a>(
        &self,
        turns: &mut impl Iterator<Item = &'a Node>,
        purpose: &str,
    ) -> lapin::Result<Connection> {
        self.first(turns, purpose, Some(&self.topology)).await
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

    async fn connect_to(&self, node: &Node, purpose: &str, declare: Option<&Topology>) -> lapin::Result<Connection> {
        let mut url = node.url.clone();
        url.query.heartbeat = Some(url.query.heartbeat.unwrap_or(HEARTBEAT));
        let properties =
            ConnectionProperties::default().with_connection_name(format!("{} {purpose}", self.name).into());
        let tls = OwnedTLSConfig { identity: None, cert_chain: node.roots.clone() };
        let connection = answered(open(url, properties, tls)).await?;
        if let Some(topology) = declare {
            let channel = answered(connection.create_channel()).await?;
            topology.declare(&channel).await?;
            answered(channel.close(200, "declared".into())).await?;
        }
        Ok(connection)
    }
}

/// The answer of a node, if it comes in time.
pub(crate) async fn answered<T>(answer: impl Future<Output = lapin::Result<T>>) -> lapin::Result<T> {
    tokio::time::timeout(ANSWER_TIMEOUT, answer).await.unwrap_or_else(|_| Err(timed_out()))
}

/// What did not come within its time.
pub(crate) fn timed_out() -> lapin::Error {
    std::io::Error::from(std::io::ErrorKind::TimedOut).into()
}

/// Messages that are ready in a queue, and with nobody yet.
pub(crate) async fn ready(connection: &Connection, queue: &str) -> lapin::Result<u32> {
    let channel = connection.create_channel().await?;
    let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
    let ready = channel.queue_declare(queue.into(), options, FieldTable::default()).await?.message_count();
    channel.close(200, "".into()).await?;
    Ok(ready)
}

/// The waits between attempts to connect: 0.2 s to 3 s, and with jitter up to twice that, for ever. A broker that is back
/// has no work to do for longer than the last of them.
pub(crate) fn backoff() -> ExponentialBackoff {
    ExponentialBuilder::default()
        .with_min_delay(Duration::from_millis(200))
        .with_max_delay(Duration::from_secs(3))
        .without_max_times()
        .with_jitter()
        .build()
}
