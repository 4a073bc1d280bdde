//! Statements that queue deliveries: retries, give-backs, recovery.

use std::time::Duration;

use fanfare_domain::{
    delivery::QueueReason,
    ids::{DeliveryId, ProcessId},
};
use fanfare_store::{DueRetry, GiveBack, Start, TakenRetries};
use jiff::Timestamp;

use crate::database::{Database, ONE, Sent, TWO, endpoint, lease_id, scheduled, starting};

async fn schedule(database: &Database, number: u128) -> Sent {
    let sent = database.persist_one(endpoint(number), starting(1)).await;
    database.store.record(&[&scheduled(&sent, 1, 1)]).await.expect("a commit");
    sent
}

async fn take(database: &Database, process: ProcessId, batch: &[DueRetry]) -> TakenRetries {
    database.store.take_retries(process, lease_id(9), batch).await.expect("a commit")
}

fn due(sent: &Sent, attempt: u32, lease: Option<Duration>) -> [DueRetry; 1] {
    [DueRetry { delivery: sent.delivery, attempt, lease }]
}

const LEASE: Option<Duration> = Some(Duration::from_secs(21));

#[tokio::test]
async fn a_retry_is_queued_once() {
    let database = Database::new().await;
    let sent = schedule(&database, 1).await;
    for attempt in [1, 3] {
        let taken = take(&database, ONE, &due(&sent, attempt, None)).await;
        assert_eq!((taken.leased.len(), taken.backlogs.len()), (0, 0), "stale: {attempt}");
    }
    let taken = take(&database, ONE, &due(&sent, 2, None)).await;
    assert_eq!((taken.leased.len(), taken.backlogs.len()), (0, 1));
    assert_eq!((taken.backlogs[0].endpoint, taken.backlogs[0].owner), (endpoint(1), Some(ONE)));
    let row = database.open(sent.delivery).await.expect("a row");
    assert_eq!((row.place(), row.reason.as_deref(), row.due_at, row.failures), (("queued", 2), Some("retry"), None, 1));
    assert!(take(&database, TWO, &due(&sent, 2, None)).await.backlogs.is_empty(), "the message came twice");
    assert_eq!(database.drain(2, endpoint(1), 1).await[0].attempt, 2);
    assert!(take(&database, ONE, &due(&sent, 2, None)).await.backlogs.is_empty(), "being sent");
    assert_eq!(database.open(sent.delivery).await.expect("a row").state, "sending");
}

#[tokio::test]
async fn a_retry_with_a_permit_is_leased_once() {
    let database = Database::new().await;
    let sent = schedule(&database, 1).await;
    let taken = take(&database, ONE, &due(&sent, 2, LEASE)).await;
    assert_eq!((taken.leased.len(), taken.backlogs.len()), (1, 0));
    let leased = &taken.leased[0];
    assert_eq!((leased.delivery, leased.attempt, leased.failures, leased.end()), (sent.delivery, 2, 1, None));
    assert!(leased.payload.as_ref().is_some_and(|payload| payload.body.is_some()));
    let row = database.open(sent.delivery).await.expect("a row");
    assert_eq!((row.place(), row.reason.as_deref(), row.due_at), (("sending", 2), None, None));
    assert_eq!(row.lease, Some(lease_id(9).0));
    let again = take(&database, ONE, &due(&sent, 2, LEASE)).await;
    assert_eq!((again.leased.len(), again.backlogs.len()), (0, 0), "the message came twice");
    let found = database.store.leased_under(lease_id(9)).await.expect("a look");
    assert_eq!(found.iter().map(|leased| leased.delivery).collect::<Vec<_>>(), [sent.delivery]);
}

#[tokio::test]
async fn a_retry_joins_a_backlog_unless_the_backlog_is_ending() {
    let database = Database::new().await;
    let (first, second) = (schedule(&database, 1).await, schedule(&database, 1).await);
    database.queue(endpoint(1), 1).await;
    let taken = take(&database, TWO, &due(&first, 2, LEASE)).await;
    assert_eq!((taken.leased.len(), taken.backlogs.len(), taken.backlogs[0].owner), (0, 1, Some(ONE)));
    assert_eq!(database.open(first.delivery).await.expect("a row").place(), ("queued", 2));
    database.store.mark_ending(ONE, &[endpoint(1)], true).await.expect("a commit");
    let taken = take(&database, TWO, &due(&second, 2, LEASE)).await;
    assert_eq!((taken.leased.len(), taken.backlogs.len()), (1, 0));
}

#[tokio::test]
async fn a_suspect_is_not_leased_with_other_retries() {
    let database = Database::new().await;
    let sent = schedule(&database, 1).await;
    database.rows("UPDATE open_deliveries SET unknowns = 2 WHERE id = $1", &[&sent.delivery.0]).await;
    let taken = take(&database, ONE, &due(&sent, 2, LEASE)).await;
    assert_eq!((taken.leased.len(), taken.backlogs.len()), (0, 1));
    assert_eq!(database.open(sent.delivery).await.expect("a row").place(), ("queued", 2));
}

