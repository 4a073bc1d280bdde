//! `fanfare relay`: from the outbox table of a publisher to the broker.

use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use fanfare_tests::{
    metrics::metric,
    patience::until,
    world::{
        World,
        process::{Process, fanfare, signal},
    },
};
use futures_util::StreamExt;
use lapin::{
    Connection, ConnectionProperties, Consumer,
    options::{BasicConsumeOptions, QueueBindOptions, QueueDeclareOptions},
    types::FieldTable,
};
use serde_json::{Value, json};
use tokio::time::timeout;

/// A world with an outbox in its database.
async fn with_outbox() -> World {
    let world = World::new().await;
    let table = fanfare(&world.variables, &["relay", "--print-table"]);
    world.database().await.batch_execute(&table).await.expect("the table");
    world
}

fn relay(world: &World) -> Process {
    world.process_with("fanfare relay", &[])
}

/// Longest wait for a message that was published before.
const LONGEST: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_committed_row_is_an_event() {
    let world = with_outbox().await;
    let endpoint = world.endpoint("orders", &["order.*"]).await;
    let _dispatcher = world.dispatcher().await;
    world.known().await;
    let mut database = world.database().await;
    let insert = "INSERT INTO fanfare_outbox (application, type, id, data, time, traceparent)
                  VALUES ($1, 'order.created', $2, '{\"order\": 1.10, \"name\": \"Ümit\"}', '2026-06-18T12:00:00.123456+02:00',
                          '00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01')";
    let undone = database.transaction().await.expect("a transaction");
    undone.execute(insert, &[&world.application, &"undone"]).await.expect("a row");
    undone.rollback().await.expect("an end");
    database.execute(insert, &[&world.application, &"order-1"]).await.expect("a row");
    let mut relay = relay(&world);
    let received = world.receiver.wait_for(&endpoint.path, 1).await;
    let body: Value = serde_json::from_slice(&received[0].body).expect("JSON");
    assert_eq!(body["data"], json!({ "order": 1.1, "name": "Ümit" }), "{body}");
    let event = world.client().get("events").await.data()[0].clone();
    assert_eq!((&event["key"], &event["type"]), (&json!("order-1"), &json!("order.created")), "{event}");
    assert!(event.to_string().contains("2026-06-18T10:00:00.123456Z"), "{event}");
    empty(&world).await;
    relay.ready().await;
    assert_eq!(metric(&relay, "fanfare_relay_published_total").await, 1.0);

    // A relay that keeps published rows marks them.
    relay.terminate();
    assert_eq!(relay.ended().await, 0);
    relay = world.process_with("fanfare relay --keep", &[]);
    database.execute(insert, &[&world.application, &"order-2"]).await.expect("a row");
    world.receiver.wait_for(&endpoint.path, 2).await;
    until("the row to be marked", async || {
        let marked = world.count("SELECT count(*) FROM fanfare_outbox WHERE published_at > time").await;
        (marked == 1).then_some(())
    })
    .await;
    drop(relay);
}

/// A row beyond the checks of the table is marked with the reason, and holds up no other row.
#[tokio::test]
async fn a_row_that_can_never_be_published_is_refused() {
    let world = with_outbox().await;
    let database = world.database().await;
    let unchecked = "ALTER TABLE fanfare_outbox DROP CONSTRAINT fanfare_outbox_application_check;
                     ALTER TABLE fanfare_outbox DROP CONSTRAINT fanfare_outbox_type_check;
                     ALTER TABLE fanfare_outbox DROP CONSTRAINT fanfare_outbox_id_check";
    database.batch_execute(unchecked).await.expect("the table");
    let own = world.application.as_str();
    let long = "x".repeat(256);
    for (application, event_type, id) in
        [("app_1", "a", "1"), (own, "a b", "2"), (own, "a", long.as_str()), (own, "a", "4")]
    {
        let insert =
            "INSERT INTO fanfare_outbox (application, type, id, data, ordering_key) VALUES ($1, $2, $3, '1', 'k')";
        database.execute(insert, &[&application, &event_type, &id]).await.expect("a row");
    }
    let relay = relay(&world);
    until("the last row to be published", async || {
        (world.count("SELECT count(*) FROM fanfare_outbox WHERE id = '4'").await == 0).then_some(())
    })
    .await;
    let refused = database.query("SELECT refused FROM fanfare_outbox ORDER BY position", &[]).await.expect("the rows");
    let reasons: Vec<String> = refused.iter().map(|row| row.get(0)).collect();
    assert_eq!(reasons.len(), 3, "{reasons:?}");
    for (reason, part) in reasons.iter().zip(["application", "type", "id"]) {
        assert!(reason.contains(part), "{reason}");
    }
    assert_eq!(metric(&relay, "fanfare_relay_refused_total").await, 3.0);
}

