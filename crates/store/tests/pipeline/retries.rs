//! Retries that come due.

use std::time::Duration;

use fanfare_domain::ids::ProcessId;
use fanfare_store::{DueRetry, TakenRetries};

use crate::database::{Database, ONE, Sent, TWO, endpoint, lease_id};

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
    let sent = database.schedule(1).await;
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
    let sent = database.schedule(1).await;
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
    let (first, second) = (database.schedule(1).await, database.schedule(1).await);
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
    let sent = database.schedule(1).await;
    database.rows("UPDATE open_deliveries SET unknowns = 2 WHERE id = $1", &[&sent.delivery.0]).await;
    let taken = take(&database, ONE, &due(&sent, 2, LEASE)).await;
    assert_eq!((taken.leased.len(), taken.backlogs.len()), (0, 1));
    assert_eq!(database.open(sent.delivery).await.expect("a row").place(), ("queued", 2));
}

#[tokio::test]
async fn retries_of_a_batch_join_the_backlogs_of_other_processes() {
    let database = Database::new().await;
    let (first, second) = (database.schedule(1).await, database.schedule(2).await);
    database.queue(endpoint(1), 1).await;
    let mut batch = [first, second].map(|sent| due(&sent, 2, None)[0]);
    batch.sort_unstable_by_key(|retry| retry.delivery);
    let mut backlogs = take(&database, TWO, &batch).await.backlogs;
    backlogs.sort_unstable_by_key(|backlog| backlog.endpoint);
    assert_eq!(backlogs.iter().map(|backlog| backlog.owner).collect::<Vec<_>>(), [Some(ONE), Some(TWO)]);
    assert!(take(&database, TWO, &[]).await.backlogs.is_empty());
}
