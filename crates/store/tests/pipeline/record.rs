//! Records of attempts.

use std::time::Duration;

use fanfare_domain::delivery::{QueueReason, outcome::Outcome};
use fanfare_store::{AttemptRecord, GiveBack, INLINE_WITHIN};

use crate::database::{
    APPLICATION, Database, Finished, ONE, Sent, delivered, endpoint, failed, lease_id, scheduled, starting,
};

async fn store(database: &Database, records: &[AttemptRecord]) -> usize {
    let mut batch: Vec<&AttemptRecord> = records.iter().collect();
    batch.sort_unstable_by_key(|record| record.delivery);
    database.store.record(&batch).await.expect("a commit").len()
}

fn success(attempt: i32, failures: i32, inline: bool) -> Finished {
    let status = inline.then_some(204);
    Finished { state: "delivered".to_owned(), reason: None, attempt, failures, inline, status }
}

/// Recovers a delivery: its attempt becomes `unknown`, and the next attempt is leased under `lease`.
async fn take_over(database: &Database, sent: &Sent, lease: u128) {
    database
        .rows("UPDATE open_deliveries SET lease_until = now() - interval '1 s' WHERE id = $1", &[&sent.delivery.0])
        .await;
    let recovered = database.store.recover_leases(ONE, None, 10).await.expect("a commit");
    assert_eq!(recovered.queued, 1);
    assert_eq!(database.drain(lease, sent.endpoint, 1).await.len(), 1);
}

#[tokio::test]
async fn a_prompt_success_stands_in_its_delivery() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    let record = [delivered(&sent, 1, 1)];
    for moved in [1, 0, 0] {
        assert_eq!(store(&database, &record).await, moved, "a repetition changes nothing");
        assert_eq!(database.open(sent.delivery).await, None);
        assert_eq!(database.finished(sent.delivery).await, Some(success(1, 0, true)));
        assert!(database.attempts(sent.delivery).await.is_empty());
    }
}

#[tokio::test]
async fn a_late_first_success_has_a_row_of_its_own() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    let (prompt, late) = (INLINE_WITHIN, INLINE_WITHIN + Duration::from_millis(1));
    let at = |age| AttemptRecord { started_at: sent.delivery.accepted_at() + age, ..delivered(&sent, 1, 1) };
    for moved in [1, 0] {
        assert_eq!(store(&database, &[at(late)]).await, moved);
        assert_eq!(database.finished(sent.delivery).await, Some(success(1, 0, false)));
        assert_eq!(database.attempts(sent.delivery).await, [(1, "answered".to_owned(), Some(204))]);
    }
    let other = database.persist_one(endpoint(1), starting(1)).await;
    let record = AttemptRecord { started_at: other.delivery.accepted_at() + prompt, ..delivered(&other, 1, 1) };
    store(&database, &[record]).await;
    assert_eq!(database.finished(other.delivery).await, Some(success(1, 0, true)), "ten seconds are prompt still");
}

#[tokio::test]
async fn a_failure_ends_a_delivery_or_schedules_it() {
    let database = Database::new().await;
    let (first, second) =
        (database.persist_one(endpoint(1), starting(1)).await, database.persist_one(endpoint(2), starting(1)).await);
    let records = [failed(&first, 1, 1), scheduled(&second, 1, 1)];
    let mut rows = Vec::new();
    for moved in [2, 0, 0] {
        assert_eq!(store(&database, &records).await, moved);
        let ended = database.finished(first.delivery).await.expect("a finished row");
        assert_eq!((ended.state.as_str(), ended.reason.as_deref()), ("failed", Some("attempts_exhausted")));
        assert_eq!((ended.attempt, ended.failures, ended.inline), (1, 1, false));
        let waits = database.open(second.delivery).await.expect("an open row");
        assert_eq!((waits.place(), waits.failures, waits.listed, waits.lease), (("scheduled", 2), 1, true, None));
        assert_eq!(waits.due_at, records[1].next_due());
        assert_eq!(database.attempts(second.delivery).await, [(1, "answered".to_owned(), Some(500))]);
        assert_eq!(database.count("failure_notices").await, 1);
        rows.push((ended, waits));
    }
    assert!(rows.iter().all(|row| *row == rows[0]));
}

trait NextDue {
    fn next_due(&self) -> Option<jiff::Timestamp>;
}

impl NextDue for AttemptRecord {
    fn next_due(&self) -> Option<jiff::Timestamp> {
        match self.next {
            fanfare_store::NextState::Scheduled { due } => Some(due),
            _ => None,
        }
    }
}

