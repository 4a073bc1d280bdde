//! Delayed events: each is opened once when due, or cancelled, never both.

use std::time::Duration;

use fanfare_domain::{
    delivery::{QueueReason, replay::Replayed},
    event::Event,
    ids::{ApplicationId, EndpointId, EventId, ReplayId},
};
use fanfare_store::{
    Cancellation, DueContent, DueEvent, DuePlan, Erasure, EventFilter, EventRow, NewEvent, NewReplay, Opened,
    Persisted, Start, Store,
};
use jiff::SignedDuration;
use uuid::Uuid;

use crate::database::{
    APPLICATION, Database, ONE, TWO, accepted, endpoint, keyed, moment, sorted, starting, timed, to,
};

/// Persists an event that is due in `seconds`.
async fn delayed(database: &Database, new: NewEvent, seconds: i64) -> NewEvent {
    let due_at = moment(0) + SignedDuration::from_secs(seconds);
    let new = NewEvent { due_at: Some(due_at), ..new };
    let persisted = database.store.persist(ONE, &[&new]).await.expect("a commit");
    assert!(persisted.new.contains(&new.event.id));
    new
}

/// The plan to open these deliveries.
fn open(of: &NewEvent, starts: &[(EndpointId, Start)]) -> DuePlan {
    let deliveries = to(of.clone(), starts).deliveries;
    DuePlan::Open { matches: starts.len(), is_wide: false, deliveries }
}

/// The plan to open a delivery to endpoint 1.
fn open_one(event: &DueEvent) -> DuePlan {
    let new = NewEvent { accepted_at: event.accepted_at, ..accepted(event.accepted_at) };
    let new = NewEvent { event: Event { id: event.id, ..new.event }, ..new };
    match event.content {
        DueContent::Kept { .. } => open(&new, &[(endpoint(1), starting(1))]),
        DueContent::Unreadable => panic!("unreadable: {event:?}"),
        DueContent::Gone => DuePlan::Drop,
    }
}

/// Leases and opens up to `limit` due events.
async fn look(store: &Store, limit: usize, mut plan: impl FnMut(&DueEvent) -> DuePlan) -> (Vec<DueEvent>, Persisted) {
    let taken = store.take_due(limit).await.expect("a commit");
    let planned: Vec<(DueEvent, DuePlan)> = taken.into_iter().map(|event| (event.clone(), plan(&event))).collect();
    let persisted = store.open_due(ONE, &planned).await.expect("a commit");
    (planned.into_iter().map(|(event, _)| event).collect(), persisted)
}

/// Opens due events with a delivery to endpoint 1 each.
async fn open_all(store: &Store) -> (Vec<DueEvent>, Persisted) {
    look(store, 100, open_one).await
}

async fn end_leases(database: &Database) {
    database.run("UPDATE delayed_events SET leased_until = now()").await;
}

async fn cancel(store: &Store, event: EventId) -> Cancellation {
    store.cancel_event(APPLICATION, event, "key_1").await.expect("a commit")
}

async fn row(database: &Database, event: EventId) -> EventRow {
    database.store.event(APPLICATION, event).await.expect("a look").expect("an event")
}

#[tokio::test]
async fn a_due_event_is_opened_once_and_an_event_that_is_not_due_waits() {
    let database = Database::new().await;
    let ordinary = to(timed(), &[(endpoint(1), starting(1))]);
    let later = NewEvent { due_at: Some(moment(0) + Duration::from_secs(60)), ..keyed("later") };
    let batch = [ordinary.clone(), later.clone()];
    let persisted = database.store.persist(ONE, &sorted(&batch)).await.expect("a commit");
    assert_eq!((persisted.new.len(), persisted.queued.len()), (2, 0));
    assert_eq!((database.count("delayed_events").await, database.count("open_deliveries").await), (1, 1));
    assert_eq!(database.store.persist(ONE, &[&later]).await.expect("a commit").new.len(), 0, "a copy");
    let due = delayed(&database, timed(), -5).await;
    let queued = delayed(&database, timed(), -4).await;
    assert!(row(&database, due.event.id).await.is_delayed);

    let mut seen = Vec::new();
    let (events, opened) = look(&database.store, 100, |event| {
        let DueContent::Kept { event_type, body, trace, deliver_at } = &event.content else {
            panic!("{event:?}");
        };
        assert_eq!((event_type.as_str(), body.as_str(), trace), ("order.created", "{\"a\":1}", &None));
        seen.push((event.id, *deliver_at));
        if event.id == due.event.id {
            open(&due, &[(endpoint(1), starting(1)), (endpoint(2), Start::Skipped)])
        } else {
            open(&queued, &[(endpoint(3), Start::Queued(QueueReason::LaneFull))])
        }
    })
    .await;
    assert_eq!(seen, [&due, &queued].map(|new| (new.event.id, new.due_at.expect("a time"))), "the earliest first");
    assert_eq!((events.len(), opened.new.len(), opened.backlogs.len()), (2, 2, 1));
    assert_eq!((database.count("open_deliveries").await, database.count("deliveries").await), (3, 1));
    assert_eq!((database.count("delayed_events").await, database.queued_without_backlog().await), (1, 0));
    let shown = row(&database, due.event.id).await;
    assert_eq!((shown.is_delayed, shown.matches, shown.deliver_at, shown.fanned_out), (false, 2, due.due_at, true));
    assert_eq!(open_all(&database.store).await.0.len(), 0);
}

