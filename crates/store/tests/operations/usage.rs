//! Usage: the figures of a day equal the sums by hand over attempts and events, whatever is recorded late.

use std::{collections::BTreeMap, time::Duration};

use fanfare_domain::{
    application::plan::Limits,
    delivery::outcome::Outcome,
    diagnosis::rollup::HOUR,
    ids::ApplicationId,
    time::{begin_of, day_of},
};
use fanfare_store::{ApplicationChange, AttemptRecord, Selected, Usage, UsageFilter};
use jiff::{Timestamp, ToSpan, civil::Date};
use uuid::Uuid;

use crate::database::{
    APPLICATION, Database, ONE, Sent, accepted, delivered, endpoint, failed, scheduled, starting, to,
};

const DAY: Duration = Duration::from_secs(86400);

/// Bytes of the body of each event.
const BODY: i64 = 7;

/// A small generator: the same histories in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, most: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (self.0 >> 33) % most
    }
}

/// A record, or the next try of a delivery, at the moment of its commit.
enum Step {
    Accept,
    Record(Box<AttemptRecord>),
    /// Leases the delivery for its second attempt, and records the attempt.
    Retry(Box<AttemptRecord>),
}

fn started(record: AttemptRecord, at: Timestamp) -> AttemptRecord {
    AttemptRecord { started_at: at, ..record }
}

/// A history of events around a midnight, in the order of the commits.
fn history(dice: &mut Dice, midnight: Timestamp) -> Vec<(Timestamp, Sent, Timestamp, Step)> {
    let mut steps = Vec::new();
    for _ in 0..40 {
        let at = midnight - 2 * HOUR + Duration::from_millis(dice.below(4 * 3_600_000));
        let new = to(accepted(at), &[(endpoint(1 + u128::from(dice.below(3))), starting(1))]);
        let of = &new.deliveries[0];
        let sent = Sent { delivery: of.id, event: new.event.id, endpoint: of.endpoint };
        steps.push((at, sent, at, Step::Accept));
        // Each attempt begins later, and some are recorded hours after.
        let first = at + Duration::from_millis(1 + dice.below(5000));
        let mut late = |begun: Timestamp| {
            let seconds = if dice.below(4) == 0 { dice.below(20 * 3600) } else { dice.below(60) };
            begun + Duration::from_secs(1 + seconds)
        };
        let recorded = late(first);
        let again = late(recorded + Duration::from_secs(1));
        let begun_again = again - Duration::from_secs(1);
        match dice.below(5) {
            0 | 1 => steps.push((recorded, sent, at, Step::Record(Box::new(started(delivered(&sent, 1, 1), first))))),
            2 => steps.push((recorded, sent, at, Step::Record(Box::new(started(failed(&sent, 1, 1), first))))),
            3 => {
                steps.push((recorded, sent, at, Step::Record(Box::new(started(scheduled(&sent, 1, 1), first)))));
                let last = if dice.below(2) == 0 { delivered(&sent, 2, 2) } else { failed(&sent, 2, 2) };
                steps.push((again, sent, at, Step::Retry(Box::new(started(last, begun_again)))));
            }
            _ => {
                let unknown = AttemptRecord { outcome: Outcome::Unknown, ..started(failed(&sent, 1, 1), first) };
                steps.push((recorded, sent, at, Step::Record(Box::new(unknown))));
                if dice.below(2) == 0 {
                    // The answer that was believed lost: the row is completed.
                    let known = started(delivered(&sent, 1, 1), first);
                    steps.push((recorded + Duration::from_secs(30), sent, at, Step::Record(Box::new(known))));
                }
            }
        }
    }
    steps.sort_by_key(|(at, ..)| *at);
    steps
}

async fn take(database: &Database, sent: Sent, accepted_at: Timestamp, step: &Step) {
    match step {
        Step::Accept => {
            let mut new = to(accepted(accepted_at), &[(sent.endpoint, starting(1))]);
            new.event.id = sent.event;
            new.deliveries[0].id = sent.delivery;
            database.store.persist(ONE, &[&new]).await.expect("a commit");
        }
        Step::Record(record) => {
            database.store.record(&[record]).await.expect("a commit");
        }
        Step::Retry(record) => {
            let lease = format!(
                "UPDATE open_deliveries SET state = 'sending', lease_id = '00000000-0000-0000-0000-000000001002'
                 WHERE id = '{}'",
                sent.delivery.0
            );
            database.run(&lease).await;
            database.store.record(&[record]).await.expect("a commit");
        }
    }
}

