//! Persists events and open deliveries in batches, then acks the messages and passes the first attempts on.

use std::{
    collections::{HashMap, HashSet},
    pin::Pin,
    sync::Arc,
};

use bytes::Bytes;
use fanfare_broker::{Incoming, Unreadable};
use fanfare_domain::ids::{DeliveryId, EventId, LeaseId};
use fanfare_service::crash_point;
use fanfare_store::{NewDelivery, NewEvent, Persisted, Start, StoreError};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    context::Context,
    database::RetryOutcome,
    metric,
    stages::{
        InFlight, batch,
        intake::{
            events::{Planned, count_finished},
            fan_out::FanOuts,
            park,
        },
        sending::in_flight::FirstAttempts,
    },
};

/// State of the stage. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Persist {
    pub(crate) context: Arc<Context>,
    pub(crate) attempts: mpsc::Sender<InFlight>,
    pub(crate) fan_outs: FanOuts,
}

/// Persists events until the channel closes. A batch has the events that came during the write of the previous batch.
pub(crate) async fn run(persist: Persist, mut planned: mpsc::Receiver<Planned>, stop: CancellationToken) {
    let mut waiting = Vec::new();
    while batch::gather(&mut planned, &mut waiting).await > 0 {
        // A second copy of an event waits for the next batch, and finds the rows of the first copy.
        while !waiting.is_empty() {
            let batch = batch::next(&mut waiting, weigh);
            persist.write(batch, &stop).await;
        }
    }
}

/// Share of a delivery in the bytes of a commit, so that a commit has some 5000 deliveries of events with an ordering
/// key, beside those of one event.
pub(crate) const DELIVERY_BYTES: usize = 1600;

fn weigh(planned: &Planned) -> batch::Weight<EventId> {
    batch::Weight {
        key: planned.new.event.id,
        // An event with redacted members has two bodies. An event with an ordering key may have many deliveries. A
        // delivery by a template has a body of its own.
        bytes: planned.new.body.len()
            + planned.new.redacted.as_ref().map_or(0, String::len)
            + planned.new.deliveries.iter().map(own_bytes).sum::<usize>()
            + DELIVERY_BYTES * planned.new.deliveries.len(),
        is_quarantined: planned.message.is_quarantined(),
        is_ordered: planned.new.event.ordering_key.is_some(),
    }
}

/// Bytes of a delivery's own body.
pub(crate) fn own_bytes(delivery: &NewDelivery) -> usize {
    delivery.shaped.as_ref().map_or(0, |shaped| shaped.bytes())
}

/// Result of a batch.
struct Written {
    persisted: Persisted,
    unknown_commit: bool,
    /// Time no later than the commit.
    tried_at: Instant,
}

impl Persist {
    async fn write(&self, mut batch: Vec<Planned>, stop: &CancellationToken) {
        let news: Vec<&NewEvent> = batch.iter().map(|planned| &planned.new).collect();
        let (process, database) = (self.context.process(), &self.context.database);
        let persisting = database.retry_until_available("persisting events", || database.store.persist(process, &news));
        let RetryOutcome { result, unknown_commit, tried_at } =
            batch::timed(metric::PERSIST, news.len(), persisting).await;
        match result {
            Ok(persisted) => {
                crash_point("event.persisted");
                self.forward(batch, Written { persisted, unknown_commit, tried_at }, stop).await;
            }
            Err(error) if batch.len() == 1 => {
                if let Some(planned) = batch.pop() {
                    self.refused(planned, error, stop).await;
                }
            }
            // A single refused row fails the whole batch: bisect the batch to find the row.
            Err(_) => {
                // In the order of arrival, which is the order of the numbers.
                batch.sort_by_key(|planned| planned.new.position);
                let mut halves = [batch.split_off(batch.len() / 2), batch];
                halves.reverse();
                for mut half in halves {
                    half.sort_unstable_by_key(|planned| planned.new.event.id);
                    self.write_again(half, stop).await;
                }
            }
        }
    }

