//! Ceiling: the minimal code for the same steps on the same schema in a single process.
//!
//! The ceiling consumes, writes event and delivery, signs, POSTs, records and acks. The ceiling has no lanes, retries,
//! checks, changeable settings or metrics.

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

use crate::roles::child::Parent;

/// Prefetch and batch size of the dispatcher.
const PREFETCH: u16 = 512;
const BATCH: usize = 256;

/// Input of the ceiling.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Work {
    pub(crate) amqp_url: String,
    pub(crate) database_url: String,
    pub(crate) queue: String,
    pub(crate) application: String,
    pub(crate) endpoints: Vec<Endpoint>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Endpoint {
    pub(crate) id: String,
    pub(crate) url: String,
    pub(crate) secret: String,
    pub(crate) types: Vec<String>,
}

const PERSIST: &str = "
WITH keyed AS (
    INSERT INTO event_keys (event_id, month, accepted_at)
    SELECT id, date_trunc('month', now() AT TIME ZONE 'UTC')::date, accepted_at
    FROM unnest($1::uuid[], $2::timestamptz[]) AS i(id, accepted_at) ON CONFLICT DO NOTHING
), fresh AS (
    INSERT INTO events (id, accepted_at, application_id, type, key, body, matches, traceparent, content)
    SELECT id, accepted_at, $3, type, key, body, 1, '', '' FROM
    unnest($1::uuid[], $2::timestamptz[], $4::text[], $5::text[], $6::text[]) AS i(id, accepted_at, type, key, body)
)
INSERT INTO open_deliveries (id, event_id, application_id, endpoint_id, state, listed, lease_id, lease_until, expires_at)
SELECT id, event_id, $3, endpoint_id, 'sending', false, id, now() + interval '21 s', now() + interval '1 day'
FROM unnest($7::uuid[], $8::uuid[], $9::uuid[]) AS d(id, event_id, endpoint_id)";

const RECORD: &str = "
WITH input AS MATERIALIZED (
    SELECT * FROM unnest($1::uuid[], $2::text[], $3::timestamptz[], $4::int[]) AS i(id, url, started_at, status)
), ended AS (
    DELETE FROM open_deliveries o USING input i WHERE o.id = i.id AND o.id = ANY ($1) AND o.attempt = 1 AND o.lease_id = i.id
    RETURNING o.application_id, o.id, o.event_id, o.endpoint_id, i.url, i.started_at, i.status
)
INSERT INTO deliveries (application_id, id, event_id, endpoint_id, state, attempt, failures, url, started_at, duration_ms,
                        status, response_headers, response_body)
SELECT application_id, id, event_id, endpoint_id, 'delivered', 1, 0, url, started_at, 1, status, '{}', 'ok' FROM ended";

const KEY_LOOKUPS_ONLY: &str =
    "SET enable_seqscan=off; SET enable_bitmapscan=off; SET enable_hashjoin=off; SET enable_mergejoin=off";

/// Delivers until the parent ends. The response to each request is the number of recorded deliveries.
pub(crate) async fn run() {
    let mut parent = Parent::new();
    let Some(work) = parent.next_request().await else { return };
    let work: Work = serde_json::from_value(work).expect("the input of the ceiling");
    let recorded = Arc::new(AtomicU64::new(0));
    begin(work, Arc::clone(&recorded)).await;
    parent.respond(&Value::Null).await;
    while parent.next_request().await.is_some() {
        parent.respond(&json!({ "recorded": recorded.load(Ordering::Relaxed) })).await;
    }
}

struct Planned {
    event: EventId,
    accepted_at: Timestamp,
    event_type: String,
    key: String,
    body: String,
    endpoints: Vec<Arc<Target>>,
    acker: Acker,
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
}

