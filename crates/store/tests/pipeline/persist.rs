//! Persists events and their open deliveries in one commit.

use std::time::Duration;

use fanfare_domain::{delivery::QueueReason, event::Content, ids::EventId};
use fanfare_store::{NewEvent, Persisted, Start, Store, StoreError};
use tokio::task::JoinHandle;

use crate::database::{
    APPLICATION, Database, ONE, TWO, accepted, endpoint, keyed, lease_id, moment, sorted, starting, timed, to,
};

fn spawn(store: &Store, new: NewEvent) -> JoinHandle<Result<Persisted, StoreError>> {
    let store = store.clone();
    tokio::spawn(async move { store.persist(ONE, &[&new]).await })
}

#[tokio::test]
async fn a_batch_is_written_once() {
    let database = Database::new().await;
    let starts = [(endpoint(1), starting(1)), (endpoint(2), starting(1))];
    let events = [to(timed(), &starts), to(keyed("a"), &starts), timed(), keyed("b")];
    let persisted = database.store.persist(ONE, &sorted(&events)).await.expect("a commit");
    assert_eq!((persisted.new.len(), persisted.queued.len(), persisted.backlogs.len()), (4, 0, 0));
    let ids: Vec<_> = events[0].deliveries.iter().map(|new| new.id).collect();
    let row = database.open(ids[0]).await.expect("an open row");
    assert_eq!((row.place(), row.listed, row.lease), (("sending", 1), false, Some(lease_id(1).0)));
    // The commit's answer was lost: the process finds its own leases, and the batch is repeated under another lease.
    let found = database.store.leases(&ids).await.expect("a look");
    assert_eq!((found.len(), found[&ids[1]]), (2, lease_id(1)));
    let other = [(endpoint(1), starting(2)), (endpoint(2), starting(2))];
    let again: Vec<NewEvent> = events.iter().map(|new| to(new.clone(), &other[..new.deliveries.len()])).collect();
    let persisted = database.store.persist(TWO, &sorted(&again)).await.expect("a commit");
    assert_eq!((persisted.new.len(), persisted.queued.len(), persisted.backlogs.len()), (0, 0, 0));
    assert_eq!(database.open(ids[0]).await, Some(row), "the row is unchanged");
    assert_eq!((database.count("events").await, database.count("open_deliveries").await), (4, 4));
    assert!(database.store.is_persisted(APPLICATION, events[1].event.id).await.expect("a look"));
    assert!(!database.store.is_persisted(APPLICATION, keyed("c").event.id).await.expect("a look"));
}

#[tokio::test]
async fn a_known_event_does_not_hold_up_the_new_ones_of_its_batch() {
    let database = Database::new().await;
    let known = to(keyed("known"), &[(endpoint(1), starting(1))]);
    database.store.persist(ONE, &[&known]).await.expect("a commit");
    // A publisher repeats an event under the id from the first answer.
    let first = timed();
    database.store.persist(ONE, &[&first]).await.expect("a commit");
    let renamed = keyed(&first.event.id.to_string());
    assert_eq!(renamed.event.id, first.event.id);
    let batch =
        [to(keyed("known"), &[(endpoint(1), starting(2))]), renamed, to(keyed("new"), &[(endpoint(1), starting(2))])];
    let persisted = database.store.persist(ONE, &sorted(&batch)).await.expect("a commit");
    assert_eq!(persisted.new.iter().copied().collect::<Vec<EventId>>(), [batch[2].event.id]);
    assert_eq!((database.count("events").await, database.count("open_deliveries").await), (3, 2));
}

#[tokio::test]
async fn another_content_under_a_key_is_told() {
    let database = Database::new().await;
    let events = [timed(), keyed("a"), keyed("b")];
    database.store.persist(ONE, &sorted(&events)).await.expect("a commit");
    let of = |new: &NewEvent, content: u8| (APPLICATION, new.event.id, Content([content; 16]));
    let same = (APPLICATION, events[2].event.id, events[2].content.expect("a digest"));
    let reused = database.store.reused(&[of(&events[0], 1), of(&events[1], 1), same]).await.expect("a look");
    assert_eq!(reused.len(), 2);
    assert!(!reused.contains(&events[2].event.id));
}

