//! FIFO per ordering key: the next delivery of a key waits until the delivery before has ended.

use std::collections::HashSet;

use fanfare_domain::{
    endpoint::fifo::Fifo,
    event::ordering::OrderingKey,
    ids::{DeliveryId, EndpointId},
};
use fanfare_store::{End, EndpointSettings, NewEvent, Start};

use crate::database::{
    APPLICATION, Database, LEASE, ONE, Sent, TWO, delivered, endpoint, failed, keyed, lease_id, lease_of, scheduled,
    sorted, to,
};

/// An event with an ordering key, at a place in the order of arrival, whose deliveries wait in order.
fn in_order(ordering_key: &str, place: i64, endpoints: &[EndpointId]) -> NewEvent {
    let starts: Vec<_> = endpoints.iter().map(|endpoint| (*endpoint, Start::InOrder)).collect();
    let mut new = to(keyed(&format!("{ordering_key} {place}")), &starts);
    new.event.ordering_key = Some(key(ordering_key));
    new.position = place;
    new
}

fn key(text: &str) -> OrderingKey {
    OrderingKey::parse("ordering_key", text).expect("a key")
}

impl Database {
    /// Sets FIFO of endpoint 1.
    async fn fifo(&self, fifo: Option<Fifo>) {
        let settings = EndpointSettings { fifo: Some(fifo), ..EndpointSettings::default() };
        self.store.change_endpoint(APPLICATION, endpoint(1), &settings).await.expect("a change").expect("an endpoint");
    }

    /// Persists the events of a key at the places from 1 on, for endpoint 1, and returns their deliveries.
    async fn persist_in_order(&self, ordering_key: &str, count: i64) -> Vec<Sent> {
        let events: Vec<NewEvent> = (1..=count).map(|place| in_order(ordering_key, place, &[endpoint(1)])).collect();
        let persisted = self.store.persist(ONE, &sorted(&events)).await.expect("a commit");
        assert!(persisted.backlogs.is_empty() && persisted.queued.is_empty(), "waiting deliveries need no drain");
        let sent = |new: &NewEvent| Sent {
            delivery: new.deliveries[0].id,
            event: new.event.id,
            endpoint: new.deliveries[0].endpoint,
        };
        events.iter().map(sent).collect()
    }

    /// Handles all signals, and returns the number of touched backlogs.
    async fn advance(&self) -> usize {
        let mut touched = 0;
        while self.count("ordering_signals").await > 0 {
            touched += self.store.advance_keys(ONE, 1000).await.expect("a commit").backlogs.len();
        }
        touched
    }

    /// Sweeps, and returns the number of expired deliveries. The backlogs keep their owner, which has no row.
    async fn sweep(&self) -> u64 {
        let swept = self.store.sweep(0).await.expect("a sweep");
        self.rows("UPDATE endpoint_backlogs SET owner = $1", &[&ONE.0]).await;
        swept.expired
    }

    /// Advances, and leases all deliveries of endpoint 1 that the drain finds.
    async fn next(&self, lease: u128) -> Vec<DeliveryId> {
        self.advance().await;
        self.drain(lease, endpoint(1), 100).await.into_iter().map(|leased| leased.delivery).collect()
    }
}

fn ids(sent: &[Sent]) -> Vec<DeliveryId> {
    sent.iter().map(|sent| sent.delivery).collect()
}

