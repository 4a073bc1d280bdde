//! Looks of operational events over 10,000,000 attempts, 100,000 endpoints and 5,000 open breakers.

use std::time::{Duration, Instant};

use fanfare_domain::{ids::ApplicationId, operational::Condition};
use fanfare_store::{HeldBounds, OperationalLook, OperationalMark, Store};
use jiff::Timestamp;
use uuid::Uuid;

use crate::database::{Database, endpoint};

/// The operator's application.
const OPERATOR: ApplicationId = ApplicationId(Uuid::from_u128(0xb));

/// Attempts of the load. More by the environment, for a measurement.
const ATTEMPTS: &str = "1000000";

/// Endpoints 1001 to 101,000 of the application. Of each hundred, five fail with an open breaker, one has a delivery
/// that expires soon, and one is paused. The failing endpoints failed for six hours.
const LOAD: &str = r"
CREATE FUNCTION endpoint(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid $$;
CREATE FUNCTION id_at(at timestamptz, i int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '80008000' || lpad(to_hex(i), 12, '0'))::uuid $$;
INSERT INTO applications (id, name) VALUES (endpoint(11), 'operations');
ALTER TABLE endpoints DISABLE TRIGGER raise_version;
INSERT INTO endpoints (id, application_id, url, event_types, status, status_since)
    SELECT endpoint(n), endpoint(10), 'https://hook' || n || '.example/in', '{*}',
           CASE n % 100 WHEN 6 THEN 'paused' WHEN 7 THEN 'disabled' ELSE 'enabled' END,
           now() - CASE WHEN n % 10000 = 7 THEN interval '1 s' ELSE interval '30 days' END
    FROM generate_series(1001, 101000) n;
INSERT INTO endpoint_backlogs (endpoint_id, application_id, owner, reason, since, failures, next_probe)
    SELECT endpoint(n), endpoint(10), CASE WHEN n % 100 <> 6 THEN endpoint(257) END, 'backlog', now() - interval '2 h', 20,
           CASE WHEN n % 100 < 5 THEN now() END
    FROM generate_series(1001, 101000) n WHERE n % 100 < 7;
INSERT INTO open_deliveries (id, event_id, application_id, endpoint_id, state, reason, listed, expires_at)
    SELECT id_at(now() - interval '2 h' + i * interval '1 ms', n), gen_random_uuid(), endpoint(10), endpoint(n), 'queued', 'backlog', true,
           now() + CASE WHEN n % 100 = 5 THEN interval '30 minutes' ELSE interval '1 day' END
    FROM generate_series(1001, 101000) n, generate_series(1, 50) i WHERE n % 100 < 7;
DO $$ DECLARE names text; zeros text; BEGIN
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum), string_agg('0', ', ') INTO names, zeros FROM pg_attribute
    WHERE attrelid = 'rollups'::regclass AND attnum > 0 AND attname NOT IN ('subject', 'at', 'kind', 'taken', 'failed_5xx');
    EXECUTE format('INSERT INTO rollups (subject, at, kind, taken, failed_5xx, %s)
        SELECT endpoint(n), date_bin(''5 minutes'', now() - ago * interval ''5 minutes'', ''epoch''), 2,
               CASE WHEN n %% 100 < 5 THEN 0 ELSE 7 END, CASE WHEN n %% 100 < 5 THEN 1 ELSE 0 END, %s
        FROM generate_series(1001, 101000) n, generate_series(1, CASE WHEN n %% 100 < 5 THEN 72 ELSE 6 END) ago', names, zeros);
END $$;
INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, reason, attempt, failures, finished_at)
    SELECT endpoint(10), id_at(now() - (i % 3) * interval '1 day' - i * interval '1 ms', i), gen_random_uuid(),
           endpoint(1001 + i % 100000), CASE WHEN i % 20 = 0 THEN 'failed' ELSE 'delivered' END,
           CASE WHEN i % 20 = 0 THEN 'attempts_exhausted' END, 8, 8,
           now() - CASE WHEN i % 200 = 0 AND i < 200000 THEN interval '25 s' ELSE interval '1 h' END
    FROM generate_series(0, 499999) i;
