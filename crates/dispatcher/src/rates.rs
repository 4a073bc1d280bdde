//! The rates of endpoints that have one. They hold across processes: each leases a few places at a time.

use std::{
    collections::VecDeque,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use fanfare_domain::ids::EndpointId;
use tokio::time::Instant;

use crate::{database::Database, per_endpoint::PerEndpoint};

/// How far ahead places are leased. A delivery has been taken while it waits for its place.
const REACH: Duration = Duration::from_secs(1);

/// A process leases the places of a fifth of a second at once: few enough that the others get theirs, and that
/// little is lost when it does not use them.
const LEASES_PER_SECOND: u32 = 5;

/// The longest that a delivery is put off at once.
const LONGEST: Duration = Duration::from_secs(300);

/// Places that were not used in this time are not made up for.
const STALE: Duration = Duration::from_secs(1);

/// The rates of all endpoints that have one. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Rates {
    database: Database,
    sequences: Arc<PerEndpoint<Sequence>>,
}

/// One endpoint's attempts, one after the other.
#[derive(Default)]
struct Sequence {
    /// One lease at a time: whoever waits for it finds its places.
    leasing: tokio::sync::Mutex<()>,
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    /// Those that this process has leased and not given away.
    leased: VecDeque<Instant>,
    /// Until when there are none to be had.
    used_up_until: Option<Instant>,
    /// When the last delivery is to come back that was sent away.
    last_comes_back: Option<Instant>,
}

impl Rates {
    pub(crate) fn new(database: Database) -> Self {
        Self { database, sequences: Arc::new(PerEndpoint::new()) }
    }

    /// When a delivery is to come back, where it is known already that there is no place for it now.
    pub(crate) fn used_up(&self, endpoint: EndpointId, rate: u32) -> Option<Duration> {
        let sequence = self.sequence(endpoint);
        sequence.places().used_up(rate)
    }

    /// Waits for a delivery's place.
    ///
    /// # Errors
    /// In how long it is to come back, where there is none within reach.
    pub(crate) async fn place(&self, endpoint: EndpointId, rate: u32) -> Result<(), Duration> {
        let sequence = self.sequence(endpoint);
        let leased = sequence.places().next();
        let place = match leased {
            Some(place) => place,
            None => {
                let _leasing = sequence.leasing.lock().await;
                let (next, used_up) = {
                    let mut places = sequence.places();
                    (places.next(), places.used_up(rate))
                };
                match (next, used_up) {
                    (Some(place), _) => place,
                    // Whoever had the lock before was told so.
                    (None, Some(wait)) => return Err(wait),
                    (None, None) => self.lease(endpoint, rate, &sequence).await?,
                }
            }
        };
        tokio::time::sleep_until(place).await;
        Ok(())
    }

    async fn lease(&self, endpoint: EndpointId, rate: u32, sequence: &Sequence) -> Result<Instant, Duration> {
        let count = (rate / LEASES_PER_SECOND).max(1);
        let lease = self.database.store.lease(endpoint, rate, count, REACH).await;
        let lease = lease.unwrap_or_else(|error| {
            tracing::warn!(%error, %endpoint, "cannot ask for an endpoint's rate; its deliveries are put off");
            None
        });
        let now = Instant::now();
        let mut places = sequence.places();
        let Some(lease) = lease else {
            places.used_up_until = Some(now + REACH / LEASES_PER_SECOND);
            return Err(places.come_back(rate, now));
        };
        places.used_up_until = None;
        places.leased = (0..lease.places).map(|place| now + lease.first_in + lease.each * place).collect();
        places.leased.pop_front().ok_or(REACH)
    }

    fn sequence(&self, endpoint: EndpointId) -> Arc<Sequence> {
        self.sequences.get(endpoint, Sequence::default)
    }

    /// Forgets the sequences in which there is nothing.
    pub(crate) async fn forget_unused(&self) {
        let now = Instant::now();
        self.sequences.retain(|sequence| !sequence.places().is_empty(now)).await;
    }
}

impl Sequence {
    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Places {
    fn next(&mut self) -> Option<Instant> {
        let now = Instant::now();
        while let Some(place) = self.leased.pop_front() {
            if now.saturating_duration_since(place) < STALE {
                return Some(place);
            }
        }
        None
    }

    /// Whether these are no more than those of an endpoint that nobody has asked about.
    fn is_empty(&self, now: Instant) -> bool {
        let is_past = |moment: Option<Instant>| moment.is_none_or(|moment| moment <= now);
        let last_used = self.leased.back().map(|place| *place + STALE);
        [last_used, self.used_up_until, self.last_comes_back].into_iter().all(is_past)
    }

    /// When a delivery is to come back, where there is no place for it.
    fn used_up(&mut self, rate: u32) -> Option<Duration> {
        let now = Instant::now();
        self.used_up_until.is_some_and(|until| now < until).then(|| self.come_back(rate, now))
    }

    /// Those who are sent away come back one after the other, as the endpoint can take them; where that would be
    /// long, some time before, since the rate may be another by then.
    fn come_back(&mut self, rate: u32, now: Instant) -> Duration {
        let first = now + REACH;
        let last = self.last_comes_back.map_or(first, |last| last.max(first));
        let comes_back = last + Duration::from_secs(1) / rate.max(1);
        if comes_back > now + LONGEST {
            self.last_comes_back = Some(now + LONGEST);
            return LONGEST.mul_f64(rand::random_range(0.5..1.0));
        }
        self.last_comes_back = Some(comes_back);
        comes_back - now
    }
}
