//! `fanfare relay`: publishes the rows of a publisher's outbox table, in order.
//!
//! A row leaves the table after the broker's confirm, so that a kill at any moment loses no event. A row may then be
//! published again; Fanfare delivers an id once. The next row of an ordering key waits for the confirm of the row before.
//! Copies of two relays therefore do not change the order either: the lock saves work, and protects nothing.

mod left;
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
use fanfare_domain::event::outbox::{OutboxRow, chains};
use fanfare_service::{Environment, Operations, Readiness, Telemetry, TelemetrySettings, stop_signal};
use fanfare_store::{AdvisoryLock, Keyring, Outbox, OutboxTable, StoreError, StoreSettings};
use futures_util::future::join_all;
use tokio::time::{Instant, sleep};
use tokio_util::sync::CancellationToken;

use crate::{parked, relay::left::Left};

/// Definition of the table.
const TABLE: &str = include_str!("../../../proto/outbox.sql");

/// Rows in hand.
const BATCH: usize = 1000;

/// Interval of looks at an empty table.
const POLL: Duration = Duration::from_millis(200);

/// Interval of tries to become the active relay.
const STANDBY: Duration = Duration::from_secs(2);

/// Wait after a failure of the database.
const RETRY: Duration = Duration::from_secs(1);

#[derive(Args)]
pub(crate) struct RelayArguments {
    /// Outbox table: `table` or `schema.table`.
    #[arg(long, default_value = "fanfare_outbox")]
    table: OutboxTable,
    /// Keep published rows, with the time of publishing. By default, published rows are deleted.
    #[arg(long)]
    keep: bool,
    /// Print the SQL that creates the table, and end.
    #[arg(long)]
    print_table: bool,
}

impl RelayArguments {
    /// Prints the table's definition, if asked. True if printed.
    pub(crate) fn printed(&self) -> bool {
        if self.print_table {
            print!("{TABLE}");
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
}

impl RelaySettings {
    /// Reads the settings. `DATABASE_URL` is the publisher's database.
    pub(crate) fn read(environment: &mut Environment) -> Option<Self> {
        let broker = parked::broker(environment);
        let database = environment.database();
        let telemetry = TelemetrySettings::read(environment);
        let operations_address = environment.operations_address();
        let (url, credentials) = database?;
        Some(Self {
            // A publisher's user at the broker may have no right to declare.
            broker: broker?.without_declarations(),
            store: StoreSettings { url, credentials, connections: 2, keyring: Keyring::empty() },
            telemetry: telemetry?,
            operations_address: operations_address?,
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
    };
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
}

/// Result of a chain: the positions of published rows, and the row at which the chain ended.
type Published = (Vec<i64>, Option<OutboxRow>);

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
            let wait = match worked {
                Ok(()) => STANDBY,
                Err(error) => {
                    tracing::warn!(%error, "cannot read the outbox; trying again");
                    RETRY
                }
            };
            stop.run_until_cancelled(sleep(wait)).await;
        }
    }

    /// Publishes as the active relay. Ends at `stop`, or while another relay is active.
    async fn work_as_active(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let Some(lock) = self.outbox.try_lock().await? else { return Ok(()) };
        tracing::info!("this relay is active");
        let worked = self.publish_all(&lock, stop).await;
        lock.unlock().await;
        worked
    }

    async fn publish_all(&self, lock: &AdvisoryLock, stop: &CancellationToken) -> Result<(), StoreError> {
        let mut left = Left::default();
        while lock.is_held() && stop.run_until_cancelled(self.publisher.until_ready()).await.is_some() {
            left.expire(Instant::now());
            let rows = self.outbox.next(BATCH, left.rows()).await?;
            self.has_database.store(true, Ordering::Relaxed);
            metrics::gauge!(metric::AGE).set(self.outbox.age().await?.as_secs_f64());
            let is_empty = rows.is_empty();
            self.publish(rows, &mut left).await?;
            if is_empty {
                stop.run_until_cancelled(sleep(POLL)).await;
            }
        }
        Ok(())
    }

    /// Publishes rows. A row that the broker does not confirm is published again alone. If that fails, too, the row is
    /// left for a while: its message may end the connection, and with it the publishing of all others.
    async fn publish(&self, rows: Vec<OutboxRow>, left: &mut Left) -> Result<(), StoreError> {
        let mut valid = Vec::with_capacity(rows.len());
        for row in rows {
            match row.check() {
                Ok(()) => valid.push(row),
                Err(fault) => self.refuse(&row, &fault.to_string()).await?,
            }
        }
        let ended = join_all(chains(valid).into_iter().map(|chain| self.publish_chain(chain))).await;
        let (published, failed): (Vec<Vec<i64>>, Vec<Option<OutboxRow>>) = ended.into_iter().unzip();
        self.finish(&published.concat()).await?;
        for row in failed.into_iter().flatten() {
            self.publisher.until_ready().await;
            match self.publish_row(&row).await {
                Ok(()) => self.finish(&[row.position]).await?,
                // The broker went away: the next look finds the row again.
                Err(PublishError::Unavailable) => {}
                Err(error) => {
                    tracing::error!(
                        %error,
                        position = row.position,
                        routing_key = row.routing_key(),
                        "the broker does not take a row of the outbox: check that the relay's user may publish to this \
                         routing key; the row, and later rows of its ordering key, wait"
                    );
                    left.add(row, Instant::now());
                }
            }
        }
        Ok(())
    }

    /// Publishes a chain until a row is not confirmed.
    async fn publish_chain(&self, chain: Vec<OutboxRow>) -> Published {
        let mut published = Vec::with_capacity(chain.len());
        for row in chain {
            if self.publish_row(&row).await.is_err() {
                return (published, Some(row));
            }
            published.push(row.position);
        }
        (published, None)
    }

    async fn publish_row(&self, row: &OutboxRow) -> Result<(), PublishError> {
        let message = encode_published(&self.topology, &row.routing_key(), &row.id, row.body().as_bytes());
        let message = match &row.trace {
            Some(trace) => message.with_trace(trace),
            None => message,
        };
        self.publisher.publish(message).await
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
