//! The drain: leases the next deliveries of all backlogs with room, in a single statement, and sends the deliveries.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Duration,
};

use fanfare_domain::{
    delivery::{QueueReason, lease_duration},
    endpoint::{Endpoint, EndpointStatus},
    ids::{ApplicationId, EndpointId, LeaseId},
};
use fanfare_service::crash_point;
use fanfare_store::{Demand, Floor, GiveBack, Lease, Leased, Probed};
use tokio::{
    sync::mpsc,
    time::{Instant, sleep_until},
};
use tokio_util::sync::CancellationToken;

use super::{blocked::Unsendable, registry::Next};
use crate::{
    context::Context,
    database::RetryOutcome,
    lanes::{Blocked, Permit},
    metric,
    stages::sending::leased::{Leases, Unsent},
};

/// Maximum of deliveries, and of backlogs, in a statement.
const MAX_ROWS: usize = 512;
const MAX_BACKLOGS: usize = 256;

/// Maximum of backlogs without a place that a plan passes over.
const MAX_ASIDE: usize = 64;

/// Minimum wait for a token. A rate yields tokens singly: a lease takes the tokens of this time together.
const TOKENS_OF: Duration = Duration::from_millis(10);

pub(crate) struct Drain {
    pub(crate) context: Arc<Context>,
    pub(crate) leases: Leases,
    pub(crate) unsendable: mpsc::UnboundedSender<Unsendable>,
}

/// A backlog of the next statement, with a permit for each delivery.
struct Planned {
    endpoint: Arc<Endpoint>,
    floor: Floor,
    permits: Vec<Permit>,
    blocked: Option<Blocked>,
}

struct Plan {
    planned: Vec<Planned>,
    /// Endpoints whose open breaker permits no attempt, that rest, or that lack a token. First attempts must not pass
    /// beside their backlogs.
    closed: Vec<EndpointId>,
    /// Endpoints without a token, at most [`MAX_BACKLOGS`]: no lease tells whether their backlogs are empty.
    without_token: Vec<EndpointId>,
    /// Endpoints without room in the lane. First attempts beside an ending backlog may take all room: the backlog no
    /// longer ends.
    crowded: Vec<EndpointId>,
}

impl Drain {
    /// Drains until `stop`. `wakes` yields endpoints with room in the lane, or with a token.
    pub(crate) async fn run(self, mut wakes: mpsc::UnboundedReceiver<EndpointId>, stop: CancellationToken) {
        let context = &self.context;
        let (changed, freed) = (&context.backlogs.changed, &context.lanes.places.freed);
        loop {
            while let Ok(endpoint) = wakes.try_recv() {
                context.backlogs.wake(endpoint);
            }
            let next = context.backlogs.pass_time();
            let Plan { planned, closed, without_token, crowded } = self.plan();
            let probed = closed.iter().copied().chain(planned.iter().map(|planned| planned.endpoint.id));
            self.note_probes(probed).await;
            self.mark_ending([closed, crowded].concat(), false).await;
            let is_idle = planned.is_empty();
            if !is_idle {
                self.lease(planned).await;
            }
            self.end_empty(without_token).await;
            if !is_idle {
                if stop.is_cancelled() {
                    return;
                }
                continue;
            }
            tokio::select! {
                biased;
                () = stop.cancelled() => return,
                () = changed.notified() => {}
                () = freed.notified() => {}
                woken = wakes.recv() => match woken {
                    Some(endpoint) => context.backlogs.wake(endpoint),
                    None => return,
                },
                () = sleep_until(next.unwrap_or_else(Instant::now)), if next.is_some() => {}
            }
        }
    }

    /// Plans the next statement: the next backlogs with room, with a permit for each delivery.
    fn plan(&self) -> Plan {
        let context = &self.context;
        let (mut planned, mut closed) = (Vec::new(), Vec::new());
        let (mut without_token, mut crowded) = (Vec::new(), Vec::new());
        let mut busy: HashSet<ApplicationId> = HashSet::new();
        let (mut rows, mut aside) = (0, Vec::new());
        while planned.len() < MAX_BACKLOGS && rows < MAX_ROWS && aside.len() < MAX_ASIDE {
            let left = context.lanes.places.left_to_drains(context.events_wait()).min(MAX_ROWS - rows);
            if left == 0 || context.lanes.places.free() == 0 {
                break;
            }
            let Some(next) = context.backlogs.next(&busy) else { break };
            let Some(endpoint) = self.sendable(&next) else { continue };
            let reserved = context.lanes.reserve(&endpoint, left, next.bytes);
            let is_empty = reserved.permits.is_empty();
            rows += reserved.permits.len();
            match reserved.blocked {
                // Only the refusal of a fast endpoint shows that no endpoint of the application gets a place.
                Some(Blocked::Application | Blocked::Process) if reserved.is_fast => {
                    busy.insert(next.application);
                }
                Some(Blocked::Until(_, QueueReason::BreakerOpen | QueueReason::RetryAfter)) => {
                    closed.push(next.endpoint)
                }
                Some(Blocked::Until(_, QueueReason::TokenUnavailable)) => {
                    closed.push(next.endpoint);
                    // An open breaker or a rest keeps the backlog, so that other processes continue to queue.
                    let is_permitted = context.lanes.breaker(next.endpoint).permits(Instant::now());
                    if is_permitted && without_token.len() < MAX_BACKLOGS {
                        without_token.push(next.endpoint);
                    }
                }
                Some(Blocked::Lane) if is_empty => crowded.push(next.endpoint),
                _ => {}
            }
            if is_empty && matches!(reserved.blocked, Some(Blocked::Application | Blocked::Process)) {
                aside.push(next.endpoint);
                continue;
            }
            if is_empty {
                self.wait(next.endpoint, reserved.blocked);
                if let Some(Blocked::Until(_, QueueReason::TokenUnavailable)) = reserved.blocked
                    && context.lanes.tokens.permit(&endpoint)
                {
                    // The token came before the wait began.
                    context.backlogs.wake(next.endpoint);
                }
                continue;
            }
            let Next { floor, .. } = next;
            planned.push(Planned { endpoint, floor, permits: reserved.permits, blocked: reserved.blocked });
        }
        for endpoint in aside {
            context.backlogs.waits_for_place(endpoint);
        }
        Plan { planned, closed, without_token, crowded }
    }

