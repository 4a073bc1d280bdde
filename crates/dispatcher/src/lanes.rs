//! Lanes: bounds on the attempts to each endpoint. A slow or dead endpoint delays no other endpoint.
//!
//! An attempt needs a place in the process and room in the endpoint's lane. A first attempt or a due retry gets both at
//! once, or the delivery is queued ([`Lanes::admit`], [`Lanes::admit_retry`]). The owner of a backlog reserves as many
//! permits as the lane has room for ([`Lanes::reserve`]).

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
    delivery::{
        QueueReason,
        egress::Passage,
        lane::{self, Lane, MAX_EXPECTED_WAIT, Pace, bound_share},
        rate::Tokens,
    },
    endpoint::Endpoint,
    ids::EndpointId,
};
use tokio::{
    sync::{mpsc, oneshot},
    time::Instant,
};

pub(crate) use permit::{Permit, RecordPermit, Turn};
pub(crate) use places::{PlaceLimits, Places};

use crate::{access_tokens::AccessTokens, egress::Egress};
use per_endpoint::PerEndpoint;
use permit::{Admission, Slot};

/// Bytes of a payload, as expected before the lease.
pub(crate) const EXPECTED_BYTES: usize = 2048;

/// Interval of looks of a backlog that waits for a token. The arrival of a token wakes the backlog before.
const TOKEN_LOOKS: Duration = Duration::from_secs(5);

/// Origin of the lanes' time.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

fn elapsed() -> Duration {
    START.elapsed()
}

/// All lanes and the places of the process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lanes {
    lanes: Arc<PerEndpoint<Entry>>,
    limits: lane::Limits,
    pub(crate) places: Arc<Places>,
    pub(crate) egress: Egress,
    /// Tokens of endpoints with OAuth 2.0.
    pub(crate) tokens: AccessTokens,
    /// Number of living dispatchers, including this process.
    dispatchers: Arc<AtomicUsize>,
    wakes: mpsc::UnboundedSender<EndpointId>,
}

/// Lanes at an instant, for metrics.
#[derive(Debug, Default, Clone, Copy)]
pub(crate) struct LaneReport {
    /// Number of lanes with [`Pace::Slow`].
    pub(crate) slow: usize,
    /// Number of lanes with an open breaker.
    pub(crate) open: usize,
}

/// Permits for a backlog, and the reason for not reserving more.
pub(crate) struct Reserved {
    pub(crate) permits: Vec<Permit>,
    pub(crate) blocked: Option<Blocked>,
    /// True if the endpoint is known to be fast: no other endpoint of the application would get more places.
    pub(crate) is_fast: bool,
}

/// Reason why a backlog gets no further permit now.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Blocked {
    /// The lane is full: the end of an attempt wakes the drain.
    Lane,
    /// The rate, the breaker or the endpoint itself permits no attempt before the instant, or the token is looked for
    /// again then.
    Until(Instant, QueueReason),
    /// The application's share of the places is in use.
    Application,
    /// The process has no free place.
    Process,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct BreakerState {
    pub(crate) failures: u32,
    /// `None` if the breaker is closed.
    pub(crate) next_probe: Option<Instant>,
    pub(crate) is_probing: bool,
    /// `None` if the endpoint does not rest.
    pub(crate) rests_until: Option<Instant>,
}

impl BreakerState {
    /// True if the endpoint may get an attempt at `now`: no probe is in flight or to come, and the endpoint does not
    /// rest.
    pub(crate) fn permits(&self, now: Instant) -> bool {
        !self.is_probing && self.next_probe.is_none_or(|at| at <= now) && self.rests_until.is_none()
    }
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
    /// Number of deliveries in flight or waiting for a slot.
    admitted: usize,
    /// Number of slots in use.
    turns: usize,
    /// Deliveries waiting for a slot, in order. A dropped sender means that no slot comes in time.
    waiting: VecDeque<oneshot::Sender<Slot>>,
    /// Start of each attempt in flight, in order.
    started: Vec<Instant>,
    /// True if this process drains the endpoint's backlog, and has the whole bound and the whole rate.
    is_owned: bool,
    /// True if the backlog is about to end: first attempts pass beside the backlog.
    is_ending: bool,
}

impl Lanes {
    /// Creates lanes with `limits` behind the gate of our egress and the tokens of endpoints. `wakes` receives the
    /// endpoint of an owned backlog when the lane has room again.
    pub(crate) fn new(
        limits: lane::Limits,
        places: PlaceLimits,
        (egress, tokens): (Egress, AccessTokens),
        wakes: mpsc::UnboundedSender<EndpointId>,
    ) -> Self {
        Self {
            lanes: Arc::new(PerEndpoint::new()),
            limits,
            places: Places::new(places),
            egress,
            tokens,
            dispatchers: Arc::new(AtomicUsize::new(1)),
            wakes,
        }
    }

