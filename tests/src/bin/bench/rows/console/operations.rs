//! Rows that operators see: counts, processes, queues, jobs, parked messages, changes, replays.

use crate::scene::{Scene, machine::Machine};

/// Parked messages, and entries of the audit log.
const PARKED: usize = 5_000;
const CHANGES: usize = 20_000;

/// Counts of each endpoint, each application and the deployment. A dead endpoint fails each attempt.
const COUNTED: &str = "
INSERT INTO $TABLE (subject, at, kind, taken, failed_5xx, events, $OTHERS)
SELECT id, at, kind, CASE WHEN is_dead THEN 0 ELSE 90 END, 10, CASE kind WHEN 2 THEN 0 ELSE 100 END, $NUMBERS
FROM (SELECT id, 2 AS kind, url LIKE '%/dead/%' AS is_dead FROM endpoints
      UNION ALL SELECT id, 1, false FROM applications
      UNION ALL SELECT '00000000-0000-0000-0000-000000000000', 0, false) subjects,
     generate_series($FROM, $TO, interval '$STEP') AS at";

/// Columns of counts beside those that [`COUNTED`] names.
const OTHERS: [&str; 9] = [
    "failed_3xx",
    "failed_4xx",
    "timed_out",
    "no_connection",
    "tls_failed",
    "forbidden",
    "unknown",
    "other",
    "unmatched",
];

const BUCKETS: usize = 14;

/// Two dispatchers, their queues and jobs; the state of the dead and the paused endpoint.
const OPERATIONS: &str = "
UPDATE rollup_marks SET counted = date_trunc('minute', now()) - interval '2 minutes',
                        hourly = date_trunc('hour', now()) - interval '1 hour';
INSERT INTO processes (id, kind, alive_until, version, host, seen_at, places, places_used, bytes, max_held, max_held_age_s)
SELECT gen_random_uuid(), 'dispatcher', now() + interval '1 day', version, 'host-' || number, now(), 1000, 20, 1000000000,
       1000000, 604800
FROM (SELECT version FROM processes LIMIT 1) ingest, generate_series(1, 2) AS number;
INSERT INTO queue_depths (queue, at, ready, consumers)
SELECT queue, at, 3, 2
FROM unnest('{events,deliveries,delay.60s,delay.5m,delay.15m,delay.60m,delay.120m}'::text[]) AS queue,
     generate_series(date_trunc('minute', now()) - interval '1 day', date_trunc('minute', now()), interval '1 minute') AS at;
INSERT INTO job_runs (job, process_id, duration_ms, succeeded_at)
SELECT job, (SELECT id FROM processes WHERE kind = 'dispatcher' LIMIT 1), 12, now()
FROM unnest('{sweep,holding,partitions,mail,replays,suspects,vacuum,census,archive,rollups}'::text[]) AS job;
UPDATE endpoints SET status = 'paused' WHERE url LIKE '%/paused/%';
UPDATE endpoint_backlogs b SET reason = 'paused', next_look = now() + interval '5 minutes'
FROM endpoints e WHERE e.id = b.endpoint_id AND e.status = 'paused';
UPDATE endpoint_backlogs SET next_probe = now() + interval '1 minute', failures = 20,
                             owner = (SELECT id FROM processes WHERE kind = 'dispatcher' LIMIT 1)
WHERE reason = 'breaker_open';
INSERT INTO replays (id, application_id, event_types, states, since, until, rate_per_second, state, finished_at)
SELECT gen_random_uuid(), id, '{}', '{failed}', now() - interval '1 day', now(), 100, 'done', now()
FROM applications, generate_series(1, 60)";

/// Parked messages in some groups, and changes of webhooks over 30 days. Ids begin with the time.
const LISTED: &str = "
CREATE FUNCTION pg_temp.id_at(at timestamptz, number int) RETURNS uuid LANGUAGE sql AS $$
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '7000' || '8000' || lpad(to_hex(number), 12, '0'))::uuid
$$;
INSERT INTO parked (id, parked_at, reason, message, origin, routing_key, message_id, headers, body)
SELECT pg_temp.id_at(at, number), at, (ARRAY['missing_message_id', 'invalid_json', 'unknown_application'])[1 + number % 3],
       'the message has a fault', 'events', 'app.order.' || number % 10, 'parked-' || number, '{\"tenant\":\"shop\"}',
       convert_to('{\"note\":\"' || repeat('x', 400) || '\"}', 'UTF8')
FROM (SELECT number, now() - interval '2 days' * number / $PARKED AS at FROM generate_series(1, $PARKED) AS number) parked;
INSERT INTO audit_log (id, at, application_id, origin, action, path, request, subject, outcome)
SELECT pg_temp.id_at(at, number), at, application_id, '10.0.0.1', (ARRAY['change_webhook', 'rotate_secret', 'resend_delivery'])
       [1 + number % 3], '/api/v1/webhooks/' || id, '{\"name\":\"shop\"}', id, 'done'
FROM (SELECT number, now() - interval '30 days' * number / $CHANGES AS at FROM generate_series(1, $CHANGES) AS number) changes,
     (SELECT array_agg(application_id) AS applications, array_agg(shown) AS webhooks
      FROM (SELECT application_id, id::text AS shown FROM endpoints) all_webhooks) e,
     LATERAL (SELECT applications[1 + number % cardinality(applications)] AS application_id,
                     webhooks[1 + number % cardinality(webhooks)] AS id) webhook";

/// Fills the tables. Ingest has made the row of its process.
pub(super) async fn fill(machine: &Machine, scene: &Scene) {
    let database = scene.world.database().await;
    let run = async |statement: &str| database.batch_execute(statement).await.expect("filled tables");
    let buckets = ["d", "l"].into_iter().flat_map(|kind| (0..BUCKETS).map(move |number| format!("{kind}{number}")));
    let others: Vec<String> = OTHERS.into_iter().map(str::to_owned).chain(buckets).collect();
    let numbers = vec!["7"; others.len()].join(", ");
    let hour = "date_trunc('hour', now())";
    let now = "date_bin('5 minutes', now() - interval '2 minutes', 'epoch')";
    for (table, from, to, step) in [
        ("rollups_hourly", format!("{hour} - interval '30 days' + interval '1 hour'"), hour, "1 hour"),
        ("rollups", format!("{now} - interval '47 hours'"), now, "5 minutes"),
    ] {
        let values = [
            ("$TABLE", table),
            ("$OTHERS", &others.join(", ")),
            ("$NUMBERS", &numbers),
            ("$FROM", &from),
            ("$TO", to),
            ("$STEP", step),
        ];
        run(&values.iter().fold(COUNTED.to_owned(), |text, (name, value)| text.replace(name, value))).await;
    }
    run(OPERATIONS).await;
    let counts = [("$PARKED", machine.count(PARKED)), ("$CHANGES", machine.count(CHANGES))];
    run(&counts.iter().fold(LISTED.to_owned(), |text, (name, count)| text.replace(name, &count.to_string()))).await;
}
