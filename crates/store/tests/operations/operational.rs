//! Operational events: conditions are found, but none of the operator's application, and each change is written once.

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{
    delivery::QueueReason,
    ids::{ApplicationId, EndpointId},
    operational::{
        Condition, Figures,
        state::{Found, State},
    },
};
use fanfare_store::{
    HeldBounds, NewEvent, OperationalChange, OperationalKey, OperationalLook, OperationalMark, OperationalState, Start,
};
use jiff::Timestamp;
use uuid::Uuid;

use crate::database::{APPLICATION, Database, ONE, TWO, endpoint, timed, to};

/// The operator's application.
const OPERATOR: ApplicationId = ApplicationId(Uuid::from_u128(0xb));

const HELD: HeldBounds = HeldBounds { most: 10, max_age: Duration::from_secs(5000) };

/// Endpoints 101 to 120 of the operator's application, beside the endpoints 1 to 20 of the other.
const ENDPOINTS: &str = "
CREATE FUNCTION endpoint(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid $$;
INSERT INTO applications (id, name) VALUES (endpoint(11), 'operations');
INSERT INTO endpoints (id, application_id, url, event_types)
    SELECT endpoint(n), endpoint(11), 'https://operations.example/', '{*}' FROM generate_series(101, 120) n";

async fn database() -> (Database, OperationalMark) {
    let database = Database::fresh().await;
    database.run(ENDPOINTS).await;
    let mark = database.store.operational_mark(OPERATOR).await.expect("a look").expect("a mark");
    (database, mark)
}

fn key(number: u128, condition: Condition) -> OperationalKey {
    OperationalKey { subject: endpoint(number).0, condition }
}

/// Conditions of endpoints by number.
async fn conditions(
    database: &Database,
    mark: &OperationalMark,
    failing: &[(EndpointId, Timestamp)],
) -> BTreeMap<(u128, &'static str), Figures> {
    let lifetime = |_, _| Duration::from_secs(86400);
    let look = OperationalLook { mark: *mark, held: HELD, failing, near_held: &[], lifetime: &lifetime };
    let looked = database.store.lasting_conditions(&look).await.expect("a look");
    looked
        .found
        .into_iter()
        .map(|found| ((found.key.subject.as_u128(), found.key.condition.as_str()), found.found.figures))
        .collect()
}

fn state(number: u128, version: i32) -> OperationalState {
    let now = Timestamp::now();
    let found = Found { since: now, figures: Figures::default() };
    let state = State::look(None, Some(&found), now).expect("a change");
    OperationalState {
        key: key(number, Condition::Disabled),
        application: Some(APPLICATION),
        state,
        event: None,
        version,
    }
}

fn event() -> NewEvent {
    to(timed(), &[(endpoint(1), Start::Queued(QueueReason::Backlog))])
}

#[tokio::test]
async fn a_change_and_its_event_are_written_once() {
    let (database, _) = database().await;
    let stores = [(database.another_store(), ONE), (database.another_store(), TWO)];
    let states = [state(1, 0)];
    for round in 0..10 {
        let states: Vec<_> = states.iter().map(|state| OperationalState { version: round, ..state.clone() }).collect();
        let events = [event(), event()];
        let tell = async |(store, process): &(_, _), event: &NewEvent| {
            let store: &fanfare_store::Store = store;
            let events = [event];
            let change = OperationalChange { states: &states, events: &events, ..OperationalChange::default() };
            store.change_operational(*process, OPERATOR, &change).await.expect("a commit").is_some()
        };
        let (first, second) = tokio::join!(tell(&stores[0], &events[0]), tell(&stores[1], &events[1]));
        assert!(first ^ second, "round {round}: {first} and {second}");
        assert_eq!(database.count("events").await, i64::from(round) + 1);
        assert_eq!(database.count("open_deliveries").await, i64::from(round) + 1);
    }
    let known = database.store.operational_states(OPERATOR).await.expect("states");
    assert_eq!((known.len(), known[0].version, known[0].state.holds), (1, 10, true));
}

#[tokio::test]
async fn a_change_of_an_unknown_version_writes_nothing() {
    let (database, _) = database().await;
    let event = event();
    // The first state is new, and the second unknown: both are refused.
    let states = [state(1, 0), state(2, 3)];
    let change = OperationalChange { states: &states, events: &[&event], ..OperationalChange::default() };
    assert!(database.store.change_operational(ONE, OPERATOR, &change).await.expect("an answer").is_none());
    for table in ["operational_states", "events", "open_deliveries", "endpoint_backlogs"] {
        assert_eq!(database.count(table).await, 0, "{table}");
    }
}

#[tokio::test]
async fn the_mark_moves_once_and_begins_anew_for_another_application() {
    let (database, mark) = database().await;
    let until = mark.counted + Duration::from_secs(1);
    let states = [state(1, 0)];
    let change =
        OperationalChange { states: &states, counted: Some((mark.counted, until)), ..OperationalChange::default() };
    assert!(database.store.change_operational(ONE, OPERATOR, &change).await.expect("an answer").is_some());
    let again = [OperationalState { version: 1, ..states[0].clone() }];
    let change = OperationalChange { states: &again, ..change };
    assert!(
        database.store.change_operational(TWO, OPERATOR, &change).await.expect("an answer").is_none(),
        "counted twice"
    );
    let moved = database.store.operational_mark(OPERATOR).await.expect("a look").expect("a mark");
    assert_eq!((moved.begun_at, moved.counted), (mark.begun_at, until));
    let unknown = ApplicationId(Uuid::from_u128(0xc));
    assert_eq!(database.store.operational_mark(unknown).await.expect("a look"), None);
    let other = database.store.operational_mark(APPLICATION).await.expect("a look").expect("a mark");
    assert!(other.begun_at > mark.begun_at && other.counted == until, "the counted time is kept");
    assert_eq!(database.count("operational_states").await, 0, "states of another application");
    let late = OperationalChange { states: &states, ..OperationalChange::default() };
    let written = database.store.change_operational(ONE, OPERATOR, &late).await.expect("an answer");
    assert!(written.is_none(), "the operator names another application");
    assert_eq!(database.count("operational_marks").await, 1);
}

#[tokio::test]
async fn the_status_has_its_time_and_old_disabled_endpoints_are_not_told() {
    let (database, mark) = database().await;
    database.run("UPDATE endpoints SET status = 'disabled', status_reason = 'endpoint_gone' WHERE id IN (endpoint(1), endpoint(2), endpoint(101))").await;
    database.run("UPDATE endpoints SET status_since = now() - interval '1 day' WHERE id = endpoint(2)").await;
    let since = "SELECT status_since FROM endpoints WHERE id = endpoint(1)";
    let before: Timestamp = database.rows(since, &[]).await[0].get(0);
    database.run("UPDATE endpoints SET name = 'renamed' WHERE id = endpoint(1)").await;
    assert_eq!(database.rows(since, &[]).await[0].get::<_, Timestamp>(0), before);
    let found = conditions(&database, &mark, &[]).await;
    assert_eq!(found.keys().collect::<Vec<_>>(), [&(1, "disabled")]);
    assert_eq!(found[&(1, "disabled")].reason.as_deref(), Some("endpoint_gone"));
    database.run("UPDATE endpoints SET deleted_at = now() WHERE id = endpoint(1)").await;
    assert_eq!(conditions(&database, &mark, &[]).await, BTreeMap::new());
    let told = database.store.told_endpoints(&[endpoint(1), endpoint(2)]).await.expect("a look");
    assert_eq!((told[&endpoint(1)].status, told[&endpoint(2)].status.is_some()), (None, true));
}

/// Backlogs of the endpoints n and n + 100: 1 with an open breaker, 2 with a delivery that expires soon, 3 paused with
/// too many deliveries, 4 paused for long, 5 paused without either, 6 enabled and sound.
const BACKLOGS: &str = "
INSERT INTO endpoint_backlogs (endpoint_id, application_id, owner, reason, since, failures, next_probe)
    SELECT endpoint(n + other * 100), endpoint(10 + other), CASE WHEN n IN (1, 2, 6) THEN endpoint(257) END,
           CASE WHEN n = 1 THEN 'breaker_open' ELSE 'backlog' END,
           now() - CASE n WHEN 4 THEN interval '4100 s' WHEN 2 THEN interval '2 h' ELSE interval '1 minute' END,
           20, CASE WHEN n = 1 THEN now() END
    FROM generate_series(1, 6) n, generate_series(0, 1) other;
UPDATE endpoints SET status = 'paused' WHERE id IN (SELECT endpoint(n + other * 100)
                                                    FROM generate_series(3, 5) n, generate_series(0, 1) other);
INSERT INTO open_deliveries (id, event_id, application_id, endpoint_id, state, reason, listed, expires_at, since)
    SELECT gen_random_uuid(), gen_random_uuid(), endpoint(10 + other), endpoint(n + other * 100), 'queued', 'backlog', true,
           now() + CASE n WHEN 2 THEN interval '30 minutes' ELSE interval '1 day' END,
           now() - CASE n WHEN 4 THEN interval '4100 s' ELSE interval '1 minute' END
    FROM generate_series(1, 6) n, generate_series(0, 1) other, generate_series(1, CASE n WHEN 3 THEN 8 ELSE 7 END) i";

#[tokio::test]
async fn backlogs_near_a_limit_and_open_breakers_are_found() {
    let (database, mark) = database().await;
    database.run(BACKLOGS).await;
    let found = conditions(&database, &mark, &[]).await;
    let names: Vec<_> = found.keys().copied().collect();
    assert_eq!(names, [(1, "breaker_open"), (2, "backlog_near_limit"), (3, "held_near_limit"), (4, "held_near_limit")]);
    assert_eq!(found[&names[0]].failures, Some(20));
    assert!(found[&names[1]].expires_at.is_some_and(|at| at > Timestamp::now()));
    assert_eq!((found[&names[2]].held, found[&names[2]].max_held), (Some(8), Some(10)));
    assert_eq!(found[&names[3]].held, Some(7));
    // The next look at held deliveries is minutes later, and says nothing until then.
    assert_eq!(conditions(&database, &mark, &[]).await.into_keys().collect::<Vec<_>>(), names[..2]);
    // A resumption renews the lifetime.
    database.run("UPDATE endpoint_backlogs SET resumed_at = now() WHERE endpoint_id = endpoint(2)").await;
    assert_eq!(conditions(&database, &mark, &[]).await.into_keys().collect::<Vec<_>>(), names[..1]);
}

/// Rollups of the endpoints n and n + 100: 1 failed for two hours, 2 for less than an hour, 3 with a success between, 4
/// for two hours until 50 minutes ago, and 5 since ever.
const ROLLUPS: &str = "
DO $$ DECLARE names text; zeros text; BEGIN
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum), string_agg('0', ', ') INTO names, zeros FROM pg_attribute
    WHERE attrelid = 'rollups'::regclass AND attnum > 0 AND attname NOT IN ('subject', 'at', 'kind', 'taken', 'failed_5xx');
    EXECUTE format('INSERT INTO rollups (subject, at, kind, taken, failed_5xx, %s)
        SELECT endpoint(n + other * 100), date_bin(''5 minutes'', now() - ago * interval ''1 minute'', ''epoch''), 2,
               CASE WHEN n = 3 AND ago = 30 THEN 1 ELSE 0 END, 2, %s
        FROM generate_series(0, 1) other,
             (VALUES (1, 5, 120), (2, 5, 55), (3, 5, 120), (4, 50, 120), (5, 5, 1430)) AS w(n, newest, oldest),
             generate_series(newest, oldest, 5) ago', names, zeros);
END $$";

#[tokio::test]
async fn endpoints_fail_after_an_hour_of_failures_until_a_success() {
    let (database, mark) = database().await;
    database.run(ROLLUPS).await;
    let failing = |found: BTreeMap<(u128, &'static str), _>| found.into_keys().map(|(n, _)| n).collect::<Vec<_>>();
    assert_eq!(failing(conditions(&database, &mark, &[]).await), [1, 5]);
    // Without an attempt in the last half hour, an endpoint that failed still fails; after a success not.
    let hours_ago = Timestamp::now() - Duration::from_secs(7200);
    let known = [(endpoint(4), hours_ago), (endpoint(3), hours_ago), (endpoint(1), hours_ago)];
    assert_eq!(failing(conditions(&database, &mark, &known).await), [1, 4, 5]);
    database.run("UPDATE endpoints SET status = 'paused' WHERE id IN (endpoint(1), endpoint(4))").await;
    assert_eq!(failing(conditions(&database, &mark, &known).await), [5]);
}

/// Failed deliveries of the endpoints 1 and 101, and messages of both applications and of no known application.
const OCCURRENCES: &str = "
INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, reason, attempt, failures, finished_at)
    SELECT endpoint(10 + other),
           (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '80008000' || lpad(to_hex(i + other), 12, '0'))::uuid,
           gen_random_uuid(), endpoint(1 + other * 100), 'failed', reason, 1, 1, now() - ago * interval '1 s'
    FROM generate_series(0, 1) other,
         (VALUES (10, 'expired', 25), (20, 'attempts_exhausted', 30), (30, 'attempts_exhausted', 40), (40, 'attempts_exhausted', 500),
                 (50, 'endpoint_deleted', 30), (60, 'test_failed', 30), (70, 'erased', 30), (80, 'expired', 1)) AS f(i, reason, ago);
INSERT INTO parked (id, parked_at, reason, message, routing_key, headers, body)
    SELECT (lpad(to_hex((extract(epoch FROM now()) * 1000)::bigint), 12, '0') || '80008000' || lpad(to_hex(n), 12, '0'))::uuid,
           now() - interval '30 s', reason, '', routing_key, '{}', ''
    FROM (VALUES (1, 'not_an_object', '{TESTS}.order.paid'), (2, 'malformed_json', '{TESTS}.order.paid'),
                 (3, 'malformed_json', '{OPERATOR}.a'), (4, 'unknown_application', 'app_01kb3z8wc7f0a9r5w3v6q2x4m1.a'),
                 (5, 'unknown_application', NULL)) AS m(n, reason, routing_key);
INSERT INTO replays (id, application_id, event_types, states, since, until, rate_per_second, state, events, deliveries, finished_at)
    SELECT endpoint(200 + n + other), endpoint(10 + other), '{}', '{failed}', now(), now(), 10, state, 5, 4, now() - ago * interval '1 s'
    FROM generate_series(0, 1) other, (VALUES (10, 'done', 30), (20, 'cancelled', 30), (30, 'done', 500), (40, 'running', NULL))
        AS r(n, state, ago)";

#[tokio::test]
async fn occurrences_behind_the_mark_count_by_reason() {
    let (database, mark) = database().await;
    let load = OCCURRENCES.replace("{TESTS}", &APPLICATION.to_string()).replace("{OPERATOR}", &OPERATOR.to_string());
    database.run(&load).await;
    let now = Timestamp::now();
    let mark = OperationalMark { counted: now - Duration::from_secs(60), ..mark };
    let until = now - Duration::from_secs(20);
    let occurred = database.store.occurrences(&mark, until).await.expect("a look");
    let found: BTreeMap<_, _> = occurred.iter().map(|occurred| (occurred.key, occurred)).collect();
    assert_eq!(found.len(), 3, "{found:?}");

    let given_up = found[&key(1, Condition::GivingUp)];
    let counts = |pairs: &[(&str, u64)]| pairs.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect();
    assert_eq!(given_up.occurrences.reasons, counts(&[("expired", 1), ("attempts_exhausted", 2)]));
    let first = given_up.occurrences.first_delivery.expect("a delivery");
    assert_eq!(first.0.as_u128() & 0xff, 20, "the first of the reason");
    assert!(given_up.occurrences.times.0 < given_up.occurrences.times.1);

    let parked = found[&OperationalKey { subject: APPLICATION.0, condition: Condition::MessagesParked }];
    assert_eq!(parked.occurrences.reasons, counts(&[("malformed_json", 1), ("not_an_object", 1)]));
    let unknown = found[&OperationalKey { subject: Uuid::nil(), condition: Condition::MessagesParked }];
    assert_eq!((unknown.application, unknown.occurrences.reasons.values().sum::<u64>()), (None, 2));

    let replays = database.store.finished_replays(&mark, until).await.expect("a look");
    let mut states: Vec<_> = replays.iter().map(|replay| (replay.application, replay.figures.state.as_str())).collect();
    states.sort_unstable();
    assert_eq!(states, [(APPLICATION, "cancelled"), (APPLICATION, "done")]);
    assert_eq!((replays[0].figures.events, replays[0].figures.deliveries), (5, 4));
}

#[tokio::test]
async fn ended_states_are_forgotten() {
    let (database, _) = database().await;
    let states = [state(1, 0), state(2, 0)];
    let change = OperationalChange { states: &states, ..OperationalChange::default() };
    assert!(database.store.change_operational(ONE, OPERATOR, &change).await.expect("an answer").is_some());
    database.run("UPDATE operational_states SET holds = false WHERE subject = endpoint(1)").await;
    let later = Timestamp::now() + Duration::from_secs(1);
    assert_eq!(database.store.forget_operational_states(later).await.expect("a commit"), 1);
    assert_eq!(database.store.operational_states(OPERATOR).await.expect("states")[0].key, states[1].key);
}