/// The sums by hand over the tables, by day.
async fn by_hand(database: &Database) -> BTreeMap<Date, Usage> {
    let attempts = "
        SELECT day, count(*) FILTER (WHERE attempt = 1), count(*) FILTER (WHERE taken),
               count(*) FILTER (WHERE NOT taken AND outcome <> 'unknown'), count(*) FILTER (WHERE outcome = 'unknown')
        FROM (SELECT (started_at AT TIME ZONE 'UTC')::date AS day, attempt, taken, outcome FROM attempts WHERE NOT is_test
              UNION ALL
              SELECT (started_at AT TIME ZONE 'UTC')::date, 1, true, 'answered' FROM deliveries WHERE started_at IS NOT NULL) a
        GROUP BY 1";
    let events = "SELECT (accepted_at AT TIME ZONE 'UTC')::date, count(*) FROM events WHERE NOT is_test GROUP BY 1";
    let mut days: BTreeMap<Date, Usage> = BTreeMap::new();
    for row in database.rows(attempts, &[]).await {
        let [deliveries, taken, failed, unknown] = [1, 2, 3, 4].map(|column| row.get::<_, i64>(column));
        *days.entry(row.get(0)).or_default() = Usage { deliveries, taken, failed, unknown, ..Usage::default() };
    }
    for row in database.rows(events, &[]).await {
        let day = days.entry(row.get(0)).or_default();
        day.events = row.get(1);
        day.bytes = day.events * BODY;
    }
    days
}

async fn figures(database: &Database, around: Date) -> BTreeMap<Date, Usage> {
    let (from, to) = (around.saturating_sub(3.days()), around.saturating_add(3.days()));
    database.store.usage(APPLICATION, from, to).await.expect("figures").into_iter().collect()
}

async fn count_at(database: &Database, now: Timestamp) {
    while database.store.count_rollups(now).await.expect("a count") {}
}

#[tokio::test]
async fn the_usage_of_a_day_is_the_sum_over_its_attempts() {
    let midnight = begin_of(day_of(Timestamp::now()));
    for seed in 1..=4 {
        let database = Database::fresh().await;
        let begin = midnight - 3 * HOUR;
        let marks = "UPDATE rollup_marks SET counted = $1, hourly = $1, final = $1, settled = $2";
        database.rows(marks, &[&begin, &day_of(begin)]).await;
        let mut dice = Dice(seed);
        let (mut counted, mut erased) = (begin, false);
        for (at, sent, accepted_at, step) in history(&mut dice, midnight) {
            while counted + HOUR < at {
                counted += HOUR;
                count_at(&database, counted).await;
            }
            take(&database, sent, accepted_at, &step).await;
            if at > midnight + 3 * HOUR && !erased {
                // The erasure of a counted event, before the last count of its hour.
                erased = true;
                database
                    .run("UPDATE events SET body = '', erased_at = now() WHERE id IN (SELECT id FROM events LIMIT 3)")
                    .await;
            }
        }
        while counted < midnight + 2 * DAY + 2 * HOUR {
            counted += HOUR;
            count_at(&database, counted).await;
        }
        let expected = by_hand(&database).await;
        assert_eq!(figures(&database, day_of(midnight)).await, expected, "seed {seed}");
        let marks = database.store.usage_marks().await.expect("marks");
        assert_eq!(marks.settled, day_of(midnight + DAY), "both days are final");
        // Neither the end of the retention nor another count changes the figures.
        database.run("TRUNCATE events, deliveries, attempts, rollups, rollups_hourly").await;
        count_at(&database, counted + 3 * DAY).await;
        assert_eq!(figures(&database, day_of(midnight)).await, expected, "seed {seed}");
    }
}

/// A process of the previous release counts minutes and hours, and writes no usage.
#[tokio::test]
async fn a_settled_day_has_the_counts_of_an_earlier_release() {
    let database = Database::fresh().await;
    let day = day_of(Timestamp::now()).saturating_sub(1.day());
    let (begin, end) = (begin_of(day), begin_of(day.saturating_add(1.day())));
    database.rows("UPDATE rollup_marks SET counted = $1, hourly = $1, final = $1, settled = $2", &[&begin, &day]).await;
    let sent = database.persist_at(begin + HOUR, endpoint(1), starting(1)).await;
    database.store.record(&[&delivered(&sent, 1, 1)]).await.expect("a commit");
    count_at(&database, begin + 4 * HOUR).await;
    database.run("DELETE FROM usage_days").await;
    for hour in 5..=50 {
        count_at(&database, begin + hour * HOUR).await;
    }
    assert_eq!(database.store.usage_marks().await.expect("marks").settled, day_of(end));
    let expected = Usage { events: 1, deliveries: 1, taken: 1, failed: 0, unknown: 0, bytes: BODY };
    assert_eq!(figures(&database, day).await, BTreeMap::from([(day, expected)]));
}

/// Sets the marks of the counting to a moment.
async fn set_marks(database: &Database, begin: Timestamp) {
    let marks = "UPDATE rollup_marks SET counted = $1, hourly = $1, final = $1, settled = $2";
    database.rows(marks, &[&begin, &day_of(begin)]).await;
}

