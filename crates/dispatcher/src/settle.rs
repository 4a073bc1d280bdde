//! The end of a message: its next claims are confirmed, then it is acked.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use fanfare_broker::{Incoming, Publisher, Topology, encode_claim};
use fanfare_domain::{claim::Claim, traceparent::Traceparent};
use jiff::Timestamp;
use tokio_util::task::TaskTracker;

/// Publishes claims and acks messages. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Settler {
    pub(crate) publisher: Publisher,
    pub(crate) topology: Topology,
    tasks: TaskTracker,
}

/// A message that ends when everything that it caused has ended. Clones share the message: each of them
/// settles once.
#[derive(Clone)]
pub(crate) struct Settlement(Arc<Open>);

struct Open {
    message: Mutex<Option<Incoming>>,
    parts: AtomicUsize,
}

impl Settlement {
    /// A message of which so many parts are to be settled, each once.
    pub(crate) fn new(message: Incoming, parts: usize) -> Self {
        Self(Arc::new(Open { message: Mutex::new(Some(message)), parts: AtomicUsize::new(parts.max(1)) }))
    }

    /// Ends one part; the last acks the message. A part that never settles leaves its message un-acked:
    /// it comes again, and finds the rows.
    async fn settle(self) {
        if self.0.parts.fetch_sub(1, Ordering::AcqRel) == 1 {
            let message = self.0.message.lock().unwrap_or_else(PoisonError::into_inner).take();
            if let Some(message) = message {
                message.ack().await;
            }
        }
    }
}

impl Settler {
    pub(crate) fn new(publisher: Publisher, topology: Topology) -> Self {
        Self { publisher, topology, tasks: TaskTracker::new() }
    }

    /// Settles one part of a message, once the delivery's next claim, if there is one, is confirmed.
    pub(crate) fn settle(&self, settlement: Settlement, next: Option<(Claim, Option<Traceparent>)>) {
        let settler = self.clone();
        self.tasks.spawn(async move {
            if let Some((claim, trace)) = next {
                settler.publish(&claim, trace).await;
            }
            settlement.settle().await;
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

    /// Publishes a claim to where it has to wait, however long the broker takes to confirm it.
    pub(crate) async fn publish(&self, claim: &Claim, trace: Option<Traceparent>) {
        match encode_claim(&self.topology, claim, trace, Timestamp::now()) {
            Ok(message) => self.publisher.publish_until_confirmed(&message).await,
            Err(error) => {
                tracing::error!(%error, delivery = %claim.delivery, "cannot encode a claim; the reconciler will")
            }
        }
    }

    /// Waits until everything is settled that was begun.
    pub(crate) async fn finish(&self) {
        self.tasks.close();
        self.tasks.wait().await;
    }
}
