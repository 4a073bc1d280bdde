//! The gate to our own egress, shared by all attempts of the process.

use std::sync::{
    Arc, Mutex, MutexGuard, PoisonError,
    atomic::{AtomicBool, Ordering},
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
    /// True while the gate is shut: most attempts then need no lock.
    is_shut: AtomicBool,
}

/// An attempt that has passed the gate.
pub(crate) struct Passed {
    egress: Egress,
    passage: Passage,
    /// True until the result of the attempt is known.
    is_open: bool,
}

impl Egress {
    pub(crate) fn new() -> Self {
        let inner = Inner { origin: Instant::now(), gate: Mutex::default(), is_shut: AtomicBool::new(false) };
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
        Some(Passed { egress: self.clone(), passage, is_open: true })
    }

    fn gate(&self) -> MutexGuard<'_, EgressGate> {
        // No holder of this lock can panic halfway.
        self.inner.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Passed {
    /// Notes that the attempt failed for a reason of ours.
    pub(crate) fn failed(mut self, error: &str) {
        self.is_open = false;
        let Egress { inner, fault } = &self.egress;
        let mut gate = self.egress.gate();
        let has_shut = gate.record_failure(self.passage, inner.origin.elapsed());
        inner.is_shut.store(gate.is_shut(), Ordering::Release);
        drop(gate);
        if has_shut {
            fault.send_replace(Some(error.to_owned()));
            metrics::gauge!(metric::EGRESS_AVAILABLE).set(0.0);
            tracing::error!(
                error,
                "no connections can be made, for a reason of ours: deliveries wait, and use up no attempt"
            );
        }
    }

    /// Notes that the attempt reached the network.
    pub(crate) fn reached(mut self) {
        self.is_open = false;
        let Egress { inner, fault } = &self.egress;
        if !inner.is_shut.load(Ordering::Acquire) {
            return;
        }
        let mut gate = self.egress.gate();
        let has_opened = gate.record_success();
        inner.is_shut.store(gate.is_shut(), Ordering::Release);
        drop(gate);
        if has_opened {
            fault.send_replace(None);
            metrics::gauge!(metric::EGRESS_AVAILABLE).set(1.0);
            tracing::info!("connections can be made again");
        }
    }
}

impl Drop for Passed {
    fn drop(&mut self) {
        if self.is_open {
            let now = self.egress.inner.origin.elapsed();
            self.egress.gate().record_nothing(self.passage, now);
        }
    }
}
