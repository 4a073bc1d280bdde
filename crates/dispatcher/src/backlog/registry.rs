//! Registry of the owned backlogs, in memory: ready, waiting, and draining.

use std::{
    collections::{BTreeSet, HashMap, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fanfare_domain::ids::{ApplicationId, EndpointId, ProcessId};
use fanfare_store::{Floor, TakenBacklog, TouchedBacklog};
use tokio::{sync::Notify, time::Instant};

use super::order::{Order, Position};
use crate::lanes::EXPECTED_BYTES;

/// Validity of a floor: rows may return below the floor.
const FLOOR_HOLDS: Duration = Duration::from_secs(10);

/// Wait before the next try to drain an empty backlog that did not end, doubled up to the longest. A delivery queued by
/// another process meanwhile waits as long.
const FIRST_RETRY: Duration = Duration::from_millis(50);
const LONGEST_RETRY: Duration = Duration::from_millis(200);

/// The owned backlogs. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Backlogs {
    inner: Arc<Mutex<Inner>>,
    /// Notified when a backlog becomes ready.
    pub(super) changed: Arc<Notify>,
}

#[derive(Default)]
struct Inner {
    backlogs: HashMap<EndpointId, Backlog>,
    ready: Order,
    /// Backlogs that wait until an instant.
    timers: BTreeSet<(Instant, EndpointId)>,
    /// True if the process may own further backlogs in the database, such as after an unknown commit.
    owns_more: bool,
}

struct Backlog {
    application: ApplicationId,
    state: State,
    floor: Floor,
    floor_since: Instant,
    /// Wait before the next try, if the backlog is empty and does not end.
    retry: Duration,
    /// True if the backlog was found empty and waits for the next try.
    is_empty: bool,
    /// True if the backlog waits for the next probe, or for a token. The success of a probe in flight, or the token,
    /// ends the wait.
    is_wakeable: bool,
    /// True until the first lease. False for a backlog that was taken over.
    is_new: bool,
    /// True if deliveries were queued since the last drain began.
    was_touched: bool,
    /// Average bytes of a payload.
    bytes: usize,
    /// Start of the wait for a place, for metrics.
    waits_since: Option<Instant>,
    /// Time of the next probe and end of the rest, in the database.
    noted: Noted,
}

/// Time of the next probe, and end of the rest.
type Noted = (Option<Instant>, Option<Instant>);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// Waiting for the drain.
    Ready(Position),
    /// Taken by the drain.
    Draining,
    /// Waiting for room in the lane: the end of an attempt makes the backlog ready.
    Lane,
    /// Waiting until this instant.
    Until(Instant),
}

/// The owned backlogs at an instant.
#[derive(Debug, Default)]
pub(crate) struct BacklogReport {
    pub(crate) owned: usize,
    /// Endpoints whose backlog waits for a place, the longest wait first.
    pub(crate) waiting: Vec<EndpointId>,
    /// 95th percentile of the waits for a place.
    pub(crate) p95_wait: Duration,
    /// Longest wait for a place.
    pub(crate) longest_wait: Duration,
}

/// The next backlog to drain.
#[derive(Debug, Clone, Copy)]
pub(super) struct Next {
    pub(super) endpoint: EndpointId,
    pub(super) application: ApplicationId,
    pub(super) floor: Floor,
    pub(super) bytes: usize,
}

impl Backlogs {
    pub(crate) fn new() -> Self {
        Self { inner: Arc::default(), changed: Arc::default() }
    }

    /// Notes the backlogs touched by a statement that queued deliveries. Owned backlogs begin or continue. Returns the
    /// endpoints of backlogs that begin. Retries and deliveries given back may lie below the floor.
    pub(crate) fn touched(
        &self,
        process: ProcessId,
        touched: &[TouchedBacklog],
        is_below_floor: bool,
    ) -> Vec<EndpointId> {
        let mut inner = self.inner();
        let mut begun = Vec::new();
        for backlog in touched.iter().filter(|backlog| backlog.owner == Some(process)) {
            if inner.touch(backlog.endpoint, backlog.application, is_below_floor, true) {
                begun.push(backlog.endpoint);
            }
        }
        drop(inner);
        self.changed.notify_one();
        begun
    }

