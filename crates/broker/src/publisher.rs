//! Publishing with confirms.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures_util::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use lapin::{
    Channel, Confirmation, Connection, ConnectionStatus,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, oneshot, watch},
    time::{Instant, timeout},
};
use tokio_util::sync::CancellationToken;

use crate::{
    BrokerSettings, HeaderKeys,
    connection::{backoff, close, timed_out},
    message::codec::Message,
};

/// Longest duration of a publish for its caller, including the wait for a place and the confirm.
const CONFIRM_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for a late confirm. A late confirm is no reason to leave the connection: a broker with too much to do
/// would get all messages again, and more to do. Heartbeats find a silent broker.
const LATEST_CONFIRM: Duration = Duration::from_secs(60);

/// Maximum publishes that await confirms in time. Late publishes have left the window: a queue that takes nothing
/// leaves the places to others.
const MAX_IN_FLIGHT: usize = 1024;

/// Interval between checks of an idle connection.
const WATCH: Duration = Duration::from_millis(250);

/// Minimum age of a channel that is replaced after a refusal.
///
/// If a channel's first publish for a queue finds no leader, RabbitMQ 3.10 may refuse all further publishes of the
/// channel for the queue. Only a new channel, or the return of the last leader's node, ends the refusals.
const RENEW_AFTER: Duration = Duration::from_secs(1);

/// The reason why a publish was not confirmed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PublishError {
    /// No connection, or the broker accepts no messages at the moment. No message was sent.
    #[error("the broker is away or does not accept messages")]
    Unavailable,
    /// The broker refused the message.
    #[error("the broker refused the message")]
    Refused,
    /// No answer in time: the broker may have accepted the message. Publish again; a copy does no harm.
    #[error("the broker did not confirm in time; the message may have been accepted")]
    Unknown,
}

impl PublishError {
    /// The word for metrics and traces.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Unavailable => "unavailable",
            Self::Refused => "refused",
            Self::Unknown => "unknown",
        }
    }
}

/// Handle for publishing. Cheap to clone.
///
/// A single task owns the channel: lapin mixes up the confirms of tasks that share a channel.
#[derive(Clone)]
pub struct Publisher {
    jobs: mpsc::Sender<Job>,
    keys: HeaderKeys,
    link: watch::Receiver<Link>,
    connections: Arc<AtomicU64>,
}

/// State of the connection for publishing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PublisherState {
    /// True while connected.
    pub is_connected: bool,
    /// True while the broker accepts no messages, because of its memory or disk.
    pub is_blocked: bool,
    /// Connections made so far.
    pub connections: u64,
}

struct Job {
    message: Message,
    done: oneshot::Sender<Result<(), PublishError>>,
}

/// State of the connection.
#[derive(Clone)]
enum Link {
    Away,
    Connected(Arc<ConnectionStatus>),
}

impl Link {
    /// True if a message may be sent. A blocked connection would keep the message, and send the message later.
    fn accepts(&self) -> bool {
        match self {
            Self::Away => false,
            Self::Connected(status) => status.connected() && !status.blocked(),
        }
    }
}

impl Publisher {
    /// Starts connecting, and publishes until `stop`.
    pub fn start(settings: BrokerSettings, stop: CancellationToken) -> Self {
        let (jobs, queue) = mpsc::channel(MAX_IN_FLIGHT);
        let (state, link) = watch::channel(Link::Away);
        let (keys, connections) = (settings.keys().clone(), Arc::<AtomicU64>::default());
        let count = Arc::clone(&connections);
        tokio::spawn(async move { stop.run_until_cancelled(supervise(settings, queue, state, &count)).await });
        Self { jobs, keys, link, connections }
    }

    /// Publishes a persistent message, and waits for the broker's confirm.
    ///
    /// # Errors
    /// At once without a connection or while the broker blocks the connection, otherwise within 5 s.
    pub async fn publish(&self, message: Message) -> Result<(), PublishError> {
        timeout(CONFIRM_TIMEOUT, self.confirmed(message)).await.unwrap_or(Err(PublishError::Unknown))
    }

    /// Publishes a message, and waits for a late confirm, too.
    async fn confirmed(&self, mut message: Message) -> Result<(), PublishError> {
        if !self.is_ready() {
            return Err(PublishError::Unavailable);
        }
        self.keys.sign(&mut message.headers, message.message_id.as_deref());
        let (done, confirmed) = oneshot::channel();
        if self.jobs.send(Job { message, done }).await.is_err() {
            return Err(PublishError::Unavailable);
        }
        confirmed.await.unwrap_or(Err(PublishError::Unknown))
    }

    /// Publishes a message until the broker confirms, without a time limit: again only after a refusal, without a
    /// connection, or without a confirm for a minute.
    pub async fn publish_until_confirmed(&self, message: &Message) {
        let mut waits = backoff();
        while let Err(error) = self.confirmed(message.clone()).await {
            let wait = waits.next().unwrap_or_default();
            // The supervisor logs a missing connection once, instead of once per message.
            if error != PublishError::Unavailable {
                tracing::warn!(%error, routing_key = message.routing_key, "the broker did not confirm a message; publishing again");
            }
            tokio::time::sleep(wait).await;
        }
    }

    /// State of the connection.
    pub fn state(&self) -> PublisherState {
        let connections = self.connections.load(Ordering::Relaxed);
        let (is_connected, is_blocked) = match &*self.link.borrow() {
            Link::Away => (false, false),
            Link::Connected(status) => (status.connected(), status.blocked()),
        };
        PublisherState { is_connected, is_blocked, connections }
    }