#[tokio::test]
async fn a_wide_due_event_becomes_a_fan_out() {
    let database = Database::new().await;
    let due = delayed(&database, timed(), -1).await;
    let plan = |_: &DueEvent| DuePlan::Open { matches: 200, is_wide: true, deliveries: Vec::new() };
    assert_eq!(look(&database.store, 10, plan).await.1.new.len(), 1);
    assert_eq!((database.count("fan_outs").await, row(&database, due.event.id).await.matches), (1, 200));
    database.store.release_fan_outs(ONE).await.expect("a release");
    let taken = database.store.take_fan_outs(TWO, 1).await.expect("a look");
    assert_eq!((taken[0].event, taken[0].deliver_at), (due.event.id, due.due_at));
}

#[tokio::test]
async fn a_look_takes_few_events_and_few_bytes() {
    let database = Database::new().await;
    let body = format!("\"{}\"", "a".repeat(3 * 1024 * 1024));
    for seconds in [-9, -8, -7] {
        delayed(&database, NewEvent { body: body.clone(), ..timed() }, seconds).await;
    }
    assert_eq!(open_all(&database.store).await.0.len(), 2, "8 MiB");
    delayed(&database, NewEvent { body: format!("\"{}\"", "a".repeat(9 * 1024 * 1024)), ..timed() }, -10).await;
    assert_eq!(open_all(&database.store).await.0.len(), 1, "a body beyond the bound");
    delayed(&database, timed(), -1).await;
    let (one, _) = look(&database.store, 1, |_| DuePlan::Drop).await;
    assert_eq!((one.len(), database.count("delayed_events").await), (1, 1));
}

#[tokio::test]
async fn replicas_share_due_events_and_a_dead_replica_leaves_them() {
    let database = Database::new().await;
    for _ in 0..20 {
        delayed(&database, timed(), -1).await;
    }
    let dead = database.connect().await;
    dead.batch_execute("BEGIN; SELECT FROM delayed_events ORDER BY due_at LIMIT 5 FOR UPDATE").await.expect("locks");
    let mut looks = Vec::new();
    for _ in 0..4 {
        let store = database.another_store();
        looks.push(tokio::spawn(async move { open_all(&store).await.0.len() }));
    }
    let mut opened = 0;
    for look in looks {
        opened += look.await.expect("a task");
    }
    assert_eq!((opened, database.count("open_deliveries").await), (15, 15));
    drop(dead);
    while database.count("delayed_events").await > 0 {
        open_all(&database.store).await;
    }
    assert_eq!((database.count("open_deliveries").await, database.count("events").await), (20, 20));
}

#[tokio::test]
async fn a_cancellation_ends_the_delay_once() {
    let database = Database::new().await;
    let later = delayed(&database, keyed("cancelled"), 60).await;
    let Cancellation::Done(at) = cancel(&database.store, later.event.id).await else { panic!("not cancelled") };
    assert_eq!(cancel(&database.store, later.event.id).await, Cancellation::Before(at));
    let shown = row(&database, later.event.id).await;
    assert_eq!((shown.is_delayed, shown.cancelled_at, shown.cancelled_by.as_deref()), (false, Some(at), Some("key_1")));
    assert_eq!(shown.key.as_deref(), Some("cancelled"));
    assert_eq!(database.count("delayed_events").await, 0);
    // The key stays used.
    assert_eq!(database.store.persist(ONE, &[&keyed("cancelled")]).await.expect("a commit").new.len(), 0);

    let ordinary = timed();
    database.store.persist(ONE, &[&ordinary]).await.expect("a commit");
    assert_eq!(cancel(&database.store, ordinary.event.id).await, Cancellation::TooLate);
    let due = delayed(&database, timed(), -1).await;
    open_all(&database.store).await;
    assert_eq!(cancel(&database.store, due.event.id).await, Cancellation::TooLate);
    assert_eq!(cancel(&database.store, timed().event.id).await, Cancellation::NoSuchEvent);
    assert_eq!(cancel(&database.store, keyed("nobody").event.id).await, Cancellation::NoSuchEvent);
    let other = ApplicationId(Uuid::from_u128(0xb));
    let foreign = delayed(&database, timed(), 60).await;
    let answer = database.store.cancel_event(other, foreign.event.id, "key_2").await.expect("a look");
    assert_eq!(answer, Cancellation::NoSuchEvent);
    assert!(row(&database, foreign.event.id).await.is_delayed);
}

