//! Records the results of attempts in batches, then publishes the retry messages.

use std::{collections::HashSet, sync::Arc, time::Duration};

use fanfare_domain::{delivery::FailureReason, ids::DeliveryId};
use fanfare_service::crash_point;
use fanfare_store::{AttemptRecord, NextState};
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use crate::{
    context::Context,
    lanes::RecordPermit,
    metric,
    stages::{
        batch,
        sending::{
            attempt::AttemptResult,
            leased::give_back,
            retry_messages::{self, NextRetry},
        },
    },
};

/// Interval at which slow deliveries are shown in lists.
const LISTS_EVERY: Duration = Duration::from_millis(500);

/// An attempt to record, and the retry to publish afterwards. Holds the place until the record.
struct Sent {
    record: Box<AttemptRecord>,
    retry: Option<NextRetry>,
    disables: Option<FailureReason>,
    is_in_order: bool,
    _permit: RecordPermit,
}

/// Records results until the channel closes.
pub(crate) async fn run(context: Arc<Context>, mut results: mpsc::Receiver<AttemptResult>) {
    let mut waiting = Vec::new();
    while batch::gather(&mut results, &mut waiting).await > 0 {
        let (mut sent, mut back) = (Vec::new(), Vec::new());
        for result in waiting.drain(..) {
            match result {
                AttemptResult::Sent { record, retry, disables, permit, is_in_order } => {
                    sent.push(Sent { record, retry, disables, is_in_order, _permit: permit });
                }
                AttemptResult::GivenBack(given) => back.push(given),
            }
        }
        // A delivery that was taken over may have two results: a commit must not hold both.
        while !sent.is_empty() {
            let batch = batch::next(&mut sent, |sent: &Sent| batch::Weight {
                key: sent.record.delivery,
                bytes: sent.record.response_body.len(),
                is_quarantined: false,
                is_ordered: false,
            });
            record(&context, batch).await;
        }
        give_back(&context, back).await;
    }
}

async fn record(context: &Arc<Context>, mut batch: Vec<Sent>) {
    let records: Vec<&AttemptRecord> = batch.iter().map(|sent| sent.record.as_ref()).collect();
    let database = &context.database;
    let recording = database.retry_until_available("recording attempts", || database.store.record(&records));
    let tried = batch::timed(metric::RECORD, records.len(), recording).await;
    match tried.result {
        Ok(moved) => {
            crash_point("attempt.recorded");
            settle(context, batch, &moved, tried.unknown_commit);
        }
        Err(error) if batch.len() == 1 => {
            let record = &batch[0].record;
            if error.lacks_partition() {
                let dropped = database
                    .retry_until_available("forgetting a delivery", || database.store.forget_dropped(record.delivery));
                let is_dropped = dropped.await.result.unwrap_or(false);
                tracing::warn!(
                    delivery = %record.delivery, is_dropped,
                    "an attempt ended after the retention of its event, and is not recorded"
                );
            } else {
                tracing::error!(
                    %error, delivery = %record.delivery, attempt = record.attempt,
                    "cannot record an attempt; recovery queues the delivery when the lease ends"
                );
            }
        }
        // A single refused row fails the whole batch: bisect the batch to find the row.
        Err(_) => {
            let second = batch.split_off(batch.len() / 2);
            Box::pin(record_rest(context, batch, second)).await;
        }
    }
}

async fn record_rest(context: &Arc<Context>, first: Vec<Sent>, second: Vec<Sent>) {
    record(context, first).await;
    record(context, second).await;
}

/// Publishes the retries of deliveries that this process moved to a new state. After an unknown commit, publishes all
/// retries: a superfluous message is stale.
fn settle(context: &Arc<Context>, batch: Vec<Sent>, moved: &HashSet<DeliveryId>, unknown_commit: bool) {
    for Sent { record, retry, disables, is_in_order, _permit } in batch {
        let is_moved = moved.contains(&record.delivery);
        if is_moved {
            count(&record.next);
        }
        if let Some(reason) = disables {
            disable(context, &record, reason);
        }
        if let Some(retry) = retry.filter(|_| is_moved || unknown_commit) {
            retry_messages::publish(context, retry);
        }
        if is_in_order {
            context.order_changed.notify_one();
        }
    }
}

/// Disables an endpoint whose answer asks for it. If the process dies before, the next delivery gets the same answer.
fn disable(context: &Arc<Context>, record: &AttemptRecord, reason: FailureReason) {
    let (disabling, endpoint, asked_at) = (Arc::clone(context), record.endpoint, record.started_at);
    context.tasks.spawn(async move {
        let reason = reason.as_str();
        let database = &disabling.database;
        let disabling = || database.store.disable_endpoint(endpoint, reason, asked_at);
        match database.retry_until_available("disabling an endpoint", disabling).await.result {
            Ok(true) => tracing::warn!(%endpoint, reason, "disabled an endpoint"),
            Ok(false) => {}
            Err(error) => tracing::error!(%error, %endpoint, "cannot disable an endpoint; the next answer tries again"),
        }
    });
}

fn count(next: &NextState) {
    let (state, reason) = match next {
        NextState::Scheduled { .. } => return,
        NextState::Delivered => ("delivered", ""),
        NextState::Failed(reason) => ("failed", reason.as_str()),
    };
    metrics::counter!(metric::DELIVERIES, "state" => state, "reason" => reason).increment(1);
}

/// Shows deliveries with slow attempts in lists, until the channel closes or `stop`.
pub(crate) async fn list_slow(
    context: Arc<Context>,
    mut slow: mpsc::UnboundedReceiver<DeliveryId>,
    stop: CancellationToken,
) {
    let mut batch = Vec::new();
    while stop.run_until_cancelled(slow.recv_many(&mut batch, 1000)).await.is_some_and(|count| count > 0) {
        batch.sort_unstable();
        let store = &context.database.store;
        if let Err(error) = store.with_deadline(Duration::from_secs(5), store.list_slow(&batch)).await {
            tracing::debug!(%error, "cannot show slow deliveries in lists; lists show them after the record");
        }
        batch.clear();
        stop.run_until_cancelled(tokio::time::sleep(LISTS_EVERY)).await;
    }
}
