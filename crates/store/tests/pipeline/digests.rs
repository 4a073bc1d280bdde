//! Digests: counts of a day up to the oldest running transaction, told once.

use std::time::Duration;

use fanfare_domain::{
    delivery::{
        QueueReason,
        digest::{self, DayCount, DayEntry, last_ended},
        feed::FeedPlace,
    },
    ids::{DeliveryId, EndpointId, EventId},
    time::day_of,
};
use fanfare_store::{DueDigest, Horizon, NewDigest, NewEvent, Start};
use jiff::{Span, Timestamp, civil::Date, tz::TimeZone};

use crate::database::{APPLICATION, Database, ONE, TWO, accepted, endpoint, keyed, timed, to};

/// A day in the past, and the day before.
fn days() -> [Date; 2] {
    let day = last_ended(Timestamp::now());
    [day, day.saturating_sub(Span::new().days(1))]
}

/// An event of a day, with a delivery that the feed lists.
fn listed(day: Date, second: i64) -> NewEvent {
    let begin = day.to_zoned(TimeZone::UTC).expect("a day").timestamp();
    in_feed(accepted(begin + Duration::from_secs(second.unsigned_abs())))
}

fn in_feed(new: NewEvent) -> NewEvent {
    let mut new = to(new, &[(endpoint(1), Start::Skipped)]);
    new.deliveries.iter_mut().for_each(|delivery| delivery.in_feed = true);
    new
}

async fn with_digests(database: &Database, number: u128, from: Date) {
    let statement = format!("UPDATE endpoints SET feed = 'copy', digest_from = '{from}' WHERE id = $1 RETURNING id");
    assert_eq!(database.rows(&statement, &[&endpoint(number).0]).await.len(), 1);
}

async fn persist(database: &Database, new: &[&NewEvent]) {
    for new in new {
        database.store.persist(ONE, &[new]).await.expect("a commit");
    }
}