#[tokio::test]
async fn of_a_cancellation_and_a_due_look_one_wins() {
    let database = Database::new().await;
    for _ in 0..30 {
        let due = delayed(&database, timed(), 0).await;
        let stores = [database.another_store(), database.another_store()];
        let [looking, cancelling] = stores;
        let id = due.event.id;
        let (opened, cancelled) = tokio::join!(
            tokio::spawn(async move { open_all(&looking).await.1.new.len() }),
            tokio::spawn(async move { cancel(&cancelling, id).await })
        );
        let (opened, cancelled) = (opened.expect("a task"), cancelled.expect("a task"));
        match cancelled {
            Cancellation::Done(_) => assert_eq!(opened, 0),
            Cancellation::TooLate => assert_eq!(opened, 1),
            other => panic!("{other:?}"),
        }
        assert_eq!(row(&database, id).await.cancelled_at.is_some(), opened == 0);
        assert_eq!(database.count("delayed_events").await, 0);
        assert_eq!(database.count("open_deliveries").await, i64::try_from(opened).expect("a count"));
        database.run("DELETE FROM open_deliveries").await;
    }
}

#[tokio::test]
async fn a_cancellation_waits_for_the_look_that_holds_the_event() {
    let database = Database::new().await;
    let due = delayed(&database, timed(), 60).await;
    let look = database.connect().await;
    look.batch_execute("BEGIN; DELETE FROM delayed_events").await.expect("a lock");
    let (store, id) = (database.another_store(), due.event.id);
    let cancelling = tokio::spawn(async move { cancel(&store, id).await });
    database.await_waiting(1).await;
    look.batch_execute("COMMIT").await.expect("a commit");
    assert_eq!(cancelling.await.expect("a task"), Cancellation::TooLate);
    assert!(row(&database, id).await.cancelled_at.is_none());
}

#[tokio::test]
async fn an_erased_event_and_an_event_past_its_retention_are_never_opened() {
    let database = Database::new().await;
    let erased = delayed(&database, timed(), -1).await;
    assert_eq!(database.store.erase_event(APPLICATION, erased.event.id).await.expect("a commit"), Erasure::Done);
    assert_eq!(database.count("delayed_events").await, 0);
    assert_eq!(cancel(&database.store, erased.event.id).await, Cancellation::TooLate);

    // The previous release erases without a look at the delay.
    delayed(&database, timed(), -1).await;
    database.run("UPDATE events SET erased_at = now(), body = ''").await;
    let lost = delayed(&database, timed(), -1).await;
    database.rows("DELETE FROM events WHERE id = $1", &[&lost.event.id.0]).await;
    let (events, opened) = open_all(&database.store).await;
    assert!(events.iter().all(|event| matches!(event.content, DueContent::Gone)), "{events:?}");
    assert_eq!((events.len(), opened.new.len()), (2, 0));
    assert_eq!((database.count("delayed_events").await, database.count("open_deliveries").await), (0, 0));
}

#[tokio::test]
async fn a_released_event_rests_or_is_due_again() {
    let database = Database::new().await;
    let due = delayed(&database, timed(), -100).await;
    let taken = database.store.take_due(10).await.expect("a commit");
    database.store.release_due(&[&taken[0]], None).await.expect("a commit");
    let again = database.store.take_due(10).await.expect("a commit");
    assert_eq!(again.len(), 1);
    database.store.release_due(&[&taken[0]], None).await.expect("a commit");
    assert_eq!(database.store.take_due(10).await.expect("a commit").len(), 0, "the first lease has ended");

    let bounds = |shortest, longest| Some((Duration::from_secs(shortest), Duration::from_secs(longest)));
    database.store.release_due(&[&again[0]], bounds(10, 600)).await.expect("a commit");
    assert_eq!(open_all(&database.store).await.0.len(), 0);
    let waits = "SELECT extract(epoch FROM leased_until - now())::bigint FROM delayed_events";
    let wait: i64 = database.rows(waits, &[]).await[0].get(0);
    assert!((99..=101).contains(&wait), "{wait}: the time overdue");
    let shown = row(&database, due.event.id).await;
    assert_eq!((shown.is_delayed, shown.deliver_at), (true, due.due_at));
    assert_eq!(database.store.census().await.expect("counts").overdue, 1, "a lease hides no stuck event");
    let newer = delayed(&database, timed(), -1).await;
    end_leases(&database).await;
    let (events, opened) = open_all(&database.store).await;
    let order: Vec<EventId> = events.into_iter().map(|event| event.id).collect();
    assert_eq!((order, opened.new.len()), (vec![due.event.id, newer.event.id], 2), "the earliest first");
}

