//! Due events: opens the deliveries of delayed events. Runs in each process.
//!
//! A transaction locks the next due events, matches them with the present configuration, and opens their deliveries as
//! persist does. Other processes skip the locked events. The transaction of a process that dies ends without effect.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_domain::ids::EventId;
use fanfare_service::crash_point;
use fanfare_store::{DueContent, DueEvent, DuePlan, OpenedDue, StoreError};
use jiff::Timestamp;
use tokio::{sync::mpsc, task::block_in_place, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    context::Context,
    metric,
    stages::{
        InFlight,
        events::{self, MAX_DIRECT},
        fan_out::FanOuts,
        in_flight::{Direct, FirstAttempts},
        matching,
        persist::{DELIVERY_BYTES, own_bytes},
        shaping::Shaping,
    },
};

/// Interval of looks, while no event is due.
const EVERY: Duration = Duration::from_secs(1);

/// Maximum of events opened by a look.
const BATCH: usize = 256;

/// Maximum of deliveries opened by a look, beside those of its last event.
const MAX_DELIVERIES: usize = 5000;

/// Time after which a look leaves its other events due. The rows of all its events are locked.
const PLANNING: Duration = Duration::from_secs(1);

/// Pause between two looks while events from the broker wait: these events go first.
const YIELD: Duration = Duration::from_millis(20);

/// Deadline of a look.
const LOOK_TIMEOUT: Duration = Duration::from_secs(20);

pub(crate) struct DueEvents {
    pub(crate) context: Arc<Context>,
    pub(crate) attempts: mpsc::Sender<InFlight>,
    pub(crate) fan_outs: FanOuts,
}

/// First attempts of a look's events.
type Directs = HashMap<EventId, Vec<(usize, Direct)>>;

