//! Gauges of the process. Every gauge is set anew at each report: a gauge without a report for three minutes ends.

use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use fanfare_broker::{BrokerSettings, ConsumerState, Publisher, QueueDepths};
use fanfare_service::{report_blocked, report_broker, report_build, report_clock, report_pool};
use fanfare_store::{ProcessReport, Store};
use jiff::Timestamp;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout},
};

use crate::{
    configuration::{HeldLimits, Limits},
    context::Context,
    database::Database,
    metric,
};

/// Interval of the reports.
const REPORTS_EVERY: Duration = Duration::from_secs(2);

/// Interval of the looks at the depths of queues.
const DEPTHS_EVERY: Duration = Duration::from_secs(10);

/// Interval of the counts of deliveries in waiting backlogs, number of counted backlogs, and bound of each count.
const COUNTS_EVERY: Duration = Duration::from_secs(10);
const MAX_COUNTED: usize = 200;
const COUNTED_EACH: usize = 1000;

/// State of the process for its row in the database, gathered by the reports. Cheap to clone.
#[derive(Clone, Default)]
pub(crate) struct SharedReport(Arc<Mutex<ProcessReport>>);

impl SharedReport {
    /// The last state.
    pub(crate) fn get(&self) -> ProcessReport {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, change: impl FnOnce(&mut ProcessReport)) {
        change(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner));
    }
}

/// Connections of the process.
pub(crate) struct Connections {
    pub(crate) database: Database,
    pub(crate) publisher: Publisher,
    /// States of the consumers, in the order of [`metric::CONSUMED`].
    pub(crate) consumers: Box<dyn Fn() -> Vec<ConsumerState> + Send>,
    pub(crate) report: SharedReport,
}

/// Reports the connections, until the process exits.
pub(crate) async fn connections(connections: Connections) {
    let Connections { database, publisher, consumers, report } = connections;
    let available: watch::Receiver<bool> = database.availability();
    loop {
        report_build("dispatcher");
        let publishing = publisher.state();
        report_broker("publish", publishing.is_connected, publishing.connections);
        report_blocked(publishing.is_blocked);
        let states = consumers();
        for (queue, state) in metric::CONSUMED.into_iter().zip(&states) {
            report_broker(queue, state.is_consuming, state.connections);
            // All counts are exact in `f64`: the memory of a process holds fewer than 2^53 entries.
            metrics::gauge!(metric::MESSAGES_IN_HAND, "queue" => queue).set(state.in_hand as f64);
        }
        metrics::gauge!(metric::DATABASE_AVAILABLE).set(f64::from(u8::from(*available.borrow())));
        for pool in database.store.pools() {
            report_pool(pool.name, pool.states);
        }
        report_clock(database.store.clock_offset());
        let in_hand = |queue: usize| states.get(queue).map_or(0, |state| state.in_hand);
        report.set(|report| {
            (report.events_in_hand, report.retries_in_hand) = (in_hand(0), in_hand(1));
            report.has_broker = publisher.is_ready();
            report.has_database = *available.borrow();
            report.clock_offset = database.store.clock_offset();
        });
        sleep(REPORTS_EVERY).await;
    }
}

