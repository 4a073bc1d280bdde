//! Usage of 10,000 applications over 400 days: the lists and the counts of quotas, and their plans and times.

use std::{collections::BTreeMap, time::Instant};

use fanfare_domain::{
    ids::ApplicationId,
    time::{begin_of, day_of},
};
use fanfare_store::{ApplicationFilter, Selected, Store, UsageFilter};
use jiff::{Timestamp, ToSpan};
use uuid::Uuid;

use crate::database::Database;

/// Applications 1 to 10,000, each with usage of 400 days. Each hundredth has the label `region:eu`, and each tenth is
/// in the plan.
const LOAD: &str = r#"
INSERT INTO plans (name, events_per_day, stored_bytes) VALUES ('free', 1000, 100000);
INSERT INTO applications (id, name, plan, labels)
    SELECT ('00000000-0000-0000-0001-' || lpad(to_hex(n), 12, '0'))::uuid, 'application ' || n,
           CASE WHEN n % 10 = 0 THEN 'free' END, CASE WHEN n % 100 = 0 THEN '{"region": "eu"}' ELSE '{}' END::jsonb
    FROM generate_series(1, 10000) n;
INSERT INTO usage_days
    SELECT ('00000000-0000-0000-0001-' || lpad(to_hex(n), 12, '0'))::uuid, (now() AT TIME ZONE 'UTC')::date - d,
           100, 200, 190, 10, 0, 70000
    FROM generate_series(0, 399) d, generate_series(1, 10000) n;
"#;

async fn timed<T>(loaded: &Database, name: &str, most: i64, look: impl AsyncFnOnce(Store) -> T) -> T {
    let began = Instant::now();
    let (found, touched) = loaded.measured(look).await;
    println!("{name}: {:?}, {} buffers, scans {:?}", began.elapsed(), touched.buffers, touched.scanned);
    assert!(touched.buffers <= most, "{name}: {} buffers", touched.buffers);
    assert!(touched.scanned.get("usage_days").copied().unwrap_or_default() == 0, "{name}: {:?}", touched.scanned);
    found
}

#[tokio::test]
async fn usage_of_a_year_is_read_by_indexes() {
    let loaded = Database::fresh().await;
    loaded.without_autovacuum().await;
    loaded.run(LOAD).await;
    loaded.run("VACUUM ANALYZE").await;
    let today = day_of(Timestamp::now());
    let of_application = ApplicationId(Uuid::from_u128((1 << 48) | 5000));
    let year = (today.saturating_sub(399.days()), today);
    let days = timed(&loaded, "a year of an application", 1_000, async |store| {
        store.usage(of_application, year.0, year.1).await.expect("a report")
    });
    assert_eq!(days.await.len(), 400);
    let month = (today.saturating_sub(30.days()), today);
    let list = async |name: &str, selected: Selected, most: i64| {
        let filter = UsageFilter { days: month, selected, before: None, limit: 101 };
        let look = async |store: Store| store.usage_of_applications(&filter).await.expect("a page");
        timed(&loaded, name, most, look).await.len()
    };
    assert_eq!(list("a page of a month", Selected::default(), 8_000).await, 101);
    let label = Selected { labels: BTreeMap::from([("region".to_owned(), "eu".to_owned())]), plan: None };
    assert_eq!(list("a page of a label", label.clone(), 9_000).await, 100);
    let plan = Selected { plan: Some("free".to_owned()), ..Selected::default() };
    assert_eq!(list("a page of a plan", plan, 9_000).await, 101);
    let filter = ApplicationFilter { selected: label, limit: 101, ..ApplicationFilter::default() };
    let look = async |store: Store| store.applications(&filter).await.expect("a page").applications.len();
    assert_eq!(timed(&loaded, "applications of a label", 1_000, look).await, 100);

    loaded.store.raise_line(begin_of(month.0)).await.expect("a line");
    let uses = timed(&loaded, "the quotas of an application", 300, async |store| {
        store.quota_use(of_application, today).await.expect("a look").expect("the application")
    });
    assert_eq!(uses.await.bytes, 31 * 70_000);
    let plans = timed(&loaded, "all plans", 300, async |store| store.plans().await.expect("plans"));
    assert_eq!(plans.await[0].applications, 1000);
    let oldest = year.0.saturating_add(1.day());
    let dropped = timed(&loaded, "5,000 ended rows", 60_000, async |store| store.drop_usage(oldest, 5000).await);
    assert_eq!(dropped.await.expect("a drop"), 5000);
}

/// Hours of yesterday: a day of 10,000,000 attempts of 10,000 applications with an endpoint each.
const HOURS: &str = "
DO $$ DECLARE names text; zeros text; BEGIN
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum), string_agg('0', ', ') INTO names, zeros FROM pg_attribute
    WHERE attrelid = 'rollups_hourly'::regclass AND attnum > 0
      AND attname NOT IN ('subject', 'at', 'kind', 'taken', 'failed_5xx', 'events', 'l0', 'bytes');
    EXECUTE format('INSERT INTO rollups_hourly (subject, at, kind, taken, failed_5xx, events, l0, bytes, %s)
        SELECT (''00000000-0000-000'' || kind || ''-0001-'' || lpad(to_hex(n), 12, ''0''))::uuid, at, kind, 40, 2, 41, 41, 4100, %s
        FROM generate_series(1, 10000) n, generate_series(1, 2) kind,
             generate_series(date_trunc(''day'', now(), ''UTC'') - interval ''1 day'',
                             date_trunc(''day'', now(), ''UTC'') - interval ''1 hour'', interval ''1 hour'') at', names, zeros);
END $$;
ANALYZE rollups_hourly;
UPDATE rollup_marks SET counted = date_trunc('minute', now()), hourly = date_trunc('hour', now()),
                        final = date_trunc('day', now(), 'UTC'), settled = (now() AT TIME ZONE 'UTC')::date - 1";

#[tokio::test]
async fn a_day_of_ten_million_attempts_is_settled_in_one_commit() {
    let loaded = Database::fresh().await;
    loaded.run(HOURS).await;
    let began = Instant::now();
    assert!(loaded.store.count_rollups(Timestamp::now()).await.expect("a count"), "the day is due");
    println!("10,000 applications settled in {:?}", began.elapsed());
    let sums =
        "SELECT count(*), sum(events)::bigint, sum(deliveries)::bigint, sum(taken + failed)::bigint, sum(bytes)::bigint
                FROM usage_days";
    let row = loaded.rows(sums, &[]).await.remove(0);
    let sums = [0, 1, 2, 3, 4].map(|column| row.get::<_, i64>(column));
    assert_eq!(sums, [10_000, 9_840_000, 9_840_000, 10_080_000, 984_000_000]);
    assert_eq!(loaded.store.usage_marks().await.expect("marks").settled, day_of(Timestamp::now()));
}
