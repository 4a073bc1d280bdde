//! The outbox table of a publisher.

use fanfare_domain::event::outbox::OutboxRow;
use fanfare_store::{DeferredRows, Outbox};

use crate::database::Database;

const TABLE: &str = include_str!("../../../../proto/outbox.sql");
const APPLICATION: &str = "app_01h455vb4pex5vsknk084sn02q";

async fn with_outbox() -> (Database, Outbox) {
    let database = Database::fresh().await;
    database.run(TABLE).await;
    let outbox = database.outbox("fanfare_outbox", false);
    (database, outbox)
}

/// Inserts a row for each ordering key, of `bytes` random bytes.
async fn insert(database: &Database, keys: &[Option<&str>], bytes: i32) {
    for key in keys {
        let row = "INSERT INTO fanfare_outbox (application, type, data, ordering_key)
                   SELECT $1, 'a', to_json(string_agg(md5(random()::text), '')), $2 FROM generate_series(0, $3 / 32)";
        database.rows(row, &[&APPLICATION, key, &bytes]).await;
    }
}

async fn next(outbox: &Outbox, limit: usize, deferred: &DeferredRows) -> Vec<i64> {
    positions(&outbox.next(limit, deferred).await.expect("a look"))
}

fn positions(rows: &[OutboxRow]) -> Vec<i64> {
    rows.iter().map(|row| row.position).collect()
}

#[tokio::test]
async fn rows_come_in_order_without_deferred_refused_and_published_rows() {
    let (database, outbox) = with_outbox().await;
    insert(&database, &[Some("a"), None, Some("b"), Some("a"), None], 10).await;
    let none = DeferredRows::default();
    assert_eq!(next(&outbox, 10, &none).await, [1, 2, 3, 4, 5]);
    assert_eq!(next(&outbox, 2, &none).await, [1, 2]);
    let deferred = DeferredRows {
        positions: vec![1, 2],
        applications: vec![APPLICATION.to_owned(), "another".to_owned()],
        ordering_keys: vec!["a".to_owned(), "b".to_owned()],
    };
    assert_eq!(next(&outbox, 10, &deferred).await, [3, 5], "4 waits for 1");
    assert_eq!(outbox.at(4).await.expect("a look").map(|row| row.position), Some(4));
    outbox.refuse(3, "a reason").await.expect("a commit");
    outbox.published(&[1, 5]).await.expect("a commit");
    assert_eq!(next(&outbox, 10, &none).await, [2, 4]);
    assert!(outbox.at(3).await.expect("a look").is_none() && outbox.at(5).await.expect("a look").is_none());
    assert_eq!(database.count("fanfare_outbox").await, 3);
    database.outbox("public.fanfare_outbox", true).published(&[2]).await.expect("a commit");
    assert_eq!((next(&outbox, 10, &none).await, database.count("fanfare_outbox").await), (vec![4], 3));
}

#[tokio::test]
async fn large_rows_come_in_portions() {
    let (database, outbox) = with_outbox().await;
    insert(&database, &[None; 8], 3 * 1024 * 1024 / 2).await;
    // Stored in less than their length: the text has hexadecimal digits only.
    let some = next(&outbox, 10, &DeferredRows::default()).await;
    assert!(!some.is_empty() && some.len() < 8, "{some:?}");
}

/// A publisher may have made the table in another way.
#[tokio::test]
async fn other_types_and_times_are_read() {
    let (database, outbox) = with_outbox().await;
    let change = "ALTER TABLE fanfare_outbox DROP CONSTRAINT fanfare_outbox_time_check, ALTER data TYPE jsonb,
                  ALTER application TYPE varchar(40), DROP CONSTRAINT fanfare_outbox_id_check, ALTER id DROP DEFAULT,
                  ALTER id TYPE uuid USING id::uuid";
    database.run(change).await;
    let row = "INSERT INTO fanfare_outbox (application, type, id, data, time) VALUES ($1, 'a', gen_random_uuid(), '1', $2::text::timestamptz)";
    for time in ["infinity", "2026-06-18T12:00:00.5+02", "20000-01-01Z"] {
        database.rows(row, &[&APPLICATION, &time]).await;
    }
    let times: Vec<_> =
        outbox.next(10, &DeferredRows::default()).await.expect("a look").into_iter().map(|row| row.time).collect();
    let expected = [None, Some("2026-06-18T10:00:00.500000Z"), Some("20000-01-01T00:00:00.000000Z")];
    assert_eq!(times, expected.map(|time| time.map(str::to_owned)));
    assert!(outbox.age().await.expect("a look").as_secs() < 60);
}

#[tokio::test]
async fn one_relay_of_a_table_is_active() {
    let (database, outbox) = with_outbox().await;
    let first = outbox.try_lock().await.expect("a look").expect("the lock");
    assert!(first.is_held());
    let other = database.outbox("public.fanfare_outbox", true);
    assert!(other.try_lock().await.expect("a look").is_none(), "the same table by another name");
    database.run("CREATE TABLE another (LIKE fanfare_outbox)").await;
    assert!(database.outbox("another", false).try_lock().await.expect("a look").is_some());
    first.unlock().await;
    assert!(other.try_lock().await.expect("a look").is_some());
    assert!(outbox.missing_rights().await.expect("a look").is_empty());
    assert!(database.outbox("no_table", false).try_lock().await.is_err());
}
