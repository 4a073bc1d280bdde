//! Events and their deliveries into the database, in batches; then on to their first attempts.

use std::{collections::HashSet, sync::Arc};

use bytes::Bytes;
use fanfare_broker::Unreadable;
use fanfare_domain::{claim::Claim, delivery::State, ids::EventId, moment::later, traceparent::Traceparent};
use fanfare_service::crash_point;
use fanfare_store::{NewEvent, PersistedEvent, StoreError};
use tokio::{
    sync::{Semaphore, mpsc},
    time::Instant,
};
use tokio_util::task::TaskTracker;

use crate::{
    assignment::Assignment,
    batch,
    database::{Database, Tried},
    events::Planned,
    metric, park,
    settle::{Settlement, Settler},
    wide,
};

/// Events with very many endpoints that are fanned out at once: enough to keep the database busy.
const MAX_WIDE: usize = 2;

/// What the stage needs.
pub(crate) struct Persist {
    pub(crate) database: Database,
    pub(crate) settler: Settler,
    pub(crate) assignments: mpsc::Sender<Assignment>,
    /// Events with very many endpoints, each in a task of its own: the others do not wait for them.
    wide: TaskTracker,
    wide_turns: Arc<Semaphore>,
}

/// Writes what comes in until nothing more does. A batch is whatever has come in while the one before it
/// was written.
pub(crate) async fn run(persist: Persist, mut planned: mpsc::Receiver<Planned>) {
    let mut waiting = Vec::new();
    while batch::gather(&mut planned, &mut waiting).await > 0 {
        // A second copy of an event finds the first one's rows in the next batch.
        while !waiting.is_empty() {
            let batch = batch::next(&mut waiting, |one: &Planned| batch::Weight {
                key: one.new.event.id,
                // Of what is redacted there are two.
                bytes: one.new.body.len() + one.new.redacted.as_ref().map_or(0, String::len),
                is_alone: one.message.is_alone(),
            });
            persist.write(batch).await;
        }
    }
    persist.wide.close();
    persist.wide.wait().await;
}

/// What came of a batch.
struct Written {
    /// Those that were not known before.
    new: Vec<EventId>,
    unknown_commit: bool,
    /// When it was written, or before.
    tried_at: Instant,
}

impl Persist {
    pub(crate) fn new(database: Database, settler: Settler, assignments: mpsc::Sender<Assignment>) -> Self {
        let wide_turns = Arc::new(Semaphore::new(MAX_WIDE));
        Self { database, settler, assignments, wide: TaskTracker::new(), wide_turns }
    }

    async fn write(&self, mut batch: Vec<Planned>) {
        let news: Vec<&NewEvent> = batch.iter().map(|planned| &planned.new).collect();
        let Tried { result, unknown_commit, tried_at } =
            self.database.until_answered("persisting events", || self.database.store.persist(&news)).await;
        match result {
            Ok(new) => {
                crash_point("event.persisted");
                self.forward(batch, &Written { new, unknown_commit, tried_at }).await;
            }
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
        let store = &self.database.store;
        if error.lacks_partition() {
            let made = self.database.until_answered("making partitions", || store.create_partitions(accepted_at)).await;
            let news = [&planned.new];
            let tried = self.database.until_answered("persisting an event", || store.persist(&news)).await;
            if let (Ok(()), Ok(new)) = (made.result, tried.result) {
                let Tried { unknown_commit, tried_at, .. } = tried;
                return self.forward(vec![planned], &Written { new, unknown_commit, tried_at }).await;
            }
        }
        let unreadable = Unreadable::new("not_storable", error.to_string());
        park::park(&self.settler, planned.message, unreadable);
    }

    async fn forward(&self, batch: Vec<Planned>, written: &Written) {
        let is_new: HashSet<EventId> = written.new.iter().copied().collect();
        let (new, known): (Vec<_>, Vec<_>) =
            batch.into_iter().partition(|planned| is_new.contains(&planned.new.event.id));
        metrics::counter!(metric::EVENTS, "result" => "new").increment(new.len() as u64);
        metrics::counter!(metric::EVENTS, "result" => "known").increment(known.len() as u64);
        for planned in new {
            if planned.new.fanned_out {
                self.begin(planned, written.tried_at).await;
            } else {
                self.fan_out(planned);
            }
        }
        let known = self.park_reused(known).await;
        // A copy that has not been delivered before has a twin with a message of its own, which ends what
        // is unfinished. The others may be the last message that there is.
        let (to_finish, twins): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|planned| planned.message.may_be_last() || written.unknown_commit);
        for planned in twins {
            self.settler.end(planned.message, Vec::new());
        }
        if !to_finish.is_empty() {
            self.finish(to_finish).await;
        }
    }

