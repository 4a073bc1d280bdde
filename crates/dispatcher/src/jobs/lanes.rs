//! Looks at the lanes of this process: shows those that there is something to see of, and forgets what is not used.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use fanfare_domain::ids::{DispatcherId, EndpointId};
use fanfare_store::{LaneView, StoreError};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::{
    database::Database,
    lanes::{Lanes, Look},
    metric,
    rates::Rates,
};

/// How often it looks.
const EVERY: Duration = Duration::from_secs(2);

/// A lane that stays as it is, is written again at the look after this, and so within ten seconds: it would
/// no longer be shown after thirty.
const AGAIN_AFTER: Duration = Duration::from_secs(7);

/// How often it tidies up.
const TIDIES_EVERY: Duration = Duration::from_secs(30);

/// Lanes that are written, and that are taken back, at one look.
const MOST: usize = 1000;

/// The longest that the database may take.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The job of the lanes.
pub(crate) struct LaneKeeper {
    pub(crate) dispatcher: DispatcherId,
    pub(crate) database: Database,
    pub(crate) lanes: Lanes,
    pub(crate) rates: Rates,
}

impl LaneKeeper {
    /// Looks until `stop`.
    pub(crate) async fn run(self, stop: CancellationToken) {
        let mut shown = Shown::default();
        let mut tidied: Option<Instant> = None;
        loop {
            let look = self.lanes.look().await;
            measure(&look);
            let is_time = tidied.is_none_or(|tidied| tidied.elapsed() >= TIDIES_EVERY);
            if is_time {
                tidied = Some(Instant::now());
                self.rates.forget_unused().await;
            }
            if *self.database.availability().borrow() {
                self.tell(self.show(&mut shown, look.lanes, is_time)).await;
            }
            if stop.run_until_cancelled(tokio::time::sleep(EVERY)).await.is_none() {
                break;
            }
        }
        self.tell(self.database.store.hide_lanes(self.dispatcher)).await;
    }

    async fn show(&self, shown: &mut Shown, lanes: Vec<LaneView>, tidies: bool) -> Result<(), StoreError> {
        let store = &self.database.store;
        let now = Instant::now();
        let (written, gone) = shown.changes(lanes, now);
        if !written.is_empty() || !gone.is_empty() {
            store.show_lanes(self.dispatcher, &written, &gone).await?;
            shown.changed(written, &gone, now);
        }
        if tidies { store.forget_unseen_lanes().await } else { Ok(()) }
    }

    /// What cannot be written now is written after a later look.
    async fn tell(&self, work: impl Future<Output = Result<(), StoreError>>) {
        if let Err(error) = self.database.store.in_time(TIMEOUT, work).await {
            tracing::warn!(%error, dispatcher = %self.dispatcher, "cannot show the lanes");
        }
    }
}

fn measure(look: &Look) {
    let Look { waiting, slow, open, fast_used, slow_used, .. } = *look;
    // All exact: there is no room for so many in the memory of a process.
    for (state, lanes) in [("waiting", waiting), ("slow", slow), ("open", open)] {
        metrics::gauge!(metric::LANES, "state" => state).set(lanes as f64);
    }
    for (budget, used) in [("fast", fast_used), ("slow", slow_used)] {
        metrics::gauge!(metric::BUDGET_USED, "budget" => budget).set(used as f64);
    }
}

/// The lanes that stand in the database, and when they were written.
#[derive(Default)]
struct Shown(HashMap<EndpointId, (LaneView, Instant)>);

