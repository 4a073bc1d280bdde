//! `fanfare relay`: publishes the rows of a publisher's outbox table, in order.
//!
//! A row leaves the table after the broker's confirm, so that a kill at any moment loses no event. A row may then be
//! published again; Fanfare delivers an id once. The next row of an ordering key waits for the confirm of the row
//! before. Copies of two relays therefore do not change the order either: the lock saves work, and protects nothing.

mod deferred;
mod metric;

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use clap::Args;
use fanfare_broker::{BrokerSettings, PublishError, Publisher, Topology, encode_published};
use fanfare_domain::{
    delivery::delay::DelayQueues,
    event::outbox::{OutboxRow, chains},
};
use fanfare_service::{Environment, Operations, Readiness, Telemetry, TelemetrySettings, stop_signal};
use fanfare_store::{AdvisoryLock, Keyring, Outbox, OutboxTable, StoreError, StoreSettings};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep, timeout};
use tokio_util::sync::CancellationToken;

use crate::{client::rows::line, relay::deferred::Deferred};

/// Definition of the table.
const TABLE: &str = include_str!("../../../proto/outbox.sql");

/// Rows in hand.
const BATCH: usize = 1000;

/// Interval of looks at an empty table.
const POLL: Duration = Duration::from_millis(200);

/// Longest wait for the broker. Then another relay may become active.
const BROKER_WAIT: Duration = Duration::from_secs(5);

/// Longest time of the chains of a batch, and of the rows that are published alone after it.
const CHAIN_TIME: Duration = Duration::from_secs(1);
const ALONE_TIME: Duration = Duration::from_secs(5);

/// Time after which a publish without an answer failed for its confirm, and not for its message.
const LATE: Duration = Duration::from_secs(4);

/// Interval of the metric of the oldest row.
const REPORT: Duration = Duration::from_secs(5);

/// Interval of tries to become the active relay, and of tries after a failure of the database.
const STANDBY: Duration = Duration::from_secs(2);

/// Wait while the broker takes nothing.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct RelayArguments {
    /// Outbox table: `table` or `schema.table`.
    #[arg(long, default_value = "fanfare_outbox")]
    table: OutboxTable,
    /// Keep published rows, with the time of publishing. By default, published rows are deleted.
    #[arg(long)]
    keep: bool,
    /// Print the SQL that creates the table `fanfare_outbox`, and end.
    #[arg(long, conflicts_with_all = ["table", "keep"])]
    print_table: bool,
}

impl RelayArguments {
    /// Prints the table's definition, if asked. True if printed.
    pub(crate) fn printed(&self) -> bool {
        if self.print_table {
            line(TABLE.trim_end());
        }
        self.print_table
    }
}

/// Settings of a relay.
pub(crate) struct RelaySettings {
    broker: BrokerSettings,
    store: StoreSettings,
    telemetry: TelemetrySettings,
    operations_address: SocketAddr,
    max_event_bytes: usize,
}

impl RelaySettings {
    /// Reads the settings. `DATABASE_URL` is the publisher's database.
    pub(crate) fn read(environment: &mut Environment) -> Option<Self> {
        let broker = environment.broker();
        let prefix = environment.prefix();
        let database = environment.database();
        let telemetry = TelemetrySettings::read(environment);
        let operations_address = environment.operations_address();
        let max_event_bytes = environment.max_event_bytes();
        let (url, credentials) = database?;
        Some(Self {
            // A publisher's user at the broker may have no right to declare.
            broker: BrokerSettings::new(broker?, prefix?, DelayQueues::new([]), "fanfare relay").without_declarations(),
            store: StoreSettings { url, credentials, connections: 2, keyring: Keyring::empty() },
            telemetry: telemetry?,
            operations_address: operations_address?,
            max_event_bytes: max_event_bytes?,
        })
    }
}

/// Publishes until a signal to stop. Then finishes the rows in hand.
///
/// # Errors
/// If a setting cannot be used, or the listener for operators cannot be bound.
pub(crate) async fn run(settings: RelaySettings, arguments: RelayArguments) -> anyhow::Result<()> {
    let telemetry = Telemetry::start("relay", &settings.telemetry)?;
    let stop = stop_signal()?;
    let operations = Operations::bind(settings.operations_address, &metric::ALL).await?;
    let publishing = CancellationToken::new();
    let _end_of_publishing = publishing.clone().drop_guard();
    let relay = Relay {
        outbox: Outbox::new(settings.store, arguments.table, arguments.keep)?,
        topology: settings.broker.topology().clone(),
        publisher: Publisher::start(settings.broker, publishing),
        has_database: Arc::default(),
        max_event_bytes: settings.max_event_bytes,
    };
    tokio::spawn(stop.clone().run_until_cancelled_owned(report_age(relay.outbox.clone())));
    tokio::spawn(operations.run(relay.readiness(), stop.clone()));
    relay.work(&stop).await;
    telemetry.finish();
    Ok(())
}

