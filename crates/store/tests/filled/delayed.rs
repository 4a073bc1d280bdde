//! A million delayed events, half of them cancelled: the rate at which the other half becomes due.

use std::time::{Duration, Instant};

use fanfare_domain::ids::{DeliveryId, EventId};
use fanfare_store::{Cancellation, DueEvent, DuePlan, NewDelivery};
use uuid::Uuid;

use crate::database::{APPLICATION, Database, ONE, endpoint, moment, starting};

/// Delayed events; the second half is cancelled.
const EVENTS: u32 = 1_000_000;

/// Events cancelled by the statement; the others of the second half are cancelled in bulk, before the measurement.
const CANCELLED: u32 = 5_000;

const LOAD: &str = "
CREATE FUNCTION event_id(i int) RETURNS uuid LANGUAGE sql IMMUTABLE AS
    $$ SELECT ('00000000-0000-8000-8000-' || lpad(to_hex(i), 12, '0'))::uuid $$;
INSERT INTO events (id, accepted_at, application_id, type, body, matches, traceparent, deliver_at)
    SELECT event_id(i), date_trunc('milliseconds', now()), '{APPLICATION}', 'usual', repeat('x', 440), 0, '',
           now() + interval '1 h'
    FROM generate_series(0, {EVENTS} - 1) i;
INSERT INTO event_keys (event_id, month, accepted_at)
    SELECT id, date_trunc('month', now() AT TIME ZONE 'UTC')::date, accepted_at FROM events;
INSERT INTO delayed_events (event_id, application_id, accepted_at, due_at)
    SELECT id, application_id, accepted_at, deliver_at FROM events;
ANALYZE;";

const CANCEL_IN_BULK: &str = "
WITH ended AS (DELETE FROM delayed_events WHERE event_id >= event_id({HALF} + {CANCELLED}) RETURNING event_id)
UPDATE events SET cancelled_at = now(), cancelled_by = 'key' WHERE id IN (SELECT event_id FROM ended);
UPDATE delayed_events SET due_at = now() - interval '1 s'";

fn filled(text: &str) -> String {
    let (half, application) = (EVENTS / 2, APPLICATION.0.to_string());
    text.replace("{APPLICATION}", &application)
        .replace("{EVENTS}", &EVENTS.to_string())
        .replace("{HALF}", &half.to_string())
        .replace("{CANCELLED}", &CANCELLED.to_string())
}

#[tokio::test]
#[ignore = "a measurement of minutes: run alone, with --ignored --nocapture"]
async fn half_a_million_events_become_due_and_half_are_cancelled() {
    let database = Database::fresh().await;
    database.run(&filled(LOAD)).await;
    let began = Instant::now();
    for number in EVENTS / 2..EVENTS / 2 + CANCELLED {
        let event = EventId(Uuid::from_u128(0x8000_8000 << 48 | u128::from(number)));
        let cancelled = database.store.cancel_event(APPLICATION, event, "key").await.expect("a commit");
        assert!(matches!(cancelled, Cancellation::Done(_)), "{cancelled:?}");
    }
    println!(
        "one after the other, {:.0} cancellations per second",
        f64::from(CANCELLED) / began.elapsed().as_secs_f64()
    );
    database.run(&filled(CANCEL_IN_BULK)).await;

    let (began, mut opened, mut slowest) = (Instant::now(), 0, Duration::ZERO);
    loop {
        let look = Instant::now();
        let plan = |due: DueEvent| {
            let endpoint = endpoint(1 + due.id.0.as_u128() % 16);
            let id = DeliveryId::derive(due.accepted_at, due.id, endpoint);
            let expires_at = moment(0) + Duration::from_secs(3600);
            let delivery = NewDelivery { id, endpoint, start: starting(1), expires_at, in_feed: false, shaped: None };
            (due, DuePlan::Open { matches: 1, is_wide: false, deliveries: vec![delivery] })
        };
        let taken = database.store.take_due(256).await.expect("a commit");
        if taken.is_empty() {
            break;
        }
        let planned: Vec<_> = taken.into_iter().map(plan).collect();
        opened += database.store.open_due(ONE, &planned).await.expect("a commit").new.len();
        slowest = slowest.max(look.elapsed());
    }
    let seconds = began.elapsed().as_secs_f64();
    println!(
        "{opened} due events in {seconds:.1} s: {:.0} per second, slowest look {slowest:?}",
        opened as f64 / seconds
    );
    assert_eq!(opened, (EVENTS / 2) as usize);
    assert_eq!(database.count("open_deliveries").await, i64::from(EVENTS / 2));
    assert_eq!(database.count("events WHERE cancelled_at IS NOT NULL").await, i64::from(EVENTS / 2));
    assert_eq!(database.count("delayed_events").await, 0);
}
