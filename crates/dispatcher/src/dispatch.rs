//! The stages joined by bounded channels, and the order in which they start and drain.

use std::{sync::Arc, time::Duration};

use anyhow::bail;
use fanfare_broker::{BrokerSettings, Consumers, Feed, Incoming, Publisher};
use fanfare_domain::{dialect::Dialects, ids::DispatcherId};
use fanfare_outbound::Client;
use fanfare_service::Operations;
use fanfare_store::{Directory, Store};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    attempt::{self, Attempts},
    claims::{self, Claims},
    configuration::{Configuration, Holding, Limits},
    database::Database,
    events::{self, Events},
    jobs,
    lanes::Lanes,
    metric, park,
    persist::{self, Persist},
    rates::Rates,
    record::{self, Record},
    settle::Settler,
    take::{self, Take},
    unrouted,
};

/// Items that may wait between two stages. More only hides which stage is slow.
const CHANNEL: usize = 512;

/// Messages of the parked and of the unrouted queue that may be on their way at once.
const ODD_PREFETCH: u16 = 16;

/// Everything that the process works with, ready to run.
pub(crate) struct Dispatcher {
    /// By which others know what it shows.
    id: DispatcherId,
    broker: BrokerSettings,
    database: Database,
    client: Client,
    dialects: Arc<Dialects>,
    expiry: Duration,
    limits: Limits,
    lanes: Lanes,
    rates: Rates,
    retention: Duration,
    audit_retention: Duration,
    holding: Holding,
    mail: jobs::Mail,
    rescue_after: Duration,
    grace: Duration,
}

/// The queues of incoming messages, one for each consumer.
struct Inlets {
    events: mpsc::Receiver<Incoming>,
    claims: mpsc::Receiver<Incoming>,
    parked: mpsc::Receiver<Incoming>,
    unrouted: mpsc::Receiver<Incoming>,
}

impl Dispatcher {
    pub(crate) fn build(configuration: Configuration) -> anyhow::Result<Self> {
        let limits = configuration.limits;
        let database = Database::new(Store::new(configuration.store)?);
        let extra_roots = configuration.outbound.extra_roots.as_deref();
        let mailer = |(server, from)| jobs::Mailer::new(server, from, extra_roots);
        let mailer = configuration.mails.server.map(mailer).transpose()?;
        Ok(Self {
            id: DispatcherId::new(database.now(), rand::random()),
            mail: jobs::Mail { database: database.clone(), mailer, interval: configuration.mails.interval },
            rates: Rates::new(database.clone()),
            database,
            client: Client::new(&configuration.outbound)?,
            dialects: configuration.dialects,
            expiry: configuration.expiry,
            holding: configuration.holding,
            lanes: Lanes::new(limits.lane, limits.fast_attempts, limits.slow_attempts),
            limits,
            broker: configuration.broker,
            retention: configuration.retention,
            audit_retention: configuration.audit_retention,
            rescue_after: configuration.rescue_after,
            grace: configuration.grace,
        })
    }