    /// Begins backlogs taken over by this process, or found as owned in the database. Returns the endpoints of backlogs
    /// that begin.
    pub(crate) fn begin(&self, taken: &[TakenBacklog]) -> Vec<EndpointId> {
        let mut inner = self.inner();
        let mut begun: Vec<_> = taken.iter().map(|backlog| (backlog.endpoint, backlog.application)).collect();
        begun.retain(|&(endpoint, application)| inner.touch(endpoint, application, true, false));
        drop(inner);
        self.changed.notify_one();
        begun.into_iter().map(|(endpoint, _)| endpoint).collect()
    }

    /// True if this process drains the backlog of `endpoint`.
    pub(crate) fn has(&self, endpoint: EndpointId) -> bool {
        self.inner().backlogs.contains_key(&endpoint)
    }

    /// Makes an owned backlog wait before the next drain.
    pub(crate) fn rest(&self, endpoint: EndpointId, wait: Duration) {
        let mut inner = self.inner();
        if inner.backlogs.get(&endpoint).is_some_and(|backlog| backlog.state != State::Draining) {
            inner.wait(endpoint, State::Until(Instant::now() + wait));
        }
        drop(inner);
        self.changed.notify_one();
    }

    /// Requests a look at the owned backlogs in the database.
    pub(crate) fn look_for_more(&self) {
        self.inner().owns_more = true;
    }

    /// True if a look at the owned backlogs was requested. Clears the request.
    pub(crate) fn takes_look_for_more(&self) -> bool {
        std::mem::take(&mut self.inner().owns_more)
    }

    /// Forgets an ended or released backlog. If deliveries were queued meanwhile, requests a look at the owned
    /// backlogs, which may find the backlog again.
    pub(crate) fn forget(&self, endpoint: EndpointId) {
        let mut inner = self.inner();
        inner.leave(endpoint);
        let was_touched = inner.backlogs.remove(&endpoint).is_some_and(|backlog| backlog.was_touched);
        inner.owns_more |= was_touched;
    }

    /// Forgets all backlogs: the process continues under a new id.
    pub(crate) fn forget_all(&self) -> Vec<EndpointId> {
        std::mem::take(&mut *self.inner()).backlogs.into_keys().collect()
    }

    /// Reports the backlogs. With `no_place`, drains have no place left, and all ready backlogs wait for one.
    pub(crate) fn report(&self, no_place: bool) -> BacklogReport {
        let (inner, now) = (self.inner(), Instant::now());
        let since = |backlog: &Backlog| {
            let is_waiting = no_place && backlog.is_ready();
            backlog.waits_since.or(is_waiting.then_some(now))
        };
        let waiting = inner.backlogs.iter().filter_map(|(endpoint, backlog)| Some((since(backlog)?, *endpoint)));
        let mut waiting: Vec<(Instant, EndpointId)> = waiting.collect();
        waiting.sort_unstable();
        let longest_wait = waiting.first().map(|(since, _)| since.elapsed()).unwrap_or_default();
        let p95 = waiting.get(waiting.len() / 20).map(|(since, _)| since.elapsed()).unwrap_or_default();
        let waiting = waiting.into_iter().map(|(_, endpoint)| endpoint).collect();
        BacklogReport { owned: inner.backlogs.len(), waiting, p95_wait: p95, longest_wait }
    }

    /// Removes half of the backlogs that wait for a place, for another process with free places.
    pub(crate) fn hand_over(&self, no_place: bool) -> Vec<EndpointId> {
        let mut endpoints = self.report(no_place).waiting;
        endpoints.truncate(endpoints.len() / 2);
        let mut inner = self.inner();
        // The drain may have taken some of the backlogs meanwhile.
        endpoints.retain(|endpoint| inner.backlogs.get(endpoint).is_some_and(Backlog::is_ready));
        for endpoint in &endpoints {
            inner.leave(*endpoint);
            inner.backlogs.remove(endpoint);
        }
        endpoints
    }

    /// Makes a backlog ready that waits for room in the lane, for a probe or for a token.
    pub(super) fn wake(&self, endpoint: EndpointId) {
        let mut inner = self.inner();
        if inner.backlogs.get(&endpoint).is_some_and(|backlog| backlog.state == State::Lane || backlog.is_wakeable) {
            inner.make_ready(endpoint);
        }
    }

