//! Leases of queued deliveries, and their ends without an attempt.

use std::time::Duration;

use fanfare_domain::delivery::QueueReason;
use fanfare_store::{Demand, Erasure, Floor, GiveBack, Leased, Start};
use jiff::Timestamp;

use crate::database::{APPLICATION, Database, ONE, Sent, TWO, endpoint, lease_id, lease_of, starting};

fn ids(leased: &[Leased]) -> Vec<fanfare_domain::ids::DeliveryId> {
    leased.iter().map(|leased| leased.delivery).collect()
}

fn of(sent: &[Sent]) -> Vec<fanfare_domain::ids::DeliveryId> {
    sent.iter().map(|sent| sent.delivery).collect()
}

#[tokio::test]
async fn deliveries_come_by_class_and_age() {
    let database = Database::new().await;
    let sent = database.queue(endpoint(1), 6).await;
    // The oldest delivery belongs to a replay.
    database.rows("UPDATE open_deliveries SET class = 1 WHERE id = $1", &[&sent[0].delivery.0]).await;
    let first = database.drain(1, endpoint(1), 2).await;
    assert_eq!(ids(&first), of(&sent[1..3]));
    let row = database.open(sent[1].delivery).await.expect("an open row");
    assert_eq!((row.place(), row.reason.as_deref(), row.lease), (("sending", 1), None, Some(lease_id(1).0)));
    assert_eq!(first[0].payload.as_ref().and_then(|event| event.body.as_deref()), Some("{\"a\":1}"));
    let rest = database.drain(2, endpoint(1), 10).await;
    assert_eq!(ids(&rest), [&of(&sent[3..])[..], &[sent[0].delivery]].concat(), "the replay's is last");
    assert_eq!((rest[3].class, rest[3].attempt, rest[3].failures), (1, 1, 0));
    assert!(database.drain(3, endpoint(1), 10).await.is_empty());
    let under = database.store.leased_under(lease_id(1)).await.expect("a look");
    assert_eq!(ids(&under), ids(&first), "after a commit without an answer");
}

#[tokio::test]
async fn a_corrupt_event_spoils_no_other_lease() {
    let database = Database::new().await;
    let sent = database.queue(endpoint(1), 3).await;
    database.rows("UPDATE events SET type = 'a b' WHERE id = $1", &[&sent[1].event.0]).await;
    let leased = database.drain(1, endpoint(1), 9).await;
    assert_eq!(ids(&leased), of(&sent));
    let is_readable = |leased: &Leased| leased.payload.as_ref().is_some_and(|event| event.event_type.is_some());
    assert_eq!(leased.iter().map(is_readable).collect::<Vec<_>>(), [true, false, true]);
}

#[tokio::test]
async fn a_drain_continues_behind_its_floor() {
    let database = Database::new().await;
    let sent = database.queue(endpoint(1), 4).await;
    let after = Floor { class: 0, delivery: sent[1].delivery };
    let demand = Demand { after, ..lease_of(endpoint(1), 1) };
    let leased = database.store.lease(ONE, lease_id(1), &[demand]).await.expect("leases");
    assert_eq!(ids(&leased), [sent[2].delivery]);
    let after = Floor { class: 1, ..after };
    let demand = Demand { after, ..lease_of(endpoint(1), 9) };
    assert!(database.store.lease(ONE, lease_id(2), &[demand]).await.expect("leases").is_empty());
}

#[tokio::test]
async fn each_endpoint_gets_its_own_count() {
    let database = Database::new().await;
    let (first, second) = (database.queue(endpoint(1), 3).await, database.queue(endpoint(2), 3).await);
    database.queue(endpoint(3), 3).await;
    let demands = [lease_of(endpoint(2), 1), lease_of(endpoint(1), 2), lease_of(endpoint(4), 5)];
    let leased = database.store.lease(ONE, lease_id(1), &demands).await.expect("leases");
    let mut expected = [&of(&first[..2])[..], &of(&second[..1])].concat();
    expected.sort_unstable();
    assert_eq!(ids(&leased), expected);
}

#[tokio::test]
async fn only_the_owner_of_a_backlog_leases() {
    let database = Database::new().await;
    database.queue(endpoint(1), 2).await;
    let demands = [lease_of(endpoint(1), 2)];
    assert!(database.store.lease(TWO, lease_id(1), &demands).await.expect("leases").is_empty());
    // An uncommitted takeover.
    let by_hand = database.connect().await;
    by_hand
        .batch_execute("BEGIN; UPDATE endpoint_backlogs SET owner = '00000000-0000-0000-0000-000000000102'")
        .await
        .expect("a lock");
    let store = database.store.clone();
    let waiting = tokio::spawn(async move { store.lease(ONE, lease_id(1), &demands).await });
    database.await_waiting(1).await;
    by_hand.batch_execute("COMMIT").await.expect("a commit");
    assert!(waiting.await.expect("a task").expect("leases").is_empty());
    assert_eq!(database.store.lease(TWO, lease_id(2), &demands).await.expect("leases").len(), 2);
}

#[tokio::test]
async fn a_row_that_is_held_is_left_out() {
    let database = Database::new().await;
    let sent = database.queue(endpoint(1), 3).await;
    let by_hand = database.connect().await;
    by_hand.batch_execute("BEGIN").await.expect("a transaction");
    by_hand
        .execute("SELECT FROM open_deliveries WHERE id = $1 FOR UPDATE", &[&sent[0].delivery.0])
        .await
        .expect("a lock");
    assert_eq!(ids(&database.drain(1, endpoint(1), 9).await), of(&sent[1..]));
    by_hand.batch_execute("ROLLBACK").await.expect("an end");
    assert_eq!(ids(&database.drain(2, endpoint(1), 9).await), of(&sent[..1]), "a drain from the start finds the row");
}

