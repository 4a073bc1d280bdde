//! Lanes: one for each endpoint, which bounds its attempts, so that a slow or dead endpoint delays no other.
//!
//! An attempt needs a place in the process and room in its endpoint's lane. A first attempt gets both at once or its delivery
//! is queued ([`Lanes::admit`]). The owner of a backlog takes what its endpoint has room for ([`Lanes::reserve`]).

mod per_endpoint;
mod permit;
mod places;

use std::{
    collections::VecDeque,
    sync::{
        Arc, LazyLock, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use fanfare_domain::{
    application::Endpoint,
    delivery::QueueReason,
    ids::EndpointId,
    lane::{self, Lane, MAX_EXPECTED_WAIT, Pace, bound_share},
    rate::Tokens,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

pub(crate) use permit::{Permit, RecordPermit, Turn};
pub(crate) use places::{PlaceLimits, Places};

use per_endpoint::PerEndpoint;
use permit::{Admission, Slot};

/// The moment that lanes count from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn elapsed() -> Duration {
    START.elapsed()
}

/// All lanes and the places of the process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lanes {
    lanes: Arc<PerEndpoint<Entry>>,
    limits: lane::Limits,
    /// The places of the process.
    pub(crate) places: Arc<Places>,
    /// Dispatchers that live, this one among them.
    dispatchers: Arc<AtomicUsize>,
    wakes: mpsc::UnboundedSender<EndpointId>,
}

/// Lanes and places at one instant, for metrics.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct LaneReport {
    /// Lanes whose attempts take longer than a second.
    pub(crate) slow: usize,
    /// Lanes whose breaker is open.
    pub(crate) open: usize,
    /// Places in use.
    pub(crate) places: usize,
}

/// The permits that a backlog's owner got, and why it got no more.
pub(crate) struct Reserved {
    pub(crate) permits: Vec<Permit>,
    pub(crate) blocked: Option<Blocked>,
    /// The endpoint is known to be fast: no other endpoint of its application would get more places.
    pub(crate) is_fast: bool,
}

/// Why a backlog cannot be drained on now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// Its lane is full: the end of one of its attempts wakes the drain.
    Lane,
    /// Its rate or its breaker lets nothing pass before then.
    Until(Instant, QueueReason),
    /// Its application's share is in use.
    Application,
    /// The process has no place left.
    Process,
}

/// The breaker of an endpoint after an attempt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BreakerState {
    pub(crate) failures: u32,
    /// `None` where the breaker is closed.
    pub(crate) next_probe: Option<Instant>,
    pub(crate) is_probing: bool,
}

struct Entry {
    endpoint: EndpointId,
    state: Mutex<LaneState>,
    dispatchers: Arc<AtomicUsize>,
    wakes: mpsc::UnboundedSender<EndpointId>,
}

struct LaneState {
    lane: Lane,
    tokens: Tokens,
    used: Instant,
    /// Deliveries that are in flight or wait for their turn.
    admitted: usize,
    /// Deliveries whose turn it is.
    turns: usize,
    /// Deliveries that wait for their turn, in order. A sender that is dropped says that it will not come in time.
    waiting: VecDeque<oneshot::Sender<Slot>>,
    /// When each attempt in flight began, in order.
    started: Vec<Instant>,
    /// This process drains the endpoint's backlog: it has the whole bound and the whole rate.
    is_owned: bool,
    /// The backlog is about to end: first attempts pass beside it.
    is_ending: bool,
}

impl Lanes {
    /// Lanes with these limits. The owner of a backlog is woken by `wakes` when its lane has room.
    pub(crate) fn new(limits: lane::Limits, places: PlaceLimits, wakes: mpsc::UnboundedSender<EndpointId>) -> Self {
        Self {
            lanes: Arc::new(PerEndpoint::new()),
            limits,
            places: Places::new(places),
            dispatchers: Arc::new(AtomicUsize::new(1)),
            wakes,
        }
    }

    /// The number of dispatchers that share each endpoint's bound and rate.
    pub(crate) fn set_dispatchers(&self, count: usize) {
        self.dispatchers.store(count.max(1), Ordering::Release);
    }

