//! Retries: decodes retry messages, and passes each on to the next delay queue. A due retry is leased at once, or
//! queued in the endpoint's backlog.

use std::{collections::HashMap, sync::Arc, time::Duration};

use fanfare_broker::{Incoming, decode_retry};
use fanfare_domain::{
    delivery::{lease_duration, retry::RetryMessage},
    endpoint::{Endpoint, EndpointStatus},
    ids::{DeliveryId, LeaseId},
};
use fanfare_service::crash_point;
use fanfare_store::{DueRetry, Lease, Leased, TakenRetries};
use tokio::{sync::mpsc, time::Instant};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::{
    context::Context,
    database::RetryOutcome,
    lanes::Permit,
    metric,
    stages::{
        batch,
        intake::park,
        sending::{
            leased::{Leases, Unsent},
            retry_messages,
        },
    },
};

/// A due retry, with the message.
struct Due {
    message: Incoming,
    retry: RetryMessage,
}

/// Endpoints and permits of the retries to lease.
type Permits = HashMap<DeliveryId, (Arc<Endpoint>, Permit)>;

/// Rest of a message before the hand-back to the broker, if the database refuses the retry.
const REST: Duration = Duration::from_secs(5);

/// Takes due retries, until `stop`.
pub(crate) async fn run(leases: Leases, mut messages: mpsc::Receiver<Incoming>, stop: CancellationToken) {
    let (due, mut to_take) = mpsc::channel(512);
    let reading = async {
        while let Some(Some(message)) = stop.run_until_cancelled(messages.recv()).await {
            if let Some(retry) = read(&leases.context, message) {
                let _ = due.send(retry).await;
            }
        }
        drop(due);
    };
    let taking = async {
        let mut waiting = Vec::new();
        while batch::gather(&mut to_take, &mut waiting).await > 0 {
            while !waiting.is_empty() {
                let weigh = |due: &Due| batch::Weight {
                    key: due.retry.delivery,
                    bytes: 0,
                    is_quarantined: due.message.is_quarantined(),
                    is_ordered: false,
                };
                take(&leases, batch::next(&mut waiting, weigh)).await;
            }
        }
    };
    tokio::join!(reading, taking);
}

/// Decodes a message. Publishes a message with further delays into the next delay queue, and parks an unreadable
/// message.
fn read(context: &Arc<Context>, message: Incoming) -> Option<Due> {
    let retry = match decode_retry(&message) {
        Ok(retry) => retry,
        Err(unreadable) => {
            park::park(context, message, unreadable, Span::none());
            return None;
        }
    };
    crash_point("retry.received");
    match retry.next_delay() {
        Err(retry) => Some(Due { retry, message }),
        Ok((delay, retry)) => {
            let publishing = Arc::clone(context);
            context.tasks.spawn(async move {
                retry_messages::send(&publishing, &retry, Some(Duration::from_secs(delay))).await;
                message.ack();
            });
            None
        }
    }
}

/// Leases or queues the deliveries of a batch, then acks the messages.
async fn take(leases: &Leases, mut batch: Vec<Due>) {
    let context = &leases.context;
    let mut permits = Permits::new();
    let retries: Vec<DueRetry> = batch.iter().map(|due| admit(context, due, &mut permits)).collect();
    let (process, database) = (context.process(), &context.database);
    let lease = LeaseId::new(context.now(), rand::random());
    let taking = || database.store.take_retries(process, lease, &retries);
    let taking = database.retry_until_available("taking retries", taking);
    let RetryOutcome { result, unknown_commit, tried_at } = batch::timed(metric::RETRIES, retries.len(), taking).await;
    match result {
        Ok(TakenRetries { mut leased, backlogs }) => {
            crash_point("retry.taken");
            context.touched(&backlogs, true);
            if unknown_commit {
                context.backlogs.look_for_more();
                // An earlier try may have committed without an answer: the last answer lacks the rows of that lease.
                let looking = || database.store.leased_under(lease);
                let found = database.retry_until_available("looking for leases", looking).await.result;
                leased = found.unwrap_or_else(|error| {
                    tracing::error!(%error, "cannot find the leases of retries; recovery queues them");
                    Vec::new()
                });
            }
            for due in batch {
                due.message.ack();
            }
            send(leases, leased, permits, (lease, tried_at)).await;
        }
        Err(error) if batch.len() == 1 => {
            tracing::error!(
                %error, delivery = %retries[0].delivery,
                "cannot take a retry; the broker redelivers the message"
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
            drop(permits);
            let second = batch.split_off(batch.len() / 2);
            Box::pin(take(leases, batch)).await;
            Box::pin(take(leases, second)).await;
        }
    }
}

/// Decides on a retry: a lease, if a permit is free, or the backlog. The decision precedes the write. A message with
/// which processes have died goes through the backlog.
fn admit(context: &Context, due: &Due, permits: &mut Permits) -> DueRetry {
    let RetryMessage { delivery, attempt, application, endpoint, .. } = due.retry;
    let has_room = context.lanes.places.left_to_drains(context.events_wait()) > 0;
    let admitted = context
        .endpoint(application, endpoint)
        .filter(|endpoint| has_room && endpoint.status == EndpointStatus::Enabled && !due.message.is_quarantined())
        .and_then(|endpoint| context.lanes.admit_retry(&endpoint).map(|permit| (endpoint, permit)));
    let lease = admitted.as_ref().map(|(endpoint, _)| lease_duration(endpoint.policy.timeout));
    permits.extend(admitted.map(|admitted| (delivery, admitted)));
    DueRetry { delivery, attempt, lease }
}

/// Passes the leased deliveries on to attempts.
async fn send(leases: &Leases, leased: Vec<Leased>, mut permits: Permits, (lease, leased_at): (LeaseId, Instant)) {
    let mut unsent = Unsent::default();
    for leased in leased {
        // Each leased delivery had a permit.
        let Some((endpoint, permit)) = permits.remove(&leased.delivery) else { continue };
        let lease = Lease { id: lease, duration: lease_duration(endpoint.policy.timeout) };
        leases.pass_on(leased, (endpoint, permit), lease, leased_at, &mut unsent).await;
    }
    leases.settle(unsent).await;
}
