//! Requests to send an event to a webhook without a delivery of the event.

use std::time::Duration;

use fanfare_domain::ids::{ApplicationId, DeliveryId, EndpointId};
use fanfare_store::{NewEvent, Opened, Store};
use uuid::Uuid;

use crate::database::{
    APPLICATION, Database, ONE, Sent, accepted, delivered, endpoint, keyed, moment, starting, timed, to,
};

const LIFETIME: Duration = Duration::from_secs(3600);

async fn send(store: &Store, new: &NewEvent, to: EndpointId) -> Opened {
    store.send_event(APPLICATION, new.event.id, to, LIFETIME).await.expect("a commit")
}

fn delivery(new: &NewEvent, endpoint: EndpointId) -> DeliveryId {
    DeliveryId::derive(new.accepted_at, new.event.id, endpoint)
}

async fn persisted(database: &Database, new: NewEvent) -> NewEvent {
    database.store.persist(ONE, &[&new]).await.expect("a commit");
    new
}

#[tokio::test]
async fn requests_at_once_open_one_delivery() {
    let database = Database::new().await;
    let new = persisted(&database, keyed("unmatched")).await;
    let mut tasks = Vec::new();
    for _ in 0..6 {
        let (store, new) = (database.another_store(), new.clone());
        tasks.push(tokio::spawn(async move { send(&store, &new, endpoint(1)).await }));
    }
    let id = delivery(&new, endpoint(1));
    for task in tasks {
        assert_eq!(task.await.expect("a task"), Opened::Queued(id));
    }
    let row = database.open(id).await.expect("an open row");
    assert_eq!((row.place(), row.reason.as_deref(), row.finished_once), (("queued", 1), Some("resent"), false));
    assert!(row.listed && row.expires_at > moment(0));
    assert_eq!((database.count("open_deliveries").await, database.queued_without_backlog().await), (1, 0));
    assert_eq!(database.owner(endpoint(1)).await, Some(None), "a dispatcher will take over the backlog");

    database.run(&format!("UPDATE endpoint_backlogs SET owner = '{}'", ONE.0)).await;
    assert_eq!(database.drain(1, endpoint(1), 1).await[0].attempt, 1);
    assert_eq!(send(&database.store, &new, endpoint(1)).await, Opened::Known(id), "is being sent");
    let sent = Sent { delivery: id, event: new.event.id, endpoint: endpoint(1) };
    database.store.record(&[&delivered(&sent, 1, 1)]).await.expect("a commit");
    assert_eq!(send(&database.store, &new, endpoint(1)).await, Opened::Known(id), "is finished");
    assert_eq!(database.count("open_deliveries").await, 0);
}

#[tokio::test]
async fn only_an_event_that_may_be_sent_goes_to_an_endpoint_that_takes_deliveries() {
    let database = Database::new().await;
    let new = persisted(&database, timed()).await;
    database.rows("UPDATE endpoints SET status = 'disabled' WHERE id = $1", &[&endpoint(1).0]).await;
    database.rows("UPDATE endpoints SET deleted_at = now() WHERE id = $1", &[&endpoint(2).0]).await;
    database.rows("UPDATE endpoints SET status = 'paused' WHERE id = $1", &[&endpoint(3).0]).await;
    let refused = async |new: &NewEvent, number| send(&database.store, new, endpoint(number)).await;
    for number in [1, 2, 99] {
        assert_eq!(refused(&new, number).await, Opened::NoSuchEndpoint, "{number}");
    }
    assert_eq!(refused(&timed(), 4).await, Opened::NoSuchEvent);
    assert_eq!(refused(&keyed("nobody"), 4).await, Opened::NoSuchEvent);
    let other = ApplicationId(Uuid::from_u128(0xb));
    let answer = database.store.send_event(other, new.event.id, endpoint(4), LIFETIME).await.expect("a look");
    assert_eq!(answer, Opened::NoSuchEvent);
    let wide = persisted(&database, NewEvent { is_wide: true, ..timed() }).await;
    assert_eq!(refused(&wide, 4).await, Opened::FanningOut);
    let erased = persisted(&database, timed()).await;
    database.store.erase_event(APPLICATION, erased.event.id).await.expect("a commit");
    assert_eq!(refused(&erased, 4).await, Opened::Erased);
    let test = persisted(&database, timed()).await;
    database.rows("UPDATE events SET is_test = true WHERE id = $1", &[&test.event.id.0]).await;
    assert_eq!(refused(&test, 4).await, Opened::NotSendable);
    let old = persisted(&database, accepted(moment(2 * 86400))).await;
    assert!(database.store.raise_line(moment(3600)).await.expect("a commit"));
    assert_eq!(refused(&old, 4).await, Opened::NotSendable);
    assert_eq!((database.count("open_deliveries").await, database.count("endpoint_backlogs").await), (0, 0));
    assert_eq!(refused(&new, 3).await, Opened::Queued(delivery(&new, endpoint(3))), "held until resumed");
}

/// Another request opens and finishes the delivery while this request waits for the lock.
#[tokio::test]
async fn a_delivery_that_finished_meanwhile_is_not_opened_again() {
    let database = Database::new().await;
    let new = persisted(&database, to(timed(), &[(endpoint(2), starting(1))])).await;
    let by_hand = database.connect().await;
    by_hand.batch_execute("BEGIN").await.expect("a transaction");
    by_hand.execute("SELECT FROM events WHERE id = $1 FOR KEY SHARE", &[&new.event.id.0]).await.expect("a lock");
    let (store, event) = (database.another_store(), new.clone());
    let waiting = tokio::spawn(async move { send(&store, &event, endpoint(1)).await });
    database.await_waiting(1).await;
    let finish = "INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, attempt, failures)
                  VALUES ($1, $2, $3, $4, 'delivered', 1, 0)";
    let id = delivery(&new, endpoint(1));
    by_hand.execute(finish, &[&APPLICATION.0, &id.0, &new.event.id.0, &endpoint(1).0]).await.expect("a row");
    by_hand.batch_execute("COMMIT").await.expect("a commit");
    assert_eq!(waiting.await.expect("a task"), Opened::Known(id));
    assert!(database.open(id).await.is_none());
}
