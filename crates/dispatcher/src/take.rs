//! Due deliveries taken, deferred, held, skipped or ended, in batches; then on to their attempts.

use std::{collections::HashMap, time::Duration};

use fanfare_domain::{
    claim::Claim,
    delivery::{DeferralReason, State},
    ids::{DeliveryId, TakingId},
    moment::later,
};
use fanfare_service::crash_point;
use fanfare_store::{GiveBack, Move, MoveTo, Moved};
use tokio::{sync::mpsc, time::Instant};

use crate::{
    assignment::Assignment,
    batch,
    claims::Reached,
    database::{Database, Tried},
    metric,
    settle::{Settlement, Settler},
};

/// How long a delivery is put off whose body cannot be read here.
const UNREADABLE_WAIT: Duration = Duration::from_secs(60);

/// What the stage needs.
pub(crate) struct Take {
    pub(crate) database: Database,
    pub(crate) settler: Settler,
    pub(crate) assignments: mpsc::Sender<Assignment>,
}

/// Moves what comes in until nothing more does.
pub(crate) async fn run(take: Take, mut reached: mpsc::Receiver<Reached>) {
    let mut waiting = Vec::new();
    while batch::gather(&mut reached, &mut waiting).await > 0 {
        while !waiting.is_empty() {
            let batch = batch::next(&mut waiting, |one: &Reached| batch::Weight {
                key: one.to.claim.delivery,
                bytes: 0,
                is_alone: one.message.is_alone(),
            });
            take.write(batch).await;
        }
    }
}

impl Take {
    async fn write(&self, mut batch: Vec<Reached>) {
        let moves: Vec<Move> = batch.iter().map(|reached| reached.to.clone()).collect();
        let Tried { result, unknown_commit, tried_at } =
            self.database.until_answered("taking deliveries", || self.database.store.move_deliveries(&moves)).await;
        let moved = match result {
            Ok(moved) => {
                crash_point("delivery.taken");
                moved
            }
            Err(error) if batch.len() == 1 => {
                tracing::error!(%error, delivery = %moves[0].claim.delivery, "cannot take a delivery; its claim will come again");
                return self.again(batch);
            }
            // One row that cannot be moved fails its whole batch: find it.
            Err(_) => {
                let second = batch.split_off(batch.len() / 2);
                Box::pin(self.write(batch)).await;
                return Box::pin(self.write(second)).await;
            }
        };
        let mut moved: HashMap<DeliveryId, Moved> = moved.into_iter().map(|one| (one.delivery, one)).collect();
        let mut stale = Vec::new();
        for reached in batch {
            match moved.remove(&reached.to.claim.delivery) {
                Some(moved) => self.forward(reached, moved, tried_at).await,
                None => stale.push(reached),
            }
        }
        self.finish(stale, unknown_commit).await;
    }

    async fn forward(&self, reached: Reached, mut moved: Moved, taken_at: Instant) {
        let Reached { message, to, trace, straight } = reached;
        match (moved.state, to.to, straight) {
            (State::Sending, MoveTo::Sending { taking, .. }, Some(straight)) => {
                let settlement = Settlement::new(message, 1);
                let Some(body) = moved.body.take() else {
                    return self.put_off(&to.claim, &moved, taking, settlement).await;
                };
                let assignment = Assignment::next(&to.claim, moved, body, (taking, taken_at), straight, settlement);
                let _ = self.assignments.send(assignment).await;
            }
            (State::Waiting, MoveTo::Waiting { due, .. }, _) => {
                let claim = Claim {
                    attempt: moved.attempt,
                    sequence: moved.sequence,
                    due,
                    made: self.database.now(),
                    deferrals: to.claim.deferrals + 1,
                    ..to.claim
                };
                self.settler.settle(Settlement::new(message, 1), Some((claim, trace)));
            }
            (state, ..) => {
                let reason = moved.reason.unwrap_or_default();
                tracing::info!(delivery = %moved.delivery, state = state.as_str(), reason, "a delivery is not attempted");
                if matches!(state, State::Failed | State::Skipped) {
                    metrics::counter!(metric::DELIVERIES, "state" => state.as_str(), "reason" => reason).increment(1);
                }
                self.settler.end(message, Vec::new());
            }
        }
    }

    /// Gives a delivery back whose body cannot be read here: another process may have the key, or this one when it is
    /// started anew.
    async fn put_off(&self, claim: &Claim, moved: &Moved, taking: TakingId, settlement: Settlement) {
        let reason = DeferralReason::ApplicationUnreadable;
        let due = later(self.database.now(), UNREADABLE_WAIT);
        let (delivery, attempt, sequence) = (moved.delivery, moved.attempt, moved.sequence);
        let back = [GiveBack { delivery, attempt, sequence, taking, due, reason }];
        let tried = self.database.until_answered("giving back", || self.database.store.give_back(&back)).await;
        if let Err(error) = tried.result {
            tracing::error!(%error, %delivery, "cannot give a delivery back; it is taken over when its hold ends");
        }
        metrics::counter!(metric::DEFERRALS, "reason" => reason.as_str()).increment(1);
        let (made, deferrals) = (self.database.now(), claim.deferrals + 1);
        let next = Claim { attempt, sequence: sequence + 1, due, made, deferrals, ..*claim };
        self.settler.settle(settlement, Some((next, moved.traceparent)));
    }

    /// Ends claims that their delivery no longer waits for. One that has been delivered before may be the
    /// last message there is, so its delivery gets exactly the claim that its row waits for.
    async fn finish(&self, stale: Vec<Reached>, unknown_commit: bool) {
        let (to_finish, twins): (Vec<_>, Vec<_>) =
            stale.into_iter().partition(|reached| reached.message.may_be_last() || unknown_commit);
        for reached in twins {
            self.settler.end(reached.message, Vec::new());
        }
        if to_finish.is_empty() {
            return;
        }
        let ids: Vec<DeliveryId> = to_finish.iter().map(|reached| reached.to.claim.delivery).collect();
        let tried =
            self.database.until_answered("looking for stale claims", || self.database.store.unfinished(&ids)).await;
        let unfinished = match tried.result {
            Ok(unfinished) => unfinished,
            Err(error) => {
                tracing::error!(%error, "cannot look for the deliveries of stale claims; they will come again");
                return self.again(to_finish);
            }
        };
        let now = self.database.now();
        let mut claims: HashMap<DeliveryId, _> =
            unfinished.iter().map(|one| (one.delivery, (one.claim(now), one.traceparent))).collect();
        for reached in to_finish {
            let claim = claims.remove(&reached.to.claim.delivery);
            self.settler.end(reached.message, claim.into_iter().collect());
        }
    }

    fn again(&self, batch: Vec<Reached>) {
        for reached in batch {
            self.settler.again(&Settlement::new(reached.message, 1));
        }
    }
}
