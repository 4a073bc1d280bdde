//! Backlogs: their owners, and their ends beside statements that queue.

use std::time::Duration;

use fanfare_domain::{delivery::QueueReason, ids::EndpointId};
use fanfare_store::{Probed, ReleasedBacklog, Start};

use crate::database::{DEAD, Database, ONE, TWO, endpoint, starting, timed, to};

/// Empties a backlog, and keeps its row.
async fn empty(database: &Database) {
    database.run("DELETE FROM open_deliveries").await;
}

async fn end(database: &Database, number: u128) -> Vec<EndpointId> {
    database.store.end_backlogs(ONE, &[endpoint(number)]).await.expect("a commit")
}

/// Parts of a statement that queues: the tests run the row or the lock first.
const ROW: &str = "INSERT INTO open_deliveries (id, event_id, application_id, endpoint_id, state, listed, expires_at)
                   VALUES (gen_random_uuid(), gen_random_uuid(), '00000000-0000-0000-0000-00000000000a',
                           '00000000-0000-0000-0000-000000000001', 'queued', true, now() + interval '1 h')";
const LOCK: &str =
    "SELECT FROM endpoint_backlogs WHERE endpoint_id = '00000000-0000-0000-0000-000000000001' FOR KEY SHARE";

#[tokio::test]
async fn an_empty_backlog_ends() {
    let database = Database::new().await;
    database.queue(endpoint(1), 1).await;
    database.queue(endpoint(2), 1).await;
    let both = [endpoint(2), endpoint(1), endpoint(3)];
    let ended = database.store.end_backlogs(ONE, &both).await.expect("a look");
    assert_eq!(ended, [endpoint(3)], "two are not empty, and the third does not exist");
    assert_eq!(database.drain(1, endpoint(2), 1).await.len(), 1);
    assert_eq!(database.store.end_backlogs(TWO, &both).await.expect("a look"), both, "another owner");
    assert_eq!(database.owner(endpoint(2)).await, Some(Some(ONE)));
    assert_eq!(database.store.end_backlogs(ONE, &both).await.expect("a commit"), [endpoint(2), endpoint(3)]);
    assert_eq!((database.owner(endpoint(1)).await, database.owner(endpoint(2)).await), (Some(Some(ONE)), None));
    assert!(database.store.end_backlogs(ONE, &[]).await.expect("an empty array").is_empty());
}

#[tokio::test]
async fn a_backlog_that_is_held_does_not_end() {
    let database = Database::new().await;
    database.queue(endpoint(1), 1).await;
    empty(&database).await;
    let by_hand = database.connect().await;
    for steps in [[LOCK, ROW], [ROW, LOCK]] {
        by_hand.batch_execute(&format!("BEGIN; {}; {}", steps[0], steps[1])).await.expect("a transaction");
        assert!(end(&database, 1).await.is_empty(), "the row is not committed");
        by_hand.batch_execute("COMMIT").await.expect("a commit");
        assert!(end(&database, 1).await.is_empty(), "the row is committed");
        empty(&database).await;
    }
    by_hand.batch_execute(&format!("BEGIN; {LOCK}; {ROW}")).await.expect("a transaction");
    by_hand.batch_execute("ROLLBACK").await.expect("an end");
    assert_eq!(end(&database, 1).await, [endpoint(1)]);
}

/// The statement has written its row, but not yet reached the backlog, when the backlog ends.
#[tokio::test]
async fn a_statement_behind_the_end_creates_the_backlog_anew() {
    let database = Database::new().await;
    database.queue(endpoint(1), 1).await;
    empty(&database).await;
    let ends = database.connect().await;
    ends.batch_execute("BEGIN").await.expect("a transaction");
    let ended = "SELECT end_backlogs($1, ARRAY[$2::uuid])";
    assert_eq!(ends.query(ended, &[&ONE.0, &endpoint(1).0]).await.expect("an end").len(), 1);
    // Both statements wait for the lock of the uncommitted end.
    let (queued, sent) = (database.another_store(), database.another_store());
    let (first, second) = (
        to(timed(), &[(endpoint(1), Start::Queued(QueueReason::LaneFull))]),
        to(timed(), &[(endpoint(1), starting(1))]),
    );
    let ids = (first.deliveries[0].id, second.deliveries[0].id);
    let first = tokio::spawn(async move { queued.persist(TWO, &[&first]).await });
    let second = tokio::spawn(async move { sent.persist(TWO, &[&second]).await });
    database.await_waiting(2).await;
    ends.batch_execute("COMMIT").await.expect("a commit");
    let first = first.await.expect("a task").expect("a commit");
    second.await.expect("a task").expect("a commit");
    assert_eq!(first.backlogs.iter().map(|backlog| backlog.owner).collect::<Vec<_>>(), [Some(TWO)]);
    assert_eq!(database.open(ids.0).await.expect("a row").state, "queued");
    assert_eq!(database.open(ids.1).await.expect("a row").state, "sending", "the backlog had ended");
    assert_eq!((database.owner(endpoint(1)).await, database.queued_without_backlog().await), (Some(Some(TWO)), 0));
}

