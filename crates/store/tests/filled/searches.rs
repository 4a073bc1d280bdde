//! Searches by bounded steps, and counts, over the deliveries of `lists`: results, and buffers touched by a step.

use std::{
    pin::Pin,
    time::{Duration, Instant},
};

use fanfare_domain::{
    delivery::State,
    event::subscription::Subscription,
    ids::{AttemptId, DeliveryId, EventId},
};
use fanfare_store::{
    CountFilter, DeliveryFilter, DeliveryPage, Hit, ParkedFilter, ResendFilter, Searched, StateCount, Store, StoreError,
};
use jiff::Timestamp;

use super::lists::{DEAD, FINISHED, HEALTHY, MAX_BUFFERS, OTHER, PAUSED, delivery, event, load, measured};
use crate::database::{APPLICATION, Database};

/// Maximum of buffers touched by a step of a search.
const MAX_STEP: i64 = 100_000;

/// Answers with texts, and an erased event.
const TEXTS: &str = r"
UPDATE deliveries SET response_body = 'inline needle' WHERE id = delivery_id(101001);
UPDATE attempts SET response_body = 'first needle' WHERE delivery_id = delivery_id(101010) AND attempt = 1;
UPDATE events SET body = repeat('x', 8000) || 'needle' WHERE id = event_id(101020);
UPDATE events SET body = repeat('x', 9000) || 'needle' WHERE id = event_id(101021);
UPDATE events SET body = 'needle', erased_at = now() WHERE id = event_id(101022);
UPDATE events SET body = 'shown', body_ciphertext = 'needle', body_key_name = 'key' WHERE id = event_id(101023);
UPDATE events SET type = 'rare.one' WHERE id IN (event_id(101030), event_id(101031));
INSERT INTO open_deliveries (id, event_id, application_id, endpoint_id, state, reason, listed, finished_once, attempt,
                             expires_at)
    SELECT delivery_id(101030), event_id(101030), endpoint(10), endpoint(1), 'queued', 'resent', true, true, 3,
           now() + interval '1 day';
ANALYZE;
";

/// Result and duration of a look, with the dial of a connection.
async fn timed<T>(look: impl Future<Output = T>) -> (T, Duration) {
    let began = Instant::now();
    let found = look.await;
    (found, began.elapsed())
}

async fn step(loaded: &Database, name: &str, most: i64, filter: DeliveryFilter) -> DeliveryPage {
    let filter = DeliveryFilter { limit: 51, ..filter };
    let ((page, took), buffers) =
        measured(loaded, async |store| timed(store.deliveries(APPLICATION, &filter)).await).await;
    println!("{name}: {buffers} buffers, {took:?} with a new connection");
    assert!(buffers <= most, "{name}: {buffers} buffers");
    let page = page.expect(name);
    assert!(page.deliveries.is_sorted_by(|row, next| row.id > next.id), "{name}: newest first, and once each");
    page
}

fn ids(page: &DeliveryPage) -> Vec<DeliveryId> {
    page.deliveries.iter().map(|row| row.id).collect()
}

fn exactly(text: &str) -> Option<Subscription> {
    Some(Subscription::parse(text).expect("a type"))
}

#[tokio::test]
async fn a_search_looks_a_bounded_way_and_goes_on_behind_it() {
    let loaded = load().await;
    loaded.run(TEXTS).await;
    steps(&loaded).await;
    answers(&loaded).await;
    texts(&loaded).await;
    indexed(&loaded).await;
    resends(&loaded).await;
    counts(&loaded).await;
    objects(&loaded).await;
    parked(&loaded).await;
}

