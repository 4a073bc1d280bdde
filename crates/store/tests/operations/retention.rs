//! Partitions, and the end of retention.

use std::time::Duration;

use fanfare_domain::delivery::QueueReason;
use fanfare_store::{Start, StoreError};

use crate::database::{Database, delivered, endpoint, keyed, moment, starting};

const DAY: u64 = 86400;

#[tokio::test]
async fn partitions_are_made_once() {
    let database = Database::fresh().await;
    let partitions = "pg_class WHERE relkind = 'r' AND relispartition";
    let before = database.count(partitions).await;
    assert_eq!(before, 83, "ten days of eight tables, and three months");
    database.store.create_partitions(moment(0)).await.expect("partitions");
    assert_eq!(database.count(partitions).await, before);
    let ahead = jiff::Timestamp::now() + Duration::from_secs(DAY);
    database.store.create_partitions(ahead).await.expect("partitions");
    assert!((before + 7..=before + 8).contains(&database.count(partitions).await));
}

#[tokio::test]
async fn many_processes_make_partitions_at_once() {
    let database = Database::fresh().await;
    let mut tasks = Vec::new();
    for _ in 0..4 {
        let store = database.another_store();
        let later = jiff::Timestamp::now() + Duration::from_secs(40 * DAY);
        tasks.push(tokio::spawn(async move { store.create_partitions(later).await }));
    }
    for task in tasks {
        task.await.expect("a task").expect("partitions");
    }
}

#[tokio::test]
async fn a_partition_is_made_beside_readers_and_writers() {
    let database = Database::fresh().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    let by_hand = database.connect().await;
    by_hand
        .batch_execute(
            "BEGIN; SELECT count(*) FROM deliveries; SELECT count(*) FROM events; SELECT count(*) FROM attempts;
                        SELECT count(*) FROM event_keys; LOCK TABLE deliveries, events, attempts IN ROW EXCLUSIVE MODE",
        )
        .await
        .expect("a dump, and a writer");
    let later = jiff::Timestamp::now() + Duration::from_secs(40 * DAY);
    database.store.create_partitions(later).await.expect("partitions without a wait for locks");
    database.store.record(&[&delivered(&sent, 1, 1)]).await.expect("a commit");
    by_hand.batch_execute("COMMIT").await.expect("an end");
}

#[tokio::test]
async fn open_deliveries_below_the_line_end() {
    let database = Database::fresh().await;
    let old = database.persist_at(moment(2 * DAY), endpoint(1), starting(1)).await;
    let queued = database.persist_at(moment(2 * DAY), endpoint(2), Start::Queued(QueueReason::LaneFull)).await;
    let new = database.persist_at(moment(0), endpoint(1), starting(1)).await;
    let line = moment(DAY);
    assert!(database.store.line().await.expect("a look").is_none());
    assert!(!database.store.has_below_line().await.expect("a look"));
    assert!(database.store.raise_line(line).await.expect("a commit"));
    assert!(!database.store.raise_line(moment(2 * DAY)).await.expect("a look"), "the line never sinks");
    let line = database.store.line().await.expect("a look").expect("a line");
    assert!(database.store.has_below_line().await.expect("a look"));
    assert_eq!(database.store.end_below_line(line).await.expect("a commit"), 2);
    for sent in [old, queued] {
        let row = database.finished(sent.delivery).await.expect("a finished row");
        assert_eq!((row.state.as_str(), row.reason.as_deref(), row.attempt), ("failed", Some("expired"), 0));
    }
    assert!(database.open(new.delivery).await.is_some());
    assert_eq!(
        (database.count("failure_notices").await, database.store.end_below_line(line).await.expect("a look")),
        (2, 0)
    );
}

#[tokio::test]
async fn tables_below_the_line_are_dropped_once_unlocked() {
    let database = Database::fresh().await;
    database.persist_at(moment(2 * DAY), endpoint(1), Start::Skipped).await;
    let new = database.persist_at(moment(0), endpoint(1), Start::Skipped).await;
    let line = moment(DAY);
    let by_hand = database.connect().await;
    by_hand.batch_execute("BEGIN; SELECT count(*) FROM deliveries").await.expect("a dump");
    let error = database.store.drop_below_line(line).await.expect_err("the dump holds the table");
    assert!(error.is_transient() && matches!(error, StoreError::Conflict(_)), "{error}");
    assert!(database.finished(new.delivery).await.is_some());
    by_hand.batch_execute("COMMIT").await.expect("an end");
    let dropped = database.store.drop_below_line(line).await.expect("a drop");
    let of = |table: &str| dropped.iter().filter(|name| name.starts_with(table)).count();
    assert_eq!((of("deliveries_p"), of("events_p")), (1, 1), "{dropped:?}");
    assert!(database.store.drop_below_line(line).await.expect("a look").is_empty());
    assert!(database.finished(new.delivery).await.is_some());
    assert_eq!(database.count("events").await, 1);
}

#[tokio::test]
async fn a_table_that_was_detached_is_dropped_later() {
    let database = Database::fresh().await;
    let line = moment(DAY);
    database.persist_at(moment(2 * DAY), endpoint(1), Start::Skipped).await;
    let statement =
        "SELECT relname::text FROM pg_class WHERE relkind = 'r' AND relname ~ '^deliveries_p[0-9]{8}$' ORDER BY 1";
    let oldest: String = database.rows(statement, &[]).await[0].get(0);
    database.run(&format!("ALTER TABLE deliveries DETACH PARTITION {oldest}")).await;
    assert!(database.store.drop_below_line(line).await.expect("a drop").contains(&oldest));
    assert_eq!(database.count(&format!("pg_class WHERE relname = '{oldest}'")).await, 0);
}

#[tokio::test]
async fn a_key_outlives_its_events() {
    let database = Database::fresh().await;
    database.store.persist(crate::database::ONE, &[&keyed("a")]).await.expect("a commit");
    let dropped = database.store.drop_below_line(moment(0)).await.expect("a drop");
    let month = jiff::Timestamp::now().to_zoned(jiff::tz::TimeZone::UTC).strftime("event_keys_p%Y%m").to_string();
    assert!(dropped.iter().all(|name| *name != month), "{dropped:?}");
    assert_eq!(database.count("event_keys").await, 1);
    let next = jiff::Timestamp::now() + Duration::from_secs(40 * DAY);
    database.run("UPDATE rollup_marks SET final = now() + interval '1 day'").await;
    let dropped = database.store.drop_below_line(next).await.expect("a drop");
    assert!(dropped.contains(&month), "{dropped:?}");
}