#[tokio::test]
async fn a_statement_before_the_rollback_of_an_end_joins_the_backlog() {
    let database = Database::new().await;
    database.queue(endpoint(1), 1).await;
    empty(&database).await;
    let ends = database.connect().await;
    ends.batch_execute("BEGIN").await.expect("a transaction");
    ends.query("SELECT end_backlogs($1, ARRAY[$2::uuid])", &[&ONE.0, &endpoint(1).0]).await.expect("an end");
    let new = to(timed(), &[(endpoint(1), starting(1))]);
    let store = database.another_store();
    let waiting = tokio::spawn(async move { store.persist(TWO, &[&new]).await });
    database.await_waiting(1).await;
    ends.batch_execute("ROLLBACK").await.expect("an end");
    let persisted = waiting.await.expect("a task").expect("a commit");
    assert_eq!((persisted.queued.len(), persisted.backlogs[0].owner), (1, Some(ONE)));
}

/// Two statements create one backlog, each without a view of the other's row.
#[tokio::test]
async fn two_statements_at_once_create_one_backlog() {
    let database = Database::new().await;
    let by_hand = database.connect().await;
    for (end, owner) in [("COMMIT", DEAD), ("ROLLBACK", TWO)] {
        database.run("DELETE FROM endpoint_backlogs").await;
        by_hand
            .batch_execute(&format!(
                "BEGIN; {ROW}; INSERT INTO endpoint_backlogs (endpoint_id, application_id, owner, reason)
                 VALUES ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-00000000000a',
                         '00000000-0000-0000-0000-000000000103', 'backlog')"
            ))
            .await
            .expect("a transaction");
        let new = to(timed(), &[(endpoint(1), Start::Queued(QueueReason::LaneFull))]);
        let store = database.another_store();
        let waiting = tokio::spawn(async move { store.persist(TWO, &[&new]).await });
        database.await_waiting(1).await;
        by_hand.batch_execute(end).await.expect("an end");
        let persisted = waiting.await.expect("a task").expect("a commit");
        assert_eq!((persisted.backlogs.len(), persisted.backlogs[0].owner), (1, Some(owner)), "{end}");
        assert_eq!(database.owner(endpoint(1)).await, Some(Some(owner)));
    }
}

/// A delivery starts while a concurrent statement creates its endpoint's backlog: the delivery may be sent, and the
/// backlog stays correct.
#[tokio::test]
async fn a_backlog_that_is_not_committed_blocks_nothing() {
    let database = Database::new().await;
    let by_hand = database.connect().await;
    by_hand
        .batch_execute(&format!(
            "BEGIN; {ROW}; INSERT INTO endpoint_backlogs (endpoint_id, application_id, owner, reason)
             VALUES ('00000000-0000-0000-0000-000000000001', '00000000-0000-0000-0000-00000000000a', NULL, 'backlog')"
        ))
        .await
        .expect("a transaction");
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    assert_eq!(database.open(sent.delivery).await.expect("a row").state, "sending");
    by_hand.batch_execute("COMMIT").await.expect("a commit");
    let later = database.persist_one(endpoint(1), starting(2)).await;
    assert_eq!(database.open(later.delivery).await.expect("a row").state, "queued");
}

/// The end function skips a backlog locked by a lease. A lease behind an end finds nothing.
#[tokio::test]
async fn an_end_and_a_lease_pass_each_other() {
    let database = Database::new().await;
    database.queue(endpoint(1), 1).await;
    empty(&database).await;
    let by_hand = database.connect().await;
    by_hand.batch_execute("BEGIN; SELECT FROM endpoint_backlogs ORDER BY endpoint_id FOR SHARE").await.expect("a lock");
    assert!(end(&database, 1).await.is_empty(), "the end does not wait for the lock");
    by_hand.batch_execute("COMMIT").await.expect("an end");
    by_hand.batch_execute("BEGIN").await.expect("a transaction");
    by_hand.query("SELECT end_backlogs($1, ARRAY[$2::uuid])", &[&ONE.0, &endpoint(1).0]).await.expect("an end");
    let store = database.another_store();
    let demand = crate::database::lease_of(endpoint(1), 5);
    let waiting = tokio::spawn(async move { store.lease(ONE, crate::database::lease_id(1), &[demand]).await });
    database.await_waiting(1).await;
    by_hand.batch_execute("COMMIT").await.expect("a commit");
    assert!(waiting.await.expect("a task").expect("a look").is_empty());
}