async fn steps(loaded: &Database) {
    let middle = || DeliveryFilter { before: Some(delivery(150_000)), ..DeliveryFilter::default() };
    let none = DeliveryFilter { event_type: exactly("none"), ..middle() };
    let page = step(loaded, "no such type", MAX_STEP, none.clone()).await;
    assert_eq!((page.deliveries.len(), page.passed), (0, Some(delivery(135_000))));
    let all = DeliveryFilter { before: None, ..none.clone() };
    let page = step(loaded, "no such type, with open rows", MAX_STEP, all).await;
    assert_eq!((page.deliveries.len(), page.passed), (0, Some(delivery(FINISHED + 8_000))));
    let many = vec![State::Failed, State::Delivered, State::Queued, State::Scheduled];
    let by_state = DeliveryFilter { states: many, ..none.clone() };
    let page = step(loaded, "no such type, in four states", MAX_STEP, by_state).await;
    assert_eq!((page.deliveries.len(), page.passed), (0, Some(delivery(135_000))));
    let of_endpoint = DeliveryFilter { endpoint: Some(HEALTHY), ..none.clone() };
    let page = step(loaded, "no such type, of an endpoint", MAX_STEP, of_endpoint).await;
    assert_eq!((page.deliveries.len(), page.passed), (0, Some(delivery(120_000))));
    let short = DeliveryFilter { since: Some(delivery(149_000).accepted_at()), ..none };
    let page = step(loaded, "no such type, in a short time", MAX_STEP, short).await;
    assert_eq!((page.deliveries.len(), page.passed), (0, None), "the search came to its end");
    let usual = DeliveryFilter { event_type: exactly("usual"), ..middle() };
    let page = step(loaded, "the usual type", MAX_BUFFERS, usual).await;
    assert_eq!((page.deliveries.len(), page.passed), (51, None), "a full page ends the walk");
    for types in ["rare.*", "rare.one"] {
        let rare = DeliveryFilter { event_type: exactly(types), before: Some(delivery(110_000)), ..middle() };
        let page = step(loaded, types, MAX_STEP, rare.clone()).await;
        assert_eq!(ids(&page), [delivery(101_031), delivery(101_030)]);
        assert_eq!(
            (page.deliveries[1].state, page.passed),
            (State::Queued, Some(delivery(95_000))),
            "the open row wins"
        );
        let failed = DeliveryFilter { states: vec![State::Failed, State::Delivered], ..rare };
        assert_eq!(ids(&step(loaded, "finished of a rare type", MAX_STEP, failed).await), [delivery(101_031)]);
    }
}

async fn answers(loaded: &Database) {
    let middle = || DeliveryFilter { before: Some(delivery(150_000)), ..DeliveryFilter::default() };
    for (status, outcome, first, full) in [
        (Some((500, 599)), None, 149_990, true),
        (Some((502, 502)), Some("answered"), 149_990, true),
        (Some((200, 299)), None, 149_999, true),
        (Some((501, 501)), None, 0, false),
        (None, Some("timed_out"), 0, false),
        (None, Some("answered"), 149_999, true),
    ] {
        let filter = DeliveryFilter { status, outcome, ..middle() };
        let page = step(loaded, &format!("{status:?} {outcome:?}"), MAX_STEP, filter).await;
        if full {
            assert_eq!((ids(&page)[0], page.deliveries.len(), page.passed), (delivery(first), 51, None));
        } else {
            assert_eq!((ids(&page).len(), page.passed), (0, Some(delivery(135_000))));
        }
    }
    let both = DeliveryFilter { status: Some((204, 204)), event_type: exactly("none"), ..middle() };
    let page = step(loaded, "type and status", MAX_STEP, both).await;
    assert_eq!(page.passed, Some(delivery(140_000)));
    let failed = vec![State::Failed];
    let worst = DeliveryFilter { status: Some((200, 299)), states: failed.clone(), ..DeliveryFilter::default() };
    let page = step(loaded, "failed with a success", MAX_STEP, worst).await;
    assert_eq!((page.deliveries.len(), page.passed), (0, Some(delivery(50_000))));
    let rejected = DeliveryFilter { reason: Some("rejected"), ..middle() };
    assert_eq!(step(loaded, "rejected", MAX_STEP, rejected).await.deliveries.len(), 51);
    let expired = DeliveryFilter { reason: Some("expired"), states: failed, ..DeliveryFilter::default() };
    assert!(step(loaded, "expired", MAX_STEP, expired).await.deliveries.is_empty());
}

