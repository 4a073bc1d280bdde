//! The ceiling: the least code that does the same steps on the same schema in one process. It consumes, writes event
//! and delivery, signs, POSTs, records and acks, and does nothing of what makes a system of that: no lanes, no retries,
//! no checks, no settings that change, no metrics.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use base64::{Engine, engine::general_purpose::STANDARD};
use bytes::Bytes;
use fanfare_domain::ids::{ApplicationId, DeliveryId, EndpointId, EventId};
use futures_util::StreamExt;
use hmac::{Hmac, KeyInit, Mac};
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::Timestamp;
use lapin::{
    Acker, Connection, ConnectionProperties,
    message::Delivery,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json, value::RawValue};
use sha2::Sha256;
use tokio::sync::mpsc;
use tokio_postgres::{NoTls, Statement};
use uuid::Uuid;

use crate::child::Parent;

/// As many as the dispatcher has.
const PREFETCH: u16 = 512;
const BATCH: usize = 256;

/// What it works on.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) amqp_url: String,
    pub(crate) database_url: String,
    pub(crate) queue: String,
    pub(crate) application: String,
    pub(crate) endpoints: Vec<Endpoint>,
}

/// Where events go.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) id: String,
    pub(crate) url: String,
    pub(crate) secret: String,
    pub(crate) types: Vec<String>,
}

const PERSIST: &str = "
WITH keyed AS (
    INSERT INTO event_keys (event_id, accepted_at)
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[]) ON CONFLICT DO NOTHING
), fresh AS (
    INSERT INTO events (id, accepted_at, application_id, type, key, body, matches, fanned_out, traceparent, content)
    SELECT id, accepted_at, $3, type, key, body, 1, true, '', '' FROM
    unnest($1::uuid[], $2::timestamptz[], $4::text[], $5::text[], $6::text[]) AS i(id, accepted_at, type, key, body)
    ON CONFLICT DO NOTHING
)
INSERT INTO deliveries (id, accepted_at, event_id, application_id, endpoint_id, state, attempt, sequence, due_at,
                        taken_by, taken_at, expires_at)
SELECT id, accepted_at, event_id, $3, endpoint_id, 'sending', 1, 1, now() + interval '21 s', id, now(), now()
FROM unnest($7::uuid[], $8::timestamptz[], $9::uuid[], $10::uuid[]) AS d(id, accepted_at, event_id, endpoint_id)
ON CONFLICT DO NOTHING";

const RECORD: &str = "
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::timestamptz[], $3::uuid[], $4::text[], $5::timestamptz[], $6::int[])
    AS i(id, accepted_at, endpoint_id, url, started_at, status)
), logged AS (
    INSERT INTO attempts (delivery_id, attempt, accepted_at, endpoint_id, url, started_at, duration_ms, outcome, status,
                          response_headers, response_body)
    SELECT id, 1, accepted_at, endpoint_id, url, started_at, 1, 'answered', status, '{}', 'ok' FROM input
)
UPDATE deliveries d SET state = 'delivered', sequence = d.sequence + 1, due_at = NULL, taken_by = NULL, taken_at = NULL,
                        finished_at = now()
FROM input i WHERE d.id = i.id AND d.accepted_at = i.accepted_at AND d.sequence = 1 AND d.taken_by = i.id";

const KEY_LOOKUPS_ONLY: &str =
    "SET enable_seqscan=off; SET enable_bitmapscan=off; SET enable_hashjoin=off; SET enable_mergejoin=off";

/// Works until nobody asks any more. Each question is answered with how many deliveries were recorded.
pub(crate) async fn run() {
    let mut parent = Parent::new();
    let Some(work) = parent.question().await else { return };
    let work: Work = serde_json::from_value(work).expect("work");
    let recorded = Arc::new(AtomicU64::new(0));
    begin(work, Arc::clone(&recorded)).await;
    parent.answer(&Value::Null).await;
    while parent.question().await.is_some() {
        parent.answer(&json!({ "recorded": recorded.load(Ordering::Relaxed) })).await;
    }
}

/// An event's message, acked when the last of its deliveries is recorded.
struct Message {
    acker: Acker,
    open: AtomicU64,
}

