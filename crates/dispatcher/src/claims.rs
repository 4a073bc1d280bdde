//! From a claim's message to what becomes of its delivery: decode, hop on if it is early, admit.

use std::{sync::Arc, time::Duration};

use fanfare_broker::{Incoming, decode_claim};
use fanfare_domain::{
    application::{Endpoint, EndpointStatus},
    claim::Claim,
    deferral::deferral_wait,
    delivery::{DeferralReason, FailureReason, hold},
    ids::TakingId,
    moment::later,
    traceparent::Traceparent,
};
use fanfare_service::crash_point;
use fanfare_store::{Directory, Move, MoveTo};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    database::Database,
    lanes::{Lanes, Ticket, admit},
    metric, park,
    rates::Rates,
    settle::{Settlement, Settler},
};

/// What the stage needs.
pub(crate) struct Claims {
    pub(crate) directory: Directory,
    pub(crate) database: Database,
    pub(crate) lanes: Lanes,
    pub(crate) rates: Rates,
    /// For what we cause ourselves, beside the schedule.
    pub(crate) expiry: Duration,
    pub(crate) settler: Settler,
}

/// A claim that may be acted upon.
struct Due {
    message: Incoming,
    claim: Claim,
    trace: Option<Traceparent>,
}

/// A due claim, and what is to become of its delivery.
pub(crate) struct Reached {
    pub(crate) message: Incoming,
    pub(crate) to: Move,
    pub(crate) trace: Option<Traceparent>,
    /// The endpoint and its lane's ticket, where it is to be attempted.
    pub(crate) straight: Option<(Arc<Endpoint>, Ticket)>,
}

/// Reads messages until `stop`, and passes on what is to be written.
pub(crate) async fn run(
    claims: Claims,
    mut messages: mpsc::Receiver<Incoming>,
    reached: mpsc::Sender<Reached>,
    stop: CancellationToken,
) {
    let claims = Arc::new(claims);
    let look_ups = TaskTracker::new();
    while let Some(Some(message)) = stop.run_until_cancelled(messages.recv()).await {
        let (claim, trace) = match decode_claim(&message) {
            Ok(claim) => claim,
            Err(unreadable) => {
                park::park(&claims.settler, message, unreadable);
                continue;
            }
        };
        crash_point("claim.received");
        if !claim.is_due(claims.database.now()) {
            claims.settler.settle(Settlement::new(message, 1), Some((claim, trace)));
            continue;
        }
        let due = Due { message, claim, trace };
        let known = claims.endpoint(&due.claim);
        if known.is_some() {
            claims.accept(due, known, &reached).await;
            continue;
        }
        // In a task of its own: nobody else's claims wait for a look into the database.
        let (claims, reached, stop) = (Arc::clone(&claims), reached.clone(), stop.clone());
        look_ups.spawn(async move {
            if let Some(found) = stop.run_until_cancelled(claims.look_up(&due.claim)).await {
                claims.accept(due, found, &reached).await;
            }
        });
    }
    look_ups.close();
    look_ups.wait().await;
}

impl Claims {
    fn endpoint(&self, claim: &Claim) -> Option<Arc<Endpoint>> {
        self.directory.application(claim.application)?.endpoint(claim.endpoint).cloned()
    }

    /// An endpoint that is not known may be new to this process: that it has been deleted, is said only
    /// after a look into the database, however long that takes.
    async fn look_up(&self, claim: &Claim) -> Option<Arc<Endpoint>> {
        while !self.directory.refresh().await {
            let _ = self.database.until_answered("looking for an endpoint", || self.database.store.ping()).await;
        }
        self.endpoint(claim)
    }

    async fn accept(&self, due: Due, endpoint: Option<Arc<Endpoint>>, reached: &mpsc::Sender<Reached>) {
        let Due { message, claim, trace } = due;
        let now = self.database.now();
        let notifies_owner = endpoint.as_ref().is_some_and(|endpoint| endpoint.notifies_owner);
        let lifetime = endpoint.as_ref().map(|endpoint| endpoint.policy.lifetime(self.expiry));
        let expires_at = lifetime.map(|lifetime| later(now, lifetime));
        let (to, straight) = self.admit(&claim, endpoint, now);
        let to = Move { claim, to, expires_at, notifies_owner };
        // Where nobody takes it any more, the process stops, and the message comes again elsewhere.
        let _ = reached.send(Reached { message, to, trace, straight }).await;
    }

    fn admit(
        &self,
        claim: &Claim,
        endpoint: Option<Arc<Endpoint>>,
        now: Timestamp,
    ) -> (MoveTo, Option<(Arc<Endpoint>, Ticket)>) {
        let Some(endpoint) = endpoint else {
            if !self.directory.is_unreadable(claim.application) {
                return (MoveTo::Failed(FailureReason::EndpointDeleted), None);
            }
            let reason = DeferralReason::ApplicationUnreadable;
            metrics::counter!(metric::DEFERRALS, "reason" => reason.as_str()).increment(1);
            let due = later(now, deferral_wait(claim.deferrals + 1, rand::random()));
            return (MoveTo::Waiting { due, reason }, None);
        };
        match endpoint.status {
            EndpointStatus::Paused => return (MoveTo::Held, None),
            EndpointStatus::Disabled => return (MoveTo::Skipped, None),
            EndpointStatus::Enabled => {}
        }
        match admit(&self.lanes, &self.rates, &endpoint, claim.deferrals + 1) {
            Ok(ticket) => {
                let hold = hold(endpoint.policy.timeout);
                let taking = TakingId::new(now, rand::random());
                (MoveTo::Sending { taking, hold }, Some((endpoint, ticket)))
            }
            Err((reason, wait)) => (MoveTo::Waiting { due: later(now, wait), reason }, None),
        }
    }
}