#[tokio::test]
async fn two_drains_at_once_share_no_delivery() {
    let database = Database::new().await;
    database.queue(endpoint(1), 40).await;
    let mut tasks = Vec::new();
    for lease in 0..8 {
        let store = database.store.clone();
        tasks.push(tokio::spawn(async move { store.lease(ONE, lease_id(lease), &[lease_of(endpoint(1), 5)]).await }));
    }
    let mut drained = Vec::new();
    for task in tasks {
        drained.extend(ids(&task.await.expect("a task").expect("leases")));
    }
    drained.extend(ids(&database.drain(9, endpoint(1), 40).await));
    drained.sort_unstable();
    drained.dedup();
    assert_eq!(drained.len(), 40);
}

#[tokio::test]
async fn a_delivery_that_killed_processes_is_leased_alone() {
    let database = Database::new().await;
    let sent = database.queue(endpoint(1), 3).await;
    assert!(!database.store.has_suspect().await.expect("a look"));
    database.rows("UPDATE open_deliveries SET unknowns = 2 WHERE id = $1", &[&sent[1].delivery.0]).await;
    assert_eq!(ids(&database.drain(1, endpoint(1), 9).await), [sent[0].delivery, sent[2].delivery]);
    assert!(!database.store.has_suspect().await.expect("a look"));
    let suspect =
        async |lease| database.store.lease_suspect(lease_id(lease), Duration::from_secs(30)).await.expect("a look");
    assert!(suspect(2).await.is_none(), "not within a second");
    database.run("UPDATE open_deliveries SET since = since - interval '2 s'").await;
    database.run("UPDATE endpoints SET status = 'paused'").await;
    assert!(suspect(2).await.is_none(), "not while the endpoint is paused");
    assert!(!database.store.has_suspect().await.expect("a look"));
    database.run("UPDATE endpoints SET status = 'enabled'").await;
    database.run("UPDATE open_deliveries SET reason = 'application_unreadable' WHERE state = 'queued'").await;
    assert!(suspect(2).await.is_none(), "not within a minute after an unreadable application");
    database.run("UPDATE open_deliveries SET reason = 'retry' WHERE state = 'queued'").await;
    assert!(database.store.has_suspect().await.expect("a look"));
    assert_eq!(suspect(2).await.map(|suspect| suspect.delivery), Some(sent[1].delivery));
    assert!(suspect(3).await.is_none() && !database.store.has_suspect().await.expect("a look"));
    let row = database.open(sent[1].delivery).await.expect("a row");
    assert_eq!((row.place(), row.unknowns, row.lease), (("sending", 1), 2, Some(lease_id(2).0)));
}

#[tokio::test]
async fn an_expired_delivery_is_leased_and_told() {
    let database = Database::new().await;
    let sent = database.queue(endpoint(1), 3).await;
    // Only the second delivery was queued before the endpoint's resumption.
    database.run("UPDATE open_deliveries SET expires_at = now() - interval '1 s'").await;
    database.run("UPDATE endpoint_backlogs SET resumed_at = now() - interval '10 s'").await;
    let expiry = "UPDATE open_deliveries SET since = now() - interval '20 s' WHERE id = $1";
    database.rows(expiry, &[&sent[1].delivery.0]).await;
    let leased = database.drain(1, endpoint(1), 9).await;
    assert_eq!(leased.iter().map(|leased| leased.is_expired).collect::<Vec<_>>(), [true, false, true]);
    let left = leased[1].expires_at.duration_since(Timestamp::now()).as_secs();
    assert!((3580..3591).contains(&left), "an hour from the resumption on: {left} s");
    assert_eq!(database.open(sent[1].delivery).await.expect("a row").expires_at, leased[1].expires_at);
}

#[tokio::test]
async fn a_resumption_shortens_no_expiry() {
    let database = Database::new().await;
    let sent = database.queue(endpoint(1), 1).await;
    database
        .run("UPDATE open_deliveries SET expires_at = now() + interval '2 days', since = now() - interval '20 s'")
        .await;
    database.run("UPDATE endpoint_backlogs SET resumed_at = now()").await;
    let before = database.open(sent[0].delivery).await.expect("a row").expires_at;
    assert_eq!(database.drain(1, endpoint(1), 9).await[0].expires_at, before);
}

#[tokio::test]
async fn an_event_that_is_gone_has_no_payload() {
    let database = Database::new().await;
    let mut sent = Vec::new();
    for _ in 0..3 {
        sent.push(database.persist_one(endpoint(1), Start::Queued(QueueReason::LaneFull)).await);
    }
    // An event in state `sending` cannot be erased. The events of the three queued deliveries are erased, dropped and
    // present.
    let erased = database.persist_one(endpoint(2), starting(1)).await;
    assert_eq!(database.store.erase_event(APPLICATION, erased.event).await.expect("a look"), Erasure::UnderWay);
    database.rows("UPDATE events SET erased_at = now(), body = '' WHERE id = $1", &[&sent[0].event.0]).await;
    database.rows("DELETE FROM events WHERE id = $1", &[&sent[1].event.0]).await;
    let leased = database.drain(2, endpoint(1), 9).await;
    let has_payload =
        |sent: &Sent| leased.iter().find(|row| row.delivery == sent.delivery).map(|row| row.payload.is_some());
    assert_eq!(sent.iter().map(has_payload).collect::<Vec<_>>(), [Some(false), Some(false), Some(true)]);
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
