//! Fan-outs of wide events: writes the deliveries in chunks, as places become free.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use fanfare_domain::{
    application::Application,
    delivery::QueueReason,
    endpoint::Endpoint,
    ids::{DeliveryId, EndpointId, LeaseId},
};
use fanfare_service::{Checks, crash_point};
use fanfare_store::{Chunk, FanOut, NewDelivery, Persisted, Start};
use jiff::Timestamp;
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tokio_util::sync::CancellationToken;

use crate::{
    context::Context,
    stages::{
        InFlight,
        intake::{events, matching, persist::own_bytes, shaping::Shaping},
        sending::in_flight::{Direct, FirstAttempts},
    },
};

/// Maximum of deliveries in a chunk.
const CHUNK: usize = 500;

/// Bytes of the deliveries' own bodies after which a chunk ends.
const CHUNK_BYTES: usize = 8 * 1024 * 1024;

/// Maximum of concurrent fan-outs in a process: enough to keep the database busy.
const AT_ONCE: usize = 2;

/// Wait between the failure and the release of a fan-out. A look then takes over the fan-out again.
const ABANDONED_REST: Duration = Duration::from_secs(5);

/// Wait between two tries for a free place.
const PLACE_WAIT: Duration = Duration::from_millis(20);

/// Fan-outs of the process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct FanOuts {
    context: Arc<Context>,
    attempts: mpsc::Sender<InFlight>,
    at_once: Arc<Semaphore>,
}

/// An event of a fan-out.
struct Wide {
    accepted_at: Timestamp,
    first: FirstAttempts,
}

impl Wide {
    /// The endpoints that get the event, by id.
    async fn endpoints(&self, checks: &Checks, application: &Arc<Application>) -> Vec<Arc<Endpoint>> {
        let body = self.first.body.clone();
        let (mut endpoints, _) = matching::matches(checks, application, &self.first.event_type, body).await;
        endpoints.sort_unstable_by_key(|endpoint| endpoint.id);
        endpoints
    }
}

/// Deliveries of a chunk, with the permits for the first attempts.
#[derive(Default)]
struct Admitted {
    deliveries: Vec<NewDelivery>,
    direct: Vec<(usize, Direct)>,
}

impl FanOuts {
    pub(crate) fn new(context: Arc<Context>, attempts: mpsc::Sender<InFlight>) -> Self {
        Self { context, attempts, at_once: Arc::new(Semaphore::new(AT_ONCE)) }
    }

    /// Begins the fan-out of an event persisted, or opened when due, by this process.
    pub(crate) fn begin(&self, first: FirstAttempts, accepted_at: Timestamp, stop: &CancellationToken) {
        self.spawn(Wide { accepted_at, first }, EndpointId::LEAST, stop);
    }