async fn texts(loaded: &Database) {
    let contains = |text: &str| DeliveryFilter {
        contains: Some(text.to_owned()),
        before: Some(delivery(102_000)),
        ..DeliveryFilter::default()
    };
    let page = step(loaded, "a text", MAX_STEP, contains("needle")).await;
    assert_eq!(ids(&page), [delivery(101_020), delivery(101_010), delivery(101_001)]);
    assert_eq!(page.passed, Some(delivery(97_000)));
    let page = step(loaded, "a text everywhere", MAX_BUFFERS, contains("x")).await;
    assert_eq!((page.deliveries.len(), page.passed), (51, None));
    let failed = DeliveryFilter {
        states: vec![State::Failed],
        event_type: exactly("usual"),
        status: Some((500, 599)),
        ..contains("nowhere")
    };
    let page = step(loaded, "a text in failed deliveries", MAX_STEP, failed).await;
    assert_eq!((page.deliveries.len(), page.passed), (0, Some(delivery(52_000))));
}

async fn indexed(loaded: &Database) {
    let unfiltered = DeliveryFilter::default;
    let several = DeliveryFilter { states: vec![State::Failed, State::Scheduled], ..unfiltered() };
    let page = step(loaded, "two states", MAX_BUFFERS, several.clone()).await;
    assert_eq!((ids(&page)[0], page.deliveries.len()), (delivery(FINISHED + 1_999), 51));
    let mixed = DeliveryFilter { before: Some(delivery(FINISHED + 10)), ..several };
    let page = step(loaded, "both of two states", MAX_BUFFERS, mixed).await;
    assert_eq!((page.deliveries[9].state, page.deliveries[10].state), (State::Scheduled, State::Failed));
    let moment = |i| Some(delivery(i).accepted_at());
    let range = DeliveryFilter { since: moment(500), until: moment(510), ..unfiltered() };
    let page = step(loaded, "a time", MAX_BUFFERS, range).await;
    assert_eq!(ids(&page), (500..510).rev().map(delivery).collect::<Vec<_>>());
    let newer = DeliveryFilter { after: Some(delivery(FINISHED + 22_990)), ..unfiltered() };
    assert_eq!(ids(&step(loaded, "newer", MAX_BUFFERS, newer).await).len(), 9);
    let some = [7, 10, 101_030, FINISHED, FINISHED + 2_000, FINISHED + 2_501];
    let named = DeliveryFilter { ids: Some(some.iter().map(|&i| delivery(i)).collect()), ..unfiltered() };
    let page = step(loaded, "by ids", MAX_BUFFERS, named.clone()).await;
    let states: Vec<State> = page.deliveries.iter().map(|row| row.state).collect();
    use State::{Delivered, Failed, Held, Queued, Scheduled, Sending};
    assert_eq!(states, [Sending, Held, Scheduled, Queued, Failed, Delivered]);
    let finished = DeliveryFilter { states: vec![Held, Failed], endpoint: Some(PAUSED), ..named };
    assert_eq!(ids(&step(loaded, "by ids and state", MAX_BUFFERS, finished).await), [delivery(FINISHED + 2_000)]);
    let of_event = DeliveryFilter { event: Some(event(20)), states: vec![Failed, Queued], ..unfiltered() };
    assert_eq!(ids(&step(loaded, "of an event", MAX_BUFFERS, of_event).await), [delivery(20)]);
}

async fn resends(loaded: &Database) {
    let found = ResendFilter {
        deliveries: Some([10, 20, 101_030].iter().map(|&i| delivery(i)).collect()),
        is_found: true,
        states: vec![State::Failed, State::Queued],
        limit: 10,
        ..ResendFilter::default()
    };
    let resendable = async |filter: &ResendFilter| {
        let (found, buffers) = measured(loaded, async |store| store.resendable(APPLICATION, filter).await).await;
        println!("resendable: {buffers} buffers");
        let found = found.expect("a look");
        (found.iter().map(|found| (found.delivery, found.attempt)).collect::<Vec<_>>(), buffers)
    };
    let (some, buffers) = resendable(&found).await;
    assert!(buffers <= MAX_BUFFERS, "{buffers} buffers");
    assert_eq!(some, [(delivery(20), 3), (delivery(10), 3)], "without the resent one");
    let named = ResendFilter { is_found: false, ..found.clone() };
    assert_eq!(resendable(&named).await.0[0], (delivery(101_030), 3));
    let failed = ResendFilter { states: vec![State::Failed], limit: 1000, ..ResendFilter::default() };
    let (all, buffers) = resendable(&failed).await;
    assert!(all.len() == 1000 && buffers < MAX_STEP / 2, "{buffers} buffers");
    let older = ResendFilter { before: Some(delivery(25)), ..failed };
    assert_eq!(resendable(&older).await.0.iter().map(|found| found.0).collect::<Vec<_>>(), [20, 10, 0].map(delivery));
}

