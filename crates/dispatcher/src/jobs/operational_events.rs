//! Operational events: tells changes of state to the application that the operator names. Without the setting, the job
//! does not run.
//!
//! A turn counts occurrences behind the mark, looks at lasting conditions, and tells what is due. Each of the three
//! ends with commits of its own: a turn continues an interrupted turn. No look sees the operator's application, so that
//! no event tells about an operational event.

mod event;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use fanfare_domain::{
    application::Application,
    diagnosis::rollup::STEP,
    endpoint::EndpointStatus,
    event::description::{self, Effect},
    ids::{ApplicationId, EndpointId},
    operational::{
        Because, Change, Condition, Course, Figures, catalogue,
        state::{self, State},
    },
    time::saturating_sub,
};
use fanfare_service::crash_point;
use fanfare_store::{
    ConditionNotice, HeldBounds, Job, LastingConditions, OperationalChange, OperationalKey, OperationalLook,
    OperationalMark, OperationalState, StoreError,
};
use jiff::Timestamp;
use tokio_util::sync::CancellationToken;
use url::Url;

use super::Schedule;
use crate::{context::Context, stages::intake::fan_out::FanOuts};
use event::{Announcement, Opened};

/// Interval of the turns.
const EVERY: Duration = Duration::from_secs(10);

/// Age of the occurrences that are counted: all commits with an earlier time have ended by then.
const COUNTED_AFTER: Duration = Duration::from_secs(20);

/// Deadlines of the count and of the look: the time of a run suffices for the events, too.
const COUNT_TIMEOUT: Duration = Duration::from_secs(30);
const LOOK_TIMEOUT: Duration = Duration::from_secs(50);

/// Maximum of states in a commit, of events, and of deliveries beside the deliveries of the last event.
const STATES: usize = 1000;
const EVENTS: usize = 50;
const DELIVERIES: usize = 5000;

/// Maximum of events in a turn, and of refused events.
const TURN: usize = 500;
const REFUSED: usize = 10;

pub(crate) struct OperationalEvents {
    pub(crate) context: Arc<Context>,
    pub(crate) fan_outs: FanOuts,
    /// The application that the operator names.
    pub(crate) application: ApplicationId,
    pub(crate) held: HeldBounds,
    /// Address of the web pages.
    pub(crate) console: Option<Url>,
    /// True if mails tell owners the changes of lasting conditions.
    pub(crate) is_mailed: bool,
    /// True while a commit with events has no answer.
    pub(crate) is_unsure: AtomicBool,
}

/// The states that a turn knows.
type States = HashMap<OperationalKey, OperationalState>;

