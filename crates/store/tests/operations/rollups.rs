//! Rollups: each minute counts once, and the rows tell what the tables hold.

use std::{collections::HashMap, time::Duration};

use fanfare_domain::{
    delivery::{FailureReason, State, outcome::Outcome},
    diagnosis::rollup::{HOUR, STEP, floor},
};
use fanfare_store::{AttemptRecord, NextState, ResendFilter, Store};
use jiff::Timestamp;

use crate::database::{
    APPLICATION, Database, ONE, Sent, accepted, delivered, endpoint, failed, moment, scheduled, starting, to,
};

const DAY: Duration = Duration::from_secs(86400);

/// Lets the counting begin at the hour before the last.
async fn begin_counting(database: &Database) -> Timestamp {
    let begin = floor(Timestamp::now() - 2 * HOUR, HOUR);
    database.rows("UPDATE rollup_marks SET counted = $1, hourly = $1, final = $1", &[&begin]).await;
    begin
}

async fn count_all(store: &Store, now: Timestamp) -> usize {
    let mut steps = 0;
    while store.count_rollups(now).await.expect("a count") {
        steps += 1;
    }
    steps
}

/// A record that starts at `at`.
fn at(record: AttemptRecord, at: Timestamp) -> AttemptRecord {
    AttemptRecord { started_at: at, ..record }
}

async fn persist(database: &Database, seconds_ago: u64, number: u128) -> Sent {
    database.persist_at(moment(seconds_ago), endpoint(number), starting(1)).await
}

/// Sum of a column of the whole deployment, of all applications and of all endpoints.
async fn sums(database: &Database, column: &str, table: &str) -> [i64; 3] {
    let statement = format!("SELECT coalesce(sum({column}), 0)::bigint FROM {table} WHERE kind = $1");
    let mut sums = [0; 3];
    for (kind, sum) in [0i16, 1, 2].into_iter().zip(&mut sums) {
        *sum = database.rows(&statement, &[&kind]).await[0].get(0);
    }
    sums
}

#[tokio::test]
async fn every_result_is_counted_by_its_kind() {
    let database = Database::new().await;
    begin_counting(&database).await;
    let ago = |seconds| moment(seconds);
    let of = |outcome| move |record: AttemptRecord| AttemptRecord { outcome, ..record };
    let answered = |status| Outcome::answered(status);
    let outcomes = [
        (answered(302), "failed_3xx"),
        (answered(404), "failed_4xx"),
        (answered(500), "failed_5xx"),
        // The dialect of the application takes this status for a failure.
        (answered(202), "other"),
        (Outcome::TimedOut, "timed_out"),
        (Outcome::ConnectionFailed, "no_connection"),
        (Outcome::NameNotResolved, "no_connection"),
        (Outcome::TlsFailed, "tls_failed"),
        (Outcome::AddressForbidden, "forbidden"),
        (Outcome::Unknown, "unknown"),
        (Outcome::NotHttp, "other"),
    ];
    let inline = persist(&database, 300, 1).await;
    database.store.record(&[&delivered(&inline, 1, 1)]).await.expect("a commit");
    // A success of the last retry, hours after the acceptance.
    let late = persist(&database, 4 * 3600, 2).await;
    database.store.record(&[&at(delivered(&late, 1, 1), ago(300))]).await.expect("a commit");
    for (outcome, _) in outcomes {
        let sent = persist(&database, 300, 3).await;
        let record = of(outcome)(scheduled(&sent, 1, 1));
        database.store.record(&[&record]).await.expect("a commit");
    }
    // Accepted, and without an endpoint.
    database.store.persist(ONE, &[&accepted(moment(300))]).await.expect("a commit");
    // Too young.
    let young = persist(&database, 30, 1).await;
    database.store.record(&[&delivered(&young, 1, 1)]).await.expect("a commit");

    count_all(&database.store, Timestamp::now()).await;
    assert_eq!(sums(&database, "taken", "rollups").await, [2; 3]);
    for column in ["failed_3xx", "failed_4xx", "failed_5xx", "timed_out", "tls_failed", "forbidden", "unknown"] {
        assert_eq!(sums(&database, column, "rollups").await, [1; 3], "{column}");
    }
    assert_eq!(sums(&database, "no_connection", "rollups").await, [2; 3]);
    assert_eq!(sums(&database, "other", "rollups").await, [2; 3]);
    // 20 ms, and 3 ms after acceptance; the late success hours after.
    assert_eq!(sums(&database, "d3", "rollups").await, [13; 3]);
    assert_eq!(sums(&database, "l0", "rollups").await, [12; 3]);
    assert_eq!(sums(&database, "l13", "rollups").await, [1; 3]);
    assert_eq!(sums(&database, "events", "rollups").await, [13, 13, 0], "the late delivery's event is older");
    assert_eq!(sums(&database, "unmatched", "rollups").await, [1, 1, 0]);
    let rows = database.rows("SELECT subject FROM rollups WHERE kind = 1 GROUP BY 1", &[]).await;
    assert_eq!((rows.len(), rows[0].get::<_, uuid::Uuid>(0)), (1, APPLICATION.0));
}

