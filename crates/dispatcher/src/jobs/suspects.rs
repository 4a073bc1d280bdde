//! Suspects: deliveries with which processes have died. A suspect is sent alone, so that only a delivery that kills its
//! process is aborted.

use std::{sync::Arc, time::Duration};

use fanfare_domain::{
    delivery::{QueueReason, lease_duration, policy::TIMEOUTS},
    endpoint::EndpointStatus,
    ids::LeaseId,
};
use fanfare_service::crash_point;
use fanfare_store::{End, EndLeased, GiveBack, Job, Lease, StoreError};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use super::{Schedule, presence::Sight};
use crate::{
    context::Context,
    stages::{
        InFlight,
        intake::shaping::{self, Unshaped},
    },
};

/// Interval of looks.
const EVERY: Duration = Duration::from_secs(1);

/// Interval of checks for the record of all other attempts.
const LOOKS_EVERY: Duration = Duration::from_millis(10);

pub(crate) struct Suspects {
    pub(crate) context: Arc<Context>,
    pub(crate) attempts: mpsc::Sender<InFlight>,
    pub(crate) sight: Sight,
}

impl Suspects {
    /// Sends suspects until `stop`, in order, in a single process at a time.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let database = self.context.database.clone();
        let schedule = Schedule::new(database.clone(), Job::Suspects, EVERY, stop.clone());
        loop {
            if stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
                return;
            }
            let found = database.store.with_deadline(EVERY, database.store.has_suspect()).await.unwrap_or(false);
            if !found || !self.sight.is_clear() {
                continue;
            }
            let Some(lock) = schedule.next().await else { return };
            // Another process may have sent the suspect meanwhile.
            if !database.store.with_deadline(EVERY, database.store.has_suspect()).await.unwrap_or(false) {
                let _ = tokio::time::timeout(EVERY, lock.unlock()).await;
                continue;
            }
            self.context.lanes.places.close(true);
            let sent = stop.run_until_cancelled(schedule.run(lock, self.send())).await;
            self.context.lanes.places.close(false);
            if sent.is_none() {
                return;
            }
        }
    }

    /// Waits until no attempt is in flight, sends the oldest suspect, and waits for the record.
    async fn send(&self) -> Result<(), StoreError> {
        self.until_idle().await;
        let (context, store) = (&self.context, &self.context.database.store);
        let lease = LeaseId::new(context.now(), rand::random());
        // The endpoint is known only after the lease, so the lease lasts for the longest deadline.
        let duration = lease_duration(*TIMEOUTS.end());
        let leased_at = Instant::now();
        let Some(mut leased) = store.lease_suspect(lease, duration).await? else { return Ok(()) };
        tracing::warn!(delivery = %leased.delivery, "sending a delivery alone, since processes have died with it");
        crash_point("suspect.leased");
        let delivery = leased.delivery;
        if let Some(reason) = leased.end() {
            let end = End::Failed(reason);
            return store.end_leased(&[EndLeased { delivery, lease, end, notifies_owner: true }]).await.map(drop);
        }
        let endpoint = context.endpoint(leased.application, leased.endpoint);
        let endpoint = endpoint.filter(|endpoint| endpoint.status == EndpointStatus::Enabled);
        if let Some(endpoint) = &endpoint {
            match shaping::complete(context, &mut leased, endpoint, lease).await {
                Ok(()) => {}
                Err(Unshaped::Ends(reason)) => {
                    let (end, notifies_owner) = (End::Failed(reason), endpoint.notifies_owner);
                    return store.end_leased(&[EndLeased { delivery, lease, end, notifies_owner }]).await.map(drop);
                }
                Err(Unshaped::Back(reason)) => return self.give_back(GiveBack { delivery, lease, reason }).await,
            }
        }
        let in_flight = endpoint.and_then(|endpoint| {
            let permit = context.lanes.alone(&endpoint, 0);
            InFlight::drained(leased, endpoint, Lease { id: lease, duration }, leased_at, permit)
        });
        let Some(in_flight) = in_flight else {
            let reason = QueueReason::ApplicationUnreadable;
            return self.give_back(GiveBack { delivery, lease, reason }).await;
        };
        if self.attempts.send(in_flight).await.is_ok() {
            self.until_idle().await;
        }
        Ok(())
    }

    async fn give_back(&self, back: GiveBack) -> Result<(), StoreError> {
        let touched = self.context.database.store.give_back(self.context.process(), &[back]).await?;
        self.context.touched(&touched, true);
        Ok(())
    }

    async fn until_idle(&self) {
        while self.context.lanes.places.used_places() > 0 {
            tokio::time::sleep(LOOKS_EVERY).await;
        }
    }
}