#[tokio::test]
async fn deliveries_of_a_key_are_leased_one_after_the_other() {
    let database = Database::new().await;
    database.fifo(Some(Fifo::Block)).await;
    let a = database.persist_in_order("a", 3).await;
    let b = database.persist_in_order("b", 1).await;
    assert!(database.drain(9, endpoint(1), 100).await.is_empty(), "before the turn");
    let first: HashSet<DeliveryId> = database.next(1).await.into_iter().collect();
    assert_eq!(first, HashSet::from([a[0].delivery, b[0].delivery]));
    assert!(database.next(2).await.is_empty(), "the first delivery is being sent");

    // A retry keeps the place.
    database.store.record(&[&scheduled(&a[0], 1, 1)]).await.expect("a commit");
    assert!(database.next(3).await.is_empty(), "the first delivery is scheduled");
    database
        .rows("UPDATE open_deliveries SET due_at = now() - interval '1 minute' WHERE id = $1", &[&a[0].delivery.0])
        .await;
    database.store.recover_scheduled(ONE, std::time::Duration::from_secs(1), None, 10).await.expect("a commit");
    assert_eq!(database.next(4).await, [a[0].delivery]);
    database.store.record(&[&delivered(&a[0], 2, 4)]).await.expect("a commit");
    assert_eq!(database.next(5).await, [a[1].delivery]);
    database.store.record(&[&failed(&a[1], 1, 5)]).await.expect("a commit");
    assert_eq!(database.next(6).await, [a[2].delivery], "a given-up delivery ends, too");
}

#[tokio::test]
async fn a_backlog_ends_beside_waiting_deliveries() {
    let database = Database::new().await;
    database.fifo(Some(Fifo::Block)).await;
    let sent = database.persist_in_order("a", 2).await;
    assert_eq!(database.next(1).await, [sent[0].delivery]);
    assert_eq!(database.store.end_backlogs(ONE, &[endpoint(1)]).await.expect("an end"), [endpoint(1)]);
    assert_eq!(database.owner(endpoint(1)).await, None);
    database.store.record(&[&delivered(&sent[0], 1, 1)]).await.expect("a commit");
    assert_eq!((database.advance().await, database.owner(endpoint(1)).await), (1, Some(Some(ONE))));
}

#[tokio::test]
async fn each_end_of_a_delivery_lets_the_next_go() {
    let database = Database::new().await;
    database.fifo(Some(Fifo::Block)).await;
    let sent = database.persist_in_order("a", 5).await;
    assert_eq!(database.next(1).await, [sent[0].delivery]);
    database
        .rows(
            "UPDATE open_deliveries SET state = 'queued', unknowns = 3, lease_id = NULL WHERE id = $1",
            &[&sent[0].delivery.0],
        )
        .await;
    let suspect = database.store.lease_suspect(lease_id(2), LEASE).await.expect("a look");
    assert!(suspect.is_none(), "a suspect rests for a second");
    database.rows("UPDATE open_deliveries SET state = 'sending', lease_id = $2, lease_until = now() - interval '1 s' WHERE id = $1",
        &[&sent[0].delivery.0, &lease_id(2).0]).await;
    database.store.recover_leases(ONE, None, 10).await.expect("a commit");
    assert_eq!(database.next(3).await, [sent[1].delivery], "aborted");
    database.store.record(&[&failed(&sent[1], 1, 3)]).await.expect("a commit");
    database.advance().await;
    database
        .rows("UPDATE open_deliveries SET expires_at = now() - interval '1 hour' WHERE id = $1", &[&sent[2].delivery.0])
        .await;
    assert_eq!(database.sweep().await, 1);
    assert_eq!(database.next(4).await, [sent[3].delivery], "expired");
    database.store.record(&[&delivered(&sent[3], 1, 4)]).await.expect("a commit");
    database.advance().await;
    database.store.erase_event(APPLICATION, sent[4].event).await.expect("an erasure");
    assert!(database.next(5).await.is_empty());
    assert_eq!(database.count("open_deliveries").await, 0);
}

#[tokio::test]
async fn waiting_deliveries_do_not_expire_and_have_their_lifetime_from_their_turn_on() {
    let database = Database::new().await;
    database.fifo(Some(Fifo::Block)).await;
    let sent = database.persist_in_order("a", 2).await;
    database.advance().await;
    let late = "UPDATE open_deliveries SET expires_at = now() - interval '1 hour', since = since - interval '1 hour'
                WHERE class = 2";
    database.rows(late, &[]).await;
    assert_eq!(database.sweep().await, 0);
    let drained = database.drain(1, endpoint(1), 10).await;
    assert_eq!(drained.len(), 1);
    database.store.record(&[&delivered(&sent[0], 1, 1)]).await.expect("a commit");
    database.rows("UPDATE open_deliveries SET expires_at = delivery_accepted_at(id) + interval '2 days'", &[]).await;
    database.advance().await;
    let open = database.open(sent[1].delivery).await.expect("a row");
    assert!(open.expires_at > database.store.now() + jiff::SignedDuration::from_hours(47), "{}", open.expires_at);
    assert_eq!((open.state.as_str(), open.reason.as_deref()), ("queued", Some("in_order")));
}

