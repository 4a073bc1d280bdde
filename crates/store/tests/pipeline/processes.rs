//! Running processes.

use std::time::Duration;

use fanfare_domain::ids::{EndpointId, ProcessId};
use fanfare_store::{NewProcess, ProcessKind, ProcessReport};

use crate::database::{DEAD, Database, ONE, TWO, endpoint, timed};

const LIFE: Duration = Duration::from_secs(10);

fn report(free_places: usize) -> ProcessReport {
    ProcessReport { free_places, ..ProcessReport::default() }
}

async fn register(database: &Database, id: ProcessId, kind: ProcessKind) {
    let new =
        NewProcess { id, kind, version: "1".to_owned(), settings: "{}".to_owned(), host: Some("pod-1".to_owned()) };
    database.store.register(&new, LIFE).await.expect("a commit");
}

async fn kill(database: &Database, id: ProcessId, ago: &str) {
    let statement = format!("UPDATE processes SET alive_until = now() - interval '{ago}' WHERE id = $1");
    database.rows(&statement, &[&id.0]).await;
}

#[tokio::test]
async fn a_process_sees_the_live_processes() {
    let database = Database::new().await;
    register(&database, ONE, ProcessKind::Dispatcher).await;
    register(&database, TWO, ProcessKind::Ingest).await;
    register(&database, DEAD, ProcessKind::Dispatcher).await;
    kill(&database, DEAD, "1 s").await;
    let living = database.store.renew(ONE, &report(7), LIFE).await.expect("a commit").expect("life");
    assert_eq!(
        living.iter().map(|process| (process.id, process.kind)).collect::<Vec<_>>(),
        [(ONE, ProcessKind::Dispatcher), (TWO, ProcessKind::Ingest)]
    );
    let living = database.store.renew(TWO, &report(0), LIFE).await.expect("a commit").expect("life");
    assert_eq!((living[0].free_places, living[0].settings.as_str()), (7, "{}"));
}

#[tokio::test]
async fn a_process_that_was_declared_dead_stays_dead() {
    let database = Database::new().await;
    register(&database, ONE, ProcessKind::Dispatcher).await;
    kill(&database, ONE, "1 ms").await;
    assert!(
        database.store.renew(ONE, &report(0), LIFE).await.expect("a commit").is_some(),
        "no process has declared it dead"
    );
    kill(&database, ONE, "1 ms").await;
    database.store.release_dead(10).await.expect("a commit");
    assert!(database.store.renew(ONE, &report(0), LIFE).await.expect("a look").is_none());
    assert!(
        database.store.renew(TWO, &report(0), LIFE).await.expect("a look").is_none(),
        "the process never registered"
    );
    register(&database, TWO, ProcessKind::Dispatcher).await;
    assert_eq!(
        database.store.renew(TWO, &report(0), LIFE).await.expect("a commit").map(|living| living.len()),
        Some(1)
    );
    kill(&database, ONE, "-10 s").await;
    assert_eq!(
        database.store.renew(TWO, &report(0), LIFE).await.expect("a commit").map(|living| living.len()),
        Some(1),
        "dead is dead"
    );
    database.store.unregister(TWO).await.expect("a commit");
    assert!(database.store.renew(TWO, &report(0), LIFE).await.expect("a look").is_none());
}

#[tokio::test]
async fn a_renewal_lasts_as_long_as_told() {
    let database = Database::new().await;
    register(&database, ONE, ProcessKind::Dispatcher).await;
    database.store.renew(ONE, &report(0), Duration::from_secs(100)).await.expect("a commit");
    let renewed = "processes WHERE alive_until BETWEEN now() + interval '90 s' AND now() + interval '100 s'";
    assert_eq!(database.count(renewed).await, 1);
}

#[tokio::test]
async fn backlogs_of_a_dead_process_are_released() {
    let database = Database::new().await;
    register(&database, ONE, ProcessKind::Dispatcher).await;
    register(&database, DEAD, ProcessKind::Dispatcher).await;
    database.queue(endpoint(1), 1).await;
    for number in 2..=4 {
        database.queue(endpoint(number), 1).await;
    }
    let wide = fanfare_store::NewEvent { is_wide: true, ..timed() };
    database.store.persist(DEAD, &[&wide]).await.expect("a commit");
    let owned: Vec<EndpointId> = (2..=4).map(endpoint).collect();
    for endpoint in &owned {
        database
            .rows(
                "UPDATE endpoint_backlogs SET owner = $1, next_look = now() + interval '1 h' WHERE endpoint_id = $2",
                &[&DEAD.0, &endpoint.0],
            )
            .await;
    }
    assert_eq!(database.store.release_dead(10).await.expect("a look"), 0, "the process is alive");
    kill(&database, DEAD, "1 s").await;
    assert_eq!(database.store.release_dead(2).await.expect("a commit"), 2);
    assert_eq!(database.count("fan_outs WHERE owner IS NULL").await, 1);
    assert_eq!(database.store.release_dead(2).await.expect("a commit"), 1);
    assert_eq!(database.owner(endpoint(1)).await, Some(Some(ONE)));
    assert_eq!(database.store.take_backlogs(TWO, 10).await.expect("a commit").len(), 3, "the backlogs are due at once");
    assert_eq!(database.count("processes").await, 2, "a statement of the dead process may still commit");
    kill(&database, DEAD, "3601 s").await;
    assert_eq!(database.store.release_dead(2).await.expect("a commit"), 0);
    assert_eq!(database.count("processes").await, 1);
}

#[tokio::test]
async fn a_heartbeat_tells_the_state_of_the_process() {
    let database = Database::new().await;
    register(&database, ONE, ProcessKind::Dispatcher).await;
    register(&database, DEAD, ProcessKind::Ingest).await;
    let report = ProcessReport {
        free_places: 1,
        events: 2,
        attempts: 3,
        places_used: 4,
        places: 5,
        bytes_used: 6,
        bytes: 7,
        lanes_slow: 8,
        lanes_open: 9,
        backlogs: 10,
        backlogs_waiting: 11,
        due: 12,
        longest_wait: Duration::from_millis(13),
        events_in_hand: 14,
        retries_in_hand: 15,
        has_broker: true,
        has_database: false,
        configuration: 16,
        clock_offset: Duration::from_millis(17),
        max_held: Some(18),
        max_held_age: Some(Duration::from_secs(19)),
    };
    database.store.renew(ONE, &report, LIFE).await.expect("a commit");
    kill(&database, DEAD, "1 s").await;
    let rows = database.store.processes().await.expect("a look");
    assert_eq!(rows.iter().map(|row| (row.id, row.is_alive)).collect::<Vec<_>>(), [(ONE, true), (DEAD, false)]);
    assert_eq!((&rows[0].report, rows[0].host.as_deref()), (&report, Some("pod-1")));
    assert!(rows[0].seen_at.is_some() && rows[1].seen_at.is_none());
}
