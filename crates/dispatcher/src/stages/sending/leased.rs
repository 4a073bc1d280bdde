//! Leased deliveries: passes each on to the attempt, and ends or gives back the deliveries that cannot be sent.

use std::{sync::Arc, time::Duration};

use fanfare_domain::{delivery::QueueReason, endpoint::Endpoint};
use fanfare_service::crash_point;
use fanfare_store::{End, EndLeased, GiveBack, Lease, Leased};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, timeout_at},
};

use crate::{
    context::Context,
    lanes::Permit,
    metric,
    stages::{
        InFlight,
        intake::shaping::{self, Unshaped},
    },
};

/// Rest of a backlog after a delivery was given back, before the next drain.
const GIVEN_BACK_REST: Duration = Duration::from_secs(1);

/// Maximum of attempts passed on that have not begun to run.
///
/// A lease of 512 deliveries would otherwise be ready to run at once, and each other task of the process would wait for
/// all of them. The bound paces drains by the process's own speed; attempts that wait for a receiver do not count.
const STARTING: usize = 64;

/// Longest wait of a lease's attempts to begin within [`STARTING`]. The attempts of an overloaded process then begin
/// without the bound, rather than too late for their lease.
const PACED: Duration = Duration::from_secs(1);

/// Sends leased deliveries on. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Leases {
    pub(crate) context: Arc<Context>,
    attempts: mpsc::Sender<InFlight>,
    pacer: Pacer,
}

/// Paces leased deliveries. Cheap to clone.
#[derive(Clone)]
struct Pacer(Arc<Semaphore>);

impl Pacer {
    fn new() -> Self {
        Self(Arc::new(Semaphore::new(STARTING)))
    }

    /// Waits for a permit to begin; `None` if no permit was free within [`PACED`] of the lease.
    async fn permit(&self, leased_at: Instant) -> Option<OwnedSemaphorePermit> {
        timeout_at(leased_at + PACED, Arc::clone(&self.0).acquire_owned()).await.ok()?.ok()
    }
}

/// Leased deliveries that are not sent.
#[derive(Default)]
pub(crate) struct Unsent {
    pub(crate) ended: Vec<EndLeased>,
    pub(crate) back: Vec<GiveBack>,
}

impl Leases {
    pub(crate) fn new(context: Arc<Context>, attempts: mpsc::Sender<InFlight>) -> Self {
        Self { context, attempts, pacer: Pacer::new() }
    }

    /// Passes a delivery, leased at `leased_at`, on to the attempt, or adds the delivery to `unsent`. Returns the bytes
    /// of the payload. A delivery without a body of its own gets the body in a task, and delays no other delivery.
    pub(crate) async fn pass_on(
        &self,
        leased: Leased,
        (endpoint, permit): (Arc<Endpoint>, Permit),
        lease: Lease,
        leased_at: Instant,
        unsent: &mut Unsent,
    ) -> usize {
        let delivery = leased.delivery;
        if let Some(reason) = leased.end() {
            let (end, notifies_owner) = (End::Failed(reason), endpoint.notifies_owner);
            unsent.ended.push(EndLeased { delivery, lease: lease.id, end, notifies_owner });
            return 0;
        }
        let bytes = leased.payload.as_ref().and_then(|payload| payload.body.as_ref()).map_or(0, String::len);
        if leased.payload.as_ref().is_some_and(|payload| payload.is_unshaped) {
            self.context.tasks.spawn(self.clone().shape(leased, (endpoint, permit), lease, leased_at));
        } else {
            self.begin(leased, (endpoint, permit), lease, leased_at, unsent).await;
        }
        bytes
    }

    /// Keeps the body of a delivery that has none yet, and passes the delivery on.
    async fn shape(
        self,
        mut leased: Leased,
        (endpoint, permit): (Arc<Endpoint>, Permit),
        lease: Lease,
        leased_at: Instant,
    ) {
        let (delivery, mut unsent) = (leased.delivery, Unsent::default());
        match shaping::complete(&self.context, &mut leased, &endpoint, lease.id).await {
            Ok(()) => self.begin(leased, (endpoint, permit), lease, leased_at, &mut unsent).await,
            Err(Unshaped::Ends(reason)) => {
                let (end, notifies_owner) = (End::Failed(reason), endpoint.notifies_owner);
                unsent.ended.push(EndLeased { delivery, lease: lease.id, end, notifies_owner });
            }
            Err(Unshaped::Back(reason)) => unsent.back.push(GiveBack { delivery, lease: lease.id, reason }),
        }
        self.settle(unsent).await;
    }

