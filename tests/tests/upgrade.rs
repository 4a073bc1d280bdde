//! `fanfare migrate` on a database that is in use: what the release before has left goes on, and nobody who reads or
//! writes meanwhile waits for the migration.

use fanfare_tests::{
    patience::until,
    process::{Variables, fanfare},
    receiver::Behaviour,
    signature::is_signed,
    world::World,
};
use serde_json::json;
use tokio::task::JoinHandle;
use tokio_postgres::Client;

/// The first release's schema.
const FIRST: &str = include_str!("../../crates/store/migrations/V1__initial.sql");

/// Makes a database what it was in the first release, with all that this one has room for.
const GO_BACK: &str = "
CREATE TABLE refinery_schema_history (LIKE newest.refinery_schema_history INCLUDING ALL);
DO $$
DECLARE
    one record;
    columns text;
BEGIN
    FOR one IN SELECT c.relname AS child, p.relname AS parent, pg_get_expr(c.relpartbound, c.oid) AS bound
               FROM pg_inherits i JOIN pg_class c ON c.oid = i.inhrelid JOIN pg_class p ON p.oid = i.inhparent
               WHERE c.relkind = 'r' AND c.relnamespace = 'newest'::regnamespace
    LOOP
        EXECUTE format('CREATE TABLE %I PARTITION OF %I %s', one.child, one.parent, one.bound);
    END LOOP;
    -- In the order in which they were made, so that what they refer to is there.
    FOR one IN SELECT oid, relname FROM pg_class
               WHERE relkind IN ('r', 'p') AND NOT relispartition AND relnamespace = 'public'::regnamespace ORDER BY oid
    LOOP
        SELECT string_agg(quote_ident(attname), ', ') INTO columns FROM pg_attribute
        WHERE attrelid = one.oid AND attnum > 0;
        EXECUTE format('INSERT INTO %I (%s) SELECT %s FROM newest.%I', one.relname, columns, columns, one.relname);
    END LOOP;
END $$;
DELETE FROM refinery_schema_history WHERE version > 1;
DROP SCHEMA newest CASCADE";

/// Indexes that cannot be used, and partitions that lack one which their table has.
const UNFINISHED: &str = "
SELECT (SELECT count(*) FROM pg_index x JOIN pg_class i ON i.oid = x.indexrelid
        WHERE i.relnamespace = 'public'::regnamespace AND NOT (x.indisvalid AND x.indisready))
     + (SELECT count(*) FROM pg_index x
        JOIN pg_class i ON i.oid = x.indexrelid AND i.relkind = 'I' AND i.relnamespace = 'public'::regnamespace
        JOIN pg_inherits p ON p.inhparent = x.indrelid
        WHERE NOT EXISTS (SELECT FROM pg_inherits a JOIN pg_index b ON b.indexrelid = a.inhrelid
                          WHERE a.inhparent = x.indexrelid AND b.indrelid = p.inhrelid))";

/// Two attempts of today and two of yesterday.
const ATTEMPTS: &str = "
INSERT INTO attempts (delivery_id, attempt, accepted_at, started_at, outcome)
SELECT gen_random_uuid(), 1, now() - day * interval '1 day', now(), 'answered'
FROM generate_series(0, 1) day, generate_series(1, 2)";

/// One of today, by somebody who does not wait for ever.
const ONE_MORE: &str = "
SET lock_timeout = '20s';
INSERT INTO attempts (delivery_id, attempt, accepted_at, started_at, outcome)
VALUES (gen_random_uuid(), 1, now(), now(), 'answered')";

/// An index as a migration declares it, which no partition has yet.
const DECLARE_INDEX: &str = "
DROP INDEX attempts_of_endpoint;
CREATE INDEX attempts_of_endpoint ON ONLY attempts (endpoint_id, started_at DESC)";

async fn run(database: &Client, statements: &str) {
    database.batch_execute(statements).await.unwrap_or_else(|error| panic!("{statements}: {error:?}"));
}

fn migrating(variables: &Variables) -> JoinHandle<String> {
    let variables = variables.clone();
    tokio::task::spawn_blocking(move || fanfare(&variables, &["migrate"]))
}

/// Waits until a session of this database waits with a statement that looks like this.
async fn wait_for_waiting(world: &World, statement: &str) {
    let waiting = format!(
        "SELECT count(*) FROM pg_stat_activity
         WHERE datname = current_database() AND wait_event_type = 'Lock' AND query LIKE '{statement}'"
    );
    until(&format!("{statement} to wait for a lock"), async || (world.count(&waiting).await > 0).then_some(())).await;
}

/// The partition of attempts of so many days ago, such as `p20260618`.
async fn day(world: &World, ago: u8) -> String {
    let name = format!("SELECT to_char((now() - interval '{ago} day') AT TIME ZONE 'UTC', '\"p\"YYYYMMDD')");
    world.database().await.query_one(&name, &[]).await.expect("a day").get(0)
}

