//! Resends of deliveries.

use std::{collections::HashMap, time::Duration};

use fanfare_domain::{delivery::State, ids::DeliveryId};
use fanfare_store::{Erasure, ResendFilter, ResentDelivery, Store, StoreError};

use crate::database::{APPLICATION, Database, Sent, delivered, endpoint, failed, moment, scheduled, starting};

fn filter(deliveries: &[DeliveryId]) -> ResendFilter {
    let states = State::ALL.into_iter().filter(|state| *state != State::Sending).collect();
    ResendFilter { deliveries: Some(deliveries.to_vec()), states, limit: 100, ..ResendFilter::default() }
}

async fn resend(store: &Store, deliveries: &[DeliveryId]) -> Result<Vec<ResentDelivery>, StoreError> {
    store.resend(APPLICATION, &filter(deliveries), &HashMap::new(), Duration::from_secs(3600)).await
}

async fn finish(database: &Database, number: u128) -> Sent {
    let sent = database.persist_one(endpoint(number), starting(1)).await;
    database.store.record(&[&failed(&sent, 1, 1)]).await.expect("a commit");
    sent
}

#[tokio::test]
async fn requests_at_once_open_one_row() {
    let database = Database::new().await;
    let sent = [finish(&database, 1).await, finish(&database, 2).await];
    let ids = sent.map(|sent| sent.delivery);
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let store = database.another_store();
        tasks.push(tokio::spawn(async move { resend(&store, &ids).await }));
    }
    for task in tasks {
        let resent = task.await.expect("a task").expect("a commit");
        assert!(resent.iter().all(|resent| resent.attempt == 2));
    }
    assert_eq!(database.count("open_deliveries").await, 2);
    for Sent { delivery, endpoint, .. } in sent {
        let row = database.open(delivery).await.expect("an open row");
        assert_eq!((row.place(), row.finished_once, row.failures, row.listed), (("queued", 2), true, 0, true));
        assert_eq!(database.owner(endpoint).await, Some(None), "a dispatcher will take over the backlog");
    }
}

#[tokio::test]
async fn the_end_of_a_resend_is_the_end_of_the_delivery() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    let state = async || {
        let row = database.finished(sent.delivery).await.expect("a finished row");
        (row.state, row.attempt, row.failures, row.inline)
    };
    database.store.record(&[&delivered(&sent, 1, 1)]).await.expect("a commit");
    let again = async |attempt: u32| {
        assert_eq!(resend(&database.store, &[sent.delivery]).await.expect("a commit")[0].attempt, attempt);
        database.run("UPDATE endpoint_backlogs SET owner = '00000000-0000-0000-0000-000000000101'").await;
        assert_eq!(database.drain(u128::from(attempt), endpoint(1), 1).await[0].attempt, attempt);
    };
    again(2).await;
    let record = failed(&sent, 2, 2);
    for _ in 0..2 {
        database.store.record(&[&record]).await.expect("a commit");
        assert_eq!(state().await, ("failed".to_owned(), 2, 1, true), "the inline attempt stays");
        assert_eq!(database.attempts(sent.delivery).await.len(), 1);
    }
    again(3).await;
    database.store.record(&[&scheduled(&sent, 3, 3)]).await.expect("a commit");
    assert_eq!(state().await, ("failed".to_owned(), 2, 1, true), "until the resend ends");
    // A resent scheduled delivery keeps its place in the schedule.
    again(4).await;
    assert_eq!(database.open(sent.delivery).await.expect("a row").failures, 1);
    let record = delivered(&sent, 4, 4);
    for _ in 0..2 {
        database.store.record(&[&record]).await.expect("a commit");
        assert_eq!(state().await, ("delivered".to_owned(), 4, 1, true));
    }
    let numbers: Vec<i32> = database.attempts(sent.delivery).await.iter().map(|row| row.0).collect();
    assert_eq!((numbers, database.open(sent.delivery).await), (vec![2, 3, 4], None));
}

#[tokio::test]
async fn a_late_success_ends_a_resend() {
    let database = Database::new().await;
    let sent = finish(&database, 1).await;
    assert_eq!(resend(&database.store, &[sent.delivery]).await.expect("a commit").len(), 1);
    assert_eq!(database.store.record(&[&delivered(&sent, 1, 1)]).await.expect("a commit").len(), 1);
    let row = database.finished(sent.delivery).await.expect("a finished row");
    assert_eq!((row.state.as_str(), row.attempt, database.open(sent.delivery).await), ("delivered", 1, None));
}

