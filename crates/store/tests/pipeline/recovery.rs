//! Recovery of expired leases and lost retry messages, and the sweep.

use std::time::Duration;

use fanfare_domain::{delivery::QueueReason, ids::DeliveryId};
use fanfare_store::{DueRetry, Start};
use jiff::Timestamp;

use crate::database::{Database, ONE, TWO, endpoint, lease_id, starting};

/// Expires the leases of all deliveries.
async fn end_leases(database: &Database) {
    database.run("UPDATE open_deliveries SET lease_until = now() - interval '1 s' WHERE state = 'sending'").await;
}

#[tokio::test]
async fn an_expired_lease_is_recovered_with_the_next_number() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    let recovered = database.store.recover_leases(TWO, None, 10).await.expect("a look");
    assert_eq!((recovered.queued, recovered.reached), (0, None), "the lease has not expired");
    end_leases(&database).await;
    let recovered = database.store.recover_leases(TWO, None, 10).await.expect("a commit");
    assert_eq!((recovered.queued, recovered.aborted, recovered.backlogs.len()), (1, 0, 1));
    assert_eq!((recovered.backlogs[0].owner, recovered.reached.is_some()), (Some(TWO), true));
    let row = database.open(sent.delivery).await.expect("a row");
    assert_eq!((row.place(), row.reason.as_deref(), row.unknowns), (("queued", 2), Some("lease_expired"), 1));
    assert_eq!((row.listed, row.lease, row.failures), (true, None, 0));
    assert_eq!(database.attempts(sent.delivery).await, [(1, "unknown".to_owned(), None)]);
    assert_eq!(database.store.recover_leases(TWO, None, 10).await.expect("a look").queued, 0, "left the set");
}

#[tokio::test]
async fn a_delivery_that_was_alone_at_its_last_deaths_is_aborted() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    for attempt in 1..=3 {
        end_leases(&database).await;
        assert_eq!(database.store.recover_leases(ONE, None, 10).await.expect("a commit").queued, 1, "{attempt}");
        database.run("UPDATE open_deliveries SET since = since - interval '2 s'").await;
        if attempt < 2 {
            assert_eq!(database.drain(2, endpoint(1), 1).await.len(), 1);
        } else {
            assert!(database.drain(2, endpoint(1), 1).await.is_empty());
            let suspect = database.store.lease_suspect(lease_id(3), Duration::from_secs(30)).await.expect("a lease");
            assert_eq!(suspect.map(|suspect| suspect.attempt), Some(attempt + 1));
        }
    }
    end_leases(&database).await;
    let recovered = database.store.recover_leases(ONE, None, 10).await.expect("a commit");
    assert_eq!((recovered.queued, recovered.aborted), (0, 1));
    let ended = database.finished(sent.delivery).await.expect("a finished row");
    assert_eq!((ended.state.as_str(), ended.reason.as_deref(), ended.attempt), ("failed", Some("aborted"), 4));
    let numbers: Vec<i32> = database.attempts(sent.delivery).await.iter().map(|row| row.0).collect();
    assert_eq!((numbers, database.count("failure_notices").await), (vec![1, 2, 3, 4], 1));
    assert_eq!(database.open(sent.delivery).await, None);
}

#[tokio::test]
async fn a_look_for_expired_leases_is_bounded_and_has_a_floor() {
    let database = Database::new().await;
    for _ in 0..5 {
        database.persist_one(endpoint(1), starting(1)).await;
    }
    end_leases(&database).await;
    assert_eq!(database.store.recover_leases(ONE, None, 2).await.expect("a commit").queued, 2);
    let floor = Timestamp::now() + Duration::from_secs(3600);
    assert_eq!(database.store.recover_leases(ONE, Some(floor), 9).await.expect("a look").queued, 0);
    // The leases ended a second ago: a look begins 5 s before its floor.
    let floor = Timestamp::now() + Duration::from_secs(1);
    assert_eq!(database.store.recover_leases(ONE, Some(floor), 9).await.expect("a commit").queued, 3);
}

#[tokio::test]
async fn two_recoveries_at_once_share_no_delivery() {
    let database = Database::new().await;
    for number in 1..=20 {
        database.persist_one(endpoint(number), starting(1)).await;
    }
    end_leases(&database).await;
    let recover = |process| {
        let store = database.another_store();
        tokio::spawn(async move { store.recover_leases(process, None, 100).await })
    };
    let (first, second) = (recover(ONE), recover(TWO));
    let (first, second) =
        (first.await.expect("a task").expect("a commit"), second.await.expect("a task").expect("a commit"));
    assert_eq!(first.queued + second.queued, 20);
    let requeued = "open_deliveries WHERE state = 'queued' AND attempt = 2 AND unknowns = 1";
    assert_eq!((database.count(requeued).await, database.count("attempts").await), (20, 20));
}