INSERT INTO attempts (delivery_id, attempt, event_id, application_id, endpoint_id, started_at, duration_ms, outcome, status)
    SELECT id_at(now() - (i % 3) * interval '1 day' - i / 20 * interval '1 ms', i / 20), 1 + i % 20, gen_random_uuid(), endpoint(10),
           endpoint(1001 + i % 100000), now() - (i % 3) * interval '1 day', 5, 'answered', 500
    FROM generate_series(0, {ATTEMPTS} - 1) i;
INSERT INTO parked (id, parked_at, reason, message, routing_key, headers, body)
    SELECT id_at(now() - i * interval '1 s', i), now() - i * interval '1 s', 'not_an_object', '', 'app_x.a', '{}', ''
    FROM generate_series(1, 100000) i;
INSERT INTO replays (id, application_id, event_types, states, since, until, rate_per_second, state, finished_at)
    SELECT endpoint(200000 + i), endpoint(10), '{}', '{failed}', now(), now(), 10, 'done', now() - i * interval '25 s'
    FROM generate_series(1, 10000) i;
";

/// Tables without a sequential scan.
const LARGE: [&str; 6] = ["open_deliveries", "deliveries", "attempts", "rollups", "parked", "replays"];

async fn measured<T>(database: &Database, name: &str, look: impl AsyncFnOnce(Store) -> T) -> (T, i64) {
    let began = Instant::now();
    let (found, touched) = database.measured(look).await;
    println!("{name}: {:?}, {} buffers, scans {:?}", began.elapsed(), touched.buffers, touched.scanned);
    let is_large = |table: &&String| LARGE.iter().any(|large| table.starts_with(large));
    let scanned: Vec<_> = touched.scanned.keys().filter(is_large).collect();
    assert!(scanned.is_empty(), "{name} scans {scanned:?}");
    (found, touched.buffers)
}

#[tokio::test]
async fn looks_of_operational_events_read_by_indexes() {
    let database = Database::fresh().await;
    database.without_autovacuum().await;
    let attempts = std::env::var("OPERATIONAL_ATTEMPTS").unwrap_or_else(|_| ATTEMPTS.to_owned());
    database.run(&LOAD.replace("{ATTEMPTS}", &attempts)).await;
    database.run("VACUUM ANALYZE").await;
    let now = Timestamp::now();
    database.store.operational_mark(OPERATOR).await.expect("a look").expect("a mark");
    let mark = OperationalMark {
        application: OPERATOR,
        begun_at: now - Duration::from_secs(600),
        counted: now - Duration::from_secs(600),
        is_looked: true,
    };
    let until = now - Duration::from_secs(15);
    let held = HeldBounds { most: 60, max_age: Duration::from_secs(86400) };

    let lifetime = |_, _| Duration::from_secs(86400);
    let look = OperationalLook { mark, held, failing: &[], near_held: &[], lifetime: &lifetime };
    let look = async |store: Store| store.lasting_conditions(&look).await.expect("a look").found;
    let (found, buffers) = measured(&database, "lasting conditions", look).await;
    let count = |condition| found.iter().filter(|found| found.key.condition == condition).count();
    assert_eq!([Condition::Failing, Condition::BreakerOpen].map(count), [5000, 5000]);
    assert_eq!([Condition::BacklogNearLimit, Condition::HeldNearLimit].map(count), [1000, 1000]);
    // Ten endpoints were disabled since the first look, and 990 before.
    assert_eq!(count(Condition::Disabled), 10);
    assert!(buffers < 400_000, "{buffers} buffers");

    let look = async |store: Store| store.occurrences(&mark, until).await.expect("a look");
    let (occurred, buffers) = measured(&database, "occurrences", look).await;
    assert_eq!(occurred.iter().filter(|occurred| occurred.key.condition == Condition::GivingUp).count(), 500);
    assert!(buffers < 20_000, "{buffers} buffers");
    let look = async |store: Store| store.finished_replays(&mark, until).await.expect("a look");
    let (replays, buffers) = measured(&database, "finished replays", look).await;
    assert!((1..30).contains(&replays.len()) && buffers < 50, "{} replays, {buffers} buffers", replays.len());
    let endpoints: Vec<_> = (0..50).map(|n| endpoint(1100 + 100 * n)).collect();
    let look = async |store: Store| store.told_endpoints(&endpoints).await.expect("a look");
    let (told, buffers) = measured(&database, "endpoints of a batch", look).await;
    assert!(told.len() == 50 && buffers < 5000, "{buffers} buffers");
}