#[tokio::test]
async fn the_rules_of_the_dialect_decide_which_answers_are_taken() {
    let database = Database::new().await;
    begin_counting(&database).await;
    let answered = |status| Outcome::answered(status);
    // The rules take 409, and refuse 204 at the end of the schedule.
    for (status, next) in [(409, NextState::Delivered), (204, NextState::Failed(FailureReason::AttemptsExhausted))] {
        let sent = persist(&database, 300, 1).await;
        database.store.record(&[&scheduled(&sent, 1, 1)]).await.expect("a commit");
        database
            .run("UPDATE open_deliveries SET state = 'sending', lease_id = '00000000-0000-0000-0000-000000001002'")
            .await;
        let second = AttemptRecord { outcome: answered(status), next, ..delivered(&sent, 2, 2) };
        database.store.record(&[&second]).await.expect("a commit");
    }
    count_all(&database.store, Timestamp::now()).await;
    for (column, expected) in [("taken", 1), ("other", 1), ("failed_5xx", 2), ("failed_4xx", 0)] {
        assert_eq!(sums(&database, column, "rollups").await, [expected; 3], "{column}");
    }
}

#[tokio::test]
async fn tests_of_a_quiet_endpoint_are_not_counted() {
    let database = Database::new().await;
    begin_counting(&database).await;
    for make in [delivered, failed] {
        let new = to(accepted(moment(300)), &[(endpoint(1), starting(1))]);
        let sent = Sent { delivery: new.deliveries[0].id, event: new.event.id, endpoint: endpoint(1) };
        database.store.record_test_send(&new, &make(&sent, 1, 1), None).await.expect("a commit");
        // A request for the delivery sends the test again.
        let named = ResendFilter {
            deliveries: Some(vec![sent.delivery]),
            states: vec![State::Delivered, State::Failed],
            limit: 1,
            ..ResendFilter::default()
        };
        let resent = database.store.resend(APPLICATION, &named, &HashMap::new(), DAY).await.expect("a commit");
        assert_eq!(resent.len(), 1);
        database.run("UPDATE endpoint_backlogs SET owner = '00000000-0000-0000-0000-000000000101'").await;
        let leased = database.drain(2, endpoint(1), 1).await.remove(0);
        let is_test = leased.payload.expect("the event").is_test;
        let again = AttemptRecord { is_test, ..at(failed(&sent, 2, 2), moment(200)) };
        assert_eq!(database.store.record(&[&again]).await.expect("a commit").len(), 1);
    }
    assert_eq!(database.count("attempts WHERE is_test").await, 4);
    count_all(&database.store, Timestamp::now()).await;
    assert_eq!(database.count("rollups").await, 0);
    let health = database.store.endpoint_health(APPLICATION, &[endpoint(1)], 10).await.expect("a look");
    assert_eq!(health[&endpoint(1)].failing_since, None);
}