impl DueEvents {
    /// Looks until `stop`. A look that has begun is finished: its leases would end unused otherwise.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut limit = BATCH;
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            while *self.context.database.availability().borrow() && !stop.is_cancelled() {
                match self.open(limit, &stop).await {
                    Ok(0) => break,
                    Ok(opened) => {
                        limit = if opened < limit { BATCH } else { (limit * 2).min(BATCH) };
                        if self.context.events_wait() {
                            tokio::time::sleep(YIELD).await;
                        }
                    }
                    Err(error) => {
                        tracing::warn!(%error, limit, "cannot open due events; trying again");
                        limit = self.react(&error, limit, &stop).await;
                        break;
                    }
                }
            }
        }
    }

    /// Reacts to a failed look. Returns the limit of the next look: of a refused batch half, until the refused event is
    /// alone. A refused event that is alone is deferred.
    async fn react(&self, error: &StoreError, limit: usize, stop: &CancellationToken) -> usize {
        match error {
            StoreError::Data(_) if limit > 1 => return limit / 2,
            StoreError::Data(_) => match self.context.database.store.defer_due().await {
                Ok(Some(event)) => {
                    tracing::error!(%event, %error, "the database refuses a due event; trying again in ten minutes");
                }
                Ok(None) => {}
                Err(failed) => tracing::warn!(error = %failed, "cannot defer a due event"),
            },
            StoreError::Unavailable(_) => self.recover(stop),
            _ => return limit,
        }
        BATCH
    }

    /// Finds the work of a commit without an answer: backlogs and fan-outs of this process that its memory lacks.
    fn recover(&self, stop: &CancellationToken) {
        self.context.backlogs.look_for_more();
        self.fan_outs.abandon_later(stop);
    }

    /// Opens the deliveries of the next due events. Returns the number of events.
    async fn open(&self, limit: usize, stop: &CancellationToken) -> Result<usize, StoreError> {
        let (context, store) = (&self.context, &self.context.database.store);
        let (mut directs, mut opened, mut is_first, tried_at) = (Directs::new(), 0, true, Instant::now());
        let plan = |event: &DueEvent| {
            // A look decides on one event at least.
            let is_full = opened >= MAX_DELIVERIES || tried_at.elapsed() > PLANNING;
            if !std::mem::take(&mut is_first) && is_full {
                return DuePlan::Leave;
            }
            let plan = self.plan(event, &mut directs);
            if let DuePlan::Open { deliveries, .. } = &plan {
                opened += deliveries.len() + deliveries.iter().map(own_bytes).sum::<usize>() / DELIVERY_BYTES;
            }
            plan
        };
        let opening = store.open_due(context.process(), limit, plan);
        let OpenedDue { events, persisted } = store.with_deadline(LOOK_TIMEOUT, opening).await?;
        if events.is_empty() {
            return Ok(0);
        }
        crash_point("due.opened");
        context.touched(&persisted.backlogs, false);
        let count = events.iter().filter(|(_, plan)| !matches!(plan, DuePlan::Leave)).count();
        for (event, plan) in events {
            let DuePlan::Open { is_wide, deliveries, .. } = plan else { continue };
            let direct = directs.remove(&event.id).unwrap_or_default();
            let accepted_at = event.accepted_at;
            // An event erased meanwhile by an older release is not open.
            let Some(first) = first_attempts(event).filter(|first| persisted.new.contains(&first.event)) else {
                continue;
            };
            record_lag(context.now(), first.ready_at);
            events::count_finished(&deliveries);
            if is_wide {
                self.fan_outs.begin(first, accepted_at, stop);
                continue;
            }
            for (position, direct) in direct {
                let delivery = &deliveries[position];
                if persisted.queued.contains(&delivery.id) {
                    continue;
                }
                if let Some(in_flight) = first.of(delivery, None, direct, tried_at) {
                    drop(self.attempts.send(in_flight).await);
                }
            }
        }
        Ok(count)
    }

    /// Decides on a due event, and keeps the permits of its first attempts.
    fn plan(&self, event: &DueEvent, directs: &mut Directs) -> DuePlan {
        crash_point("due.taken");
        let (event_type, body) = match &event.content {
            DueContent::Kept { event_type, body, .. } => (event_type, body),
            DueContent::Unreadable => {
                tracing::error!(
                    event = %event.id,
                    "cannot read a due event; another process must open its deliveries: compare FANFARE_SECRET_KEYS"
                );
                return DuePlan::Defer;
            }
            DueContent::Gone => {
                tracing::warn!(event = %event.id, "a due event is erased or past its retention, and is not delivered");
                return DuePlan::Drop;
            }
        };
        let Some(application) = self.context.directory.application(event.application) else {
            tracing::error!(event = %event.id, application = %event.application, "cannot read the settings for a due event");
            return DuePlan::Defer;
        };
        // The fan-out asks costly filters, outside of the transaction. Other tasks of the thread go on elsewhere.
        let at_once = block_in_place(|| matching::at_once(&application, event_type, body.as_bytes()));
        let is_slow = at_once.is_none();
        let endpoints = at_once.unwrap_or_else(|| application.subscribers(event_type));
        let (matches, is_wide) = (endpoints.len(), is_slow || endpoints.len() > MAX_DIRECT);
        let at_once = if is_wide { &[] } else { endpoints.as_slice() };
        let id = (event.accepted_at, event.id);
        let mut shaping = Shaping::new(&application, event_type, id, body.as_bytes());
        let shapes = at_once.iter().map(|endpoint| shaping.shape_in_place(endpoint)).collect();
        let (deliveries, direct) = events::admit_all(&self.context, id, at_once, (body.len(), false), shapes);
        if !direct.is_empty() {
            directs.insert(event.id, direct);
        }
        DuePlan::Open { matches, is_wide, deliveries }
    }
}

/// Common part of an event's first attempts; `None` for an event without content.
fn first_attempts(event: DueEvent) -> Option<FirstAttempts> {
    let DueContent::Kept { event_type, body, trace, deliver_at } = event.content else { return None };
    Some(FirstAttempts {
        application: event.application,
        event: event.id,
        event_type,
        trace,
        body: Bytes::from(body),
        ready_at: deliver_at,
        ordering_key: None,
    })
}

fn record_lag(now: Timestamp, due: Timestamp) {
    metrics::histogram!(metric::DUE_LAG).record(Duration::try_from(now.duration_since(due)).unwrap_or_default());
}