#[tokio::test]
async fn the_release_before_is_upgraded_with_all_that_it_has() {
    let mut world = World::of_waits("1s,1s,1s,1s,1s,1s,1s,1s", &[]).await;
    let endpoint = world.endpoint("a", &["*"]).await;
    world.receiver.script("a", &[Behaviour::FAIL, Behaviour::OK]);
    let dispatcher = world.dispatcher().await;
    let waiting = world.publish(&json!({ "type": "a", "data": 1 })).await;
    world.receiver.wait_for("a", 1).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, 0);
    drop(world.take_ingest());
    let database = world.database().await;
    run(&database, &format!("ALTER SCHEMA public RENAME TO newest; CREATE SCHEMA public; {FIRST}; {GO_BACK}")).await;
    let is_new = "SELECT count(*) FROM pg_attribute WHERE attrelid = 'deliveries'::regclass AND attname = 'expires_at'";
    assert_eq!(world.count(is_new).await, 0);

    // Somebody who looks at the events, and does so for long: whoever comes behind the migration that waits for him
    // is not to wait as well.
    run(&database, "BEGIN; SELECT count(*) FROM events").await;
    let migrating = migrating(&world.variables);
    let queued = "SELECT count(*) FROM pg_locks WHERE relation = 'events'::regclass AND NOT granted";
    for _ in 0..2 {
        until("the migration to wait", async || (world.count(queued).await > 0).then_some(())).await;
        assert_eq!(world.count("SELECT count(*) FROM events").await, 1);
    }
    assert!(!migrating.is_finished(), "it tries again");
    run(&database, "COMMIT").await;
    assert!(migrating.await.expect("it ends").contains("V2"));
    assert_eq!(world.count(UNFINISHED).await, 0);
    assert_eq!(fanfare(&world.variables, &["migrate"]), "the schema is up to date");

    // What was accepted before is delivered, and what is published now, to the webhook of before.
    world.start_ingest().await;
    let _dispatcher = world.dispatcher().await;
    world.wait_for_deliveries(&format!("event={waiting}&state=delivered"), 1).await;
    let new = world.publish(&json!({ "type": "a", "data": 2 })).await;
    world.wait_for_deliveries(&format!("event={new}&state=delivered"), 1).await;
    assert!(world.receiver.received("a").iter().all(|one| is_signed(one, &endpoint.secret)));
}

#[tokio::test]
async fn indexes_are_built_in_each_partition_while_others_write() {
    let world = World::new().await;
    let (database, writer) = (world.database().await, world.database().await);
    run(&database, ATTEMPTS).await;
    run(&database, DECLARE_INDEX).await;
    // What a migration that was interrupted leaves: an index that cannot be used. Here, because no two may be equal.
    let day = day(&world, 1).await;
    let half = format!("CREATE UNIQUE INDEX CONCURRENTLY attempts_of_endpoint_{day} ON attempts_{day} (outcome)");
    database.batch_execute(&half).await.expect_err("two are equal");
    assert!(world.count(UNFINISHED).await > 1);

    run(&writer, &format!("BEGIN; {ONE_MORE}")).await;
    let migrating = migrating(&world.variables);
    wait_for_waiting(&world, "CREATE INDEX CONCURRENTLY%").await;
    run(&database, ONE_MORE).await;
    run(&writer, "COMMIT").await;
    migrating.await.expect("it ends");

    assert_eq!(world.count(UNFINISHED).await, 0);
    let anew = format!(
        "SELECT count(*) FROM pg_index
         WHERE indexrelid = 'attempts_of_endpoint_{day}'::regclass AND indisvalid AND NOT indisunique AND indnkeyatts = 2"
    );
    assert_eq!(world.count(&anew).await, 1, "what was half-built is built as it should be");
    assert_eq!(world.count("SELECT count(*) FROM attempts").await, 6);
}

/// A partition's index becomes one of the table's under a lock that waits for all who have looked at the partition
/// since it was begun, in however long a transaction.
#[tokio::test]
async fn nobody_waits_behind_an_index_that_waits_for_a_reader() {
    let world = World::new().await;
    let (database, writer, reader) = (world.database().await, world.database().await, world.database().await);
    run(&database, ATTEMPTS).await;
    run(&database, DECLARE_INDEX).await;
    run(&writer, &format!("BEGIN; {ONE_MORE}")).await;
    let migrating = migrating(&world.variables);
    wait_for_waiting(&world, "CREATE INDEX CONCURRENTLY%").await;
    run(&reader, "BEGIN; SELECT count(*) FROM attempts").await;
    run(&writer, "COMMIT").await;

    wait_for_waiting(&world, "ALTER INDEX%").await;
    run(&database, ONE_MORE).await;
    run(&reader, "COMMIT").await;
    migrating.await.expect("it ends");
    assert_eq!(world.count(UNFINISHED).await, 0);
}

/// Who goes back to this release finds a schema that is newer by what the next one has added.
#[tokio::test]
async fn the_schema_of_the_next_release_serves_this_one_as_well() {
    let mut world = World::new().await;
    drop(world.take_ingest());
    let database = world.database().await;
    run(
        &database,
        "ALTER TABLE deliveries ADD COLUMN of_the_next text; ALTER TABLE events ADD COLUMN of_the_next bigint DEFAULT 7;
         INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
         VALUES (1000, 'of_the_next', '2026-06-18T12:00:00Z', '1')",
    )
    .await;
    assert_eq!(fanfare(&world.variables, &["migrate"]), "the schema is up to date");

    world.start_ingest().await;
    let _dispatcher = world.dispatcher().await;
    world.endpoint("a", &["*"]).await;
    let event = world.publish(&json!({ "type": "a", "data": 1 })).await;
    world.wait_for_deliveries(&format!("event={event}&state=delivered"), 1).await;
}
