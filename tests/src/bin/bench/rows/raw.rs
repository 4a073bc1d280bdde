//! Maximum rate of each server and library on this machine, alone.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http_body_util::{BodyExt, Full};
use hyper::Request;
use hyper_util::{
    client::legacy::{Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use jiff::Timestamp;
use lapin::{
    Connection, ConnectionProperties,
    options::{BasicAckOptions, BasicConsumeOptions, BasicQosOptions},
    types::FieldTable,
};
use tokio::{task::JoinSet, time::Instant};
use uuid::Uuid;

use crate::{
    figures::Figures,
    rows::latency::{subscriber, types},
    scene::{Scene, Subject, Via, machine::Machine},
};

/// Messages, POSTs and rows of each figure.
const COUNT: usize = 30_000;

/// Rows per insert and messages per ack, and concurrent POSTs.
const BATCH: usize = 256;
const POSTS: usize = 64;

const INSERT: &str = "
INSERT INTO events (id, accepted_at, application_id, type, body, matches, traceparent, content)
SELECT id, now(), id, 'bench.0', body, 1, '', '' FROM unnest($1::uuid[], $2::text[]) AS i(id, body)";

/// Measures the maximum rates of broker, HTTP client and database.
pub(crate) async fn measure(machine: &Machine, figures: &mut Figures) {
    let mut scene = Scene::set(machine, &[subscriber("raw", "ok", 0)], Subject::Fanfare(0)).await;
    let count = machine.count(COUNT);
    let mut add = |name: &str, took: Duration| figures.add(name, "/s", count as f64 / took.as_secs_f64(), None, None);
    add("raw: persistent messages published with confirms", scene.publish(Via::Amqp, &types(1), count, None).await);
    add("raw: the same messages consumed and acked", consume(&scene, count).await);
    add("raw: POSTs over kept connections", post(&scene, count).await);
    add("raw: events inserted in batches", insert(&scene, count).await);
}

async fn consume(scene: &Scene, count: usize) -> Duration {
    let url = &scene.world.variables["AMQP_URL"];
    let queue = format!("{}.events", scene.world.variables["FANFARE_PREFIX"]);
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("the broker");
    let channel = connection.create_channel().await.expect("a channel");
    channel.basic_qos(2 * BATCH as u16, BasicQosOptions::default()).await.expect("a prefetch");
    let started = Instant::now();
    let (options, table) = (BasicConsumeOptions::default(), FieldTable::default());
    let mut consumer = channel.basic_consume(queue.into(), "raw".into(), options, table).await.expect("a consumer");
    for number in 1..=count {
        let message = consumer.next().await.expect("a message").expect("a message");
        if number % BATCH == 0 || number == count {
            message.acker.ack(BasicAckOptions { multiple: true }).await.expect("an acked message");
        }
    }
    started.elapsed()
}

async fn post(scene: &Scene, count: usize) -> Duration {
    let client: Client<HttpConnector, Full<Bytes>> = Client::builder(TokioExecutor::new()).build_http();
    let url: Arc<str> = format!("http://{}/raw/ok", scene.address).into();
    let body = Bytes::from(vec![b'x'; scene.bytes]);
    let started = Instant::now();
    let mut posts = JoinSet::new();
    for worker in 0..POSTS {
        let (client, url, body) = (client.clone(), Arc::clone(&url), body.clone());
        posts.spawn(async move {
            for _ in (worker..count).step_by(POSTS) {
                let request = Request::post(&*url).body(Full::new(body.clone())).expect("a request");
                let answer = client.request(request).await.expect("an answer");
                answer.into_body().collect().await.expect("a body");
            }
        });
    }
    posts.join_all().await;
    started.elapsed()
}

async fn insert(scene: &Scene, count: usize) -> Duration {
    let database = scene.world.database().await;
    let statement = database.prepare(INSERT).await.expect("a statement");
    let body = "x".repeat(scene.bytes);
    let started = Instant::now();
    for first in (0..count).step_by(BATCH) {
        let rows = BATCH.min(count - first);
        // Ordered by time, like Fanfare's ids.
        let now = Timestamp::now().as_nanosecond().cast_unsigned();
        let ids: Vec<Uuid> = (0..rows as u128).map(|number| Uuid::from_u128(now << 60 | number)).collect();
        let bodies = vec![body.as_str(); rows];
        database.execute(&statement, &[&ids, &bodies]).await.expect("inserted events");
    }
    started.elapsed()
}