struct Planned {
    event: EventId,
    accepted_at: Timestamp,
    event_type: String,
    key: String,
    body: String,
    endpoints: Vec<Arc<Target>>,
    message: Arc<Message>,
}

struct Target {
    id: EndpointId,
    url: String,
    secret: String,
    key: Vec<u8>,
}

struct Sent {
    delivery: DeliveryId,
    target: Arc<Target>,
    started_at: Timestamp,
    status: i32,
    message: Arc<Message>,
}

async fn begin(work: Work, recorded: Arc<AtomicU64>) {
    let application: ApplicationId = work.application.parse().expect("an application");
    let mut targets: HashMap<String, Vec<Arc<Target>>> = HashMap::new();
    for Endpoint { id, url, secret, types } in work.endpoints {
        let key = STANDARD.decode(secret.trim_start_matches("whsec_")).expect("a secret");
        let target = Arc::new(Target { id: id.parse().expect("an endpoint"), url, secret, key });
        types.into_iter().for_each(|one| targets.entry(one).or_default().push(Arc::clone(&target)));
    }
    let (planned, to_persist) = mpsc::channel(BATCH * 2);
    let (sent, to_record) = mpsc::channel(BATCH * 2);
    let (persists, persist) = database(&work.database_url, PERSIST).await;
    let (records, record_one) = database(&work.database_url, RECORD).await;
    tokio::spawn(persist_all((persists, persist), application, to_persist, sent));
    tokio::spawn(record_all((records, record_one), to_record, recorded));

    let connection = Connection::connect(&work.amqp_url, ConnectionProperties::default()).await.expect("the broker");
    let channel = connection.create_channel().await.expect("a channel");
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.expect("a prefetch");
    let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer =
        channel.basic_consume(work.queue.into(), "ceiling".into(), options, table).await.expect("a consumer");
    tokio::spawn(async move {
        let _connection = connection;
        while let Some(delivery) = consumer.next().await {
            let one = plan(delivery.expect("a message"), application, &targets);
            planned.send(one).await.unwrap_or_else(|_| panic!("persisting goes on"));
        }
    });
}

async fn database(url: &str, statement: &str) -> (tokio_postgres::Client, Statement) {
    let (client, connection) = tokio_postgres::connect(url, NoTls).await.expect("the database");
    tokio::spawn(connection);
    client.batch_execute(KEY_LOOKUPS_ONLY).await.expect("settings");
    let statement = client.prepare(statement).await.expect("a statement");
    (client, statement)
}

fn plan(delivery: Delivery, application: ApplicationId, targets: &HashMap<String, Vec<Arc<Target>>>) -> Planned {
    #[derive(Deserialize)]
    struct Fields<'a> {
        #[serde(borrow)]
        data: &'a RawValue,
    }
    let event_type = delivery.routing_key.as_str().split_once('.').expect("a routing key").1.to_owned();
    let key = delivery.properties.message_id().as_ref().expect("a message id").to_string();
    let fields: Fields<'_> = serde_json::from_slice(&delivery.data).expect("an event");
    let now = Timestamp::now();
    let accepted_at = Timestamp::from_millisecond(now.as_millisecond()).expect("now");
    let body = format!(r#"{{"event":"{event_type}","data":{},"timestamp":"{accepted_at:.3}"}}"#, fields.data.get());
    let endpoints = targets.get(&event_type).cloned().unwrap_or_default();
    let open = AtomicU64::new(endpoints.len() as u64);
    let message = Arc::new(Message { acker: delivery.acker, open });
    Planned { event: EventId::from_key(application, &key), accepted_at, event_type, key, body, endpoints, message }
}

