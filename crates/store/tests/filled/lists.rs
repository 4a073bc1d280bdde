//! Lists over an application with 200,000 finished and 22,000 open deliveries: results, and buffers touched by a page.

use std::{collections::HashMap, time::Duration};

use fanfare_domain::{
    delivery::{
        State,
        feed::FeedPlace,
        replay::{ReplayState, Replayed},
    },
    event::subscription::Subscription,
    ids::{DeliveryId, EndpointId, EventId},
};
use fanfare_store::{
    AttemptFilter, DeliveryFilter, DeliveryRow, EventFilter, EventPlace, FeedRange, NewReplay, ResendFilter, Step,
    Store, Wanted,
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::database::{APPLICATION, Database};

/// Finished deliveries; each tenth has failed.
pub(super) const FINISHED: u32 = 200_000;

/// Maximum of buffers touched by a page.
pub(super) const MAX_BUFFERS: i64 = 2_000;

pub(super) const HEALTHY: EndpointId = EndpointId(Uuid::from_u128(1));
pub(super) const OTHER: EndpointId = EndpointId(Uuid::from_u128(2));
pub(super) const DEAD: EndpointId = EndpointId(Uuid::from_u128(3));
pub(super) const PAUSED: EndpointId = EndpointId(Uuid::from_u128(4));

/// Acceptance of delivery 0; each following delivery was accepted 10 ms later.
const FIRST_MS: i64 = 1_790_000_000_000;
const STEP_MS: i64 = 10;

const LOAD: &str = r"
CREATE FUNCTION event_id(i int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
    $$ SELECT (lpad(to_hex({FIRST} + i::bigint * {STEP}), 12, '0') || '70008000' || lpad(to_hex(i), 12, '0'))::uuid $$;
CREATE FUNCTION delivery_id(i int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
    $$ SELECT (lpad(to_hex({FIRST} + i::bigint * {STEP}), 12, '0') || '80008000' || lpad(to_hex(i), 12, '0'))::uuid $$;
CREATE FUNCTION moment(i int) RETURNS timestamptz LANGUAGE sql IMMUTABLE AS
    $$ SELECT to_timestamp(({FIRST} + i::bigint * {STEP}) / 1000.0) $$;
CREATE FUNCTION endpoint(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
    $$ SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid $$;
UPDATE endpoints SET status = 'paused' WHERE id = endpoint(4);
INSERT INTO events (id, accepted_at, application_id, type, body, matches, traceparent)
    SELECT event_id(i), moment(i), endpoint(10), CASE WHEN i = 5 THEN 'rare' ELSE 'usual' END, repeat('x', 440), 1, ''
    FROM generate_series(0, {FINISHED} + 30000) i;
INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, reason, attempt, failures, url, started_at,
                        duration_ms, status, response_headers, response_body)
    SELECT endpoint(10), delivery_id(i), event_id(i), endpoint(1 + i % 2),
           CASE WHEN i % 10 = 0 THEN 'failed' ELSE 'delivered' END, CASE WHEN i % 10 = 0 THEN 'rejected' END,
           CASE WHEN i % 10 = 0 THEN 2 ELSE 1 END, CASE WHEN i % 10 = 0 THEN 2 ELSE 0 END,
           CASE WHEN i % 10 > 0 THEN 'https://a.example/' END, CASE WHEN i % 10 > 0 THEN moment(i) + interval '3 ms' END,
           5, CASE WHEN i % 10 > 0 THEN 204 END, '{}', NULL
    FROM generate_series(0, {FINISHED} - 1) i;
INSERT INTO attempts (delivery_id, attempt, event_id, application_id, endpoint_id, url, started_at, duration_ms, outcome, status,
                      is_test)
    SELECT delivery_id(i), n, event_id(i), endpoint(10), endpoint(1 + i % 2), 'https://a.example/',
           moment(i) + n * interval '60 s', 5, 'answered', 500 + n, i % 30 = 0
    FROM generate_series(0, {FINISHED} - 1, 10) i, generate_series(1, 2) n;
INSERT INTO feed_entries (endpoint_id, written, id, application_id, event_id)
    SELECT endpoint(1 + i % 2), 10 + i / 1000, delivery_id(i), endpoint(10), event_id(i)
    FROM generate_series(0, {FINISHED} - 1) i;
INSERT INTO open_deliveries (id, event_id, application_id, endpoint_id, state, reason, listed, attempt, due_at, expires_at)
    SELECT delivery_id({FINISHED} + i), event_id({FINISHED} + i), endpoint(10), endpoint(e), state, reason, listed, attempt,
           due_at, now() + interval '1 day'
    FROM (SELECT i, 3 AS e, 'queued' AS state, 'breaker_open' AS reason, true AS listed, 1 AS attempt, NULL::timestamptz AS due_at
          FROM generate_series(3000, 22999) i
          UNION ALL
          SELECT i, 2, 'scheduled', NULL, true, 2, now() + interval '1 h' FROM generate_series(0, 1999) i
          UNION ALL
          SELECT i, 4, 'queued', 'paused', true, 1, NULL FROM generate_series(2000, 2499) i
          UNION ALL
          SELECT i, 1, 'sending', NULL, i % 2 = 0, 1, NULL FROM generate_series(2500, 2599) i) rows;
INSERT INTO endpoint_backlogs (endpoint_id, application_id, reason, next_look) VALUES
    (endpoint(3), endpoint(10), 'breaker_open', now() + interval '1 minute'),
    (endpoint(4), endpoint(10), 'paused', now() + interval '5 minutes');
ANALYZE;
";

/// Runs a query. Returns the result, and the number of touched buffers.
pub(super) async fn measured<T>(loaded: &Database, look: impl AsyncFnOnce(Store) -> T) -> (T, i64) {
    let (found, touched) = loaded.measured(look).await;
    (found, touched.buffers)
}

pub(super) async fn load() -> Database {
    let database = Database::fresh().await;
    let first = Timestamp::from_millisecond(FIRST_MS).expect("a moment");
    database.store.create_partitions(first).await.expect("partitions");
    database.without_autovacuum().await;
    let values =
        [("{FIRST}", FIRST_MS.to_string()), ("{STEP}", STEP_MS.to_string()), ("{FINISHED}", FINISHED.to_string())];
    let load = values.iter().fold(LOAD.to_owned(), |text, (name, value)| text.replace(name, value));
    database.run(&load).await;
    database
}

pub(super) fn delivery(i: u32) -> DeliveryId {
    id(i, 0x8000).map(DeliveryId).expect("an id")
}

pub(super) fn event(i: u32) -> EventId {
    id(i, 0x7000).map(EventId).expect("an id")
}

fn id(i: u32, version: u128) -> Option<Uuid> {
    let moment = u128::try_from(FIRST_MS + i64::from(i) * STEP_MS).ok()?;
    Some(Uuid::from_u128(moment << 80 | version << 64 | 0x8000 << 48 | u128::from(i)))
}

#[tokio::test]
async fn lists_show_each_delivery_once_and_read_a_page() {
    let loaded = load().await;
    deliveries(&loaded).await;
    attempts(&loaded).await;
    events(&loaded).await;
    resend(&loaded).await;
    replay(&loaded).await;
    feed(&loaded).await;
    erase(&loaded).await;
    attempts_of_slow_receivers(&loaded).await;
}

async fn page(loaded: &Database, name: &str, filter: DeliveryFilter) -> Vec<DeliveryRow> {
    let filter = DeliveryFilter { limit: 51, ..filter };
    let (rows, buffers) = measured(loaded, async |store| store.deliveries(APPLICATION, &filter).await).await;
    println!("{name}: {buffers} buffers");
    assert!(buffers <= MAX_BUFFERS, "{name}: {buffers} buffers");
    let rows = rows.expect(name).deliveries;
    assert!(rows.is_sorted_by(|row, next| row.id > next.id), "{name}: newest first, and once each");
    rows
}

/// Pages at the beginning, in the middle and at the end of a feed. The numbers of the entries' transactions are small:
/// all have ended.
async fn feed(loaded: &Database) {
    for (first, count) in [(0, 50), (100_000, 50), (FINISHED - 2, 1), (FINISHED, 0)] {
        let after =
            first.checked_sub(2).map(|i| FeedPlace { written: i64::from(10 + i / 1000), delivery: delivery(i) });
        let (page, buffers) =
            measured(loaded, async |store| store.feed(HEALTHY, FeedRange { after, day: None }, 50).await).await;
        println!("feed from {first}: {buffers} buffers");
        assert!(buffers <= MAX_BUFFERS, "feed from {first}: {buffers} buffers");
        let entries = page.expect("a page").entries;
        let wanted: Vec<EventId> = (0..count).map(|n| event(first + 2 * n)).collect();
        assert_eq!(entries.iter().map(|entry| entry.event).collect::<Vec<_>>(), wanted, "feed from {first}");
    }
}

async fn deliveries(loaded: &Database) {
    let unfiltered = DeliveryFilter::default;
    let newest = page(loaded, "newest", unfiltered()).await;
    assert_eq!((newest.len(), newest[0].id, newest[0].state), (51, delivery(FINISHED + 22_999), State::Queued));
    let middle =
        page(loaded, "middle", DeliveryFilter { before: Some(delivery(100_001)), with_bodies: true, ..unfiltered() })
            .await;
    assert_eq!(
        (middle[0].id, middle[0].state, middle[0].response_status),
        (delivery(100_000), State::Failed, Some(502))
    );
    assert_eq!((middle[1].attempts, middle[1].response_status), (1, Some(204)));
    assert_eq!(middle[1].body.as_deref().map(str::len), Some(440));
    for state in State::ALL {
        for endpoint in [None, Some(HEALTHY), Some(OTHER), Some(DEAD), Some(PAUSED)] {
            let filter = DeliveryFilter { states: vec![state], endpoint, ..unfiltered() };
            let rows = page(loaded, &format!("{} of {endpoint:?}", state.as_str()), filter).await;
            assert!(rows.iter().all(|row| row.state == state && endpoint.is_none_or(|id| id == row.endpoint)));
            let is_expected = match endpoint {
                None => true,
                Some(HEALTHY) => matches!(state, State::Sending | State::Delivered | State::Failed),
                Some(OTHER) => matches!(state, State::Scheduled | State::Delivered),
                Some(DEAD) => state == State::Queued,
                _ => state == State::Held,
            };
            assert_eq!(!rows.is_empty(), is_expected && state != State::Skipped, "{state:?} of {endpoint:?}");
        }
    }
    for endpoint in [HEALTHY, OTHER, DEAD, PAUSED] {
        page(loaded, &format!("all of {endpoint}"), DeliveryFilter { endpoint: Some(endpoint), ..unfiltered() }).await;
    }
    let of_event = DeliveryFilter { event: Some(event(FINISHED + 2501)), ..unfiltered() };
    assert_eq!(page(loaded, "an event's", of_event).await[0].state, State::Sending, "not listed, and shown");
    let store = loaded.another_store();
    let (row, attempts) = store.delivery(APPLICATION, delivery(7)).await.expect("a look").expect("a delivery");
    assert_eq!((row.state, row.response_status, attempts.len()), (State::Delivered, Some(204), 1));
    let (row, attempts) = store.delivery(APPLICATION, delivery(10)).await.expect("a look").expect("a delivery");
    assert_eq!((row.attempts, row.response_status, attempts.len()), (2, Some(502), 2));
    let held = store.held(PAUSED, 400).await.expect("a look");
    assert_eq!(held.deliveries, 400);
    assert_eq!(held.oldest_accepted_at, Some(delivery(FINISHED + 2000).accepted_at()));
}

async fn attempts(loaded: &Database) {
    for (name, endpoint, event) in
        [("all", None, None), ("one endpoint's", Some(OTHER), None), ("one event's", None, Some(event(10)))]
    {
        let mut filter = AttemptFilter { endpoint, event, limit: 40, ..AttemptFilter::default() };
        let mut seen = Vec::new();
        for _ in 0..5 {
            let (rows, buffers) = measured(loaded, async |store| store.attempt_log(APPLICATION, &filter).await).await;
            println!("attempts, {name}: {buffers} buffers");
            assert!(buffers <= MAX_BUFFERS, "attempts, {name}: {buffers} buffers");
            let rows = rows.expect(name);
            filter.before = rows.last().map(|row| row.place.to_string().parse().expect("a place"));
            seen.extend(rows.iter().map(|row| row.place));
            if rows.len() < 40 {
                break;
            }
        }
        assert!(seen.is_sorted_by(|place, next| place > next), "{name}: newest first, and once each");
        assert_eq!(seen.len(), if event.is_some() { 2 } else { 200 }, "{name}");
    }
    attempts_of_a_time(loaded).await;
    let (last, buffers) = measured(loaded, async |store| store.last_attempts(APPLICATION, HEALTHY, 5).await).await;
    println!("last attempts: {buffers} buffers");
    assert!(buffers <= MAX_BUFFERS);
    let last = last.expect("a look");
    assert!(last.len() == 5 && last.is_sorted_by(|row, next| row.attempt.started_at >= next.attempt.started_at));
}

/// Reads the attempts of a minute, page by page, and compares with all attempts.
async fn attempts_of_a_time(loaded: &Database) {
    let page = async |filter: &AttemptFilter| {
        let (rows, buffers) = measured(loaded, async |store| store.attempt_log(APPLICATION, filter).await).await;
        println!("attempts of a time: {buffers} buffers");
        assert!(buffers <= MAX_BUFFERS, "attempts of a time: {buffers} buffers");
        rows.expect("a look")
    };
    let newest = page(&AttemptFilter { limit: 100, ..AttemptFilter::default() }).await;
    let mut started: Vec<_> = newest.iter().map(|row| row.attempt.started_at).collect();
    started.sort();
    let (since, until) = (started[20], started[80]);
    let mut filter = AttemptFilter {
        since: Some(since),
        until: Some(until),
        without_tests: true,
        limit: 25,
        ..AttemptFilter::default()
    };
    let mut seen = Vec::new();
    loop {
        let rows = page(&filter).await;
        filter.before = rows.last().map(|row| row.place);
        seen.extend(rows.iter().map(|row| row.attempt.started_at));
        if rows.len() < 25 {
            break;
        }
    }
    assert!(seen.iter().all(|at| *at >= since && *at < until));
    let expected = format!(
        "(SELECT started_at, is_test FROM attempts UNION ALL
          SELECT started_at, false FROM deliveries WHERE started_at IS NOT NULL) AS both_tables
         WHERE started_at >= '{since}' AND started_at < '{until}'"
    );
    assert_eq!(seen.len() as i64, loaded.count(&format!("{expected} AND NOT is_test")).await);
    assert!(loaded.count(&format!("{expected} AND is_test")).await > 5, "the time has test attempts");
}

/// Reads a log without inline successes: all attempts are rows of `attempts`.
async fn attempts_of_slow_receivers(loaded: &Database) {
    loaded
        .run(
            "INSERT INTO attempts (delivery_id, attempt, event_id, application_id, endpoint_id, url, started_at, duration_ms,
                                   outcome, status)
                 SELECT id, attempt, event_id, application_id, endpoint_id, url, started_at, 11000, 'answered', status
                 FROM deliveries WHERE started_at IS NOT NULL;
             UPDATE deliveries SET started_at = NULL;",
        )
        .await;
    loaded.run("VACUUM ANALYZE deliveries, attempts").await;
    let filter = AttemptFilter { endpoint: Some(HEALTHY), limit: 100, ..AttemptFilter::default() };
    let (log, of_log) = measured(loaded, async |store| store.attempt_log(APPLICATION, &filter).await).await;
    let (last, of_last) = measured(loaded, async |store| store.last_attempts(APPLICATION, HEALTHY, 100).await).await;
    println!("attempts without an inline success: {of_log} buffers; the last: {of_last} buffers");
    assert!(of_log <= MAX_BUFFERS && of_last <= MAX_BUFFERS);
    assert_eq!((log.expect("a look").len(), last.expect("a look").len()), (100, 100));
}

async fn events(loaded: &Database) {
    let types = |text: &str| Some(Subscription::parse(text).expect("a type"));
    let mut passed = Vec::new();
    for (name, filter) in [
        ("all", EventFilter::default()),
        ("usual", EventFilter { event_type: types("usual"), ..EventFilter::default() }),
        ("rare", EventFilter { event_type: types("rare"), ..EventFilter::default() }),
        ("of a prefix", EventFilter { event_type: types("rare.*"), ..EventFilter::default() }),
        ("unmatched", EventFilter { is_unmatched: true, ..EventFilter::default() }),
    ] {
        let filter = EventFilter { limit: 51, ..filter };
        let (page, buffers) = measured(loaded, async |store| store.events(APPLICATION, &filter).await).await;
        println!("events, {name}: {buffers} buffers");
        assert!(buffers <= MAX_BUFFERS);
        let page = page.expect("a look");
        assert!(page.events.is_sorted_by(|row, next| row.accepted_at > next.accepted_at), "{name}");
        assert_eq!(page.events.len(), if ["all", "usual"].contains(&name) { 51 } else { 0 }, "{name}");
        passed.extend(page.passed);
    }
    let behind = event(FINISHED + 30_000 - 9_999);
    assert_eq!(passed, [EventPlace { accepted_at: behind.accepted_at().expect("a moment"), event: behind }; 3]);
    let store = loaded.another_store();
    let place = async |i: u32| store.event_place(APPLICATION, event(i)).await.expect("a look");
    let ids = async |filter: EventFilter| {
        let page = store.events(APPLICATION, &EventFilter { limit: 51, ..filter }).await.expect("a look");
        assert_eq!(page.passed, None);
        page.events.iter().map(|row| row.id).collect::<Vec<_>>()
    };
    let rare = EventFilter { event_type: types("rare"), before: place(6_000).await, ..EventFilter::default() };
    assert_eq!(ids(rare.clone()).await, [event(5)]);
    let moment = |i: u32| event(i).accepted_at();
    let range = EventFilter { since: moment(3), until: moment(6), ..EventFilter::default() };
    assert_eq!(ids(range.clone()).await, [event(5), event(4), event(3)]);
    assert_eq!(ids(EventFilter { event_type: types("rare"), ..range.clone() }).await, [event(5)]);
    assert_eq!(ids(EventFilter { after: place(4).await, ..range.clone() }).await, [event(5)]);
    assert_eq!(ids(EventFilter { only: place(4).await, ..range.clone() }).await, [event(4)]);
    assert_eq!(ids(EventFilter { only: place(7).await, ..range }).await, []);
    let page = store.events(APPLICATION, &EventFilter { limit: 1, ..rare }).await.expect("a look");
    assert!(page.events[0].fanned_out);
}

/// Attempt, `finished_once` and class of a queued delivery.
async fn queued(loaded: &Database, i: u32) -> Option<(i32, bool, i16)> {
    let statement = "SELECT attempt, finished_once, class FROM open_deliveries WHERE id = $1 AND state = 'queued'";
    let row = loaded.client.query_opt(statement, &[&delivery(i).0]).await.expect("a look");
    row.map(|row| (row.get(0), row.get(1), row.get(2)))
}

async fn resend(loaded: &Database) {
    let store = loaded.another_store();
    let lifetimes = HashMap::from([(HEALTHY, Duration::from_secs(3600))]);
    let named = |ids: &[u32]| ResendFilter {
        deliveries: Some(ids.iter().map(|&i| delivery(i)).collect()),
        states: vec![State::Scheduled, State::Queued, State::Held, State::Delivered, State::Failed, State::Skipped],
        limit: 10,
        ..ResendFilter::default()
    };
    let send = async |filter: &ResendFilter| {
        let resent = store.resend(APPLICATION, filter, &lifetimes, Duration::from_secs(7200)).await.expect("a resend");
        resent.iter().map(|resent| (resent.delivery, resent.attempt)).collect::<Vec<_>>()
    };
    // Delivered, failed, scheduled, sending, held.
    let ids = [7, 10, FINISHED, FINISHED + 2500, FINISHED + 2000];
    let expected = [(delivery(FINISHED + 2000), 1), (delivery(FINISHED), 2), (delivery(10), 3), (delivery(7), 2)];
    assert_eq!(send(&named(&ids)).await, expected);
    assert_eq!((queued(loaded, 7).await, queued(loaded, FINISHED).await), (Some((2, true, 0)), Some((2, false, 0))));
    assert_eq!(send(&named(&ids)).await, expected, "queued deliveries stay unchanged");
    let backlogs = "SELECT count(*) FROM endpoint_backlogs WHERE owner IS NULL AND next_look <= now()";
    assert_eq!(loaded.client.query_one(backlogs, &[]).await.expect("a look").get::<_, i64>(0), 2);
    let (row, attempts) = store.delivery(APPLICATION, delivery(7)).await.expect("a look").expect("a delivery");
    assert_eq!((row.state, row.attempts, row.response_status, attempts.len()), (State::Queued, 1, Some(204), 1));
    let filter = DeliveryFilter { before: Some(delivery(11)), ..DeliveryFilter::default() };
    let rows = page(loaded, "with resent ones", filter).await;
    assert_eq!((rows.len(), rows[0].state, rows[0].attempts, rows[3].state), (11, State::Queued, 2, State::Queued));
    let failed = ResendFilter { states: vec![State::Failed], limit: 1000, ..ResendFilter::default() };
    let began = std::time::Instant::now();
    let (count, again) = (send(&failed).await.len(), send(&failed).await.len());
    assert!(began.elapsed() < Duration::from_secs(5), "{:?}", began.elapsed());
    assert_eq!((count, again), (1000, 1000), "others each time");
    loaded.client.batch_execute("UPDATE retention SET line = moment(100)").await.expect("a line");
    assert_eq!(send(&named(&[20])).await, [], "below the line of retention");
    loaded.client.batch_execute("UPDATE retention SET line = '-infinity'").await.expect("a line");
}

async fn replay(loaded: &Database) {
    let store = loaded.another_store();
    let moment = |i: u32| delivery(i).accepted_at();
    let new = NewReplay {
        id: fanfare_domain::ids::ReplayId(Uuid::from_u128(77)),
        application: APPLICATION,
        endpoint: None,
        event_types: Vec::new(),
        states: vec![Replayed::In(State::Failed), Replayed::Unmatched],
        since: moment(30),
        until: moment(41),
        rate_per_second: 10,
    };
    let replay = store.create_replay(&new, 5).await.expect("a replay").expect("room");
    let events = store.past_events(&replay.of, None, 100, false).await.expect("events");
    assert_eq!(events.len(), 11);
    let expires_at = store.now();
    let wanted = |i: u32, endpoint| Wanted { event: event(i), accepted_at: moment(i), endpoint, expires_at };
    // `LOAD` numbers its deliveries without `DeliveryId::derive`: the replay finds none of them, and inserts its own.
    let candidates: Vec<Wanted> = (30..41).map(|i| wanted(i, OTHER)).collect();
    assert_eq!(store.still_wanted(&new, &candidates).await.expect("a look").len(), 11);
    let step = Step { from: None, reached: Some((moment(40), event(40))), events: 11, is_last: true };
    let advanced = store.advance_replay(&new, step, &candidates, None).await.expect("a step").expect("progress");
    assert_eq!((advanced.queued, advanced.backlogs.len()), (11, 1));
    assert!(store.advance_replay(&new, step, &candidates, None).await.expect("no step").is_none());
    assert_eq!(store.queued_of_replay(new.id, 100).await.expect("a look"), 11);
    assert!(store.still_wanted(&new, &candidates).await.expect("a look").is_empty(), "the deliveries are open");
    let done = store.replay(APPLICATION, new.id).await.expect("a look").expect("a replay");
    assert_eq!((done.state, done.deliveries, done.events), (ReplayState::Done, 11, 11));
    // The first delivery has finished since: another replay continues with the next number.
    let finish = "WITH gone AS (DELETE FROM open_deliveries WHERE id = $1 RETURNING *)
                  INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, attempt, failures)
                  SELECT application_id, id, event_id, endpoint_id, 'failed', 6, 6 FROM gone";
    let id = DeliveryId::derive(moment(30), event(30), OTHER);
    loaded.client.execute(finish, &[&id.0]).await.expect("a finished delivery");
    let new = NewReplay { id: fanfare_domain::ids::ReplayId(Uuid::from_u128(78)), ..new };
    store.create_replay(&new, 5).await.expect("a replay").expect("room");
    assert_eq!(store.still_wanted(&new, &candidates).await.expect("a look").len(), 1);
    let advanced = store.advance_replay(&new, step, &candidates[..1], None).await.expect("a step").expect("progress");
    assert_eq!((advanced.queued, advanced.backlogs.len()), (1, 1));
    let row = "SELECT attempt, finished_once, class FROM open_deliveries WHERE id = $1";
    let row = loaded.client.query_one(row, &[&id.0]).await.expect("an open row");
    assert_eq!((row.get::<_, i32>(0), row.get::<_, bool>(1), row.get::<_, i16>(2)), (7, true, 1));
}