    /// Makes the backlogs ready whose wait is over. Returns the end of the next wait.
    pub(super) fn pass_time(&self) -> Option<Instant> {
        let mut inner = self.inner();
        let now = Instant::now();
        while let Some(&(at, endpoint)) = inner.timers.first() {
            if at > now {
                return Some(at);
            }
            inner.make_ready(endpoint);
        }
        None
    }

    /// Takes the next ready backlog. Applications in `busy` are passed over.
    pub(super) fn next(&self, busy: &HashSet<ApplicationId>) -> Option<Next> {
        let mut inner = self.inner();
        let (application, endpoint) = inner.ready.next(busy)?;
        let backlog = inner.backlogs.get_mut(&endpoint)?;
        (backlog.state, backlog.is_empty, backlog.was_touched) = (State::Draining, false, false);
        if backlog.floor_since.elapsed() >= FLOOR_HOLDS {
            (backlog.floor, backlog.floor_since) = (Floor::START, Instant::now());
        }
        Some(Next { endpoint, application, floor: backlog.floor, bytes: backlog.bytes })
    }

    /// Makes a backlog ready again that got no place, and notes the start of the wait.
    pub(super) fn waits_for_place(&self, endpoint: EndpointId) {
        let mut inner = self.inner();
        if let Some(backlog) = inner.backlogs.get_mut(&endpoint) {
            backlog.waits_since.get_or_insert_with(Instant::now);
            inner.make_ready(endpoint);
        }
    }

    /// Notes that deliveries were leased up to `floor`, with payloads of `bytes` on average.
    pub(super) fn leased(&self, endpoint: EndpointId, floor: Floor, bytes: usize) {
        if let Some(backlog) = self.inner().backlogs.get_mut(&endpoint) {
            backlog.floor = floor;
            backlog.bytes = (backlog.bytes * 3 + bytes) / 4;
            (backlog.retry, backlog.is_new, backlog.waits_since) = (FIRST_RETRY, false, None);
        }
    }

    /// Notes the time of the next probe and the end of the rest for the database. True if one has changed.
    pub(crate) fn note_probe(&self, endpoint: EndpointId, noted: Noted) -> bool {
        let mut inner = self.inner();
        let Some(backlog) = inner.backlogs.get_mut(&endpoint) else { return false };
        std::mem::replace(&mut backlog.noted, noted) != noted
    }

    /// Makes a backlog ready, and wakes the drain.
    pub(super) fn is_ready(&self, endpoint: EndpointId) {
        self.inner().make_ready(endpoint);
        self.changed.notify_one();
    }

    /// Makes a backlog wait for room in the lane.
    pub(super) fn waits_for_lane(&self, endpoint: EndpointId) {
        self.inner().wait(endpoint, State::Lane);
    }

    /// Makes a backlog wait for the next probe or for a token, at the latest until `at`. The success of a probe in
    /// flight, or the token, ends the wait.
    pub(super) fn waits_until_woken(&self, endpoint: EndpointId, at: Instant) {
        let mut inner = self.inner();
        inner.wait(endpoint, State::Until(at));
        if let Some(backlog) = inner.backlogs.get_mut(&endpoint) {
            backlog.is_wakeable = true;
        }
    }

    /// Makes a backlog wait until an instant.
    pub(super) fn waits_until(&self, endpoint: EndpointId, at: Instant) {
        self.inner().wait(endpoint, State::Until(at));
    }

