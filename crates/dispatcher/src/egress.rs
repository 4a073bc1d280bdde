//! The gate to our own egress, shared by all attempts of the process.

use std::{
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fanfare_domain::delivery::egress::{EgressGate, Passage};
use tokio::{sync::watch, time::Instant};

use crate::metric;

/// Cheap to clone.
#[derive(Clone)]
pub(crate) struct Egress {
    inner: Arc<Inner>,
    /// The reason of the outage; `None` while the gate is open.
    fault: watch::Sender<Option<String>>,
}

struct Inner {
    origin: Instant,
    gate: Mutex<EgressGate>,
    /// False while the gate is open: most attempts then need no lock.
    is_shut: AtomicBool,
    /// The last outage in the log.
    told: Mutex<Option<Instant>>,
}

/// An attempt that has passed the gate.
pub(crate) struct Passed {
    egress: Egress,
    passage: Passage,
    /// True until the result of the attempt is known.
    is_open: AtomicBool,
}

/// Interval of the looks whether the gate lapses.
const LOOKS: Duration = Duration::from_secs(5);

/// Shortest interval between two outages in the log.
const TELL_EVERY: Duration = Duration::from_secs(60);

impl Egress {
    pub(crate) fn new() -> Self {
        let inner = Inner {
            origin: Instant::now(),
            gate: Mutex::default(),
            is_shut: AtomicBool::new(false),
            told: Mutex::default(),
        };
        metrics::gauge!(metric::EGRESS_AVAILABLE).set(1.0);
        Self { inner: Arc::new(inner), fault: watch::Sender::new(None) }
    }

    /// The reason of an outage of our egress.
    pub(crate) fn fault(&self) -> watch::Receiver<Option<String>> {
        self.fault.subscribe()
    }

    /// Permits an attempt to be planned. While the gate is shut, reserves the probe.
    ///
    /// # Errors
    /// The instant of the next question.
    pub(crate) fn reserve(&self) -> Result<Passage, Instant> {
        if !self.inner.is_shut.load(Ordering::Acquire) {
            return Ok(Passage::Open);
        }
        let now = self.inner.origin.elapsed();
        self.gate().reserve(now).map_err(|at| self.inner.origin + at)
    }

    /// Permits an attempt to begin; `None` while the gate is shut and a probe runs.
    pub(crate) fn begin(&self) -> Option<Passed> {
        let passage = match self.inner.is_shut.load(Ordering::Acquire) {
            true => self.gate().begin(self.inner.origin.elapsed())?,
            false => Passage::Open,
        };
        Some(Passed { egress: self.clone(), passage, is_open: AtomicBool::new(true) })
    }

    /// Opens a gate without failures, until the process exits.
    pub(crate) async fn watch(self) {
        loop {
            tokio::time::sleep(LOOKS).await;
            if self.inner.is_shut.load(Ordering::Acquire) {
                let now = self.inner.origin.elapsed();
                self.open_by(|gate| gate.lapse(now));
            }
        }
    }

    /// Records in the gate. Returns true if the gate has shut, or opened.
    fn record(&self, change: impl FnOnce(&mut EgressGate) -> bool) -> bool {
        let mut gate = self.gate();
        let has_changed = change(&mut gate);
        // Within the lock: two attempts may change the gate at the same time.
        self.inner.is_shut.store(gate.is_shut(), Ordering::Release);
        has_changed
    }

    /// Records in the gate, and tells if the gate has opened.
    fn open_by(&self, change: impl FnOnce(&mut EgressGate) -> bool) {
        if self.record(change) {
            self.fault.send_replace(None);
            metrics::gauge!(metric::EGRESS_AVAILABLE).set(1.0);
            tracing::info!("connections can be made again");
        }
    }

    /// Logs an outage, at most once a minute: single failures may shut the gate again and again.
    fn tell(&self, error: &str) {
        let mut told = self.inner.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_none_or(|at| at.elapsed() >= TELL_EVERY) {
            *told = Some(Instant::now());
            tracing::error!(
                error,
                "no connections can be made, for a reason of ours: deliveries wait, and use up no attempt"
            );
        }
    }

    fn gate(&self) -> MutexGuard<'_, EgressGate> {
        // No holder of this lock can panic halfway.
        self.inner.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passed {
    pub(crate) fn is_probe(&self) -> bool {
        self.passage == Passage::Probe
    }

    /// Notes that the attempt failed for a reason of ours.
    pub(crate) fn failed(&self, error: &str) {
        self.is_open.store(false, Ordering::Relaxed);
        let egress = &self.egress;
        let now = egress.inner.origin.elapsed();
        if egress.record(|gate| gate.record_failure(self.passage, now)) {
            egress.fault.send_replace(Some(error.to_owned()));
            metrics::gauge!(metric::EGRESS_AVAILABLE).set(0.0);
            egress.tell(error);
        }
    }

    /// Notes that the attempt reached the network.
    pub(crate) fn reached(&self) {
        self.is_open.store(false, Ordering::Relaxed);
        if self.is_probe() {
            self.egress.open_by(|gate| gate.record_success(self.passage));
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if self.is_open.load(Ordering::Relaxed) {
            let now = self.egress.inner.origin.elapsed();
            self.egress.gate().record_nothing(self.passage, now);
        }
    }
}