#[tokio::test]
async fn a_backlog_changes_its_owner() {
    let database = Database::new().await;
    for number in 1..=4 {
        database.queue(endpoint(number), 1).await;
    }
    assert!(database.store.take_backlogs(TWO, 10).await.expect("a look").is_empty(), "the backlogs have an owner");
    assert_eq!(database.store.owned_backlogs(ONE).await.expect("a look").len(), 4);
    let released = [
        ReleasedBacklog { endpoint: endpoint(1), look_in: Duration::ZERO, reason: None },
        ReleasedBacklog { endpoint: endpoint(2), look_in: Duration::from_secs(300), reason: Some(QueueReason::Paused) },
    ];
    database.store.release_backlogs(TWO, &released).await.expect("a look");
    assert_eq!(database.owner(endpoint(1)).await, Some(Some(ONE)), "another process gives up nothing");
    database.store.release_backlogs(ONE, &released).await.expect("a commit");
    let taken = database.store.take_backlogs(TWO, 10).await.expect("a commit");
    assert_eq!(taken.iter().map(|backlog| backlog.endpoint).collect::<Vec<_>>(), [endpoint(1)], "the other is not due");
    let row = database.store.backlog(endpoint(2), 100).await.expect("a look").expect("a backlog");
    assert_eq!((row.reason.as_str(), row.owner, row.queued), ("paused", None, 1));
    let row = database.store.backlog(endpoint(1), 100).await.expect("a look").expect("a backlog");
    assert_eq!((row.reason.as_str(), row.owner), ("lane_full", Some(TWO)));
    database.store.release_all_backlogs(ONE).await.expect("a commit");
    assert_eq!(database.store.take_backlogs(TWO, 1).await.expect("a commit").len(), 1, "at most one");
    assert_eq!(database.store.take_backlogs(TWO, 9).await.expect("a commit").len(), 1);
    assert!(database.store.owned_backlogs(ONE).await.expect("a look").is_empty());
}

/// First attempts pass beside an empty backlog that cannot be ended, as persists hold its row.
#[tokio::test]
async fn a_backlog_that_is_ending_lets_first_attempts_pass() {
    let database = Database::new().await;
    database.queue(endpoint(1), 1).await;
    database.store.mark_ending(TWO, &[endpoint(1)], true).await.expect("a look");
    let blocked = database.persist_one(endpoint(1), starting(1)).await;
    assert_eq!(database.open(blocked.delivery).await.expect("a row").state, "queued", "another process marks nothing");
    database.store.mark_ending(ONE, &[endpoint(1)], true).await.expect("a commit");
    let passes = database.persist_one(endpoint(1), starting(1)).await;
    assert_eq!(database.open(passes.delivery).await.expect("a row").state, "sending");
    // A delivery queued nevertheless joins the backlog.
    database.queue(endpoint(1), 1).await;
    assert_eq!((database.count("endpoint_backlogs").await, database.queued_without_backlog().await), (1, 0));
    database.store.mark_ending(ONE, &[endpoint(1)], false).await.expect("a commit");
    let blocked = database.persist_one(endpoint(1), starting(1)).await;
    assert_eq!(database.open(blocked.delivery).await.expect("a row").state, "queued");
}

#[tokio::test]
async fn a_takeover_ends_the_marking() {
    let database = Database::new().await;
    database.queue(endpoint(1), 1).await;
    database.store.mark_ending(ONE, &[endpoint(1)], true).await.expect("a commit");
    database.store.release_all_backlogs(ONE).await.expect("a commit");
    assert_eq!(database.store.take_backlogs(TWO, 1).await.expect("a commit").len(), 1);
    let blocked = database.persist_one(endpoint(1), starting(1)).await;
    assert_eq!(database.open(blocked.delivery).await.expect("a row").state, "queued");
}

/// Persists that hold a backlog without a break do not prevent a takeover.
#[tokio::test]
async fn a_takeover_passes_the_locks_of_persists() {
    let database = Database::new().await;
    database.queue(endpoint(1), 1).await;
    let by_hand = database.connect().await;
    by_hand.batch_execute(&format!("BEGIN; {LOCK}; {ROW}")).await.expect("a transaction");
    database.store.release_all_backlogs(ONE).await.expect("a commit");
    assert_eq!(database.store.take_backlogs(TWO, 1).await.expect("a commit").len(), 1);
    by_hand.batch_execute("COMMIT").await.expect("a commit");
    assert_eq!(database.owner(endpoint(1)).await, Some(Some(TWO)));
}

#[tokio::test]
async fn a_takeover_skips_locked_backlogs() {
    let database = Database::new().await;
    database.queue(endpoint(1), 1).await;
    database.queue(endpoint(2), 1).await;
    database.store.release_all_backlogs(ONE).await.expect("a commit");
    let by_hand = database.connect().await;
    by_hand.batch_execute("BEGIN; UPDATE endpoint_backlogs SET failures = 1 WHERE endpoint_id = '00000000-0000-0000-0000-000000000001'").await.expect("a lock");
    let taken = database.store.take_backlogs(TWO, 9).await.expect("a commit");
    assert_eq!(taken.iter().map(|backlog| backlog.endpoint).collect::<Vec<_>>(), [endpoint(2)]);
    by_hand.batch_execute("COMMIT").await.expect("a commit");
}