async fn counts(loaded: &Database) {
    let counted = async |name: &str, filter: CountFilter| {
        let ((counts, took), buffers) =
            measured(loaded, async |store| timed(store.count_deliveries(APPLICATION, &filter)).await).await;
        println!("counts {name}: {buffers} buffers, {took:?} with a new connection");
        assert!(buffers <= MAX_STEP / 2, "counts {name}: {buffers} buffers");
        let number = |count: &StateCount| (count.deliveries, count.is_bounded);
        counts.expect(name).map(|count| number(&count))
    };
    let none = (0, false);
    let all = counted("of all", CountFilter::default()).await;
    // Sending, scheduled, queued, held, failed, skipped.
    assert_eq!(all, [(100, false), (2_000, false), (10_000, true), (500, false), (10_000, true), none]);
    let since = Some(delivery(FINISHED - 100).accepted_at());
    let until = Some(delivery(FINISHED + 2_100).accepted_at());
    let some = counted("of a time", CountFilter { since, until, ..CountFilter::default() }).await;
    assert_eq!(some, [none, (2_000, false), none, (100, false), (10, false), none]);
    for (endpoint, expected) in [
        (HEALTHY, [(100, false), none, (1, false), none, (10_000, true), none]),
        (OTHER, [none, (2_000, false), none, none, none, none]),
        (DEAD, [none, none, (10_000, true), none, none, none]),
        (PAUSED, [none, none, none, (500, false), none, none]),
    ] {
        let filter = CountFilter { endpoint: Some(endpoint), ..CountFilter::default() };
        assert_eq!(counted(&format!("of {endpoint}"), filter).await, expected);
    }
}

/// Other applications with an endpoint each, newer than the application of the test, and keys of events.
const APPLICATIONS: &str = r"
INSERT INTO applications (id, name) SELECT endpoint(1000 + i), 'number ' || i FROM generate_series(1, 990) i;
INSERT INTO endpoints (id, application_id, url, event_types)
    SELECT endpoint(100000 + i), endpoint(1001 + i % 990), 'https://host-' || i || '.example/', '{*}'
    FROM generate_series(0, 11999) i;
INSERT INTO event_keys (event_id, month, accepted_at)
    SELECT gen_random_uuid(), date_trunc('month', now() AT TIME ZONE 'UTC')::date, now() FROM generate_series(0, 99999);
ANALYZE;
";

async fn objects(loaded: &Database) {
    loaded.run(APPLICATIONS).await;
    let moment = delivery(50_005).accepted_at();
    let derived = EventId::from_key(APPLICATION, "the key");
    loaded
        .rows(
            "INSERT INTO event_keys VALUES ($1, date_trunc('month', now() AT TIME ZONE 'UTC')::date, $2)",
            &[&derived.0, &moment],
        )
        .await;
    let insert = "INSERT INTO events (id, accepted_at, application_id, type, body, matches, traceparent)
                  VALUES ($1, $2, $3, 'keyed', '{}', 0, '')";
    loaded.rows(insert, &[&derived.0, &moment, &APPLICATION.0]).await;
    let (inline, logged) = (AttemptId::derive(delivery(50_005), 1), AttemptId::derive(delivery(50_010), 2));
    for only in [Some(APPLICATION), None] {
        let of = loaded.another_store().searched(only).await.expect("applications");
        let most = if only.is_some() { MAX_BUFFERS / 2 } else { 30_000 };
        let look = async |name: &str, look: &dyn Fn(Store, Searched) -> Looked| {
            let ((hits, took), buffers) = measured(loaded, async |store| timed(look(store, of.clone())).await).await;
            println!("{name} in {only:?}: {buffers} buffers, {took:?} with a new connection");
            assert!(buffers <= most, "{name}: {buffers} buffers");
            assert_eq!(hits.expect(name).len(), 1, "{name}");
        };
        look("an event", &|store, of| Box::pin(async move { store.find_event(&of, event(50_005)).await })).await;
        look("a keyed event", &move |store, of| Box::pin(async move { store.find_event(&of, derived).await })).await;
        look("a key", &|store, of| Box::pin(async move { store.find_key(&of, "the key").await })).await;
        look("a delivery", &|store, of| Box::pin(async move { store.find_delivery(&of, delivery(7)).await })).await;
        look("an open delivery", &|store, of| {
            Box::pin(async move { store.find_delivery(&of, delivery(FINISHED + 2_000)).await })
        })
        .await;
        look("an inline attempt", &move |store, of| Box::pin(async move { store.find_attempt(&of, inline).await }))
            .await;
        look("an attempt", &move |store, of| Box::pin(async move { store.find_attempt(&of, logged).await })).await;
    }
    let all = loaded.another_store().searched(None).await.expect("applications");
    let text = async |store: Store| store.find_endpoints(&all, "HOST-11999.").await;
    let (hits, buffers) = measured(loaded, text).await;
    println!("a URL among all: {buffers} buffers");
    assert_eq!((hits.expect("a look").len(), buffers <= 15_000), (1, true));
}

