//! Concurrent statements that queue, lease and record deliveries and end backlogs. No delivery is lost or sent twice.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use fanfare_domain::{
    delivery::QueueReason,
    ids::{DeliveryId, EndpointId, ProcessId},
};
use fanfare_store::{GiveBack, Leased, Start, Store};

use crate::database::{Database, ONE, Sent, TWO, delivered, endpoint, lease_id, lease_of, sorted, starting, timed, to};

const ENDPOINTS: u128 = 20;
const LASTS: Duration = Duration::from_secs(2);

/// State shared by the tasks.
#[derive(Default)]
struct Shared {
    next_lease: AtomicU64,
    persisted: AtomicU64,
    /// Number of leases per delivery.
    leased: Mutex<HashMap<DeliveryId, u32>>,
    given_back: Mutex<HashMap<DeliveryId, u32>>,
}

impl Shared {
    fn lease(&self) -> u128 {
        u128::from(self.next_lease.fetch_add(1, Ordering::Relaxed))
    }

    fn note(map: &Mutex<HashMap<DeliveryId, u32>>, delivery: DeliveryId) {
        *map.lock().expect("a lock").entry(delivery).or_default() += 1;
    }
}

fn endpoints(seed: u64) -> Vec<EndpointId> {
    (0..3).map(|step| endpoint(1 + u128::from(seed.wrapping_mul(7) + step * 5) % ENDPOINTS)).collect()
}

/// Persists events to three endpoints each, with every third delivery queued.
async fn persist(store: Store, shared: Arc<Shared>, process: ProcessId, seed: u64) {
    let until = Instant::now() + LASTS;
    let mut round = seed;
    while Instant::now() < until {
        round += 1;
        let lease = shared.lease();
        let start = |n: usize| {
            if (round as usize + n).is_multiple_of(3) { Start::Queued(QueueReason::LaneFull) } else { starting(lease) }
        };
        let starts: Vec<_> =
            endpoints(round).into_iter().enumerate().map(|(n, endpoint)| (endpoint, start(n))).collect();
        let events = [to(timed(), &starts), to(timed(), &starts)];
        let persisted = store.persist(process, &sorted(&events)).await.expect("no deadlock");
        shared.persisted.fetch_add(6, Ordering::Relaxed);
        let mut sent = Vec::new();
        for new in &events {
            for delivery in &new.deliveries {
                if matches!(delivery.start, Start::Sending(_)) && !persisted.queued.contains(&delivery.id) {
                    Shared::note(&shared.leased, delivery.id);
                    sent.push(Sent { delivery: delivery.id, event: new.event.id, endpoint: delivery.endpoint });
                }
            }
        }
        finish(&store, &shared, process, lease, &sent).await;
    }
}

/// Records two of three deliveries, and gives the third back.
async fn finish(store: &Store, shared: &Shared, process: ProcessId, lease: u128, sent: &[Sent]) {
    let mut records: Vec<_> =
        sent.iter().enumerate().filter(|(n, _)| n % 3 < 2).map(|(_, sent)| delivered(sent, 1, lease)).collect();
    records.sort_unstable_by_key(|record| record.delivery);
    let moved = store.record(&records.iter().collect::<Vec<_>>()).await.expect("no deadlock");
    assert_eq!(moved.len(), records.len(), "no process records under a foreign lease");
    let mut back: Vec<_> = sent
        .iter()
        .enumerate()
        .filter(|(n, _)| n % 3 == 2)
        .map(|(_, sent)| {
            Shared::note(&shared.given_back, sent.delivery);
            GiveBack { delivery: sent.delivery, lease: lease_id(lease), reason: QueueReason::LaneFull }
        })
        .collect();
    back.sort_unstable_by_key(|back| back.delivery);
    store.give_back(process, &back).await.expect("no deadlock");
}

fn sent(leased: &[Leased]) -> Vec<Sent> {
    leased
        .iter()
        .map(|leased| Sent { delivery: leased.delivery, event: leased.event, endpoint: leased.endpoint })
        .collect()
}

/// Takes free backlogs, leases and records deliveries, and ends empty backlogs. Each tenth round releases all backlogs.
async fn drain(store: Store, shared: Arc<Shared>, process: ProcessId) {
    let until = Instant::now() + LASTS;
    for round in 0_u64.. {
        if Instant::now() >= until {
            return;
        }
        store.take_backlogs(process, 8).await.expect("no deadlock");
        let owned: Vec<_> =
            store.owned_backlogs(process).await.expect("a look").iter().map(|backlog| backlog.endpoint).collect();
        let lease = shared.lease();
        let demands: Vec<_> = owned.iter().map(|&endpoint| lease_of(endpoint, 4)).collect();
        let leased = store.lease(process, lease_id(lease), &demands).await.expect("no deadlock");
        leased.iter().for_each(|leased| Shared::note(&shared.leased, leased.delivery));
        finish(&store, &shared, process, lease, &sent(&leased)).await;
        store.end_backlogs(process, &owned).await.expect("no deadlock");
        if round % 10 == 9 {
            store.release_all_backlogs(process).await.expect("no deadlock");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_delivery_is_lost_or_sent_twice() {
    let database = Database::fresh().await;
    let shared = Arc::new(Shared::default());
    let mut tasks = Vec::new();
    for (seed, process) in [(0, ONE), (100, TWO), (200, ONE), (300, TWO)] {
        let store = database.another_store();
        tasks.push(tokio::spawn(persist(store.clone(), shared.clone(), process, seed)));
        tasks.push(tokio::spawn(drain(store, shared.clone(), process)));
    }
    for task in tasks {
        task.await.expect("a task without a failure");
    }
    assert_eq!(database.queued_without_backlog().await, 0);
    let (open, finished) = (database.count("open_deliveries").await, database.count("deliveries").await);
    assert_eq!(
        u64::try_from(open + finished).expect("a number"),
        shared.persisted.load(Ordering::Relaxed),
        "none is lost"
    );
    assert_eq!(database.count("open_deliveries WHERE state <> 'queued'").await, 0);
    assert!(finished > 100, "only {finished} deliveries finished");
    let (leased, given_back) = (shared.leased.lock().expect("a lock"), shared.given_back.lock().expect("a lock"));
    for (delivery, times) in leased.iter() {
        let allowed = 1 + given_back.get(delivery).copied().unwrap_or_default();
        assert!(*times <= allowed, "{delivery} was leased {times} times");
    }
}
