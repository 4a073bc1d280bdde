//! A lane for each endpoint, which bounds its attempts on their way, so that a slow or dead endpoint
//! delays nobody else.

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fanfare_domain::{
    application::Endpoint,
    delivery::DeferralReason,
    ids::EndpointId,
    lane::{Load, deferral_wait, typical_after},
};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore},
    time::Instant,
};

use crate::{metric, rates::Rates};

/// What a lane without any experience expects of an attempt.
const FIRST_GUESS: Duration = Duration::from_millis(100);

/// All lanes, and the bound of the process. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Lanes {
    lanes: Arc<Mutex<HashMap<EndpointId, Arc<Lane>>>>,
    bound: usize,
    process: Arc<Semaphore>,
}

struct Lane {
    bound: usize,
    turns: Arc<Semaphore>,
    process: Arc<Semaphore>,
    traffic: Mutex<Traffic>,
}

struct Traffic {
    admitted: usize,
    typical: Duration,
    /// When each attempt on its way began; as many as the lane's bound at the most.
    started: Vec<Instant>,
}

/// A place in a lane. Given up when it is dropped.
pub(crate) struct Ticket {
    lane: Arc<Lane>,
}

/// The right to attempt now. The lane's part of it ends with the attempt, whose duration the lane learns.
pub(crate) struct Turn {
    ticket: Ticket,
    started: Instant,
    _lane: OwnedSemaphorePermit,
    process: Option<Unrecorded>,
}

/// The process's part of a turn. To be kept until the attempt is recorded: what is sent and not recorded
/// is sent again when the process dies, and must be bounded whatever the database does.
pub(crate) struct Unrecorded {
    _process: OwnedSemaphorePermit,
}

impl Lanes {
    pub(crate) fn new(bound: usize, attempts: usize) -> Self {
        Self { lanes: Arc::default(), bound, process: Arc::new(Semaphore::new(attempts)) }
    }

    /// A place in the endpoint's lane, unless the wait for its turn would be too long.
    fn admit(&self, endpoint: EndpointId) -> Option<Ticket> {
        let lane = self.lane(endpoint);
        let mut traffic = lane.traffic();
        let oldest = traffic.started.iter().min().map(|started| started.elapsed()).unwrap_or_default();
        let load = Load { bound: lane.bound, admitted: traffic.admitted, typical: traffic.typical, oldest };
        if !load.admits() {
            return None;
        }
        traffic.admitted += 1;
        drop(traffic);
        Some(Ticket { lane })
    }

    fn lane(&self, endpoint: EndpointId) -> Arc<Lane> {
        let mut lanes = self.lanes.lock().unwrap_or_else(PoisonError::into_inner);
        let lane = lanes.entry(endpoint).or_insert_with(|| {
            Arc::new(Lane {
                bound: self.bound,
                turns: Arc::new(Semaphore::new(self.bound)),
                process: Arc::clone(&self.process),
                traffic: Mutex::new(Traffic { admitted: 0, typical: FIRST_GUESS, started: Vec::new() }),
            })
        });
        Arc::clone(lane)
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
        None => match lanes.admit(endpoint.id) {
            Some(ticket) => return Ok(ticket),
            None => (DeferralReason::LaneFull, deferral_wait(deferrals, rand::random())),
        },
    };
    metrics::counter!(metric::DEFERRALS, "reason" => deferral.0.as_str()).increment(1);
    Err(deferral)
}

impl Lane {
    /// Nothing that holds this lock can panic halfway.
    fn traffic(&self) -> MutexGuard<'_, Traffic> {
        self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Ticket {
    /// Waits for the turn.
    pub(crate) async fn turn(self) -> Option<Turn> {
        let lane = Arc::clone(&self.lane.turns).acquire_owned().await.ok()?;
        let process = Arc::clone(&self.lane.process).acquire_owned().await.ok()?;
        let started = Instant::now();
        self.lane.traffic().started.push(started);
        Some(Turn { ticket: self, started, _lane: lane, process: Some(Unrecorded { _process: process }) })
    }
}

impl Turn {
    /// Ends the turn with its attempt.
    pub(crate) fn end(mut self) -> Option<Unrecorded> {
        self.process.take()
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.lane.traffic().admitted -= 1;
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut traffic = self.ticket.lane.traffic();
        if let Some(position) = traffic.started.iter().position(|started| *started == self.started) {
            traffic.started.swap_remove(position);
        }
        traffic.typical = typical_after(traffic.typical, self.started.elapsed());
    }
}