/// A horizon above all transactions that have ended by now. Transactions in other databases of the server hold it up.
async fn horizon(database: &Database) -> Horizon {
    let next = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";
    let next: i64 = database.rows(next, &[]).await[0].get(0);
    for _ in 0..6_000 {
        let oldest = "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint";
        if database.rows(oldest, &[]).await[0].get::<_, i64>(0) >= next {
            return database.store.horizon().await.expect("a horizon");
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("a transaction holds up the horizon");
}

async fn count(database: &Database, day: Date, horizon: Horizon) -> DayEntry {
    database.store.count_day(endpoint(1), day, horizon).await.expect("a count")
}

async fn untold(database: &Database, horizon: Horizon) -> Vec<Date> {
    let [day, before] = days();
    database.store.untold_days(endpoint(1), &[before, day], horizon).await.expect("days")
}

/// Tells the last ended day with the untold days before, under the horizon. Returns the event, if told.
async fn tell(database: &Database, horizon: Horizon) -> Option<EventId> {
    let mut entries = Vec::new();
    for day in untold(database, horizon).await {
        entries.push(count(database, day, horizon).await);
    }
    let mut event = to(timed(), &[(endpoint(1), Start::Queued(QueueReason::Backlog))]);
    event.deliveries[0].in_feed = true;
    let new = NewDigest { endpoint: endpoint(1), day: days()[0], days: &entries, horizon, event: &event };
    database.store.tell_digest(ONE, &new).await.expect("a commit").map(|_| event.event.id)
}

#[tokio::test]
async fn a_day_is_counted_by_the_acceptance_of_its_events() {
    let database = Database::fresh().await;
    let [day, before] = days();
    let of_day = [listed(day, 0), listed(day, 7), listed(day, 86_399)];
    // The order of the feed is that of the writes.
    persist(&database, &[&of_day[1], &listed(before, 86_399), &of_day[2], &of_day[0]]).await;
    persist(&database, &[&to(accepted(of_day[0].accepted_at), &[(endpoint(1), Start::Skipped)])]).await;
    let entry = count(&database, day, horizon(&database).await).await;
    let written = "SELECT written FROM feed_entries WHERE event_id = $1";
    let mut expected = DayCount::default();
    for new in [&of_day[1], &of_day[2], &of_day[0]] {
        let written = database.rows(written, &[&new.event.id.0]).await[0].get(0);
        expected.add(FeedPlace { written, delivery: new.deliveries[0].id }, new.event.id);
    }
    assert_eq!(entry, expected.finish(day));
    assert_eq!(entry.count, 3);
}

#[tokio::test]
async fn a_running_transaction_holds_up_the_count_and_a_later_digest_tells_the_day_again() {
    let database = Database::fresh().await;
    let [day, before] = days();
    with_digests(&database, 1, before).await;
    persist(&database, &[&listed(before, 1)]).await;
    let mut writer = database.connect().await;
    let transaction = writer.transaction().await.expect("a transaction");
    let (late, insert) = (listed(before, 2), "INSERT INTO feed_entries VALUES ($1, DEFAULT, $2, $3, $4)");
    let (event, delivery) = (late.event.id, late.deliveries[0].id);
    transaction.execute(insert, &[&endpoint(1).0, &delivery.0, &APPLICATION.0, &event.0]).await.expect("an insert");
    // Committed, but behind the running transaction.
    persist(&database, &[&listed(before, 3)]).await;
    let early = database.store.horizon().await.expect("a horizon");
    assert!(count(&database, before, early).await.count <= 1);
    assert_eq!(untold(&database, early).await, [before, day]);
    assert!(tell(&database, early).await.is_some());
    assert_eq!(untold(&database, early).await, []);

    transaction.commit().await.expect("a commit");
    let late = horizon(&database).await;
    assert_eq!(untold(&database, late).await, [before], "entries behind the count");
    assert_eq!(count(&database, before, late).await.count, 3);
}

#[tokio::test]
async fn a_digest_is_told_once_and_counts_no_digests() {
    let database = Database::fresh().await;
    let [day, before] = days();
    with_digests(&database, 1, before).await;
    with_digests(&database, 2, day.saturating_add(Span::new().days(1))).await;
    persist(&database, &[&listed(day, 1)]).await;
    let due = DueDigest { endpoint: endpoint(1), application: APPLICATION, from: before };
    assert_eq!(database.store.due_digests(day, EndpointId::LEAST, 10).await.expect("a list"), [due]);
    assert_eq!(database.store.due_digests(day, endpoint(1), 10).await.expect("a list"), []);

    // Two dispatchers with the same counts: one event.
    let horizon = horizon(&database).await;
    let entries = [count(&database, day, horizon).await];
    let events = [timed(), timed()].map(|new| {
        let mut new = to(new, &[(endpoint(1), Start::Queued(QueueReason::Backlog))]);
        new.deliveries[0].in_feed = true;
        new
    });
    let digest = |event| NewDigest { endpoint: endpoint(1), day, days: &entries, horizon, event };
    let (one, two) = (digest(&events[0]), digest(&events[1]));
    let (one, two) = tokio::join!(database.store.tell_digest(ONE, &one), database.store.tell_digest(TWO, &two));
    let told = [one.expect("a commit"), two.expect("a commit")];
    assert_eq!(told.iter().flatten().count(), 1);
    let told: Vec<_> = told.iter().flatten().flat_map(|persisted| persisted.backlogs.iter()).collect();
    assert_eq!((told.len(), told[0].endpoint), (1, endpoint(1)));
    assert_eq!(database.count("open_deliveries WHERE state = 'queued'").await, 1);
    assert_eq!(database.count("events").await, 2, "the event of the day, and the digest");
    assert_eq!(database.store.due_digests(day, EndpointId::LEAST, 10).await.expect("a list"), []);
    let last = database.store.told_day(endpoint(1)).await.expect("a look").expect("a told day");
    assert_eq!((last.day, last.count), (day, 1));

    // The digest is in the feed, and counted by no day.
    let today = day_of(Timestamp::now());
    let of_today = in_feed(keyed("today"));
    persist(&database, &[&of_today]).await;
    assert_eq!(database.count("feed_entries").await, 3);
    assert_eq!(count(&database, today, self::horizon(&database).await).await.count, 1);
}

#[tokio::test]
async fn a_digest_that_was_switched_off_meanwhile_is_not_told() {
    let database = Database::fresh().await;
    with_digests(&database, 1, days()[1]).await;
    let horizon = horizon(&database).await;
    database.run("UPDATE endpoints SET digest_from = NULL").await;
    assert_eq!(tell(&database, horizon).await, None);
    assert_eq!((database.count("digests").await, database.count("events").await), (0, 0));
}

#[tokio::test]
async fn told_days_end_with_the_retention() {
    let database = Database::fresh().await;
    let [day, before] = days();
    with_digests(&database, 1, before).await;
    assert!(tell(&database, horizon(&database).await).await.is_some());
    assert_eq!(database.count("digests").await, 2);
    // The events of the digests of these days are accepted at most two days later.
    let line = |days: i64| digest::bounds(before.saturating_add(Span::new().days(days))).0.accepted_at();
    assert_eq!(database.store.forget_digests(line(2)).await.expect("a deletion"), 0);
    assert_eq!(database.store.forget_digests(line(3)).await.expect("a deletion"), 1);
    let last = database.store.told_day(endpoint(1)).await.expect("a look").expect("a told day");
    assert_eq!((last.day, last.count), (day, 0));
}

/// The page of a day has the entries of the day only, in the order of the feed.
#[tokio::test]
async fn a_feed_can_be_read_by_day() {
    let database = Database::fresh().await;
    let [day, before] = days();
    let (first, second) = (listed(day, 5), listed(day, 1));
    persist(&database, &[&listed(before, 1), &first, &listed(before, 2), &second]).await;
    horizon(&database).await;
    let read = async |after| {
        let range = fanfare_store::FeedRange { after, day: Some(day) };
        database.store.feed(endpoint(1), range, 100).await.expect("a page")
    };
    let page = read(None).await;
    let deliveries: Vec<DeliveryId> = page.entries.iter().map(|entry| entry.place.delivery).collect();
    assert_eq!(deliveries, [first.deliveries[0].id, second.deliveries[0].id]);
    assert_eq!(read(page.entries[0].place.into()).await.entries.len(), 1);
    // `first` of an entry begins with the first delivery.
    let entry = count(&database, day, database.store.horizon().await.expect("a horizon")).await;
    assert_eq!(read(entry.first).await.entries.len(), 2);
    assert_eq!((entry.last, page.next), (page.next, Some(page.entries[1].place)));
}
