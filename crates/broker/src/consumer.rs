//! Consuming.

use std::{sync::Arc, time::Duration};

use futures_util::StreamExt;
use lapin::{
    Channel, Connection,
    message::Delivery,
    options::{BasicCancelOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{
    sync::{mpsc, watch},
    task::JoinSet,
};
use tokio_util::sync::CancellationToken;

use crate::{
    BrokerSettings,
    acks::Acks,
    connection::backoff,
    watchdog::{Flow, Place, watch_connection, watch_consumers},
};

/// Connections, none that held between them, that ended with a message which the client library cannot parse (a short string
/// that is not UTF-8), after which messages are taken one at a time: then this one alone comes back until
/// it is parked, and not all that were handed over with it.
const CAREFUL_AFTER: usize = 2;

/// The longest wait for the channels: on a connection that fails just then, lapin may never answer.
const SET_UP_TIMEOUT: Duration = Duration::from_secs(5);

/// The longest wait for each step of closing what may be broken.
const CLOSE_TIMEOUT: Duration = Duration::from_secs(2);

/// How long messages are taken one at a time on a connection that holds, before all goes on as before.
const CAREFUL_FOR: Duration = Duration::from_secs(10);

/// Such connections in a row after which there is no more hurry: the delivery limit would have parked the
/// message long before, so it is a parked one.
const PATIENT_AFTER: usize = 50;

/// A message as the broker handed it over. It comes again unless it is acked.
pub struct Incoming {
    /// Its bytes.
    pub body: Vec<u8>,
    /// The exchange that it was published to, or that it was dead-lettered through.
    pub(crate) exchange: String,
    /// Its routing key.
    pub routing_key: String,
    /// Its `message_id`.
    pub message_id: Option<String>,
    /// Whether it has been handed to a consumer before.
    pub redelivered: bool,
    pub(crate) headers: FieldTable,
    tag: u64,
    acks: Arc<Acks>,
    _place: Place,
}

impl Incoming {
    pub(crate) fn new(delivery: Delivery, acks: Arc<Acks>, place: Place) -> Self {
        acks.begin(delivery.delivery_tag);
        Self {
            tag: delivery.delivery_tag,
            acks,
            _place: place,
            exchange: delivery.exchange.to_string(),
            routing_key: delivery.routing_key.to_string(),
            message_id: delivery.properties.message_id().as_ref().map(ToString::to_string),
            redelivered: delivery.redelivered,
            headers: delivery.properties.headers().clone().unwrap_or_default(),
            body: delivery.data,
        }
    }

    /// A message that no broker waits for the end of: for tests of what reads it.
    pub fn detached(delivery: Delivery) -> Self {
        Self::new(delivery, Arc::default(), Place::default())
    }

    /// Hands it back to the broker, which hands it over again, and parks it after some times. Only for
    /// what cannot be done now and may be later; the caller waits before.
    pub fn hand_back(self) {
        self.acks.reject(self.tag);
    }

    /// The end of a message: the broker is told within some milliseconds, together with others, and forgets it. Where
    /// the channel is gone by then, it comes again.
    pub fn ack(self) {
        self.acks.end(self.tag);
    }
}

/// A queue to consume.
pub struct Feed {
    /// Its name.
    pub queue: String,
    /// Messages that may be on their way through this process at once.
    pub prefetch: u16,
    /// Where they go. Room for `prefetch` is enough.
    pub into: mpsc::Sender<Incoming>,
}

/// The consumers of a process, on one connection of their own.
pub struct Consumers {
    consuming: watch::Receiver<bool>,
    supervisor: tokio::task::JoinHandle<()>,
    close: CancellationToken,
}

/// Why a set of consumers ended.
enum Ended {
    /// No messages are wanted for now: the channels are closed, and what was not acked comes again.
    Paused,
    /// Messages were taken one at a time for long enough.
    Recovered,
    /// The process is stopping.
    Closed,
}

impl Consumers {
    /// Consumes while `wanted` is true, until `stop`. From then on nothing more comes in, and acks still
    /// go out, until [`Consumers::close`].
    pub fn start(
        settings: BrokerSettings,
        feeds: Vec<Feed>,
        wanted: watch::Receiver<bool>,
        stop: CancellationToken,
    ) -> Self {
        let (state, consuming) = watch::channel(false);
        let close = CancellationToken::new();
        let supervisor = tokio::spawn(supervise(settings, feeds, wanted, stop, close.clone(), state));
        Self { consuming, supervisor, close }
    }

    /// A view of whether messages are coming in.
    pub fn consuming(&self) -> watch::Receiver<bool> {
        self.consuming.clone()
    }

    /// Closes the channels, after which nothing can be acked, and waits until that is done.
    pub async fn close(self) {
        self.close.cancel();
        let _ = self.supervisor.await;
    }
}

async fn supervise(
    settings: BrokerSettings,
    feeds: Vec<Feed>,
    mut wanted: watch::Receiver<bool>,
    stop: CancellationToken,
    close: CancellationToken,
    state: watch::Sender<bool>,
) {
    let (mut waits, mut turns) = (backoff(), settings.turns());
    let mut unparsed = 0;
    while !stop.is_cancelled() {
        if stop.run_until_cancelled(until(&mut wanted, true)).await.is_none() {
            return;
        }
        let is_careful = unparsed >= CAREFUL_AFTER;
        let Some(connected) = stop.run_until_cancelled(settings.connect(&mut turns, "consumes")).await else { return };
        let ended = match connected {
            Ok(connection) => {
                let ended = tokio::select! {
                    // First: it knows why a connection failed.
                    biased;
                    ended = consume(&connection, &feeds, is_careful, &mut wanted, &stop, &close, &state) => ended,
                    silent = watch_connection(&settings, &connection) => Err(silent),
                };
                end(connection).await;
                ended
            }
            Err(error) => Err(error),
        };
        let was_consuming = state.send_replace(false);
        let error = match ended {
            Ok(Ended::Closed) => return,
            Ok(Ended::Paused | Ended::Recovered) => {
                waits = backoff();
                unparsed = 0;
                continue;
            }
            Err(error) => error,
        };
        // Other errors in between, such as channels that do not open, say nothing of whether it is over.
        let is_parsing = matches!(error.kind(), lapin::ErrorKind::ParsingError(_));
        unparsed += usize::from(is_parsing);
        tracing::warn!(%error, unparsed, "not consuming; connecting to the broker again");
        // Until the delivery limit parks what cannot be parsed, everything else waits behind it.
        if was_consuming || is_parsing && unparsed < PATIENT_AFTER {
            waits = backoff();
        }
        stop.run_until_cancelled(tokio::time::sleep(waits.next().unwrap_or_default())).await;
    }
}

async fn consume(
    connection: &Connection,
    feeds: &[Feed],
    is_careful: bool,
    wanted: &mut watch::Receiver<bool>,
    stop: &CancellationToken,
    close: &CancellationToken,
    state: &watch::Sender<bool>,
) -> lapin::Result<Ended> {
    let set_up = tokio::time::timeout(SET_UP_TIMEOUT, set_up(connection, feeds, is_careful));
    let Lines { channels, flows, mut pumps, mut acks, close: close_acks } =
        set_up.await.unwrap_or_else(|_| Err(consumer_is_gone()))?;
    tracing::info!("consuming from the broker");
    state.send_replace(true);
    let ended = tokio::select! {
        biased;
        () = stop.cancelled() => {
            cancel(&channels).await;
            state.send_replace(false);
            close.cancelled().await;
            Ended::Closed
        }
        // The end of a stream means that the consumer is gone, even where the connection is healthy.
        Some(ended) = pumps.join_next() => return ended.unwrap_or(Ok(())).and(Err(consumer_is_gone())),
        Some(ended) = acks.join_next() => return ended.unwrap_or(Ok(())).and(Err(consumer_is_gone())),
        silent = watch_consumers(connection, &flows) => return Err(silent),
        () = until(wanted, false) => Ended::Paused,
        () = tokio::time::sleep(CAREFUL_FOR), if is_careful => Ended::Recovered,
    };
    close_acks.cancel();
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, acks.join_all()).await;
    Ok(ended)
}

/// lapin keeps a connection whose consumer was not waited for, and the broker would go on handing it messages.
async fn end(connection: Connection) {
    let _ = tokio::time::timeout(CLOSE_TIMEOUT, connection.close(200, "".into())).await;
}

/// What is open of a set of consumers.
struct Lines {
    channels: Vec<(Channel, String)>,
    flows: Vec<Arc<Flow>>,
    pumps: JoinSet<lapin::Result<()>>,
    acks: JoinSet<lapin::Result<()>>,
    /// Tells the broker of all that has ended, and of nothing more.
    close: CancellationToken,
}

/// Opens a channel for each feed and begins to pass its messages on.
async fn set_up(connection: &Connection, feeds: &[Feed], is_careful: bool) -> lapin::Result<Lines> {
    let mut lines = Lines {
        channels: Vec::new(),
        flows: Vec::new(),
        pumps: JoinSet::new(),
        acks: JoinSet::new(),
        close: CancellationToken::new(),
    };
    for feed in feeds {
        let channel = connection.create_channel().await?;
        let prefetch = if is_careful { 1 } else { feed.prefetch };
        channel.basic_qos(prefetch, BasicQosOptions::default()).await?;
        let consumer = channel
            .basic_consume(
                feed.queue.clone().into(),
                feed.queue.clone().into(),
                BasicConsumeOptions::default(),
                FieldTable::default(),
            )
            .await?;
        let flow = Arc::new(Flow::new(feed.queue.clone(), usize::from(prefetch)));
        let acks = Arc::<Acks>::default();
        lines.pumps.spawn(pump(consumer, Arc::clone(&flow), Arc::clone(&acks), feed.into.clone()));
        let (of_channel, close) = (channel.clone(), lines.close.clone());
        lines.acks.spawn(async move { acks.tell(&of_channel, close).await });
        lines.channels.push((channel, feed.queue.clone()));
        lines.flows.push(flow);
    }
    Ok(lines)
}

/// Waits until messages are wanted, or are not. Where nobody can say so any more, that is for ever.
async fn until(wanted: &mut watch::Receiver<bool>, state: bool) {
    if wanted.wait_for(|wanted| *wanted == state).await.is_err() {
        std::future::pending::<()>().await;
    }
}

async fn pump(
    mut consumer: lapin::Consumer,
    flow: Arc<Flow>,
    acks: Arc<Acks>,
    into: mpsc::Sender<Incoming>,
) -> lapin::Result<()> {
    while let Some(delivery) = consumer.next().await {
        if into.send(Incoming::new(delivery?, Arc::clone(&acks), flow.place())).await.is_err() {
            break;
        }
    }
    Ok(())
}

/// Tells the broker to hand over nothing more; what it has handed over can still be acked.
async fn cancel(channels: &[(Channel, String)]) {
    for (channel, tag) in channels {
        let cancelled = channel.basic_cancel(tag.clone().into(), BasicCancelOptions::default());
        let _ = tokio::time::timeout(CLOSE_TIMEOUT, cancelled).await;
    }
}

fn consumer_is_gone() -> lapin::Error {
    lapin::ErrorKind::InvalidChannelState(lapin::ChannelState::Closed, "the consumer ended").into()
}
