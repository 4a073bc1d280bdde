//! Upgrades: this release continues the work of the previous release, and works on the schema of the next release.

use fanfare_tests::{
    receiver::{Behaviour, signature::is_signed},
    world::{Setup, World, dialects::Waits, process::fanfare, release::Release},
};
use serde_json::json;

/// Columns as a next release may add them, and its entry in the list of migrations.
const NEXT_SCHEMA: &str = "
ALTER TABLE open_deliveries ADD COLUMN of_the_next text;
ALTER TABLE deliveries ADD COLUMN of_the_next text;
ALTER TABLE events ADD COLUMN of_the_next bigint DEFAULT 7;
ALTER TABLE endpoint_backlogs ADD COLUMN of_the_next boolean NOT NULL DEFAULT false;
INSERT INTO refinery_schema_history (version, name, applied_on, checksum)
VALUES (1000, 'of_the_next', '2026-06-18T12:00:00Z', '1')";

#[tokio::test]
async fn the_previous_release_is_upgraded_with_its_open_deliveries() {
    let setup = Setup { waits: Waits::of(&["1s"; 30].join(",")), release: Release::previous(), ..Setup::new(&[]) };
    let mut world = World::of(setup).await;
    let endpoint = world.endpoint("a", &["*"]).await;
    world.receiver.script("a", &[Behaviour::FAIL, Behaviour::OK]);
    let dispatcher = world.dispatcher().await;
    let waiting = world.publish(&json!({ "type": "a", "data": 1 })).await;
    world.receiver.wait_for("a", 1).await;
    dispatcher.terminate();
    assert_eq!(dispatcher.ended().await, 0);
    let unconsumed = world.publish(&json!({ "type": "a", "data": 2 })).await;
    drop(world.take_ingest());

    world.release = Release::present();
    let plan = || fanfare(&world.variables, &["migrate", "--plan"]);
    let planned = plan();
    assert_eq!(plan(), planned, "a plan changes nothing");
    let names: Vec<&str> = planned.lines().filter_map(|line| Some(line.split_once(": ")?.0)).collect();
    assert_eq!(
        names,
        [
            "V2__tracestate",
            "V3__trace_context",
            "V4__archived_days",
            "V5__sessions",
            "V6__rollups",
            "V7__search",
            "V8__parked_sizes",
            "V9__versions",
            "V10__feeds",
            "V11__schemas",
            "V12__order",
            "V13__filters",
            "V14__delayed_events",
            "V15__templates",
            "V16__digests",
            "V17__rests",
            "V18__signing_keys",
            "V19__operational_events",
            "V20__plans",
            "V21__authentication"
        ]
    );
    assert!(planned.lines().all(|line| line.contains("Locks: ")), "{planned}");
    let migrated = fanfare(&world.variables, &["migrate"]);
    assert_eq!(
        migrated.lines().filter(|line| line.starts_with("applied ")).collect::<Vec<_>>(),
        names.iter().map(|name| format!("applied {name}")).collect::<Vec<_>>()
    );
    assert_eq!(fanfare(&world.variables, &["migrate"]), "the schema is up to date");
    world.start_ingest().await;
    let _dispatcher = world.dispatcher().await;
    let new = world.publish(&json!({ "type": "a", "data": 3 })).await;
    for event in [waiting, unconsumed, new] {
        world.wait_for_deliveries(&format!("event={event}&state=delivered"), 1).await;
    }
    assert!(world.receiver.received("a").iter().all(|request| is_signed(request, &endpoint.secret)));
}

/// An operator who returns to this release finds the schema of the next release.
#[tokio::test]
async fn this_release_works_on_the_schema_of_the_next_release() {
    let mut world = World::new().await;
    drop(world.take_ingest());
    world.database().await.batch_execute(NEXT_SCHEMA).await.expect("the schema of the next release");
    assert_eq!(fanfare(&world.variables, &["migrate"]), "the schema is up to date");

    world.start_ingest().await;
    let _dispatcher = world.dispatcher().await;
    world.endpoint("a", &["*"]).await;
    world.receiver.script("a", &[Behaviour::FAIL, Behaviour::OK]);
    let event = world.publish(&json!({ "type": "a", "data": 1 })).await;
    world.wait_for_deliveries(&format!("event={event}&state=delivered"), 1).await;
}