    /// A permit for the first attempt of a delivery, which gets all that it needs at once.
    ///
    /// # Errors
    /// Why the delivery is queued.
    pub(crate) fn admit(&self, endpoint: &Endpoint, bytes: usize) -> Result<Permit, QueueReason> {
        let entry = self.entry(endpoint.id);
        let mut lane = entry.lane();
        lane.used = Instant::now();
        if lane.is_owned && !lane.is_ending {
            return Err(QueueReason::Backlog);
        }
        let (bound, age) = (lane.bound(&entry), lane.age(&entry));
        if lane.lane.expected_wait(lane.admitted, bound, age) > MAX_EXPECTED_WAIT {
            return Err(QueueReason::LaneFull);
        }
        let (now, rate) = (elapsed(), lane.rate(&entry, endpoint));
        if rate.is_some_and(|rate| lane.tokens.available(now, rate) == 0) {
            return Err(QueueReason::RateLimited);
        }
        let place = self.places.take(endpoint.application, lane.lane.pace(), bytes, false)?;
        // At last: an attempt that passes an open breaker is its probe.
        lane.lane.breaker().pass(now).map_err(|_| QueueReason::BreakerOpen)?;
        if let Some(rate) = rate {
            lane.tokens.take(now, rate, 1);
        }
        lane.admitted += 1;
        drop(lane);
        Ok(Permit { place, admission: Admission(entry) })
    }

    /// Permits for the next deliveries of a backlog that this process owns, `most` at most, of some `bytes` each.
    pub(crate) fn reserve(&self, endpoint: &Endpoint, most: usize, bytes: usize) -> Reserved {
        let entry = self.entry(endpoint.id);
        let mut lane = entry.lane();
        let mut reserved = Reserved { permits: Vec::new(), blocked: None, is_fast: lane.lane.pace() == Pace::Fast };
        lane.used = Instant::now();
        let now = elapsed();
        let rate = lane.rate(&entry, endpoint);
        while reserved.permits.len() < most && reserved.blocked.is_none() {
            if lane.admitted >= lane.bound(&entry) {
                reserved.blocked = Some(Blocked::Lane);
                break;
            }
            if let Some(rate) = rate.filter(|&rate| lane.tokens.available(now, rate) == 0) {
                let next = *START + lane.tokens.next(now, rate);
                reserved.blocked = Some(Blocked::Until(next, QueueReason::RateLimited));
                break;
            }
            // An open breaker lets one probe pass at a time.
            if let Some(next) = lane.lane.next_probe().filter(|&next| now < next) {
                reserved.blocked = Some(Blocked::Until(*START + next, QueueReason::BreakerOpen));
                break;
            }
            match self.places.take(endpoint.application, lane.lane.pace(), bytes, true) {
                Err(QueueReason::ApplicationBusy) => reserved.blocked = Some(Blocked::Application),
                Err(_) => reserved.blocked = Some(Blocked::Process),
                Ok(place) => {
                    // It passes: the look above says so.
                    let _ = lane.lane.breaker().pass(now);
                    if let Some(rate) = rate {
                        lane.tokens.take(now, rate, 1);
                    }
                    lane.admitted += 1;
                    reserved.permits.push(Permit { place, admission: Admission(Arc::clone(&entry)) });
                }
            }
        }
        drop(lane);
        reserved
    }

    /// A permit for a delivery that is sent alone.
    pub(crate) fn alone(&self, endpoint: &Endpoint, bytes: usize) -> Permit {
        let entry = self.entry(endpoint.id);
        entry.lane().admitted += 1;
        Permit { place: self.places.take_alone(endpoint.application, bytes), admission: Admission(entry) }
    }

    /// Notes that this process drains the endpoint's backlog, or does so no more.
    pub(crate) fn set_owned(&self, endpoint: EndpointId, is_owned: bool) {
        let entry = self.entry(endpoint);
        let mut lane = entry.lane();
        (lane.is_owned, lane.is_ending) = (is_owned, false);
    }

    /// Lets first attempts pass beside the endpoint's backlog, or no longer. Says whether that is a change.
    pub(crate) fn set_ending(&self, endpoint: EndpointId, is_ending: bool) -> bool {
        let entry = self.entry(endpoint);
        let mut lane = entry.lane();
        let before = lane.is_ending;
        lane.is_ending = is_ending && lane.is_owned;
        before != lane.is_ending
    }