/// Relays are killed again and again while a publisher inserts. No row is lost, no row of an ended transaction is
/// published, and each key stays in order.
#[tokio::test(flavor = "multi_thread")]
async fn killed_relays_lose_nothing_and_keep_the_order_of_each_key() {
    const KEYS: usize = 10;
    const ROWS: usize = 200;
    let world = with_outbox().await;
    let (_connection, mut messages) = observe(&world).await;
    let inserted = tokio::spawn(insert(world.database().await, world.application.clone(), KEYS, ROWS));
    let mut relays = [relay(&world), relay(&world)];
    while world.count("SELECT count(*) FROM fanfare_outbox").await > 0 || !inserted.is_finished() {
        for relay in &mut relays {
            signal("KILL", relay.id());
            let next = self::relay(&world);
            next.logged("serving health and metrics").await;
            std::mem::replace(relay, next).kill();
            // The connection of this publisher ends before the commit.
            let mut lost = world.database().await;
            let transaction = lost.transaction().await.expect("a transaction");
            let row = "INSERT INTO fanfare_outbox (application, type, data) VALUES ($1, 'lost', '0')";
            transaction.execute(row, &[&world.application]).await.expect("a row");
        }
        let first = "SELECT coalesce(min(position), 0) FROM fanfare_outbox";
        let before = world.count(first).await;
        until("some rows to be published", async || (world.count(first).await != before || before == 0).then_some(()))
            .await;
    }
    inserted.await.expect("all rows");
    assert_in_order(&mut messages, KEYS, ROWS).await;
}

/// Inserts rows, each in a transaction: for each key in the order of its numbers.
async fn insert(database: tokio_postgres::Client, application: String, keys: usize, rows: usize) {
    for number in 0..rows {
        for key in 0..keys {
            let data = json!([key, number]).to_string();
            let row = "INSERT INTO fanfare_outbox (application, type, data, ordering_key) VALUES ($1, 'a', $2::text::json, $3)";
            database.execute(row, &[&application, &data, &key.to_string()]).await.expect("a row");
        }
    }
}

/// Consumes a copy of all messages of the exchanges for events.
async fn observe(world: &World) -> (Connection, Consumer) {
    let url = &world.variables["AMQP_URL"];
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("the broker");
    let channel = connection.create_channel().await.expect("a channel");
    let exclusive = QueueDeclareOptions { exclusive: true, ..QueueDeclareOptions::default() };
    let queue = channel.queue_declare("".into(), exclusive, FieldTable::default()).await.expect("a queue");
    for exchange in ["events", "ordered"] {
        let exchange = format!("{}.{exchange}", world.variables["FANFARE_PREFIX"]);
        let bound = channel.queue_bind(
            queue.name().clone(),
            exchange.into(),
            "#".into(),
            QueueBindOptions::default(),
            FieldTable::default(),
        );
        bound.await.expect("a binding");
    }
    let options = BasicConsumeOptions { no_ack: true, ..BasicConsumeOptions::default() };
    let consumed = channel.basic_consume(queue.name().clone(), "".into(), options, FieldTable::default());
    let consumer = consumed.await.expect("a consumer");
    (connection, consumer)
}

async fn empty(world: &World) {
    until("the outbox to be empty", async || {
        (world.count("SELECT count(*) FROM fanfare_outbox").await == 0).then_some(())
    })
    .await;
}

/// A relay that stood still while another took over goes on beside the other: each key stays in order.
#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_stood_still_changes_no_order() {
    const KEYS: usize = 5;
    const ROWS: usize = 100;
    let world = with_outbox().await;
    let (_connection, mut messages) = observe(&world).await;
    let first = relay(&world);
    first.logged("this relay is active").await;
    let inserted = tokio::spawn(insert(world.database().await, world.application.clone(), KEYS, ROWS));
    signal("STOP", first.id());
    // PostgreSQL ends the session of the relay that stands still, as a network would.
    let end = "SELECT pg_terminate_backend(pid) FROM pg_locks WHERE locktype = 'advisory' AND database =
               (SELECT oid FROM pg_database WHERE datname = current_database()) AND pid <> pg_backend_pid()";
    world.database().await.execute(end, &[]).await.expect("the end of a session");
    let second = relay(&world);
    second.logged("this relay is active").await;
    signal("CONT", first.id());
    inserted.await.expect("all rows");
    empty(&world).await;
    assert_in_order(&mut messages, KEYS, ROWS).await;
}

/// Checks that the first copies of all rows came, for each key in the order of the numbers.
async fn assert_in_order(messages: &mut Consumer, keys: usize, rows: usize) {
    let mut seen = HashSet::new();
    let mut last: HashMap<i64, i64> = HashMap::new();
    while seen.len() < keys * rows {
        let message = timeout(LONGEST, messages.next()).await.expect("all rows are published");
        let message = message.expect("a message").expect("a message");
        let body: Value = serde_json::from_slice(&message.data).expect("JSON");
        let (key, number) = (body["data"][0].as_i64().expect("a key"), body["data"][1].as_i64().expect("a number"));
        // Fanfare delivers the first copy of an id only.
        if seen.insert((key, number)) {
            let before = last.insert(key, number).unwrap_or(-1);
            assert_eq!(before + 1, number, "key {key}");
        }
    }
}