#[tokio::test]
async fn each_minute_counts_once_whoever_dies() {
    let database = Database::new().await;
    begin_counting(&database).await;
    for minute in 3..40 {
        let new = to(accepted(moment(minute * 60)), &[(endpoint(1), starting(1)), (endpoint(2), starting(1))]);
        database.store.persist(ONE, &[&new]).await.expect("a commit");
        let sent = |n: usize| Sent {
            delivery: new.deliveries[n].id,
            event: new.event.id,
            endpoint: new.deliveries[n].endpoint,
        };
        database.store.record(&[&delivered(&sent(0), 1, 1)]).await.expect("a commit");
        database.store.record(&[&failed(&sent(1), 1, 1)]).await.expect("a commit");
    }
    let now = Timestamp::now();
    // Deaths at any point of a step.
    for microseconds in (200..6000).step_by(300) {
        let store = database.another_store();
        let _ = tokio::time::timeout(Duration::from_micros(microseconds), count_all(&store, now)).await;
    }
    let (one, two) = (database.another_store(), database.another_store());
    tokio::join!(count_all(&one, now), count_all(&two, now), count_all(&database.store, now));
    assert_eq!(sums(&database, "taken", "rollups").await, [37; 3]);
    assert_eq!(sums(&database, "failed_5xx", "rollups").await, [37; 3]);
    assert_eq!(sums(&database, "events", "rollups").await, [37, 37, 0]);
}

#[tokio::test]
async fn attempts_recorded_late_are_counted_with_the_hour() {
    let database = Database::new().await;
    let begin = begin_counting(&database).await;
    let record = async |at_second: u64, number: u128| {
        let when = begin + Duration::from_secs(at_second);
        let sent = database.persist_at(when, endpoint(number), starting(1)).await;
        database.store.record(&[&delivered(&sent, 1, 1)]).await.expect("a commit");
    };
    record(10, 1).await;
    record(3000, 2).await;
    let soon = begin + 2 * HOUR - Duration::from_secs(1);
    count_all(&database.store, soon).await;
    assert_eq!(sums(&database, "taken", "rollups").await, [2; 3]);
    assert_eq!(database.count("rollups_hourly").await, 0);

    // The second step has no row recorded late: its row is left.
    database
        .run("UPDATE rollups SET d5 = 777 WHERE kind = 2 AND at >= date_trunc('hour', at) + interval '5 minutes'")
        .await;
    record(20, 1).await;
    assert!(count_all(&database.store, soon).await == 0, "the minute is counted");
    count_all(&database.store, begin + 2 * HOUR + STEP).await;
    assert_eq!(sums(&database, "taken", "rollups").await, [3; 3]);
    assert_eq!(sums(&database, "taken", "rollups_hourly").await, [3; 3]);
    let of_first = "rollups_hourly WHERE kind = 2 AND taken = 2";
    assert_eq!(database.count(of_first).await, 1);
    assert_eq!(sums(&database, "d5", "rollups").await, [0, 0, 777]);

    record(30, 2).await;
    for hour in 3..=24 {
        count_all(&database.store, begin + hour * HOUR).await;
    }
    assert_eq!(sums(&database, "taken", "rollups_hourly").await, [3; 3]);
    count_all(&database.store, begin + DAY + HOUR).await;
    assert_eq!(sums(&database, "taken", "rollups_hourly").await, [4; 3]);
}

/// A late record completes the row of an `unknown` attempt: the number of rows stays.
#[tokio::test]
async fn an_unknown_attempt_recorded_late_is_counted_with_the_hour() {
    let database = Database::new().await;
    let begin = begin_counting(&database).await;
    let sent = database.persist_at(begin, endpoint(1), starting(1)).await;
    let unknown = AttemptRecord { outcome: Outcome::Unknown, ..at(failed(&sent, 1, 1), begin) };
    database.store.record(&[&unknown]).await.expect("a commit");
    let soon = begin + 2 * HOUR - Duration::from_secs(1);
    count_all(&database.store, soon).await;
    assert_eq!(sums(&database, "unknown", "rollups").await, [1; 3]);
    database.store.record(&[&at(delivered(&sent, 1, 1), begin)]).await.expect("a commit");
    assert_eq!(database.count("attempts WHERE outcome = 'answered'").await, 1);
    count_all(&database.store, begin + 2 * HOUR + STEP).await;
    for (column, expected) in [("unknown", 0), ("taken", 1)] {
        assert_eq!(sums(&database, column, "rollups").await, [expected; 3], "{column}");
        assert_eq!(sums(&database, column, "rollups_hourly").await, [expected; 3], "{column}");
    }
}

#[tokio::test]
async fn rollups_end_with_their_days() {
    let database = Database::fresh().await;
    let dropped = database.store.drop_rollups(moment(86400), moment(0)).await.expect("a drop");
    let of = |table: &str| dropped.iter().filter(|name| name.starts_with(table)).count();
    assert_eq!((of("rollups_p"), of("rollups_hourly_p")), (1, 2), "{dropped:?}");
}