    /// Parks the copies of known events that say something else than the event itself: somebody has used a
    /// key twice. Gives the others back.
    async fn park_reused(&self, known: Vec<Planned>) -> Vec<Planned> {
        if known.is_empty() {
            return known;
        }
        let content = |planned: &Planned| Some((planned.new.event.id, planned.new.content?));
        let contents: Vec<_> = known.iter().filter_map(content).collect();
        let tried =
            self.database.until_answered("comparing known events", || self.database.store.reused(&contents)).await;
        let reused = match tried.result {
            Ok(reused) => reused,
            Err(error) => {
                tracing::error!(%error, "cannot compare events with those that were persisted before; their messages will come again");
                for planned in known {
                    self.settler.again(&Settlement::new(planned.message, 1));
                }
                return Vec::new();
            }
        };
        let (reused, known): (Vec<_>, Vec<_>) =
            known.into_iter().partition(|planned| reused.contains(&planned.new.event.id));
        for Planned { message, new, .. } in reused {
            let sentence = format!(
                "its key is that of event {}, which has another type or other data; an event needs a key of its own",
                new.event.id
            );
            park::park(&self.settler, message, Unreadable::new("key_reused", sentence));
        }
        known
    }

    /// Passes the deliveries of a new event on: those that are sending to their attempts, those that wait
    /// to their delay queue.
    async fn begin(&self, planned: Planned, taken_at: Instant) {
        let now = self.database.now();
        let new = &planned.new;
        let skipped = new.deliveries.iter().filter(|one| one.state == State::Skipped).count();
        metrics::counter!(metric::DELIVERIES, "state" => "skipped", "reason" => "").increment(skipped as u64);
        let waiting = new.deliveries.iter().filter(|one| one.state == State::Waiting);
        let claims = waiting.map(|one| (new.first_claim(one, now), Some(new.event.traceparent))).collect();
        self.go_on(planned, claims, taken_at).await;
    }

    /// Passes what is to be attempted straight from an event's message on to its attempts, and the rest to
    /// their delay queues. The message ends with the last of them.
    async fn go_on(&self, planned: Planned, claims: Vec<(Claim, Option<Traceparent>)>, taken_at: Instant) {
        let Planned { message, mut new, straight, .. } = planned;
        if straight.is_empty() {
            return self.settler.end(message, claims);
        }
        let settlement = Settlement::new(message, straight.len() + claims.len());
        for claim in claims {
            self.settler.settle(settlement.clone(), Some(claim));
        }
        let body = Bytes::from(std::mem::take(&mut new.body));
        for (position, endpoint, ticket) in straight {
            let settlement = settlement.clone();
            let straight = (endpoint, ticket);
            if let Some(assignment) = Assignment::first(&new, position, &body, straight, taken_at, settlement) {
                let _ = self.assignments.send(assignment).await;
            }
        }
    }

    fn fan_out(&self, planned: Planned) {
        let (database, settler) = (self.database.clone(), self.settler.clone());
        let turns = Arc::clone(&self.wide_turns);
        self.wide.spawn(async move {
            let _turn = turns.acquire().await;
            wide::fan_out(&database, &settler, planned).await;
        });
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
                for planned in known {
                    self.settler.again(&Settlement::new(planned.message, 1));
                }
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
        // Rows with our own taking were written by a commit that we did not hear of: nobody else has sent them. Those
        // whose hold has run for too long by now are given back by the attempts' stage.
        let now = self.database.now();
        let mut taken_at = Instant::now();
        let mut is_ours = |position: usize| {
            let delivery = &planned.new.deliveries[position];
            let unfinished = persisted.unfinished.iter().find(|one| one.delivery == delivery.id);
            let ours = unfinished.zip(delivery.taking).filter(|(one, (taking, _))| one.taken_by == Some(*taking));
            if let Some((one, (_, hold))) = ours {
                let age = later(now, hold).duration_since(one.due);
                let since = Instant::now().checked_sub(age.try_into().unwrap_or_default());
                taken_at = taken_at.min(since.unwrap_or(taken_at));
            }
            ours.is_some()
        };
        let straight = std::mem::take(&mut planned.straight);
        planned.straight = straight.into_iter().filter(|(one, ..)| is_ours(*one)).collect();
        let ours: HashSet<_> = planned.straight.iter().map(|(one, ..)| planned.new.deliveries[*one].id).collect();
        let others = persisted.unfinished.iter().filter(|one| !ours.contains(&one.delivery));
        let claims = others.map(|one| (one.claim(now), one.traceparent)).collect();
        self.go_on(planned, claims, taken_at).await;
    }
}
