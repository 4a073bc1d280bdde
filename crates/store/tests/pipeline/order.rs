//! Numbers of deliveries of events with an ordering key.

use std::collections::BTreeMap;

use fanfare_domain::{
    event::ordering::OrderingKey,
    ids::{DeliveryId, EndpointId, ProcessId},
};
use fanfare_store::{NewEvent, Store};

use crate::database::{APPLICATION, Database, ONE, TWO, endpoint, keyed, sorted, starting, to};

/// An event with an ordering key, at a place in the order of arrival.
fn ordered(key: &str, ordering_key: &str, position: i64, endpoints: &[EndpointId]) -> NewEvent {
    let starts: Vec<_> = endpoints.iter().map(|endpoint| (*endpoint, starting(1))).collect();
    let mut new = to(keyed(key), &starts);
    new.event.ordering_key = Some(OrderingKey::parse("ordering_key", ordering_key).expect("a key"));
    new.position = position;
    new
}

/// Numbers of the first deliveries of events, in the order of the events.
async fn numbers(store: &Store, events: &[NewEvent]) -> Vec<Option<u64>> {
    let ids: Vec<DeliveryId> = events.iter().map(|new| new.deliveries[0].id).collect();
    let found = store.sequences(&ids).await.expect("a look");
    ids.iter().map(|id| found.get(id).copied()).collect()
}

#[tokio::test]
async fn numbers_follow_the_order_of_arrival_for_each_endpoint_and_key() {
    let database = Database::new().await;
    let (one, two) = (endpoint(1), endpoint(2));
    let events: Vec<NewEvent> = (1..=20)
        .map(|place| {
            let key = if place % 3 == 0 { "b" } else { "a" };
            let endpoints: &[EndpointId] = if place % 5 == 0 { &[two] } else { &[one, two] };
            ordered(&format!("event {place}"), key, place, endpoints)
        })
        .chain([to(keyed("unordered"), &[(one, starting(1))])])
        .collect();
    let mut expected: BTreeMap<(EndpointId, &str), u64> = BTreeMap::new();
    for batch in events.chunks(7) {
        let persisted = database.store.persist(ONE, &sorted(batch)).await.expect("a commit");
        let again = database.store.persist(TWO, &sorted(batch)).await.expect("a commit");
        assert!(again.new.is_empty() && again.sequences.is_empty(), "known events get no numbers");
        for new in batch {
            let Some(key) = &new.event.ordering_key else {
                assert!(!persisted.sequences.contains_key(&new.deliveries[0].id));
                continue;
            };
            for delivery in &new.deliveries {
                let number = expected.entry((delivery.endpoint, key.as_str())).or_default();
                *number += 1;
                assert_eq!(persisted.sequences.get(&delivery.id), Some(&*number), "{:?}", new.event.key);
            }
        }
    }
    let of_one: Vec<NewEvent> = events.into_iter().filter(|new| new.deliveries[0].endpoint == one).collect();
    let found = numbers(&database.store, &of_one).await;
    assert_eq!(found.iter().filter(|number| number.is_none()).count(), 1, "the event without a key");
}

/// Two processes write the same events at the same time, as after a lost connection to the broker.
#[tokio::test]
async fn concurrent_batches_of_the_same_keys_leave_no_gap_and_no_repeat() {
    let database = Database::new().await;
    let events: Vec<NewEvent> = (1..=120)
        .map(|place| ordered(&format!("event {place}"), ["a", "b", "c"][place % 3], place as i64, &[endpoint(1)]))
        .collect();
    let write = |process: ProcessId, size: usize| {
        let (store, events) = (database.another_store(), events.clone());
        tokio::spawn(async move {
            for batch in events.chunks(size) {
                store.persist(process, &sorted(batch)).await.expect("a commit");
            }
        })
    };
    for writing in [write(ONE, 7), write(TWO, 11)] {
        writing.await.expect("no panic");
    }
    let found = numbers(&database.store, &events).await;
    for (nth, key) in ["a", "b", "c"].iter().enumerate() {
        let of_key: Vec<_> = found.iter().skip(if nth == 0 { 2 } else { nth - 1 }).step_by(3).copied().collect();
        assert_eq!(of_key, (1..=40).map(Some).collect::<Vec<_>>(), "{key}");
    }
}

#[tokio::test]
async fn the_keys_of_a_deleted_endpoint_are_deleted() {
    let database = Database::new().await;
    let new = ordered("event", "a", 1, &[endpoint(1), endpoint(2)]);
    database.store.persist(ONE, &[&new]).await.expect("a commit");
    assert_eq!(database.store.forget_ordering_keys(10).await.expect("a deletion"), 0);
    database.store.delete_endpoint(APPLICATION, endpoint(1)).await.expect("a deletion");
    assert_eq!(database.store.forget_ordering_keys(10).await.expect("a deletion"), 1);
    assert_eq!(database.count("ordering_keys").await, 1);
}

#[tokio::test]
async fn a_leased_delivery_has_its_number() {
    let database = Database::new().await;
    let new = ordered("event", "a", 1, &[endpoint(1)]);
    database.store.persist(ONE, &[&new]).await.expect("a commit");
    let leased = database.store.leased_under(crate::database::lease_id(1)).await.expect("leases");
    let sequence = leased[0].payload.as_ref().and_then(|payload| payload.sequence.clone()).expect("a number");
    assert_eq!((sequence.key.as_str(), sequence.number), ("a", 1));
}