#[tokio::test]
async fn a_delivery_that_failed_often_enough_stands_outside_the_order() {
    let database = Database::new().await;
    database.fifo(Some(Fifo::SkipAfter(2))).await;
    let sent = database.persist_in_order("a", 3).await;
    assert_eq!(database.next(1).await, [sent[0].delivery]);
    database.store.record(&[&scheduled(&sent[0], 1, 1)]).await.expect("a commit");
    assert!(database.next(2).await.is_empty(), "one failure");
    // A changed rule holds for the present delivery, too.
    database.fifo(Some(Fifo::SkipAfter(1))).await;
    assert_eq!(database.next(2).await, [sent[1].delivery]);
    assert_eq!(database.open(sent[0].delivery).await.expect("a row").state, "scheduled");
    database.store.record(&[&scheduled(&sent[1], 1, 2)]).await.expect("a commit");
    assert_eq!(database.next(3).await, [sent[2].delivery]);
}

/// The record of a slow process comes when another process has the next attempt in hand.
#[tokio::test]
async fn a_late_success_does_not_end_an_attempt_of_another_lease() {
    let database = Database::new().await;
    database.fifo(Some(Fifo::Block)).await;
    let sent = database.persist_in_order("a", 2).await;
    assert_eq!(database.next(1).await, [sent[0].delivery]);
    database.rows("UPDATE open_deliveries SET lease_until = now() - interval '1 s' WHERE state = 'sending'", &[]).await;
    database.store.recover_leases(ONE, None, 10).await.expect("a commit");
    assert_eq!(database.next(2).await, [sent[0].delivery]);
    database.store.record(&[&delivered(&sent[0], 1, 1)]).await.expect("a commit");
    assert!(database.next(3).await.is_empty(), "the second attempt is being sent");
    assert_eq!(database.attempts(sent[0].delivery).await.len(), 1, "the attempt is on record");
    database.store.record(&[&delivered(&sent[0], 2, 2)]).await.expect("a commit");
    assert_eq!(database.next(4).await, [sent[1].delivery]);
}

/// A call that began before the record must not let the next delivery go.
#[tokio::test]
async fn a_key_with_a_further_end_waits_for_the_decision_to_park() {
    let database = Database::new().await;
    database.fifo(Some(Fifo::Park)).await;
    let sent = database.persist_in_order("a", 2).await;
    assert_eq!(database.next(1).await, [sent[0].delivery]);
    database.store.record(&[&failed(&sent[0], 1, 1)]).await.expect("a commit");
    // An earlier signal of the key, as of a persist, is handled alone.
    database
        .run(
            "UPDATE ordering_signals SET id = DEFAULT; INSERT INTO ordering_signals (id, endpoint_id, key)
                  OVERRIDING SYSTEM VALUE SELECT 0, endpoint_id, key FROM ordering_signals",
        )
        .await;
    let advance = database.store.advance_keys(ONE, 1).await.expect("a commit");
    assert_eq!((advance.signals, advance.backlogs.len()), (1, 0));
    assert!(database.next(2).await.is_empty(), "parked");
    assert_eq!(database.count("ordering_keys WHERE parked_at IS NOT NULL").await, 1);
}

#[tokio::test]
async fn a_locked_delivery_goes_after_the_lock() {
    let database = Database::new().await;
    database.fifo(Some(Fifo::Block)).await;
    let sent = database.persist_in_order("a", 1).await;
    let mut other = database.connect().await;
    let erasing = other.transaction().await.expect("a transaction");
    erasing.query("SELECT FROM open_deliveries FOR UPDATE", &[]).await.expect("a lock");
    assert_eq!(database.store.advance_keys(ONE, 10).await.expect("a commit").backlogs.len(), 0, "no wait for the lock");
    erasing.rollback().await.expect("a rollback");
    assert_eq!(database.next(1).await, [sent[0].delivery]);
}

