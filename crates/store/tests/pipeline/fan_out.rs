//! Fan-outs: the chunks of deliveries are written once each.

use fanfare_domain::{
    delivery::QueueReason,
    ids::{EndpointId, EventId},
};
use fanfare_store::{Chunk, NewDelivery, NewEvent, Start};

use crate::database::{APPLICATION, DEAD, Database, ONE, TWO, endpoint, starting, timed, to};

async fn wide(database: &Database) -> NewEvent {
    let new = NewEvent { is_wide: true, matches: 4, ..timed() };
    let persisted = database.store.persist(ONE, &[&new]).await.expect("a commit");
    assert_eq!((persisted.new.len(), persisted.backlogs.len()), (1, 0));
    new
}

fn chunk(event: EventId, deliveries: &[NewDelivery], from: EndpointId, to: EndpointId, is_last: bool) -> Chunk<'_> {
    Chunk { event, application: APPLICATION, deliveries, from, to, is_last }
}

#[tokio::test]
async fn each_chunk_is_written_once_and_the_last_ends_the_fan_out() {
    let database = Database::new().await;
    let event = wide(&database).await;
    let id = event.event.id;
    assert_eq!((database.count("fan_outs").await, database.count("open_deliveries").await), (1, 0));
    let queued = Start::Queued(QueueReason::LaneFull);
    let new = to(
        event,
        &[(endpoint(1), starting(1)), (endpoint(2), queued), (endpoint(3), Start::Skipped), (endpoint(4), starting(1))],
    );
    let first = chunk(id, &new.deliveries[..2], EndpointId::LEAST, endpoint(2), false);
    assert!(database.store.persist_chunk(TWO, &first).await.expect("a look").is_none(), "another owner");
    let written = database.store.persist_chunk(ONE, &first).await.expect("a commit").expect("a chunk");
    assert_eq!((written.queued.len(), written.backlogs.len(), written.backlogs[0].owner), (0, 1, Some(ONE)));
    // The first delivery finishes before the chunk is repeated.
    database.run("DELETE FROM open_deliveries WHERE state = 'sending'").await;
    assert!(database.store.persist_chunk(ONE, &first).await.expect("a look").is_none(), "a repeated chunk");
    let wrong = chunk(id, &new.deliveries[3..], endpoint(3), endpoint(4), true);
    assert!(database.store.persist_chunk(ONE, &wrong).await.expect("a look").is_none(), "a chunk is left out");
    assert_eq!((database.count("open_deliveries").await, database.count("fan_outs").await), (1, 1));
    let last = chunk(id, &new.deliveries[2..], endpoint(2), endpoint(4), true);
    assert!(database.store.persist_chunk(ONE, &last).await.expect("a commit").is_some());
    assert!(database.store.persist_chunk(ONE, &last).await.expect("a look").is_none(), "the last chunk repeated");
    assert_eq!((database.count("open_deliveries").await, database.count("deliveries").await), (2, 1));
    assert_eq!(database.count("fan_outs").await, 0);
}

#[tokio::test]
async fn a_chunk_of_no_deliveries_moves_the_mark() {
    let database = Database::new().await;
    let event = wide(&database).await.event.id;
    let empty = chunk(event, &[], EndpointId::LEAST, endpoint(2), false);
    assert!(database.store.persist_chunk(ONE, &empty).await.expect("a commit").is_some());
    let last = chunk(event, &[], endpoint(2), endpoint(2), true);
    assert!(database.store.persist_chunk(ONE, &last).await.expect("a commit").is_some());
    assert_eq!(database.count("fan_outs").await, 0);
}

#[tokio::test]
async fn of_two_owners_at_once_one_writes_the_chunk() {
    let database = Database::new().await;
    let new = to(wide(&database).await, &[(endpoint(1), starting(1))]);
    let by_hand = database.connect().await;
    by_hand
        .batch_execute("BEGIN; UPDATE fan_outs SET owner = '00000000-0000-0000-0000-000000000102'")
        .await
        .expect("a lock");
    let store = database.store.clone();
    let waiting = tokio::spawn(async move {
        store.persist_chunk(ONE, &chunk(new.event.id, &new.deliveries, EndpointId::LEAST, endpoint(1), true)).await
    });
    database.await_waiting(1).await;
    by_hand.batch_execute("COMMIT").await.expect("a commit");
    assert!(waiting.await.expect("a task").expect("a look").is_none());
    assert_eq!((database.count("fan_outs").await, database.count("open_deliveries").await), (1, 0));
}

#[tokio::test]
async fn a_fan_out_changes_its_owner() {
    let database = Database::new().await;
    let event = wide(&database).await;
    assert!(database.store.take_fan_outs(TWO, 10).await.expect("a look").is_empty(), "the fan-out has an owner");
    database.store.release_fan_outs(DEAD).await.expect("a commit");
    assert!(database.store.take_fan_outs(TWO, 10).await.expect("a look").is_empty(), "of another process");
    let moved = chunk(event.event.id, &[], EndpointId::LEAST, endpoint(7), false);
    database.store.persist_chunk(ONE, &moved).await.expect("a commit");
    database.store.release_fan_outs(ONE).await.expect("a commit");
    let taken = database.store.take_fan_outs(TWO, 10).await.expect("a commit");
    assert_eq!((taken.len(), taken[0].event, taken[0].mark), (1, event.event.id, endpoint(7)));
    assert_eq!(taken[0].body.as_deref(), Some(event.body.as_str()));
    assert!(database.store.take_fan_outs(ONE, 10).await.expect("a look").is_empty());
}
