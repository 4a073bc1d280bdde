//! Presence: the heartbeat of the process, the list of living processes, and the takeover of unowned backlogs and
//! fan-outs.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fanfare_domain::ids::EndpointId;
use fanfare_service::{crash_point, host_name};
use fanfare_store::{LivingProcess, NewProcess, ProcessKind, ProcessReport, ReleasedBacklog, StoreError};
use jiff::Timestamp;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{context::Context, metric, stages::intake::fan_out::FanOuts};

/// Validity of a heartbeat, and interval between two heartbeats.
const LIFETIME: Duration = Duration::from_secs(10);
const EVERY: Duration = Duration::from_secs(2);

/// Interval of looks for unowned backlogs and fan-outs.
const LOOKS_EVERY: Duration = Duration::from_secs(1);

/// Interval of looks for owned backlogs missing in memory.
const OWN_EVERY: Duration = Duration::from_secs(10);

/// Maximum of backlogs, and of fan-outs, taken over by a look.
const MAX_TAKEN: usize = 1000;
const MAX_FAN_OUTS: usize = 2;

/// Deadline of a heartbeat or a look.
const SLOW: Duration = Duration::from_secs(5);

/// Deviation of the database's clock between two looks that counts as a jump, and time without takeovers after a jump.
const JUMP: Duration = Duration::from_secs(4);
const AFTER_JUMP: Duration = Duration::from_secs(60);

pub(crate) struct Presence {
    pub(crate) context: Arc<Context>,
    pub(crate) fan_outs: FanOuts,
    pub(crate) sight: Sight,
    /// Number of all places of the process.
    pub(crate) places: usize,
    /// Digests of the settings on which all processes must agree.
    pub(crate) settings: String,
}

/// Longest time between two answers of the database that does not count as a break.
const UNBROKEN: Duration = SLOW.saturating_add(LOOKS_EVERY);

/// Sight of the database: clear after answers without a break for `patience`. Without clear sight, this process takes
/// nothing over. After an outage, processes with unrecorded outcomes can thus write first.
#[derive(Debug, Clone)]
pub(crate) struct Sight {
    view: Arc<Mutex<View>>,
    patience: Duration,
}

#[derive(Debug, Clone, Copy)]
struct View {
    /// Time of the last answer.
    answered: Instant,
    /// Earliest time of a takeover.
    clear_at: Instant,
}

impl Sight {
    /// Creates sight that becomes clear after answers for `patience` without a break.
    pub(crate) fn new(patience: Duration) -> Self {
        let now = Instant::now();
        Self { view: Arc::new(Mutex::new(View { answered: now, clear_at: now + patience })), patience }
    }

    /// Notes an answer of the database. The answer that ends a break begins the patience.
    fn answered(&self) {
        let now = Instant::now();
        let mut view = self.view();
        if now.duration_since(view.answered) > UNBROKEN {
            view.clear_at = view.clear_at.max(now + self.patience);
        }
        view.answered = now;
    }

    /// Notes an error of the database.
    fn lost(&self) {
        self.blind_for(self.patience);
    }

    /// Notes a jump of the database's clock: valid leases may look expired, and living processes dead.
    fn clock_jumped(&self) {
        self.blind_for(self.patience.max(AFTER_JUMP));
    }

    fn blind_for(&self, time: Duration) {
        let mut view = self.view();
        view.clear_at = view.clear_at.max(Instant::now() + time);
    }

    /// True if this process may take over, and may declare a process dead. A query without an answer for long counts as
    /// a break, too.
    pub(super) fn is_clear(&self) -> bool {
        let (now, view) = (Instant::now(), *self.view());
        now >= view.clear_at && now.duration_since(view.answered) <= UNBROKEN
    }