#[tokio::test]
async fn a_given_up_delivery_parks_its_key_until_a_resume() {
    let database = Database::new().await;
    database.fifo(Some(Fifo::Park)).await;
    let (a, b) = (database.persist_in_order("a", 2).await, database.persist_in_order("b", 2).await);
    let first: HashSet<DeliveryId> = database.next(1).await.into_iter().collect();
    assert_eq!(first, HashSet::from([a[0].delivery, b[0].delivery]));
    let (lost, taken) = (failed(&a[0], 1, 1), delivered(&b[0], 1, 1));
    let mut records = [&lost, &taken];
    records.sort_by_key(|record| record.delivery);
    database.store.record(&records).await.expect("a commit");
    assert_eq!(database.next(2).await, [b[1].delivery], "only key a is parked");
    let keys = database.store.waiting_keys(endpoint(1), None, 10, 100).await.expect("a look");
    let shown: Vec<_> = keys.iter().map(|key| (key.key.as_str(), key.first, key.open, key.parked_by)).collect();
    let expected = [("a", Some((a[1].delivery, 2)), 1, Some(a[0].delivery)), ("b", Some((b[1].delivery, 2)), 1, None)];
    assert_eq!(shown, expected);
    let behind = database.store.waiting_keys(endpoint(1), Some("a"), 10, 100).await.expect("a look");
    assert_eq!(behind.iter().map(|key| key.key.as_str()).collect::<Vec<_>>(), ["b"]);

    database.sweep().await;
    assert!(database.next(3).await.is_empty(), "further signals do not end the parking");
    let resume = async |name: &str| {
        let named = (!name.is_empty()).then(|| key(name));
        database.store.resume_keys(APPLICATION, endpoint(1), named.as_ref()).await.expect("a commit")
    };
    assert_eq!((resume("b").await, resume("a").await, resume("a").await, resume("").await), (0, 1, 0, 0));
    assert_eq!(database.next(4).await, [a[1].delivery]);
    // A parked key without a waiting delivery is listed, too.
    database.store.record(&[&failed(&a[1], 1, 4)]).await.expect("a commit");
    database.advance().await;
    let keys = database.store.waiting_keys(endpoint(1), None, 1, 100).await.expect("a look");
    assert_eq!((keys.len(), keys[0].first, keys[0].open, keys[0].parked_by), (1, None, 0, Some(a[1].delivery)));
}

#[tokio::test]
async fn without_fifo_all_waiting_deliveries_go() {
    let database = Database::new().await;
    database.fifo(Some(Fifo::Park)).await;
    let sent = database.persist_in_order("a", 4).await;
    assert_eq!(database.next(1).await, [sent[0].delivery]);
    database.store.record(&[&failed(&sent[0], 1, 1)]).await.expect("a commit");
    assert!(database.next(2).await.is_empty(), "parked");
    database.fifo(None).await;
    let mut expected = ids(&sent[1..]);
    expected.sort_unstable();
    assert_eq!(database.next(3).await, expected);
    assert_eq!(database.count("ordering_keys WHERE parked_at IS NOT NULL").await, 0, "the mark of another rule");
}

#[tokio::test]
async fn another_rule_lets_a_parked_key_go() {
    let database = Database::new().await;
    database.fifo(Some(Fifo::Park)).await;
    let sent = database.persist_in_order("a", 3).await;
    assert_eq!(database.next(1).await, [sent[0].delivery]);
    database.store.record(&[&failed(&sent[0], 1, 1)]).await.expect("a commit");
    assert!(database.next(2).await.is_empty(), "parked");
    database.fifo(Some(Fifo::Block)).await;
    assert_eq!(database.next(3).await, [sent[1].delivery]);
}