#[tokio::test]
async fn no_notice_is_written_unless_the_owner_wants_notices() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    store(&database, &[AttemptRecord { notifies_owner: false, ..failed(&sent, 1, 1) }]).await;
    assert_eq!((database.count("failure_notices").await, database.count("deliveries").await), (0, 1));
}

#[tokio::test]
async fn a_failure_under_another_lease_or_attempt_changes_no_state() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    let before = database.open(sent.delivery).await;
    for record in [failed(&sent, 1, 2), scheduled(&sent, 1, 2), failed(&sent, 2, 1), scheduled(&sent, 2, 1)] {
        assert_eq!(store(&database, &[record]).await, 0);
        assert_eq!(database.open(sent.delivery).await, before);
    }
    // The rows of the attempts exist nevertheless.
    assert_eq!(database.attempts(sent.delivery).await.len(), 2);
}

#[tokio::test]
async fn a_late_failure_completes_the_row_of_its_attempt() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    take_over(&database, &sent, 2).await;
    assert_eq!(database.attempts(sent.delivery).await, [(1, "unknown".to_owned(), None)]);
    let before = database.open(sent.delivery).await.expect("an open row");
    assert_eq!((before.place(), before.unknowns), (("sending", 2), 1));
    assert_eq!(store(&database, &[scheduled(&sent, 1, 1)]).await, 0);
    assert_eq!(database.attempts(sent.delivery).await, [(1, "answered".to_owned(), Some(500))]);
    assert_eq!(database.open(sent.delivery).await, Some(before), "the second attempt continues");
    assert_eq!(store(&database, &[scheduled(&sent, 2, 2)]).await, 1);
    let row = database.open(sent.delivery).await.expect("an open row");
    assert_eq!((row.place(), row.unknowns, row.failures), (("scheduled", 3), 0, 1));
}

#[tokio::test]
async fn a_late_success_ends_a_delivery_leased_by_another_process() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    take_over(&database, &sent, 2).await;
    for moved in [1, 0] {
        assert_eq!(store(&database, &[delivered(&sent, 1, 1)]).await, moved);
        assert_eq!(database.open(sent.delivery).await, None);
        assert_eq!(database.finished(sent.delivery).await, Some(success(2, 0, false)), "attempt 2 was begun");
        assert_eq!(database.attempts(sent.delivery).await, [(1, "answered".to_owned(), Some(204))]);
    }
    // A later record of the other process writes only its attempt's row.
    for record in [scheduled(&sent, 2, 2), failed(&sent, 2, 2), delivered(&sent, 2, 2)] {
        assert_eq!(store(&database, &[record]).await, 0);
        assert_eq!(database.finished(sent.delivery).await, Some(success(2, 0, false)));
    }
    assert_eq!(database.attempts(sent.delivery).await[1], (2, "answered".to_owned(), Some(500)));
    assert_eq!(database.count("failure_notices").await, 0);
}

#[tokio::test]
async fn a_late_success_ends_a_scheduled_delivery() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    store(&database, &[scheduled(&sent, 1, 1)]).await;
    // A success under another lease, although the attempt's row already records a failure.
    assert_eq!(store(&database, &[delivered(&sent, 1, 7)]).await, 1);
    assert_eq!(database.finished(sent.delivery).await, Some(success(1, 1, false)), "attempt 2 was not made");
}

#[tokio::test]
async fn a_late_success_ends_a_failed_delivery_as_delivered() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    take_over(&database, &sent, 2).await;
    assert_eq!(store(&database, &[failed(&sent, 2, 2)]).await, 1);
    for _ in 0..2 {
        assert_eq!(store(&database, &[delivered(&sent, 1, 1)]).await, 0);
        assert_eq!(database.finished(sent.delivery).await, Some(success(2, 1, false)));
        let rows = [(1, "answered".to_owned(), Some(204)), (2, "answered".to_owned(), Some(500))];
        assert_eq!(database.attempts(sent.delivery).await, rows);
    }
}

