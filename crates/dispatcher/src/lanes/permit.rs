//! Permits: the right to an attempt, from the admission to the lane until the record.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use fanfare_domain::delivery::{
    QueueReason,
    lane::{BreakerTransition, Ended, SLOW_AFTER},
    outcome::Outcome,
};
use tokio::{sync::oneshot, time::Instant};

use super::{Entry, elapsed, places::Place};
use crate::metric;

/// A place for an attempt, and room in the endpoint's lane. The drop of a permit releases both.
pub(crate) struct Permit {
    pub(super) place: Place,
    pub(super) admission: Admission,
}

/// Room in an endpoint's lane.
pub(super) struct Admission(pub(super) Arc<Entry>);

/// A slot of a lane, for an attempt in flight.
pub(super) struct Slot {
    pub(super) entry: Arc<Entry>,
    pub(super) started: Option<Instant>,
}

/// The right to attempt now.
pub(crate) struct Turn {
    started: Instant,
    place: Place,
    slot: Slot,
    _admission: Admission,
}

/// Part of a permit that is held until the attempt is recorded.
pub(crate) struct RecordPermit {
    _place: Place,
}

impl Permit {
    /// Corrects the bytes of the place, once the payload is known.
    pub(crate) fn set_bytes(&mut self, bytes: usize) {
        self.place.set_bytes(bytes);
    }

    /// Waits for a slot in the lane.
    ///
    /// # Errors
    /// [`QueueReason::LaneFull`] if no slot comes in time, since the endpoint has become slow.
    pub(crate) async fn turn(self) -> Result<Turn, QueueReason> {
        let Self { place, admission } = self;
        let entry = &admission.0;
        let (waiting, slot) = oneshot::channel();
        {
            let mut lane = entry.lane();
            // `until_slow` has sent the waiting deliveries back already, and would miss a later delivery.
            if lane.turns >= lane.bound(entry) && lane.age(entry) >= SLOW_AFTER {
                return Err(QueueReason::LaneFull);
            }
            lane.waiting.push_back(waiting);
        }
        entry.grant();
        let mut slot = slot.await.map_err(|_| QueueReason::LaneFull)?;
        let started = Instant::now();
        entry.lane().started.push(started);
        slot.started = Some(started);
        Ok(Turn { started, place, slot, _admission: admission })
    }
}

impl Turn {
    /// Waits until the attempt is slow. If half of the lane's attempts are slow, sends all waiting deliveries back.
    pub(crate) async fn until_slow(&self) {
        tokio::time::sleep_until(self.started + SLOW_AFTER).await;
        let entry = &self.slot.entry;
        let mut lane = entry.lane();
        lane.lane.mark_slow();
        let sent_back = if lane.age(entry) >= SLOW_AFTER { std::mem::take(&mut lane.waiting) } else { VecDeque::new() };
        drop(lane);
        drop(sent_back);
    }

    /// Ends the attempt, and updates the lane with the outcome.
    ///
    /// With a `rest`, the endpoint asked for a wait.
    pub(crate) fn end(self, outcome: Outcome, is_failure: bool, rest: Option<Duration>) -> RecordPermit {
        let entry = &self.slot.entry;
        let switched = {
            let mut lane = entry.lane();
            lane.lane.record(
                Ended { outcome, is_failure, rest, took: self.started.elapsed() },
                elapsed(),
                rand::random(),
            )
        };
        let endpoint = entry.endpoint;
        match switched {
            Some(BreakerTransition::Opened) => {
                metrics::counter!(metric::BREAKERS_OPENED).increment(1);
                tracing::warn!(%endpoint, "an endpoint fails repeatedly; its breaker opens");
            }
            Some(BreakerTransition::Closed) => {
                tracing::info!(%endpoint, "an endpoint answers again; its breaker closes")
            }
            None => {}
        }
        RecordPermit { _place: self.place }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut lane = self.entry.lane();
        lane.turns -= 1;
        if let Some(position) = self.started.and_then(|began| lane.started.iter().position(|other| *other == began)) {
            lane.started.remove(position);
        }
        drop(lane);
        self.entry.grant();
    }
}

impl Drop for Admission {
    fn drop(&mut self) {
        let mut lane = self.0.lane();
        lane.admitted -= 1;
        let is_owned = lane.is_owned;
        drop(lane);
        if is_owned {
            self.0.wake_drain();
        }
    }
}