#[tokio::test]
async fn retries_of_a_batch_join_the_backlogs_of_other_processes() {
    let database = Database::new().await;
    let (first, second) = (schedule(&database, 1).await, schedule(&database, 2).await);
    database.queue(endpoint(1), 1).await;
    let mut batch = [first, second].map(|sent| due(&sent, 2, None)[0]);
    batch.sort_unstable_by_key(|retry| retry.delivery);
    let mut backlogs = take(&database, TWO, &batch).await.backlogs;
    backlogs.sort_unstable_by_key(|backlog| backlog.endpoint);
    assert_eq!(backlogs.iter().map(|backlog| backlog.owner).collect::<Vec<_>>(), [Some(ONE), Some(TWO)]);
    assert!(take(&database, TWO, &[]).await.backlogs.is_empty());
}

#[tokio::test]
async fn a_lease_is_given_back_under_its_id_only() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    let back = |lease| [GiveBack { delivery: sent.delivery, lease: lease_id(lease), reason: QueueReason::LaneFull }];
    assert!(database.store.give_back(ONE, &back(2)).await.expect("a look").is_empty());
    assert_eq!(database.open(sent.delivery).await.expect("a row").state, "sending");
    let backlogs = database.store.give_back(ONE, &back(1)).await.expect("a commit");
    assert_eq!(backlogs.len(), 1);
    let row = database.open(sent.delivery).await.expect("a row");
    assert_eq!(
        (row.place(), row.reason.as_deref(), row.listed, row.lease),
        (("queued", 1), Some("lane_full"), true, None)
    );
    assert!(database.store.give_back(ONE, &back(1)).await.expect("a look").is_empty(), "once");
    database.drain(3, endpoint(1), 1).await;
    assert!(database.store.give_back(ONE, &back(1)).await.expect("a look").is_empty(), "the delivery is leased anew");
}

#[tokio::test]
async fn a_delivery_of_a_paused_endpoint_gets_a_backlog_without_an_owner() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    let back = [GiveBack { delivery: sent.delivery, lease: lease_id(1), reason: QueueReason::Paused }];
    assert_eq!(database.store.give_back(ONE, &back).await.expect("a commit")[0].owner, None);
    assert_eq!(database.owner(endpoint(1)).await, Some(None));
}

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
    let floor = Timestamp::now() + Duration::from_secs(20);
    assert_eq!(database.store.recover_leases(ONE, Some(floor), 9).await.expect("a commit").queued, 3, "30 s behind");
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
    let (late, early) = (schedule(&database, 1).await, schedule(&database, 2).await);
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
    let retry = [DueRetry { delivery: late.delivery, attempt: 2, lease: LEASE }];
    let taken = take(&database, ONE, &retry).await;
    assert_eq!((taken.leased.len(), taken.backlogs.len()), (0, 0));
    due(early.delivery, "20 s").await;
    let floor = |ahead: u64| Some(Timestamp::now() + Duration::from_secs(ahead));
    assert_eq!(database.store.recover_scheduled(ONE, wait, floor(60), 10).await.expect("a look").queued, 0);
    assert_eq!(database.store.recover_scheduled(ONE, wait, floor(5), 10).await.expect("a commit").queued, 1);
}

#[tokio::test]
async fn a_delivery_ends_without_an_attempt() {
    use fanfare_domain::delivery::FailureReason::{Expired, HeldTooLong, TooManyHeld};
    use fanfare_store::{End, EndLeased};
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    let end = |lease, end| [EndLeased { delivery: sent.delivery, lease: lease_id(lease), end, notifies_owner: true }];
    assert_eq!(database.store.end_leased(&end(2, End::Failed(Expired))).await.expect("a look"), 0);
    assert_eq!(database.store.end_leased(&end(1, End::Failed(Expired))).await.expect("a commit"), 1);
    let row = database.finished(sent.delivery).await.expect("a finished row");
    assert_eq!((row.state.as_str(), row.reason.as_deref(), row.attempt), ("failed", Some("expired"), 0));
    assert_eq!(database.count("failure_notices").await, 1);
    let queued = database.queue(endpoint(2), 5).await;
    assert_eq!(database.store.end_queued(endpoint(2), End::Skipped, true, 2).await.expect("a commit"), 2);
    assert_eq!(database.finished(queued[0].delivery).await.map(|row| row.state).as_deref(), Some("skipped"));
    // Of the remaining three deliveries, the oldest exceeds the maximum.
    assert_eq!(database.store.end_too_many_held(endpoint(2), 2, true, 10).await.expect("a commit"), 1);
    let row = database.finished(queued[2].delivery).await.expect("a finished row");
    assert_eq!(row.reason.as_deref(), Some(TooManyHeld.as_str()));
    database
        .rows("UPDATE open_deliveries SET since = now() + interval '2 h' WHERE id <> $1", &[&queued[4].delivery.0])
        .await;
    let age = Duration::from_millis(1);
    assert_eq!(database.store.end_held_too_long(endpoint(2), age, true, 10).await.expect("a commit"), 1);
    let row = database.finished(queued[4].delivery).await.expect("a finished row");
    assert_eq!(row.reason.as_deref(), Some(HeldTooLong.as_str()));
    assert_eq!(database.count("open_deliveries").await, 1);
    assert_eq!(database.count("failure_notices").await, 3, "a skipped delivery is not reported");
}

#[tokio::test]
async fn the_sweep_ends_and_mends() {
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
