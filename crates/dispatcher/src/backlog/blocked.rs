//! Backlogs whose endpoint may not be sent to: released where it is paused, ended where it is disabled or deleted.

use std::{collections::HashSet, sync::Arc, time::Duration};

use fanfare_domain::{
    application::EndpointStatus,
    delivery::{FailureReason, QueueReason},
    ids::{ApplicationId, EndpointId},
};
use fanfare_store::{End, ReleasedBacklog};
use tokio::sync::{Semaphore, mpsc};
use tokio_util::sync::CancellationToken;

use crate::{context::Context, metric};

/// No look at a backlog is later than this.
const LONGEST_LOOK: Duration = Duration::from_secs(300);

/// The look at a backlog whose application this process cannot read: another process may.
const UNREADABLE_LOOK: Duration = Duration::from_secs(10);

/// Deliveries that end in one statement.
const BATCH: usize = 1000;

/// Backlogs that are handled together.
const TOGETHER: usize = 1000;

/// A backlog that its drain may not send.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Unsendable {
    pub(crate) endpoint: EndpointId,
    pub(crate) application: ApplicationId,
    /// The endpoint's status; `None` where this process does not know it.
    pub(crate) status: Option<EndpointStatus>,
}

/// Endpoints whose deliveries end at once.
const ENDS_AT_ONCE: usize = 2;

/// Handles such backlogs until `stop`. Ends run beside: one endpoint may have very many deliveries.
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
        for (one, how) in ends {
            let (context, stop, permits) = (Arc::clone(&context), stop.clone(), Arc::clone(&permits));
            context.clone().tasks.spawn(async move {
                let ending = async {
                    let _permit = permits.acquire().await;
                    end(&context, one, how).await;
                };
                stop.run_until_cancelled(ending).await;
            });
        }
    }
}

/// Releases the backlogs that wait, and returns those whose deliveries end.
async fn handle(context: &Context, mut batch: Vec<Unsendable>) -> Vec<(Unsendable, End)> {
    // That an endpoint does not exist is said only after a look into the database.
    if batch.iter().any(|one| one.status.is_none()) {
        while !context.directory.refresh().await {
            let _ = context.database.until_answered("looking for an endpoint", || context.database.store.ping()).await;
        }
    }
    let (mut released, mut ends) = (Vec::new(), Vec::new());
    for one in &mut batch {
        // The newest status: the drain may have seen it some time ago.
        one.status = context.endpoint(one.application, one.endpoint).map(|endpoint| endpoint.status);
        let release = |look_in, reason| ReleasedBacklog { endpoint: one.endpoint, look_in, reason: Some(reason) };
        match one.status {
            Some(EndpointStatus::Enabled) => context.backlogs.is_ready(one.endpoint),
            Some(EndpointStatus::Paused) => released.push(release(LONGEST_LOOK, QueueReason::Paused)),
            Some(EndpointStatus::Disabled) => ends.push((*one, End::Skipped)),
            None if context.directory.is_unreadable(one.application) => {
                released.push(release(UNREADABLE_LOOK, QueueReason::ApplicationUnreadable));
            }
            None => ends.push((*one, End::Failed(FailureReason::EndpointDeleted))),
        }
    }
    if !released.is_empty() {
        self::release(context, released).await;
    }
    ends
}

async fn release(context: &Context, mut released: Vec<ReleasedBacklog>) {
    released.sort_unstable_by_key(|one| one.endpoint);
    let (process, store) = (context.process(), &context.database.store);
    let tried = context.database.until_answered("releasing backlogs", || store.release_backlogs(process, &released));
    if let Err(error) = tried.await.result {
        tracing::error!(%error, "cannot release backlogs of paused endpoints");
    }
    let endpoints: HashSet<EndpointId> = released.iter().map(|one| one.endpoint).collect();
    for endpoint in endpoints {
        context.end_backlog(endpoint);
    }
}

/// Ends the deliveries of a backlog, and lets the drain end the backlog itself.
async fn end(context: &Context, one: Unsendable, end: End) {
    let (endpoint, store) = (one.endpoint, &context.database.store);
    loop {
        let ending = || store.end_queued(endpoint, end, false, BATCH);
        let ended = match context.database.until_answered("ending deliveries", ending).await.result {
            Ok(ended) => ended,
            Err(error) => {
                tracing::error!(%error, %endpoint, "cannot end the deliveries of an endpoint");
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
    let tried = context.database.until_answered("ending backlogs", || store.end_backlogs(process, &endpoints)).await;
    match tried.result {
        Ok(gone) if gone.contains(&endpoint) => context.end_backlog(endpoint),
        _ => context.backlogs.retry(endpoint),
    }
}
