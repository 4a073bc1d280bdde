//! Consuming.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use futures_util::StreamExt;
use lapin::{
    Channel, Connection,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    sync::{mpsc, watch},
    task::{JoinHandle, JoinSet},
};
use tokio_util::sync::CancellationToken;

use crate::{
    BrokerSettings,
    acks::Acks,
    connection::backoff,
    watchdog::{Flow, Place, watch_connection, watch_consumer},
    wire::{sanitized_part, uncut},
};

/// Longest wait for the channels. lapin may never answer if the connection fails meanwhile.
const SET_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// Longest wait for each step of closing a possibly broken connection.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// A message from the broker. The broker delivers the message again unless the message is acked.
pub struct Incoming {
    /// Message body: the whole body, or the first 64 KiB of a body that is too long for an event.
    pub body: Vec<u8>,
    /// Bytes of the whole body.
    pub size: usize,
    /// Exchange of the publish, or of the dead-lettering.
    pub(crate) exchange: String,
    /// Routing key.
    pub routing_key: String,
    /// The property `message_id`.
    pub message_id: Option<String>,
    /// True if the message has been delivered to a consumer before.
    pub redelivered: bool,
    /// True if the message came from an exchange for events with an ordering key.
    pub(crate) is_ordered: bool,
    pub(crate) headers: FieldTable,
    /// The property `content_type`.
    pub(crate) content_type: Option<String>,
    /// The part that was not UTF-8, and was sanitized.
    pub(crate) sanitized: Option<&'static str>,
    tag: u64,
    acks: Arc<Acks>,
    _place: Place,
}

impl Incoming {
    pub(crate) fn new(mut delivery: Delivery, acks: Arc<Acks>, place: Place) -> Self {
        acks.begin(delivery.delivery_tag);
        Self {
            size: uncut(&mut delivery.data),
            tag: delivery.delivery_tag,
            acks,
            _place: place,
            sanitized: sanitized_part(&delivery),
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            message_id: delivery.properties.message_id().as_ref().map(ToString::to_string),
            redelivered: delivery.redelivered,
            is_ordered: false,
            headers: delivery.properties.headers().clone().unwrap_or_default(),
            content_type: delivery.properties.content_type().as_ref().map(ToString::to_string),
            body: delivery.data,
        }
    }

    /// Removes Fanfare's own headers unless a process of this deployment wrote them.
    fn believed(mut self, settings: &BrokerSettings) -> Self {
        let (topology, id) = (settings.topology(), self.message_id.as_deref());
        settings.keys().believe(topology, &self.exchange, &mut self.headers, id);
        self.is_ordered = topology.has_ordered_events(&self.exchange);
        self
    }

    /// True if the body is only the beginning of the message's body.
    pub(crate) fn is_cut(&self) -> bool {
        self.size > self.body.len()
    }

    /// Creates a message without a broker that expects an ack, for tests of decoders.
    pub fn detached(delivery: Delivery) -> Self {
        Self::new(delivery, Arc::default(), Place::default())
    }

    /// Rejects the message with requeue. The broker delivers the message again, and parks the message after the
    /// delivery limit. Only for work that is impossible now and may be possible later. The caller waits before.
    pub fn hand_back(self) {
        self.acks.reject(self.tag);
    }

    /// Acks the message. The broker gets the ack within some milliseconds, together with other acks. If the channel has
    /// failed by then, the message is redelivered.
    pub fn ack(self) {
        self.acks.end(self.tag);
    }
}

/// A queue to be consumed.
pub struct Feed {
    /// Name of the queue.
    pub queue: String,
    /// Maximum un-acked messages in this process.
    pub prefetch: u16,
    /// Destination of the messages. A capacity of `prefetch` is enough.
    pub into: mpsc::Sender<Incoming>,
    /// True for a queue with a single active consumer. At the stop, the broker must not hand later messages to another
    /// consumer before this process has ended the earlier messages: the consumer then ends with the channel.
    pub is_ordered: bool,
}

/// Consumers, each on a separate connection: a failed connection holds up a single queue.
pub struct Consumers {
    consuming: watch::Receiver<bool>,
    states: Arc<States>,
    supervisors: Vec<JoinHandle<()>>,
    close: CancellationToken,
}

/// The reason why a consumer ended.
enum Ended {
    /// No messages are wanted now. The channel is closed, and un-acked messages are redelivered.
    Paused,
    /// The process is stopping.
    Closed,
}

/// State of a consumer.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ConsumerState {
    /// True while messages can arrive.
    pub is_consuming: bool,
    /// Times that the consumer was set up so far, each with a connection.
    pub connections: u64,
    /// Messages received and not yet acked.
    pub in_hand: usize,
}

