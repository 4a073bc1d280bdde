//! Goes through the events that somebody wants sent again, at the pace that was asked for, and behind everything else.

use std::{collections::HashSet, time::Duration};

use fanfare_broker::BrokerSettings;
use fanfare_domain::ids::{EndpointId, EventId};
use fanfare_service::crash_point;
use fanfare_store::{Directory, Job, PastEvent, Replay, Step, StoreError, Wanted};
use jiff::Timestamp;
use tokio::time::{Instant, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{Turns, is_behind};
use crate::{database::Database, settle::Settler};

/// How often it is looked whether something is to be replayed.
const EVERY: Duration = Duration::from_secs(1);

/// The longest that it goes on before another process may.
const TURN: Duration = Duration::from_secs(60);

/// What a replay may send in a second is sent in so many portions: all at once, it would be in the way of what is new.
const PORTIONS: usize = 10;
const PORTION: Duration = Duration::from_millis(100);

/// How long it looks for something to send, for each portion of each replay.
const LOOKS_FOR: Duration = Duration::from_millis(50);

/// Events that are gone through in one commit, at the most.
const CHUNK: usize = 500;

/// Due claims in their queue behind which nothing is replayed: what is new, and what is due, comes first.
const BACKLOG: u32 = 500;

/// Seconds of its rate that a replay may have on their way, what was tried or put off not counted.
const ON_THEIR_WAY: usize = 10;

/// The job of replaying.
pub(crate) struct Replays {
    pub(crate) database: Database,
    pub(crate) broker: BrokerSettings,
    pub(crate) directory: Directory,
    pub(crate) settler: Settler,
}

impl Replays {
    /// Replays until `stop`. What is committed and not published when the process dies is rescued.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let turns = Turns { database: self.database.clone(), job: Job::Replays, every: EVERY, stop };
        while let Some(lock) = turns.next().await {
            turns.take(lock, self.turn(&turns.stop)).await;
        }
    }

    /// Goes on second by second, as long as there is something to replay.
    async fn turn(&self, stop: &CancellationToken) -> Result<(), StoreError> {
        let began = Instant::now();
        while began.elapsed() < TURN {
            let second = Instant::now();
            let mut running = self.database.store.running_replays().await?;
            if running.is_empty() || is_behind(&self.broker, &self.settler, BACKLOG, Job::Replays).await {
                break;
            }
            for portion in 1..=PORTIONS {
                for replay in &mut running {
                    self.go_on(replay, portion).await?;
                }
                let next = sleep_until(second + PORTION * portion as u32);
                if stop.run_until_cancelled(next).await.is_none() {
                    return Ok(());
                }
            }
        }
        Ok(())
    }

    /// What cannot be read of one replay stops no other.
    async fn go_on(&self, replay: &mut Replay, portion: usize) -> Result<(), StoreError> {
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

    /// Sends so much of a replay, and less where as much of it is on its way as may be.
    async fn advance(&self, replay: &mut Replay, room: usize) -> Result<(), StoreError> {
        let Replay { of, reached, .. } = replay;
        let store = &self.database.store;
        let Some(application) = self.directory.application(of.application) else { return Ok(()) };
        if room == 0 {
            return Ok(());
        }
        let selection = of.selection()?;
        let most = of.rate_per_second as usize * ON_THEIR_WAY;
        let mut room = room.min(most.saturating_sub(store.unfinished_of_replay(of.id, most).await?));
        let until = Instant::now() + LOOKS_FOR;
        while room > 0 {
            let events = store.past_events(of, *reached, CHUNK).await?;
            let candidates = Wanted::of(&selection, &application, &events);
            let wanted = store.still_wanted(of, &candidates).await?;
            let (step, wanted) = cut(&events, *reached, candidates, &wanted, room);
            let Some(due) = store.advance_replay(of, step, &wanted).await? else { break };
            crash_point("replay.committed");
            self.settler.publish_due(&due).await;
            if step.is_last {
                tracing::info!(replay = %of.id, "a replay is done");
                break;
            }
            (*reached, room) = (step.reached, room.saturating_sub(due.len()));
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
    let mut candidates = candidates.into_iter().filter(|one| wanted.contains(&(one.event, one.endpoint))).peekable();
    for event in events {
        if taken.len() >= room {
            step.is_last = false;
            break;
        }
        while let Some(one) = candidates.next_if(|one| one.event == event.id) {
            taken.push(one);
        }
        step.reached = Some((event.accepted_at, event.id));
        step.events += 1;
    }
    (step, taken)
}