    /// Sets the number of dispatchers that share each endpoint's bound and rate.
    pub(crate) fn set_dispatchers(&self, count: usize) {
        self.dispatchers.store(count.max(1), Ordering::Release);
    }

    /// Admits the first attempt of a delivery: grants place, room and token at once, or nothing.
    ///
    /// # Errors
    /// The reason to queue the delivery.
    pub(crate) fn admit(&self, endpoint: &Endpoint, bytes: usize) -> Result<Permit, QueueReason> {
        self.admit_as(endpoint, bytes, false)
    }

    /// Admits a due retry. Retries share the drains' part of the places. `None` behind an open breaker: a probe must be
    /// made, and the row may be stale. `None` also while the endpoint rests.
    pub(crate) fn admit_retry(&self, endpoint: &Endpoint) -> Option<Permit> {
        let is_open = self.entry(endpoint.id).lane().lane.next_probe().is_some();
        // The payload's size is known only after the lease.
        (!is_open).then(|| self.admit_as(endpoint, EXPECTED_BYTES, true).ok())?
    }

    fn admit_as(&self, endpoint: &Endpoint, bytes: usize, is_drained: bool) -> Result<Permit, QueueReason> {
        let entry = self.entry(endpoint.id);
        let mut lane = entry.lane();
        lane.used = Instant::now();
        if lane.is_owned && !lane.is_ending {
            return Err(QueueReason::Backlog);
        }
        let now = elapsed();
        if lane.lane.rests_until(now).is_some() {
            return Err(QueueReason::RetryAfter);
        }
        if !self.tokens.permit(endpoint) {
            return Err(QueueReason::TokenUnavailable);
        }
        let (bound, age) = (lane.bound(&entry), lane.age(&entry));
        if lane.lane.expected_wait(lane.admitted, bound, age) > MAX_EXPECTED_WAIT {
            return Err(QueueReason::LaneFull);
        }
        let rate = lane.rate(&entry, endpoint);
        if rate.is_some_and(|rate| lane.tokens.available(now, rate) == 0) {
            return Err(QueueReason::RateLimited);
        }
        let place = self.places.take(endpoint.application, lane.lane.pace(), bytes, is_drained)?;
        self.egress.reserve().map_err(|_| QueueReason::EgressUnavailable)?;
        // The last check: an attempt that passes an open breaker is the probe, and must be made.
        lane.lane.breaker().pass(now).map_err(|_| QueueReason::BreakerOpen)?;
        if let Some(rate) = rate {
            lane.tokens.take(now, rate, 1);
        }
        lane.admitted += 1;
        drop(lane);
        Ok(Permit { place, admission: Admission(entry) })
    }

