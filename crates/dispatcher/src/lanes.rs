//! A lane for each endpoint, which bounds its attempts on their way, and the two budgets of the process, so that a slow
//! or dead endpoint delays nobody else.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fanfare_domain::{
    application::Endpoint,
    delivery::DeferralReason,
    ids::EndpointId,
    lane::{self, Lane, MAX_EXPECTED_WAIT, Pace, SLOW_AFTER, Switched, deferral_wait},
    outcome::Outcome,
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, oneshot},
    time::Instant,
};

use crate::{metric, rates::Rates};

/// What the moments of breakers are counted from.
static START: LazyLock<Instant> = LazyLock::new(Instant::now);

/// All lanes, and the budgets of the process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lanes {
    lanes: Arc<Mutex<HashMap<EndpointId, Arc<Entry>>>>,
    limits: lane::Limits,
    budgets: Arc<Budgets>,
}

/// Attempts that may be on their way in the whole process. One uses the fast budget for its first second only, and then
/// the slow one; one to an endpoint that has not proven itself uses the slow one from the start. However many endpoints
/// hang, they use up nothing but that.
struct Budgets {
    fast: Arc<Semaphore>,
    slow: Arc<Semaphore>,
    slow_size: usize,
}

impl Budgets {
    /// A part of the slow budget. What is known to be slow gets none of the last quarter: those whom nobody knows yet
    /// would have to wait for it.
    fn slow(&self, pace: Pace) -> Option<OwnedSemaphorePermit> {
        let is_free = pace == Pace::Unknown || self.slow.available_permits() > self.slow_size / 4;
        is_free.then(|| Arc::clone(&self.slow).try_acquire_owned().ok())?
    }
}

struct Entry {
    endpoint: EndpointId,
    budgets: Arc<Budgets>,
    traffic: Mutex<Traffic>,
}

struct Traffic {
    lane: Lane,
    /// Deliveries that are on their way or wait for their turn.
    admitted: usize,
    /// Those whose turn it is.
    turns: usize,
    /// Those who wait for it, in their order. Where a sender is dropped, the turn will not come in time.
    waiting: VecDeque<oneshot::Sender<Slot>>,
    /// When each attempt on its way began, in their order.
    started: Vec<Instant>,
}

/// A place in a lane. Given up when it is dropped.
pub(crate) struct Ticket {
    entry: Arc<Entry>,
    /// For endpoints that are not known to be fast.
    slow: Option<OwnedSemaphorePermit>,
}

/// One of the attempts that a lane lets be on their way at once.
struct Slot {
    entry: Arc<Entry>,
    started: Option<Instant>,
}

/// The right to attempt now.
pub(crate) struct Turn {
    started: Instant,
    budget: OwnedSemaphorePermit,
    is_slow: bool,
    slot: Slot,
    _ticket: Ticket,
}

/// The process's part of a turn. To be kept until the attempt is recorded: what is sent and not recorded
/// is sent again when the process dies, and must be bounded whatever the database does.
pub(crate) struct Unrecorded {
    _budget: OwnedSemaphorePermit,
}

impl Lanes {
    /// Lanes with these limits in a process that may have so many attempts on their way that are fast, and so many that
    /// are slow.
    pub(crate) fn new(limits: lane::Limits, fast: usize, slow: usize) -> Self {
        let budgets =
            Budgets { fast: Arc::new(Semaphore::new(fast)), slow: Arc::new(Semaphore::new(slow)), slow_size: slow };
        Self { lanes: Arc::default(), limits, budgets: Arc::new(budgets) }
    }

    /// A place in the endpoint's lane, or why there is none, and how long its delivery is put off for the
    /// `deferrals`-th time in a row.
    fn admit(&self, endpoint: EndpointId, deferrals: u32) -> Result<Ticket, (DeferralReason, Duration)> {
        let full = || (DeferralReason::LaneFull, deferral_wait(deferrals, rand::random()));
        let entry = self.entry(endpoint);
        let mut traffic = entry.traffic();
        if traffic.lane.expected_wait(traffic.admitted, traffic.age()) > MAX_EXPECTED_WAIT {
            return Err(full());
        }
        let slow = match traffic.lane.pace() {
            Pace::Fast => None,
            pace => Some(self.budgets.slow(pace).ok_or_else(full)?),
        };
        // At last: whoever passes an open breaker is its probe.
        let passed = traffic.lane.breaker().pass(START.elapsed(), deferrals, rand::random());
        passed.map_err(|wait| (DeferralReason::BreakerOpen, wait))?;
        traffic.admitted += 1;
        drop(traffic);
        Ok(Ticket { entry, slow })
    }

