//! Buffers touched by frequent statements, in filled tables that were never analyzed, and behind removed rows.
//!
//! Bounds count buffers of tables and indexes. A sequential scan of a large table touches thousands.

use std::{collections::HashSet, time::Duration};

use fanfare_domain::ids::{DeliveryId, EndpointId, EventId};
use fanfare_store::{Demand, DueEvent, DuePlan, DueRetry, Floor, GiveBack, NewDelivery, NewEvent, Store};
use jiff::Timestamp;
use uuid::Uuid;

use crate::database::{
    APPLICATION, Database, ONE, Sent, TWO, accepted, delivered, endpoint, failed, keyed, lease_id, lease_of, moment,
    scheduled, sorted, starting, timed, to,
};

/// Open deliveries of one endpoint, of 2,000 other endpoints, scheduled, and being sent; finished deliveries over three
/// days.
///
/// The ids of queued deliveries begin an hour ago.
const LOAD: &str = r"
CREATE FUNCTION id_at(at timestamptz, i int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT (lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') || '80008000' || lpad(to_hex(i), 12, '0'))::uuid $$;
CREATE FUNCTION endpoint(n int) RETURNS uuid LANGUAGE sql IMMUTABLE AS $$
    SELECT ('00000000-0000-0000-0000-' || lpad(to_hex(n), 12, '0'))::uuid $$;
CREATE TABLE began AS SELECT date_trunc('second', now()) AS at;
INSERT INTO open_deliveries (id, event_id, application_id, endpoint_id, state, reason, listed, attempt, lease_id, lease_until,
                             due_at, expires_at, replay_id)
SELECT id_at(at - interval '1 h' + i * interval '10 ms', i), gen_random_uuid(), endpoint(10), endpoint(e), state, reason, true,
       attempt, CASE WHEN state = 'sending' THEN endpoint(99) END,
       CASE WHEN state = 'sending' THEN now() + interval '1 h' + i * interval '1 ms' END,
       CASE WHEN state = 'scheduled' THEN now() + interval '1 h' + i * interval '1 ms' END, now() + interval '1 day', NULL
FROM began, (SELECT i, 1 AS e, 'queued' AS state, 'breaker_open' AS reason, 1 AS attempt FROM generate_series(0, 199999) i
             UNION ALL
             SELECT i, 1000 + i % 2000, 'queued', 'lane_full', 1 FROM generate_series(200000, 219999) i
             UNION ALL
             SELECT i, 2, 'scheduled', NULL, 2 FROM generate_series(220000, 229999) i
             UNION ALL
             SELECT i, 3, 'sending', NULL, 1 FROM generate_series(230000, 239999) i) rows;
INSERT INTO endpoint_backlogs (endpoint_id, application_id, owner, reason, next_look)
    SELECT endpoint(e), endpoint(10), endpoint(257), 'lane_full', now() FROM generate_series(1000, 2999) e
    UNION ALL SELECT endpoint(1), endpoint(10), endpoint(257), 'breaker_open', now()
    -- Empty and unowned backlogs: with a later look, and due now.
    UNION ALL SELECT endpoint(e), endpoint(10), NULL, 'paused', now() + interval '1 h' FROM generate_series(5000, 6999) e
    UNION ALL SELECT endpoint(e), endpoint(10), NULL, 'lane_full', now() FROM generate_series(7000, 7149) e;
INSERT INTO events (id, accepted_at, application_id, type, body, matches, traceparent)
    SELECT gen_random_uuid(), at - (i % 3) * interval '1 day' - i * interval '1 ms', endpoint(10), 'usual', repeat('x', 440), 1, ''
    FROM began, generate_series(0, 99999) i;
INSERT INTO delayed_events (event_id, application_id, accepted_at, due_at)
    SELECT id, application_id, accepted_at, now() + interval '1 day' FROM events;
INSERT INTO event_keys (event_id, month, accepted_at)
    SELECT gen_random_uuid(), date_trunc('month', now() AT TIME ZONE 'UTC')::date, now() FROM generate_series(0, 99999) i;
INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, attempt, failures, url, started_at, duration_ms,
                        status, response_headers)
    SELECT endpoint(10), id_at(at - (i % 3) * interval '1 day' - i * interval '1 ms', i), gen_random_uuid(), endpoint(4 + i % 9),
           CASE WHEN i % 10 = 0 THEN 'failed' ELSE 'delivered' END, 1, 0, 'https://a.example/', now(), 5, 204, '{}'
    FROM began, generate_series(0, 199999) i;
INSERT INTO attempts (delivery_id, attempt, event_id, application_id, endpoint_id, url, started_at, duration_ms, outcome, status)
    SELECT id_at(at - (i % 3) * interval '1 day' - i * interval '1 ms', i), 1, gen_random_uuid(), endpoint(10), endpoint(4 + i % 9),
           'https://a.example/', at - (i % 3) * interval '1 day', 5, 'answered', 500
    FROM began, generate_series(0, 49999) i;
";

/// Tables without a sequential scan by any frequent statement.
const LARGE: [&str; 6] = ["open_deliveries", "events", "event_keys", "deliveries", "attempts", "delayed_events"];

/// States of the planner's statistics.
const PHASES: [&str; 3] = ["never analyzed", "analyzed", "vacuumed while empty"];

struct Loaded {
    database: Database,
    began: Timestamp,
    /// Statements that exceeded their bounds.
    faults: Vec<String>,
    phase: &'static str,
}

impl Loaded {
    async fn new() -> Self {
        let database = Database::fresh().await;
        database.without_autovacuum().await;
        database.run(LOAD).await;
        let began = database.rows("SELECT at FROM began", &[]).await[0].get(0);
        Self { database, began, faults: Vec::new(), phase: "" }
    }

    /// Empties the tables of open deliveries and backlogs, vacuums the tables, and fills the tables again: the planner
    /// takes both tables for empty. So are both at night, with free space for the burst of the morning.
    async fn vacuum_while_empty(&self) {
        for table in ["open_deliveries", "endpoint_backlogs"] {
            self.database.run(&format!("CREATE TABLE saved_{table} AS TABLE {table}; DELETE FROM {table}")).await;
        }
        self.database.run("VACUUM (TRUNCATE off, ANALYZE) open_deliveries, endpoint_backlogs").await;
        for table in ["endpoint_backlogs", "open_deliveries"] {
            self.database.run(&format!("INSERT INTO {table} SELECT * FROM saved_{table}")).await;
        }
    }

    /// Id of the load's `i`-th open delivery.
    fn delivery(&self, i: u32) -> DeliveryId {
        let at = self.began.as_millisecond() - 3_600_000 + i64::from(i) * 10;
        DeliveryId(Uuid::from_u128(u128::from(at.unsigned_abs()) << 80 | 0x8000_8000 << 48 | u128::from(i)))
    }

    /// The value of the present phase.
    fn by_phase<T: Copy>(&self, values: [T; 3]) -> T {
        values[PHASES.iter().position(|phase| *phase == self.phase).unwrap_or_default()]
    }

    /// Checks that a look scans no large table sequentially, and touches at most `most` buffers.
    async fn check<T>(&mut self, name: &str, most: i64, look: impl AsyncFnOnce(Store) -> T) -> T {
        let (found, touched) = self.database.measured(look).await;
        let scanned = touched.scanned.iter().filter(|(table, _)| LARGE.iter().any(|large| table.starts_with(large)));
        let scanned: Vec<_> = scanned.collect();
        let line = format!("{}, {name}: {} buffers of {most}, scans {scanned:?}", self.phase, touched.buffers);
        println!("{line}");
        if touched.buffers > most || !scanned.is_empty() {
            self.faults.push(line);
        }
        found
    }
}

/// Events accepted now, with one delivery each to the endpoints 5 to 20, which have no backlog.
fn batch(count: u128, make: impl Fn(u128) -> NewEvent) -> Vec<NewEvent> {
    (0..count).map(|n| to(make(n), &[(endpoint(5 + n % 16), starting(1))])).collect()
}

fn sent(events: &[NewEvent]) -> Vec<Sent> {
    let of = |new: &NewEvent| {
        new.deliveries
            .iter()
            .map(|delivery| Sent { delivery: delivery.id, event: new.event.id, endpoint: delivery.endpoint })
            .collect::<Vec<_>>()
    };
    let mut sent: Vec<Sent> = events.iter().flat_map(of).collect();
    sent.sort_unstable_by_key(|sent| sent.delivery);
    sent
}

#[tokio::test]
async fn frequent_statements_touch_few_buffers() {
    let mut loaded = Loaded::new().await;
    for phase in PHASES {
        loaded.phase = phase;
        if phase == PHASES[2] {
            loaded.vacuum_while_empty().await;
        }
        persist_and_record(&mut loaded).await;
        drains(&mut loaded).await;
        queues(&mut loaded).await;
        turns(&mut loaded).await;
        looks(&mut loaded).await;
        delayed(&mut loaded).await;
        if phase == PHASES[0] {
            loaded.database.run("ANALYZE").await;
        }
    }
    assert!(loaded.faults.is_empty(), "{:#?}", loaded.faults);
}

async fn persist_and_record(loaded: &mut Loaded) {
    let phase = loaded.phase;
    let timed = batch(256, |_| timed());
    let keyed = batch(256, |n| keyed(&format!("{phase} {n}")));
    let single = batch(1, |_| accepted(moment(0)));
    for (name, events, most) in
        [("256 timed events", &timed, 4_500), ("256 keyed events", &keyed, 9_000), ("one event", &single, 100)]
    {
        let (batch, new) = (sorted(events), events.len());
        let persisted =
            loaded.check(&format!("persist {name}"), most, async |store| store.persist(ONE, &batch).await).await;
        assert_eq!(persisted.expect("a commit").new.len(), new, "{name}");
        let known = loaded
            .check(&format!("persist {name} again"), most / 2, async |store| store.persist(ONE, &batch).await)
            .await;
        assert_eq!(known.expect("a look").new.len(), 0);
    }
    let (timed, keyed) = (sent(&timed), sent(&keyed));
    let ids: Vec<DeliveryId> = timed.iter().map(|sent| sent.delivery).collect();
    let leases = loaded.check("leases of 256", 1_200, async |store| store.leases(&ids).await).await;
    assert_eq!(leases.expect("a look").len(), 256);
    let records: Vec<_> = timed.iter().map(|sent| delivered(sent, 1, 1)).collect();
    let batch: Vec<_> = records.iter().collect();
    let moved = loaded.check("record 256 successes", 4_500, async |store| store.record(&batch).await).await;
    assert_eq!(moved.expect("a commit").len(), 256);
    let moved = loaded.check("record 256 successes again", 5_000, async |store| store.record(&batch).await).await;
    assert_eq!(moved.expect("a look").len(), 0);
    let first = [records.first().expect("a record")];
    loaded.check("record one success again", 300, async |store| store.record(&first).await).await.expect("a look");
    let records: Vec<_> = keyed[..128]
        .iter()
        .map(|sent| scheduled(sent, 1, 1))
        .chain(keyed[128..].iter().map(|sent| failed(sent, 1, 1)))
        .collect();
    let batch: Vec<_> = records.iter().collect();
    let moved = loaded.check("record 256 failures", 12_000, async |store| store.record(&batch).await).await;
    assert_eq!(moved.expect("a commit").len(), 256);
    retries(loaded, &keyed[..128]).await;
    // Removes the endpoints' backlogs for the next phase.
    loaded
        .database
        .run(
            "DELETE FROM open_deliveries WHERE endpoint_id BETWEEN endpoint(5) AND endpoint(20);
                         DELETE FROM endpoint_backlogs WHERE endpoint_id BETWEEN endpoint(5) AND endpoint(20)",
        )
        .await;
}

async fn retries(loaded: &mut Loaded, scheduled: &[Sent]) {
    let retries = |range: std::ops::Range<usize>, lease| -> Vec<_> {
        scheduled[range].iter().map(|sent| DueRetry { delivery: sent.delivery, attempt: 2, lease }).collect()
    };
    let (leased, queued) = (retries(0..64, Some(Duration::from_secs(21))), retries(64..128, None));
    let endpoints: HashSet<EndpointId> = scheduled[64..].iter().map(|sent| sent.endpoint).collect();
    for (batch, name, again) in [
        (&leased, "lease 64 retries", "lease 64 retries again"),
        (&queued, "queue 64 retries", "queue 64 retries again"),
    ] {
        let taking = async |store: Store| store.take_retries(TWO, lease_id(7), batch).await;
        let taken = loaded.check(name, 4_500, taking).await.expect("a commit");
        assert_eq!(taken.leased.len(), if name.starts_with("lease") { 64 } else { 0 });
        assert_eq!(taken.backlogs.len(), if name.starts_with("lease") { 0 } else { endpoints.len() });
        let taken = loaded.check(again, 1_200, taking).await.expect("a look");
        assert_eq!((taken.leased.len(), taken.backlogs.len()), (0, 0));
    }
}

async fn drains(loaded: &mut Loaded) {
    let lease = lease_id(5);
    let head = [lease_of(endpoint(1), 16)];
    // In the second phase, a lease without a floor passes 50,000 removed rows.
    let most = if loaded.phase == "analyzed" { 4_000 } else { 500 };
    let leased = loaded.check("lease 16 at the head", most, async |store| store.lease(ONE, lease, &head).await).await;
    let leased = leased.expect("a lease");
    assert_eq!(leased.len(), 16);
    let first = leased[0].delivery;
    let many: Vec<Demand> = (0..200).map(|n| lease_of(endpoint(1000 + n), 2)).collect();
    let found = loaded
        .check("lease 400 of 200 backlogs", 18_000, async |store| store.lease(ONE, lease_id(6), &many).await)
        .await;
    assert!(found.expect("a lease").len() >= 200);
    let back: Vec<_> = leased
        .iter()
        .map(|leased| GiveBack {
            delivery: leased.delivery,
            lease,
            reason: fanfare_domain::delivery::QueueReason::LaneFull,
        })
        .collect();
    loaded.check("give 16 back", 500, async |store| store.give_back(ONE, &back).await).await.expect("a commit");
    // Removes 50,000 rows behind the floor; the dead rows stay.
    let (from, to) = loaded.by_phase([(0, 50_000), (50_000, 100_000), (100_000, 150_000)]);
    assert_eq!(first, loaded.delivery(from));
    let gone = "DELETE FROM open_deliveries WHERE endpoint_id = endpoint(1) AND id < $1";
    let last = loaded.delivery(to);
    loaded.database.rows(gone, &[&last.0]).await;
    let behind = [Demand {
        after: Floor { class: 0, delivery: DeliveryId(Uuid::from_u128(last.0.as_u128() - 1)) },
        ..lease_of(endpoint(1), 16)
    }];
    let leased = loaded
        .check("lease 16 behind 50,000 removed ones", 500, async |store| store.lease(ONE, lease_id(7), &behind).await)
        .await;
    let leased = leased.expect("a lease");
    assert_eq!((leased.len(), leased[0].delivery), (16, last));
    loaded
        .database
        .run("UPDATE open_deliveries SET state = 'queued' WHERE lease_id IN (endpoint(4096 + 6), endpoint(4096 + 7))")
        .await;
}

/// Turns of ordering keys: no key, 100 keys, and the list of waiting keys.
async fn turns(loaded: &mut Loaded) {
    let nothing = loaded.check("advance no key", 60, async |store| store.advance_keys(ONE, 1000).await).await;
    assert_eq!(nothing.expect("a look").signals, 0);
    let place = "UPDATE open_deliveries SET class = 2, ordering_key = 'key ' || id, sequence = 1
                 WHERE id IN (SELECT id FROM open_deliveries WHERE endpoint_id = endpoint(1) AND state = 'queued'
                              ORDER BY id DESC LIMIT 100);
                 UPDATE endpoints SET fifo = 'block' WHERE id = endpoint(1);
                 INSERT INTO ordering_signals (endpoint_id, key)
                 SELECT endpoint_id, ordering_key FROM open_deliveries WHERE ordering_key IS NOT NULL";
    loaded.database.run(place).await;
    let listed = loaded
        .check("list 50 waiting keys", 1_500, async |store| store.waiting_keys(endpoint(1), None, 50, 100).await)
        .await;
    assert_eq!(listed.expect("a look").len(), 50);
    let advanced = loaded.check("advance 100 keys", 8_000, async |store| store.advance_keys(ONE, 1000).await).await;
    assert_eq!(advanced.expect("a commit").signals, 100);
    loaded
        .database
        .run("UPDATE endpoints SET fifo = NULL; UPDATE open_deliveries SET ordering_key = NULL WHERE sequence = 1")
        .await;
}

async fn queues(loaded: &mut Loaded) {
    // Recovery of no row and of 100 rows, for leases and for retries.
    let floor = Some(Timestamp::now());
    let nothing =
        loaded.check("recover no lease", 100, async |store| store.recover_leases(TWO, floor, 1000).await).await;
    assert_eq!(nothing.expect("a look").queued, 0);
    let nothing = loaded
        .check("recover no retry", 60, async |store| store.recover_scheduled(TWO, Duration::ZERO, floor, 1000).await)
        .await;
    assert_eq!(nothing.expect("a look").queued, 0);
    let (sending, waiting) = loaded.by_phase([(230_000, 220_000), (230_500, 220_500), (231_000, 221_000)]);
    let late = |from: u32| {
        let (least, most) = (loaded.delivery(from).0, loaded.delivery(from + 99).0);
        format!("id BETWEEN '{least}' AND '{most}'")
    };
    loaded.database.run(&format!("UPDATE open_deliveries SET lease_until = now() - interval '1 s' WHERE state = 'sending' AND {};
                                  UPDATE open_deliveries SET due_at = now() - interval '1 s' WHERE state = 'scheduled' AND {}",
                                 late(sending), late(waiting))).await;
    let recovered =
        loaded.check("recover 100 leases", 5_000, async |store| store.recover_leases(TWO, floor, 1000).await).await;
    assert_eq!(recovered.expect("a commit").queued, 100);
    let recovered = loaded
        .check("recover 100 retries", 3_600, async |store| {
            store.recover_scheduled(TWO, Duration::ZERO, floor, 1000).await
        })
        .await;
    assert_eq!(recovered.expect("a commit").queued, 100);
    loaded.check("look for suspects", 60, async |store| store.has_suspect().await).await.expect("a look");
    let suspect = loaded
        .check("lease a suspect", 100, async |store| store.lease_suspect(lease_id(8), Duration::from_secs(9)).await)
        .await;
    assert!(suspect.expect("a look").is_none());
    let slow: Vec<DeliveryId> = (0..100).map(|i| loaded.delivery(231_000 + i)).collect();
    loaded.check("list 100 slow deliveries", 900, async |store| store.list_slow(&slow).await).await.expect("a look");
}

async fn looks(loaded: &mut Loaded) {
    let endpoints: Vec<EndpointId> = (0..100).map(|n| endpoint(1000 + n)).collect();
    let ended =
        loaded.check("end none of 100 backlogs", 1_800, async |store| store.end_backlogs(ONE, &endpoints).await).await;
    assert!(ended.expect("a look").is_empty());
    let taken = loaded
        .check("take 50 backlogs", 900, async |store| store.take_backlogs(TWO, 50).await)
        .await
        .expect("a commit");
    assert_eq!(taken.len(), 50);
    let empty: Vec<EndpointId> = taken.iter().map(|backlog| backlog.endpoint).collect();
    let ended = loaded.check("end 50 backlogs", 1_200, async |store| store.end_backlogs(TWO, &empty).await).await;
    assert_eq!(ended.expect("a commit").len(), 50);
    loaded.check("take no backlog", 50, async |store| store.take_backlogs(TWO, 0).await).await.expect("a look");
    let owned = loaded.check("owned backlogs", 100, async |store| store.owned_backlogs(ONE).await).await;
    assert!(owned.expect("a look").len() > 1_900);
    loaded.check("no fan-out", 60, async |store| store.take_fan_outs(ONE, 10).await).await.expect("a look");
    loaded.check("no dead process", 40, async |store| store.release_dead(1000).await).await.expect("a look");
}

/// The look for due events among 100,000 delayed events, behind the dead rows of the events before.
async fn delayed(loaded: &mut Loaded) {
    let take = async |store: Store| store.take_due(256).await;
    let found = loaded.check("no due event", 100, take).await;
    assert!(found.expect("a look").is_empty());
    let events: Vec<NewEvent> = (0..512).map(|_| NewEvent { due_at: Some(moment(1)), ..timed() }).collect();
    for half in [&events[..256], &events[256..]] {
        let batch = sorted(half);
        let persisted =
            loaded.check("persist 256 delayed events", 6_000, async |store| store.persist(ONE, &batch).await).await;
        assert_eq!(persisted.expect("a commit").new.len(), 256);
    }
    for behind in ["", " behind 256 dead rows"] {
        let taken = loaded.check(&format!("lease 256 due events{behind}"), 9_000, take).await.expect("a commit");
        let mut n = 0;
        let planned: Vec<(DueEvent, DuePlan)> = taken
            .into_iter()
            .map(|due| {
                n += 1;
                let endpoint = endpoint(5 + n % 16);
                let id = DeliveryId::derive(due.accepted_at, due.id, endpoint);
                let expires_at = moment(0) + Duration::from_secs(3600);
                let delivery =
                    NewDelivery { id, endpoint, start: starting(9), expires_at, in_feed: false, shaped: None };
                (due, DuePlan::Open { matches: 1, is_wide: false, deliveries: vec![delivery] })
            })
            .collect();
        let opening = async |store: Store| store.open_due(ONE, &planned).await;
        let opened = loaded.check(&format!("open 256 due events{behind}"), 12_000, opening).await.expect("a commit");
        assert_eq!((planned.len(), opened.new.len()), (256, 256));
    }
    loaded.check("no due event behind 512 dead rows", 300, take).await.expect("a look");
    let waiting = "SELECT event_id FROM delayed_events LIMIT 1";
    let waiting = EventId(loaded.database.rows(waiting, &[]).await[0].get(0));
    let cancelling = async |store: Store| store.cancel_event(APPLICATION, waiting, "key").await;
    loaded.check("cancel a delayed event", 100, cancelling).await.expect("a commit");
    let gone = "DELETE FROM open_deliveries WHERE endpoint_id BETWEEN endpoint(5) AND endpoint(20)";
    loaded.database.run(gone).await;
}