/// Reports lanes, places and backlogs, until the process exits.
pub(crate) async fn work(context: Arc<Context>, limits: Limits, held: HeldLimits) {
    let limits = limits.places;
    let mut counted: Option<Instant> = None;
    loop {
        let lanes = context.lanes.report().await;
        let backlogs = context.backlogs.report(context.lanes.places.left_to_drains(false) == 0);
        let (places, bytes) = context.lanes.places.used_amount();
        for (state, count) in [("slow", lanes.slow), ("open", lanes.open)] {
            metrics::gauge!(metric::LANES, "state" => state).set(count as f64);
        }
        for (state, count) in [("used", places), ("limit", limits.attempts)] {
            metrics::gauge!(metric::PLACES, "state" => state).set(count as f64);
        }
        for (state, count) in [("used", bytes), ("limit", limits.bytes)] {
            metrics::gauge!(metric::PLACE_BYTES, "state" => state).set(count as f64);
        }
        for (state, count) in [("owned", backlogs.owned), ("waiting", backlogs.waiting.len())] {
            metrics::gauge!(metric::BACKLOGS, "state" => state).set(count as f64);
        }
        metrics::gauge!(metric::WITHOUT_TOKEN).set(context.lanes.tokens.without_token() as f64);
        metrics::gauge!(metric::BACKLOG_WAIT).set(backlogs.p95_wait.as_secs_f64());
        metrics::gauge!(metric::ATTEMPTS_IN_FLIGHT).increment(0);
        if counted.is_none_or(|counted| counted.elapsed() >= COUNTS_EVERY) {
            counted = Some(Instant::now());
            let waiting = &backlogs.waiting[..backlogs.waiting.len().min(MAX_COUNTED)];
            let store = &context.database.store;
            if let Ok(count) = store.with_deadline(REPORTS_EVERY, store.count_queued(waiting, COUNTED_EACH)).await {
                metrics::gauge!(metric::BACKLOG_DELIVERIES).set(count as f64);
                context.report.set(|report| report.due = count);
            }
        }
        context.report.set(|report| {
            (report.events, report.attempts) = (context.persisted.read(), context.attempted.read());
            (report.places_used, report.places) = (places, limits.attempts);
            (report.bytes_used, report.bytes) = (bytes, limits.bytes);
            (report.lanes_slow, report.lanes_open) = (lanes.slow, lanes.open);
            (report.backlogs, report.backlogs_waiting) = (backlogs.owned, backlogs.waiting.len());
            report.longest_wait = backlogs.longest_wait;
            report.configuration = context.directory.snapshot().version;
            (report.max_held, report.max_held_age) = (Some(held.most), Some(held.max_age));
        });
        sleep(REPORTS_EVERY).await;
    }
}

/// Reports the version of the loaded configuration at each change.
pub(crate) async fn version(context: Arc<Context>) {
    let mut changes = context.directory.changes();
    loop {
        let version = changes.borrow_and_update().version;
        // Exact up to 2^53 changes.
        metrics::gauge!(metric::CONFIGURATION_VERSION).set(version as f64);
        if let Ok(Err(_)) = timeout(REPORTS_EVERY, changes.changed()).await {
            return;
        }
    }
}

/// Reports the depths of the queues, as metrics and in the database, until the process exits.
pub(crate) async fn depths(settings: BrokerSettings, store: Store) {
    let mut depths = QueueDepths::new(settings);
    loop {
        sleep(DEPTHS_EVERY).await;
        match depths.read().await {
            Ok(read) => {
                let noted: Vec<_> =
                    read.iter().map(|depth| (depth.queue.clone(), depth.ready, depth.consumers)).collect();
                if let Err(error) = store.with_deadline(REPORTS_EVERY, store.note_depths(&noted)).await {
                    tracing::debug!(%error, "cannot note the depths of the queues");
                }
                for depth in read {
                    metrics::gauge!(metric::QUEUE_READY, "queue" => depth.queue.clone()).set(depth.ready);
                    metrics::gauge!(metric::QUEUE_CONSUMERS, "queue" => depth.queue).set(depth.consumers);
                }
                looked("broker");
            }
            // The supervisors of publisher and consumers log an outage.
            Err(error) => tracing::debug!(%error, "cannot read the depths of the queues"),
        }
    }
}

/// Reports the success of a look.
pub(crate) fn looked(at: &'static str) {
    metrics::gauge!(metric::LOOKED, "at" => at).set(unix_seconds());
}

/// The machine's time: Prometheus compares the value with its own clock.
pub(crate) fn unix_seconds() -> f64 {
    Timestamp::now().as_duration().as_secs_f64()
}