#[tokio::test]
async fn many_waiting_deliveries_of_a_key_go_in_several_calls() {
    let database = Database::new().await;
    database.fifo(Some(Fifo::Block)).await;
    let sent = database.persist_in_order("a", 2_100).await;
    assert_eq!(database.next(1).await, [sent[0].delivery]);
    database.fifo(None).await;
    let first = database.store.advance_keys(ONE, 10).await.expect("a commit");
    assert_eq!((first.signals, database.count("open_deliveries WHERE class = 2").await), (1, 1_099));
    database.advance().await;
    assert_eq!(database.count("open_deliveries WHERE class = 2").await, 0);
}

#[tokio::test]
async fn waiting_deliveries_of_a_disabled_endpoint_are_skipped() {
    let database = Database::new().await;
    database.fifo(Some(Fifo::Park)).await;
    let sent = database.persist_in_order("a", 3).await;
    assert_eq!(database.next(1).await, [sent[0].delivery]);
    database.store.record(&[&scheduled(&sent[0], 1, 1)]).await.expect("a commit");
    database.advance().await;
    database.rows("UPDATE endpoints SET status = 'disabled' WHERE id = $1", &[&endpoint(1).0]).await;
    database.rows("UPDATE open_deliveries SET since = since - interval '2 minutes'", &[]).await;
    database.sweep().await;
    assert_eq!(database.advance().await, 1, "a dispatcher looks at the backlog");
    assert_eq!(database.store.end_queued(endpoint(1), End::Skipped, false, 10).await.expect("an end"), 2);
}

/// Persist and ends of deliveries at the same time, from several processes.
#[tokio::test]
async fn concurrent_commits_never_let_two_deliveries_of_a_key_go() {
    let database = Database::new().await;
    database.fifo(Some(Fifo::Block)).await;
    const EVENTS: i64 = 40;
    let persisting = {
        let store = database.another_store();
        tokio::spawn(async move {
            for place in 1..=EVENTS {
                let events: Vec<_> = ["a", "b"].iter().map(|key| in_order(key, place, &[endpoint(1)])).collect();
                store.persist(ONE, &sorted(&events)).await.expect("a commit");
            }
        })
    };
    let advancing: Vec<_> = [ONE, TWO]
        .map(|process| {
            let store = database.another_store();
            tokio::spawn(async move {
                loop {
                    store.advance_keys(process, 3).await.expect("a commit");
                }
            })
        })
        .into();
    let mut ended: Vec<(String, u64)> = Vec::new();
    for round in 1_u128.. {
        let open = "SELECT count(*) FROM open_deliveries WHERE class = 0 GROUP BY endpoint_id, ordering_key HAVING count(*) > 1";
        assert!(database.rows(open, &[]).await.is_empty(), "two deliveries of a key");
        let mut leased = Vec::new();
        for process in [ONE, TWO] {
            leased.extend(
                database.store.lease(process, lease_id(round), &[lease_of(endpoint(1), 5)]).await.expect("a commit"),
            );
        }
        let mut records = Vec::new();
        for leased in &leased {
            let sequence = leased.payload.as_ref().and_then(|payload| payload.sequence.clone()).expect("a number");
            ended.push((sequence.key.as_str().to_owned(), sequence.number));
            let sent = Sent { delivery: leased.delivery, event: leased.event, endpoint: leased.endpoint };
            let gives_up = sequence.number % 3 == 0;
            records.push(if gives_up { failed(&sent, 1, round) } else { delivered(&sent, 1, round) });
        }
        records.sort_by_key(|record| record.delivery);
        database.store.record(&records.iter().collect::<Vec<_>>()).await.expect("a commit");
        if ended.len() == 2 * EVENTS as usize {
            break;
        }
    }
    persisting.await.expect("no panic");
    advancing.into_iter().for_each(|task| task.abort());
    for key in ["a", "b"] {
        let numbers: Vec<u64> = ended.iter().filter(|(of, _)| of == key).map(|(_, number)| *number).collect();
        assert_eq!(numbers, (1..=EVENTS as u64).collect::<Vec<_>>(), "{key}");
    }
}
