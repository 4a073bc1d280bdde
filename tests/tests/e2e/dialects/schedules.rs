//! Waits of the retry schedules: the delay queues that a retry passes, and the time spent there.

use std::collections::HashMap;

use fanfare_tests::world::dialects::Waits;
use fanfare_tests::{
    patience::until,
    receiver::Behaviour,
    world::{Setup, World},
};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use lapin::{
    Channel, Connection, ConnectionProperties, Queue,
    options::{BasicGetOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable},
};
use serde_json::{Value, json};

use crate::dialects::{
    DIALECTS,
    tenants::{Tenant, Webhook, attempts, shipped_world},
};

const MINUTE: u64 = 60;
const HOUR: u64 = 60 * MINUTE;

/// The delay queues of the shipped dialects and the fixed delay queues, with the delay in seconds.
const QUEUES: [(&str, u64); 28] = [
    ("1s", 1),
    ("4s", 4),
    ("5s", 5),
    ("7s", 7),
    ("12s", 12),
    ("16s", 16),
    ("26s", 26),
    ("60s", MINUTE),
    ("80s", 80),
    ("3m", 3 * MINUTE),
    ("5m", 5 * MINUTE),
    ("510s", 510),
    ("15m", 15 * MINUTE),
    ("26m", 26 * MINUTE),
    ("30m", 30 * MINUTE),
    ("48m", 48 * MINUTE),
    ("60m", HOUR),
    ("120m", 2 * HOUR),
    ("190m", 190 * MINUTE),
    ("4h", 4 * HOUR),
    ("5h", 5 * HOUR),
    ("520m", 520 * MINUTE),
    ("10h", 10 * HOUR),
    ("12h", 12 * HOUR),
    ("820m", 820 * MINUTE),
    ("14h", 14 * HOUR),
    ("20h", 20 * HOUR),
    ("24h", 24 * HOUR),
];

/// The delay queues of a delivery that always fails.
const SCHEDULES: [(&str, &[&str]); 7] = [
    ("incenta", &["60s", "5m", "15m", "60m", "120m"]),
    ("incentable", &["5m", "30m", "120m", "24h"]),
    ("nudj", &["60s", "5m", "15m", "60m", "120m"]),
    ("reward", &["60s", "5m", "15m", "60m", "120m"]),
    ("ploints", &["60s", "5m", "30m", "120m", "12h"]),
    ("standard", &["5s", "5m", "30m", "120m", "5h", "10h", "14h", "20h", "24h"]),
    ("cloudevents", &["5s", "5m", "30m", "120m", "5h", "10h", "14h", "20h", "24h"]),
];

/// Maximal jitter, as a share of the wait.
fn jitter(dialect: &str) -> f64 {
    if matches!(dialect, "standard" | "cloudevents") { 0.1 } else { 0.0 }
}

/// Maximal time of a retry message in delay queues for a wait, in seconds: includes jitter, and the excess of a sum of
/// delays.
fn longest(dialect: &str, wait: f64) -> f64 {
    let whole = wait * (1.0 + jitter(dialect));
    if jitter(dialect) > 0.0 { whole + f64::max(whole * 0.05, 2.0) } else { whole }
}

/// Tolerance for times in the API, in seconds: the time between the end of an attempt and the decision.
const SLACK: f64 = 1.0;

/// Tolerance for a correction of the process's clock between the start of an attempt and the decision, in seconds: the
/// clock follows the database, and the duration does not.
const CORRECTION: f64 = 0.01;

/// Access to the delay queues of a world.
struct DelayQueues {
    prefix: String,
    channel: Channel,
    connection: Connection,
}

impl DelayQueues {
    async fn of(world: &World) -> Self {
        let url = &world.variables["AMQP_URL"];
        let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("the broker");
        let channel = connection.create_channel().await.expect("a channel");
        Self { prefix: world.variables["FANFARE_PREFIX"].clone(), channel, connection }
    }