async fn erase(loaded: &Database) {
    use fanfare_store::Erasure;
    let store = loaded.another_store();
    let erase = async |i: u32| store.erase_event(APPLICATION, event(i)).await.expect("an erasure");
    assert_eq!(erase(FINISHED + 2500).await, Erasure::UnderWay);
    // Delivery 10 had failed and was resent. The held delivery was resent before its first attempt.
    assert_eq!(
        (erase(10).await, erase(FINISHED + 2000).await, erase(9).await),
        (Erasure::Done, Erasure::Done, Erasure::Done)
    );
    for (i, attempts) in [(10, 2), (FINISHED + 2000, 0)] {
        let (row, made) = store.delivery(APPLICATION, delivery(i)).await.expect("a look").expect("a delivery");
        assert_eq!((row.state, row.reason.as_deref(), row.body), (State::Failed, Some("erased"), None));
        assert_eq!((row.attempts, made.len()), (attempts, attempts as usize));
    }
    let (_, made) = store.delivery(APPLICATION, delivery(9)).await.expect("a look").expect("a delivery");
    assert_eq!(made[0].response_headers, None);
    let filter = ResendFilter {
        deliveries: Some(vec![delivery(9)]),
        states: vec![State::Delivered],
        limit: 1,
        ..ResendFilter::default()
    };
    let resent = store.resend(APPLICATION, &filter, &HashMap::new(), Duration::ZERO).await.expect("a resend");
    assert!(resent.is_empty(), "nothing is left to send");
}