async fn begin(work: Work, recorded: Arc<AtomicU64>) {
    let application: ApplicationId = work.application.parse().expect("an application");
    let mut targets: HashMap<String, Vec<Arc<Target>>> = HashMap::new();
    for Endpoint { id, url, secret, types } in work.endpoints {
        let key = STANDARD.decode(secret.trim_start_matches("whsec_")).expect("a secret");
        let target = Arc::new(Target { id: id.parse().expect("an endpoint"), url, secret, key });
        types.into_iter().for_each(|event_type| targets.entry(event_type).or_default().push(Arc::clone(&target)));
    }
    let (planned, to_persist) = mpsc::channel(BATCH * 2);
    let (sent, to_record) = mpsc::channel(BATCH * 2);
    let (persist_client, persist) = database(&work.database_url, PERSIST).await;
    let (record_client, record) = database(&work.database_url, RECORD).await;
    tokio::spawn(persist_all((persist_client, persist), application, to_persist, sent));
    tokio::spawn(record_all((record_client, record), to_record, recorded));

    let connection = Connection::connect(&work.amqp_url, ConnectionProperties::default()).await.expect("the broker");
    let channel = connection.create_channel().await.expect("a channel");
    channel.basic_qos(PREFETCH, BasicQosOptions::default()).await.expect("a prefetch");
    let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer =
        channel.basic_consume(work.queue.into(), "ceiling".into(), options, table).await.expect("a consumer");
    tokio::spawn(async move {
        let _connection = connection;
        while let Some(delivery) = consumer.next().await {
            let delivery = delivery.expect("a message");
            // Drops a harmful publisher's message, which is no JSON object.
            if delivery.data.first() != Some(&b'{') {
                delivery.ack(BasicAckOptions::default()).await.expect("the channel");
                continue;
            }
            let plan = plan(delivery, application, &targets);
            planned.send(plan).await.unwrap_or_else(|_| panic!("the task that persists has ended"));
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
    let accepted_at = Timestamp::from_millisecond(now.as_millisecond()).expect("a timestamp");
    let body = format!(r#"{{"event":"{event_type}","data":{},"timestamp":"{accepted_at:.3}"}}"#, fields.data.get());
    let endpoints = targets.get(&event_type).cloned().unwrap_or_default();
    let event = EventId::from_key(application, &key);
    Planned { event, accepted_at, event_type, key, body, endpoints, acker: delivery.acker }
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
        batch.sort_unstable_by_key(|plan: &Planned| plan.event);
        let pairs = || batch.iter().flat_map(|plan| plan.endpoints.iter().map(move |target| (plan, target)));
        let delivery =
            |(plan, target): (&Planned, &Arc<Target>)| DeliveryId::derive(plan.accepted_at, plan.event, target.id);
        let ids: Vec<Uuid> = batch.iter().map(|plan| plan.event.0).collect();
        let accepted: Vec<Timestamp> = batch.iter().map(|plan| plan.accepted_at).collect();
        let types: Vec<&str> = batch.iter().map(|plan| plan.event_type.as_str()).collect();
        let keys: Vec<&str> = batch.iter().map(|plan| plan.key.as_str()).collect();
        let bodies: Vec<&str> = batch.iter().map(|plan| plan.body.as_str()).collect();
        let deliveries: Vec<Uuid> = pairs().map(|pair| delivery(pair).0).collect();
        let events: Vec<Uuid> = pairs().map(|(plan, _)| plan.event.0).collect();
        let endpoints: Vec<Uuid> = pairs().map(|(_, target)| target.id.0).collect();
        client
            .execute(
                &statement,
                &[&ids, &accepted, &application.0, &types, &keys, &bodies, &deliveries, &events, &endpoints],
            )
            .await
            .expect("persisted events");
        for plan in batch.drain(..) {
            plan.acker.ack(BasicAckOptions::default()).await.expect("an acked message");
            let body = Bytes::from(plan.body);
            for target in plan.endpoints {
                let delivery = DeliveryId::derive(plan.accepted_at, plan.event, target.id);
                let (http, body, sent) = (http.clone(), body.clone(), sent.clone());
                tokio::spawn(async move {
                    let (started_at, status) = post(&http, &target, plan.event, body).await;
                    let _ = sent.send(Sent { delivery, target, started_at, status }).await;
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
    let seconds = started_at.as_second();
    let hex: String = mac(target.secret.as_bytes(), &[&body]).iter().map(|byte| format!("{byte:02x}")).collect();
    let standard = STANDARD.encode(mac(&target.key, &[format!("{event}.{seconds}.").as_bytes(), &body]));
    let request = Request::post(&target.url)
        .header("content-type", "application/json")
        .header("user-agent", "ceiling")
        .header("x-webhook-signature", hex)
        .header("webhook-id", event.to_string())
        .header("webhook-timestamp", seconds)
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
        batch.sort_unstable_by_key(|attempt: &Sent| attempt.delivery);
        let ids: Vec<Uuid> = batch.iter().map(|attempt| attempt.delivery.0).collect();
        let urls: Vec<&str> = batch.iter().map(|attempt| attempt.target.url.as_str()).collect();
        let started: Vec<Timestamp> = batch.iter().map(|attempt| attempt.started_at).collect();
        let statuses: Vec<i32> = batch.iter().map(|attempt| attempt.status).collect();
        let rows = client.execute(&statement, &[&ids, &urls, &started, &statuses]).await.expect("recorded deliveries");
        recorded.fetch_add(rows, Ordering::Relaxed);
        batch.clear();
    }
}