    /// Declares an existing delay queue with a message TTL of `seconds`. The broker refuses the declaration if the
    /// queue has another TTL.
    async fn declare(&self, name: &str, seconds: u64) -> lapin::Result<Queue> {
        let queue = format!("{}.delay.{name}", self.prefix);
        let due = format!("{}.deliveries", self.prefix);
        let mut arguments = FieldTable::default();
        for (key, value) in [
            ("x-queue-type", "quorum"),
            ("x-dead-letter-exchange", ""),
            ("x-dead-letter-routing-key", &due),
            ("x-dead-letter-strategy", "at-least-once"),
            ("x-overflow", "reject-publish"),
        ] {
            arguments.insert(key.into(), AMQPValue::LongString(value.into()));
        }
        let milliseconds = i64::try_from(seconds * 1000).expect("few");
        arguments.insert("x-message-ttl".into(), AMQPValue::LongLongInt(milliseconds));
        // A refused declaration closes the channel.
        let channel = self.connection.create_channel().await?;
        let passive = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.clone().into(), passive, FieldTable::default()).await?;
        let durable = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
        channel.queue_declare(queue.into(), durable, arguments).await
    }

    /// Removes all retry messages from the delay queues. Returns each message with the name of its queue.
    async fn take(&self) -> Vec<(&'static str, Value)> {
        let mut found = Vec::new();
        for (name, _) in QUEUES {
            let queue = format!("{}.delay.{name}", self.prefix);
            let options = BasicGetOptions { no_ack: true };
            while let Some(message) = self.channel.basic_get(queue.clone().into(), options).await.expect("a queue") {
                found.push((name, serde_json::from_slice(&message.data).expect("a retry message")));
            }
        }
        found
    }
}

#[tokio::test]
async fn each_delay_queue_holds_messages_for_the_time_in_its_name() {
    let world = shipped_world().await;
    let queues = DelayQueues::of(&world).await;
    for (name, seconds) in QUEUES {
        let declared = queues.declare(name, seconds).await.map(drop);
        assert!(declared.is_ok(), "{name}: {declared:?}");
        assert!(queues.declare(name, seconds + 1).await.is_err(), "{name} was declared with another TTL");
    }
}

/// Resends the delivery instead of waiting hours: a resend keeps the position in the schedule. The retry message was
/// taken out of the delay queue before, so that the next retry message is alone.
#[tokio::test]
async fn after_each_failure_the_retry_is_in_the_delay_queue_of_the_schedule() {
    let world = shipped_world().await;
    let _dispatcher = world.dispatcher().await;
    let queues = DelayQueues::of(&world).await;
    for (dialect, schedule) in SCHEDULES {
        let tenant = Tenant::new(&world, dialect).await;
        world.receiver.script(dialect, &[Behaviour::FAIL]);
        let webhook = tenant.webhook(&world, &world.receiver.url(dialect), &["*"]).await;
        let event = tenant.publish(&json!({ "type": "order.created", "data": {} })).await;
        for (failures, queue) in (1..).zip(schedule) {
            let delivery = failed_so_often(&tenant, &event, &webhook, failures).await;
            let retries = until(&format!("a message of attempt {} in {dialect}", failures + 1), async || {
                Some(queues.take().await).filter(|retries| !retries.is_empty())
            })
            .await;
            assert_eq!(retries.len(), 1, "{dialect}: {retries:?}");
            let (found_in, retry) = &retries[0];
            assert_eq!((&retry["delivery"], &retry["attempt"]), (&delivery["id"], &json!(failures + 1)), "{dialect}");
            let then: Vec<u64> = serde_json::from_value(retry["then"].clone()).unwrap_or_default();
            let lengths = HashMap::from(QUEUES);
            let whole = lengths[found_in] + then.iter().sum::<u64>();
            let wait = lengths[queue];
            let fits = (wait as f64..=longest(dialect, wait as f64)).contains(&(whole as f64));
            assert!(fits && then.len() < 3, "{dialect} after {failures} failures: {retry} in {found_in} for {queue}");
            if jitter(dialect) == 0.0 {
                assert_eq!(
                    (found_in, then),
                    (queue, vec![]),
                    "{dialect}: a wait of the schedule takes a single delay queue"
                );
            }
            assert_eq!(tenant.resend(&delivery).await, failures as u64 + 1, "{dialect}");
        }
        let delivery = tenant.delivery(&event, &webhook, "failed").await;
        assert_waits(dialect, schedule, &delivery);
        assert_eq!(queues.take().await, [], "{dialect}: a retry message of a failed delivery");
    }
}

/// Waits until the delivery is scheduled after `failures` failed attempts.
async fn failed_so_often(tenant: &Tenant, event: &str, webhook: &Webhook, failures: usize) -> Value {
    until(&format!("{failures} failed attempts in {}", tenant.dialect), async || {
        let delivery = tenant.delivery(event, webhook, "scheduled").await;
        // The delivery may change between the two reads: a resent delivery is `queued` until its attempt.
        let waits = delivery["state"] == "scheduled" && delivery["reason"] == Value::Null;
        (waits && attempts(&delivery).len() == failures).then_some(delivery)
    })
    .await
}