#[tokio::test]
async fn a_lease_that_has_ended_opens_nothing_and_a_cancellation_ends_a_lease() {
    let database = Database::new().await;
    let (late, cancelled) = (delayed(&database, timed(), -2).await, delayed(&database, timed(), -1).await);
    let plan = |event: DueEvent| (event.clone(), open_one(&event));
    let planned: Vec<_> = database.store.take_due(10).await.expect("a commit").into_iter().map(plan).collect();
    assert_eq!(database.store.take_due(10).await.expect("a commit").len(), 0, "leased");
    assert!(matches!(cancel(&database.store, cancelled.event.id).await, Cancellation::Done(_)));
    end_leases(&database).await;
    let next = database.store.take_due(10).await.expect("a commit");
    assert_eq!((next.len(), next[0].id), (1, late.event.id));
    assert_eq!(database.store.open_due(TWO, &planned).await.expect("a commit").new.len(), 0);
    assert_eq!(database.count("open_deliveries").await, 0);
    let planned: Vec<_> = next.into_iter().map(plan).collect();
    assert_eq!(database.store.open_due(ONE, &planned).await.expect("a commit").new.len(), 1);
    assert_eq!((database.count("open_deliveries").await, database.count("delayed_events").await), (1, 0));
}

#[tokio::test]
async fn neither_a_replay_nor_a_request_sends_an_event_early() {
    let database = Database::new().await;
    let (later, cancelled) = (delayed(&database, timed(), 60).await, delayed(&database, timed(), 60).await);
    let due = delayed(&database, timed(), -1).await;
    let ordinary = timed();
    database.store.persist(ONE, &[&ordinary]).await.expect("a commit");
    cancel(&database.store, cancelled.event.id).await;
    open_all(&database.store).await;
    let send = async |new: &NewEvent| {
        let lifetime = Duration::from_secs(60);
        database.store.send_event(APPLICATION, new.event.id, endpoint(5), lifetime).await.expect("a commit")
    };
    assert_eq!((send(&later).await, send(&cancelled).await), (Opened::Delayed, Opened::Cancelled));
    assert!(matches!(send(&due).await, Opened::Queued(_)));
    let past = database.store.past_events(&replay(), None, 100, false).await.expect("a look");
    let mut past: Vec<EventId> = past.into_iter().map(|event| event.id).collect();
    past.sort_unstable();
    let mut wanted = vec![due.event.id, ordinary.event.id];
    wanted.sort_unstable();
    assert_eq!(past, wanted);
}

fn replay() -> NewReplay {
    NewReplay {
        id: ReplayId(Uuid::from_u128(8)),
        application: APPLICATION,
        endpoint: None,
        event_types: Vec::new(),
        states: vec![Replayed::Unmatched],
        since: moment(60),
        until: moment(0) + Duration::from_secs(60),
        rate_per_second: 10,
    }
}

#[tokio::test]
async fn lists_tell_delayed_and_cancelled_events_from_unmatched_events() {
    let database = Database::new().await;
    let (later, cancelled) = (delayed(&database, timed(), 60).await, delayed(&database, timed(), 60).await);
    let unmatched = timed();
    database.store.persist(ONE, &[&unmatched]).await.expect("a commit");
    cancel(&database.store, cancelled.event.id).await;
    let list = async |filter: EventFilter| {
        let filter = EventFilter { limit: 10, ..filter };
        let page = database.store.events(APPLICATION, &filter).await.expect("a page");
        page.events.into_iter().map(|event| event.id).collect::<Vec<_>>()
    };
    let none = EventFilter::default();
    assert_eq!(list(EventFilter { is_unmatched: true, ..none.clone() }).await, [unmatched.event.id]);
    assert_eq!(list(EventFilter { is_delayed: true, ..none.clone() }).await, [later.event.id]);
    assert_eq!(list(EventFilter { is_cancelled: true, ..none.clone() }).await, [cancelled.event.id]);
    assert_eq!(list(EventFilter { is_cancelled: true, is_delayed: true, ..none.clone() }).await, []);
    assert_eq!(list(none).await.len(), 3);
}
