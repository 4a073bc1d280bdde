//! Start and drain of the process. Bounded channels join the stages.

use std::{
    sync::{Arc, atomic::AtomicI64},
    time::Duration,
};

use anyhow::{Context as _, bail};
use fanfare_archive::Archive;
use fanfare_broker::{BrokerSettings, ConsumerState, Consumers, Feed, Incoming, Publisher};
use fanfare_domain::{dialect::Dialects, event::delay::LongestDelay, ids::EndpointId};
use fanfare_mailer::Mailer;
use fanfare_outbound::Client;
use fanfare_service::{Operations, Readiness};
use fanfare_store::{Directory, HeldBounds, Store};
use tokio::{
    sync::{Notify, mpsc, watch},
    task::JoinSet,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    access_tokens::{AccessTokens, WantedToken},
    backlog::{self, Drain},
    configuration::{Configuration, HeldLimits, Limits, Operational, ParkedLimits},
    context::{Context, Parts},
    database::Database,
    egress::Egress,
    jobs::{self, housekeeping},
    lanes::Lanes,
    report::{self, Connections, SharedReport},
    stages::{
        InFlight,
        intake::{
            events::{self, Events},
            fan_out::FanOuts,
            park,
            persist::{self, Persist},
            unrouted,
        },
        sending::{
            attempt::{self, Attempts},
            leased::Leases,
            record, retries,
        },
    },
};

/// Maximum of un-acked messages of an ordered queue, the same in all processes and releases. The broker appends the
/// messages of a dead consumer behind other returned messages: a smaller consumer that dies would swap them.
const ORDERED_PREFETCH: u16 = 64;

/// Capacity of the channel between two stages. A larger channel would only hide the slow stage.
const CHANNEL: usize = 512;

/// Prefetch of the parked queue, and of the unrouted queue.
const ODD_PREFETCH: u16 = 16;

/// A configured process, ready to run.
pub(crate) struct Dispatcher {
    broker: BrokerSettings,
    database: Database,
    client: Client,
    dialects: Arc<Dialects>,
    expiry: Duration,
    limits: Limits,
    retention: Duration,
    audit_retention: Duration,
    usage_retention: Duration,
    archive: Option<Archive>,
    held: HeldLimits,
    parked: ParkedLimits,
    mails: jobs::OwnerMails,
    operational: Operational,
    takeover_after: Duration,
    settings: String,
    grace: Duration,
}

/// Channels of incoming messages, by consumer.
struct Inlets {
    events: mpsc::Receiver<Incoming>,
    /// Queues of events with an ordering key.
    ordered: Vec<mpsc::Receiver<Incoming>>,
    retries: mpsc::Receiver<Incoming>,
    parked: mpsc::Receiver<Incoming>,
    unrouted: mpsc::Receiver<Incoming>,
}

/// Waits until the process has ended its work, and closes the consumers: of ordered queues, of work, and others.
async fn drain(
    context: &Context,
    (background, mut stages): (TaskTracker, JoinSet<()>),
    persisted: CancellationToken,
    [ordered, work, others]: [Consumers; 3],
) {
    let ending_order = async {
        // No other dispatcher gets messages of these queues before.
        persisted.cancelled().await;
        ordered.close().await;
    };
    let ending = async {
        // First: attempts in flight may take long, and other dispatchers drain the backlogs meanwhile.
        jobs::release(context).await;
        background.wait().await;
        while stages.join_next().await.is_some() {}
        context.tasks.close();
        context.tasks.wait().await;
        jobs::leave(context).await;
        work.close().await;
        others.close().await;
    };
    tokio::join!(ending_order, ending);
}

/// Parts of the running process.
struct Running {
    context: Arc<Context>,
    /// Endpoints with room in the lane.
    wakes: mpsc::UnboundedReceiver<EndpointId>,
    /// Endpoints whose token attempts look for.
    wanted_tokens: mpsc::UnboundedReceiver<WantedToken>,
    sight: jobs::Sight,
    /// Cancelled once no event is persisted any more.
    persisted: CancellationToken,
    stop: CancellationToken,
}

/// Queues to consume.
struct Feeds {
    /// Events and retries.
    work: Vec<Feed>,
    /// Events with an ordering key.
    ordered: Vec<Feed>,
    /// Parked and unrouted messages.
    others: Vec<Feed>,
}