    /// Resumes a fan-out taken over by this process. If the payload is unreadable here, releases the fan-outs later,
    /// for another process.
    pub(crate) fn resume(&self, taken: FanOut, stop: &CancellationToken) {
        let FanOut { event, application, accepted_at, deliver_at, mark, event_type, body, trace } = taken;
        let Some(body) = body else {
            tracing::error!(
                %event,
                "cannot decrypt the payload of a fan-out; another process must continue: compare FANFARE_SECRET_KEYS"
            );
            return self.abandon_later(stop);
        };
        let (body, ready_at) = (Bytes::from(body), deliver_at.unwrap_or(accepted_at));
        let first = FirstAttempts { application, event, event_type, trace, body, ready_at, ordering_key: None };
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
            // After `stop`, another process takes over and continues at the mark.
            stop.run_until_cancelled(work).await;
        });
    }

    /// Finds the work of a commit without an answer: backlogs and fan-outs of this process that its memory lacks.
    pub(crate) fn recover(&self, stop: &CancellationToken) {
        self.context.backlogs.look_for_more();
        self.abandon_later(stop);
    }

    /// Releases all fan-outs of this process. A look takes over the fan-outs again, at the marks.
    pub(crate) async fn abandon(&self) {
        let (process, database) = (self.context.process(), &self.context.database);
        let releasing = || database.store.release_fan_outs(process);
        if let Err(error) = database.retry_until_available("releasing fan-outs", releasing).await.result {
            tracing::error!(%error, "cannot release fan-outs; the fan-outs wait until this process stops");
        }
    }

    /// Releases all fan-outs of this process after a wait.
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

    /// Writes the chunks behind the mark. False if the fan-out must be tried again.
    async fn run(&self, wide: &Wide, mut mark: EndpointId) -> bool {
        let context = &self.context;
        crash_point("fan_out.begun");
        // The endpoints in order, for a version of the application: filters are asked once.
        let mut matched: Option<(i64, Vec<Arc<Endpoint>>)> = None;
        loop {
            let Some(application) = context.directory.application(wide.first.application) else { return false };
            if matched.as_ref().is_none_or(|(version, _)| *version != application.version) {
                matched = Some((application.version, wide.endpoints(&context.checks, &application).await));
            }
            let ordered = matched.as_ref().map_or(&[][..], |(_, endpoints)| endpoints);
            let endpoints = &ordered[ordered.partition_point(|endpoint| endpoint.id <= mark)..];
            let lease = LeaseId::new(context.now(), rand::random());
            let mut shaping = Shaping::new(
                &application,
                &wide.first.event_type,
                (wide.accepted_at, wide.first.event),
                &wide.first.body,
            );
            let admitted = self.admit(wide, endpoints, lease, &mut shaping).await;
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
            let tried = database.retry_until_available("fanning out an event", writing).await;
            match tried.result {
                Ok(Some(persisted)) => {
                    crash_point("fan_out.written");
                    self.forward(wide, admitted, &persisted, tried.tried_at).await;
                }
                // An earlier try has committed without an answer: the leases end, and recovery queues the deliveries.
                Ok(None) if tried.unknown_commit => context.backlogs.look_for_more(),
                Ok(None) => {
                    tracing::info!(event = %wide.first.event, "another process has taken over a fan-out");
                    return true;
                }
                Err(error) => {
                    tracing::error!(%error, event = %wide.first.event, "cannot continue a fan-out; trying again");
                    return false;
                }
            }
            if is_last {
                return true;
            }
            mark = to;
        }
    }

    /// Admits deliveries to the next endpoints. A delivery to an endpoint without room is queued. Without a free place
    /// in the process or the application, the chunk ends; an empty chunk waits for a place.
    async fn admit(
        &self,
        wide: &Wide,
        endpoints: &[Arc<Endpoint>],
        lease: LeaseId,
        shaping: &mut Shaping<'_>,
    ) -> Admitted {
        let (mut admitted, mut own) = (Admitted::default(), 0);
        for endpoint in endpoints {
            if admitted.deliveries.len() >= CHUNK || own > CHUNK_BYTES {
                break;
            }
            let id = DeliveryId::derive(wide.accepted_at, wide.first.event, endpoint.id);
            let shaped = shaping.shape_in_place(endpoint);
            loop {
                let bytes = wide.first.body.len();
                let (delivery, permit) =
                    events::admit(&self.context, id, endpoint, lease, (bytes, false), shaped.clone());
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
                own += own_bytes(&delivery);
                admitted.deliveries.push(delivery);
                break;
            }
        }
        admitted
    }

    async fn forward(&self, wide: &Wide, admitted: Admitted, persisted: &Persisted, leased_at: Instant) {
        self.context.touched(&persisted.backlogs, false);
        events::count_finished(&admitted.deliveries);
        for (position, direct) in admitted.direct {
            let delivery = &admitted.deliveries[position];
            if persisted.queued.contains(&delivery.id) {
                continue;
            }
            if let Some(in_flight) = wide.first.of(delivery, None, direct, leased_at) {
                drop(self.attempts.send(in_flight).await);
            }
        }
    }
}