impl Shown {
    /// Which lanes are to be written, in their order, and which are not to be shown any more. Where these are too many,
    /// open breakers come first, and then what was not written for longest.
    fn changes(&self, lanes: Vec<LaneView>, now: Instant) -> (Vec<LaneView>, Vec<EndpointId>) {
        let there: HashSet<EndpointId> = lanes.iter().map(|lane| lane.endpoint).collect();
        let gone = self.0.keys().filter(|endpoint| !there.contains(endpoint)).take(MOST).copied().collect();
        let is_due = |lane: &LaneView| {
            self.0.get(&lane.endpoint).is_none_or(|(before, at)| before != lane || now - *at >= AGAIN_AFTER)
        };
        let mut written: Vec<LaneView> = lanes.into_iter().filter(is_due).collect();
        if written.len() > MOST {
            let written_at = |lane: &LaneView| self.0.get(&lane.endpoint).map(|(_, at)| *at);
            written.sort_by_key(|lane| (lane.open_until.is_none(), written_at(lane)));
            written.truncate(MOST);
        }
        written.sort_by_key(|lane| lane.endpoint);
        (written, gone)
    }

    fn changed(&mut self, written: Vec<LaneView>, gone: &[EndpointId], now: Instant) {
        self.0.extend(written.into_iter().map(|lane| (lane.endpoint, (lane, now))));
        for endpoint in gone {
            self.0.remove(endpoint);
        }
    }
}

#[cfg(test)]
mod tests {
    use fanfare_domain::lane::Pace;
    use jiff::Timestamp;

    use super::*;

    fn lane(number: u16, waiting: usize) -> LaneView {
        let mut random = [0; 10];
        random[8..].copy_from_slice(&number.to_be_bytes());
        let endpoint = EndpointId::new(Timestamp::UNIX_EPOCH, random);
        LaneView { endpoint, in_flight: 1, bound: 1, waiting, pace: Pace::Fast, failures: 0, open_until: None }
    }

    /// What is written and what is gone after a look.
    fn look(shown: &mut Shown, lanes: &[LaneView], now: Instant) -> (Vec<LaneView>, Vec<EndpointId>) {
        let (written, gone) = shown.changes(lanes.to_vec(), now);
        shown.changed(written.clone(), &gone, now);
        (written, gone)
    }

    #[test]
    fn what_has_changed_is_written_and_what_has_not_before_it_is_too_old() {
        let (mut shown, mut now) = (Shown::default(), Instant::now());
        let [one, two] = [lane(1, 1), lane(2, 1)];
        assert_eq!(look(&mut shown, &[two, one], now), (vec![one, two], vec![]));
        now += EVERY;
        assert_eq!(look(&mut shown, &[one, lane(2, 2)], now), (vec![lane(2, 2)], vec![]));
        assert_eq!(look(&mut shown, &[lane(2, 2)], now), (vec![], vec![one.endpoint]));
        let mut age = Duration::ZERO;
        while look(&mut shown, &[lane(2, 2)], now + age).0.is_empty() {
            age += EVERY;
        }
        assert!(age <= Duration::from_secs(10) - EVERY, "{age:?}");
        assert_eq!(look(&mut shown, &[], now), (vec![], vec![two.endpoint]));
    }

    #[test]
    fn of_too_many_all_have_their_turn_and_open_breakers_the_first() {
        let (mut shown, now) = (Shown::default(), Instant::now());
        let all: Vec<LaneView> = (0..2500).map(|number| lane(number, 1)).collect();
        let open = |lane: LaneView| LaneView { open_until: Some(now.into_std()), ..lane };
        let mixed: Vec<LaneView> = [&all[..2400], &[open(all[2400]), open(all[2401])]].concat();
        let (written, _) = look(&mut shown, &mixed, now);
        assert_eq!(written.len(), MOST);
        assert_eq!(written[MOST - 2..], mixed[2400..]);
        let mut seen: HashSet<EndpointId> = written.iter().map(|lane| lane.endpoint).collect();
        for _ in 0..2 {
            seen.extend(look(&mut shown, &all, now + AGAIN_AFTER).0.iter().map(|lane| lane.endpoint));
        }
        assert_eq!(seen.len(), all.len());
        assert_eq!(look(&mut shown, &[], now).1.len(), MOST);
    }
}