impl Dispatcher {
    pub(crate) fn build(configuration: Configuration) -> anyhow::Result<Self> {
        let limits = configuration.limits;
        let database = Database::new(Store::new(configuration.store)?);
        let extra_roots = configuration.outbound.extra_roots.as_deref();
        let mailer = |(server, sender)| Mailer::new(server, sender, extra_roots);
        let mailer = configuration.mails.server.map(mailer).transpose()?;
        let archive = configuration.archive.map(|url| Archive::open(&url, extra_roots)).transpose()?;
        Ok(Self {
            mails: jobs::OwnerMails { database: database.clone(), mailer, interval: configuration.mails.interval },
            operational: configuration.operational,
            database,
            client: Client::new(&configuration.outbound)?,
            dialects: configuration.dialects,
            expiry: configuration.expiry,
            held: configuration.held,
            parked: configuration.parked,
            limits,
            broker: configuration.broker,
            retention: configuration.retention,
            audit_retention: configuration.audit_retention,
            usage_retention: configuration.usage_retention,
            archive,
            takeover_after: configuration.takeover_after,
            settings: configuration.settings,
            grace: configuration.grace,
        })
    }

    /// Runs until `stop`, then drains.
    pub(crate) async fn run(self, operations: Operations, stop: CancellationToken) -> anyhow::Result<()> {
        // Cancelled after the drain: ends the tasks that the drain needs.
        let end = CancellationToken::new();
        let _end = end.clone().drop_guard();
        let shared = SharedReport::default();
        let publisher = Publisher::start(self.broker.clone(), end.clone());
        let wanted = self.database.availability();
        let (Feeds { work, ordered, others }, inlets) = self.feeds();
        let start = |feeds| Consumers::start(self.broker.clone(), feeds, wanted.clone(), stop.clone());
        // Separate: the connections of ordered queues end first, and readiness does not depend on the others.
        let (consumers, ordered, others) = (start(work), start(ordered), start(others));
        let egress = Egress::new();
        tokio::spawn(end.clone().run_until_cancelled_owned(egress.clone().watch()));
        let (database, consuming) = (self.database.availability(), consumers.consuming());
        let is_ready = readiness(database, consuming, publisher.clone(), egress.fault());
        tokio::spawn(operations.run(is_ready, end.clone()));
        tokio::spawn(report::connections(self.connections(
            &publisher,
            consumers.states(),
            others.states(),
            shared.clone(),
        )));

        let loading = stop.run_until_cancelled(self.load(end.clone())).await;
        let Some(directory) = loading.transpose()? else { return Ok(()) };
        let (wake, wakes) = mpsc::unbounded_channel();
        let (tokens, wanted_tokens) = AccessTokens::new();
        let lanes = Lanes::new(self.limits.lane, self.limits.places, (egress, tokens), wake);
        let context = self.context(directory, publisher, lanes, shared);
        self.database.mark_loaded();
        self.warn_of_short_grace(&context);
        let sight = jobs::Sight::new(self.takeover_after);
        let persisted = CancellationToken::new();
        let running = Running {
            context: Arc::clone(&context),
            wakes,
            wanted_tokens,
            sight,
            persisted: persisted.clone(),
            stop: stop.clone(),
        };
        let background = TaskTracker::new();
        self.start_reports(&context);
        let mut stages = self.start(running, inlets, &background);
        tracing::info!(process = %context.process(), "dispatching");

        tokio::select! {
            biased;
            () = stop.cancelled() => {}
            ended = stages.join_next() => {
                // Without a stage, the other stages would send deliveries and lose the outcomes. The next process
                // continues from the rows and the un-acked messages.
                bail!("a stage ended before the shutdown: {ended:?}; start the process again");
            }
        }
        let drained = drain(&context, (background, stages), persisted, [ordered, consumers, others]);
        if tokio::time::timeout(self.grace, drained).await.is_err() {
            bail!(
                "not drained within {:?}: other dispatchers recover the deliveries in flight when the leases end",
                self.grace
            );
        }
        tracing::info!("drained");
        Ok(())
    }

    /// Warns if a drain may be shorter than an attempt: the receiver then gets a repeat at each restart.
    fn warn_of_short_grace(&self, context: &Context) {
        let snapshot = context.directory.snapshot();
        let endpoints = snapshot.applications.values().flat_map(|application| application.endpoints());
        let longest = endpoints.map(|endpoint| endpoint.policy.timeout).max().unwrap_or_default();
        if longest >= self.grace {
            tracing::warn!(
                ?longest,
                grace = ?self.grace,
                "the drain may end before an attempt to the slowest endpoints: raise FANFARE_GRACE above the longest deadline"
            );
        }
    }

    /// Waits for the database, checks its settings, and loads the configuration.
    async fn load(&self, end: CancellationToken) -> anyhow::Result<Directory> {
        let database = &self.database;
        database.store.wait_until_migrated().await?;
        let checked = database.retry_until_available("checking durability", || database.store.check_durability());
        checked.await.result.context("the database may lose committed data")?;
        Ok(Directory::follow_applications(database.store.clone(), Arc::clone(&self.dialects), end).await)
    }

