//! Health, counts and facts over 1,000 endpoints of an application, 50 of them dead: results, and touched buffers.

use std::time::Duration;

use fanfare_domain::{
    diagnosis::{
        findings::{ApplicationFacts, Subject, application_findings, examine},
        rollup::{STEP, floor},
    },
    ids::EndpointId,
};
use fanfare_store::{StatsStep, StatsSubject, Store};
use jiff::Timestamp;

use crate::database::{APPLICATION, Database, endpoint};

/// Maximum of buffers touched by a page. Counts of 50 endpoints by hour, and the failures of 50 dead endpoints, are
/// read one by one.
const MAX_BUFFERS: i64 = 6_000;

/// Endpoints 1001 to 2000. Endpoints 1001 to 1050 are dead: each has 400 queued deliveries and an open breaker, and
/// failed for two days but for a success 90 minutes ago. 1051 is paused, with held deliveries.
const LOAD: &str = r"
CREATE FUNCTION endpoint(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid $$;
CREATE FUNCTION id_at(at timestamptz, i int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '80008000' || lpad(to_hex(i), 12, '0'))::uuid $$;
INSERT INTO endpoints (id, application_id, url, event_types, status)
    SELECT endpoint(n), endpoint(10), 'https://hook' || n || '.example/in', '{*}',
           CASE n WHEN 1051 THEN 'paused' ELSE 'enabled' END FROM generate_series(1001, 2000) n;
INSERT INTO open_deliveries (id, event_id, application_id, endpoint_id, state, reason, listed, expires_at)
    SELECT id_at(now() - interval '1 h' + i * interval '10 ms', i), gen_random_uuid(), endpoint(10), endpoint(1001 + i % 51),
           'queued', 'breaker_open', true, now() + CASE i % 51 WHEN 7 THEN interval '30 minutes' ELSE interval '1 day' END
    FROM generate_series(0, 51 * 400 - 1) i;
INSERT INTO endpoint_backlogs (endpoint_id, application_id, owner, reason, since, next_look, failures, next_probe)
    SELECT endpoint(n), endpoint(10), CASE WHEN n < 1051 THEN endpoint(257) END,
           CASE WHEN n < 1051 THEN 'breaker_open' ELSE 'paused' END, now() - interval '80 minutes',
           now() + interval '1 minute', 20, CASE WHEN n < 1051 THEN now() + interval '30 s' END
    FROM generate_series(1001, 1051) n;
INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, reason, attempt, failures, started_at)
    SELECT endpoint(10), id_at(now() - (i % 3) * interval '1 day' - i * interval '1 ms', i), gen_random_uuid(),
           endpoint(1001 + i % 1000), CASE WHEN i % 1000 < 50 THEN 'failed' ELSE 'delivered' END,
           CASE WHEN i % 1000 < 50 THEN 'attempts_exhausted' END, 1, 0, CASE WHEN i % 1000 >= 50 THEN now() END
    FROM generate_series(0, 199999) i;
INSERT INTO attempts (delivery_id, attempt, event_id, application_id, endpoint_id, started_at, duration_ms, outcome, status)
    SELECT d.id, 1, d.event_id, d.application_id, d.endpoint_id, now() - interval '2 minutes', 5, 'answered', 401
    FROM deliveries d WHERE d.state = 'failed';
UPDATE rollup_marks SET counted = date_trunc('minute', now()) - interval '2 minutes',
                        hourly = date_trunc('hour', now()) - interval '1 hour';