    /// Makes a backlog that was found empty and did not end begin anew, after a wait: the drain has missed rows.
    pub(super) fn retry(&self, endpoint: EndpointId) {
        let mut inner = self.inner();
        let Some(backlog) = inner.backlogs.get_mut(&endpoint) else { return };
        (backlog.floor, backlog.floor_since) = (Floor::START, Instant::now());
        let at = Instant::now() + backlog.retry;
        backlog.retry = (backlog.retry * 2).min(LONGEST_RETRY);
        backlog.is_empty = true;
        inner.wait(endpoint, State::Until(at));
        drop(inner);
        self.changed.notify_one();
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        // No holder of this lock can panic halfway.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Notes that deliveries were queued. True if the backlog begins in this process. `is_new` tells whether the
    /// backlog is new in the database, too.
    fn touch(&mut self, endpoint: EndpointId, application: ApplicationId, is_below_floor: bool, is_new: bool) -> bool {
        let Some(backlog) = self.backlogs.get_mut(&endpoint) else {
            let backlog = Backlog {
                application,
                state: State::Draining,
                floor: Floor::START,
                floor_since: Instant::now(),
                retry: FIRST_RETRY,
                is_empty: false,
                is_wakeable: false,
                is_new,
                was_touched: false,
                bytes: EXPECTED_BYTES,
                waits_since: None,
                noted: (None, None),
            };
            self.backlogs.insert(endpoint, backlog);
            self.make_ready(endpoint);
            return true;
        };
        if is_below_floor {
            (backlog.floor, backlog.floor_since) = (Floor::START, Instant::now());
        }
        backlog.was_touched = true;
        if std::mem::take(&mut backlog.is_empty) && !backlog.is_ready() {
            self.make_ready(endpoint);
        }
        false
    }

    fn make_ready(&mut self, endpoint: EndpointId) {
        self.leave(endpoint);
        let Some(backlog) = self.backlogs.get_mut(&endpoint) else { return };
        let position = self.ready.push(backlog.application, endpoint, backlog.is_new);
        (backlog.state, backlog.is_wakeable) = (State::Ready(position), false);
    }

    /// Makes a backlog wait in `state`.
    fn wait(&mut self, endpoint: EndpointId, state: State) {
        self.leave(endpoint);
        let Some(backlog) = self.backlogs.get_mut(&endpoint) else { return };
        (backlog.state, backlog.is_wakeable) = (state, false);
        if let State::Until(at) = state {
            self.timers.insert((at, endpoint));
        }
    }

    /// Removes a backlog from the order or the timers, by the backlog's state.
    fn leave(&mut self, endpoint: EndpointId) {
        let Some(backlog) = self.backlogs.get(&endpoint) else { return };
        match backlog.state {
            State::Ready(position) => self.ready.remove(backlog.application, position),
            State::Until(at) => drop(self.timers.remove(&(at, endpoint))),
            State::Draining | State::Lane => {}
        }
    }
}

impl Backlog {
    fn is_ready(&self) -> bool {
        matches!(self.state, State::Ready(_))
    }
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::backlog::order::tests::{application, endpoint};

    fn process(number: u8) -> ProcessId {
        ProcessId::new(Timestamp::UNIX_EPOCH, [number; 10])
    }

    fn touched(of: u8, number: u8, owner: u8) -> TouchedBacklog {
        TouchedBacklog { endpoint: endpoint(number), application: application(of), owner: Some(process(owner)) }
    }

    fn order(backlogs: &Backlogs) -> Vec<EndpointId> {
        std::iter::from_fn(|| backlogs.next(&HashSet::new()).map(|next| next.endpoint)).collect()
    }

    #[tokio::test]
    async fn applications_take_turns_and_so_do_their_endpoints() {
        let backlogs = Backlogs::new();
        let touched = [touched(1, 1, 1), touched(1, 2, 1), touched(1, 3, 1), touched(2, 4, 1), touched(2, 5, 2)];
        assert_eq!(backlogs.touched(process(1), &touched, false).len(), 4, "another process owns a backlog");
        assert_eq!(order(&backlogs), [1, 4, 2, 3].map(endpoint));
        assert_eq!(backlogs.touched(process(1), &touched, false).len(), 0);
        assert_eq!(order(&backlogs), [], "the drain has taken all backlogs");
        for number in [1, 4] {
            backlogs.waits_for_place(endpoint(number));
        }
        let busy = HashSet::from([application(1)]);
        assert_eq!(backlogs.next(&busy).map(|next| next.endpoint), Some(endpoint(4)));
        assert_eq!((backlogs.report(false).owned, backlogs.report(false).waiting.len()), (4, 2));
        backlogs.is_ready(endpoint(2));
        assert_eq!(backlogs.report(true).waiting.len(), 3, "without a place, each ready backlog waits");
        assert_eq!(backlogs.hand_over(false), [endpoint(1)], "half of the backlogs, and none that is being drained");
        assert_eq!(backlogs.report(false).owned, 3);
    }

