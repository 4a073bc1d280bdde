//! Migrations: the plan, and indexes built partition by partition.

use jiff::Timestamp;

use crate::database::Database;

/// An index as a migration declares it, without indexes on the partitions.
const DECLARE_INDEX: &str = "DROP INDEX attempts_of_endpoint;
                             CREATE INDEX attempts_of_endpoint ON ONLY attempts (endpoint_id, started_at DESC)";

/// Indexes that cannot be used.
const INVALID: &str = "pg_index WHERE NOT indisvalid OR NOT indisready";

#[tokio::test]
async fn a_plan_names_the_missing_indexes_and_changes_nothing() {
    let database = Database::fresh().await;
    assert_eq!(database.store.planned().await.expect("a plan"), (vec![], vec![]));
    database.connect().await.batch_execute(DECLARE_INDEX).await.expect("an index");
    for _ in 0..2 {
        let (migrations, indexes) = database.store.planned().await.expect("a plan");
        assert_eq!(migrations, []);
        assert_eq!(indexes.len(), 10, "{indexes:?}");
        assert!(indexes[0].starts_with("attempts_of_endpoint_p20"), "{indexes:?}");
        assert!(indexes[0].contains(" on attempts_p20"), "{indexes:?}");
    }
    let forget = "DELETE FROM refinery_schema_history";
    database.connect().await.batch_execute(forget).await.expect("no schema");
    let (migrations, _) = database.store.planned().await.expect("a plan");
    assert_eq!(migrations.len(), 21, "{migrations:?}");
    assert_eq!(migrations.len(), 21, "{migrations:?}");
    assert_eq!(migrations[0].name, "V1__schema");
    assert_eq!(migrations[0].purpose, "The schema of the first release. Locks: none on existing tables.");
}

#[tokio::test]
async fn an_interrupted_build_of_indexes_continues() {
    let database = Database::fresh().await;
    let by_hand = database.connect().await;
    by_hand.batch_execute(DECLARE_INDEX).await.expect("an index");
    let partition: String = by_hand
        .query_one("SELECT min(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'attempts'::regclass", &[])
        .await
        .expect("a partition")
        .get(0);
    let day = partition.trim_start_matches("attempts_");
    let half = format!(
        "CREATE INDEX attempts_of_endpoint_{day} ON {partition} (endpoint_id, started_at DESC);
         UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'attempts_of_endpoint_{day}'::regclass"
    );
    by_hand.batch_execute(&half).await.expect("an invalid index");
    assert!(database.count(INVALID).await >= 2);

    assert_eq!(database.store.build_indexes().await.expect("indexes"), Some(10));
    assert_eq!(database.count(INVALID).await, 0);
    assert_eq!(database.store.build_indexes().await.expect("indexes"), Some(0));
    assert_eq!(database.store.migrate(Timestamp::now()).await.expect("the schema"), Vec::<String>::new());
}

/// Returns to the schema before V7, as far as the later migrations do not replace it.
const BEFORE_V7: &str = "
DELETE FROM refinery_schema_history WHERE version >= 7;
ALTER TABLE parked DROP COLUMN bytes;
ALTER TABLE endpoint_backlogs DROP COLUMN rests_until;
DROP INDEX endpoints_with_reason;
DROP TABLE feed_entries, delivery_sequences, ordering_keys, delayed_events, digests, delivery_bodies, endpoint_tokens;
ALTER TABLE events DROP COLUMN ordering_key, DROP COLUMN deliver_at, DROP COLUMN cancelled_at,
    DROP COLUMN cancelled_by;
ALTER TABLE endpoints DROP COLUMN version, DROP COLUMN feed, DROP COLUMN expires_at,
    DROP COLUMN filter, DROP COLUMN fifo, DROP COLUMN digest_from,
    DROP COLUMN template, DROP COLUMN had_template, DROP COLUMN signed_by_keys, DROP COLUMN authentication,
    DROP COLUMN authentication_key_name, DROP COLUMN authentication_ciphertext,
    DROP COLUMN authentication_version, DROP COLUMN certificate,
    DROP COLUMN certificate_key_name, DROP COLUMN certificate_ciphertext,
    DROP COLUMN certificate_ends_at;