DO $$ DECLARE names text; zeros text; BEGIN
    SELECT string_agg(quote_ident(attname), ', ' ORDER BY attnum), string_agg('0', ', ') INTO names, zeros FROM pg_attribute
    WHERE attrelid = 'rollups'::regclass AND attnum > 0
      AND attname NOT IN ('subject', 'at', 'kind', 'taken', 'failed_4xx', 'events');
    EXECUTE format('INSERT INTO rollups (subject, at, kind, taken, failed_4xx, events, %s)
        SELECT endpoint(1001 + n), at, 2, CASE WHEN n >= 50 OR at = past THEN 7 ELSE 0 END, CASE WHEN n < 50 THEN 3 ELSE 0 END, 0, %s
        FROM generate_series(0, 999) n,
             (SELECT date_bin(''5 minutes'', now() - interval ''2 minutes'', ''epoch'') AS last,
                     date_bin(''5 minutes'', now() - interval ''90 minutes'', ''epoch'') AS past) p,
             LATERAL generate_series(last - CASE WHEN n < 50 THEN interval ''47 hours'' ELSE interval ''3 hours'' END, last,
                                     interval ''5 minutes'') at', names, zeros);
    EXECUTE format('INSERT INTO rollups_hourly (subject, at, kind, taken, failed_4xx, events, %s)
        SELECT endpoint(1001 + n), at, 2, CASE WHEN n >= 50 THEN 84 ELSE 0 END, CASE WHEN n < 50 THEN 36 ELSE 0 END, 0, %s
        FROM generate_series(0, 999) n,
             generate_series(date_trunc(''hour'', now()) - interval ''48 hours'', date_trunc(''hour'', now()) - interval ''2 hours'',
                             interval ''1 hour'') at', names, zeros);
    EXECUTE format('INSERT INTO rollups (subject, at, kind, taken, failed_4xx, events, %s)
        SELECT endpoint(10 + n), at, 1, 0, 0, CASE n WHEN 0 THEN 9000 ELSE 1 END, %s
        FROM generate_series(0, 900) n, (SELECT date_bin(''5 minutes'', now() - interval ''2 minutes'', ''epoch'') AS last) p,
             LATERAL generate_series(last - interval ''1 hour'', last, interval ''5 minutes'') at', names, zeros);
    EXECUTE format('INSERT INTO rollups (subject, at, kind, taken, failed_4xx, events, %s)
        SELECT ''00000000-0000-0000-0000-000000000000'', at, 0, 6650, 150, 10000, %s
        FROM (SELECT date_bin(''5 minutes'', now() - interval ''2 minutes'', ''epoch'') AS last) p,
             LATERAL generate_series(last - interval ''1 hour'', last, interval ''5 minutes'') at', names, zeros);
END $$;
INSERT INTO parked (id, reason, message, headers, body)
    SELECT id_at(now() - i * interval '1 s', i), 'missing_message_id', 'no id', '{}', decode(repeat('41', 400), 'hex')
    FROM generate_series(1, 5000) i;
INSERT INTO audit_log (id, application_id, origin, action, path, subject, outcome, at)
    SELECT id_at(now() - interval '95 minutes', 1), endpoint(10), 'ops@host', 'rotate_secret', '/api/v1/webhooks/SUBJECT/secret',
           'SUBJECT', 'done', now() - interval '95 minutes';
INSERT INTO audit_log (id, application_id, origin, visitor, action, path, subject, outcome, at)
    SELECT id_at(now() - interval '94 minutes' + i * interval '1 ms', i), endpoint(10), 'ops@host', 'mia',
           (ARRAY['verify_signature', 'test_webhook', 'resend_deliveries', 'change_webhook'])[1 + i % 4],
           '/api/v1/webhooks/SUBJECT/x', 'SUBJECT', CASE i % 4 WHEN 3 THEN 'refused' ELSE 'done' END,
           now() - interval '94 minutes'
    FROM generate_series(1, 400) i;
";

async fn measured<T>(loaded: &Database, name: &str, look: impl AsyncFnOnce(Store) -> T) -> T {
    let (found, touched) = loaded.measured(look).await;
    println!("{name}: {} buffers, scans {:?}", touched.buffers, touched.scanned);
    assert!(touched.buffers <= MAX_BUFFERS, "{name}: {} buffers", touched.buffers);
    let large = ["open_deliveries", "deliveries_", "attempts_", "rollups_"];
    let scanned = touched
        .scanned
        .iter()
        .filter(|(table, rows)| **rows > 100 && large.iter().any(|large| table.starts_with(large)));
    assert_eq!(scanned.count(), 0, "{name}: {:?}", touched.scanned);
    found
}

#[tokio::test]
async fn pages_of_a_large_application_read_little() {
    let loaded = Database::fresh().await;
    loaded.without_autovacuum().await;
    loaded.run(&LOAD.replace("SUBJECT", &endpoint(1001).to_string())).await;
    // As every 10 s by a dispatcher: counts of queued deliveries then read the index only.
    loaded.run("VACUUM open_deliveries").await;
    loaded.run("ANALYZE").await;
    health(&loaded).await;
    stats(&loaded).await;
    facts(&loaded).await;
    let facts = measured(&loaded, "facts of an application", async |store| store.application_facts(APPLICATION).await);
    application(&facts.await.expect("facts"));
}

async fn health(loaded: &Database) {
    let ids: Vec<EndpointId> = (1001..1052).map(endpoint).collect();
    let look = async |store: Store| store.endpoint_health(APPLICATION, &ids, 1000).await;
    let found = measured(loaded, "health of 50 dead endpoints", look).await.expect("a page");
    let dead = &found[&endpoint(1001)];
    assert_eq!((dead.queued, dead.reason.as_deref(), dead.failures), (400, Some("breaker_open"), 20));
    let expected = floor(Timestamp::now() - Duration::from_secs(90 * 60), STEP) + STEP;
    let since = dead.failing_since.expect("a failure");
    assert!(expected.duration_since(since).abs() <= jiff::SignedDuration::from_secs(300), "{since}");
    assert_eq!(dead.hours.len(), 24);
    assert!(dead.hours.values().filter(|(_, failed)| *failed == 36).count() >= 22, "{:?}", dead.hours);
    let last = dead.last_failed.as_ref().expect("a failed delivery");
    assert_eq!((last.outcome.as_deref(), last.status, last.event_type.as_deref()), (Some("answered"), Some(401), None));
    let ids: Vec<EndpointId> = (1900..1950).map(endpoint).collect();
    let look = async |store: Store| store.endpoint_health(APPLICATION, &ids, 1000).await;
    let found = measured(loaded, "health of 50 sound endpoints", look).await.expect("a page");
    let sound = &found[&endpoint(1900)];
    assert_eq!((sound.failing_since, sound.queued, sound.last_failed.is_none()), (None, 0, true));
}

async fn stats(loaded: &Database) {
    let until = Timestamp::now();
    let since = until - Duration::from_secs(46 * 3600);
    let look =
        async |store: Store| store.stats(StatsSubject::Endpoint(endpoint(1900)), (since, until), StatsStep::Hour).await;
    let steps = measured(loaded, "an endpoint by hour", look).await.expect("counts");
    let whole = steps.values().filter(|counts| counts.taken == 84).count();
    assert!(whole >= 45, "{whole} whole hours, of hourly rows and of five minutes");
    let look = async |store: Store| {
        store.stats(StatsSubject::Endpoint(endpoint(1001)), (since, until), StatsStep::FiveMinutes).await
    };
    let steps = measured(loaded, "an endpoint by five minutes", look).await.expect("counts");
    assert!(steps.len() >= 46 * 12 - 1 && steps.values().all(|counts| counts.failed.client_error == 3));
}

async fn facts(loaded: &Database) {
    let look = async |store: Store| store.troubled_endpoints(None).await;
    let endpoints = measured(loaded, "endpoints in trouble", look).await.expect("endpoints");
    assert!((25..=50).contains(&endpoints.len()), "{}", endpoints.len());
    let dead = endpoints.iter().find(|found| found.fact.endpoint == endpoint(1001)).expect("the dead endpoint");
    assert_eq!(
        (dead.fact.host.as_str(), dead.fact.waiting, dead.fact.cause.as_deref()),
        ("hook1001.example", 400, Some("401"))
    );
    let change = dead.fact.change.as_ref().expect("the change before");
    assert_eq!((change.action.as_str(), change.by.as_str()), ("rotate_secret", "ops@host"));
    let look = async |store: Store| store.facts(&endpoints, &[], &[], &[]).await;
    let facts = measured(loaded, "facts of the deployment", look).await.expect("facts");
    assert_eq!((facts.applications[0].application, facts.parked[0].messages), (APPLICATION, 1000));
    assert!((0.89..0.91).contains(&facts.applications[0].share), "{:?}", facts.applications[0]);
    assert_eq!(facts.expiring.iter().map(|fact| fact.endpoint).collect::<Vec<_>>(), [endpoint(1008)]);
    assert!(facts.held.iter().any(|fact| fact.endpoint == endpoint(1051) && fact.held == 400));
    assert!(facts.partitions_ahead >= 7);
    let examined = examine(&facts);
    assert!(
        examined.findings.iter().any(|finding| finding.subject == Subject::Parked("missing_message_id".to_owned()))
    );
}

fn application(facts: &ApplicationFacts) {
    let found = application_findings(facts).findings;
    let rotated = found.iter().find(|finding| finding.sentence.contains("right after its secret was rotated"));
    assert!(
        rotated.is_some_and(|finding| finding.sentence.starts_with("hook1001.example has failed since")),
        "{found:?}"
    );
}
