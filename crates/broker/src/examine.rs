//! Examination of the broker for `fanfare doctor`, by two queues of its own.

use std::time::{Duration, Instant};

use lapin::{
    BasicProperties, Channel, Confirmation, Connection,
    options::{BasicGetOptions, BasicPublishOptions, ConfirmSelectOptions, QueueDeclareOptions, QueueDeleteOptions},
    types::{AMQPValue, FieldTable, LongString},
};
use tokio::time::{sleep, timeout};

use crate::{
    BrokerSettings,
    connection::{answered, close, timed_out},
};

/// Number of publishes that are measured.
const PUBLISHES: usize = 50;

/// Time to live of the message that is dead-lettered, and longest wait for the message behind.
const DELAY: Duration = Duration::from_secs(1);
const DEAD_LETTER_TIMEOUT: Duration = Duration::from_secs(10);

/// Time after which the broker deletes the queues of an interrupted examination.
const QUEUE_EXPIRES: Duration = Duration::from_secs(60);

/// Results of an examination.
#[derive(Debug)]
pub struct BrokerFacts {
    /// Durations of confirms, sorted.
    pub confirms: Vec<Duration>,
    /// Result of an event of the largest size.
    pub largest: Result<(), String>,
    /// Result of a message through a delay.
    pub delay: Result<(), String>,
}

impl BrokerSettings {
    /// Connects to each node by itself, with the user of the process. Returns addresses and errors.
    pub async fn try_nodes(&self) -> Vec<(String, Result<(), String>)> {
        let mut tried = Vec::new();
        for node in self.nodes() {
            let connected = self.connect_to(node, "examines", None).await;
            let result = match connected {
                Ok(connection) => {
                    close(connection).await;
                    Ok(())
                }
                Err(error) => Err(error.to_string()),
            };
            tried.push((node.address(), result));
        }
        tried
    }

    /// Declares the topology, and sends messages through two queues of its own: `largest` is the size of the largest
    /// event in bytes. The inner error is about these messages.
    ///
    /// # Errors
    /// If no node can be used, or the broker refuses the topology.
    pub async fn examine(&self, largest: usize, random: u64) -> lapin::Result<Result<BrokerFacts, lapin::Error>> {
        let connection = self.connect(&mut self.turns(), "examines").await?;
        let facts = self.send_messages(&connection, largest, random).await;
        close(connection).await;
        Ok(facts)
    }

    async fn send_messages(&self, connection: &Connection, largest: usize, random: u64) -> lapin::Result<BrokerFacts> {
        let names = [1, 2].map(|number| self.topology().private_queue(&format!("doctor.{random:016x}.{number}")));
        let channel = answered(connection.create_channel()).await?;
        declare(&channel, &names[1], FieldTable::default()).await?;
        let mut delayed = FieldTable::default();
        delayed.insert("x-message-ttl".into(), milliseconds(DELAY));
        for (argument, value) in [
            ("x-dead-letter-exchange", ""),
            ("x-dead-letter-routing-key", names[1].as_str()),
            ("x-dead-letter-strategy", "at-least-once"),
            ("x-overflow", "reject-publish"),
        ] {
            delayed.insert(argument.into(), text(value));
        }
        declare(&channel, &names[0], delayed).await?;
        answered(channel.confirm_select(ConfirmSelectOptions::default())).await?;
        let mut confirms = Vec::new();
        for _ in 0..PUBLISHES {
            let began = Instant::now();
            publish(&channel, &names[1], b"{}").await?;
            confirms.push(began.elapsed());
            take(&channel, &names[1]).await?;
        }
        confirms.sort_unstable();
        let delay = pass_delay(&channel, &names).await.map_err(|error| error.to_string());
        // Last: a broker that refuses the size closes the channel.
        let large = vec![b' '; largest];
        let largest = publish(&channel, &names[1], &large).await.map_err(|error| error.to_string());
        if let Ok(channel) = answered(connection.create_channel()).await {
            for name in names {
                let _ = answered(channel.queue_delete(name.into(), QueueDeleteOptions::default())).await;
            }
        }
        Ok(BrokerFacts { confirms, largest, delay })
    }
}

async fn declare(channel: &Channel, name: &str, mut arguments: FieldTable) -> lapin::Result<()> {
    arguments.insert("x-queue-type".into(), text("quorum"));
    arguments.insert("x-expires".into(), milliseconds(QUEUE_EXPIRES));
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    answered(channel.queue_declare(name.into(), options, arguments)).await.map(drop)
}

async fn publish(channel: &Channel, queue: &str, body: &[u8]) -> lapin::Result<()> {
    let properties = BasicProperties::default().with_delivery_mode(2);
    let published =
        answered(channel.basic_publish("".into(), queue.into(), BasicPublishOptions::default(), body, properties));
    match answered(published.await?).await? {
        Confirmation::Ack(_) => Ok(()),
        Confirmation::Nack(_) | Confirmation::NotRequested => Err(refused()),
    }
}

async fn take(channel: &Channel, queue: &str) -> lapin::Result<bool> {
    let options = BasicGetOptions { no_ack: true };
    Ok(answered(channel.basic_get(queue.into(), options)).await?.is_some())
}

async fn pass_delay(channel: &Channel, names: &[String; 2]) -> lapin::Result<()> {
    publish(channel, &names[0], b"{}").await?;
    let waiting = async {
        while !take(channel, &names[1]).await? {
            sleep(DELAY / 10).await;
        }
        Ok(())
    };
    timeout(DEAD_LETTER_TIMEOUT, waiting).await.unwrap_or_else(|_| Err(timed_out()))
}

fn text(value: &str) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

fn milliseconds(duration: Duration) -> AMQPValue {
    AMQPValue::LongLongInt(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX))
}

fn refused() -> lapin::Error {
    std::io::Error::other("the broker refused the message").into()
}
