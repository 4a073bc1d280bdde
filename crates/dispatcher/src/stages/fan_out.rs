//! Fan-outs of wide events: their deliveries are written in chunks, as places become free.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_domain::{
    application::Endpoint,
    delivery::QueueReason,
    ids::{DeliveryId, EndpointId, LeaseId},
};
use fanfare_service::crash_point;
use fanfare_store::{Chunk, FanOut, NewDelivery, Persisted, Start};
use jiff::Timestamp;
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use super::{
    InFlight, events,
    in_flight::{Direct, FirstAttempts},
};
use crate::{context::Context, metric};

/// Deliveries of one chunk.
const CHUNK: usize = 500;

/// Fan-outs of one process at once: enough to keep the database busy.
const AT_ONCE: usize = 2;

/// A fan-out that failed is given up after this, and taken over again.
const ABANDONED_REST: Duration = Duration::from_secs(5);

/// The wait for a free place.
const PLACE_WAIT: Duration = Duration::from_millis(20);

/// The fan-outs of the process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FanOuts {
    context: Arc<Context>,
    attempts: mpsc::Sender<InFlight>,
    at_once: Arc<Semaphore>,
}

/// An event whose deliveries are being written.
struct Wide {
    accepted_at: Timestamp,
    first: FirstAttempts,
}

/// The deliveries of a chunk, with the permits of the ones that are sent at once.
#[derive(Default)]
struct Admitted {
    deliveries: Vec<NewDelivery>,
    direct: Vec<(usize, Direct)>,
}