    fn view(&self) -> MutexGuard<'_, View> {
        self.view.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Compares the database's clock with the monotonic clock of the process.
struct ClockWatch {
    seen: Option<(Timestamp, Instant)>,
}

impl ClockWatch {
    /// True if the database's clock has jumped since the last call.
    fn has_jumped(&mut self, now: Timestamp) -> bool {
        let seen = self.seen.replace((now, Instant::now()));
        seen.is_some_and(|(before, at)| {
            let passed = now.duration_since(before).as_secs_f64();
            (passed - at.elapsed().as_secs_f64()).abs() > JUMP.as_secs_f64()
        })
    }
}

impl Presence {
    /// Sends heartbeats, looks and takes over until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (mut renewed, mut looked_at_own) = (None::<Instant>, None::<Instant>);
        let mut is_registered = false;
        let mut clock = ClockWatch { seen: None };
        while !stop.is_cancelled() {
            if clock.has_jumped(self.context.now()) {
                tracing::warn!("the database's clock has jumped; this process takes nothing over for a minute");
                self.sight.clock_jumped();
            }
            if renewed.is_none_or(|renewed| renewed.elapsed() >= EVERY) {
                let began = Instant::now();
                match self.renew(is_registered).await {
                    Ok(living) => {
                        (is_registered, renewed) = (true, Some(began));
                        self.sight.answered();
                        self.learn(&living).await;
                    }
                    Err(error) => {
                        tracing::warn!(%error, "the heartbeat failed; trying again");
                        self.sight.lost();
                    }
                }
            }
            if is_registered {
                let is_due = looked_at_own.is_none_or(|looked| looked.elapsed() >= OWN_EVERY);
                if is_due || self.context.backlogs.takes_look_for_more() {
                    looked_at_own = Some(Instant::now());
                    self.tell(self.look_at_own().await);
                }
                self.tell(self.take_over(&stop).await);
            }
            stop.run_until_cancelled(tokio::time::sleep(LOOKS_EVERY)).await;
        }
    }

    async fn renew(&self, is_registered: bool) -> Result<Vec<LivingProcess>, StoreError> {
        let store = &self.context.database.store;
        let report = ProcessReport { free_places: self.context.lanes.places.free(), ..self.context.report.get() };
        if is_registered {
            let process = self.context.process();
            if let Some(living) = store.with_deadline(SLOW, store.renew(process, &report, LIFETIME)).await? {
                return Ok(living);
            }
            let new = self.context.renew_process();
            tracing::warn!(%process, %new, "this process was declared dead, and continues under a new id");
            self.sight.lost();
        }
        let process = self.context.process();
        let new = NewProcess {
            id: process,
            kind: ProcessKind::Dispatcher,
            version: env!("CARGO_PKG_VERSION").to_owned(),
            settings: self.settings.clone(),
            host: host_name(),
        };
        store.with_deadline(SLOW, store.register(&new, LIFETIME)).await?;
        Ok(store.with_deadline(SLOW, store.renew(process, &report, LIFETIME)).await?.unwrap_or_default())
    }

    /// Shares each endpoint's bound and rate among the living dispatchers. If this process has few free places and
    /// another dispatcher has many, hands over half of the backlogs that wait for a place.
    async fn learn(&self, living: &[LivingProcess]) {
        let context = &self.context;
        let process = context.process();
        let dispatchers: Vec<_> = living.iter().filter(|other| other.kind == ProcessKind::Dispatcher).collect();
        context.lanes.set_dispatchers(dispatchers.len());
        metrics::gauge!(metric::DISPATCHERS).set(dispatchers.len() as f64);
        let disagreeing: Vec<_> = living.iter().filter(|other| other.settings != self.settings).collect();
        metrics::gauge!(metric::DISAGREEING).set(disagreeing.len() as f64);
        for other in disagreeing {
            tracing::warn!(
                other = %other.id, theirs = other.settings, ours = self.settings,
                "another process runs with other settings; give all processes the same settings"
            );
        }
        let has_room = |other: &&&LivingProcess| other.id != process && other.free_places * 2 > self.places;
        let places = &context.lanes.places;
        if places.is_nearly_full() && dispatchers.iter().any(|other| has_room(&other)) {
            self.hand_over(context.backlogs.hand_over(places.left_to_drains(false) == 0)).await;
        }
    }

    async fn hand_over(&self, mut endpoints: Vec<EndpointId>) {
        if endpoints.is_empty() {
            return;
        }
        endpoints.sort_unstable();
        let released: Vec<_> = endpoints
            .iter()
            .map(|&endpoint| ReleasedBacklog { endpoint, look_in: Duration::ZERO, reason: None })
            .collect();
        let (context, store) = (&self.context, &self.context.database.store);
        for &endpoint in &endpoints {
            context.lanes.set_owned(endpoint, false);
        }
        tracing::info!(backlogs = released.len(), "handing backlogs over to dispatchers with free places");
        self.tell(store.with_deadline(SLOW, store.release_backlogs(context.process(), &released)).await);
    }