    /// True if a publish can succeed now.
    pub fn is_ready(&self) -> bool {
        self.link.borrow().accepts()
    }

    /// Waits until the broker is connected and accepts messages.
    pub async fn until_ready(&self) {
        // The link ends only with the process's publisher.
        let _ = self.link.clone().wait_for(Link::accepts).await;
    }
}

async fn supervise(
    settings: BrokerSettings,
    mut queue: mpsc::Receiver<Job>,
    state: watch::Sender<Link>,
    connections: &AtomicU64,
) {
    let (mut waits, mut turns) = (backoff(), settings.turns());
    loop {
        match settings.connect(&mut turns, "publishes").await {
            Ok(connection) => {
                tracing::info!("connected to the broker for publishing");
                connections.fetch_add(1, Ordering::Relaxed);
                state.send_replace(Link::Connected(Arc::new(connection.status().clone())));
                waits = backoff();
                let ended = publish_on(&connection, &mut queue).await;
                state.send_replace(Link::Away);
                match ended {
                    Ok(()) => return,
                    Err(error) => tracing::warn!(%error, "the connection for publishing failed; connecting again"),
                }
                close(connection).await;
            }
            Err(error) => tracing::warn!(%error, "cannot connect to the broker for publishing; trying again"),
        }
        // Fails the queued publishes now: otherwise they would wait for the next connection.
        while let Ok(job) = queue.try_recv() {
            let _ = job.done.send(Err(PublishError::Unavailable));
        }
        tokio::time::sleep(waits.next().unwrap_or_default()).await;
    }
}

/// Publishes until the connection fails or all publishers are dropped.
async fn publish_on(connection: &Connection, queue: &mut mpsc::Receiver<Job>) -> lapin::Result<()> {
    let (mut channel, mut opened) = (open(connection).await?, Instant::now());
    let mut in_flight: FuturesUnordered<BoxFuture<'static, lapin::Result<Verdict>>> = FuturesUnordered::new();
    let window = Arc::new(Semaphore::new(MAX_IN_FLIGHT));
    let mut watch = tokio::time::interval(WATCH);
    loop {
        tokio::select! {
            biased;
            Some(ended) = in_flight.next(), if !in_flight.is_empty() => {
                // Publishes in flight keep the old channel until confirmed.
                if ended? == Verdict::Refused && opened.elapsed() >= RENEW_AFTER {
                    (channel, opened) = (open(connection).await?, Instant::now());
                }
            }
            next = next_job(&window, queue) => match next {
                Some((job, _)) if job.done.is_closed() => {}
                Some((job, place)) => in_flight.push(Box::pin(publish_one(channel.clone(), job, place))),
                None => return Ok(()),
            },
            _ = watch.tick() => {
                if !channel.status().connected() || !connection.status().connected() {
                    return Err(lapin::ErrorKind::InvalidConnectionState(lapin::ConnectionState::Error).into());
                }
            }
        }
    }
}

/// Waits for a place in the window and a job. `None` after the last publisher was dropped.
async fn next_job(window: &Arc<Semaphore>, queue: &mut mpsc::Receiver<Job>) -> Option<(Job, OwnedSemaphorePermit)> {
    let place = Arc::clone(window).acquire_owned().await.ok()?;
    Some((queue.recv().await?, place))
}

/// Opens a channel with confirms.
async fn open(connection: &Connection) -> lapin::Result<Channel> {
    // lapin may never answer if the connection fails meanwhile.
    let opened = timeout(CONFIRM_TIMEOUT, async {
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(channel)
    });
    opened.await.unwrap_or_else(|_| Err(timed_out()))
}

/// Conclusion from a publish about the channel.
#[derive(PartialEq, Eq)]
enum Verdict {
    /// The channel is usable.
    Fine,
    /// The channel may be unusable for the queue.
    Refused,
}

/// Publishes a message and answers the job. Fails if the channel is no longer usable.
async fn publish_one(channel: Channel, job: Job, place: OwnedSemaphorePermit) -> lapin::Result<Verdict> {
    let Job { message, done } = job;
    let confirmed = timeout(LATEST_CONFIRM, async {
        let options = BasicPublishOptions::default();
        let properties = message.properties();
        let Message { exchange, routing_key, body, .. } = message;
        // Keeps the place until the message is written: only written messages leave the memory.
        let sent = channel.basic_publish(exchange.into(), routing_key.into(), options, &body, properties).await?;
        drop(body);
        let mut sent = pin!(sent);
        let in_time = timeout(CONFIRM_TIMEOUT, &mut sent).await;
        drop(place);
        match in_time {
            Ok(confirmed) => confirmed,
            Err(_) => sent.await,
        }
    });
    let (answer, ended) = match confirmed.await {
        // An unroutable message goes to the alternate exchange, so an ack means that the message is in a queue.
        Ok(Ok(Confirmation::Ack(_))) => (Ok(()), Ok(Verdict::Fine)),
        Ok(Ok(Confirmation::Nack(_))) => (Err(PublishError::Refused), Ok(Verdict::Refused)),
        Ok(Ok(Confirmation::NotRequested)) => (
            Err(PublishError::Unknown),
            Err(lapin::ErrorKind::InvalidChannelState(lapin::ChannelState::Error, "no confirms").into()),
        ),
        Ok(Err(error)) => (Err(PublishError::Unknown), Err(error)),
        // The broker answers heartbeats, and not this publish: the queue may have no leader, or the connection is
        // blocked.
        Err(_) => (Err(PublishError::Unknown), Ok(Verdict::Fine)),
    };
    let _ = done.send(answer);
    ended
}