impl FanOuts {
    pub(crate) fn new(context: Arc<Context>, attempts: mpsc::Sender<InFlight>) -> Self {
        Self { context, attempts, at_once: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Begins the fan-out of an event that this process has just persisted.
    pub(super) fn begin(&self, first: FirstAttempts, accepted_at: Timestamp, stop: &CancellationToken) {
        self.spawn(Wide { accepted_at, first }, EndpointId::LEAST, stop);
    }

    /// Continues a fan-out that this process has taken over. One whose payload it cannot read is left to others.
    pub(crate) fn resume(&self, taken: FanOut, stop: &CancellationToken) {
        let FanOut { event, application, accepted_at, mark, event_type, body, traceparent } = taken;
        let Some(body) = body else {
            tracing::error!(%event, "cannot decrypt the payload of an event with many endpoints");
            return self.abandon_later(stop);
        };
        let first = FirstAttempts { application, event, event_type, trace: traceparent, body: Bytes::from(body) };
        self.spawn(Wide { accepted_at, first }, mark, stop);
    }

    fn spawn(&self, wide: Wide, mark: EndpointId, stop: &CancellationToken) {
        let (fan_outs, stop) = (self.clone(), stop.clone());
        self.context.tasks.spawn(async move {
            let work = async {
                let Ok(_permit) = fan_outs.at_once.acquire().await else { return };
                if !fan_outs.run(&wide, mark).await {
                    tokio::time::sleep(ABANDONED_REST).await;
                    fan_outs.abandon().await;
                }
            };
            // Where the process stops, another one takes it over from the mark.
            stop.run_until_cancelled(work).await;
        });
    }

    /// Gives up the fan-outs of this process: a look takes them over again, from their marks.
    pub(super) async fn abandon(&self) {
        let (process, database) = (self.context.process(), &self.context.database);
        let releasing = || database.store.release_fan_outs(process);
        if let Err(error) = database.until_answered("releasing fan-outs", releasing).await.result {
            tracing::error!(%error, "cannot release fan-outs");
        }
    }

    /// Gives up the fan-outs of this process after a rest.
    pub(crate) fn abandon_later(&self, stop: &CancellationToken) {
        let (fan_outs, stop) = (self.clone(), stop.clone());
        self.context.tasks.spawn(async move {
            let abandoning = async {
                tokio::time::sleep(ABANDONED_REST).await;
                fan_outs.abandon().await;
            };
            stop.run_until_cancelled(abandoning).await;
        });
    }

    /// Writes the chunks behind the mark. Says whether the fan-out is over for this process.
    async fn run(&self, wide: &Wide, mut mark: EndpointId) -> bool {
        let context = &self.context;
        crash_point("fan_out.begun");
        loop {
            let Some(application) = context.directory.application(wide.first.application) else { return false };
            let mut endpoints: Vec<Arc<Endpoint>> = application.matches(&wide.first.event_type);
            endpoints.retain(|endpoint| endpoint.id > mark);
            endpoints.sort_unstable_by_key(|endpoint| endpoint.id);
            let lease = LeaseId::new(context.now(), rand::random());
            let admitted = self.admit(wide, &endpoints, lease).await;
            let covered = admitted.deliveries.len();
            let is_last = covered == endpoints.len();
            let to = endpoints.get(covered.wrapping_sub(1)).map_or(mark, |endpoint| endpoint.id);
            let chunk = Chunk {
                event: wide.first.event,
                application: wide.first.application,
                deliveries: &admitted.deliveries,
                from: mark,
                to,
                is_last,
            };
            let (process, database) = (context.process(), &context.database);
            let writing = || database.store.persist_chunk(process, &chunk);
            let tried = database.until_answered("fanning out an event", writing).await;
            match tried.result {
                Ok(Some(persisted)) => {
                    crash_point("fan_out.written");
                    self.forward(wide, admitted, &persisted, tried.tried_at).await;
                }
                // Written by a commit that was not heard of: its leases end, and recovery queues its deliveries.
                Ok(None) if tried.unknown_commit => context.backlogs.look_for_more(),
                Ok(None) => {
                    tracing::info!(event = %wide.first.event, "another process fans an event out");
                    return true;
                }
                Err(error) => {
                    tracing::error!(%error, event = %wide.first.event, "cannot write an event's deliveries");
                    return false;
                }
            }
            if is_last {
                return true;
            }
            mark = to;
        }
    }

    /// Admits the next endpoints. A delivery whose endpoint has no room is queued; where the process or the application has no
    /// place, the chunk ends, and waits for one where it would be empty.
    async fn admit(&self, wide: &Wide, endpoints: &[Arc<Endpoint>], lease: LeaseId) -> Admitted {
        let mut admitted = Admitted::default();
        for endpoint in endpoints {
            if admitted.deliveries.len() >= CHUNK {
                break;
            }
            let id = DeliveryId::derive(wide.accepted_at, wide.first.event, endpoint.id);
            loop {
                let (delivery, permit) = events::admit(&self.context, id, endpoint, lease, wide.first.body.len());
                let is_busy = matches!(
                    delivery.start,
                    Start::Queued(QueueReason::ApplicationBusy | QueueReason::ProcessBusy | QueueReason::Isolated)
                );
                if is_busy && !admitted.deliveries.is_empty() {
                    return admitted;
                }
                if is_busy {
                    tokio::time::sleep(PLACE_WAIT).await;
                    continue;
                }
                if let Some(permit) = permit {
                    let direct = Direct { endpoint: Arc::clone(endpoint), permit };
                    admitted.direct.push((admitted.deliveries.len(), direct));
                }
                admitted.deliveries.push(delivery);
                break;
            }
        }
        admitted
    }

    async fn forward(&self, wide: &Wide, admitted: Admitted, persisted: &Persisted, leased_at: Instant) {
        self.context.touched(&persisted.backlogs, false);
        let skipped = admitted.deliveries.iter().filter(|delivery| delivery.start == Start::Skipped).count();
        metrics::counter!(metric::DELIVERIES, "state" => "skipped", "reason" => "").increment(skipped as u64);
        for (position, direct) in admitted.direct {
            let delivery = &admitted.deliveries[position];
            if persisted.queued.contains(&delivery.id) {
                continue;
            }
            if let Some(in_flight) = wide.first.of(delivery, direct, leased_at) {
                drop(self.attempts.send(in_flight).await);
            }
        }
    }
}
