//! Rows and messages of earlier traffic, written directly to the servers.

use std::collections::VecDeque;

use fanfare_domain::{
    delivery::retry::RetryMessage,
    ids::{ApplicationId, DeliveryId, EndpointId},
};
use jiff::{SignedDuration, Timestamp};
use lapin::{
    BasicProperties, Channel, Confirmation, Connection, ConnectionProperties, PublisherConfirm,
    options::{BasicPublishOptions, ConfirmSelectOptions},
};
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use super::{Scene, machine::Machine};

/// Rows per insert.
const BATCH: usize = 1_000;

/// Limit of unconfirmed messages.
const WINDOW: usize = 1_024;

/// Inserts events, each with an open delivery. `at` in an event's body is the due time of the delivery.
const OPEN: &str = "
WITH rows AS (SELECT * FROM unnest($1::uuid[], $2::uuid[], $3::uuid[], $4::uuid[], $5::text[])
                            AS rows(delivery, event, application, endpoint, body)),
     accepted AS (INSERT INTO events (id, accepted_at, application_id, type, body, matches, traceparent, content)
                  SELECT event, $6, application, 'bench.0', body, 1, '', '' FROM rows)
INSERT INTO open_deliveries (id, event_id, application_id, endpoint_id, state, reason, listed, attempt, failures, due_at,
                             expires_at)
SELECT delivery, event, application, endpoint, CASE WHEN $7::timestamptz IS NULL THEN 'queued' ELSE 'scheduled' END,
       CASE WHEN $7 IS NULL THEN 'breaker_open' END, true, 2, 1, $7, now() + interval '3 days'
FROM rows";

/// Inserts finished deliveries of a past day, each with its event and two attempts. Day 0 is today until now.
const FINISHED: &str = "
CREATE TEMPORARY TABLE past AS
SELECT (prefix || '7' || substr(md5('event' || number), 1, 3) || '8' || substr(md5('event' || number), 4, 15))::uuid AS event,
       (prefix || '8' || substr(md5('delivery' || number), 1, 3) || '8' || substr(md5('delivery' || number), 4, 15))::uuid
           AS delivery, at, number
FROM (SELECT number, at, lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0') AS prefix
      FROM (SELECT number, date_trunc('milliseconds', date_trunc('day', now(), 'UTC') - interval '$DAYS d' + (CASE $DAYS
                       WHEN 0 THEN now() - date_trunc('day', now(), 'UTC') ELSE interval '86399 s' END) * number / $COUNT) AS at
            FROM generate_series($FIRST, $LAST) AS number) AS times) AS ids;
INSERT INTO events (id, accepted_at, application_id, type, body, matches, traceparent, content)
SELECT event, at, '$APPLICATION', 'bench.0', repeat('x', 440), 1, '', '' FROM past;
INSERT INTO deliveries (id, event_id, application_id, endpoint_id, state, reason, attempt, failures, finished_at)
SELECT delivery, event, '$APPLICATION', '$ENDPOINT', CASE WHEN number % 100 = 0 THEN 'failed' ELSE 'delivered' END,
       CASE WHEN number % 100 = 0 THEN 'rejected' END, 2, 1, at FROM past;
INSERT INTO attempts (delivery_id, attempt, event_id, application_id, endpoint_id, url, started_at, duration_ms, outcome, status,
                      response_headers, response_body, taken)
SELECT delivery, attempt, event, '$APPLICATION', '$ENDPOINT', 'http://receiver.example/', at, 1, 'answered',
       CASE attempt WHEN 1 THEN 500 ELSE 200 END, '{}', 'ok', attempt = 2
FROM past, generate_series(1, 2) AS attempt;
DROP TABLE past";

/// Finished deliveries per statement.
const FINISHED_AT_ONCE: usize = 500_000;

/// Inserts new applications with `per_application` endpoints each, at a group of the receiver.
pub(crate) async fn endpoints(scene: &Scene, applications: usize, per_application: usize, group: &str) {
    let make = "INSERT INTO applications (id, name, dialect)
                SELECT gen_random_uuid(), $2 || number, dialect
                FROM generate_series(1, $1::int) AS number, (SELECT dialect FROM applications LIMIT 1) AS any_other";
    // No secrets: to decrypt a secret takes a microsecond.
    let fill = "INSERT INTO endpoints (id, application_id, url, event_types)
                SELECT gen_random_uuid(), id, $1, '{*}' FROM applications, generate_series(1, $2::int)
                WHERE name LIKE $3 || '%'";
    let database = scene.world.database().await;
    let url = format!("http://{}/{group}/ok", scene.address);
    database.batch_execute(DISABLE_NOTICES).await.expect("disabled notices");
    database.execute(make, &[&(applications as i32), &group]).await.expect("applications");
    database.execute(fill, &[&url, &(per_application as i32), &group]).await.expect("endpoints");
    database.batch_execute(ENABLE_NOTICES).await.expect("enabled notices");
}