impl OperationalEvents {
    /// Runs the job until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let (is_missing, is_described) = (AtomicBool::new(false), AtomicBool::new(false));
        self.known_application(&is_missing).await;
        let schedule = Schedule::new(self.context.database.clone(), Job::OperationalEvents, EVERY, stop.clone());
        while let Some(lock) = schedule.next().await {
            schedule.run(lock, self.turn((&is_missing, &is_described), &stop)).await;
            if self.is_unsure.swap(false, Ordering::Relaxed) {
                self.fan_outs.recover(&stop);
            }
        }
    }

    /// The named application; `None` after a message if there is none.
    async fn known_application(&self, is_missing: &AtomicBool) -> Option<Arc<Application>> {
        let directory = &self.context.directory;
        let mut found = directory.application(self.application);
        if found.is_none() && directory.refresh([self.application]).await {
            found = directory.application(self.application);
        }
        if found.is_none() && !is_missing.swap(true, Ordering::Relaxed) {
            tracing::error!(
                application = %self.application,
                "no operational events are told: FANFARE_OPERATIONAL_EVENTS_APPLICATION names an application that does not \
                 exist, or that cannot be read; create the application, or change the setting"
            );
        }
        found
    }

    async fn turn(
        &self,
        (is_missing, is_described): (&AtomicBool, &AtomicBool),
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let store = &self.context.database.store;
        let Some(application) = self.known_application(is_missing).await else { return Ok(()) };
        is_missing.store(false, Ordering::Relaxed);
        if !is_described.swap(true, Ordering::Relaxed) {
            self.describe_types().await.inspect_err(|_| is_described.store(false, Ordering::Relaxed))?;
        }
        let Some(mark) = store.operational_mark(self.application).await? else {
            tracing::warn!("operational events wait until `fanfare migrate` has built the index deliveries_given_up");
            return Ok(());
        };
        let known = store.operational_states(self.application).await?;
        let mut states: States = known.into_iter().map(|state| (state.key, state)).collect();
        let counted = store.with_deadline(COUNT_TIMEOUT, self.count(&mark, &mut states)).await;
        let looked = store.with_deadline(LOOK_TIMEOUT, self.look(&mark, &mut states)).await;
        if matches!((&counted, &looked), (Ok(false), _) | (_, Ok(false))) {
            tracing::info!("another process tells operational events");
            return Ok(());
        }
        // Whatever cannot be counted or seen: known changes are told.
        for error in [&counted, &looked].into_iter().filter_map(|part| part.as_ref().err()) {
            tracing::warn!(%error, "cannot look for operational events; known changes are told");
        }
        self.tell(&application, &mut states, stop).await?;
        store.forget_operational_states(saturating_sub(self.context.now(), state::KEPT)).await?;
        counted.and(looked).map(drop)
    }

    /// Describes the types of operational events in the application, with schemas and samples.
    async fn describe_types(&self) -> Result<(), StoreError> {
        let wanted = match catalogue::wanted() {
            Ok(wanted) => wanted,
            Err(fault) => {
                tracing::error!(%fault, "cannot describe the types of operational events");
                return Ok(());
            }
        };
        let names: Vec<_> = wanted.iter().map(|wanted| wanted.name.clone()).collect();
        let plan = |known: &_| (description::plan(known, &wanted), true);
        let store = &self.context.database.store;
        for planned in store.change_event_types(self.application, &names, plan).await? {
            if let Effect::Refused(fault) = planned.effect {
                tracing::warn!(%fault, event_type = %planned.name, "cannot describe a type of operational events");
            }
        }
        Ok(())
    }

    /// Counts what occurred since the mark, and moves the mark, step by step. False if another process did.
    async fn count(&self, mark: &OperationalMark, states: &mut States) -> Result<bool, StoreError> {
        let settled = saturating_sub(self.context.now(), COUNTED_AFTER);
        let mut mark = *mark;
        while let Some((window, until)) = mark.window(settled) {
            let changed = self.counted(&window, until, states).await?;
            let counted = Some((mark.counted, until));
            let change = OperationalChange { states: &changed, counted, ..OperationalChange::default() };
            if !self.write(&change, states).await? {
                return Ok(false);
            }
            crash_point("operational.counted");
            mark.counted = until;
        }
        Ok(true)
    }

    /// The states after the occurrences of a step.
    async fn counted(
        &self,
        window: &OperationalMark,
        until: Timestamp,
        states: &States,
    ) -> Result<Vec<OperationalState>, StoreError> {
        let (store, now) = (&self.context.database.store, self.context.now());
        let mut changed = Vec::new();
        for occurred in store.occurrences(window, until).await? {
            let state = |known: Option<&State>| State::count(known, &occurred.occurrences, now);
            changed.push(next(states.get(&occurred.key), occurred.key, occurred.application, state));
        }
        for replay in store.finished_replays(window, until).await? {
            let key = OperationalKey { subject: replay.figures.id.0, condition: Condition::ReplayFinished };
            let figures = Figures { replay: Some(replay.figures), ..Figures::default() };
            let state = |_: Option<&State>| State::once(replay.at, figures, now);
            changed.push(next(states.get(&key), key, Some(replay.application), state));
        }
        changed.sort_unstable_by_key(|state| state.key);
        Ok(changed)
    }

    /// Looks at the lasting conditions, and notes the changes. False if another process did.
    async fn look(&self, mark: &OperationalMark, states: &mut States) -> Result<bool, StoreError> {
        let (store, now) = (&self.context.database.store, self.context.now());
        let LastingConditions { found, unknown } = self.lasting(mark, states).await?;
        let mut holding: HashSet<OperationalKey> = unknown.into_iter().collect();
        let mut changed = Vec::new();
        for found in &found {
            holding.insert(found.key);
            let known = states.get(&found.key);
            // A disabled webhook has the time of the change on record.
            let is_old = !mark.is_looked && known.is_none() && found.key.condition != Condition::Disabled;
            let state = if is_old {
                Some(State::before(&found.found, now))
            } else {
                State::look(known.map(|known| &known.state), Some(&found.found), now)
            };
            if let Some(state) = state {
                changed.push(next(known, found.key, Some(found.application), |_| state));
            }
        }
        let gone: Vec<_> = states.values().filter(|known| !holding.contains(&known.key)).collect();
        changed.extend(self.ended(&gone).await?);
        changed.sort_unstable_by_key(|state| state.key);
        for changed in changed.chunks(STATES) {
            let change = OperationalChange { states: changed, ..OperationalChange::default() };
            if !self.write(&change, states).await? {
                return Ok(false);
            }
        }
        if !mark.is_looked {
            store.note_first_look(self.application).await?;
        }
        crash_point("operational.seen");
        Ok(true)
    }

    /// Finds the lasting conditions that hold.
    async fn lasting(&self, mark: &OperationalMark, states: &States) -> Result<LastingConditions, StoreError> {
        let of = |condition| states.values().filter(move |known| known.key.condition == condition);
        let failing: Vec<_> = of(Condition::Failing)
            .filter_map(|known| Some((endpoint(known.key), success_from(&known.state)?)))
            .collect();
        let near_held: Vec<_> =
            of(Condition::HeldNearLimit).filter(|known| known.state.holds).map(|known| endpoint(known.key)).collect();
        let (directory, expiry) = (&self.context.directory, self.context.expiry);
        let lifetime = |application, id| {
            let application = directory.application(application);
            let endpoint = application.as_ref().and_then(|application| application.endpoint(id));
            endpoint.map_or(expiry, |endpoint| endpoint.policy.lifetime(expiry))
        };
        let look = OperationalLook {
            mark: *mark,
            held: self.held,
            failing: &failing,
            near_held: &near_held,
            lifetime: &lifetime,
        };
        self.context.database.store.lasting_conditions(&look).await
    }

    /// The states after the end of conditions, with the reason.
    async fn ended(&self, gone: &[&OperationalState]) -> Result<Vec<OperationalState>, StoreError> {
        let now = self.context.now();
        let ended = |known: &OperationalState| match known.key.condition.course() {
            Course::Lasting => State::look(Some(&known.state), None, now),
            Course::Recurring => known.state.quiet(known.key.condition, now),
            Course::Single => None,
        };
        let after = |known: &&OperationalState| {
            ended(known).map(|state| next(Some(known), known.key, known.application, |_| state))
        };
        let mut changed: Vec<OperationalState> = gone.iter().filter_map(after).collect();
        let is_lasting = |state: &OperationalState| state.key.condition.course() == Course::Lasting;
        let ids: Vec<_> = changed.iter().filter(|state| is_lasting(state)).map(|state| endpoint(state.key)).collect();
        if ids.is_empty() {
            return Ok(changed);
        }
        let statuses = self.context.database.store.statuses(&ids).await?;
        for state in changed.iter_mut().filter(|state| is_lasting(state)) {
            state.state.figures.because = Some(because(statuses.get(&endpoint(state.key)).copied()));
        }
        Ok(changed)
    }

    /// Tells the changes that are due. Events, deliveries and told states of a batch are one commit. A refused batch is
    /// halved until the refused event is alone.
    async fn tell(
        &self,
        application: &Arc<Application>,
        states: &mut States,
        stop: &CancellationToken,
    ) -> Result<(), StoreError> {
        let now = self.context.now();
        let mut due: Vec<OperationalState> =
            states.values().filter(|known| known.state.due(known.key.condition, now).is_some()).cloned().collect();
        // The oldest change first.
        due.sort_unstable_by_key(|known| (known.state.seen_at, known.key));
        due.truncate(TURN);
        let (mut batches, mut refused): (Vec<&[OperationalState]>, _) = (due.chunks(EVENTS).rev().collect(), 0);
        while let Some(batch) = batches.pop() {
            match self.tell_batch(application, batch, states, stop).await {
                Ok(None) => return Ok(()),
                Ok(Some(told)) => batches.extend(batch.get(told..).filter(|rest| !rest.is_empty())),
                Err(error @ (StoreError::Unavailable(_) | StoreError::Conflict(_) | StoreError::Busy)) => {
                    return Err(error);
                }
                Err(error) if batch.len() == 1 => {
                    let (subject, condition) = (batch[0].key.subject, batch[0].key.condition.as_str());
                    tracing::error!(%error, %subject, condition, "the database refuses an operational event; trying again");
                    refused += 1;
                    if refused == REFUSED {
                        return Err(error);
                    }
                }
                Err(_) => {
                    let (first, second) = batch.split_at(batch.len() / 2);
                    batches.extend([second, first]);
                }
            }
        }
        Ok(())
    }

    /// Tells the first changes of a batch, within the bound on deliveries. Returns their number; `None` if another
    /// process has told one of them.
    async fn tell_batch(
        &self,
        application: &Arc<Application>,
        batch: &[OperationalState],
        states: &mut States,
        stop: &CancellationToken,
    ) -> Result<Option<usize>, StoreError> {
        let announcement = self.announcement(application, batch).await?;
        let (mut told, mut opened): (Vec<OperationalState>, Vec<Opened>) = (Vec::new(), Vec::new());
        let mut notices = Vec::new();
        let (mut taken, mut weight) = (0, 0);
        for known in batch {
            if weight >= DELIVERIES {
                break;
            }
            taken += 1;
            let event = match announcement.event(known) {
                Ok(event) => event,
                Err(fault) => {
                    tracing::error!(%fault, condition = known.key.condition.as_str(), "cannot tell a change; trying again");
                    continue;
                }
            };
            weight += event.as_ref().map_or(0, Opened::weight);
            let state = known.state.tell(known.key.condition, self.context.now());
            let event_id = event.as_ref().map(Opened::id);
            notices.extend(event.as_ref().and_then(|_| self.notice(known)));
            told.push(OperationalState { state, event: event_id.or(known.event), ..known.clone() });
            opened.extend(event);
        }
        told.sort_unstable_by_key(|state| state.key);
        let events: Vec<_> = opened.iter().map(|opened| &opened.new).collect();
        let change = OperationalChange { states: &told, events: &events, notices: &notices, counted: None };
        let is_written = self.write(&change, states).await?;
        crash_point("operational.told");
        if is_written {
            opened.into_iter().for_each(|opened| opened.finish(&self.fan_outs, stop));
        }
        Ok(is_written.then_some(taken))
    }

    /// The due change for a mail to the endpoint's owner; `None` if no mail tells the change. Mails about given-up
    /// deliveries tell more than the condition.
    fn notice(&self, known: &OperationalState) -> Option<ConditionNotice> {
        let OperationalState { key, state, .. } = known;
        if !self.is_mailed || key.condition.course() != Course::Lasting {
            return None;
        }
        let change = state.due(key.condition, self.context.now())?;
        // A deleted endpoint has no owner.
        let endpoint = self.context.endpoint(known.application?, endpoint(*key))?;
        let because = state.figures.because.filter(|_| change == Change::Ends);
        // The change of the status itself is told.
        let is_told = matches!(because, Some(Because::Paused | Because::Disabled | Because::Deleted));
        if is_told && key.condition != Condition::Disabled {
            return None;
        }
        let reason = match change {
            Change::Begins => state.figures.reason.clone(),
            Change::Ends => because.map(|because| because.as_str().to_owned()),
        };
        let endpoint = endpoint.id;
        Some(ConditionNotice { endpoint, condition: key.condition, change, since: state.since, reason })
    }

    /// Reads the names that the events of a batch tell.
    async fn announcement<'a>(
        &'a self,
        application: &'a Arc<Application>,
        batch: &[OperationalState],
    ) -> Result<Announcement<'a>, StoreError> {
        let store = &self.context.database.store;
        let is_of_endpoint = |known: &&OperationalState| {
            !matches!(known.key.condition, Condition::MessagesParked | Condition::ReplayFinished)
        };
        let endpoints: Vec<EndpointId> = batch.iter().filter(is_of_endpoint).map(|known| endpoint(known.key)).collect();
        let applications: Vec<ApplicationId> = batch.iter().filter_map(|known| known.application).collect();
        let names = store.names(None, &applications, &[]).await?;
        Ok(Announcement {
            context: &self.context,
            application,
            console: self.console.as_ref(),
            endpoints: store.told_endpoints(&endpoints).await?,
            names: BTreeMap::from_iter(names.applications),
        })
    }

    /// Writes a change, and keeps the states as they are then. False if another process has changed a state.
    async fn write(&self, change: &OperationalChange<'_>, states: &mut States) -> Result<bool, StoreError> {
        if change.states.is_empty() && change.counted.is_none() {
            return Ok(true);
        }
        let context = &self.context;
        if !change.events.is_empty() {
            self.is_unsure.store(true, Ordering::Relaxed);
        }
        let store = &context.database.store;
        let written = store.change_operational(context.process(), self.application, change).await;
        if !matches!(written, Err(StoreError::Unavailable(_))) {
            self.is_unsure.store(false, Ordering::Relaxed);
        }
        let Some(persisted) = written? else { return Ok(false) };
        context.touched(&persisted.backlogs, false);
        for state in change.states {
            states.insert(state.key, OperationalState { version: state.version + 1, ..state.clone() });
        }
        Ok(true)
    }
}

/// The next state of a key.
fn next(
    known: Option<&OperationalState>,
    key: OperationalKey,
    application: Option<ApplicationId>,
    state: impl FnOnce(Option<&State>) -> State,
) -> OperationalState {
    OperationalState {
        key,
        application,
        state: state(known.map(|known| &known.state)),
        event: known.and_then(|known| known.event),
        version: known.map_or(0, |known| known.version),
    }
}

fn endpoint(key: OperationalKey) -> EndpointId {
    EndpointId(key.subject)
}

/// Earliest time of a success with which a failing endpoint recovers; `None` for an endpoint that does not fail. An
/// endpoint that was paused or disabled meanwhile has not recovered.
fn success_from(state: &State) -> Option<Timestamp> {
    match state.figures.because {
        _ if state.holds => Some(state.since),
        Some(Because::Paused | Because::Disabled) if state.told => Some(saturating_sub(state.since, STEP)),
        _ => None,
    }
}

fn because(status: Option<EndpointStatus>) -> Because {
    match status {
        Some(EndpointStatus::Enabled) => Because::Recovered,
        Some(EndpointStatus::Paused) => Because::Paused,
        Some(EndpointStatus::Disabled) => Because::Disabled,
        None => Because::Deleted,
    }
}
