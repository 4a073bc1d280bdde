//! Publisher: publishes events over AMQP or HTTP, at a rate or as fast as the entrance accepts.

use std::{collections::VecDeque, str::FromStr, time::Duration};

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

use crate::roles::{
    child::Parent,
    receiver::{length, microseconds},
};

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
    Http { target: Target, connections: usize },
}

/// Server that takes events over HTTP, Fanfare or another.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Target {
    pub(crate) address: String,
    pub(crate) path: String,
    /// Headers of each request, as `name: value`.
    pub(crate) headers: Vec<String>,
    pub(crate) body: Template,
}

/// Body of a request, with places.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Template(Vec<Part>);

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
enum Part {
    Text(String),
    Type,
    Number,
    Data,
}

impl FromStr for Template {
    type Err = anyhow::Error;

    /// Reads a text with the place `{data}`, and perhaps `{type}` and `{n}`.
    fn from_str(text: &str) -> anyhow::Result<Self> {
        let (mut parts, mut rest) = (Vec::new(), text);
        while !rest.is_empty() {
            let places = [("{type}", Part::Type), ("{n}", Part::Number), ("{data}", Part::Data)];
            let next = places.into_iter().filter_map(|(name, part)| Some((rest.find(name)?, name.len(), part)));
            let Some((start, length, part)) = next.min_by_key(|(start, ..)| *start) else {
                parts.push(Part::Text(rest.to_owned()));
                break;
            };
            parts.extend([Part::Text(rest[..start].to_owned()), part]);
            rest = &rest[start + length..];
        }
        anyhow::ensure!(parts.contains(&Part::Data), "the body {text:?} lacks the place {{data}}");
        Ok(Self(parts))
    }
}

impl Template {
    /// The body of an event, of `bytes` bytes.
    fn fill(&self, event_type: &str, number: usize, bytes: usize) -> String {
        let number_text = number.to_string();
        let text = |part| match part {
            &Part::Data => "",
            Part::Text(text) => text.as_str(),
            Part::Type => event_type,
            Part::Number => &number_text,
        };
        let around = self.0.iter().map(|part| text(part).len()).sum();
        let data = data(microseconds(), number, bytes, around);
        self.0.iter().map(|part| if *part == Part::Data { data.as_str() } else { text(part) }).collect()
    }
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
            Entrance::Http { target, connections } => over_http(&order, target, *connections).await,
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

async fn over_http(order: &Order, target: &Target, connections: usize) {
    let mut workers = JoinSet::new();
    for worker in 0..connections {
        let (order, target) = (order.clone(), target.clone());
        workers.spawn(async move {
            let headers: String = target.headers.iter().map(|header| format!("{header}\r\n")).collect();
            let head = format!("POST {} HTTP/1.1\r\nhost: {}\r\n{headers}", target.path, target.address);
            let mut stream = TcpStream::connect(&target.address).await.expect("a connection to the server");
            stream.set_nodelay(true).expect("a socket");
            let mut pace = Pace::new(order.rate.map(|rate| rate / connections as f64));
            let mut response = Vec::new();
            for number in (worker..order.count).step_by(connections) {
                pace.next().await;
                let event_type = &order.types[number % order.types.len()];
                let body = target.body.fill(event_type, order.first + number, order.bytes);
                let length = body.len();
                let request = format!("{head}content-type: application/json\r\ncontent-length: {length}\r\n\r\n{body}");
                stream.write_all(request.as_bytes()).await.expect("a request");
                read_response(&mut stream, &mut response).await;
            }
        });
    }
    while let Some(ended) = workers.join_next().await {
        ended.expect("a worker");
    }
}

/// Reads a response, with a length or in chunks. Its status must be a 2xx.
async fn read_response(stream: &mut TcpStream, response: &mut Vec<u8>) {
    response.clear();
    loop {
        assert!(stream.read_buf(response).await.expect("a response") > 0, "the server closed the connection");
        let Some(head) = response.windows(4).position(|window| window == b"\r\n\r\n") else { continue };
        let text = std::str::from_utf8(&response[..head]).expect("a head");
        assert!(text.starts_with("HTTP/1.1 2"), "{}", String::from_utf8_lossy(response));
        let is_whole = match length(text) {
            Some(length) => response.len() >= head + 4 + length,
            None if text.starts_with("HTTP/1.1 204") => true,
            // In chunks, without trailers.
            None => response.ends_with(b"0\r\n\r\n"),
        };
        if is_whole {
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_body_has_its_places_filled_and_its_size() {
        let template: Template = r#"{"type":"{type}","payload":{data},"n":{n}}"#.parse().expect("a template");
        let body = template.fill("bench.0", 12, 200);
        assert_eq!(body.len(), 200);
        let body: serde_json::Value = serde_json::from_str(&body).expect("JSON");
        assert_eq!((&body["type"], &body["n"], &body["payload"]["n"]), (&json!("bench.0"), &json!(12), &json!(12)));
        assert!("{}".parse::<Template>().is_err());
    }
}
