//! The turn of a delivery in its lane: waited for, had, and over.

use std::{collections::VecDeque, sync::Arc};

use fanfare_domain::{
    delivery::DeferralReason,
    lane::{SLOW_AFTER, Switched},
    outcome::Outcome,
};
use tokio::{sync::oneshot, time::Instant};

use super::{Entry, START, budgets::Permit};

/// A place in a lane. Given up when it is dropped.
pub(crate) struct Ticket {
    pub(super) entry: Arc<Entry>,
    /// For endpoints that are not known to be fast.
    pub(super) slow: Option<Permit>,
}

/// One of the attempts that a lane lets be on their way at once.
pub(super) struct Slot {
    pub(super) entry: Arc<Entry>,
    pub(super) started: Option<Instant>,
}

/// The right to attempt now.
pub(crate) struct Turn {
    started: Instant,
    budget: Permit,
    is_slow: bool,
    slot: Slot,
    _ticket: Ticket,
}

/// The process's part of a turn. To be kept until the attempt is recorded: what is sent and not recorded
/// is sent again when the process dies, and must be bounded whatever the database does.
pub(crate) struct Unrecorded {
    _budget: Permit,
}

impl Ticket {
    /// Waits for the turn.
    ///
    /// # Errors
    /// Where it would not come in time: the endpoint, or its application, has become slow.
    pub(crate) async fn turn(mut self) -> Result<Turn, DeferralReason> {
        let (waiting, slot) = oneshot::channel();
        {
            let mut traffic = self.entry.traffic();
            // Whoever was sent away had been waiting; whoever comes now would be sent away by nobody.
            if traffic.turns >= traffic.lane.bound() && traffic.age() >= SLOW_AFTER {
                return Err(DeferralReason::LaneFull);
            }
            traffic.waiting.push_back(waiting);
        }
        self.entry.next();
        let mut slot = slot.await.map_err(|_| DeferralReason::LaneFull)?;
        let slow = self.slow.take();
        let is_slow = slow.is_some();
        let budget = match slow {
            Some(slow) => slow,
            None => self.entry.share.fast().await?,
        };
        let started = Instant::now();
        self.entry.traffic().started.push(started);
        slot.started = Some(started);
        Ok(Turn { started, budget, is_slow, slot, _ticket: self })
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
        if let Ok(budget) = self.slot.entry.share.slow().await {
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
                tracing::warn!(%endpoint, "an endpoint fails again and again; its breaker opens");
            }
            Some(Switched::Closed) => {
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