#[tokio::test]
async fn deliveries_that_cannot_be_sent_are_left_out() {
    let database = Database::new().await;
    let mut ids = Vec::new();
    for number in 1..=5 {
        ids.push(finish(&database, number).await);
    }
    let sending = database.persist_one(endpoint(6), starting(1)).await;
    database.rows("UPDATE endpoints SET status = 'disabled' WHERE id = $1", &[&endpoint(1).0]).await;
    database.rows("UPDATE endpoints SET deleted_at = now() WHERE id = $1", &[&endpoint(2).0]).await;
    assert_eq!(database.store.erase_event(APPLICATION, ids[2].event).await.expect("a commit"), Erasure::Done);
    database.rows("UPDATE endpoints SET status = 'paused' WHERE id = $1", &[&endpoint(4).0]).await;
    let named: Vec<DeliveryId> = ids.iter().map(|sent| sent.delivery).chain([sending.delivery]).collect();
    let resent = resend(&database.store, &named).await.expect("a commit");
    let mut found: Vec<DeliveryId> = resent.iter().map(|resent| resent.delivery).collect();
    found.sort_unstable();
    let mut expected = vec![ids[3].delivery, ids[4].delivery];
    expected.sort_unstable();
    assert_eq!(found, expected, "not disabled, deleted, erased, being sent; paused is held");
    assert_eq!(database.open(sending.delivery).await.expect("a row").place(), ("sending", 1));
}

#[tokio::test]
async fn nothing_is_opened_below_the_line() {
    let database = Database::new().await;
    let old = database.persist_at(moment(86400), endpoint(1), starting(1)).await;
    let new = finish(&database, 1).await;
    database.store.record(&[&failed(&old, 1, 1)]).await.expect("a commit");
    assert!(database.store.raise_line(moment(0)).await.expect("a commit"));
    let resent = resend(&database.store, &[old.delivery, new.delivery]).await.expect("a commit");
    assert_eq!(resent.iter().map(|resent| resent.delivery).collect::<Vec<_>>(), [new.delivery]);
}

/// A resend waits for an uncommitted erasure, and opens nothing afterwards.
#[tokio::test]
async fn a_request_behind_an_erasure_opens_nothing() {
    let database = Database::new().await;
    let sent = finish(&database, 1).await;
    // Blocks the erasure, which then holds its own locks.
    let by_hand = database.connect().await;
    let parked = format!(
        "INSERT INTO parked (id, reason, message, message_id, routing_key, headers, body)
         VALUES (gen_random_uuid(), 'r', 'm', 'k', '{APPLICATION}.order.created', '{{}}', '')"
    );
    database.run(&parked).await;
    database.rows("UPDATE events SET key = 'k' WHERE id = $1", &[&sent.event.0]).await;
    by_hand.batch_execute("BEGIN; SELECT FROM parked FOR UPDATE").await.expect("a lock");
    let (erasing, sending) = (database.another_store(), database.another_store());
    let erasing = tokio::spawn(async move { erasing.erase_event(APPLICATION, sent.event).await });
    database.await_waiting(1).await;
    let sending = tokio::spawn(async move { resend(&sending, &[sent.delivery]).await });
    database.await_waiting(2).await;
    by_hand.batch_execute("COMMIT").await.expect("an end");
    assert_eq!(erasing.await.expect("a task").expect("a commit"), Erasure::Done);
    assert!(sending.await.expect("a task").expect("a look").is_empty());
    assert_eq!(database.count("open_deliveries").await, 0);
}

/// The second resend has chosen its rows when the first resend's delivery is sent and recorded.
#[tokio::test]
async fn a_request_behind_a_record_continues_its_numbers() {
    let database = Database::new().await;
    let sent = finish(&database, 1).await;
    let by_hand = database.connect().await;
    by_hand.batch_execute("BEGIN").await.expect("a transaction");
    let finish = "UPDATE deliveries SET state = 'failed', attempt = 5, failures = 5 WHERE id = $1";
    by_hand.execute(finish, &[&sent.delivery.0]).await.expect("an end");
    let store = database.another_store();
    let waiting = tokio::spawn(async move { resend(&store, &[sent.delivery]).await });
    database.await_waiting(1).await;
    by_hand.batch_execute("COMMIT").await.expect("a commit");
    assert_eq!(waiting.await.expect("a task").expect("a commit")[0].attempt, 6);
}

#[tokio::test]
async fn an_expiry_is_that_of_its_endpoint() {
    let database = Database::new().await;
    let (first, second) = (finish(&database, 1).await, finish(&database, 2).await);
    let lifetimes = HashMap::from([(endpoint(1), Duration::from_secs(100))]);
    let both = filter(&[first.delivery, second.delivery]);
    database.store.resend(APPLICATION, &both, &lifetimes, Duration::from_secs(1000)).await.expect("a commit");
    let left = async |sent: &Sent| {
        let row = database.open(sent.delivery).await.expect("a row");
        row.expires_at.duration_since(jiff::Timestamp::now()).as_secs()
    };
    assert!((90..=100).contains(&left(&first).await) && (990..=1000).contains(&left(&second).await));
}