    /// Returns the endpoint of a backlog, if enabled. Otherwise passes the backlog on to [`super::handle_blocked`].
    fn sendable(&self, next: &Next) -> Option<Arc<Endpoint>> {
        let endpoint = self.context.endpoint(next.application, next.endpoint);
        match endpoint {
            Some(endpoint) if endpoint.status == EndpointStatus::Enabled => Some(endpoint),
            endpoint => {
                let unsendable = Unsendable {
                    endpoint: next.endpoint,
                    application: next.application,
                    status: endpoint.map(|e| e.status),
                };
                let _ = self.unsendable.send(unsendable);
                None
            }
        }
    }

    fn wait(&self, endpoint: EndpointId, blocked: Option<Blocked>) {
        let backlogs = &self.context.backlogs;
        match blocked {
            None => backlogs.is_ready(endpoint),
            Some(Blocked::Lane) => {
                backlogs.waits_for_lane(endpoint);
                // The last attempt in the lane may have ended before the wait began.
                if self.context.lanes.has_room(endpoint) {
                    backlogs.wake(endpoint);
                }
            }
            Some(Blocked::Until(
                at,
                QueueReason::RateLimited | QueueReason::EgressUnavailable | QueueReason::RetryAfter,
            )) => {
                backlogs.waits_until(endpoint, at.max(Instant::now() + TOKENS_OF));
            }
            Some(Blocked::Until(at, QueueReason::TokenUnavailable)) => backlogs.waits_until_woken(endpoint, at),
            Some(Blocked::Until(at, _)) => {
                backlogs.waits_until_woken(endpoint, at);
                // The probe may have succeeded before the wait began.
                if self.context.lanes.breaker(endpoint).next_probe.is_none() {
                    backlogs.wake(endpoint);
                }
            }
            Some(Blocked::Application | Blocked::Process) => backlogs.waits_for_place(endpoint),
        }
    }

    /// Leases deliveries, passes the deliveries on to attempts, and ends empty backlogs.
    async fn lease(&self, planned: Vec<Planned>) {
        let context = &self.context;
        let process = context.process();
        let lease = LeaseId::new(context.database.now(), rand::random());
        let demands: Vec<Demand> = planned.iter().map(|planned| self.demand(planned)).collect();
        let began = Instant::now();
        let RetryOutcome { result, unknown_commit, tried_at } = context
            .database
            .retry_until_available("leasing deliveries", || context.database.store.lease(process, lease, &demands))
            .await;
        let leased = match result {
            // An earlier try may have committed without an answer: the last answer lacks the rows of that lease.
            Ok(_) if unknown_commit => {
                let store = &context.database.store;
                context.database.retry_until_available("looking for leases", || store.leased_under(lease)).await.result
            }
            result => result,
        };
        let mut leased = leased.unwrap_or_else(|error| {
            tracing::error!(%error, "cannot lease deliveries; trying again");
            Vec::new()
        });
        metrics::histogram!(metric::LEASE_SECONDS).record(began.elapsed());
        crash_point("delivery.leased");
        leased.sort_unstable_by_key(|leased| (leased.class, leased.delivery));
        let mut of_endpoint: HashMap<EndpointId, Vec<Leased>> = HashMap::new();
        for leased in leased {
            of_endpoint.entry(leased.endpoint).or_default().push(leased);
        }
        let (mut unsent, mut empty, mut busy) = (Unsent::default(), Vec::new(), Vec::new());
        for planned in planned {
            let leased = of_endpoint.remove(&planned.endpoint.id).unwrap_or_default();
            let is_dry = leased.len() < planned.permits.len();
            let (endpoint, blocked) = (planned.endpoint.id, planned.blocked);
            self.send(planned, leased, lease, tried_at, &mut unsent).await;
            if is_dry {
                empty.push(endpoint);
            } else {
                busy.push(endpoint);
                self.wait(endpoint, blocked);
            }
        }
        self.mark_ending(busy, false).await;
        self.leases.settle(unsent).await;
        if !empty.is_empty() {
            self.end(empty).await;
        }
    }

