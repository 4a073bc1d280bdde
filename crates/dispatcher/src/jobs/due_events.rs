//! Due events: opens the deliveries of delayed events. Runs in each process.
//!
//! A look leases the next due events, matches them with the present configuration, and opens their deliveries as
//! persist does. The events of a process that dies are due again when their lease ends.

use std::{collections::HashMap, sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_domain::ids::EventId;
use fanfare_service::crash_point;
use fanfare_store::{DueContent, DueEvent, DuePlan, Persisted, StoreError};
use jiff::Timestamp;
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    context::Context,
    metric,
    stages::{
        InFlight,
        intake::{
            events,
            fan_out::FanOuts,
            matching::Reach,
            persist::{DELIVERY_BYTES, own_bytes},
            shaping::Shaping,
        },
        sending::in_flight::{Direct, FirstAttempts},
    },
};

/// Interval of looks, while no event is due.
const EVERY: Duration = Duration::from_secs(1);

/// Maximum of events opened by a look.
const BATCH: usize = 256;

/// Maximum of deliveries opened by a look, beside those of its last event.
const MAX_DELIVERIES: usize = 5000;

/// Time after which a look leaves its other events due, well within their lease.
const PLANNING: Duration = Duration::from_secs(1);

/// Shortest and longest wait of an event that this process cannot read.
const DEFERRED: (Duration, Duration) = (Duration::from_secs(10), Duration::from_secs(60));

/// Wait of an event that the database refuses.
const REFUSED: (Duration, Duration) = (Duration::from_secs(600), Duration::from_secs(600));

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

/// Decisions of a look.
#[derive(Default)]
struct Look {
    planned: Vec<(DueEvent, DuePlan)>,
    directs: Directs,
    /// Events that another process may be able to read.
    deferred: Vec<DueEvent>,
    /// Events beyond the bounds of a look.
    left: Vec<DueEvent>,
}

impl DueEvents {
    /// Looks until `stop`. A look that has begun is finished: its leases would end unused otherwise.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut limit = BATCH;
        while stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_some() {
            while *self.context.database.availability().borrow() && !stop.is_cancelled() {
                match self.look(&mut limit, &stop).await {
                    Ok(0) => break,
                    Ok(_) if self.context.events_wait() => tokio::time::sleep(YIELD).await,
                    Ok(_) => {}
                    Err(error) => {
                        tracing::warn!(%error, limit, "cannot open due events; trying again");
                        if matches!(error, StoreError::Unavailable(_)) {
                            self.fan_outs.recover(&stop);
                        }
                        break;
                    }
                }
            }
        }
    }

    /// Opens the deliveries of up to `limit` due events. Returns the number of events. Of a batch that the database
    /// refuses, the next look takes half, until the refused event is alone, and is deferred.
    async fn look(&self, limit: &mut usize, stop: &CancellationToken) -> Result<usize, StoreError> {
        let store = &self.context.database.store;
        let taken = store.with_deadline(LOOK_TIMEOUT, store.take_due(*limit)).await?;
        if taken.is_empty() {
            return Ok(0);
        }
        crash_point("due.taken");
        let tried_at = Instant::now();
        let Look { planned, directs, deferred, left } = self.decide(taken, tried_at);
        store.release_due(&deferred.iter().collect::<Vec<_>>(), Some(DEFERRED)).await?;
        store.release_due(&left.iter().collect::<Vec<_>>(), None).await?;
        let opening = store.open_due(self.context.process(), &planned);
        match store.with_deadline(LOOK_TIMEOUT, opening).await {
            Ok(persisted) => {
                *limit = (*limit * 2).min(BATCH);
                let count = planned.len() + deferred.len();
                self.opened(planned, &persisted, directs, tried_at, stop).await;
                Ok(count)
            }
            Err(error @ StoreError::Data(_)) => {
                self.refused(&planned, &error, limit).await?;
                Ok(planned.len())
            }
            Err(error) => Err(error),
        }
    }

    /// Releases a batch that the database refuses, or defers the only event of the batch.
    async fn refused(
        &self,
        planned: &[(DueEvent, DuePlan)],
        error: &StoreError,
        limit: &mut usize,
    ) -> Result<(), StoreError> {
        let events: Vec<&DueEvent> = planned.iter().map(|(event, _)| event).collect();
        let wait = match events.as_slice() {
            [event] => {
                tracing::error!(
                    event = %event.id, %error,
                    "the database refuses a due event; trying again in ten minutes"
                );
                *limit = BATCH;
                Some(REFUSED)
            }
            _ => {
                *limit = events.len() / 2;
                None
            }
        };
        self.context.database.store.release_due(&events, wait).await
    }

    /// Decides on the events of a look, one at least.
    fn decide(&self, taken: Vec<DueEvent>, tried_at: Instant) -> Look {
        let (mut look, mut opened) = (Look::default(), 0);
        for event in taken {
            if opened >= MAX_DELIVERIES || !look.planned.is_empty() && tried_at.elapsed() > PLANNING {
                look.left.push(event);
                continue;
            }
            let Some(plan) = self.plan(&event, &mut look.directs) else {
                look.deferred.push(event);
                continue;
            };
            if let DuePlan::Open { deliveries, .. } = &plan {
                opened += deliveries.len() + deliveries.iter().map(own_bytes).sum::<usize>() / DELIVERY_BYTES;
            }
            look.planned.push((event, plan));
        }
        look
    }

    /// Passes on the first attempts and the fan-outs of opened events. An event cancelled or erased meanwhile is not
    /// open.
    async fn opened(
        &self,
        planned: Vec<(DueEvent, DuePlan)>,
        persisted: &Persisted,
        mut directs: Directs,
        tried_at: Instant,
        stop: &CancellationToken,
    ) {
        crash_point("due.opened");
        let context = &self.context;
        context.touched(&persisted.backlogs, false);
        for (event, plan) in planned {
            let DuePlan::Open { is_wide, deliveries, .. } = plan else { continue };
            let direct = directs.remove(&event.id).unwrap_or_default();
            let accepted_at = event.accepted_at;
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
    }

    /// Decides on a due event, and keeps the permits of its first attempts. `None` to defer the event.
    fn plan(&self, event: &DueEvent, directs: &mut Directs) -> Option<DuePlan> {
        let (event_type, body) = match &event.content {
            DueContent::Kept { event_type, body, .. } => (event_type, body),
            DueContent::Unreadable => {
                tracing::error!(
                    event = %event.id,
                    "cannot read a due event; another process must open its deliveries: compare FANFARE_SECRET_KEYS"
                );
                return None;
            }
            DueContent::Gone => {
                tracing::warn!(event = %event.id, "a due event is erased or past its retention, and is not delivered");
                return Some(DuePlan::Drop);
            }
        };
        let Some(application) = self.context.directory.application(event.application) else {
            tracing::error!(event = %event.id, application = %event.application, "cannot read the settings for a due event");
            return None;
        };
        let reach = Reach::of(&application, event_type, body.as_bytes());
        let id = (event.accepted_at, event.id);
        let mut shaping = Shaping::new(&application, event_type, id, body.as_bytes());
        let shapes = reach.direct().iter().map(|endpoint| shaping.shape_in_place(endpoint)).collect();
        let (deliveries, direct) = events::admit_all(&self.context, id, reach.direct(), (body.len(), false), shapes);
        if !direct.is_empty() {
            directs.insert(event.id, direct);
        }
        Some(DuePlan::Open { matches: reach.count(), is_wide: reach.is_wide, deliveries })
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
