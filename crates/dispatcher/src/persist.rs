//! Events and their deliveries into the database, in batches; then on to their first attempts.

use std::collections::HashSet;

use fanfare_broker::Unreadable;
use fanfare_domain::{claim::Claim, delivery::State, ids::EventId};
use fanfare_store::{NewEvent, PersistedEvent, StoreError};
use jiff::Timestamp;
use tokio::sync::mpsc;
use tokio_util::task::TaskTracker;

use crate::{
    assignment::Assignment,
    database::{Database, Tried},
    events::Planned,
    metric, park,
    settle::{Settlement, Settler},
    wide,
};

/// Events that are written in one commit at the most.
const BATCH: usize = 256;

/// What the stage needs.
pub(crate) struct Persist {
    pub(crate) database: Database,
    pub(crate) settler: Settler,
    pub(crate) assignments: mpsc::Sender<Assignment>,
    /// Events with very many endpoints, each in a task of its own: the others do not wait for them.
    pub(crate) wide: TaskTracker,
}

/// Writes what comes in until nothing more does. A batch is whatever has come in while the one before it
/// was written.
pub(crate) async fn run(persist: Persist, mut planned: mpsc::Receiver<Planned>) {
    let mut waiting = Vec::new();
    while planned.recv_many(&mut waiting, BATCH).await > 0 {
        // A second copy of an event must not stand in the same batch; it finds the first one's rows. A
        // message that was put back because processes died with it comes alone.
        while !waiting.is_empty() {
            let mut ids = HashSet::new();
            let alone = waiting.iter().position(|one| one.message.is_alone());
            let (batch, rest): (Vec<_>, Vec<_>) = match alone {
                Some(position) => {
                    let one = waiting.swap_remove(position);
                    (vec![one], std::mem::take(&mut waiting))
                }
                None => waiting.drain(..).partition(|one| ids.insert(one.new.event.id)),
            };
            waiting = rest;
            persist.write(batch).await;
        }
    }
    persist.wide.close();
    persist.wide.wait().await;
}

impl Persist {
    async fn write(&self, mut batch: Vec<Planned>) {
        batch.sort_unstable_by_key(|planned| planned.new.event.id);
        let news: Vec<&NewEvent> = batch.iter().map(|planned| &planned.new).collect();
        let Tried { result, unknown_commit } =
            self.database.until_answered("persisting events", || self.database.store.persist(&news)).await;
        match result {
            Ok(new) => self.forward(batch, &new.into_iter().collect(), unknown_commit).await,
            Err(error) if batch.len() == 1 => {
                if let Some(planned) = batch.pop() {
                    self.refused(planned, error).await;
                }
            }
            // One row that cannot be stored fails its whole batch: find it.
            Err(_) => {
                let second = batch.split_off(batch.len() / 2);
                Box::pin(self.write(batch)).await;
                Box::pin(self.write(second)).await;
            }
        }
    }

    async fn refused(&self, planned: Planned, error: StoreError) {
        let accepted_at = planned.new.accepted_at;
        if error.lacks_partition() && self.database.store.create_partitions(accepted_at).await.is_ok() {
            let news = [&planned.new];
            let tried =
                self.database.until_answered("persisting an event", || self.database.store.persist(&news)).await;
            if let Ok(new) = tried.result {
                let new = new.into_iter().collect();
                return self.forward(vec![planned], &new, tried.unknown_commit).await;
            }
        }
        let unreadable = Unreadable::new("not_storable", error.to_string());
        park::park(&self.settler, planned.message, unreadable).await;
    }