/// States of consumers, in the order of the feeds, and true if all get messages.
struct States {
    consumers: Mutex<Vec<(ConsumerState, Option<Arc<Flow>>)>>,
    all_consuming: watch::Sender<bool>,
}

/// Place of a consumer's state.
struct State {
    index: usize,
    states: Arc<States>,
}

impl State {
    /// Stores that messages arrive by this flow.
    fn begin(&self, flow: &Arc<Flow>) {
        let mut consumers = self.states.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, current) = &mut consumers[self.index];
        state.is_consuming = true;
        state.connections += 1;
        *current = Some(Arc::clone(flow));
        self.tell(&consumers);
    }

    /// Stores that no more messages arrive. Returns true if messages arrived before.
    fn end(&self) -> bool {
        let mut consumers = self.states.consumers.lock().unwrap_or_else(PoisonError::into_inner);
        let was_consuming = std::mem::replace(&mut consumers[self.index].0.is_consuming, false);
        self.tell(&consumers);
        was_consuming
    }

    fn tell(&self, consumers: &[(ConsumerState, Option<Arc<Flow>>)]) {
        self.states.all_consuming.send_replace(consumers.iter().all(|(state, _)| state.is_consuming));
    }
}

/// Signals that stop a consumer.
#[derive(Clone)]
struct Signals {
    wanted: watch::Receiver<bool>,
    stop: CancellationToken,
    close: CancellationToken,
}

impl Consumers {
    /// Consumes while `wanted` is true, until `stop`. After `stop`, no more messages arrive, and acks are still sent
    /// until [`Consumers::close`].
    pub fn start(
        settings: BrokerSettings,
        feeds: Vec<Feed>,
        wanted: watch::Receiver<bool>,
        stop: CancellationToken,
    ) -> Self {
        let (all_consuming, consuming) = watch::channel(false);
        let consumers = feeds.iter().map(|_| (ConsumerState::default(), None)).collect();
        let states = Arc::new(States { consumers: Mutex::new(consumers), all_consuming });
        let signals = Signals { wanted, stop, close: CancellationToken::new() };
        let start = |(index, feed)| {
            let state = State { index, states: Arc::clone(&states) };
            tokio::spawn(supervise(settings.clone(), feed, signals.clone(), state))
        };
        let supervisors = feeds.into_iter().enumerate().map(start).collect();
        Self { consuming, states, supervisors, close: signals.close }
    }

    /// Watches the consumers: true while messages can arrive from all queues.
    pub fn consuming(&self) -> watch::Receiver<bool> {
        self.consuming.clone()
    }

    /// Reader of the states, in the order of the feeds.
    pub fn states(&self) -> impl Fn() -> Vec<ConsumerState> + Send + 'static {
        let states = Arc::clone(&self.states);
        move || {
            let consumers = states.consumers.lock().unwrap_or_else(PoisonError::into_inner);
            let state = |(state, flow): &(ConsumerState, Option<Arc<Flow>>)| ConsumerState {
                in_hand: flow.as_ref().map_or(0, |flow| flow.in_hand()),
                ..*state
            };
            consumers.iter().map(state).collect()
        }
    }

    /// Closes the channels, and waits until the close has finished. Later acks have no effect.
    pub async fn close(self) {
        self.close.cancel();
        for supervisor in self.supervisors {
            let _ = supervisor.await;
        }
    }
}

async fn supervise(settings: BrokerSettings, feed: Feed, mut signals: Signals, state: State) {
    let (mut waits, mut turns) = (backoff(), settings.turns());
    let stop = signals.stop.clone();
    while !stop.is_cancelled() {
        if stop.run_until_cancelled(until(&mut signals.wanted, true)).await.is_none() {
            return;
        }
        let Some(connected) = stop.run_until_cancelled(settings.connect(&mut turns, "consumes")).await else { return };
        let ended = match connected {
            Ok(connection) => {
                // Dropped after the end of the connection: lapin cancels a dropped consumer. The broker would then hand
                // later messages of an ordered queue to another consumer, before it takes back the un-acked messages.
                let mut line = None;
                let ended = tokio::select! {
                    // First, since `consume` returns the cause of a failed connection.
                    biased;
                    ended = consume(&settings, &connection, (&feed, &mut line), &mut signals, &state) => ended,
                    silent = watch_connection(&settings, &connection) => Err(silent),
                };
                end(connection).await;
                drop(line);
                ended
            }
            Err(error) => Err(error),
        };
        let was_consuming = state.end();
        let error = match ended {
            Ok(Ended::Closed) => return,
            Ok(Ended::Paused) => {
                waits = backoff();
                continue;
            }
            Err(error) => error,
        };
        tracing::warn!(queue = feed.queue, %error, "not consuming; connecting to the broker again");
        if was_consuming {
            waits = backoff();
        }
        stop.run_until_cancelled(tokio::time::sleep(waits.next().unwrap_or_default())).await;
    }
}

