//! Pages of expired days, and the drop of a single day.

use std::time::Duration;

use fanfare_store::{ArchivedRow, DailyTable, ExpiredDay, Store};
use jiff::{Timestamp, tz::TimeZone};
use serde_json::Value;

use crate::database::{Database, delivered, endpoint, failed, moment, starting};

const DAY: u64 = 86400;

/// Buffers that a page may touch: two rows of a page in a buffer, a look-up of each row by the key, and the indexes.
const PAGE_BUFFERS: i64 = 12_000;

async fn expired(database: &Database, line: Timestamp) -> ExpiredDay {
    let days = database.store.expired_days(line).await.expect("a look");
    days.into_iter().next_back().expect("a day below the line")
}

/// All rows of a table in pages, and the number of pages.
async fn walk(store: &Store, day: &ExpiredDay, table: DailyTable) -> (Vec<ArchivedRow>, usize) {
    let (mut rows, mut pages): (Vec<ArchivedRow>, usize) = (Vec::new(), 0);
    loop {
        let after = rows.last().map(|row| row.key.clone());
        let page = store.page_of_day(day, table, after.as_deref()).await.expect("a page");
        if page.is_empty() {
            return (rows, pages);
        }
        pages += 1;
        rows.extend(page);
    }
}

#[tokio::test]
async fn a_row_is_archived_as_the_database_writes_the_row() {
    let database = Database::fresh().await;
    let at = moment(2 * DAY);
    let sent = database.persist_at(at, endpoint(1), starting(1)).await;
    database.store.record(&[&failed(&sent, 1, 1)]).await.expect("a commit");
    let line = moment(DAY);
    database.store.end_below_line(line).await.expect("a commit");
    let day = expired(&database, line).await;
    assert_eq!(day.date, at.to_zoned(TimeZone::UTC).date());
    assert!(day.begin() <= at && at < day.begin() + Duration::from_secs(DAY));
    for (table, key) in [
        (DailyTable::Events, format!("{}/{at:.6}/{}", crate::database::APPLICATION.0, sent.event.0)),
        (DailyTable::Deliveries, format!("{}/{}", crate::database::APPLICATION.0, sent.delivery.0)),
        (DailyTable::Attempts, format!("{}/0000000001", sent.delivery.0)),
    ] {
        database.run("UPDATE deliveries SET mailed_at = finished_at, mailed_to = 'ops@a.example'").await;
        let (rows, pages) = walk(&database.store, &day, table).await;
        assert_eq!((rows.len(), pages), (1, 1), "{table:?}");
        assert_eq!(rows[0].key.join("/"), key);
        let json: Value = serde_json::from_str(&rows[0].json).expect("a JSON object");
        assert!(json.as_object().expect("an object").len() > 12 && !rows[0].json.contains('\n'), "{json}");
        let is_mailed = json["mailed_at"].is_string();
        assert_eq!((is_mailed, json.get("mailed_to")), (table == DailyTable::Deliveries, None), "{json}");
        // The row can be inserted again by hand, as deploy/archive.md shows.
        database.run("UPDATE deliveries SET mailed_to = NULL").await;
        let name = format!("{table:?}").to_lowercase();
        let same = format!(
            "SELECT count(*) FROM {name} t, json_populate_record(NULL::{name}, $1::text::json) r
             WHERE t IS NOT DISTINCT FROM r"
        );
        assert_eq!(database.rows(&same, &[&rows[0].json]).await[0].get::<_, i64>(0), 1, "{json}");
    }
}

/// Fills the day before yesterday: 20,000 rows of each table. Each tenth body has 100 kB, stored outside the row.
const FILL: &str = "
INSERT INTO events (id, accepted_at, application_id, type, body, matches, traceparent)
    SELECT gen_random_uuid(), at + i * interval '1 ms', app, 'usual',
           CASE WHEN i % 10 = 0 THEN repeat(md5(i::text), 3200) ELSE 'x' END, 1, ''
    FROM filled, generate_series(1, 20000) i;
INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, attempt, failures)
    SELECT app, (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint + i), 12, '0') || '80008000000000000000')::uuid,
           gen_random_uuid(), app, 'delivered', 1, 0
    FROM filled, generate_series(1, 20000) i;
INSERT INTO attempts (delivery_id, attempt, event_id, application_id, endpoint_id, started_at, outcome)
    SELECT id, n, event_id, application_id, endpoint_id, now(), 'answered' FROM deliveries, generate_series(9, 10) n;
";

