//! Numbers for operators.

use fanfare_store::Census;

use crate::database::{Database, endpoint};

#[tokio::test]
async fn counts_what_operators_ask_for() {
    let database = Database::fresh().await;
    let before = database.store.census().await.expect("a census");
    let empty = Census {
        held: 0,
        parked: 0,
        notices: 0,
        delayed: 0,
        overdue: 0,
        parked_keys: 0,
        overdue_signals: 0,
        replays: 0,
        endpoints: [20, 0, 0],
        partitions_ahead: 7,
        days_to_archive: 0,
    };
    assert_eq!(before, empty);
    database.queue(endpoint(1), 3).await;
    database.run("UPDATE endpoints SET status = 'paused' WHERE id = '00000000-0000-0000-0000-000000000001'").await;
    database.run("UPDATE endpoints SET deleted_at = now() WHERE id = '00000000-0000-0000-0000-000000000002'").await;
    database
        .run(
            "INSERT INTO delayed_events (event_id, application_id, accepted_at, due_at)
             SELECT gen_random_uuid(), gen_random_uuid(), now(), now() + n * interval '50 s' FROM generate_series(-3, 4) n",
        )
        .await;
    let newest = "SELECT max(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'attempts'::regclass";
    let newest: String = database.rows(newest, &[]).await[0].get(0);
    database.run(&format!("DROP TABLE {newest}")).await;
    let after = database.store.census().await.expect("a census");
    assert_eq!(after, Census { held: 3, delayed: 6, overdue: 2, endpoints: [18, 1, 0], partitions_ahead: 6, ..empty });
}

#[tokio::test]
async fn storage_is_summed_over_partitions() {
    let database = Database::fresh().await;
    let storage = database.store.storage().await.expect("bytes");
    let bytes = |table: &str| storage.iter().find(|(name, _)| name == table).map(|(_, bytes)| *bytes);
    // Each of ten partitions has an empty index for each index of the table, of a page or more.
    assert!(bytes("deliveries").is_some_and(|bytes| bytes >= 10 * 4 * 8192), "{storage:?}");
    assert!(bytes("applications").is_some() && storage.iter().all(|(name, _)| !name.contains("_p20")), "{storage:?}");
}
