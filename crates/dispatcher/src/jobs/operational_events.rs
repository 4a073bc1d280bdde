//! Operational events: tells changes of state to the application that the operator names. Without the setting, the job
//! does not run.
//!
//! A turn counts occurrences behind the mark, looks at lasting conditions, and tells what is due. Each of the three ends
//! with commits of its own: a turn continues an interrupted turn. No look sees the operator's application, so that no
//! event tells about an operational event.

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
    event::description::{self, Effect},
    ids::{ApplicationId, EndpointId},
    operational::{
        Condition, Course, Figures, catalogue,
        state::{self, State},
    },
    time::saturating_sub,
};
use fanfare_service::crash_point;
use fanfare_store::{
    HeldBounds, Job, OperationalChange, OperationalKey, OperationalMark, OperationalState, StoreError,
};
use tokio_util::sync::CancellationToken;
use url::Url;

use super::Schedule;
use crate::{context::Context, stages::fan_out::FanOuts};
use event::{Announcement, Opened};

/// Interval of the turns.
const EVERY: Duration = Duration::from_secs(10);

/// Age of the occurrences that are counted: all commits with an earlier time have ended by then.
const COUNTED_AFTER: Duration = Duration::from_secs(20);

/// Maximum of states in a commit, and of events.
const STATES: usize = 1000;
const EVENTS: usize = 50;

pub(crate) struct OperationalEvents {
    pub(crate) context: Arc<Context>,
    pub(crate) fan_outs: FanOuts,
    /// The application that the operator names.
    pub(crate) application: ApplicationId,
    pub(crate) held: HeldBounds,
    /// Address of the web pages.
    pub(crate) console: Option<Url>,
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
        let mut states: States =
            store.operational_states().await?.into_iter().map(|state| (state.key, state)).collect();
        if !self.count(&mark, &mut states).await? || !self.look(&mark, &mut states).await? {
            tracing::info!("another process tells operational events");
            return Ok(());
        }
        self.tell(&application, &mut states, stop).await?;
        let forgotten = saturating_sub(self.context.now(), state::KEPT);
        store.forget_operational_states(forgotten).await.map(drop)
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

    /// Counts what occurred since the mark, and moves the mark. False if another process did.
    async fn count(&self, mark: &OperationalMark, states: &mut States) -> Result<bool, StoreError> {
        let (store, now) = (&self.context.database.store, self.context.now());
        let until = saturating_sub(now, COUNTED_AFTER);
        if until <= mark.counted {
            return Ok(true);
        }
        let mut changed = Vec::new();
        for occurred in store.occurrences(mark, until).await? {
            let state = |known: Option<&State>| State::count(known, &occurred.occurrences, now);
            changed.push(next(states.get(&occurred.key), occurred.key, occurred.application, state));
        }
        for replay in store.finished_replays(mark, until).await? {
            let key = OperationalKey { subject: replay.figures.id.0, condition: Condition::ReplayFinished };
            let figures = Figures { replay: Some(replay.figures), ..Figures::default() };
            let state = |_: Option<&State>| State::once(replay.at, figures, now);
            changed.push(next(states.get(&key), key, Some(replay.application), state));
        }
        let change = OperationalChange {
            states: &changed,
            counted: Some((mark.counted, until)),
            ..OperationalChange::default()
        };
        let is_written = self.write(&change, states).await?;
        crash_point("operational.counted");
        Ok(is_written)
    }

    /// Looks at the lasting conditions, and notes the changes. False if another process did.
    async fn look(&self, mark: &OperationalMark, states: &mut States) -> Result<bool, StoreError> {
        let (store, now) = (&self.context.database.store, self.context.now());
        let is_failing = |known: &&OperationalState| known.key.condition == Condition::Failing && known.state.holds;
        let failing: Vec<_> = states.values().filter(is_failing).map(|known| (endpoint(known.key), known)).collect();
        let failing: Vec<_> = failing.into_iter().map(|(id, known)| (id, known.state.since)).collect();
        let found = store.lasting_conditions(mark, self.held, &failing).await?;
        let (mut changed, mut holding) = (Vec::new(), HashSet::new());
        for found in &found {
            holding.insert(found.key);
            let known = states.get(&found.key);
            if let Some(state) = State::look(known.map(|known| &known.state), Some(&found.found), now) {
                changed.push(next(known, found.key, Some(found.application), |_| state));
            }
        }
        for known in states.values().filter(|known| !holding.contains(&known.key)) {
            let state = match known.key.condition.course() {
                Course::Lasting => State::look(Some(&known.state), None, now),
                Course::Recurring => known.state.quiet(known.key.condition, now),
                Course::Single => None,
            };
            if let Some(state) = state {
                changed.push(next(Some(known), known.key, known.application, |_| state));
            }
        }
        for changed in changed.chunks(STATES) {
            let change = OperationalChange { states: changed, ..OperationalChange::default() };
            if !self.write(&change, states).await? {
                return Ok(false);
            }
        }
        crash_point("operational.seen");
        Ok(true)
    }

    /// Tells all changes that are due. Events, deliveries and told states of a batch are one commit.
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
        for batch in due.chunks(EVENTS) {
            if !self.tell_batch(application, batch, states, stop).await? {
                return Ok(());
            }
        }
        Ok(())
    }

    /// Tells a batch of changes. False if another process has told one of them.
    async fn tell_batch(
        &self,
        application: &Arc<Application>,
        batch: &[OperationalState],
        states: &mut States,
        stop: &CancellationToken,
    ) -> Result<bool, StoreError> {
        let announcement = self.announcement(application, batch).await?;
        let (mut told, mut opened): (Vec<OperationalState>, Vec<Opened>) = (Vec::new(), Vec::new());
        for known in batch {
            let event = match announcement.event(known) {
                Ok(event) => event,
                Err(fault) => {
                    tracing::error!(%fault, condition = known.key.condition.as_str(), "cannot tell a change; trying again");
                    continue;
                }
            };
            let state = known.state.tell(known.key.condition, self.context.now());
            let event_id = event.as_ref().map(Opened::id);
            told.push(OperationalState { state, event: event_id.or(known.event), ..known.clone() });
            opened.extend(event);
        }
        let events: Vec<_> = opened.iter().map(|opened| &opened.new).collect();
        let change = OperationalChange { states: &told, events: &events, ..OperationalChange::default() };
        let is_written = self.write(&change, states).await?;
        crash_point("operational.told");
        if is_written {
            opened.into_iter().for_each(|opened| opened.finish(&self.fan_outs, stop));
        }
        Ok(is_written)
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
        let Some(persisted) = context.database.store.change_operational(context.process(), change).await? else {
            return Ok(false);
        };
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