async fn consume(
    settings: &BrokerSettings,
    connection: &Connection,
    (feed, line): (&Feed, &mut Option<Line>),
    signals: &mut Signals,
    state: &State,
) -> lapin::Result<Ended> {
    let set_up = tokio::time::timeout(SET_UP_TIMEOUT, set_up(settings, connection, feed));
    let Line { channel, flow, pump, acks, close: close_acks } =
        line.insert(set_up.await.unwrap_or_else(|_| Err(consumer_is_gone()))?);
    tracing::info!(queue = feed.queue, "consuming from the broker");
    state.begin(flow);
    let ended = tokio::select! {
        biased;
        () = signals.stop.cancelled() => {
            if !feed.is_ordered {
                cancel(channel, &feed.queue).await;
            }
            state.end();
            signals.close.cancelled().await;
            Ended::Closed
        }
        // The end of a stream means a lost consumer, even on a healthy connection.
        Some(ended) = pump.join_next() => return ended.unwrap_or(Ok(())).and(Err(consumer_is_gone())),
        Some(ended) = acks.join_next() => return ended.unwrap_or(Ok(())).and(Err(consumer_is_gone())),
        // A consumer beside the active consumer of an ordered queue gets no messages, and is sound.
        silent = watch_consumer(connection, flow), if !feed.is_ordered => return Err(silent),
        () = until(&mut signals.wanted, false) => Ended::Paused,
    };
    close_acks.cancel();
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, acks.join_next()).await;
    Ok(ended)
}

/// Closes a connection. lapin keeps a connection after the consumer's end, and the broker would go on delivering
/// messages.
async fn end(connection: Connection) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "".into())).await;
}

/// Open parts of a consumer. Dropping the struct ends the tasks.
struct Line {
    channel: Channel,
    flow: Arc<Flow>,
    pump: JoinSet<lapin::Result<()>>,
    acks: JoinSet<lapin::Result<()>>,
    /// Sends the remaining acks, and ends the task of acks.
    close: CancellationToken,
}

/// Opens a channel for a feed, and begins to forward messages.
async fn set_up(settings: &BrokerSettings, connection: &Connection, feed: &Feed) -> lapin::Result<Line> {
    let channel = connection.create_channel().await?;
    channel.basic_qos(feed.prefetch, BasicQosOptions::default()).await?;
    let (queue, tag) = (feed.queue.clone().into(), feed.queue.clone().into());
    let consumer = channel.basic_consume(queue, tag, BasicConsumeOptions::default(), FieldTable::default()).await?;
    let flow = Arc::new(Flow::new(feed.queue.clone(), usize::from(feed.prefetch)));
    let told = Arc::<Acks>::default();
    let (mut pump_task, mut acks, close) = (JoinSet::new(), JoinSet::new(), CancellationToken::new());
    pump_task.spawn(pump(settings.clone(), consumer, Arc::clone(&flow), Arc::clone(&told), feed.into.clone()));
    let (of_channel, until) = (channel.clone(), close.clone());
    acks.spawn(async move { told.tell(&of_channel, until).await });
    Ok(Line { channel, flow, pump: pump_task, acks, close })
}

/// Waits until `wanted` equals `state`. Waits for ever if the sender is dropped.
async fn until(wanted: &mut watch::Receiver<bool>, state: bool) {
    if wanted.wait_for(|wanted| *wanted == state).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn pump(
    settings: BrokerSettings,
    mut consumer: lapin::Consumer,
    flow: Arc<Flow>,
    acks: Arc<Acks>,
    into: mpsc::Sender<Incoming>,
) -> lapin::Result<()> {
    while let Some(delivery) = consumer.next().await {
        let incoming = Incoming::new(delivery?, Arc::clone(&acks), flow.place()).believed(&settings);
        if into.send(incoming).await.is_err() {
            // The process stops. The consumer ends with its channel.
            return std::future::pending().await;
        }
    }
    Ok(())
}

/// Cancels the consumer. Messages delivered before can still be acked.
async fn cancel(channel: &Channel, tag: &str) {
    let cancelled = channel.basic_cancel(tag.into(), BasicCancelOptions::default());
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, cancelled).await;
}

fn consumer_is_gone() -> lapin::Error {
    lapin::ErrorKind::InvalidChannelState(lapin::ChannelState::Closed, "the consumer ended").into()
}
