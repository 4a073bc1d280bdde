//! Feeds: entries in the order of their transactions.

use std::time::Duration;

use fanfare_domain::{
    delivery::feed::FeedPlace,
    ids::{DeliveryId, EventId},
};
use fanfare_store::{FeedPage, FeedRange, NewEvent, Start};

use crate::database::{APPLICATION, Database, ONE, endpoint, keyed, moment, starting, timed, to};

/// An event with a delivery that the feed lists.
fn listed(new: NewEvent, start: Start) -> NewEvent {
    let mut new = to(new, &[(endpoint(1), start)]);
    new.deliveries.iter_mut().for_each(|delivery| delivery.in_feed = true);
    new
}

/// Reads a feed until `count` entries have come. Transactions in other databases of the server hold up entries, too.
async fn read_until(database: &Database, after: Option<FeedPlace>, count: usize) -> FeedPage {
    for _ in 0..6_000 {
        let page = database.store.feed(endpoint(1), FeedRange { after, day: None }, count).await.expect("a page");
        if page.entries.len() == count {
            return page;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("the feed has fewer than {count} entries");
}

async fn events_after(database: &Database, after: Option<FeedPlace>) -> (Vec<EventId>, Option<FeedPlace>) {
    let page = database.store.feed(endpoint(1), FeedRange { after, day: None }, 100).await.expect("a page");
    (page.entries.iter().map(|entry| entry.event).collect(), page.next)
}

#[tokio::test]
async fn a_feed_lists_deliveries_whatever_their_state() {
    let database = Database::fresh().await;
    let batch = [listed(timed(), starting(1)), listed(keyed("a"), Start::Read), listed(timed(), Start::Skipped)];
    for new in &batch {
        database.store.persist(ONE, &[new]).await.expect("a commit");
    }
    // Neither a repeated event nor the delivery of another endpoint is listed.
    database.store.persist(ONE, &[&batch[1]]).await.expect("a commit");
    database.store.persist(ONE, &[&to(timed(), &[(endpoint(2), starting(1))])]).await.expect("a commit");
    let whole = read_until(&database, None, 3).await;
    let events: Vec<EventId> = whole.entries.iter().map(|entry| entry.event).collect();
    assert_eq!(events, batch.each_ref().map(|new| new.event.id));
    assert_eq!(events_after(&database, whole.next).await, (vec![], None));
    let page = read_until(&database, None, 2).await;
    assert_eq!(events_after(&database, page.next).await.0, [batch[2].event.id]);
    let content = page.entries[1].content.as_ref().expect("a body");
    assert_eq!((content.0.as_str(), content.1.as_str()), (batch[1].event.event_type.as_str(), &*batch[1].body));
    assert_eq!(page.entries[1].place.delivery, batch[1].deliveries[0].id);
    let skipped = "deliveries WHERE state = 'skipped' AND reason = 'feed'";
    assert_eq!(database.count(skipped).await, 1);
}

/// A transaction may commit later than another transaction that began after. A reader behind the later entry would miss
/// the earlier entry.
#[tokio::test]
async fn a_reader_waits_for_the_transactions_before_an_entry() {
    let database = Database::fresh().await;
    let mut by_hand = database.connect().await;
    let late = by_hand.transaction().await.expect("a transaction");
    late.execute("SELECT pg_current_xact_id()", &[]).await.expect("a number");
    let new = listed(timed(), starting(1));
    database.store.persist(ONE, &[&new]).await.expect("a commit");
    assert_eq!(events_after(&database, None).await, (vec![], None), "the older transaction runs");
    let insert = "INSERT INTO feed_entries (endpoint_id, id, application_id, event_id) VALUES ($1, $2, $3, $4)";
    let (delivery, event) = (DeliveryId::derive(moment(0), new.event.id, endpoint(3)), EventId(endpoint(3).0));
    late.execute(insert, &[&endpoint(1).0, &delivery.0, &APPLICATION.0, &event.0]).await.expect("an entry");
    late.commit().await.expect("a commit");
    let page = read_until(&database, None, 2).await;
    assert_eq!(page.entries.iter().map(|entry| entry.event).collect::<Vec<_>>(), [event, new.event.id]);
}

#[tokio::test]
async fn an_erased_event_moves_the_place_only() {
    let database = Database::fresh().await;
    let new = listed(timed(), Start::Read);
    database.store.persist(ONE, &[&new]).await.expect("a commit");
    database.store.erase_event(APPLICATION, new.event.id).await.expect("an erasure");
    let page = read_until(&database, None, 1).await;
    assert!(page.entries[0].content.is_none());
    assert_eq!(page.next, Some(page.entries[0].place));
}

#[tokio::test]
async fn long_bodies_end_a_page() {
    let database = Database::fresh().await;
    for _ in 0..6 {
        let new = NewEvent { body: format!("\"{}\"", "a".repeat(400_000)), ..listed(timed(), starting(1)) };
        database.store.persist(ONE, &[&new]).await.expect("a commit");
    }
    read_until(&database, None, 3).await;
    let page = database.store.feed(endpoint(1), FeedRange::default(), 100).await.expect("a page");
    assert_eq!(page.entries.len(), 3);
    read_until(&database, page.next, 3).await;
}

#[tokio::test]
async fn a_place_of_another_database_is_told() {
    let database = Database::fresh().await;
    let far = FeedPlace { written: i64::MAX, delivery: DeliveryId(endpoint(1).0) };
    assert!(
        database
            .store
            .feed(endpoint(1), FeedRange { after: Some(far), day: None }, 100)
            .await
            .expect("a page")
            .is_ahead
    );
    assert!(!database.store.feed(endpoint(1), FeedRange::default(), 100).await.expect("a page").is_ahead);
}

#[tokio::test]
async fn temporary_endpoints_expire() {
    let database = Database::fresh().await;
    let lifetimes = "UPDATE endpoints e SET expires_at = now() + s.lifetime * interval '1 s'
                     FROM (VALUES (1, -1), (2, 60)) AS s(number, lifetime)
                     WHERE e.id = ('00000000-0000-0000-0000-' || lpad(s.number::text, 12, '0'))::uuid";
    database.run(lifetimes).await;
    assert_eq!(database.store.expired_endpoints(10).await.expect("a list"), [(APPLICATION, endpoint(1))]);
    assert!(!database.store.delete_expired_endpoint(APPLICATION, endpoint(2)).await.expect("a look"), "not expired");
    assert!(database.store.delete_expired_endpoint(APPLICATION, endpoint(1)).await.expect("a deletion"));
    assert_eq!(database.store.expired_endpoints(10).await.expect("a list"), []);
}