    #[tokio::test]
    async fn a_new_backlog_takes_turns_with_the_others_until_the_first_lease() {
        let backlogs = Backlogs::new();
        let taken: Vec<_> = (1..4)
            .map(|number| TakenBacklog {
                endpoint: endpoint(number),
                application: application(1),
                failures: 0,
                next_probe: None,
                rests_until: None,
            })
            .collect();
        assert_eq!(backlogs.begin(&taken).len(), 3);
        backlogs.touched(process(1), &[touched(1, 4, 1), touched(1, 5, 1)], false);
        assert_eq!(order(&backlogs), [4, 1, 5, 2, 3].map(endpoint));
        backlogs.leased(endpoint(4), Floor::START, 100);
        for number in [1, 4, 5] {
            backlogs.is_ready(endpoint(number));
        }
        assert_eq!(order(&backlogs), [5, 1, 4].map(endpoint), "a lease ends the precedence");
    }

    #[tokio::test(start_paused = true)]
    async fn a_backlog_waits_for_its_moment_or_its_lane() {
        let backlogs = Backlogs::new();
        backlogs.touched(process(1), &[touched(1, 1, 1), touched(1, 2, 1)], false);
        assert_eq!(order(&backlogs).len(), 2);
        backlogs.waits_for_lane(endpoint(1));
        backlogs.waits_until(endpoint(2), Instant::now() + Duration::from_secs(5));
        backlogs.wake(endpoint(2));
        assert_eq!((order(&backlogs), backlogs.pass_time().is_some()), (vec![], true));
        backlogs.wake(endpoint(1));
        tokio::time::advance(Duration::from_secs(6)).await;
        assert_eq!(backlogs.pass_time(), None);
        assert_eq!(order(&backlogs), [1, 2].map(endpoint));
        backlogs.forget(endpoint(1));
        backlogs.is_ready(endpoint(1));
        backlogs.is_ready(endpoint(2));
        assert_eq!(order(&backlogs), [endpoint(2)]);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_a_probe_ends_the_wait_for_the_next() {
        let backlogs = Backlogs::new();
        backlogs.touched(process(1), &[touched(1, 1, 1), touched(1, 2, 1)], false);
        assert_eq!(order(&backlogs).len(), 2);
        let later = Instant::now() + Duration::from_secs(60);
        backlogs.waits_until_woken(endpoint(1), later);
        backlogs.waits_until(endpoint(2), later);
        for number in [1, 2] {
            backlogs.wake(endpoint(number));
        }
        assert_eq!(order(&backlogs), [endpoint(1)], "a rate has no probe");
    }

    #[tokio::test]
    async fn a_backlog_that_was_queued_into_while_it_ended_is_looked_for() {
        let backlogs = Backlogs::new();
        let touched = [touched(1, 1, 1)];
        backlogs.touched(process(1), &touched, false);
        assert_eq!(order(&backlogs), [endpoint(1)]);
        backlogs.forget(endpoint(1));
        assert!(!backlogs.takes_look_for_more());
        backlogs.touched(process(1), &touched, false);
        assert_eq!(order(&backlogs), [endpoint(1)]);
        backlogs.touched(process(1), &touched, false);
        backlogs.forget(endpoint(1));
        assert!(backlogs.takes_look_for_more());
    }

    #[tokio::test(start_paused = true)]
    async fn the_floor_is_forgotten_in_time_and_when_rows_return() {
        let backlogs = Backlogs::new();
        let touched = [touched(1, 1, 1)];
        let floor = Floor { class: 0, delivery: fanfare_domain::ids::DeliveryId(endpoint(9).0) };
        let next = || {
            backlogs.is_ready(endpoint(1));
            backlogs.next(&HashSet::new()).map(|next| next.floor)
        };
        backlogs.touched(process(1), &touched, false);
        assert_eq!(next(), Some(Floor::START));
        backlogs.leased(endpoint(1), floor, 100);
        assert_eq!(next(), Some(floor));
        backlogs.touched(process(1), &touched, false);
        assert_eq!(next(), Some(floor));
        backlogs.touched(process(1), &touched, true);
        assert_eq!(next(), Some(Floor::START));
        backlogs.leased(endpoint(1), floor, 100);
        tokio::time::advance(FLOOR_HOLDS).await;
        assert_eq!(next(), Some(Floor::START));
    }
}