/// Inserts endpoints of the scene's application, without secrets. Each endpoint subscribes to a single type, in turn.
pub(crate) async fn subscribers(scene: &Scene, group: &str, behaviour: &str, types: &[String], count: usize) {
    let fill = "INSERT INTO endpoints (id, application_id, url, event_types)
                SELECT gen_random_uuid(), application.id, $1 || '?' || number,
                       ARRAY[($2::text[])[1 + number % array_length($2::text[], 1)]]
                FROM (SELECT id FROM applications ORDER BY created_at LIMIT 1) AS application,
                     generate_series(1, $3::int) AS number";
    let database = scene.world.database().await;
    let url = format!("http://{}/{group}/{behaviour}", scene.address);
    database.batch_execute(DISABLE_NOTICES).await.expect("disabled notices");
    database.execute(fill, &[&url, &types, &(count as i32)]).await.expect("endpoints");
    database.batch_execute(ENABLE_NOTICES).await.expect("enabled notices");
    // A change of the dialect loads all endpoints.
    let raise = "UPDATE applications SET dialect = dialect, version = version + 1
                 WHERE id = (SELECT id FROM applications ORDER BY created_at LIMIT 1)";
    database.execute(raise, &[]).await.expect("a new version");
}

/// Disables the notices of configuration: the services would read all applications again for each change.
const DISABLE_NOTICES: &str =
    "ALTER TABLE applications DISABLE TRIGGER announce; ALTER TABLE endpoints DISABLE TRIGGER raise_version";

/// Enables the notices, and makes the services read the configuration.
const ENABLE_NOTICES: &str =
    "ALTER TABLE applications ENABLE TRIGGER announce; ALTER TABLE endpoints ENABLE TRIGGER raise_version;
                    NOTIFY fanfare_configuration";

/// Inserts a backlog without an owner for each endpoint with queued deliveries.
pub(crate) async fn backlogs(scene: &Scene) {
    let make = "INSERT INTO endpoint_backlogs (endpoint_id, application_id, reason)
                SELECT DISTINCT endpoint_id, application_id, 'breaker_open' FROM open_deliveries WHERE state = 'queued'
                ON CONFLICT DO NOTHING";
    scene.world.database().await.batch_execute(make).await.expect("backlogs");
}

/// Inserts finished deliveries of a single endpoint, accepted `days` ago.
pub(crate) async fn finished(scene: &Scene, days: i64, count: usize) {
    let database = scene.world.database().await;
    let endpoint =
        database.query_one("SELECT application_id, id FROM endpoints LIMIT 1", &[]).await.expect("an endpoint");
    let (application, endpoint): (Uuid, Uuid) = (endpoint.get(0), endpoint.get(1));
    for first in (1..=count).step_by(FINISHED_AT_ONCE) {
        let last = (first + FINISHED_AT_ONCE - 1).min(count);
        let numbers = [("$DAYS", days as usize), ("$COUNT", count), ("$FIRST", first), ("$LAST", last)];
        let statement =
            numbers.iter().fold(FINISHED.to_owned(), |text, (name, number)| text.replace(name, &number.to_string()));
        let statement =
            statement.replace("$APPLICATION", &application.to_string()).replace("$ENDPOINT", &endpoint.to_string());
        database.batch_execute(&statement).await.expect("finished deliveries");
    }
}

/// Open delivery of a [`Filler`].
#[derive(Debug, Clone, Copy)]
pub(crate) struct OpenDelivery {
    delivery: DeliveryId,
    application: ApplicationId,
    endpoint: EndpointId,
}

/// Inserts open deliveries for the endpoints of a group in turn, and publishes their retry messages.
pub(crate) struct Filler {
    database: Client,
    insert: Statement,
    channel: Channel,
    exchange: String,
    endpoints: Vec<(Uuid, Uuid)>,
    /// Age of the inserted events.
    age: SignedDuration,
    written: usize,
    confirms: VecDeque<PublisherConfirm>,
}