#[tokio::test]
async fn a_record_comes_before_a_recovery_that_waits_for_nothing() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    end_leases(&database).await;
    let by_hand = database.connect().await;
    by_hand.batch_execute("BEGIN").await.expect("a transaction");
    by_hand.execute("SELECT FROM open_deliveries WHERE id = $1 FOR UPDATE", &[&sent.delivery.0]).await.expect("a lock");
    assert_eq!(database.store.recover_leases(ONE, None, 10).await.expect("a look").queued, 0, "SKIP LOCKED");
    by_hand.batch_execute("ROLLBACK").await.expect("an end");
    assert_eq!(database.store.recover_leases(ONE, None, 10).await.expect("a commit").queued, 1);
}

#[tokio::test]
async fn a_scheduled_delivery_whose_message_is_lost_is_recovered() {
    let database = Database::new().await;
    let (late, early) = (database.schedule(1).await, database.schedule(2).await);
    let due = async |id: DeliveryId, ago: &str| {
        let statement = format!("UPDATE open_deliveries SET due_at = now() - interval '{ago}' WHERE id = $1");
        database.rows(&statement, &[&id.0]).await;
    };
    due(late.delivery, "11 s").await;
    due(early.delivery, "9 s").await;
    let wait = Duration::from_secs(10);
    let recovered = database.store.recover_scheduled(ONE, wait, None, 10).await.expect("a commit");
    assert_eq!((recovered.queued, recovered.backlogs.len(), recovered.reached.is_some()), (1, 1, true));
    let row = database.open(late.delivery).await.expect("a row");
    assert_eq!((row.place(), row.reason.as_deref(), row.due_at), (("queued", 2), Some("retry"), None));
    // The retry message comes after the recovery.
    let retry = [DueRetry { delivery: late.delivery, attempt: 2, lease: Some(Duration::from_secs(21)) }];
    let taken = database.store.take_retries(ONE, lease_id(9), &retry).await.expect("a look");
    assert_eq!((taken.leased.len(), taken.backlogs.len()), (0, 0));
    due(early.delivery, "20 s").await;
    let floor = |ago: u64| Some(Timestamp::now() - Duration::from_secs(ago));
    assert_eq!(database.store.recover_scheduled(ONE, wait, floor(10), 10).await.expect("a look").queued, 0);
    assert_eq!(database.store.recover_scheduled(ONE, wait, floor(18), 10).await.expect("a commit").queued, 1);
}

#[tokio::test]
async fn the_sweep_ends_expired_deliveries_and_creates_missing_backlogs() {
    let database = Database::fresh().await;
    let queued = |number| database.persist_one(endpoint(number), Start::Queued(QueueReason::LaneFull));
    let (expired, paused, lost, good) = (queued(1).await, queued(2).await, queued(3).await, queued(4).await);
    database.run("UPDATE open_deliveries SET since = now() - interval '2 minutes'").await;
    let expiry = "UPDATE open_deliveries SET expires_at = now() - interval '2 minutes' WHERE id = $1 OR id = $2";
    database.rows(expiry, &[&expired.delivery.0, &paused.delivery.0]).await;
    database.rows("UPDATE endpoints SET status = 'paused' WHERE id = $1", &[&endpoint(2).0]).await;
    database.rows("DELETE FROM endpoint_backlogs WHERE endpoint_id = $1", &[&endpoint(3).0]).await;
    database
        .run(
            "INSERT INTO processes (id, kind, alive_until, version)
                  VALUES ('00000000-0000-0000-0000-000000000101', 'dispatcher', now() + interval '10 s', '1')",
        )
        .await;
    assert_eq!(database.store.open_pages().await.expect("a look"), 1);
    let swept = database.store.sweep(0).await.expect("a commit");
    assert_eq!((swept.expired, swept.unowned), (1, 1));
    assert_eq!(database.finished(expired.delivery).await.and_then(|row| row.reason).as_deref(), Some("expired"));
    assert!(database.open(paused.delivery).await.is_some() && database.open(good.delivery).await.is_some());
    assert_eq!((database.owner(lost.endpoint).await, database.queued_without_backlog().await), (Some(None), 0));
    let again = database.store.sweep(0).await.expect("a look");
    assert_eq!((again.expired, again.unowned), (0, 0));
    database.store.vacuum_open().await.expect("a vacuum");
}