#[tokio::test]
async fn of_two_copies_at_once_one_is_new() {
    let database = Database::new().await;
    let other = database.another_store();
    for round in 0..10 {
        let copy = |lease| to(keyed(&format!("key {round}")), &[(endpoint(1), starting(lease))]);
        let (first, second) = (spawn(&database.store, copy(1)), spawn(&other, copy(2)));
        let (first, second) = (first.await.expect("a task"), second.await.expect("a task"));
        assert_eq!(first.expect("a commit").new.len() + second.expect("a commit").new.len(), 1);
    }
    assert_eq!((database.count("events").await, database.count("open_deliveries").await), (10, 10));
}

#[tokio::test]
async fn a_copy_waits_for_the_uncommitted_event() {
    let database = Database::new().await;
    let by_hand = database.connect().await;
    let insert = "INSERT INTO event_keys SELECT $1, date_trunc('month', now() AT TIME ZONE 'UTC')::date, now()";
    for (end, new) in [("COMMIT", 0), ("ROLLBACK", 1)] {
        let copy = to(keyed(end), &[(endpoint(1), starting(1))]);
        by_hand.batch_execute("BEGIN").await.expect("a transaction");
        by_hand.execute(insert, &[&copy.event.id.0]).await.expect("a key");
        let waiting = spawn(&database.store, copy);
        database.await_waiting(1).await;
        by_hand.batch_execute(end).await.expect("an end");
        assert_eq!(waiting.await.expect("a task").expect("a commit").new.len(), new, "{end}");
    }
}

#[tokio::test]
async fn a_key_counts_over_the_turn_of_a_month() {
    let database = Database::fresh().await;
    database.store.create_partitions("2031-12-01T00:30:00Z".parse().expect("a time")).await.expect("partitions");
    let at = |key: &str| NewEvent { accepted_at: "2031-12-01T00:00:00Z".parse().expect("a time"), ..keyed(key) };
    let months = async |key: &str| {
        let id = at(key).event.id.0;
        let rows = database.rows("SELECT month::text FROM event_keys WHERE event_id = $1 ORDER BY 1", &[&id]).await;
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>()
    };
    database.set_clock("2031-11-30T23:59:59Z").await;
    let store = database.another_store();
    assert_eq!(store.persist(ONE, &[&at("old")]).await.expect("a commit").new.len(), 1);
    assert_eq!(months("old").await, ["2031-11-01"]);
    for (time, known) in [("2031-12-01T00:30:00Z", 0), ("2031-12-01T02:00:00Z", 0), ("2031-12-31T02:00:00Z", 0)] {
        database.set_clock(time).await;
        assert_eq!(store.persist(ONE, &[&at("old")]).await.expect("a commit").new.len(), known, "{time}");
    }
    database.set_clock("2031-12-01T01:00:00Z").await;
    assert_eq!(store.persist(ONE, &[&at("second hour")]).await.expect("a commit").new.len(), 1);
    assert_eq!(months("second hour").await, ["2031-12-01"]);
    database.set_clock("2031-12-01T00:59:59Z").await;
    assert_eq!(store.persist(ONE, &[&at("first hour")]).await.expect("a commit").new.len(), 1);
    assert_eq!(months("first hour").await, ["2031-11-01", "2031-12-01"]);
    // A copy written in the previous month is uncommitted.
    let by_hand = database.connect().await;
    for (end, new) in [("COMMIT", 0), ("ROLLBACK", 1)] {
        by_hand.batch_execute("BEGIN").await.expect("a transaction");
        let insert = "INSERT INTO event_keys VALUES ($1, '2031-11-01', '2031-11-30T23:59:59Z')";
        by_hand.execute(insert, &[&at(end).event.id.0]).await.expect("a key");
        let waiting = spawn(&store, at(end));
        database.await_waiting(1).await;
        by_hand.batch_execute(end).await.expect("an end");
        assert_eq!(waiting.await.expect("a task").expect("a commit").new.len(), new, "{end}");
    }
}