impl Filler {
    /// Creates a filler for the endpoints of a group at the receiver.
    pub(crate) async fn new(scene: &Scene, group: &str) -> Self {
        let (database, variables) = (scene.world.database().await, &scene.world.variables);
        let pattern = format!("%/{group}/%");
        let select = "SELECT application_id, id FROM endpoints WHERE url LIKE $1";
        let endpoints = database.query(select, &[&pattern]).await.expect("endpoints");
        let insert = database.prepare(OPEN).await.expect("a statement");
        let connection =
            Connection::connect(&variables["AMQP_URL"], ConnectionProperties::default()).await.expect("a broker");
        let channel = connection.create_channel().await.expect("a channel");
        channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
        Self {
            database,
            insert,
            channel,
            exchange: format!("{}.deliveries", variables["FANFARE_PREFIX"]),
            endpoints: endpoints.iter().map(|row| (row.get(0), row.get(1))).collect(),
            age: SignedDuration::ZERO,
            written: 0,
            confirms: VecDeque::new(),
        }
    }

    /// Inserts events accepted `age` ago.
    pub(crate) fn accepted(self, age: SignedDuration) -> Self {
        Self { age, ..self }
    }

    /// Inserts `scheduled` deliveries. `due` is the duration from now to the due time.
    pub(crate) async fn scheduled(&mut self, count: usize, due: SignedDuration) -> Vec<OpenDelivery> {
        self.write(count, Some(due)).await
    }

    /// Inserts `queued` deliveries.
    pub(crate) async fn queued(&mut self, count: usize) -> Vec<OpenDelivery> {
        self.write(count, None).await
    }

    async fn write(&mut self, count: usize, due: Option<SignedDuration>) -> Vec<OpenDelivery> {
        let mut all = Vec::with_capacity(count);
        while all.len() < count {
            let due = due.map(|due| Timestamp::now() + due);
            let accepted =
                Timestamp::from_millisecond((Timestamp::now() - self.age).as_millisecond()).expect("a moment");
            let rows = (0..BATCH.min(count - all.len()))
                .map(|row| self.endpoints[(self.written + row) % self.endpoints.len()]);
            let written: Vec<OpenDelivery> = rows
                .map(|(application, endpoint)| OpenDelivery {
                    delivery: DeliveryId(timed_id(accepted)),
                    application: ApplicationId(application),
                    endpoint: EndpointId(endpoint),
                })
                .collect();
            let at = due.unwrap_or(accepted).as_microsecond();
            let bodies: Vec<String> =
                (0..written.len()).map(|row| format!("{{\"at\":{at},\"n\":{}}}", self.written + row)).collect();
            let ids = |id: fn(&OpenDelivery) -> Uuid| written.iter().map(id).collect::<Vec<_>>();
            let deliveries = ids(|row| row.delivery.0);
            let events: Vec<Uuid> = written.iter().map(|_| timed_id(accepted)).collect();
            let (applications, endpoints) = (ids(|row| row.application.0), ids(|row| row.endpoint.0));
            self.database
                .execute(&self.insert, &[&deliveries, &events, &applications, &endpoints, &bodies, &accepted, &due])
                .await
                .expect("deliveries");
            self.written += written.len();
            all.extend(written);
        }
        all
    }

    /// Publishes the retry messages of deliveries to the delay queue of `wait`.
    pub(crate) async fn publish(&mut self, written: &[OpenDelivery], wait: &str) {
        for row in written {
            let OpenDelivery { delivery, application, endpoint } = *row;
            let retry = RetryMessage { delivery, application, endpoint, attempt: 2, then: Vec::new() };
            let body = serde_json::to_vec(&retry).expect("JSON");
            let (options, properties) =
                (BasicPublishOptions::default(), BasicProperties::default().with_delivery_mode(2));
            let published =
                self.channel.basic_publish(self.exchange.as_str().into(), wait.into(), options, &body, properties);
            self.confirms.push_back(published.await.expect("a published message"));
            if self.confirms.len() >= WINDOW {
                self.wait_for_confirms(WINDOW / 2).await;
            }
        }
    }

    /// Waits until at most `open` messages are unconfirmed.
    pub(crate) async fn wait_for_confirms(&mut self, open: usize) {
        while self.confirms.len() > open {
            let confirm = self.confirms.pop_front().expect("a confirm").await.expect("a confirm");
            assert!(matches!(confirm, Confirmation::Ack(_)));
        }
    }
}

/// Returns a random id that begins with a time in milliseconds.
fn timed_id(at: Timestamp) -> Uuid {
    uuid::Builder::from_unix_timestamp_millis(at.as_millisecond().unsigned_abs(), &rand::random()).into_uuid()
}

/// Waits until the servers have written the new rows and messages.
pub(crate) async fn settle(machine: &Machine, scene: &Scene) {
    let database = scene.world.database().await;
    for step in ["VACUUM ANALYZE", "CHECKPOINT"] {
        database.batch_execute(step).await.expect("a quiet database");
    }
    scene.wait_until_quiet(machine.wait(90)).await;
}
