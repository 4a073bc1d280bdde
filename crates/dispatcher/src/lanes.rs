//! A lane for each endpoint, which bounds its attempts on their way, so that a slow or dead endpoint delays nobody else.
//! A delivery is admitted to it before it is taken, and has its turn in it when it is sent.

mod budgets;
mod turn;

use std::{
    collections::VecDeque,
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fanfare_domain::{
    application::Endpoint,
    deferral::deferral_wait,
    delivery::DeferralReason,
    ids::{ApplicationId, EndpointId},
    lane::{self, Lane, MAX_EXPECTED_WAIT, Pace},
};
use fanfare_store::LaneView;
use tokio::{sync::oneshot, time::Instant};

pub(crate) use turn::{Ticket, Turn, Unrecorded};

use crate::{metric, per_endpoint::PerEndpoint, rates::Rates};
use budgets::{Share, Shares};
use turn::Slot;

/// What the moments of breakers are counted from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// All lanes, and the budgets of the process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lanes {
    lanes: Arc<PerEndpoint<Entry>>,
    limits: lane::Limits,
    shares: Arc<Shares>,
}

/// What there is to see of the lanes, and how much of the budgets is used.
#[derive(Default)]
pub(crate) struct Look {
    /// Those that there is something to see of.
    pub(crate) lanes: Vec<LaneView>,
    /// How many have deliveries that wait for their turn, are slow, and have an open breaker.
    pub(crate) waiting: usize,
    pub(crate) slow: usize,
    pub(crate) open: usize,
    pub(crate) fast_used: usize,
    pub(crate) slow_used: usize,
}

struct Entry {
    endpoint: EndpointId,
    /// Its application's.
    share: Arc<Share>,
    traffic: Mutex<Traffic>,
}

struct Traffic {
    lane: Lane,
    /// When somebody last asked for a place.
    used: Instant,
    /// Deliveries that are on their way or wait for their turn.
    admitted: usize,
    /// Those whose turn it is.
    turns: usize,
    /// Those who wait for it, in their order. Where a sender is dropped, the turn will not come in time.
    waiting: VecDeque<oneshot::Sender<Slot>>,
    /// When each attempt on its way began, in their order.
    started: Vec<Instant>,
}

impl Lanes {
    /// Lanes with these limits in a process that may have so many attempts on their way that are fast, and so many that
    /// are slow.
    pub(crate) fn new(limits: lane::Limits, fast: usize, slow: usize) -> Self {
        Self { lanes: Arc::new(PerEndpoint::new()), limits, shares: Arc::new(Shares::new(fast, slow)) }
    }

    /// A place in the endpoint's lane, or why there is none, and how long its delivery is put off for the
    /// `deferrals`-th time in a row.
    fn admit(&self, endpoint: &Endpoint, deferrals: u32) -> Result<Ticket, (DeferralReason, Duration)> {
        let later = |reason| (reason, deferral_wait(deferrals, rand::random()));
        let entry = self.entry(endpoint.id, endpoint.application);
        let mut traffic = entry.traffic();
        traffic.used = Instant::now();
        if traffic.lane.expected_wait(traffic.admitted, traffic.age()) > MAX_EXPECTED_WAIT {
            return Err(later(DeferralReason::LaneFull));
        }
        let slow = match traffic.lane.pace() {
            Pace::Fast if entry.share.is_stuck() => return Err(later(DeferralReason::ApplicationBusy)),
            Pace::Fast => None,
            pace => Some(entry.share.try_slow(pace).map_err(later)?),
        };
        // At last: whoever passes an open breaker is its probe.
        let passed = traffic.lane.breaker().pass(START.elapsed(), deferrals, rand::random());
        passed.map_err(|wait| (DeferralReason::BreakerOpen, wait))?;
        traffic.admitted += 1;
        drop(traffic);
        Ok(Ticket { entry, slow })
    }

    fn entry(&self, endpoint: EndpointId, application: ApplicationId) -> Arc<Entry> {
        self.lanes.get(endpoint, || {
            let traffic = Traffic {
                lane: Lane::new(self.limits),
                used: Instant::now(),
                admitted: 0,
                turns: 0,
                waiting: VecDeque::new(),
                started: Vec::new(),
            };
            Entry { endpoint, share: self.shares.of(application), traffic: Mutex::new(traffic) }
        })
    }

    /// Looks at all lanes, and forgets those of endpoints that nobody has sent to for long.
    pub(crate) async fn look(&self) -> Look {
        let mut look = Look::default();
        let now = Instant::now();
        let is_kept = |entry: &Entry| {
            let traffic = entry.traffic();
            look.see(traffic.view(entry.endpoint));
            !traffic.lane.is_forgettable(now.saturating_duration_since(traffic.used))
        };
        self.lanes.retain(is_kept).await;
        self.shares.forget_unused();
        (look.fast_used, look.slow_used) = self.shares.used();
        look
    }
}

/// A place in an endpoint's lane, or why its delivery is put off for the `deferrals`-th time, and for how long.
pub(crate) fn admit(
    lanes: &Lanes,
    rates: &Rates,
    endpoint: &Endpoint,
    deferrals: u32,
) -> Result<Ticket, (DeferralReason, Duration)> {
    let used_up = endpoint.policy.rate_per_second.and_then(|rate| rates.used_up(endpoint.id, rate));
    let deferral = match used_up {
        Some(wait) => (DeferralReason::RateLimited, wait),
        None => match lanes.admit(endpoint, deferrals) {
            Ok(ticket) => return Ok(ticket),
            Err(deferral) => deferral,
        },
    };
    metrics::counter!(metric::DEFERRALS, "reason" => deferral.0.as_str()).increment(1);
    Err(deferral)
}

impl Look {
    fn see(&mut self, lane: Option<LaneView>) {
        let Some(lane) = lane else { return };
        self.waiting += usize::from(lane.waiting > 0);
        self.slow += usize::from(lane.pace == Pace::Slow);
        self.open += usize::from(lane.open_until.is_some());
        self.lanes.push(lane);
    }
}

impl Traffic {
    /// What there is to see of it, if there is anything.
    fn view(&self, endpoint: EndpointId) -> Option<LaneView> {
        let waiting = self.waiting.iter().filter(|one| !one.is_closed()).count();
        self.lane.is_notable(waiting).then(|| LaneView {
            endpoint,
            in_flight: self.started.len(),
            bound: self.lane.bound(),
            waiting,
            pace: self.lane.pace(),
            failures: self.lane.failures(),
            open_until: self.lane.next_probe().map(|at| (*START + at).into_std()),
        })
    }

    /// How long half of the attempts that may be on their way have taken at least, so far: one of many that is slow holds
    /// up nobody.
    fn age(&self) -> Duration {
        let half = (self.lane.bound() - 1) / 2;
        self.started.get(half).map(Instant::elapsed).unwrap_or_default()
    }
}

impl Entry {
    /// Nothing that holds this lock can panic halfway.
    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Gives free turns to those who wait for them.
    fn next(self: &Arc<Self>) {
        loop {
            let mut traffic = self.traffic();
            if traffic.turns >= traffic.lane.bound() {
                return;
            }
            let Some(next) = traffic.waiting.pop_front() else { return };
            if next.is_closed() {
                continue;
            }
            traffic.turns += 1;
            drop(traffic);
            // One that nobody waits for any more comes back, and is free again.
            let _ = next.send(Slot { entry: Arc::clone(self), started: None });
        }
    }
}