    /// Calls `write` recursively: the box gives the future a known size, and the return type makes the future `Send`.
    fn write_again<'a>(
        &'a self,
        batch: Vec<Planned>,
        stop: &'a CancellationToken,
    ) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        Box::pin(self.write(batch, stop))
    }

    /// Parks an event that the database refuses. If the event's day has no partitions yet, a task beside the stage
    /// creates the partitions and writes the event again.
    async fn refused(&self, planned: Planned, error: StoreError, stop: &CancellationToken) {
        if !error.lacks_partition() {
            return park::park(
                &self.context,
                planned.message,
                Unreadable::new("not_storable", error.to_string()),
                planned.span,
            );
        }
        // Later events with the ordering key wait.
        let is_ordered = planned.new.event.ordering_key.is_some();
        let (persist, stop) = (self.clone(), stop.clone());
        let writing = self.context.tasks.spawn(async move {
            let (accepted_at, database) = (planned.new.accepted_at, &persist.context.database);
            let line =
                database.retry_until_available("reading the line of retention", || database.store.line()).await.result;
            if line.is_ok_and(|line| line.is_some_and(|line| accepted_at < line)) {
                let sentence = format!(
                    "the event was accepted at {accepted_at}, and its retention is over: publish the event again with \
                     a new id"
                );
                return park::park(
                    &persist.context,
                    planned.message,
                    Unreadable::new("retention_over", sentence),
                    planned.span,
                );
            }
            let making = || database.store.create_partitions_of(accepted_at);
            let made = database.retry_until_available("creating partitions", making).await;
            match made.result {
                Ok(()) => persist.write_again(vec![planned], &stop).await,
                Err(error) => {
                    let unreadable = Unreadable::new("not_storable", error.to_string());
                    park::park(&persist.context, planned.message, unreadable, planned.span);
                }
            }
        });
        if is_ordered {
            let _ = writing.await;
        }
    }

    async fn forward(&self, batch: Vec<Planned>, written: Written, stop: &CancellationToken) {
        let Written { persisted, unknown_commit, tried_at } = written;
        let (new, known): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|planned| persisted.new.contains(&planned.new.event.id));
        self.context.persisted.add(new.len());
        metrics::counter!(metric::EVENTS, "result" => "new").increment(new.len() as u64);
        metrics::counter!(metric::EVENTS, "result" => "known").increment(known.len() as u64);
        self.context.touched(&persisted.backlogs, false);
        if new.iter().any(|planned| planned.new.deliveries.iter().any(|delivery| delivery.start == Start::InOrder)) {
            self.context.order_changed.notify_one();
        }
        for planned in new {
            self.begin(planned, &persisted, tried_at, stop).await;
        }
        for planned in self.park_reused(known).await {
            // The event was persisted before: only the ack is left, unless an unknown commit of this process wrote the
            // event.
            if unknown_commit {
                self.begin_ours(planned, tried_at, stop).await;
            } else {
                end(planned.message);
            }
        }
    }

    /// Acks the message of a new event, and passes the deliveries on to first attempts.
    async fn begin(&self, planned: Planned, persisted: &Persisted, leased_at: Instant, stop: &CancellationToken) {
        let Planned { message, mut new, direct, entered, span } = planned;
        end(message);
        drop((entered, span));
        count_finished(&new.deliveries);
        let first = FirstAttempts {
            application: new.event.application,
            event: new.event.id,
            event_type: new.event.event_type.clone(),
            trace: new.event.trace.clone(),
            body: Bytes::from(std::mem::take(&mut new.body)),
            ordering_key: new.event.ordering_key.clone(),
            ready_at: new.accepted_at,
        };
        if new.is_wide {
            return self.fan_outs.begin(first, new.accepted_at, stop);
        }
        for (position, direct) in direct {
            let delivery = &new.deliveries[position];
            if persisted.queued.contains(&delivery.id) {
                continue;
            }
            let number = persisted.sequences.get(&delivery.id).copied();
            if let Some(in_flight) = first.of(delivery, number, direct, leased_at) {
                drop(self.attempts.send(in_flight).await);
            }
        }
    }

    /// Begins the deliveries of an event after a commit of unknown outcome. Only deliveries under leases of this
    /// process are sent: another process may have persisted the event.
    async fn begin_ours(&self, mut planned: Planned, leased_at: Instant, stop: &CancellationToken) {
        let context = &self.context;
        context.backlogs.look_for_more();
        let ids: Vec<DeliveryId> = planned.new.deliveries.iter().map(|delivery| delivery.id).collect();
        let store = &context.database.store;
        let tried = context.database.retry_until_available("looking for leases", || store.leases(&ids)).await;
        let leases: HashMap<DeliveryId, LeaseId> = tried.result.unwrap_or_default();
        let is_ours = |position: usize| {
            let delivery = &planned.new.deliveries[position];
            matches!(delivery.start, Start::Sending(lease) if leases.get(&delivery.id) == Some(&lease.id))
        };
        planned.direct = {
            let direct = std::mem::take(&mut planned.direct);
            direct.into_iter().filter(|(position, _)| is_ours(*position)).collect()
        };
        if planned.new.is_wide {
            self.fan_outs.abandon().await;
            return end(planned.message);
        }
        let numbers = context.database.retry_until_available("looking for numbers", || store.sequences(&ids)).await;
        let sequences = match numbers.result {
            Ok(sequences) => sequences,
            Err(error) => {
                tracing::error!(%error, event = %planned.new.event.id, "cannot read numbers; the leases must end first");
                planned.direct.clear();
                HashMap::new()
            }
        };
        let persisted = Persisted { sequences, ..Persisted::default() };
        self.begin(planned, &persisted, leased_at, stop).await;
    }

    /// Parks copies of known events with other content: the publisher used a key twice. Returns all other copies.
    async fn park_reused(&self, known: Vec<Planned>) -> Vec<Planned> {
        let content =
            |planned: &Planned| Some((planned.new.event.application, planned.new.event.id, planned.new.content?));
        let contents: Vec<_> = known.iter().filter_map(content).collect();
        if contents.is_empty() {
            return known;
        }
        let database = &self.context.database;
        let tried = database.retry_until_available("comparing known events", || database.store.reused(&contents)).await;
        let reused = tried.result.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot compare copies of events with the persisted events; the copies are acked");
            HashSet::new()
        });
        let (reused, known): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|planned| reused.contains(&planned.new.event.id));
        for Planned { message, new, span, .. } in reused {
            let sentence = format!(
                "the key belongs to event {}, which has another type or other data: publish the event with a new key",
                new.event.id
            );
            park::park(&self.context, message, Unreadable::new("key_reused", sentence), span);
        }
        known
    }
}

/// Acks a message after the commit.
fn end(message: Incoming) {
    message.ack();
    crash_point("message.acked");
}
