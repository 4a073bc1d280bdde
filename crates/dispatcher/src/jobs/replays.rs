//! Replays: walks past events at each replay's rate, and queues the deliveries behind all other deliveries.

use std::{collections::HashSet, sync::Arc, time::Duration};

use fanfare_domain::{
    application::Application,
    delivery::replay::Selection,
    ids::{EndpointId, EventId},
};
use fanfare_service::crash_point;
use fanfare_store::{Job, PastEvent, Replay, Step, StoreError, Wanted};
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Schedule;
use crate::context::Context;

/// Interval of looks for running replays.
const EVERY: Duration = Duration::from_secs(1);

/// Longest run before another process may continue.
const RUN: Duration = Duration::from_secs(60);

/// Number and duration of portions. All deliveries of a second queued at once would delay new events.
const PORTIONS: usize = 10;
const PORTION: Duration = Duration::from_millis(100);

/// Longest search for deliveries to queue, for a portion of a replay.
const LOOKS_FOR: Duration = Duration::from_millis(50);

/// Maximum of events in a step.
const CHUNK: usize = 500;

/// Maximum of events in a step that needs their bodies.
const CHUNK_OF_BODIES: usize = 25;

/// Bound on the queued deliveries of a replay, in seconds of the replay's rate.
const SECONDS_QUEUED: usize = 10;

pub(crate) struct Replays {
    pub(crate) context: Arc<Context>,
}

impl Replays {
    /// Runs the job until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let schedule = Schedule::new(self.context.database.clone(), Job::Replays, EVERY, stop.clone());
        while let Some(lock) = schedule.next().await {
            schedule.run(lock, self.replay(&stop)).await;
        }
    }

    /// Advances all running replays, second by second, for at most [`RUN`].
    async fn replay(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let began = Instant::now();
        while began.elapsed() < RUN {
            let second = Instant::now();
            let mut running = self.context.database.store.running_replays().await?;
            if running.is_empty() {
                break;
            }
            for portion in 1..=PORTIONS {
                for replay in &mut running {
                    self.continue_one(replay, portion).await?;
                }
                let next = sleep_until(second + PORTION * portion as u32);
                if stop.run_until_cancelled(next).await.is_none() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// Advances a replay. A replay with a lasting error stops no other replay.
    async fn continue_one(&self, replay: &mut Replay, portion: usize) -> Result<(), StoreError> {
        let rate = replay.of.rate_per_second as usize;
        let room = rate * portion / PORTIONS - rate * (portion - 1) / PORTIONS;
        let id = replay.of.id;
        match self.advance(replay, room).await {
            Err(error) if !error.may_pass() => {
                tracing::warn!(%error, replay = %id, "cannot advance a replay; trying again");
                Ok(())
            }
            ended => ended,
        }
    }

    /// Queues up to `room` deliveries of a replay, within the bound on queued deliveries.
    async fn advance(&self, replay: &mut Replay, room: usize) -> Result<(), StoreError> {
        let Replay { of, reached, .. } = replay;
        let (context, store) = (&self.context, &self.context.database.store);
        let Some(application) = context.directory.application(of.application) else { return Ok(()) };
        if room == 0 {
            return Ok(());
        }
        let selection = of.selection()?;
        let most = of.rate_per_second as usize * SECONDS_QUEUED;
        let mut room = room.min(most.saturating_sub(store.queued_of_replay(of.id, most).await?));
        let has_filters = selection.has_filters(&application);
        let chunk = if has_filters { CHUNK_OF_BODIES } else { CHUNK };
        let until = Instant::now() + LOOKS_FOR;
        while room > 0 {
            let events = store.past_events(of, *reached, chunk, has_filters).await?;
            let (events, candidates) = self.candidates(&selection, &application, events, has_filters).await;
            let wanted = store.still_wanted(of, &candidates).await?;
            let (step, wanted) = cut(&events, (*reached, events.len() < chunk), candidates, &wanted, room);
            let advanced = store.advance_replay(of, step, &wanted, Some(context.process())).await?;
            let Some(advanced) = advanced else { break };
            crash_point("replay.committed");
            context.touched(&advanced.backlogs, false);
            if step.is_last {
                tracing::info!(replay = %of.id, "a replay is done");
                break;
            }
            (*reached, room) = (step.reached, room.saturating_sub(advanced.queued));
            if Instant::now() >= until {
                break;
            }
        }
        Ok(())
    }
}

impl Replays {
    /// Lists the deliveries of events. Filters may take long, and are asked beside other tasks.
    async fn candidates(
        &self,
        selection: &Selection,
        application: &Arc<Application>,
        events: Vec<PastEvent>,
        has_filters: bool,
    ) -> (Vec<PastEvent>, Vec<Wanted>) {
        let (selection, application) = (selection.clone(), Arc::clone(application));
        let (now, expiry) = (self.context.now(), self.context.expiry);
        let listing = move || {
            let wanted = Wanted::of(&selection, &application, &events, now, expiry);
            (events, wanted)
        };
        if !has_filters {
            return listing();
        }
        match tokio::task::spawn_blocking(listing).await {
            Ok(listed) => listed,
            Err(failed) => match failed.try_into_panic() {
                Ok(panic) => std::panic::resume_unwind(panic),
                // The process stops.
                Err(_) => std::future::pending().await,
            },
        }
    }
}

/// Cuts the events to a step that ends with the event that fills `room` with wanted deliveries. The last event may
/// exceed `room`, since an event's deliveries stay together.
fn cut(
    events: &[PastEvent],
    (from, is_last): (Option<(Timestamp, EventId)>, bool),
    candidates: Vec<Wanted>,
    wanted: &HashSet<(EventId, EndpointId)>,
    room: usize,
) -> (Step, Vec<Wanted>) {
    let mut taken: Vec<Wanted> = Vec::new();
    let mut step = Step { from, reached: from, events: 0, is_last };
    let is_wanted = |candidate: &Wanted| wanted.contains(&(candidate.event, candidate.endpoint));
    let mut candidates = candidates.into_iter().filter(is_wanted).peekable();
    for event in events {
        if taken.len() >= room {
            step.is_last = false;
            break;
        }
        while let Some(candidate) = candidates.next_if(|candidate| candidate.event == event.id) {
            taken.push(candidate);
        }
        step.reached = Some((event.accepted_at, event.id));
        step.events += 1;
    }
    (step, taken)
}
