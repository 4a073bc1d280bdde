//! Retries: decodes retry messages, passes each on to the next delay queue, or queues the due delivery.

use std::{sync::Arc, time::Duration};

use fanfare_broker::{Incoming, decode_retry};
use fanfare_service::crash_point;
use fanfare_store::DueRetry;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;

use super::{batch, park, retry_messages};
use crate::{context::Context, database::Tried};

/// A due retry, with the message.
struct Due {
    message: Incoming,
    retry: DueRetry,
}

/// Rest of a message before the hand-back to the broker, if the database refuses the retry.
const REST: Duration = Duration::from_secs(5);

/// Queues the deliveries of due retries, until `stop`.
pub(crate) async fn run(context: Arc<Context>, mut messages: mpsc::Receiver<Incoming>, stop: CancellationToken) {
    let (due, mut to_queue) = mpsc::channel(512);
    let reading = async {
        while let Some(Some(message)) = stop.run_until_cancelled(messages.recv()).await {
            if let Some(one) = read(&context, message) {
                let _ = due.send(one).await;
            }
        }
        drop(due);
    };
    let queueing = async {
        let mut waiting = Vec::new();
        while batch::gather(&mut to_queue, &mut waiting).await > 0 {
            while !waiting.is_empty() {
                let weigh =
                    |due: &Due| batch::Weight { key: due.retry.delivery, bytes: 0, is_alone: due.message.is_alone() };
                queue(&context, batch::next(&mut waiting, weigh)).await;
            }
        }
    };
    tokio::join!(reading, queueing);
}

/// Decodes a message. Publishes a message with further delays into the next delay queue, and parks an unreadable
/// message.
fn read(context: &Arc<Context>, message: Incoming) -> Option<Due> {
    let (retry, trace) = match decode_retry(&message) {
        Ok(retry) => retry,
        Err(unreadable) => {
            park::park(context, message, unreadable);
            return None;
        }
    };
    crash_point("retry.received");
    match retry.next_delay() {
        Err(retry) => Some(Due { retry: DueRetry { delivery: retry.delivery, attempt: retry.attempt }, message }),
        Ok((delay, retry)) => {
            let publishing = Arc::clone(context);
            context.tasks.spawn(async move {
                retry_messages::send(&publishing, &retry, Some(Duration::from_secs(delay)), trace).await;
                message.ack();
            });
            None
        }
    }
}

async fn queue(context: &Arc<Context>, mut batch: Vec<Due>) {
    let retries: Vec<DueRetry> = batch.iter().map(|due| due.retry).collect();
    let (process, database) = (context.process(), &context.database);
    let Tried { result, unknown_commit, .. } =
        database.until_answered("queueing retries", || database.store.queue_retries(process, &retries)).await;
    match result {
        Ok(touched) => {
            crash_point("retry.queued");
            context.touched(&touched, true);
            if unknown_commit {
                context.backlogs.look_for_more();
            }
            for due in batch {
                due.message.ack();
            }
        }
        Err(error) if batch.len() == 1 => {
            tracing::error!(
                %error, delivery = %retries[0].delivery,
                "cannot queue a retry; the broker redelivers the message"
            );
            for due in batch {
                context.tasks.spawn(async move {
                    tokio::time::sleep(REST).await;
                    due.message.hand_back();
                });
            }
        }
        // A single refused row fails the whole batch: bisect the batch to find the row.
        Err(_) => {
            let second = batch.split_off(batch.len() / 2);
            Box::pin(queue(context, batch)).await;
            Box::pin(queue(context, second)).await;
        }
    }
}