    /// Continues with the breaker that the last owner of a backlog left open.
    pub(crate) fn resume_breaker(&self, endpoint: EndpointId, failures: u32, next_in: Duration) {
        self.entry(endpoint).lane().lane.resume_breaker(failures, elapsed() + next_in);
    }

    /// Whether the lane of an endpoint has room for one more attempt.
    pub(crate) fn has_room(&self, endpoint: EndpointId) -> bool {
        let entry = self.entry(endpoint);
        let lane = entry.lane();
        lane.admitted < lane.bound(&entry)
    }

    /// The breaker of an endpoint.
    pub(crate) fn breaker(&self, endpoint: EndpointId) -> BreakerState {
        let entry = self.entry(endpoint);
        let mut lane = entry.lane();
        BreakerState {
            failures: lane.lane.failures(),
            next_probe: lane.lane.next_probe().map(|at| *START + at),
            is_probing: lane.lane.breaker().is_probing() && lane.admitted > 0,
        }
    }

    fn entry(&self, endpoint: EndpointId) -> Arc<Entry> {
        self.lanes.get(endpoint, || Entry {
            endpoint,
            state: Mutex::new(LaneState {
                lane: Lane::new(self.limits),
                tokens: Tokens::default(),
                used: Instant::now(),
                admitted: 0,
                turns: 0,
                waiting: VecDeque::new(),
                started: Vec::new(),
                is_owned: false,
                is_ending: false,
            }),
            dispatchers: Arc::clone(&self.dispatchers),
            wakes: self.wakes.clone(),
        })
    }

    /// Reports all lanes, and forgets the lanes of endpoints that nothing has been sent to for long.
    pub(crate) async fn report(&self) -> LaneReport {
        let mut report = LaneReport { places: self.places.used_places(), ..LaneReport::default() };
        let now = Instant::now();
        let is_kept = |entry: &Entry| {
            let lane = entry.lane();
            report.slow += usize::from(lane.lane.pace() == Pace::Slow);
            report.open += usize::from(lane.lane.next_probe().is_some());
            lane.is_owned || !lane.lane.is_forgettable(now.saturating_duration_since(lane.used))
        };
        self.lanes.retain(is_kept).await;
        report
    }
}

impl LaneState {
    /// The attempts that this process may have in flight.
    fn bound(&self, entry: &Entry) -> usize {
        if self.is_owned { self.lane.bound() } else { bound_share(self.lane.bound(), entry.dispatchers()) }
    }

    /// The attempts that this process may begin in a second, where the endpoint has a rate.
    fn rate(&self, entry: &Entry, endpoint: &Endpoint) -> Option<f64> {
        let whole = f64::from(endpoint.policy.rate_per_second?);
        Some(if self.is_owned { whole } else { whole / entry.dispatchers() as f64 })
    }

    /// The age that half of the attempts that may be in flight have at least: one slow attempt of many holds up nothing.
    fn age(&self, entry: &Entry) -> Duration {
        let half = (self.bound(entry) - 1) / 2;
        self.started.get(half).map(Instant::elapsed).unwrap_or_default()
    }
}

impl Entry {
    fn lane(&self) -> MutexGuard<'_, LaneState> {
        // No holder of this lock can panic halfway.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn dispatchers(&self) -> usize {
        self.dispatchers.load(Ordering::Acquire).max(1)
    }

    fn wake_drain(&self) {
        // Without a receiver the process stops.
        let _ = self.wakes.send(self.endpoint);
    }

    /// Gives free slots to the deliveries that wait for them.
    fn grant(self: &Arc<Self>) {
        loop {
            let mut lane = self.lane();
            if lane.turns >= lane.bound(self).max(1) {
                return;
            }
            let Some(next) = lane.waiting.pop_front() else { return };
            if next.is_closed() {
                continue;
            }
            lane.turns += 1;
            drop(lane);
            // A slot that its delivery does not wait for any more is free again when it is dropped.
            let _ = next.send(Slot { entry: Arc::clone(self), started: None });
        }
    }
}