    fn start_reports(&self, context: &Arc<Context>) {
        tokio::spawn(report::version(Arc::clone(context)));
        tokio::spawn(report::work(Arc::clone(context), self.limits, self.held));
        tokio::spawn(report::depths(self.broker.clone(), self.database.store.clone()));
    }

    fn connections(
        &self,
        publisher: &Publisher,
        work: impl Fn() -> Vec<ConsumerState> + Send + 'static,
        others: impl Fn() -> Vec<ConsumerState> + Send + 'static,
        report: SharedReport,
    ) -> Connections {
        Connections {
            database: self.database.clone(),
            publisher: publisher.clone(),
            consumers: Box::new(move || [work(), others()].concat()),
            report,
        }
    }

    fn context(&self, directory: Directory, publisher: Publisher, lanes: Lanes, report: SharedReport) -> Arc<Context> {
        Context::new(Parts {
            database: self.database.clone(),
            directory,
            lanes,
            publisher,
            topology: self.broker.topology().clone(),
            expiry: self.expiry,
            prefetch: usize::from(self.limits.prefetch),
            report,
        })
    }

    /// All feeds, and the channels of their messages.
    fn feeds(&self) -> (Feeds, Inlets) {
        let topology = self.broker.topology();
        let prefetch = self.limits.prefetch;
        let inlet = |queue: String, prefetch: u16| {
            let (into, inlet) = mpsc::channel(usize::from(prefetch));
            (Feed { queue, prefetch, into, is_ordered: false }, inlet)
        };
        let ordered = topology.ordered_queues().into_iter().map(|queue| {
            let (feed, inlet) = inlet(queue, ORDERED_PREFETCH);
            (Feed { is_ordered: true, ..feed }, inlet)
        });
        let (ordered, ordered_inlets): (Vec<Feed>, Vec<_>) = ordered.unzip();
        let (events, events_inlet) = inlet(topology.events_queue(), prefetch);
        let (retries, retries_inlet) = inlet(topology.deliveries_queue(), prefetch);
        let (parked, parked_inlet) = inlet(topology.parked_queue(), ODD_PREFETCH);
        let (unrouted, unrouted_inlet) = inlet(topology.unrouted(), ODD_PREFETCH);
        let inlets = Inlets {
            events: events_inlet,
            ordered: ordered_inlets,
            retries: retries_inlet,
            parked: parked_inlet,
            unrouted: unrouted_inlet,
        };
        (Feeds { work: vec![events, retries], ordered, others: vec![parked, unrouted] }, inlets)
    }

    /// Starts the stages, the drain and the jobs. A stage ends after its input channel has closed: a stop of the first
    /// stages drains all stages.
    fn start(&self, running: Running, inlets: Inlets, background: &TaskTracker) -> JoinSet<()> {
        let Running { context, wakes, wanted_tokens, sight, persisted, stop } = running;
        let shared = || Arc::clone(&context);
        let (planned, to_persist) = mpsc::channel(CHANNEL);
        let (attempts, to_attempt) = mpsc::channel::<InFlight>(CHANNEL);
        let (results, to_record) = mpsc::channel(CHANNEL);
        let (slow, to_list) = mpsc::unbounded_channel();
        let (unsendable, blocked) = mpsc::unbounded_channel();
        let fan_outs = FanOuts::new(shared(), attempts.clone());
        let longest_delay = LongestDelay::new(self.retention, self.dialects.longest_lifetime(self.expiry));
        let (max_bytes, position) = (self.limits.event_bytes, AtomicI64::new(1));
        let events = Arc::new(Events { context: shared(), max_bytes, longest_delay, position });
        let persist = Persist { context: shared(), attempts: attempts.clone(), fan_outs: fan_outs.clone() };
        let leases = Leases::new(shared(), attempts.clone());
        let drain = Drain { context: shared(), leases: leases.clone(), unsendable };
        let fetches = jobs::TokenFetches::new(shared(), self.client.clone());
        background.spawn(fetches.run(wanted_tokens, stop.clone()));
        let attempting = Attempts { context: shared(), client: self.client.clone(), results, slow };

        let mut stages = JoinSet::new();
        for inlet in inlets.ordered {
            stages.spawn(events::run_in_order(Arc::clone(&events), inlet, planned.clone(), stop.clone()));
        }
        stages.spawn(events::run(events, inlets.events, planned, stop.clone()));
        stages.spawn(retries::run(leases, inlets.retries, stop.clone()));
        stages.spawn(park::keep(shared(), inlets.parked, stop.clone()));
        stages.spawn(unrouted::send_on(shared(), inlets.unrouted, self.broker.clone(), stop.clone()));
        let (persisted, stopping) = (persisted.drop_guard(), stop.clone());
        stages.spawn(async move {
            persist::run(persist, to_persist, stopping).await;
            drop(persisted);
        });
        stages.spawn(drain.run(wakes, stop.clone()));
        stages.spawn(backlog::handle_blocked(shared(), blocked, stop.clone()));
        stages.spawn(attempt::run(attempting, to_attempt, stop.clone()));
        stages.spawn(record::run(shared(), to_record));
        stages.spawn(record::list_slow(shared(), to_list, stop.clone()));
        self.start_jobs(background, &context, (fan_outs, attempts, sight), &stop);
        stages
    }