    /// Sends a delivery with its body to the attempts.
    async fn begin(
        &self,
        leased: Leased,
        (endpoint, mut permit): (Arc<Endpoint>, Permit),
        lease: Lease,
        leased_at: Instant,
        unsent: &mut Unsent,
    ) {
        let delivery = leased.delivery;
        permit.set_bytes(leased.payload.as_ref().and_then(|payload| payload.body.as_ref()).map_or(0, String::len));
        match InFlight::drained(leased, endpoint, lease, leased_at, permit) {
            Some(mut in_flight) => {
                in_flight.starting = self.pacer.permit(leased_at).await;
                drop(self.attempts.send(in_flight).await);
            }
            None => {
                let reason = QueueReason::ApplicationUnreadable;
                unsent.back.push(GiveBack { delivery, lease: lease.id, reason });
            }
        }
    }

    /// Ends or gives back the deliveries that were not sent.
    pub(crate) async fn settle(&self, unsent: Unsent) {
        end(&self.context, unsent.ended).await;
        give_back(&self.context, unsent.back).await;
    }
}

async fn end(context: &Arc<Context>, mut ended: Vec<EndLeased>) {
    if ended.is_empty() {
        return;
    }
    ended.sort_unstable_by_key(|ended| ended.delivery);
    let database = &context.database;
    let count = database.retry_until_available("ending deliveries", || database.store.end_leased(&ended)).await.result;
    match count {
        Ok(_) => {
            for reason in ended.iter().filter_map(|ended| ended.end.reason()) {
                metrics::counter!(metric::DELIVERIES, "state" => "failed", "reason" => reason).increment(1);
            }
        }
        // The partition of a delivery is gone: the retention is over.
        Err(error) if error.lacks_partition() && ended.len() == 1 => {
            let delivery = ended[0].delivery;
            let forgetting = || database.store.forget_dropped(delivery);
            let _ = database.retry_until_available("forgetting a delivery", forgetting).await;
            tracing::warn!(%delivery, "removed a delivery that was open after its retention");
        }
        Err(error) if error.lacks_partition() => {
            for delivery in ended {
                Box::pin(end(context, vec![delivery])).await;
            }
        }
        Err(error) => {
            tracing::error!(
                %error, deliveries = ended.len(),
                "cannot end deliveries; recovery queues them when the leases end"
            );
        }
    }
}

/// Gives leased deliveries back unsent. The backlogs then rest, except at the stop of the process. A backlog without a
/// token waits for the token anyway.
pub(crate) async fn give_back(context: &Arc<Context>, mut back: Vec<GiveBack>) {
    if back.is_empty() {
        return;
    }
    back.sort_unstable_by_key(|given| given.delivery);
    let (process, database) = (context.process(), &context.database);
    let tried =
        database.retry_until_available("giving deliveries back", || database.store.give_back(process, &back)).await;
    match tried.result {
        Ok(touched) => {
            crash_point("delivery.given_back");
            context.touched(&touched, true);
            if tried.unknown_commit {
                context.backlogs.look_for_more();
            }
            let waits_anyway =
                |given: &GiveBack| matches!(given.reason, QueueReason::ShuttingDown | QueueReason::TokenUnavailable);
            let rests = !back.iter().all(waits_anyway);
            for backlog in touched.iter().filter(|_| rests) {
                context.backlogs.rest(backlog.endpoint, GIVEN_BACK_REST);
            }
        }
        Err(error) => {
            tracing::error!(
                %error, deliveries = back.len(),
                "cannot give deliveries back; recovery queues them when the leases end"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn attempts_wait_for_a_permit_to_begin_for_at_most_a_second() {
        let (pacer, leased_at) = (Pacer::new(), Instant::now());
        let mut permits = Vec::new();
        for _ in 0..STARTING {
            permits.push(pacer.permit(leased_at).await.expect("a free permit"));
        }
        assert_eq!(leased_at.elapsed(), Duration::ZERO);
        assert!(pacer.permit(leased_at).await.is_none());
        assert!(leased_at.elapsed() >= PACED && leased_at.elapsed() < PACED * 2);
        permits.pop();
        assert!(pacer.permit(leased_at).await.is_some(), "a free permit is given after the second, too");
    }
}