/// Concurrent records of attempt 2's failure and attempt 1's late success, the failure first.
#[tokio::test]
async fn a_success_wins_beside_a_failure_that_is_not_committed() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    take_over(&database, &sent, 2).await;
    let by_hand = database.connect().await;
    by_hand.batch_execute("BEGIN").await.expect("a transaction");
    let fail = "WITH gone AS (DELETE FROM open_deliveries WHERE id = $1 RETURNING *)
                INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, reason, attempt, failures)
                SELECT application_id, id, event_id, endpoint_id, 'failed', 'attempts_exhausted', 2, 1 FROM gone";
    by_hand.execute(fail, &[&sent.delivery.0]).await.expect("an end");
    let (store, late) = (database.store.clone(), delivered(&sent, 1, 1));
    let waiting = tokio::spawn(async move { store.record(&[&late]).await });
    database.await_waiting(1).await;
    by_hand.batch_execute("COMMIT").await.expect("a commit");
    waiting.await.expect("a task").expect("a commit");
    assert_eq!(database.finished(sent.delivery).await, Some(success(2, 1, false)));
    assert_eq!(database.attempts(sent.delivery).await, [(1, "answered".to_owned(), Some(204))]);
}

/// A concurrent retry and late success, the retry first.
#[tokio::test]
async fn a_success_wins_beside_a_retry_that_is_not_committed() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    take_over(&database, &sent, 2).await;
    let by_hand = database.connect().await;
    by_hand.batch_execute("BEGIN").await.expect("a transaction");
    let schedule =
        "UPDATE open_deliveries SET state = 'scheduled', attempt = 3, failures = 1, lease_id = NULL WHERE id = $1";
    by_hand.execute(schedule, &[&sent.delivery.0]).await.expect("a retry");
    let (store, late) = (database.store.clone(), delivered(&sent, 1, 1));
    let waiting = tokio::spawn(async move { store.record(&[&late]).await });
    database.await_waiting(1).await;
    by_hand.batch_execute("COMMIT").await.expect("a commit");
    assert_eq!(waiting.await.expect("a task").expect("a commit").len(), 1);
    assert_eq!(database.finished(sent.delivery).await, Some(success(2, 1, false)));
    assert_eq!(database.open(sent.delivery).await, None);
}

#[tokio::test]
async fn a_delivery_that_was_given_back_keeps_its_number() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    let back = [GiveBack { delivery: sent.delivery, lease: lease_id(1), reason: QueueReason::ShuttingDown }];
    database.store.give_back(ONE, &back).await.expect("a commit");
    assert_eq!(database.drain(2, endpoint(1), 1).await[0].attempt, 1);
    assert_eq!(store(&database, &[delivered(&sent, 1, 2)]).await, 1);
    assert_eq!(database.finished(sent.delivery).await, Some(success(1, 0, true)));
}

#[tokio::test]
async fn an_attempt_without_an_answer_is_recorded() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    let silent =
        AttemptRecord { outcome: Outcome::TimedOut, error: Some("no answer".to_owned()), ..scheduled(&sent, 1, 1) };
    assert_eq!(store(&database, &[silent]).await, 1);
    assert_eq!(database.attempts(sent.delivery).await, [(1, "timed_out".to_owned(), None)]);
}

#[tokio::test]
async fn a_late_record_does_not_restore_an_erased_event() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    database.rows("UPDATE open_deliveries SET lease_until = now() - interval '1 s'", &[]).await;
    database.store.recover_leases(ONE, None, 10).await.expect("a commit");
    let erased = database.store.erase_event(APPLICATION, sent.event).await.expect("a commit");
    assert_eq!(erased, fanfare_store::Erasure::Done);
    // The process declared dead gets an answer nevertheless.
    store(&database, &[scheduled(&sent, 1, 1)]).await;
    assert_eq!(database.attempts(sent.delivery).await, [(1, "unknown".to_owned(), None)]);
    assert_eq!(database.count("attempts WHERE response_body IS NOT NULL OR url IS NOT NULL").await, 0);
    assert_eq!(database.finished(sent.delivery).await.and_then(|row| row.reason).as_deref(), Some("erased"));
}

#[tokio::test]
async fn a_record_without_its_partition_is_refused() {
    let database = Database::fresh().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    database
        .run(
            "DROP TABLE deliveries CASCADE; CREATE TABLE deliveries (application_id uuid, id uuid, event_id uuid,
                  endpoint_id uuid, state text, reason text, attempt integer, failures integer, finished_at timestamptz,
                  replay_id uuid, url text, started_at timestamptz, duration_ms integer, status integer,
                  response_headers text, response_body bytea) PARTITION BY RANGE (id)",
        )
        .await;
    let record = delivered(&sent, 1, 1);
    let error = database.store.record(&[&record]).await.expect_err("no partition");
    assert!(error.lacks_partition(), "{error}");
    assert!(database.open(sent.delivery).await.is_some(), "nothing of the batch was written");
    assert!(database.store.forget_dropped(sent.delivery).await.expect("a commit"));
    assert!(!database.store.forget_dropped(sent.delivery).await.expect("a look"));
}