#[tokio::test]
async fn a_delivery_joins_the_backlog_of_its_endpoint() {
    let database = Database::new().await;
    database.queue(endpoint(1), 1).await;
    assert_eq!(database.owner(endpoint(1)).await, Some(Some(ONE)));
    let new = to(timed(), &[(endpoint(1), starting(1)), (endpoint(2), starting(1))]);
    let persisted = database.store.persist(TWO, &[&new]).await.expect("a commit");
    let [first, second] = [new.deliveries[0].id, new.deliveries[1].id];
    assert_eq!(persisted.queued.into_iter().collect::<Vec<_>>(), [first]);
    assert_eq!((persisted.backlogs.len(), persisted.backlogs[0].owner), (1, Some(ONE)), "not the second process");
    let row = database.open(first).await.expect("an open row");
    assert_eq!((row.place(), row.reason.as_deref(), row.listed), (("queued", 1), Some("backlog"), true));
    assert_eq!((row.lease, database.count("endpoint_backlogs").await), (None, 1));
    assert_eq!(database.open(second).await.expect("an open row").state, "sending");
}

#[tokio::test]
async fn a_backlog_begins_with_its_first_delivery() {
    let database = Database::new().await;
    let queued = |reason| Start::Queued(reason);
    let starts = [
        (endpoint(1), queued(QueueReason::BreakerOpen)),
        (endpoint(2), queued(QueueReason::Paused)),
        (endpoint(3), Start::Skipped),
        (endpoint(4), starting(1)),
    ];
    let events = [to(timed(), &starts), to(timed(), &starts)];
    let persisted = database.store.persist(ONE, &sorted(&events)).await.expect("a commit");
    assert_eq!((persisted.new.len(), persisted.queued.len(), persisted.backlogs.len()), (2, 0, 2));
    assert_eq!(database.owner(endpoint(1)).await, Some(Some(ONE)));
    assert_eq!(database.owner(endpoint(2)).await, Some(None), "a paused endpoint's has no owner");
    assert_eq!((database.owner(endpoint(3)).await, database.owner(endpoint(4)).await), (None, None));
    assert_eq!(database.count("endpoint_backlogs WHERE reason = 'paused' AND next_look > now()").await, 1);
    let skipped = database.finished(events[0].deliveries[2].id).await.expect("a finished row");
    assert_eq!((skipped.state.as_str(), skipped.attempt, skipped.failures), ("skipped", 0, 0));
    assert_eq!((database.count("open_deliveries").await, database.count("deliveries").await), (6, 2));
}

#[tokio::test]
async fn a_delivery_is_listed_at_once_where_its_event_is_old() {
    let database = Database::new().await;
    let new = database.persist_one(endpoint(1), starting(1)).await;
    let old = database.persist_at(moment(5), endpoint(1), starting(1)).await;
    assert!(!database.open(new.delivery).await.expect("a row").listed);
    assert!(database.open(old.delivery).await.expect("a row").listed);
    database.store.list_slow(&[new.delivery]).await.expect("a commit");
    assert!(database.open(new.delivery).await.expect("a row").listed);
}

#[tokio::test]
async fn of_a_batch_with_a_bad_row_nothing_is_written() {
    let database = Database::new().await;
    let good = || to(timed(), &[(endpoint(1), starting(1)), (endpoint(2), Start::Queued(QueueReason::LaneFull))]);
    let far = accepted(moment(400 * 86400));
    let error = database.store.persist(ONE, &sorted(&[good(), far])).await.expect_err("no partition");
    assert!(error.lacks_partition(), "{error}");
    let nul = NewEvent { body: "a\0b".to_owned(), ..timed() };
    let error = database.store.persist(ONE, &sorted(&[good(), nul])).await.expect_err("no such text");
    assert!(matches!(error, StoreError::Data(_)) && !error.lacks_partition(), "{error}");
    for table in ["events", "open_deliveries", "endpoint_backlogs"] {
        assert_eq!(database.count(table).await, 0, "{table}");
    }
    database.store.create_partitions_of(moment(400 * 86400)).await.expect("partitions");
    let far = to(accepted(moment(400 * 86400)), &[(endpoint(3), Start::Skipped)]);
    assert_eq!(database.store.persist(ONE, &[&far]).await.expect("a commit").new.len(), 1);
}

#[tokio::test]
async fn an_expiry_and_a_lease_last_as_long_as_told() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    let lasts =
        "open_deliveries WHERE id = $1 AND lease_until BETWEEN now() + interval '50 s' AND now() + interval '60 s'
                 AND expires_at > now() + interval '3500 s' AND attempt = 1 AND failures = 0 AND class = 0";
    let rows = database.rows(&format!("SELECT FROM {lasts}"), &[&sent.delivery.0]).await;
    assert_eq!(rows.len(), 1);
    assert!(Duration::from_secs(60) == crate::database::LEASE);
}
