//! Shares of the management API: a caller with too many requests waits alone.

use std::{pin::pin, time::Duration};

use fanfare_tests::{patience::until, world::World};
use futures_util::future::join_all;
use serde_json::{Value, json};
use tokio::{
    io::AsyncWriteExt,
    net::TcpStream,
    time::{sleep, timeout},
};

/// More requests than a process has database connections.
const MANY: usize = 12;

/// General connections of a caller: two thirds of the API's connections are general, a caller has two thirds of these.
const SHARE: i64 = 2;

fn event_type() -> Value {
    json!({ "name": "a.b", "category": "Tests", "description": "For tests", "sample": {} })
}

/// Counts the statements that wait for a lock.
async fn blocked(world: &World) -> i64 {
    let waiting =
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = current_database()";
    world.count(waiting).await
}

#[tokio::test]
async fn an_application_that_takes_all_its_connections_holds_up_itself_only() {
    let world = World::new().await;
    let (_, other) = world.other_application().await;
    let described = event_type();
    let administrator = world.admin().await;
    let mut database = world.database().await;
    let lock = database.transaction().await.expect("a transaction");
    lock.batch_execute("LOCK TABLE open_deliveries").await.expect("locked");
    let counted = async || world.client().get("deliveries/counts").await;
    let asking = join_all((0..MANY).map(|_| counted()));
    let meanwhile = async {
        until("the statements of the application", async || (blocked(&world).await >= SHARE).then_some(())).await;
        for client in [&other, &administrator] {
            let answer = timeout(Duration::from_secs(2), client.get("audit-log")).await;
            assert_eq!(answer.expect("an answer beside the application's requests").status, 200);
        }
        assert_eq!(blocked(&world).await, SHARE);
        // A change of the other application, with an entry in the audit log.
        let created = timeout(Duration::from_secs(2), other.post("event-types", &described)).await;
        assert_eq!(created.expect("an answer beside the application's requests").status, 201);
        // Longer than the deadline of a lock, 5 s, and so than the wait for a connection of the share.
        sleep(Duration::from_secs(6)).await;
        lock.rollback().await.expect("let go");
    };
    let (answers, ()) = tokio::join!(asking, meanwhile);
    let refused: Vec<_> = answers.iter().filter(|answer| answer.status == 429).collect();
    assert!(!refused.is_empty(), "{:?}", answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
    for answer in refused {
        assert_eq!(
            (answer.code(), &answer.headers["retry-after"]),
            ("too_many_requests", &"2".parse().expect("a value"))
        );
    }
    assert_eq!(counted().await.status, 200);
}

#[tokio::test]
async fn a_statement_ends_when_its_caller_hangs_up() {
    let world = World::new().await;
    let mut database = world.database().await;
    let lock = database.transaction().await.expect("a transaction");
    lock.batch_execute("LOCK TABLE open_deliveries").await.expect("locked");
    {
        let mut asking = pin!(world.client().get("deliveries/counts"));
        let begun = until("a statement of the caller", async || (blocked(&world).await > 0).then_some(()));
        tokio::select! {
            _ = &mut asking => panic!("the table is locked"),
            () = begun => {}
        }
    }
    // Before the deadline of a lock, 5 s, and of a statement, 15 s.
    let ended = until("the end of the statement", async || (blocked(&world).await == 0).then_some(()));
    timeout(Duration::from_secs(2), ended).await.expect("the statement is cancelled");
    lock.rollback().await.expect("let go");
    assert_eq!(world.client().get("deliveries/counts").await.status, 200);
}

/// The audit log tells the outcome of a change. A cancelled change would have none.
#[tokio::test]
async fn a_change_goes_on_when_its_caller_hangs_up() {
    let world = World::new().await;
    let described = event_type();
    let mut database = world.database().await;
    let lock = database.transaction().await.expect("a transaction");
    lock.batch_execute("LOCK TABLE event_types").await.expect("locked");
    {
        let mut asking = pin!(world.client().post("event-types", &described));
        let begun = until("a statement of the caller", async || (blocked(&world).await > 0).then_some(()));
        tokio::select! {
            _ = &mut asking => panic!("the table is locked"),
            () = begun => {}
        }
    }
    lock.rollback().await.expect("let go");
    let listed = async || (world.client().get("event-types/a.b").await.status == 200).then_some(());
    until("the event type", listed).await;
    let done = async || {
        let entries = world.client().get("audit-log").await;
        entries.data().as_array()?.iter().any(|entry| entry["outcome"] == "done").then_some(())
    };
    until("the outcome in the audit log", done).await;
}

#[tokio::test]
async fn each_caller_has_a_rate_of_its_own() {
    let world = World::of_variables(&[("FANFARE_API_RATE", "5")]).await;
    let (_, other) = world.other_application().await;
    let answers = join_all((0..MANY).map(|_| world.client().get("webhooks"))).await;
    let passed = answers.iter().filter(|answer| answer.status == 200).count();
    // On a slow machine, the bucket leaks meanwhile.
    assert!((5..MANY).contains(&passed), "{passed} of {MANY} passed");
    let refused = answers.iter().find(|answer| answer.status == 429).expect("a refusal");
    assert_eq!(
        (refused.code(), &refused.headers["retry-after"]),
        ("too_many_requests", &"1".parse().expect("a value"))
    );
    assert_eq!(other.get("webhooks").await.status, 200);
    until("the rate to permit a request", async || (world.client().get("webhooks").await.status == 200).then_some(()))
        .await;
}

/// A quarter of a mebibyte that a slow client announces takes nearly all of its application's half, counted twice.
#[tokio::test]
async fn an_application_whose_bodies_use_its_memory_holds_up_itself_only() {
    let world = World::of_variables(&[("FANFARE_MEMORY_MIB", "1")]).await;
    let (_, other) = world.other_application().await;
    let address = world.ingest().address("serving the API").await;
    let mut slow = TcpStream::connect(address).await.expect("ingest");
    let head = format!(
        "POST /api/v1/events HTTP/1.1\r\nhost: fanfare\r\nauthorization: Bearer {}\r\ncontent-type: application/json\r\n\
         content-length: 250000\r\n\r\n{{",
        world.key
    );
    slow.write_all(head.as_bytes()).await.expect("a head");
    let event = |bytes: usize| json!({ "type": "a", "data": "a".repeat(bytes) });
    let large = event(60_000);
    let refused = until("the slow request to hold its share", async || {
        let answer = world.client().post("events", &large).await;
        (answer.status != 202).then_some(answer)
    })
    .await;
    assert_eq!((refused.status, refused.code()), (429, "too_many_requests"));
    assert_eq!(world.client().post("events", &event(100)).await.status, 202, "a small event has room");
    assert_eq!(other.post("events", &large).await.status, 202);
    drop(slow);
    until("the share to be free", async || (world.client().post("events", &large).await.status == 202).then_some(()))
        .await;
}