#[tokio::test]
async fn a_rest_is_noted_for_the_next_owner_and_the_api() {
    let database = Database::new().await;
    database.queue(endpoint(1), 1).await;
    let probed = |rest| [Probed { endpoint: endpoint(1), failures: 1, next_in: None, rest }];
    let shown = async || {
        let row = database.store.backlog(endpoint(1), 10).await.expect("a look").expect("a backlog");
        (row.reason, row.rests_until.is_some())
    };
    database.store.note_probes(ONE, &probed(Some(Duration::from_secs(30)))).await.expect("a commit");
    assert_eq!(shown().await, ("retry_after".to_owned(), true));
    database.store.release_all_backlogs(ONE).await.expect("a commit");
    let taken = database.store.take_backlogs(TWO, 1).await.expect("a commit");
    assert_eq!((taken[0].rests_until.is_some(), taken[0].next_probe), (true, None));
    database.store.note_probes(TWO, &probed(None)).await.expect("a commit");
    assert_eq!(shown().await, ("backlog".to_owned(), false));
}

#[tokio::test]
async fn a_breaker_is_noted_for_the_next_owner() {
    let database = Database::new().await;
    database.queue(endpoint(1), 1).await;
    let probed = |next_in| [Probed { endpoint: endpoint(1), failures: 7, next_in, rest: None }];
    database.store.note_probes(TWO, &probed(None)).await.expect("a look");
    assert_eq!(database.store.owned_backlogs(ONE).await.expect("a look")[0].failures, 0);
    database.store.note_probes(ONE, &probed(Some(Duration::from_secs(30)))).await.expect("a commit");
    database.store.release_all_backlogs(ONE).await.expect("a commit");
    let taken = database.store.take_backlogs(TWO, 1).await.expect("a commit");
    assert_eq!((taken[0].failures, taken[0].next_probe.is_some()), (7, true));
    database.store.note_probes(TWO, &probed(None)).await.expect("a commit");
    assert!(database.store.owned_backlogs(TWO).await.expect("a look")[0].next_probe.is_none());
}

#[tokio::test]
async fn a_backlog_that_was_resumed_is_looked_at_soon() {
    let database = Database::new().await;
    for (number, resumed) in [(1, "5 s"), (2, "20 s")] {
        database.queue(endpoint(number), 1).await;
        let statement =
            format!("UPDATE endpoint_backlogs SET resumed_at = now() - interval '{resumed}' WHERE endpoint_id = $1");
        database.rows(&statement, &[&endpoint(number).0]).await;
    }
    // The process has not noticed the resumption yet.
    let released = [1, 2].map(|number| ReleasedBacklog {
        endpoint: endpoint(number),
        look_in: Duration::from_secs(300),
        reason: Some(QueueReason::Paused),
    });
    database.store.release_backlogs(ONE, &released).await.expect("a commit");
    let soon = "endpoint_backlogs WHERE next_look <= now() + interval '1 s'";
    assert_eq!((database.count(soon).await, database.count("endpoint_backlogs").await), (1, 2));
}

/// Concurrent releases, probes and leases of the same backlogs take locks in the same order.
#[tokio::test]
async fn statements_of_the_same_owner_do_not_deadlock() {
    let database = Database::new().await;
    let numbers: Vec<u128> = (1..=20).collect();
    for &number in &numbers {
        database.queue(endpoint(number), 3).await;
    }
    let probed: Vec<Probed> =
        numbers.iter().map(|&n| Probed { endpoint: endpoint(n), failures: 1, next_in: None, rest: None }).collect();
    let demands: Vec<_> = numbers.iter().rev().map(|&n| crate::database::lease_of(endpoint(n), 1)).collect();
    let (notes, leases, others) = (database.another_store(), database.another_store(), database.another_store());
    let noting = tokio::spawn(async move {
        for _ in 0..50 {
            notes.note_probes(ONE, &probed).await.expect("no deadlock");
        }
    });
    let leasing = tokio::spawn(async move {
        for lease in 0..50 {
            leases.lease(ONE, crate::database::lease_id(lease), &demands).await.expect("no deadlock");
        }
    });
    let releasing = tokio::spawn(async move {
        for _ in 0..50 {
            others.release_all_backlogs(ONE).await.expect("no deadlock");
            others.take_backlogs(ONE, 100).await.expect("no deadlock");
        }
    });
    for task in [noting, leasing, releasing] {
        task.await.expect("a task");
    }
}