    /// Runs until `stop`, then drains.
    pub(crate) async fn run(self, operations: Operations, stop: CancellationToken) -> anyhow::Result<()> {
        // What must outlive the drain ends with this one.
        let end = CancellationToken::new();
        let _end = end.clone().drop_guard();
        let publisher = Publisher::start(self.broker.clone(), end.clone());
        let wanted = self.database.availability();
        let (work, others, inlets) = self.feeds();
        let consumers = Consumers::start(self.broker.clone(), work, wanted.clone(), stop.clone());
        // On a connection of their own: what could not be read must not be in the way of what can.
        let others = Consumers::start(self.broker.clone(), others, wanted, stop.clone());
        let consuming = consumers.consuming();
        let ready = consuming.clone();
        let (ready_publisher, ready_database) = (publisher.clone(), self.database.availability());
        let is_ready = move || match (*ready_database.borrow(), *ready.borrow(), ready_publisher.is_ready()) {
            (false, ..) => Err("the database is away, or not migrated".to_owned()),
            (_, false, _) => Err("not consuming from the broker".to_owned()),
            (.., false) => Err("cannot publish to the broker".to_owned()),
            _ => Ok(()),
        };
        tokio::spawn(operations.run(is_ready, end.clone()));

        let loading = async {
            self.database.store.wait_until_migrated().await;
            Directory::follow(self.database.store.clone(), Arc::clone(&self.dialects), end.clone()).await
        };
        let Some(directory) = stop.run_until_cancelled(loading).await else { return Ok(()) };
        self.database.open();
        let settler = Settler::new(publisher, self.broker.topology().clone(), self.database.clone());
        let background = TaskTracker::new();
        self.start_jobs(&background, &directory, &settler, consuming, &stop);
        tokio::spawn(show_version(directory.clone()));
        let mut stages = self.start_stages(inlets, &directory, &settler, &stop);
        tracing::info!(dispatcher = %self.id, "dispatching");

        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            ended = stages.join_next() => {
                // Without one stage the others would send what nobody records. The rows and the un-acked
                // messages are what the next process goes on from.
                bail!("a stage ended before its time: {ended:?}");
            }
        }
        let drained = tokio::time::timeout(self.grace, async {
            background.wait().await;
            while stages.join_next().await.is_some() {}
            settler.finish().await;
            consumers.close().await;
            others.close().await;
        });
        if drained.await.is_err() {
            bail!(
                "not drained within {:?}: what was on its way is taken over by others when its hold ends",
                self.grace
            );
        }
        tracing::info!("drained");
        Ok(())
    }

    /// The queues of work, the others, and where their messages come out.
    fn feeds(&self) -> (Vec<Feed>, Vec<Feed>, Inlets) {
        let topology = self.broker.topology();
        let prefetch = self.limits.prefetch;
        let inlet = |queue: String, prefetch: u16| {
            let (into, inlet) = mpsc::channel(usize::from(prefetch));
            (Feed { queue, prefetch, into }, inlet)
        };
        let (events, events_inlet) = inlet(topology.events_queue(), prefetch);
        let (claims, claims_inlet) = inlet(topology.deliveries_queue(), prefetch);
        let (parked, parked_inlet) = inlet(topology.parked_queue(), ODD_PREFETCH);
        let (unrouted, unrouted_inlet) = inlet(topology.unrouted(), ODD_PREFETCH);
        let inlets =
            Inlets { events: events_inlet, claims: claims_inlet, parked: parked_inlet, unrouted: unrouted_inlet };
        (vec![events, claims], vec![parked, unrouted], inlets)
    }

    /// The way of an event. Each stage ends when nothing more can come in, so that stopping the first
    /// drains them all.
    fn start_stages(
        &self,
        inlets: Inlets,
        directory: &Directory,
        settler: &Settler,
        stop: &CancellationToken,
    ) -> JoinSet<()> {
        let (database, lanes, rates) = (&self.database, &self.lanes, &self.rates);
        let (planned, to_persist) = mpsc::channel(CHANNEL);
        let (reached, to_take) = mpsc::channel(CHANNEL);
        let (assignments, to_attempt) = mpsc::channel(CHANNEL);
        let (finished, to_record) = mpsc::channel(CHANNEL);
        let events = Events {
            directory: directory.clone(),
            database: database.clone(),
            lanes: lanes.clone(),
            rates: rates.clone(),
            expiry: self.expiry,
            max_bytes: self.limits.event_bytes,
            settler: settler.clone(),
        };
        let claims = Claims {
            directory: directory.clone(),
            database: database.clone(),
            lanes: lanes.clone(),
            rates: rates.clone(),
            settler: settler.clone(),
            expiry: self.expiry,
        };
        let persist = Persist::new(database.clone(), settler.clone(), assignments.clone());
        let take = Take { database: database.clone(), settler: settler.clone(), assignments };
        let attempts = Attempts {
            database: database.clone(),
            client: self.client.clone(),
            rates: rates.clone(),
            settler: settler.clone(),
            finished,
        };
        let record = Record { database: database.clone(), settler: settler.clone() };

        let mut stages = JoinSet::new();
        stages.spawn(events::run(events, inlets.events, planned, stop.clone()));
        stages.spawn(claims::run(claims, inlets.claims, reached, stop.clone()));
        stages.spawn(park::keep(inlets.parked, database.clone(), settler.clone(), stop.clone()));
        stages.spawn(unrouted::send_on(inlets.unrouted, self.broker.clone(), settler.clone(), stop.clone()));
        stages.spawn(persist::run(persist, to_persist));
        stages.spawn(take::run(take, to_take));
        stages.spawn(attempt::run(attempts, to_attempt, stop.clone()));
        stages.spawn(record::run(record, to_record));
        stages
    }

    fn start_jobs(
        &self,
        background: &TaskTracker,
        directory: &Directory,
        settler: &Settler,
        consuming: tokio::sync::watch::Receiver<bool>,
        stop: &CancellationToken,
    ) {
        let database = || self.database.clone();
        let reconciler = jobs::Reconciler {
            database: database(),
            broker: self.broker.clone(),
            settler: settler.clone(),
            consuming,
            patience: self.rescue_after,
        };
        background.spawn(reconciler.run(stop.clone()));
        let holds = jobs::Holds {
            database: database(),
            directory: directory.clone(),
            settler: settler.clone(),
            bounds: self.holding,
        };
        background.spawn(holds.run(stop.clone()));
        let replays = jobs::Replays {
            database: database(),
            broker: self.broker.clone(),
            directory: directory.clone(),
            settler: settler.clone(),
        };
        background.spawn(replays.run(stop.clone()));
        let lanes = jobs::LaneKeeper {
            dispatcher: self.id,
            database: database(),
            lanes: self.lanes.clone(),
            rates: self.rates.clone(),
        };
        background.spawn(lanes.run(stop.clone()));
        let (retention, audit_retention) = (self.retention, self.audit_retention);
        let partitions = jobs::Partitions { database: database(), retention, audit_retention };
        background.spawn(partitions.run(stop.clone()));
        background.spawn(self.mail.clone().run(stop.clone()));
        background.close();
    }
}

/// Shows which configuration the process works by, for as long as there are newer ones.
async fn show_version(directory: Directory) {
    let mut changes = directory.changes();
    loop {
        let version = changes.borrow_and_update().version();
        // Exact far beyond any number of changes that there will be.
        metrics::gauge!(metric::CONFIGURATION_VERSION).set(version as f64);
        if changes.changed().await.is_err() {
            return;
        }
    }
}