async fn persist_all(
    (client, statement): (tokio_postgres::Client, Statement),
    application: ApplicationId,
    mut planned: mpsc::Receiver<Planned>,
    sent: mpsc::Sender<Sent>,
) {
    let http = Client::builder(TokioExecutor::new()).build_http();
    let mut batch = Vec::new();
    while planned.recv_many(&mut batch, BATCH).await > 0 {
        batch.sort_unstable_by_key(|one: &Planned| one.event);
        let pairs = || batch.iter().flat_map(|one| one.endpoints.iter().map(move |target| (one, target)));
        let delivery =
            |(one, target): (&Planned, &Arc<Target>)| DeliveryId::derive(one.accepted_at, one.event, target.id);
        let ids: Vec<Uuid> = batch.iter().map(|one| one.event.0).collect();
        let accepted: Vec<Timestamp> = batch.iter().map(|one| one.accepted_at).collect();
        let types: Vec<&str> = batch.iter().map(|one| one.event_type.as_str()).collect();
        let keys: Vec<&str> = batch.iter().map(|one| one.key.as_str()).collect();
        let bodies: Vec<&str> = batch.iter().map(|one| one.body.as_str()).collect();
        let deliveries: Vec<Uuid> = pairs().map(|pair| delivery(pair).0).collect();
        let times: Vec<Timestamp> = pairs().map(|(one, _)| one.accepted_at).collect();
        let events: Vec<Uuid> = pairs().map(|(one, _)| one.event.0).collect();
        let endpoints: Vec<Uuid> = pairs().map(|(_, target)| target.id.0).collect();
        client
            .execute(
                &statement,
                &[&ids, &accepted, &application.0, &types, &keys, &bodies, &deliveries, &times, &events, &endpoints],
            )
            .await
            .expect("persisted");
        for one in batch.drain(..) {
            let body = Bytes::from(one.body);
            for target in one.endpoints {
                let delivery = DeliveryId::derive(one.accepted_at, one.event, target.id);
                let (http, body, message, sent) = (http.clone(), body.clone(), Arc::clone(&one.message), sent.clone());
                tokio::spawn(async move {
                    let (started_at, status) = post(&http, &target, one.event, body).await;
                    let _ = sent.send(Sent { delivery, target, started_at, status, message }).await;
                });
            }
        }
    }
}

async fn post(
    http: &Client<HttpConnector, Full<Bytes>>,
    target: &Target,
    event: EventId,
    body: Bytes,
) -> (Timestamp, i32) {
    let started_at = Timestamp::now();
    let at = started_at.as_second();
    let own: String = mac(target.secret.as_bytes(), &[&body]).iter().map(|byte| format!("{byte:02x}")).collect();
    let standard = STANDARD.encode(mac(&target.key, &[format!("{event}.{at}.").as_bytes(), &body]));
    let request = Request::post(&target.url)
        .header("content-type", "application/json")
        .header("user-agent", "ceiling")
        .header("x-webhook-signature", own)
        .header("webhook-id", event.to_string())
        .header("webhook-timestamp", at)
        .header("webhook-signature", format!("v1,{standard}"))
        .body(Full::new(body))
        .expect("a request");
    let response = http.request(request).await.expect("an answer");
    let status = response.status().as_u16().into();
    response.into_body().collect().await.expect("a body");
    (started_at, status)
}

fn mac(key: &[u8], parts: &[&[u8]]) -> [u8; 32] {
    let mut mac = Hmac::<Sha256>::new_from_slice(key).expect("a key");
    parts.iter().for_each(|part| mac.update(part));
    mac.finalize().into_bytes().into()
}

async fn record_all(
    (client, statement): (tokio_postgres::Client, Statement),
    mut sent: mpsc::Receiver<Sent>,
    recorded: Arc<AtomicU64>,
) {
    let mut batch = Vec::new();
    while sent.recv_many(&mut batch, BATCH).await > 0 {
        batch.sort_unstable_by_key(|one: &Sent| one.delivery);
        let ids: Vec<Uuid> = batch.iter().map(|one| one.delivery.0).collect();
        let accepted: Vec<Timestamp> = batch.iter().map(|one| one.delivery.accepted_at()).collect();
        let endpoints: Vec<Uuid> = batch.iter().map(|one| one.target.id.0).collect();
        let urls: Vec<&str> = batch.iter().map(|one| one.target.url.as_str()).collect();
        let started: Vec<Timestamp> = batch.iter().map(|one| one.started_at).collect();
        let statuses: Vec<i32> = batch.iter().map(|one| one.status).collect();
        let rows = client
            .execute(&statement, &[&ids, &accepted, &endpoints, &urls, &started, &statuses])
            .await
            .expect("recorded");
        recorded.fetch_add(rows, Ordering::Relaxed);
        for one in batch.drain(..) {
            if one.message.open.fetch_sub(1, Ordering::AcqRel) == 1 {
                one.message.acker.ack(BasicAckOptions::default()).await.expect("acked");
            }
        }
    }
}
