//! Digests over a day with a million deliveries to a webhook, and beside 10,000 webhooks without digests.

use std::time::{Duration, Instant};

use fanfare_domain::{delivery::digest, ids::EndpointId};
use jiff::{Span, Timestamp, tz::TimeZone};

use crate::database::{Database, endpoint};

/// Deliveries of the day to webhook 1. Webhook 2 has as many, at the same times.
const DELIVERIES: i64 = 1_000_000;

/// Maximum of buffers touched by a look for due digests, and by a look for further deliveries of 31 days.
const MAX_BUFFERS: i64 = 100;
const MAX_BUFFERS_OF_DAYS: i64 = 300;

const LOAD: &str = r"
CREATE FUNCTION endpoint(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid $$;
CREATE FUNCTION id_at(ms bigint, i int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex(ms), 12, '0') || '80008000' || lpad(to_hex(i), 12, '0'))::uuid $$;
INSERT INTO endpoints (id, application_id, url, event_types)
    SELECT endpoint(n), endpoint(10), 'https://hook' || n || '.example/in', '{*}' FROM generate_series(1001, 11000) n;
UPDATE endpoints SET feed = 'copy', digest_from = '{FROM}' WHERE id IN (endpoint(1), endpoint(2));
INSERT INTO feed_entries (endpoint_id, written, id, application_id, event_id)
    SELECT endpoint(1 + i % 2), 10 + i / 10000, id_at({BEGIN} + i::bigint * 43, i), endpoint(10), gen_random_uuid()
    FROM generate_series(0, 2 * {DELIVERIES} - 1) i;
INSERT INTO digests (endpoint_id, day, event_id, deliveries, hash, counted_to)
    SELECT endpoint(n), day, gen_random_uuid(), 0, '', 10
    FROM generate_series('{FROM}'::date, '{DAY}'::date - 1, '1 day') day, generate_series(1, 1000) n;
ANALYZE endpoints, digests;
";

#[tokio::test]
async fn digests_of_large_days_read_their_entries_by_an_index() {
    let database = Database::fresh().await;
    database.without_autovacuum().await;
    let day = digest::last_ended(Timestamp::now());
    let from = day.saturating_sub(Span::new().days(30));
    let begin = day.to_zoned(TimeZone::UTC).expect("a day").timestamp().as_millisecond();
    let values = [
        ("{FROM}", from.to_string()),
        ("{DAY}", day.to_string()),
        ("{BEGIN}", begin.to_string()),
        ("{DELIVERIES}", DELIVERIES.to_string()),
    ];
    database.run(&values.iter().fold(LOAD.to_owned(), |text, (name, value)| text.replace(name, value))).await;

    let (due, touched) =
        database.measured(async |store| store.due_digests(day, EndpointId::LEAST, 100).await.expect("a list")).await;
    println!("due: {} buffers, scans {:?}", touched.buffers, touched.scanned);
    assert_eq!(due.iter().map(|due| due.endpoint).collect::<Vec<_>>(), [endpoint(1), endpoint(2)]);
    assert!(touched.buffers <= MAX_BUFFERS && touched.scanned.is_empty(), "{touched:?}");

    let horizon = database.store.horizon().await.expect("a horizon");
    let possible = digest::days(from, day, None);
    let look =
        async |store: fanfare_store::Store| store.untold_days(endpoint(1), &possible, horizon).await.expect("a look");
    let (untold, touched) = database.measured(look).await;
    println!("untold of {} days: {} buffers, scans {:?}", possible.len(), touched.buffers, touched.scanned);
    assert_eq!(untold, [day]);
    assert!(touched.buffers <= MAX_BUFFERS_OF_DAYS && touched.scanned.is_empty(), "{touched:?}");

    let began = Instant::now();
    let (entry, touched) =
        database.measured(async |store| store.count_day(endpoint(1), day, horizon).await.expect("a count")).await;
    println!("a day of {DELIVERIES}: {:?}, {} buffers, scans {:?}", began.elapsed(), touched.buffers, touched.scanned);
    assert_eq!(i64::try_from(entry.count), Ok(DELIVERIES));
    assert!(touched.scanned.is_empty(), "{touched:?}");
    // Each page of index and table is read about once.
    assert!(touched.buffers <= 100_000, "{touched:?}");
    assert!(began.elapsed() < Duration::from_secs(120), "{:?}", began.elapsed());
}