struct Relay {
    outbox: Outbox,
    topology: Topology,
    publisher: Publisher,
    /// True while the database answers.
    has_database: Arc<AtomicBool>,
    max_event_bytes: usize,
}

/// Result of a row that was published alone.
enum Alone {
    Published,
    /// The message ended the channel.
    NotTaken(PublishError),
    /// The broker is away, or takes nothing.
    NoBroker,
}

impl Relay {
    fn readiness(&self) -> impl Fn() -> Readiness + Send + Sync + 'static {
        let (publisher, has_database) = (self.publisher.clone(), Arc::clone(&self.has_database));
        move || Readiness {
            process: match has_database.load(Ordering::Relaxed) {
                true => Ok(()),
                false => Err("the outbox cannot be read: see the log".to_owned()),
            },
            broker: match publisher.is_ready() {
                true => Ok(()),
                false => Err("the broker is away or does not accept messages".to_owned()),
            },
        }
    }

    /// Works until `stop`, whatever the servers do.
    async fn work(&self, stop: &CancellationToken) {
        while !stop.is_cancelled() {
            let worked = self.work_as_active(stop).await;
            self.has_database.store(worked.is_ok(), Ordering::Relaxed);
            if let Err(error) = worked {
                let error = anyhow::Error::from(error);
                tracing::warn!(error = format!("{error:#}"), "cannot read or write the outbox; trying again");
            }
            stop.run_until_cancelled(sleep(STANDBY)).await;
        }
    }

    /// Publishes as the active relay. Ends at `stop`, while another relay is active, and without the broker: another
    /// relay may have a broker.
    async fn work_as_active(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let Some(lock) = self.outbox.try_lock().await? else { return Ok(()) };
        self.has_database.store(true, Ordering::Relaxed);
        let missing = self.outbox.missing_rights().await?;
        if !missing.is_empty() {
            tracing::error!(?missing, "the user of the database lacks rights on the outbox: grant them");
            return Ok(());
        }
        if self.has_broker(stop).await {
            tracing::info!("this relay is active");
            self.publish_all(&lock, stop).await?;
        }
        lock.unlock().await;
        Ok(())
    }

    /// Waits for the broker, for a while.
    async fn has_broker(&self, stop: &CancellationToken) -> bool {
        let ready = timeout(BROKER_WAIT, stop.run_until_cancelled(self.publisher.until_ready()));
        matches!(ready.await, Ok(Some(())))
    }

    async fn publish_all(&self, lock: &AdvisoryLock, stop: &CancellationToken) -> Result<(), StoreError> {
        let mut deferred = Deferred::default();
        while lock.is_held() && self.has_broker(stop).await {
            self.try_deferred(&mut deferred).await?;
            let rows = if deferred.is_full() { Vec::new() } else { self.outbox.next(BATCH, &deferred.rows()).await? };
            let wait = if rows.is_empty() { POLL } else { Duration::ZERO };
            let goes_on = self.publish(rows, &mut deferred).await?;
            stop.run_until_cancelled(sleep(if goes_on { wait } else { RETRY })).await;
        }
        Ok(())
    }

    /// Publishes a deferred row of each routing key again, when due.
    async fn try_deferred(&self, deferred: &mut Deferred) -> Result<(), StoreError> {
        for (routing_key, position) in deferred.due(Instant::now()) {
            match self.outbox.at(position).await? {
                Some(row) => match self.publish_alone(&row).await? {
                    Alone::Published => deferred.release(&routing_key),
                    Alone::NotTaken(_) => deferred.failed(&routing_key, Instant::now()),
                    Alone::NoBroker => return Ok(()),
                },
                // The row was deleted: the next row tells.
                None => deferred.release(&routing_key),
            }
        }
        Ok(())
    }

    /// Publishes rows. A row that the broker does not confirm is published again alone. If that ends the connection,
    /// the row is deferred: its message would end the publishing of all others. Returns false if the broker takes
    /// nothing.
    async fn publish(&self, rows: Vec<OutboxRow>, deferred: &mut Deferred) -> Result<bool, StoreError> {
        let mut valid = Vec::with_capacity(rows.len());
        for row in rows {
            match row.check(self.max_event_bytes) {
                Err(fault) => self.refuse(&row, &fault.to_string()).await?,
                Ok(()) => valid.push(row),
            }
        }
        let admitted = deferred.admit(valid, Instant::now());
        let end = Instant::now() + CHAIN_TIME;
        let ended = join_all(chains(admitted).into_iter().map(|chain| self.publish_chain(chain, end))).await;
        let (published, failed): (Vec<Vec<i64>>, Vec<Option<OutboxRow>>) = ended.into_iter().unzip();
        self.finish(&published.concat()).await?;
        let end = Instant::now() + ALONE_TIME;
        for row in failed.into_iter().flatten().take_while(|_| Instant::now() < end) {
            // The routing key was deferred in this loop.
            if deferred.has_routing_key_of(&row) {
                deferred.add(&row, Instant::now());
                continue;
            }
            match self.publish_alone(&row).await? {
                Alone::Published => {}
                Alone::NoBroker => return Ok(false),
                Alone::NotTaken(error) => {
                    tracing::error!(
                        %error,
                        position = row.position,
                        routing_key = row.routing_key(),
                        "the broker does not take a row of the outbox: check FANFARE_PREFIX, and that the relay's user may \
                         publish to this routing key; rows with this routing key, and later rows of their ordering keys, are deferred"
                    );
                    deferred.add(&row, Instant::now());
                }
            }
        }
        Ok(true)
    }

    /// Publishes a chain until `end`, or until a row is not confirmed. Returns the positions of the published rows, and
    /// the row without a confirm.
    async fn publish_chain(&self, chain: Vec<OutboxRow>, end: Instant) -> (Vec<i64>, Option<OutboxRow>) {
        let mut published = Vec::with_capacity(chain.len());
        for row in chain {
            if self.publish_row(&row).await.is_err() {
                return (published, Some(row));
            }
            published.push(row.position);
            // A long chain holds up no other row.
            if Instant::now() >= end {
                break;
            }
        }
        (published, None)
    }

    /// Publishes a row while no other row is on its way.
    async fn publish_alone(&self, row: &OutboxRow) -> Result<Alone, StoreError> {
        if timeout(BROKER_WAIT, self.publisher.until_ready()).await.is_err() {
            return Ok(Alone::NoBroker);
        }
        let began = Instant::now();
        match self.publish_row(row).await {
            Ok(()) => {
                self.finish(&[row.position]).await?;
                Ok(Alone::Published)
            }
            // The message ended the channel: a late confirm takes longer.
            Err(error @ PublishError::Unknown) if began.elapsed() < LATE => Ok(Alone::NotTaken(error)),
            // The queue is full, or has no leader: no fault of the row.
            Err(_) => Ok(Alone::NoBroker),
        }
    }

    async fn publish_row(&self, row: &OutboxRow) -> Result<(), PublishError> {
        let key = row.ordering_key().expect("the relay publishes checked rows");
        let body = row.body();
        let message = encode_published(&self.topology, &row.routing_key(), &row.id, key.as_ref(), body.as_bytes());
        self.publisher.publish(message.with_trace(row.trace.as_ref())).await
    }

    async fn finish(&self, positions: &[i64]) -> Result<(), StoreError> {
        if !positions.is_empty() {
            self.outbox.published(positions).await?;
            metrics::counter!(metric::PUBLISHED).increment(positions.len() as u64);
        }
        Ok(())
    }

    async fn refuse(&self, row: &OutboxRow, reason: &str) -> Result<(), StoreError> {
        tracing::error!(
            position = row.position,
            reason,
            "a row of the outbox can never be published; see its column refused"
        );
        metrics::counter!(metric::REFUSED).increment(1);
        self.outbox.refuse(row.position, reason).await
    }
}

/// Reports the age of the oldest row, also without the broker.
async fn report_age(outbox: Outbox) {
    loop {
        // A failure is in the log of the relay's own look.
        if let Ok(age) = outbox.age().await {
            metrics::gauge!(metric::AGE).set(age.as_secs_f64());
        }
        sleep(REPORT).await;
    }
}
