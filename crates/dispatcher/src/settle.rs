//! The end of a message: its next claims are confirmed, then it is acked.

use std::{
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_broker::{Incoming, Publisher, Topology, encode_claim};
use fanfare_domain::{claim::Claim, traceparent::Traceparent};
use fanfare_service::crash_point;
use fanfare_store::Unfinished;
use futures_util::future::join_all;
use jiff::Timestamp;
use tokio_util::task::TaskTracker;

use crate::database::Database;

/// How long a message rests that cannot be handled now, before the broker hands it over again.
const REST: Duration = Duration::from_secs(5);

/// Publishes claims and acks messages. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Settler {
    pub(crate) publisher: Publisher,
    pub(crate) topology: Topology,
    database: Database,
    tasks: TaskTracker,
}

/// A message that ends when everything that it caused has ended. Clones share the message: each of them
/// settles once. The default is no message: that of a delivery which has been handed over to a claim.
#[derive(Clone, Default)]
pub(crate) struct Settlement(Option<Arc<Open>>);

struct Open {
    message: Mutex<Option<Incoming>>,
    parts: AtomicUsize,
}

impl Settlement {
    /// A message of which so many parts are to be settled, each once.
    pub(crate) fn new(message: Incoming, parts: usize) -> Self {
        Self(Some(Arc::new(Open { message: Mutex::new(Some(message)), parts: AtomicUsize::new(parts.max(1)) })))
    }

    /// Ends one part; the last acks the message.
    fn settle(self) {
        if let Some(open) = &self.0
            && open.parts.fetch_sub(1, Ordering::AcqRel) == 1
            && let Some(message) = self.take()
        {
            message.ack();
            crash_point("message.ended");
        }
    }

    /// The message, once.
    fn take(&self) -> Option<Incoming> {
        self.0.as_ref()?.message.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

impl Settler {
    pub(crate) fn new(publisher: Publisher, topology: Topology, database: Database) -> Self {
        Self { publisher, topology, database, tasks: TaskTracker::new() }
    }

    /// Settles one part of a message, once the delivery's next claim, if there is one, is confirmed.
    pub(crate) fn settle(&self, settlement: Settlement, next: Option<(Claim, Option<Traceparent>)>) {
        let Some((claim, trace)) = next else { return settlement.settle() };
        let settler = self.clone();
        self.tasks.spawn(async move {
            settler.publish(&claim, trace).await;
            crash_point("claim.confirmed");
            settlement.settle();
        });
    }

    /// Acks a message that needs nothing more, once these claims are confirmed.
    pub(crate) fn end(&self, message: Incoming, claims: Vec<(Claim, Option<Traceparent>)>) {
        let settlement = Settlement::new(message, claims.len());
        if claims.is_empty() {
            self.settle(settlement, None);
            return;
        }
        for claim in claims {
            self.settle(settlement.clone(), Some(claim));
        }
    }

    /// Lets a message come again after a rest: what it asks for cannot be done now. Its other parts go on;
    /// the copy finds their rows.
    pub(crate) fn again(&self, settlement: &Settlement) {
        if let Some(message) = settlement.take() {
            self.spawn(async move {
                tokio::time::sleep(REST).await;
                message.hand_back();
            });
        }
    }

    /// Publishes the claims that rescued or released deliveries wait for, due now.
    pub(crate) async fn publish_due(&self, deliveries: &[Unfinished]) {
        let now = self.now();
        let claims = deliveries.iter().map(|one| (Claim { due: now, ..one.claim(now) }, one.traceparent));
        join_all(claims.map(|(claim, trace)| async move { self.publish(&claim, trace).await })).await;
    }

    /// The time by which claims are made and due: that of the database's clock.
    pub(crate) fn now(&self) -> Timestamp {
        self.database.now()
    }

    /// Does something that ends before the process does, beside the stages.
    pub(crate) fn spawn(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.tasks.spawn(task);
    }

    /// Publishes a claim to where it has to wait, however long the broker takes to confirm it.
    pub(crate) async fn publish(&self, claim: &Claim, trace: Option<Traceparent>) {
        match encode_claim(&self.topology, claim, trace, self.now()) {
            Ok(message) => self.publisher.publish_until_confirmed(&message).await,
            Err(error) => {
                tracing::error!(%error, delivery = %claim.delivery, "cannot encode a claim; its delivery waits for the reconciler")
            }
        }
    }

    /// Waits until everything is settled that was begun.
    pub(crate) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
