//! Publisher: publishes events over AMQP or HTTP, at a rate or as fast as the entrance accepts.

use std::{collections::VecDeque, time::Duration};

use fanfare_domain::event::ordering::PARTITIONS;
use jiff::Timestamp;
use lapin::{
    BasicProperties, Connection, ConnectionProperties,
    options::{BasicPublishOptions, ConfirmSelectOptions},
    types::{AMQPValue, FieldTable, LongString},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
    task::JoinSet,
    time::{Instant, MissedTickBehavior, interval},
};

use crate::roles::{child::Parent, receiver::microseconds};

/// Events to publish, and their entrance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Order {
    pub(crate) entrance: Entrance,
    pub(crate) application: String,
    /// Event types, in turn.
    pub(crate) types: Vec<String>,
    pub(crate) count: usize,
    /// Events per second; `None` for as fast as accepted.
    pub(crate) rate: Option<f64>,
    /// Bytes of an event's message.
    pub(crate) bytes: usize,
    /// Number of the first event. Keys and bodies contain the numbers.
    pub(crate) first: usize,
}

/// Protocol and address of an entrance.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) enum Entrance {
    /// A single channel, with at most `window` unconfirmed messages. `ordering_keys` is the number of ordering keys, 0
    /// for events without order. With a `delay`, events are due later, and hold that time instead of the present.
    Amqp { url: String, exchange: String, window: usize, ordering_keys: usize, delay: Duration },
    /// A request per event, over `connections` connections.
    Http { address: String, key: String, connections: usize },
}

/// Publishes the orders of the parent in sequence.
pub(crate) async fn run() {
    let mut parent = Parent::new();
    while let Some(order) = parent.next_request().await {
        let order: Order = serde_json::from_value(order).expect("an order");
        let started = Instant::now();
        match &order.entrance {
            Entrance::Amqp { url, exchange, window, ordering_keys, delay } => {
                over_amqp(&order, url, exchange, (*window, *ordering_keys, *delay)).await;
            }
            Entrance::Http { address, key, connections } => over_http(&order, address, key, *connections).await,
        }
        parent.respond(&json!({ "seconds": started.elapsed().as_secs_f64() })).await;
    }
}

/// Pace of the events; `None` for no limit.
struct Pace(Option<tokio::time::Interval>);

impl Pace {
    fn new(rate: Option<f64>) -> Self {
        Self(rate.map(|rate| {
            let mut ticks = interval(Duration::from_secs_f64(1.0 / rate));
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            ticks
        }))
    }

    async fn next(&mut self) {
        if let Some(ticks) = &mut self.0 {
            ticks.tick().await;
        }
    }
}

/// Returns the JSON of an event's data, padded to a message of `bytes` bytes. `around` is the size without the data.
fn data(at: u64, number: usize, bytes: usize, around: usize) -> String {
    let head = format!("{{\"at\":{at},\"n\":{number},\"text\":\"");
    let padding = bytes.saturating_sub(around + head.len() + 2);
    format!("{head}{}\"}}", "x".repeat(padding))
}

/// Headers of an event with one of `ordering_keys` ordering keys.
fn ordered(number: usize, ordering_keys: usize) -> FieldTable {
    let mut headers = FieldTable::default();
    if ordering_keys > 0 {
        let key = number % ordering_keys;
        for (name, value) in
            [("ordering-key", format!("key-{key}")), ("fanfare-partition", (key % usize::from(PARTITIONS)).to_string())]
        {
            headers.insert(name.into(), AMQPValue::LongString(LongString::from(value)));
        }
    }
    headers
}

/// The message of an event.
fn message(number: usize, bytes: usize, delay: Duration) -> String {
    let at = microseconds() + u64::try_from(delay.as_micros()).expect("a short delay");
    if delay.is_zero() {
        return format!("{{\"data\":{}}}", data(at, number, bytes, 9));
    }
    let due_at = Timestamp::from_microsecond(i64::try_from(at).expect("this century")).expect("this century");
    let head = format!("{{\"deliver_at\":\"{due_at}\",\"data\":");
    format!("{head}{}}}", data(at, number, bytes, head.len() + 1))
}

async fn over_amqp(order: &Order, url: &str, exchange: &str, (window, ordering_keys, delay): (usize, usize, Duration)) {
    let connection = Connection::connect(url, ConnectionProperties::default()).await.expect("the broker");
    let channel = connection.create_channel().await.expect("a channel");
    channel.confirm_select(ConfirmSelectOptions::default()).await.expect("confirms");
    let mut confirms = VecDeque::new();
    let mut pace = Pace::new(order.rate);
    for number in 0..order.count {
        pace.next().await;
        let event_type = &order.types[number % order.types.len()];
        let body = message(order.first + number, order.bytes, delay);
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_headers(ordered(number, ordering_keys))
            .with_message_id(format!("bench-{}", order.first + number).into());
        let routing_key = format!("{}.{event_type}", order.application);
        let options = BasicPublishOptions::default();
        let confirm = channel
            .basic_publish(exchange.into(), routing_key.into(), options, body.as_bytes(), properties)
            .await
            .expect("a published message");
        confirms.push_back(confirm);
        if confirms.len() >= window {
            assert!(confirms.pop_front().expect("an unconfirmed message").await.expect("a confirm").is_ack());
        }
    }
    for confirm in confirms {
        assert!(confirm.await.expect("a confirm").is_ack());
    }
}

async fn over_http(order: &Order, address: &str, key: &str, connections: usize) {
    let mut workers = JoinSet::new();
    for worker in 0..connections {
        let (order, address, key) = (order.clone(), address.to_owned(), key.to_owned());
        workers.spawn(async move {
            let mut stream = TcpStream::connect(&address).await.expect("a connection to ingest");
            stream.set_nodelay(true).expect("a socket");
            let mut pace = Pace::new(order.rate.map(|rate| rate / connections as f64));
            let mut response = Vec::new();
            for number in (worker..order.count).step_by(connections) {
                pace.next().await;
                let event_type = &order.types[number % order.types.len()];
                let head = format!("{{\"type\":\"{event_type}\",\"id\":\"bench-{}\",\"data\":", order.first + number);
                let body =
                    format!("{head}{}}}", data(microseconds(), order.first + number, order.bytes, head.len() + 1));
                let request = format!(
                    "POST /api/v1/events HTTP/1.1\r\nhost: {address}\r\nauthorization: Bearer {key}\r\n\
                     content-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
                    body.len()
                );
                stream.write_all(request.as_bytes()).await.expect("a request");
                read_response(&mut stream, &mut response).await;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.expect("a worker");
    }
}

/// Reads a response. Its status must be 202.
async fn read_response(stream: &mut TcpStream, response: &mut Vec<u8>) {
    response.clear();
    loop {
        assert!(stream.read_buf(response).await.expect("a response") > 0, "ingest closed the connection");
        let Some(head) = response.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&response[..head]).expect("a head");
        assert!(text.starts_with("HTTP/1.1 202"), "{}", String::from_utf8_lossy(response));
        let length = text.lines().find_map(|line| line.strip_prefix("content-length: "));
        let length: usize = length.and_then(|length| length.parse().ok()).expect("a length");
        if response.len() >= head + 4 + length {
            return;
        }
    }
}
