//! Erasure of an event's content.

use fanfare_domain::delivery::QueueReason;
use fanfare_store::{Erasure, NewEvent, Start};

use crate::database::{APPLICATION, Database, ONE, delivered, endpoint, failed, keyed, scheduled, starting, timed, to};

#[tokio::test]
async fn an_event_that_is_being_sent_or_fanned_out_is_left() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), starting(1)).await;
    let wide = NewEvent { is_wide: true, ..timed() };
    database.store.persist(ONE, &[&wide]).await.expect("a commit");
    let erase = async |event| database.store.erase_event(APPLICATION, event).await.expect("an answer");
    assert_eq!((erase(sent.event).await, erase(wide.event.id).await), (Erasure::UnderWay, Erasure::UnderWay));
    assert_eq!(erase(timed().event.id).await, Erasure::NoSuchEvent);
    assert_eq!(erase(keyed("no").event.id).await, Erasure::NoSuchEvent);
    assert!(database.open(sent.delivery).await.is_some());
    assert_eq!(database.count("events WHERE body <> '' AND erased_at IS NULL").await, 2);
}

/// A copy is parked under the event's id if the event has no key, and under the key otherwise.
#[tokio::test]
async fn parked_copies_of_an_event_go() {
    let database = Database::new().await;
    for (new, number) in [(timed(), 1), (keyed("parked"), 2)] {
        database.store.persist(ONE, &[&new]).await.expect("a commit");
        let message_id = new.event.key.clone().unwrap_or_else(|| new.event.id.to_string());
        let of = |application: &str, message_id: &str, number| {
            format!(
                "INSERT INTO parked (id, reason, message, routing_key, message_id, headers, body)
                 VALUES (gen_random_uuid(), 'event_key_reused', 'other content {number}', '{application}.a',
                         '{message_id}', '{{}}', '')"
            )
        };
        database.run(&of(&APPLICATION.to_string(), &message_id, number)).await;
        database.run(&of(&APPLICATION.to_string(), "another", number)).await;
        database.run(&of("app_other", &message_id, number)).await;
        assert_eq!(database.store.erase_event(APPLICATION, new.event.id).await.expect("a commit"), Erasure::Done);
        let left = format!("parked WHERE message = 'other content {number}'");
        assert_eq!(database.count(&left).await, 2);
    }
}

#[tokio::test]
async fn all_copies_go_and_open_deliveries_fail() {
    let database = Database::new().await;
    let queued = Start::Queued(QueueReason::LaneFull);
    let new = to(
        keyed("k"),
        &[(endpoint(1), starting(1)), (endpoint(2), queued), (endpoint(3), starting(1)), (endpoint(4), starting(1))],
    );
    database.store.persist(ONE, &[&new]).await.expect("a commit");
    let sent = new.deliveries.iter().map(|delivery| crate::database::Sent {
        delivery: delivery.id,
        event: new.event.id,
        endpoint: delivery.endpoint,
    });
    let sent: Vec<_> = sent.collect();
    for record in [delivered(&sent[0], 1, 1), scheduled(&sent[2], 1, 1), failed(&sent[3], 1, 1)] {
        database.store.record(&[&record]).await.expect("a commit");
    }
    assert_eq!(database.store.erase_event(APPLICATION, new.event.id).await.expect("a commit"), Erasure::Done);
    let mut states = Vec::new();
    for sent in &sent {
        let row = database.finished(sent.delivery).await.expect("a finished row");
        states.push((row.state, row.reason.unwrap_or_default(), row.attempt, row.failures));
    }
    let row = |state: &str, reason: &str, attempt, failures| (state.to_owned(), reason.to_owned(), attempt, failures);
    assert_eq!(
        states,
        [
            row("delivered", "", 1, 0),
            row("failed", "erased", 0, 0),
            row("failed", "erased", 1, 1),
            row("failed", "attempts_exhausted", 1, 1)
        ]
    );
    for left in [
        "deliveries WHERE response_body IS NOT NULL OR response_headers IS NOT NULL",
        "attempts WHERE response_body IS NOT NULL OR response_headers IS NOT NULL OR error IS NOT NULL",
        "events WHERE body <> '' OR key IS NOT NULL OR content IS NOT NULL OR erased_at IS NULL",
        "open_deliveries",
    ] {
        assert_eq!(database.count(left).await, 0, "{left}");
    }
    assert_eq!(database.store.erase_event(APPLICATION, new.event.id).await.expect("a commit"), Erasure::Done, "again");
    // A late copy of the message: the key is known.
    assert!(database.store.persist(ONE, &[&new]).await.expect("a look").new.is_empty());
}

/// A lease is uncommitted at the start of the erasure.
#[tokio::test]
async fn an_erasure_waits_for_an_uncommitted_lease_and_is_refused() {
    let database = Database::new().await;
    let sent = database.persist_one(endpoint(1), Start::Queued(QueueReason::LaneFull)).await;
    let by_hand = database.connect().await;
    by_hand.batch_execute("BEGIN; UPDATE open_deliveries SET state = 'sending'").await.expect("a lease");
    let store = database.another_store();
    let waiting = tokio::spawn(async move { store.erase_event(APPLICATION, sent.event).await });
    database.await_waiting(1).await;
    by_hand.batch_execute("COMMIT").await.expect("a commit");
    assert_eq!(waiting.await.expect("a task").expect("an answer"), Erasure::UnderWay);
    assert!(database.open(sent.delivery).await.is_some());
}