    /// Begins owned backlogs missing in memory.
    async fn look_at_own(&self) -> Result<(), StoreError> {
        let (context, store) = (&self.context, &self.context.database.store);
        let owned = store.with_deadline(SLOW, store.owned_backlogs(context.process())).await?;
        context.begin_own(&owned);
        Ok(())
    }

    async fn take_over(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let (context, store) = (&self.context, &self.context.database.store);
        if self.sight.is_clear() {
            let released = store.with_deadline(SLOW, store.release_dead(MAX_TAKEN)).await?;
            if released > 0 {
                tracing::warn!(backlogs = released, "a dispatcher died; its backlogs are released");
            }
        }
        if context.lanes.places.is_nearly_full() {
            return Ok(());
        }
        let taken = store.with_deadline(SLOW, store.take_backlogs(context.process(), MAX_TAKEN)).await?;
        self.sight.answered();
        if !taken.is_empty() {
            crash_point("backlog.taken");
            context.take_over(&taken);
        }
        let taken = store.with_deadline(SLOW, store.take_fan_outs(context.process(), MAX_FAN_OUTS)).await;
        if taken.is_err() {
            // The takeover may have committed without an answer.
            self.fan_outs.abandon_later(stop);
        }
        for fan_out in taken? {
            self.fan_outs.resume(fan_out, stop);
        }
        Ok(())
    }

    fn tell(&self, result: Result<(), StoreError>) {
        if let Err(error) = result {
            tracing::warn!(%error, "cannot look for backlogs; trying again");
            self.sight.lost();
        }
    }
}

/// Releases the backlogs of this process, when the drain of the process begins.
pub(crate) async fn release(context: &Context) {
    let store = &context.database.store;
    if let Err(error) = store.with_deadline(SLOW, store.release_all_backlogs(context.process())).await {
        tracing::warn!(%error, "cannot release backlogs yet; trying again at the end of the drain");
    }
}

/// Releases all backlogs and fan-outs, and removes the row of the process. Other dispatchers take over at once.
pub(crate) async fn leave(context: &Context) {
    let (process, store) = (context.process(), &context.database.store);
    let leaving = async {
        store.release_all_backlogs(process).await?;
        store.release_fan_outs(process).await?;
        store.unregister(process).await
    };
    if let Err(error) = store.with_deadline(SLOW, leaving).await {
        tracing::warn!(%error, "cannot release backlogs; other dispatchers take over when this process counts as dead");
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::advance;

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(2);
    const SECOND: Duration = Duration::from_secs(1);

    async fn answer_for(sight: &Sight, seconds: u32) {
        for _ in 0..seconds {
            advance(SECOND).await;
            sight.answered();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn is_clear_after_answers_without_a_break() {
        let sight = Sight::new(PATIENCE);
        answer_for(&sight, 1).await;
        assert!(!sight.is_clear());
        answer_for(&sight, 1).await;
        assert!(sight.is_clear());
    }

    #[tokio::test(start_paused = true)]
    async fn is_not_clear_while_a_question_is_open() {
        let sight = Sight::new(PATIENCE);
        answer_for(&sight, 3).await;
        advance(UNBROKEN + SECOND).await;
        assert!(!sight.is_clear());
    }

    #[tokio::test(start_paused = true)]
    async fn counts_from_the_answer_that_ends_a_break() {
        let sight = Sight::new(PATIENCE);
        answer_for(&sight, 3).await;
        // The error comes long before the next answer of the database.
        advance(UNBROKEN).await;
        sight.lost();
        advance(UNBROKEN).await;
        sight.answered();
        assert!(!sight.is_clear());
        answer_for(&sight, 2).await;
        assert!(sight.is_clear());
    }

    #[tokio::test(start_paused = true)]
    async fn waits_a_minute_after_a_jump_of_the_clock() {
        let sight = Sight::new(PATIENCE);
        answer_for(&sight, 3).await;
        sight.clock_jumped();
        answer_for(&sight, 59).await;
        assert!(!sight.is_clear());
        answer_for(&sight, 1).await;
        assert!(sight.is_clear());
    }
}