#[tokio::test]
async fn pages_are_bounded_and_sort_no_day() {
    let database = Database::fresh().await;
    database.without_autovacuum().await;
    let begin = moment(2 * DAY).to_zoned(TimeZone::UTC).start_of_day().expect("a day").timestamp();
    database
        .run(&format!("CREATE TABLE filled AS SELECT '{begin}'::timestamptz AS at, gen_random_uuid() AS app"))
        .await;
    database.run(FILL).await;
    let line = begin + Duration::from_secs(DAY);
    let day = expired(&database, line).await;
    for statistics in ["", "ANALYZE"] {
        database.run(statistics).await;
        for (table, count, most_pages) in
            [(DailyTable::Events, 20_000, 60), (DailyTable::Deliveries, 20_000, 11), (DailyTable::Attempts, 40_000, 21)]
        {
            let ((rows, pages), touched) = database.measured(async |store| walk(&store, &day, table).await).await;
            assert_eq!(rows.len(), count, "{table:?}");
            assert!(rows.is_sorted_by(|one, other| one.key < other.key), "{table:?}");
            assert!(pages <= most_pages, "{table:?}: {pages} pages");
            let each = touched.buffers / i64::try_from(pages).expect("a number");
            println!("{table:?} {statistics}: {pages} pages of {each} buffers");
            assert!(each < PAGE_BUFFERS && touched.scanned.is_empty(), "{table:?}: {each} buffers, {touched:?}");
        }
    }
    let page = database.store.page_of_day(&day, DailyTable::Events, None).await.expect("a page");
    let bytes: usize = page.iter().map(|row| row.json.len()).sum();
    assert!(bytes < 5 * 1024 * 1024 && page.len() > 300, "{bytes} bytes in {} rows", page.len());
}

#[tokio::test]
async fn a_single_day_is_dropped_also_when_detached() {
    let database = Database::fresh().await;
    let (first, second) = (moment(2 * DAY), moment(DAY));
    for at in [first, second] {
        let sent = database.persist_at(at, endpoint(1), starting(1)).await;
        database.store.record(&[&delivered(&sent, 1, 1)]).await.expect("a commit");
    }
    let days = database.store.expired_days(moment(0)).await.expect("a look");
    assert_eq!(days.len(), 2, "{days:?}");
    let name = days[1].date.strftime("deliveries_p%Y%m%d");
    database.run(&format!("ALTER TABLE deliveries DETACH PARTITION {name}")).await;
    assert_eq!(walk(&database.store, &days[1], DailyTable::Deliveries).await.0.len(), 1, "a detached table is read");
    database.store.drop_day(&days[1]).await.expect("a drop");
    assert_eq!(database.store.expired_days(moment(0)).await.expect("a look"), days[..1]);
    assert_eq!(database.count("events").await, 1);
    let attempts = days[0].date.strftime("attempts_p%Y%m%d");
    database.run(&format!("DROP TABLE {attempts}")).await;
    let rest = expired(&database, moment(0)).await;
    assert!(!rest.has(DailyTable::Attempts) && rest.has(DailyTable::Events));
    let page = database.store.page_of_day(&rest, DailyTable::Attempts, None).await.expect("a page");
    assert!(page.is_empty(), "a dropped table has no rows");
}

#[tokio::test]
async fn while_the_archive_is_required_only_archived_days_are_dropped() {
    let database = Database::fresh().await;
    let store = &database.store;
    for at in [moment(2 * DAY), moment(DAY)] {
        let sent = database.persist_at(at, endpoint(1), starting(1)).await;
        store.record(&[&delivered(&sent, 1, 1)]).await.expect("a commit");
    }
    let line = moment(0);
    let deployment = store.require_archive().await.expect("a commit");
    assert_eq!(store.require_archive().await.expect("a commit"), deployment);
    let days = store.days_to_archive(line).await.expect("a look");
    assert_eq!(days.len(), 2, "{days:?}");
    assert_eq!(store.census().await.expect("a count").days_to_archive, 0, "the line was not raised");
    store.raise_line(line).await.expect("a line");
    assert_eq!(store.census().await.expect("a count").days_to_archive, 2);
    let dropped = async || {
        let mut dropped = store.drop_below_line(line).await.expect("a drop");
        // The keys of last month's events.
        dropped.retain(|name| !name.starts_with("event_keys"));
        dropped
    };
    assert!(dropped().await.is_empty());
    assert_eq!(store.purge_below_line(line).await.expect("a look"), 0);

    store.mark_archived(&days[1]).await.expect("a mark");
    assert_eq!(store.census().await.expect("a count").days_to_archive, 1);
    let second = dropped().await;
    let name = days[1].date.strftime("%Y%m%d").to_string();
    assert!(second.len() == 6 && second.iter().all(|table| table.ends_with(&name)), "{second:?}");
    assert_eq!(store.days_to_archive(line).await.expect("a look"), days[..1]);
    assert_eq!(database.count("archived_days").await, 0, "the mark goes with the day");

    assert!(store.release_archive().await.expect("a commit") && !store.release_archive().await.expect("a commit"));
    assert_eq!(dropped().await.len(), 6);
}
