//! Walks the past events that replays ask for, at each replay's pace, and queues their deliveries behind all others.

use std::{collections::HashSet, sync::Arc, time::Duration};

use fanfare_domain::ids::{EndpointId, EventId};
use fanfare_service::crash_point;
use fanfare_store::{Job, PastEvent, Replay, Step, StoreError, Wanted};
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::Schedule;
use crate::context::Context;

/// How often it looks for running replays.
const EVERY: Duration = Duration::from_secs(1);

/// The longest that it goes on before another process may.
const RUN: Duration = Duration::from_secs(60);

/// A second's worth of a replay is queued in so many portions: all at once, it would be in the way of new events.
const PORTIONS: usize = 10;
const PORTION: Duration = Duration::from_millis(100);

/// How long it looks for something to send, for each portion of each replay.
const LOOKS_FOR: Duration = Duration::from_millis(50);

/// Events of one step.
const CHUNK: usize = 500;

/// Seconds of its rate that a replay may have queued.
const SECONDS_QUEUED: usize = 10;

/// The job of the replays.
pub(crate) struct Replays {
    pub(crate) context: Arc<Context>,
}

impl Replays {
    /// Replays until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let schedule =
            Schedule { database: self.context.database.clone(), job: Job::Replays, every: EVERY, stop: stop.clone() };
        while let Some(lock) = schedule.next().await {
            schedule.run(lock, self.replay(&stop)).await;
        }
    }

    /// Goes on second by second, as long as there is something to replay.
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

    /// A replay that cannot be read stops no other.
    async fn continue_one(&self, replay: &mut Replay, portion: usize) -> Result<(), StoreError> {
        let rate = replay.of.rate_per_second as usize;
        let room = rate * portion / PORTIONS - rate * (portion - 1) / PORTIONS;
        let id = replay.of.id;
        match self.advance(replay, room).await {
            Err(error) if !error.may_pass() => {
                tracing::warn!(%error, replay = %id, "a replay cannot go on; it is tried again");
                Ok(())
            }
            ended => ended,
        }
    }

    /// Queues `room` deliveries of a replay, and fewer where as many of it are queued as may be.
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
        let until = Instant::now() + LOOKS_FOR;
        while room > 0 {
            let events = store.past_events(of, *reached, CHUNK).await?;
            let candidates = Wanted::of(&selection, &application, &events, context.now(), context.expiry);
            let wanted = store.still_wanted(of, &candidates).await?;
            let (step, wanted) = cut(&events, *reached, candidates, &wanted, room);
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

/// As many of the events as have no more than `room` deliveries that are wanted; the first one in any case.
fn cut(
    events: &[PastEvent],
    from: Option<(Timestamp, EventId)>,
    candidates: Vec<Wanted>,
    wanted: &HashSet<(EventId, EndpointId)>,
    room: usize,
) -> (Step, Vec<Wanted>) {
    let mut taken: Vec<Wanted> = Vec::new();
    let mut step = Step { from, reached: from, events: 0, is_last: events.len() < CHUNK };
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