DROP FUNCTION clear_credentials CASCADE;
DROP TABLE signing_keys;
DROP FUNCTION raise_version_of_signing_key;
DROP TABLE ordering_signals;
DROP FUNCTION advance_keys, signal_end_in_order CASCADE;
ALTER TABLE open_deliveries DROP COLUMN ordering_key, DROP COLUMN sequence, DROP COLUMN shaped;
DROP FUNCTION note_settings_version CASCADE;
ALTER TABLE applications DROP COLUMN settings_version;
DROP TABLE event_schemas;
DROP FUNCTION raise_version_of_schema;
DROP FUNCTION note_schemas_version CASCADE;
ALTER TABLE applications DROP COLUMN schemas_version;
DROP FUNCTION announce_plans CASCADE;
ALTER TABLE applications DROP COLUMN plan, DROP COLUMN events_per_day, DROP COLUMN stored_bytes,
    DROP COLUMN max_webhooks, DROP COLUMN labels;
ALTER TABLE rollups DROP COLUMN bytes;
ALTER TABLE rollups_hourly DROP COLUMN bytes;
ALTER TABLE rollup_marks DROP COLUMN settled, DROP COLUMN lagged;
DROP TABLE plans, plan_version, usage_days;
DROP TABLE key_version;
DROP TABLE operational_states, operational_marks, condition_notices;
DROP FUNCTION note_status_since CASCADE;
ALTER TABLE endpoints DROP COLUMN status_since;
DROP INDEX deliveries_given_up, replays_finished;
DROP INDEX parked_by_message_id, parked_by_reason, parked_by_routing_key, open_scheduled";

/// The migration locks `parked`, then `open_deliveries`; the writer locks them in the other order. The migration looks
/// for a deadlock first, so that PostgreSQL ends the migration's transaction.
#[tokio::test]
async fn a_migration_tries_again_after_a_deadlock() {
    let database = Database::fresh().await;
    database.run(BEFORE_V7).await;
    let writer = database.connect().await;
    let lock = "SET deadlock_timeout = '20s'; BEGIN; LOCK TABLE open_deliveries IN ROW EXCLUSIVE MODE";
    writer.batch_execute(lock).await.expect("a lock");
    let migrating = tokio::spawn({
        let store = database.another_store();
        async move { store.migrate(Timestamp::now()).await }
    });
    database.await_waiting_statement("%CREATE INDEX%").await;
    writer.batch_execute("LOCK TABLE parked IN ROW EXCLUSIVE MODE; COMMIT").await.expect("a lock");
    let applied = migrating.await.expect("a migration").expect("the schema");
    assert_eq!((applied[0].as_str(), applied.len()), ("V7__search", 15), "{applied:?}");
}

/// Two attempts of today, so that an index has rows.
const ATTEMPTS: &str = "
INSERT INTO attempts (delivery_id, attempt, event_id, application_id, endpoint_id, started_at, outcome)
SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || substr(md5(n::text), 13))::uuid, 1,
       gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now(), 'answered'
FROM generate_series(1, 2) n";

/// The attachment of an index needs a lock that waits for each open transaction of the partition, however long.
#[tokio::test]
async fn writes_do_not_wait_for_an_index_that_waits_for_others() {
    let database = Database::fresh().await;
    database.run(ATTEMPTS).await;
    database.run(DECLARE_INDEX).await;
    let (writer, reader) = (database.connect().await, database.connect().await);
    let write =
        format!("SET lock_timeout = '20s'; {}", ATTEMPTS.replace("md5(n::text)", "md5(gen_random_uuid()::text)"));
    writer.batch_execute(&format!("BEGIN; {write}")).await.expect("an open transaction");
    let building = tokio::spawn({
        let store = database.another_store();
        async move { store.build_indexes().await }
    });
    database.await_waiting_statement("CREATE INDEX CONCURRENTLY%").await;
    database.run(&write).await;

    reader.batch_execute("BEGIN; SELECT count(*) FROM attempts").await.expect("an open transaction");
    writer.batch_execute("COMMIT").await.expect("a commit");
    database.await_waiting_statement("ALTER INDEX%").await;
    database.run(&write).await;
    reader.batch_execute("COMMIT").await.expect("a commit");
    assert_eq!(building.await.expect("a build").expect("indexes"), Some(10));
    assert_eq!(database.count(INVALID).await, 0);
}