/// Checks that each attempt has the time of the next attempt, and the last attempt has none.
fn assert_waits(dialect: &str, schedule: &[&str], delivery: &Value) {
    let lengths = HashMap::from(QUEUES);
    let (last, others) = attempts(delivery).split_last().expect("attempts");
    assert_eq!(last["next_attempt_at"], Value::Null, "{dialect}");
    assert_eq!(others.len(), schedule.len(), "{dialect}");
    let mut longer_by = Vec::new();
    for (attempt, queue) in others.iter().zip(schedule) {
        let taken = SignedDuration::from_millis(attempt["duration_ms"].as_i64().expect("a duration"));
        let decided_at = moment(&attempt["started_at"]) + taken;
        let wait = moment(&attempt["next_attempt_at"]).duration_since(decided_at).as_secs_f64();
        let expected = lengths[queue] as f64;
        let longest = longest(dialect, expected) + SLACK;
        assert!((expected - CORRECTION..longest).contains(&wait), "{dialect} waits {wait} s and not {queue}");
        longer_by.push((wait - expected) / expected);
    }
    if jitter(dialect) > 0.0 {
        let (least, greatest) =
            longer_by.iter().fold((f64::MAX, f64::MIN), |(least, greatest), &by| (by.min(least), by.max(greatest)));
        assert!(greatest - least > jitter(dialect) / 20.0, "{dialect}: the jitter is not random: {longer_by:?}");
    }
}

fn text(value: &Value) -> &str {
    value.as_str().expect("a text")
}

fn moment(value: &Value) -> Timestamp {
    text(value).parse().expect("a timestamp")
}

/// Measures real waits, all short and different.
#[tokio::test]
async fn a_retry_waits_for_the_time_of_its_schedule() {
    const WAITS: [i64; 3] = [1, 2, 3];
    let world = World::of(Setup { waits: Waits::of("1s,2s,3s"), ..Setup::new(&[]) }).await;
    let mut tenants = Vec::new();
    for dialect in DIALECTS {
        let tenant = Tenant::new(&world, dialect).await;
        world.receiver.script(dialect, &[Behaviour::FAIL]);
        let webhook = tenant.webhook(&world, &world.receiver.url(dialect), &["*"]).await;
        tenants.push((tenant, webhook));
    }
    let _dispatcher = world.dispatcher().await;
    join_all(tenants.iter().map(async |(tenant, webhook)| {
        let event = tenant.publish(&json!({ "type": "order.created", "data": {} })).await;
        tenant.delivery(&event, webhook, "failed").await;
        let received = world.receiver.received(tenant.dialect);
        let gaps: Vec<_> = received.windows(2).map(|pair| pair[1].at.duration_since(pair[0].at)).collect();
        assert_eq!(gaps.len(), WAITS.len(), "{}: {gaps:?}", tenant.dialect);
        let too_short = gaps.iter().zip(WAITS).find(|(gap, wait)| **gap < SignedDuration::from_secs(*wait));
        assert_eq!(too_short, None, "{}: {gaps:?}", tenant.dialect);
    }))
    .await;
}

/// The only wait of a shipped dialect that is short enough for a test, with jitter.
#[tokio::test]
async fn the_first_retry_of_a_shipped_dialect_starts_when_due() {
    let world = shipped_world().await;
    let _dispatcher = world.dispatcher().await;
    let tenant = Tenant::new(&world, "standard").await;
    world.receiver.script("standard", &[Behaviour::FAIL, Behaviour::OK]);
    let webhook = tenant.webhook(&world, &world.receiver.url("standard"), &["*"]).await;
    let event = tenant.publish(&json!({ "type": "order.created", "data": {} })).await;
    let delivery = tenant.delivery(&event, &webhook, "delivered").await;
    let [first, second] = attempts(&delivery) else { panic!("two attempts: {delivery}") };
    let due = moment(&first["next_attempt_at"]);
    let early = due.duration_since(moment(&second["started_at"]));
    assert!(early < SignedDuration::from_secs(1), "the second attempt is early by {early}: {delivery}");
    let gap = moment(&second["started_at"]).duration_since(moment(&first["started_at"]));
    assert!(gap >= SignedDuration::from_secs(5), "the wait was {gap}: {delivery}");
}
