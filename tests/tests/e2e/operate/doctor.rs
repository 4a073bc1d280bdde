//! `fanfare doctor`: a sound deployment passes, and faults made on purpose are named.

use std::collections::BTreeSet;

use fanfare_tests::{
    metrics::counted,
    world::{
        World,
        process::{fanfare, try_fanfare},
    },
};
use serde_json::Value;

#[tokio::test]
async fn a_sound_deployment_passes() {
    let world = World::new().await;
    world.endpoint("a", &["*"]).await;
    let _dispatcher = world.dispatcher().await;
    let printed = fanfare(&world.variables, &["doctor"]);
    assert!(printed.ends_with("checks passed.") && printed.contains("0 failures"), "{printed}");
    for text in [
        "logged in",
        "a message passes a delay",
        "primary",
        "commits ",
        "Partitions exist for",
        "Dispatchers and ingest run",
    ] {
        assert!(printed.contains(text), "{text}: {printed}");
    }
    let printed = fanfare(&world.variables, &["doctor", "--json"]);
    let areas: BTreeSet<String> = printed
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["area"].as_str().expect("an area").to_owned())
        .collect();
    assert_eq!(Vec::from_iter(areas), ["broker", "database", "operation", "outside"]);
    // The tests' database is not encrypted.
    let (_, failed) = try_fanfare(&world.variables, &["doctor", "--strict"]);
    assert!(failed.is_some_and(|failed| failed.contains("warn")));
}

#[tokio::test]
async fn faults_are_named_with_their_remedy() {
    let world = World::new().await;
    let dispatcher = world.dispatcher().await;
    // The job would make the dropped partitions anew. Its next run is ten minutes later.
    counted(&dispatcher, r#"fanfare_job_success_timestamp_seconds{task="partitions"}"#, 1).await;
    let database = world.database().await;
    let newest = "SELECT max(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'deliveries'::regclass AND
                  inhrelid::regclass::text < (SELECT max(inhrelid::regclass::text) FROM pg_inherits
                                              WHERE inhparent = 'deliveries'::regclass)";
    for _ in 0..5 {
        let newest: String = database.query_one(newest, &[]).await.expect("a partition").get(0);
        database.batch_execute(&format!("DROP TABLE {newest}")).await.expect("no partition");
    }
    let last: String = database
        .query_one(
            "SELECT max(inhrelid::regclass::text) FROM pg_inherits WHERE inhparent = 'deliveries'::regclass",
            &[],
        )
        .await
        .expect("a partition")
        .get(0);
    let break_it = format!(
        "DROP TABLE {last}; DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET synchronous_commit = off', current_database());
         END $$; UPDATE processes SET settings = '{{\"FANFARE_EXPIRY\":1}}' WHERE kind = 'ingest'"
    );
    database.batch_execute(&break_it).await.expect("faults");
    let (printed, failed) = try_fanfare(&world.variables, &["doctor"]);
    assert!(failed.is_some(), "{printed}");
    for text in ["synchronous_commit is off", "Partitions exist for 1 days", "FANFARE_EXPIRY differs"] {
        assert!(printed.contains(&format!("FAIL  {text}")), "{text}: {printed}");
    }
}

#[tokio::test]
async fn a_server_that_is_away_is_named() {
    let world = World::new().await;
    let mut variables = world.variables.clone();
    variables.insert("AMQP_URL".to_owned(), "amqp://user:hunter2@127.0.0.1:1".to_owned());
    variables.insert("DATABASE_URL".to_owned(), "postgres://user:hunter2@127.0.0.1:1/fanfare".to_owned());
    let (printed, failed) = try_fanfare(&variables, &["doctor", "--management", "http://127.0.0.1:1"]);
    assert!(failed.is_some(), "{printed}");
    for text in ["127.0.0.1:1 cannot be used", "--management", "database  FAIL"] {
        assert!(printed.contains(text), "{text}: {printed}");
    }
    assert!(!printed.contains("hunter2"));
}