type Looked = Pin<Box<dyn Future<Output = Result<Vec<Hit>, StoreError>>>>;

/// Parked messages of a flood, and a few of another reason and routing key.
const PARKED: &str = r"
INSERT INTO parked (id, parked_at, reason, message, routing_key, message_id, headers, body)
    SELECT id_of(i), now() - (100000 - i) * interval '1 s', CASE WHEN i < 10 THEN 'rare' ELSE 'usual' END, 'm',
           CASE WHEN i BETWEEN 5 AND 14 THEN 'rare.key' ELSE 'usual.key' END, 'message ' || i, '{}', repeat('x', 440)::bytea
    FROM generate_series(0, 99999) i;
ANALYZE parked;
";

async fn parked(loaded: &Database) {
    let id = "CREATE FUNCTION id_of(i int) RETURNS uuid LANGUAGE sql STABLE AS $$
              SELECT (lpad(to_hex((extract(epoch FROM now() - (100000 - i) * interval '1 s') * 1000)::bigint), 12, '0')
                      || '70008000' || lpad(to_hex(i), 12, '0'))::uuid $$";
    loaded.run(id).await;
    loaded.run(PARKED).await;
    let text = |text: &str| Some(text.to_owned());
    for (name, expected, filter) in [
        ("all", 51, ParkedFilter::default()),
        ("of a rare reason", 10, ParkedFilter { reason: text("rare"), ..ParkedFilter::default() }),
        ("of a rare key", 10, ParkedFilter { routing_key: text("rare.key"), ..ParkedFilter::default() }),
        (
            "of a rare group",
            5,
            ParkedFilter { reason: text("rare"), routing_key: text("rare.key"), ..ParkedFilter::default() },
        ),
        ("without a key", 0, ParkedFilter { routing_key: text(""), ..ParkedFilter::default() }),
        ("of no reason", 0, ParkedFilter { reason: text("none"), ..ParkedFilter::default() }),
        (
            "of an hour",
            51,
            ParkedFilter { since: Some(Timestamp::now() - Duration::from_secs(3600)), ..ParkedFilter::default() },
        ),
        (
            "of a rare reason in an hour",
            0,
            ParkedFilter {
                reason: text("rare"),
                since: Some(Timestamp::now() - Duration::from_secs(3600)),
                ..ParkedFilter::default()
            },
        ),
    ] {
        let filter = ParkedFilter { limit: 51, ..filter };
        let (found, buffers) = measured(loaded, async |store| store.parked(&filter).await).await;
        println!("parked messages, {name}: {buffers} buffers");
        assert!(buffers <= MAX_BUFFERS, "{name}: {buffers} buffers");
        assert_eq!(found.expect(name).len(), expected, "{name}");
    }
    let (found, buffers) = measured(loaded, async |store| store.find_parked_by_message_id("message 77").await).await;
    assert_eq!((found.expect("a look").len(), buffers < 100), (1, true), "{buffers} buffers");
    let ((groups, took), buffers) = measured(loaded, async |store| timed(store.parked_groups()).await).await;
    println!("groups of parked messages: {buffers} buffers, {took:?} with a new connection");
    let groups = groups.expect("a look");
    assert!(buffers < 30_000 && groups.searched_until.is_some(), "{buffers} buffers");
    assert_eq!((groups.groups.len(), groups.groups[0].messages), (1, 20_000));
}
