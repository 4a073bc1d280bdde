//! Blocked backlogs: released if the endpoint is paused, ended if the endpoint is disabled or deleted.

use std::{collections::HashSet, sync::Arc, time::Duration};

use fanfare_domain::{
    delivery::{FailureReason, QueueReason},
    endpoint::EndpointStatus,
    ids::{ApplicationId, EndpointId},
};
use fanfare_store::{End, ReleasedBacklog};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{context::Context, metric};

/// Longest wait until the next look at a backlog.
const LONGEST_LOOK: Duration = Duration::from_secs(300);

/// Wait until the next look at a backlog of an unreadable application: another process may read the application.
const UNREADABLE_LOOK: Duration = Duration::from_secs(10);

/// Maximum of deliveries ended by a statement.
const BATCH: usize = 1000;

/// Maximum of backlogs handled together.
const TOGETHER: usize = 1000;

/// A backlog that the drain may not send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsendable {
    pub(crate) endpoint: EndpointId,
    pub(crate) application: ApplicationId,
    /// Status of the endpoint; `None` if the endpoint is missing in the loaded configuration.
    pub(crate) status: Option<EndpointStatus>,
}

/// Maximum of endpoints whose deliveries end concurrently.
const ENDS_AT_ONCE: usize = 2;

/// Handles blocked backlogs until `stop`. Separate tasks end deliveries: an endpoint may have very many deliveries.
pub(crate) async fn run(
    context: Arc<Context>,
    mut unsendable: mpsc::UnboundedReceiver<Unsendable>,
    stop: CancellationToken,
) {
    let mut batch = Vec::new();
    let permits = Arc::new(Semaphore::new(ENDS_AT_ONCE));
    while stop.run_until_cancelled(unsendable.recv_many(&mut batch, TOGETHER)).await.is_some_and(|count| count > 0) {
        let handled = handle(&context, std::mem::take(&mut batch));
        let Some(ends) = stop.run_until_cancelled(handled).await else { return };
        for (backlog, how) in ends {
            let (context, stop, permits) = (Arc::clone(&context), stop.clone(), Arc::clone(&permits));
            context.clone().tasks.spawn(async move {
                let ending = async {
                    let _permit = permits.acquire().await;
                    end(&context, backlog, how).await;
                };
                stop.run_until_cancelled(ending).await;
            });
        }
    }
}

/// Releases the backlogs of paused endpoints and unreadable applications. Returns the backlogs to end.
async fn handle(context: &Context, mut batch: Vec<Unsendable>) -> Vec<(Unsendable, End)> {
    // An unknown endpoint may be new: refresh the configuration before the deliveries fail.
    let unknown: HashSet<_> =
        batch.iter().filter(|backlog| backlog.status.is_none()).map(|backlog| backlog.application).collect();
    if !unknown.is_empty() {
        while !context.directory.refresh(unknown.iter().copied()).await {
            let _ = context
                .database
                .retry_until_available("looking for an endpoint", || context.database.store.ping())
                .await;
        }
    }
    let (mut released, mut ends) = (Vec::new(), Vec::new());
    for backlog in &mut batch {
        // The status may have changed since the drain's check.
        backlog.status = context.endpoint(backlog.application, backlog.endpoint).map(|endpoint| endpoint.status);
        let release = |look_in, reason| ReleasedBacklog { endpoint: backlog.endpoint, look_in, reason: Some(reason) };
        match backlog.status {
            Some(EndpointStatus::Enabled) => context.backlogs.is_ready(backlog.endpoint),
            Some(EndpointStatus::Paused) => released.push(release(LONGEST_LOOK, QueueReason::Paused)),
            Some(EndpointStatus::Disabled) => ends.push((*backlog, End::Skipped)),
            None if context.directory.is_unreadable(backlog.application) => {
                released.push(release(UNREADABLE_LOOK, QueueReason::ApplicationUnreadable));
            }
            None => ends.push((*backlog, End::Failed(FailureReason::EndpointDeleted))),
        }
    }
    if !released.is_empty() {
        self::release(context, released).await;
    }
    ends
}

async fn release(context: &Context, mut released: Vec<ReleasedBacklog>) {
    released.sort_unstable_by_key(|backlog| backlog.endpoint);
    let (process, store) = (context.process(), &context.database.store);
    let tried =
        context.database.retry_until_available("releasing backlogs", || store.release_backlogs(process, &released));
    if let Err(error) = tried.await.result {
        tracing::error!(%error, "cannot release backlogs of paused endpoints; trying again within 10 s");
    }
    let endpoints: HashSet<EndpointId> = released.iter().map(|backlog| backlog.endpoint).collect();
    for endpoint in endpoints {
        context.end_backlog(endpoint);
    }
}

/// Ends the deliveries of a backlog, then the backlog. If the backlog does not end, the drain tries again.
async fn end(context: &Context, backlog: Unsendable, end: End) {
    let (endpoint, store) = (backlog.endpoint, &context.database.store);
    loop {
        let ending = || store.end_queued(endpoint, end, false, BATCH);
        let ended = match context.database.retry_until_available("ending deliveries", ending).await.result {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, %endpoint, "cannot end the deliveries of an endpoint; trying again");
                0
            }
        };
        let labels = [("state", end.state().as_str()), ("reason", end.reason().unwrap_or_default())];
        metrics::counter!(metric::DELIVERIES, &labels).increment(ended);
        if ended < BATCH as u64 {
            break;
        }
    }
    let (process, endpoints) = (context.process(), [endpoint]);
    let tried =
        context.database.retry_until_available("ending backlogs", || store.end_backlogs(process, &endpoints)).await;
    match tried.result {
        Ok(gone) if gone.contains(&endpoint) => context.end_backlog(endpoint),
        _ => context.backlogs.retry(endpoint),
    }
}