    async fn forward(&self, batch: Vec<Planned>, new: &HashSet<EventId>, unknown_commit: bool) {
        let (new, known): (Vec<_>, Vec<_>) = batch.into_iter().partition(|planned| new.contains(&planned.new.event.id));
        metrics::counter!(metric::EVENTS, "result" => "new").increment(new.len() as u64);
        metrics::counter!(metric::EVENTS, "result" => "known").increment(known.len() as u64);
        for planned in new {
            if planned.new.fanned_out {
                self.begin(planned).await;
            } else {
                self.fan_out(planned);
            }
        }
        // A copy that has not been delivered before has a twin with a message of its own, which ends what
        // is unfinished. The others may be the last message that there is.
        let (to_finish, twins): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|planned| planned.message.redelivered || unknown_commit);
        for planned in twins {
            self.settler.end(planned.message, Vec::new());
        }
        if !to_finish.is_empty() {
            self.finish(to_finish).await;
        }
    }

    /// Passes the deliveries of a new event on: those that are sending to their attempts, those that wait
    /// to their delay queue.
    async fn begin(&self, planned: Planned) {
        let Planned { message, new, straight, .. } = planned;
        let now = Timestamp::now();
        let skipped = new.deliveries.iter().filter(|one| one.state == State::Skipped).count();
        metrics::counter!(metric::DELIVERIES, "state" => "skipped", "reason" => "").increment(skipped as u64);
        let waiting = new.deliveries.iter().filter(|one| one.state == State::Waiting);
        let waiting: Vec<Claim> = waiting.map(|one| wide::first_claim(&new, one, now)).collect();
        let settlement = Settlement::new(message, straight.len() + waiting.len());
        if straight.is_empty() && waiting.is_empty() {
            self.settler.settle(settlement, None);
            return;
        }
        for claim in waiting {
            self.settler.settle(settlement.clone(), Some((claim, Some(new.event.traceparent))));
        }
        for (position, endpoint, ticket) in straight {
            if let Some(assignment) = Assignment::first(&new, position, endpoint, ticket, settlement.clone()) {
                let _ = self.assignments.send(assignment).await;
            }
        }
    }

    fn fan_out(&self, planned: Planned) {
        let (database, settler) = (self.database.clone(), self.settler.clone());
        self.wide.spawn(async move { wide::fan_out(&database, &settler, planned).await });
    }

    /// Sees to it that every delivery of an event which was persisted before has a claim.
    async fn finish(&self, known: Vec<Planned>) {
        let ids: Vec<EventId> = known.iter().map(|planned| planned.new.event.id).collect();
        let tried =
            self.database.until_answered("looking for known events", || self.database.store.persisted(&ids)).await;
        let mut persisted = match tried.result {
            Ok(persisted) => persisted,
            Err(error) => {
                tracing::error!(%error, "cannot read events that were persisted before; their messages will come again");
                return;
            }
        };
        for planned in known {
            match persisted.remove(&planned.new.event.id) {
                Some(persisted) => self.finish_one(planned, persisted).await,
                // Its partition has been dropped: everything in it had ended.
                None => self.settler.end(planned.message, Vec::new()),
            }
        }
    }

    async fn finish_one(&self, mut planned: Planned, persisted: PersistedEvent) {
        if !persisted.fanned_out {
            planned.new.accepted_at = persisted.accepted_at;
            self.fan_out(planned);
            return;
        }
        let ours = |position: usize| {
            let taking = planned.new.deliveries[position].taking.map(|(taking, _)| taking);
            persisted.unfinished.iter().any(|one| taking.is_some() && one.taken_by == taking)
        };
        // Rows with our own taking were written by a commit that we did not hear of: they are ours to attempt.
        let (straight, _): (Vec<_>, Vec<_>) =
            std::mem::take(&mut planned.straight).into_iter().partition(|(position, ..)| ours(*position));
        let mine: HashSet<_> = straight.iter().map(|(position, ..)| planned.new.deliveries[*position].id).collect();
        let now = Timestamp::now();
        let others = persisted.unfinished.iter().filter(|one| !mine.contains(&one.delivery));
        let claims: Vec<_> = others.map(|one| (one.claim(now), one.traceparent)).collect();
        if straight.is_empty() {
            self.settler.end(planned.message, claims);
            return;
        }
        let settlement = Settlement::new(planned.message, straight.len() + claims.len());
        for claim in claims {
            self.settler.settle(settlement.clone(), Some(claim));
        }
        for (position, endpoint, ticket) in straight {
            if let Some(assignment) = Assignment::first(&planned.new, position, endpoint, ticket, settlement.clone()) {
                let _ = self.assignments.send(assignment).await;
            }
        }
    }
}
