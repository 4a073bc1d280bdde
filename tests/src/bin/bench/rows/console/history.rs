//! Finished deliveries of 30 days, with events and attempts.

use fanfare_domain::ids::{ApplicationId, DeliveryId, EndpointId, EventId};
use jiff::{SignedDuration, Timestamp};
use tokio_postgres::Client;
use uuid::Uuid;

use crate::scene::{
    Scene,
    days::{DAILY, Day},
};

/// Days of the history. The services create the partitions of the newest days.
const DAYS: i64 = 30;
const NEWEST: i64 = 2;

/// Rows per insert.
const BATCH: usize = 10_000;

/// Of five deliveries, one is another application's.
const SHARE: usize = 5;

/// Inserts deliveries with their events. `way` has a hundred values: 0 fails after six attempts, 1 is skipped, 2 to 4
/// succeed at the second attempt, all others at once.
const INSERT: &str = r#"
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::timestamptz[], $6::text[], $7::text[], $8::int[])
        AS input(delivery, event, application, endpoint, at, type, key, way)
), keyed AS (
    INSERT INTO event_keys (event_id, month, accepted_at)
    SELECT event, date_trunc('month', now() AT TIME ZONE 'UTC')::date, at FROM input
), accepted AS (
    INSERT INTO events (id, accepted_at, application_id, type, key, body, matches, traceparent, content)
    SELECT event, at, application, type, key, '{"order":"' || key || '","note":"' || repeat('x', 400) || '"}', 1, '', ''
    FROM input
), sent AS (
    INSERT INTO attempts (delivery_id, attempt, event_id, application_id, endpoint_id, url, started_at, duration_ms, outcome,
                          status, response_headers, response_body)
    SELECT delivery, attempt, event, application, endpoint, 'http://receiver.example/', at + attempt * interval '10 s', 40,
           CASE WHEN way = 4 AND attempt = 1 THEN 'timed_out' ELSE 'answered' END,
           CASE WHEN way = 4 AND attempt = 1 THEN NULL WHEN way = 0 OR attempt = 1 THEN 503 ELSE 200 END, '{}', 'overloaded'
    FROM input, generate_series(1, CASE way WHEN 0 THEN 6 WHEN 1 THEN 0 ELSE 2 END) AS attempt WHERE way < 5
)
INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, reason, attempt, failures, finished_at, url, started_at,
                        duration_ms, status, response_headers, response_body)
SELECT application, delivery, event, endpoint, CASE way WHEN 0 THEN 'failed' WHEN 1 THEN 'skipped' ELSE 'delivered' END,
       CASE way WHEN 0 THEN 'attempts_exhausted' END,
       CASE way WHEN 0 THEN 6 WHEN 1 THEN 0 WHEN 2 THEN 2 WHEN 3 THEN 2 WHEN 4 THEN 2 ELSE 1 END,
       CASE way WHEN 0 THEN 6 WHEN 2 THEN 1 WHEN 3 THEN 1 WHEN 4 THEN 1 ELSE 0 END, at + interval '1 minute',
       CASE WHEN way > 4 THEN 'http://receiver.example/' END, CASE WHEN way > 4 THEN at + interval '3 ms' END,
       CASE WHEN way > 4 THEN 40 END, CASE WHEN way > 4 THEN 200 END, CASE WHEN way > 4 THEN '{}' END,
       CASE WHEN way > 4 THEN 'ok'::bytea END
FROM input"#;

/// Endpoint with its application and an event type.
struct Target {
    application: ApplicationId,
    endpoint: EndpointId,
    event_type: String,
}

/// Inserts `count` deliveries, evenly over the days. Four fifths are of `application`: to few of its webhooks many, to
/// most few.
pub(super) async fn fill(scene: &Scene, application: ApplicationId, count: usize) {
    let database = scene.world.database().await;
    for day in NEWEST + 1..=DAYS {
        Day::ago(day).create(&database, &[&DAILY[..], &["rollups_hourly"]].concat()).await;
    }
    let own = targets(&database, "application_id = $1 AND url LIKE '%/all/%'", application).await;
    let others = targets(&database, "application_id <> $1", application).await;
    let insert = database.prepare(INSERT).await.expect("a statement");
    let began = Timestamp::now() - SignedDuration::from_hours(24 * DAYS) + SignedDuration::from_mins(1);
    let step = (24 * 3600 * 1000 * DAYS - 120_000) / i64::try_from(count).expect("a number");
    for first in (0..count).step_by(BATCH) {
        let numbers = first..(first + BATCH).min(count);
        let at = |number: usize| {
            let milliseconds = began.as_millisecond() + step * i64::try_from(number).expect("a number");
            Timestamp::from_millisecond(milliseconds).expect("a moment")
        };
        let target = |number: usize| match number % SHARE {
            0 => &others[number / SHARE % others.len()],
            _ => &own[skewed(number, own.len())],
        };
        let key = |number: usize| format!("order-{number}");
        let event = |number: usize| EventId::from_key(target(number).application, &key(number));
        let delivery = |number: usize| DeliveryId::derive(at(number), event(number), target(number).endpoint);
        let ids = |id: &dyn Fn(usize) -> Uuid| numbers.clone().map(id).collect::<Vec<_>>();
        let texts = |text: &dyn Fn(usize) -> String| numbers.clone().map(text).collect::<Vec<_>>();
        let times: Vec<Timestamp> = numbers.clone().map(at).collect();
        let ways: Vec<i32> = numbers.clone().map(|number| ((spread(number) >> 8) % 100) as i32).collect();
        let (deliveries, events) = (ids(&|number| delivery(number).0), ids(&|number| event(number).0));
        let applications = ids(&|number| target(number).application.0);
        let endpoints = ids(&|number| target(number).endpoint.0);
        let (types, keys) = (texts(&|number| target(number).event_type.clone()), texts(&key));
        database
            .execute(&insert, &[&deliveries, &events, &applications, &endpoints, &times, &types, &keys, &ways])
            .await
            .expect("deliveries");
    }
}

/// Returns each event type of the endpoints that fulfil a condition.
async fn targets(database: &Client, condition: &str, application: ApplicationId) -> Vec<Target> {
    let select = format!(
        "SELECT application_id, id, type FROM endpoints, unnest(event_types) AS type WHERE {condition} ORDER BY id, type"
    );
    let rows = database.query(&select, &[&application.0]).await.expect("endpoints");
    let target = |row: &tokio_postgres::Row| Target {
        application: ApplicationId(row.get(0)),
        endpoint: EndpointId(row.get(1)),
        event_type: row.get::<_, String>(2).replace('*', "bench.0"),
    };
    rows.iter().map(target).collect()
}

/// Returns a number below `count`, small numbers most often.
fn skewed(number: usize, count: usize) -> usize {
    let share = (spread(number) >> 32) as f64 / f64::from(u32::MAX);
    ((share.powi(3) * count as f64) as usize).min(count - 1)
}

/// Scatters consecutive numbers evenly.
fn spread(number: usize) -> u64 {
    (number as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15)
}
