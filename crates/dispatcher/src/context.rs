//! Shared state of the stages, the drain and the jobs.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_broker::{Publisher, Topology};
use fanfare_domain::{
    endpoint::Endpoint,
    ids::{ApplicationId, EndpointId, ProcessId},
};
use fanfare_service::{Checks, RecentCount};
use fanfare_store::{Directory, Probed, TakenBacklog, TouchedBacklog};
use jiff::Timestamp;
use tokio::{sync::Notify, time::Instant};
use tokio_util::task::TaskTracker;

use crate::{backlog::Backlogs, database::Database, lanes::Lanes, report::SharedReport};

pub(crate) struct Context {
    pub(crate) database: Database,
    pub(crate) directory: Directory,
    pub(crate) lanes: Lanes,
    pub(crate) backlogs: Backlogs,
    pub(crate) publisher: Publisher,
    pub(crate) topology: Topology,
    /// Time beyond the schedule of a delivery, for delays that the endpoint does not cause.
    pub(crate) expiry: Duration,
    /// Checks of large events, and many filters.
    pub(crate) checks: Checks,
    /// Wakes the look for the next deliveries of ordering keys.
    pub(crate) order_changed: Notify,
    /// Tasks beside the stages. The process waits for all tasks before the exit.
    pub(crate) tasks: TaskTracker,
    /// State of the process for its row in the database.
    pub(crate) report: SharedReport,
    /// Events persisted, and attempts made.
    pub(crate) persisted: RecentCount,
    pub(crate) attempted: RecentCount,
    /// Number of un-acked event messages, at most `prefetch`.
    events: Arc<AtomicUsize>,
    prefetch: usize,
}

/// Counts an un-acked event message until dropped.
pub(crate) struct Entered(Arc<AtomicUsize>);

/// Arguments of [`Context::new`].
pub(crate) struct Parts {
    pub(crate) database: Database,
    pub(crate) directory: Directory,
    pub(crate) lanes: Lanes,
    pub(crate) publisher: Publisher,
    pub(crate) topology: Topology,
    pub(crate) expiry: Duration,
    pub(crate) prefetch: usize,
    pub(crate) report: SharedReport,
}

impl Context {
    pub(crate) fn new(parts: Parts) -> Arc<Self> {
        let Parts { database, directory, lanes, publisher, topology, expiry, prefetch, report } = parts;
        Arc::new(Self {
            database,
            directory,
            lanes,
            backlogs: Backlogs::new(),
            publisher,
            topology,
            expiry,
            checks: Checks::default(),
            order_changed: Notify::new(),
            tasks: TaskTracker::new(),
            report,
            persisted: RecentCount::default(),
            attempted: RecentCount::default(),
            events: Arc::default(),
            prefetch,
        })
    }

    /// Id of this process in the database.
    pub(crate) fn process(&self) -> ProcessId {
        self.database.process()
    }

    /// Continues under a new id, after the process was declared dead. Statements under the old id match nothing.
    pub(crate) fn renew_process(&self) -> ProcessId {
        let new = self.database.renew_process();
        for endpoint in self.backlogs.forget_all() {
            self.lanes.set_owned(endpoint, false);
        }
        new
    }

    /// Time of the database's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.database.now()
    }

    /// Finds an endpoint in the loaded configuration.
    pub(crate) fn endpoint(&self, application: ApplicationId, endpoint: EndpointId) -> Option<Arc<Endpoint>> {
        self.directory.application(application)?.endpoint(endpoint).cloned()
    }

    /// Begins or continues the owned backlogs among `touched`, after a statement has queued deliveries.
    pub(crate) fn touched(&self, touched: &[TouchedBacklog], is_below_floor: bool) {
        for endpoint in self.backlogs.touched(self.process(), touched, is_below_floor) {
            self.lanes.set_owned(endpoint, true);
        }
    }

    /// Begins backlogs taken over by the process. A statement may have queued into one of them meanwhile.
    pub(crate) fn take_over(&self, taken: &[TakenBacklog]) {
        // Before the drain sees the backlogs, which would send past an open breaker or a rest.
        taken.iter().for_each(|backlog| self.resume_lane(backlog));
        self.begin(taken);
    }

    /// Begins the backlogs that the process owns in the database, and that its memory lacks.
    pub(crate) fn begin_own(&self, owned: &[TakenBacklog]) {
        // A known backlog has a newer state in memory.
        owned
            .iter()
            .filter(|backlog| !self.backlogs.has(backlog.endpoint))
            .for_each(|backlog| self.resume_lane(backlog));
        self.begin(owned);
    }

    fn begin(&self, backlogs: &[TakenBacklog]) {
        for endpoint in self.backlogs.begin(backlogs) {
            self.lanes.set_owned(endpoint, true);
        }
    }

    /// Resumes the breaker and the rest of a backlog's last owner.
    fn resume_lane(&self, backlog: &TakenBacklog) {
        let wait = |at: Timestamp| Duration::try_from(at.duration_since(self.now())).unwrap_or_default();
        if let Some(next) = backlog.next_probe {
            self.lanes.resume_breaker(backlog.endpoint, backlog.failures, wait(next));
        }
        if let Some(until) = backlog.rests_until {
            self.lanes.resume_rest(backlog.endpoint, wait(until));
        }
    }

    /// Forgets an ended or released backlog.
    pub(crate) fn end_backlog(&self, endpoint: EndpointId) {
        // In this order: a backlog that begins meanwhile sets its lane owned after this.
        self.lanes.set_owned(endpoint, false);
        self.backlogs.forget(endpoint);
    }

    /// Breaker and rest of an endpoint, if the row of the backlog has other times.
    pub(crate) fn changed_breaker(&self, endpoint: EndpointId) -> Option<Probed> {
        let breaker = self.lanes.breaker(endpoint);
        let wait = |at: Instant| at.saturating_duration_since(Instant::now());
        let (next_in, rest) = (breaker.next_probe.map(wait), breaker.rests_until.map(wait));
        let probed = Probed { endpoint, failures: breaker.failures, next_in, rest };
        self.backlogs.note_probe(endpoint, (breaker.next_probe, breaker.rests_until)).then_some(probed)
    }

    /// Counts an event message until the ack.
    pub(crate) fn enter(&self) -> Entered {
        self.events.fetch_add(1, Ordering::AcqRel);
        Entered(Arc::clone(&self.events))
    }

    /// True if events wait to be persisted: at least half of the prefetch is in use.
    pub(crate) fn events_wait(&self) -> bool {
        self.events.load(Ordering::Acquire) * 2 >= self.prefetch
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