/// The record of an outcome that was believed lost has the real start, in another step than the `unknown` row.
#[tokio::test]
async fn an_attempt_that_moves_to_its_real_start_is_billed_once() {
    let database = Database::fresh().await;
    let begin = begin_of(day_of(Timestamp::now()).saturating_sub(1.day()));
    set_marks(&database, begin).await;
    let sent = database.persist_at(begin + Duration::from_secs(30), endpoint(1), starting(1)).await;
    let unknown = AttemptRecord { outcome: Outcome::Unknown, ..failed(&sent, 1, 1) };
    let lost = started(unknown, begin + Duration::from_secs(60));
    database.store.record(&[&lost]).await.expect("a commit");
    count_at(&database, begin + Duration::from_secs(600)).await;
    let known = started(delivered(&sent, 1, 1), begin + Duration::from_secs(400));
    database.store.record(&[&known]).await.expect("a commit");
    for hour in 1..=3 {
        count_at(&database, begin + hour * HOUR).await;
    }
    let expected = by_hand(&database).await;
    assert_eq!(expected[&day_of(begin)].taken, 1);
    assert_eq!(figures(&database, day_of(begin)).await, expected);
}

#[tokio::test]
async fn a_day_is_dropped_after_the_last_count_of_its_attempts() {
    let database = Database::fresh().await;
    let now = Timestamp::now();
    let old = begin_of(day_of(now).saturating_sub(1.day())) + HOUR;
    let sent = database.persist_at(old, endpoint(1), starting(1)).await;
    database.store.record(&[&started(delivered(&sent, 1, 1), now - HOUR)]).await.expect("a commit");
    let line = begin_of(day_of(now));
    database.store.raise_line(line).await.expect("a line");
    set_marks(&database, now - 2 * HOUR).await;
    let table = format!("deliveries_p{}", day_of(old).strftime("%Y%m%d"));
    let dropped = database.store.drop_below_line(line).await.expect("a look");
    assert!(!dropped.contains(&table), "{dropped:?}");
    set_marks(&database, now).await;
    let dropped = database.store.drop_below_line(line).await.expect("a drop");
    assert!(dropped.contains(&table), "{dropped:?}");
}

/// Rows of applications 10 and 11, of the day before yesterday and of today.
const ROWS: &str = "
INSERT INTO applications (id, name) VALUES ('00000000-0000-0000-0000-00000000000b', 'other');
INSERT INTO usage_days SELECT ('00000000-0000-0000-0000-00000000000' || a)::uuid, d, 10, 20, 15, 4, 1, 100
FROM unnest('{a,b}'::text[]) a, unnest(ARRAY[(now() AT TIME ZONE 'UTC')::date, (now() AT TIME ZONE 'UTC')::date - 2]) d";

#[tokio::test]
async fn operators_sum_up_days_by_label_and_plan() {
    let database = Database::fresh().await;
    database.run(ROWS).await;
    let store = &database.store;
    store.put_plan("free", &Limits { events_per_day: Some(40), ..Limits::default() }).await.expect("a plan");
    let labels = BTreeMap::from([("region".to_owned(), "eu:\"west\"".to_owned())]);
    let change = ApplicationChange {
        plan: Some(Some("free".to_owned())),
        labels: Some(labels.clone()),
        stored_bytes: Some(Some(500)),
        ..ApplicationChange::default()
    };
    let changed = store.change_application(APPLICATION, &change).await.expect("a change").expect("the application");
    assert_eq!((changed.labels, changed.plan.as_deref()), (labels.clone(), Some("free")));

    let today = day_of(Timestamp::now());
    let list = async |days, selected, before| {
        let filter = UsageFilter { days, selected, before, limit: 10 };
        let rows = store.usage_of_applications(&filter).await.expect("a list");
        rows.into_iter().map(|row| (row.id, row.usage.events)).collect::<Vec<_>>()
    };
    let other = ApplicationId(Uuid::from_u128(0xb));
    let week = (today.saturating_sub(6.days()), today);
    assert_eq!(list(week, Selected::default(), None).await, [(other, 20), (APPLICATION, 20)]);
    assert_eq!(list((today, today), Selected::default(), Some(other)).await, [(APPLICATION, 10)]);
    let labelled = Selected { labels, plan: None };
    assert_eq!(list(week, labelled, None).await, [(APPLICATION, 20)]);
    let free = Selected { plan: Some("free".to_owned()), ..Selected::default() };
    assert_eq!(list(week, free, None).await, [(APPLICATION, 20)]);
    let yesterday = today.saturating_sub(1.day());
    assert_eq!(list((yesterday, yesterday), Selected::default(), None).await, []);

    // What lies below the line is no longer stored.
    let uses = store.quota_use(APPLICATION, today).await.expect("a look").expect("the application");
    assert_eq!((uses.events, uses.bytes), (10, 200));
    let limits = uses.own.within(uses.of_plan);
    assert_eq!((limits.events_per_day, limits.stored_bytes), (Some(40), Some(500)));
    store.raise_line(begin_of(yesterday)).await.expect("a line");
    assert_eq!(store.quota_use(APPLICATION, today).await.expect("a look").expect("the application").bytes, 100);
    assert_eq!(store.quota_use(ApplicationId(Uuid::from_u128(99)), today).await.expect("a look"), None);

    assert_eq!(store.drop_usage(yesterday, 1).await.expect("a drop"), 1);
    assert_eq!(store.drop_usage(yesterday, 10).await.expect("a drop"), 1);
    assert_eq!(store.drop_usage(yesterday, 10).await.expect("a drop"), 0);
    assert_eq!(list(week, Selected::default(), None).await, [(other, 10), (APPLICATION, 10)]);
}