    fn demand(&self, planned: &Planned) -> Demand {
        let policy = &planned.endpoint.policy;
        Demand {
            endpoint: planned.endpoint.id,
            count: planned.permits.len(),
            after: planned.floor,
            lease: lease_duration(policy.timeout),
            lifetime: policy.lifetime(self.context.expiry),
        }
    }

    /// Passes the leased deliveries of a backlog on to attempts.
    async fn send(
        &self,
        planned: Planned,
        mut leased: Vec<Leased>,
        lease: LeaseId,
        leased_at: Instant,
        unsent: &mut Unsent,
    ) {
        let Planned { endpoint, permits, .. } = planned;
        // Two tries of the statement lease up to twice the demand, if the first try committed without an answer.
        let surplus = leased.split_off(permits.len().min(leased.len()));
        let reason = QueueReason::LaneFull;
        unsent.back.extend(surplus.iter().map(|leased| GiveBack { delivery: leased.delivery, lease, reason }));
        let Some(last) = leased.last() else { return };
        let floor = Floor { class: last.class, delivery: last.delivery };
        let lease = Lease { id: lease, duration: lease_duration(endpoint.policy.timeout) };
        let (mut bytes, count) = (0, leased.len());
        for (leased, permit) in leased.into_iter().zip(permits) {
            bytes += self.leases.pass_on(leased, (Arc::clone(&endpoint), permit), lease, leased_at, unsent).await;
        }
        self.context.backlogs.leased(endpoint.id, floor, bytes / count.max(1));
    }

    /// Ends empty backlogs. A backlog with a probe in flight stays, so that other processes continue to queue.
    async fn end(&self, empty: Vec<EndpointId>) {
        let context = &self.context;
        let (probing, empty): (Vec<_>, Vec<_>) =
            empty.into_iter().partition(|&endpoint| context.lanes.breaker(endpoint).is_probing);
        for endpoint in probing {
            context.backlogs.waits_for_lane(endpoint);
            if !context.lanes.breaker(endpoint).is_probing {
                context.backlogs.wake(endpoint);
            }
        }
        let going_on = self.end_empty(empty).await;
        for &endpoint in &going_on {
            context.backlogs.retry(endpoint);
        }
        self.mark_ending(going_on, true).await;
    }

    /// Ends the backlogs of `endpoints` without a queued delivery. Returns the others.
    async fn end_empty(&self, mut endpoints: Vec<EndpointId>) -> Vec<EndpointId> {
        if endpoints.is_empty() {
            return endpoints;
        }
        endpoints.sort_unstable();
        let context = &self.context;
        let (process, store) = (context.process(), &context.database.store);
        let ending = || store.end_backlogs(process, &endpoints);
        let tried = context.database.retry_until_available("ending backlogs", ending).await;
        let ended: HashSet<EndpointId> = tried.result.unwrap_or_default().into_iter().collect();
        crash_point("backlog.ended");
        endpoints.retain(|&endpoint| {
            // After an unknown commit the row may be gone already. If not, the look at owned backlogs finds the row.
            let has_ended = ended.contains(&endpoint) || tried.unknown_commit;
            if has_ended {
                context.end_backlog(endpoint);
            }
            !has_ended
        });
        if tried.unknown_commit {
            context.backlogs.look_for_more();
        }
        endpoints
    }

    /// Permits or forbids first attempts beside the backlogs of `endpoints`.
    async fn mark_ending(&self, mut endpoints: Vec<EndpointId>, is_ending: bool) {
        let context = &self.context;
        endpoints.retain(|&endpoint| context.lanes.set_ending(endpoint, is_ending));
        if endpoints.is_empty() {
            return;
        }
        endpoints.sort_unstable();
        let (process, store) = (context.process(), &context.database.store);
        let marking = || store.mark_ending(process, &endpoints, is_ending);
        if let Err(error) = context.database.retry_until_available("marking backlogs", marking).await.result {
            tracing::warn!(%error, "cannot update the marks of ending backlogs");
        }
    }

    /// Writes the changed breakers and rests, for the next owner and the API: a write for each probe.
    async fn note_probes(&self, endpoints: impl Iterator<Item = EndpointId>) {
        let context = &self.context;
        let mut probed: Vec<Probed> = endpoints.filter_map(|endpoint| context.changed_breaker(endpoint)).collect();
        if probed.is_empty() {
            return;
        }
        probed.sort_unstable_by_key(|probed| probed.endpoint);
        let (process, store) = (context.process(), &context.database.store);
        let noted =
            context.database.retry_until_available("noting probes", || store.note_probes(process, &probed)).await;
        if let Err(error) = noted.result {
            tracing::warn!(%error, "cannot write the breakers of backlogs; the next probe tries again");
        }
    }
}