    fn start_jobs(
        &self,
        background: &TaskTracker,
        context: &Arc<Context>,
        (fan_outs, attempts, sight): (FanOuts, mpsc::Sender<InFlight>, jobs::Sight),
        stop: &CancellationToken,
    ) {
        let (shared, database) = (|| Arc::clone(context), || self.database.clone());
        let due_events = jobs::DueEvents { context: shared(), attempts: attempts.clone(), fan_outs: fan_outs.clone() };
        let operational_fan_outs = fan_outs.clone();
        background.spawn(due_events.run(stop.clone()));
        background.spawn(jobs::OrderingKeys { context: shared() }.run(stop.clone()));
        let presence = jobs::Presence {
            context: shared(),
            fan_outs,
            sight: sight.clone(),
            places: self.limits.places.attempts,
            settings: self.settings.clone(),
        };
        background.spawn(presence.run(stop.clone()));
        background.spawn(database().reopen(stop.clone()));
        background.spawn(jobs::Recovery { context: shared(), sight: sight.clone() }.run(stop.clone()));
        background.spawn(jobs::Suspects { context: shared(), attempts, sight }.run(stop.clone()));
        background.spawn(housekeeping::Sweep { database: database() }.run(stop.clone()));
        background.spawn(housekeeping::vacuum(database(), stop.clone()));
        background.spawn(housekeeping::census(database(), stop.clone()));
        background.spawn(housekeeping::rollups(database(), stop.clone()));
        background.spawn(housekeeping::build_indexes(database(), stop.clone()));
        let (directory, limits) = (context.directory.clone(), self.held);
        background.spawn(jobs::Holding { database: database(), directory, limits }.run(stop.clone()));
        background.spawn(jobs::Replays { context: shared() }.run(stop.clone()));
        background.spawn(jobs::Digests { context: shared() }.run(stop.clone()));
        self.start_operational_events(background, (context, operational_fan_outs), stop);
        let (retention, audit_retention) = (self.retention, self.audit_retention);
        let (has_archive, archived) = (self.archive.is_some(), Arc::<Notify>::default());
        let partitions = housekeeping::Partitions {
            database: database(),
            retention,
            audit_retention,
            usage_retention: self.usage_retention,
            has_archive,
            archived: Arc::clone(&archived),
        };
        background.spawn(partitions.run(stop.clone()));
        if let Some(archive) = self.archive.clone() {
            background.spawn(housekeeping::ArchiveDays { archive, database: database(), archived }.run(stop.clone()));
        }
        background.spawn(housekeeping::trim_parked(database(), self.parked, stop.clone()));
        background.spawn(self.mails.clone().run(stop.clone()));
        background.close();
    }
}

impl Dispatcher {
    /// Starts the job of operational events, if the operator names an application.
    fn start_operational_events(
        &self,
        background: &TaskTracker,
        (context, fan_outs): (&Arc<Context>, FanOuts),
        stop: &CancellationToken,
    ) {
        let Operational { application, console, is_mailed } = self.operational.clone();
        let Some(application) = application else { return };
        let HeldLimits { max_age, most } = self.held;
        let held = HeldBounds { most, max_age };
        let job = jobs::OperationalEvents {
            context: Arc::clone(context),
            fan_outs,
            application,
            held,
            console,
            is_mailed,
            is_unsure: false.into(),
        };
        background.spawn(job.run(stop.clone()));
    }
}

/// Check of `/readyz`. An error names the missing server.
fn readiness(
    database: watch::Receiver<bool>,
    consuming: watch::Receiver<bool>,
    publisher: Publisher,
    egress: watch::Receiver<Option<String>>,
) -> impl Fn() -> Readiness {
    let unless = |is_good: bool, reason: &str| if is_good { Ok(()) } else { Err(reason.to_owned()) };
    move || {
        let consuming = unless(*consuming.borrow(), "not consuming from the broker");
        Readiness {
            process: unless(*database.borrow(), "the database is away, or not migrated").and_then(|()| {
                let fault = egress.borrow().clone();
                fault.map_or(Ok(()), |fault| Err(format!("can make no connections, for a reason of ours: {fault}")))
            }),
            broker: consuming.and(unless(publisher.is_ready(), "cannot publish to the broker")),
        }
    }
}