    /// Reserves permits for the next deliveries of an owned backlog: at most `most`, with payloads of about `bytes`.
    pub(crate) fn reserve(&self, endpoint: &Endpoint, most: usize, bytes: usize) -> Reserved {
        let entry = self.entry(endpoint.id);
        let mut lane = entry.lane();
        let mut reserved = Reserved { permits: Vec::new(), blocked: None, is_fast: lane.lane.pace() == Pace::Fast };
        lane.used = Instant::now();
        let now = elapsed();
        if !self.tokens.permit(endpoint) {
            reserved.blocked = Some(Blocked::Until(Instant::now() + TOKEN_LOOKS, QueueReason::TokenUnavailable));
            return reserved;
        }
        let rate = lane.rate(&entry, endpoint);
        while reserved.permits.len() < most && reserved.blocked.is_none() {
            if lane.admitted >= lane.bound(&entry) {
                reserved.blocked = Some(Blocked::Lane);
                break;
            }
            if let Some(until) = lane.lane.rests_until(now) {
                reserved.blocked = Some(Blocked::Until(*START + until, QueueReason::RetryAfter));
                break;
            }
            if let Some(rate) = rate.filter(|&rate| lane.tokens.available(now, rate) == 0) {
                let next = *START + lane.tokens.next(now, rate);
                reserved.blocked = Some(Blocked::Until(next, QueueReason::RateLimited));
                break;
            }
            // An open breaker permits a single probe at a time.
            if let Some(next) = lane.lane.next_probe().filter(|&next| now < next) {
                reserved.blocked = Some(Blocked::Until(*START + next, QueueReason::BreakerOpen));
                break;
            }
            match self.places.take(endpoint.application, lane.lane.pace(), bytes, true) {
                Err(QueueReason::ApplicationBusy) => reserved.blocked = Some(Blocked::Application),
                Err(_) => reserved.blocked = Some(Blocked::Process),
                Ok(place) => {
                    match self.egress.reserve() {
                        Ok(Passage::Open) => {}
                        // A single probe for all endpoints.
                        Ok(Passage::Probe) => {
                            reserved.blocked = Some(Blocked::Until(Instant::now(), QueueReason::EgressUnavailable));
                        }
                        Err(at) => {
                            reserved.blocked = Some(Blocked::Until(at, QueueReason::EgressUnavailable));
                            break;
                        }
                    }
                    // The breaker permits the attempt: `next_probe` was checked above.
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

    /// Grants a permit to a delivery that is sent alone, beyond all bounds.
    pub(crate) fn alone(&self, endpoint: &Endpoint, bytes: usize) -> Permit {
        let entry = self.entry(endpoint.id);
        entry.lane().admitted += 1;
        Permit { place: self.places.take_alone(endpoint.application, bytes), admission: Admission(entry) }
    }

    /// Sets whether this process drains the endpoint's backlog.
    pub(crate) fn set_owned(&self, endpoint: EndpointId, is_owned: bool) {
        let entry = self.entry(endpoint);
        let mut lane = entry.lane();
        (lane.is_owned, lane.is_ending) = (is_owned, false);
        drop(lane);
        if is_owned {
            // The last attempt in the lane may have ended before: only the end in an owned lane wakes the drain.
            entry.wake_drain();
        }
    }

    /// Permits or forbids first attempts beside the endpoint's backlog. True if the lane has changed.
    pub(crate) fn set_ending(&self, endpoint: EndpointId, is_ending: bool) -> bool {
        let entry = self.entry(endpoint);
        let mut lane = entry.lane();
        let before = lane.is_ending;
        lane.is_ending = is_ending && lane.is_owned;
        before != lane.is_ending
    }

    /// Resumes the open breaker of the backlog's last owner.
    pub(crate) fn resume_breaker(&self, endpoint: EndpointId, failures: u32, next_in: Duration) {
        self.entry(endpoint).lane().lane.resume_breaker(failures, elapsed() + next_in);
    }

    /// Resumes the rest of an endpoint that another process noted.
    pub(crate) fn resume_rest(&self, endpoint: EndpointId, ends_in: Duration) {
        self.entry(endpoint).lane().lane.rest(elapsed() + ends_in);
    }

    /// Makes the drain look at an endpoint's backlog that waits for a token.
    pub(crate) fn wake_drain(&self, endpoint: EndpointId) {
        // The receiver ends only with the process.
        let _ = self.wakes.send(endpoint);
    }

    /// True if the lane of an endpoint has room for another attempt.
    pub(crate) fn has_room(&self, endpoint: EndpointId) -> bool {
        let entry = self.entry(endpoint);
        let lane = entry.lane();
        lane.admitted < lane.bound(&entry)
    }

    pub(crate) fn breaker(&self, endpoint: EndpointId) -> BreakerState {
        let entry = self.entry(endpoint);
        let mut lane = entry.lane();
        BreakerState {
            failures: lane.lane.failures(),
            next_probe: lane.lane.next_probe().map(|at| *START + at),
            is_probing: lane.lane.breaker().is_probing() && lane.admitted > 0,
            rests_until: lane.lane.rests_until(elapsed()).map(|at| *START + at),
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

    /// Reports all lanes, and forgets lanes without an attempt for long.
    pub(crate) async fn report(&self) -> LaneReport {
        let mut report = LaneReport::default();
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
    /// Maximum of attempts in flight from this process.
    fn bound(&self, entry: &Entry) -> usize {
        if self.is_owned { self.lane.bound() } else { bound_share(self.lane.bound(), entry.dispatchers()) }
    }

    /// Maximum of attempts a second from this process; `None` if the endpoint has no rate.
    fn rate(&self, entry: &Entry, endpoint: &Endpoint) -> Option<f64> {
        let whole = f64::from(endpoint.policy.rate_per_second?);
        Some(if self.is_owned { whole } else { whole / entry.dispatchers() as f64 })
    }

    /// Age reached by as many attempts in flight as half of the bound; zero if fewer are in flight. A single slow
    /// attempt of many thus holds up nothing.
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
        // The receiver ends only with the process.
        let _ = self.wakes.send(self.endpoint);
    }

    /// Gives free slots to waiting deliveries.
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
            // If the delivery waits no more, the send fails and drops the slot, which is then free again.
            let _ = next.send(Slot { entry: Arc::clone(self), started: None });
        }
    }
}
