//! What came of deliveries into the database, in batches; then on to the end of their messages.

use std::collections::HashSet;

use fanfare_domain::{delivery::FailureReason, ids::DeliveryId};
use fanfare_service::crash_point;
use fanfare_store::{AttemptRecord, GiveBack, NextState};
use tokio::sync::mpsc;

use crate::{
    assignment::Assignment,
    attempt::{Finished, FinishedAs},
    batch,
    database::Database,
    lanes::Unrecorded,
    metric,
    settle::Settler,
};

/// What the stage needs.
pub(crate) struct Record {
    pub(crate) database: Database,
    pub(crate) settler: Settler,
}

type Attempted = (Assignment, AttemptRecord, Option<Unrecorded>);

/// Records what comes in until nothing more does.
pub(crate) async fn run(record: Record, mut finished: mpsc::Receiver<Finished>) {
    let mut waiting = Vec::new();
    while batch::gather(&mut finished, &mut waiting).await > 0 {
        let (mut attempted, mut back) = (Vec::new(), Vec::new());
        for Finished { assignment, how, unrecorded } in waiting.drain(..) {
            match how {
                FinishedAs::Attempted(record) => attempted.push((assignment, record, unrecorded)),
                FinishedAs::GivenBack(given) => back.push((assignment, given)),
            }
        }
        // A delivery that was taken over may be finished twice at once: one commit must not hold both.
        while !attempted.is_empty() {
            let batch = batch::next(&mut attempted, |(_, one, _): &Attempted| batch::Weight {
                key: one.delivery,
                bytes: one.response_body.len(),
                is_alone: false,
            });
            record.attempted(batch).await;
        }
        if !back.is_empty() {
            record.given_back(back).await;
        }
    }
}

impl Record {
    async fn attempted(&self, mut batch: Vec<Attempted>) {
        let records: Vec<&AttemptRecord> = batch.iter().map(|(_, record, _)| record).collect();
        let tried = self.database.until_answered("recording attempts", || self.database.store.record(&records)).await;
        match tried.result {
            Ok(moved) => {
                crash_point("attempt.recorded");
                self.settle(batch, &moved.into_iter().collect(), tried.unknown_commit);
            }
            Err(error) if batch.len() == 1 => {
                let (assignment, record, _) = &batch[0];
                // Its row says `sending` until the hold ends, and its message comes again.
                self.settler.again(&assignment.settlement);
                tracing::error!(%error, delivery = %record.delivery, attempt = record.attempt, "cannot record an attempt");
            }
            // One row that cannot be stored fails its whole batch: find it.
            Err(_) => {
                let second = batch.split_off(batch.len() / 2);
                Box::pin(self.attempted(batch)).await;
                Box::pin(self.attempted(second)).await;
            }
        }
    }

    /// Only whoever moved the delivery publishes its next claim. After an unknown commit that may have
    /// been us: a claim too many is stale, one too few would be missed.
    fn settle(&self, batch: Vec<Attempted>, moved: &HashSet<DeliveryId>, unknown_commit: bool) {
        for (assignment, record, _) in batch {
            let is_moved = moved.contains(&record.delivery);
            if is_moved {
                count(&record.next);
            }
            if record.next == NextState::Failed(FailureReason::EndpointGone) {
                self.disable(&record);
            }
            let next = match record.next {
                NextState::Waiting { due } if is_moved || unknown_commit => {
                    Some((assignment.claim(assignment.attempt + 1, due, 0, self.database.now()), assignment.trace))
                }
                _ => None,
            };
            self.settler.settle(assignment.settlement, next);
        }
    }

    /// Disables an endpoint that wants nothing any more. Should the process die before, the next delivery
    /// is answered in the same way.
    fn disable(&self, record: &AttemptRecord) {
        let (database, endpoint, asked_at) = (self.database.clone(), record.endpoint, record.started_at);
        self.settler.spawn(async move {
            let reason = FailureReason::EndpointGone.as_str();
            let store = &database.store;
            let disabling = || store.disable_endpoint(endpoint, reason, asked_at);
            match database.until_answered("disabling an endpoint", disabling).await.result {
                Ok(true) => tracing::warn!(%endpoint, reason, "disabled an endpoint"),
                Ok(false) => {}
                Err(error) => tracing::error!(%error, %endpoint, "cannot disable an endpoint"),
            }
        });
    }

    async fn given_back(&self, mut batch: Vec<(Assignment, GiveBack)>) {
        batch.sort_unstable_by_key(|(_, back)| back.delivery);
        let backs: Vec<GiveBack> = batch.iter().map(|(_, back)| *back).collect();
        let tried =
            self.database.until_answered("giving deliveries back", || self.database.store.give_back(&backs)).await;
        let given: HashSet<DeliveryId> = match tried.result {
            Ok(given) => {
                crash_point("delivery.given_back");
                given.into_iter().collect()
            }
            Err(error) => {
                tracing::error!(%error, deliveries = batch.len(), "cannot give deliveries back; they can be taken when their hold ends");
                for (assignment, _) in &batch {
                    self.settler.again(&assignment.settlement);
                }
                return;
            }
        };
        for (assignment, back) in batch {
            let is_given = given.contains(&back.delivery) || tried.unknown_commit;
            let claim = is_given
                .then(|| assignment.claim(assignment.attempt, back.due, assignment.deferrals + 1, self.database.now()));
            let trace = assignment.trace;
            self.settler.settle(assignment.settlement, claim.map(|claim| (claim, trace)));
        }
    }
}

fn count(next: &NextState) {
    let (state, reason) = match next {
        NextState::Waiting { .. } => return,
        NextState::Delivered => ("delivered", ""),
        NextState::Failed(reason) => ("failed", reason.as_str()),
    };
    metrics::counter!(metric::DELIVERIES, "state" => state, "reason" => reason).increment(1);
}