    fn entry(&self, endpoint: EndpointId) -> Arc<Entry> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = lanes.entry(endpoint).or_insert_with(|| {
            let traffic = Traffic {
                lane: Lane::new(self.limits),
                admitted: 0,
                turns: 0,
                waiting: VecDeque::new(),
                started: Vec::new(),
            };
            Arc::new(Entry { endpoint, budgets: Arc::clone(&self.budgets), traffic: Mutex::new(traffic) })
        });
        Arc::clone(entry)
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
        None => match lanes.admit(endpoint.id, deferrals) {
            Ok(ticket) => return Ok(ticket),
            Err(deferral) => deferral,
        },
    };
    metrics::counter!(metric::DEFERRALS, "reason" => deferral.0.as_str()).increment(1);
    Err(deferral)
}

impl Traffic {
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

impl Ticket {
    /// Waits for the turn. None where it would not come in time: the endpoint has become slow.
    pub(crate) async fn turn(mut self) -> Option<Turn> {
        let (waiting, slot) = oneshot::channel();
        {
            let mut traffic = self.entry.traffic();
            // Whoever was sent away had been waiting; whoever comes now would be sent away by nobody.
            if traffic.turns >= traffic.lane.bound() && traffic.age() >= SLOW_AFTER {
                return None;
            }
            traffic.waiting.push_back(waiting);
        }
        self.entry.next();
        let mut slot = slot.await.ok()?;
        let slow = self.slow.take();
        let is_slow = slow.is_some();
        let budget = match slow {
            Some(slow) => slow,
            None => Arc::clone(&self.entry.budgets.fast).acquire_owned().await.ok()?,
        };
        let started = Instant::now();
        self.entry.traffic().started.push(started);
        slot.started = Some(started);
        Some(Turn { started, budget, is_slow, slot, _ticket: self })
    }
}

impl Turn {
    /// Waits until the attempt is slow. Where it is not alone in that, nobody waits behind them any more.
    pub(crate) async fn until_slow(&self) {
        tokio::time::sleep_until(self.started + SLOW_AFTER).await;
        let mut traffic = self.slot.entry.traffic();
        traffic.lane.is_late();
        let sent_away =
            if traffic.age() >= SLOW_AFTER { std::mem::take(&mut traffic.waiting) } else { VecDeque::new() };
        drop(traffic);
        drop(sent_away);
    }

    /// Goes over from the fast budget to the slow one, as soon as there is room.
    pub(crate) async fn go_over(&mut self) {
        if self.is_slow {
            return;
        }
        if let Ok(budget) = Arc::clone(&self.slot.entry.budgets.slow).acquire_owned().await {
            self.budget = budget;
            self.is_slow = true;
        }
    }

    /// Ends the turn with its attempt, from which the lane learns.
    pub(crate) fn end(self, outcome: Outcome, is_failure: bool) -> Unrecorded {
        let entry = &self.slot.entry;
        let switched = entry.traffic().lane.ended(outcome, is_failure, self.started.elapsed(), START.elapsed());
        let endpoint = entry.endpoint;
        match switched {
            Some(Switched::Opened) => {
                metrics::gauge!(metric::BREAKERS_OPEN).increment(1);
                tracing::warn!(%endpoint, "an endpoint fails again and again; its breaker opens");
            }
            Some(Switched::Closed) => {
                metrics::gauge!(metric::BREAKERS_OPEN).decrement(1);
                tracing::info!(%endpoint, "an endpoint is back; its breaker closes");
            }
            None => {}
        }
        Unrecorded { _budget: self.budget }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut traffic = self.entry.traffic();
        traffic.turns -= 1;
        if let Some(position) = self.started.and_then(|began| traffic.started.iter().position(|one| *one == began)) {
            traffic.started.remove(position);
        }
        drop(traffic);
        self.entry.next();
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.entry.traffic().admitted -= 1;
    }
}
