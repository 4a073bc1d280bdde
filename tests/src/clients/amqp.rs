//! An AMQP publisher and queue inspection, independent of Fanfare's own AMQP code.

use lapin::{
    BasicProperties, Channel, Connection, ConnectionProperties, ExchangeKind,
    options::{
        BasicGetOptions, BasicPublishOptions, BasicRejectOptions, ConfirmSelectOptions, ExchangeDeclareOptions,
        ExchangeDeleteOptions, QueueDeclareOptions, QueueDeleteOptions, QueuePurgeOptions,
    },
    types::{AMQPValue, FieldTable, LongString},
};
use rand::seq::SliceRandom;

/// A connection to a test's broker.
pub struct Broker {
    prefix: String,
    channel: Channel,
    _connection: Connection,
}

impl Broker {
    /// Connects to any of the comma-separated URLs, in random order.
    ///
    /// # Errors
    /// If no broker accepts the connection.
    pub async fn connect(urls: &str, prefix: &str) -> lapin::Result<Self> {
        let mut urls: Vec<&str> = urls.split(',').collect();
        urls.shuffle(&mut rand::rng());
        let mut connected = Connection::connect(urls[0], ConnectionProperties::default()).await;
        for url in &urls[1..] {
            if connected.is_err() {
                connected = Connection::connect(url, ConnectionProperties::default()).await;
            }
        }
        let connection = connected?;
        let channel = connection.create_channel().await?;
        channel.confirm_select(ConfirmSelectOptions::default()).await?;
        Ok(Self { prefix: prefix.to_owned(), channel, _connection: connection })
    }

    /// Publishes a persistent message to the events exchange and waits for the confirm. Returns true if the broker
    /// acked.
    ///
    /// # Errors
    /// If the connection fails meanwhile.
    pub async fn publish(
        &self,
        routing_key: &str,
        message_id: Option<&str>,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> lapin::Result<bool> {
        self.publish_to("events", routing_key, message_id, headers, body).await
    }

    /// Publishes a persistent message to an exchange, named without the prefix, and waits for the confirm. Returns true
    /// if the broker acked.
    ///
    /// # Errors
    /// If the connection fails meanwhile.
    pub async fn publish_to(
        &self,
        exchange: &str,
        routing_key: &str,
        message_id: Option<&str>,
        headers: &[(&str, &str)],
        body: impl AsRef<[u8]>,
    ) -> lapin::Result<bool> {
        let mut table = FieldTable::default();
        for (name, value) in headers {
            table.insert((*name).into(), AMQPValue::LongString(LongString::from(*value)));
        }
        let properties = BasicProperties::default()
            .with_delivery_mode(2)
            .with_content_type("application/json".into())
            .with_headers(table);
        let properties = match message_id {
            Some(id) => properties.with_message_id(id.into()),
            None => properties,
        };
        let exchange = format!("{}.{exchange}", self.prefix);
        let options = BasicPublishOptions::default();
        let confirm =
            self.channel.basic_publish(exchange.into(), routing_key.into(), options, body.as_ref(), properties).await?;
        Ok(confirm.await?.is_ack())
    }

    /// Checks that a topic exchange exists.
    ///
    /// # Errors
    /// If the exchange is missing, or has another kind or durability. The channel is unusable afterwards.
    pub async fn assert_exchange(&self, name: &str, is_durable: bool) -> lapin::Result<()> {
        let options =
            ExchangeDeclareOptions { passive: true, durable: is_durable, ..ExchangeDeclareOptions::default() };
        self.channel.exchange_declare(name.into(), ExchangeKind::Topic, options, FieldTable::default()).await
    }

    /// Ready messages in a queue, named without the prefix.
    ///
    /// # Errors
    /// If the queue does not exist. The channel is unusable afterwards.
    pub async fn depth(&self, queue: &str) -> lapin::Result<u32> {
        let options = QueueDeclareOptions { passive: true, ..QueueDeclareOptions::default() };
        let queue = format!("{}.{queue}", self.prefix);
        Ok(self.channel.queue_declare(queue.into(), options, FieldTable::default()).await?.message_count())
    }

    /// Gets and requeues the only message of a queue, until the broker delivers the message no more. Returns the number
    /// of deliveries.
    ///
    /// The queue is named without the prefix.
    ///
    /// # Errors
    /// If the queue does not exist, or the connection fails meanwhile.
    pub async fn exhaust(&self, queue: &str) -> lapin::Result<usize> {
        let queue = format!("{}.{queue}", self.prefix);
        let mut times = 0;
        while let Some(message) = self.channel.basic_get(queue.clone().into(), BasicGetOptions::default()).await? {
            times += 1;
            message.acker.reject(BasicRejectOptions { requeue: true }).await?;
        }
        Ok(times)
    }

    /// Removes a binding. Queue and exchange are named without the prefix.
    ///
    /// # Errors
    /// If the connection fails meanwhile.
    pub async fn unbind(&self, queue: &str, exchange: &str, key: &str) -> lapin::Result<()> {
        let (queue, exchange) = (format!("{}.{queue}", self.prefix), format!("{}.{exchange}", self.prefix));
        self.channel.queue_unbind(queue.into(), exchange.into(), key.into(), FieldTable::default()).await
    }

    /// Discards all ready messages of a queue, named without the prefix. Returns their number.
    ///
    /// # Errors
    /// If the queue does not exist, or the connection fails meanwhile.
    pub async fn purge(&self, queue: &str) -> lapin::Result<u32> {
        self.channel.queue_purge(format!("{}.{queue}", self.prefix).into(), QueuePurgeOptions::default()).await
    }

    /// Deletes a queue, named without the prefix. Returns the number of discarded messages.
    ///
    /// # Errors
    /// If the connection fails meanwhile.
    pub async fn delete_queue(&self, queue: &str) -> lapin::Result<u32> {
        self.channel.queue_delete(format!("{}.{queue}", self.prefix).into(), QueueDeleteOptions::default()).await
    }

    /// Deletes the exchanges and queues of the prefix, including the delay queues of `delays`. Ignores absent names.
    pub async fn remove_topology(&self, delays: &[String]) {
        let fixed = [
            "events",
            "deliveries",
            "parked",
            "unrouted",
            "ordered.0",
            "ordered.1",
            "ordered.2",
            "ordered.3",
            "ordered.by-key",
        ];
        let queues = fixed.map(str::to_owned).into_iter();
        for queue in queues.chain(delays.iter().map(|delay| format!("delay.{delay}"))) {
            let queue = format!("{}.{queue}", self.prefix);
            let _ = self.channel.queue_delete(queue.into(), QueueDeleteOptions::default()).await;
        }
        let exchanges = ["events", "deliveries", "unrouted", "ordered", "ordered.partitions", "ordered-by-key"];
        for exchange in exchanges {
            let exchange = format!("{}.{exchange}", self.prefix);
            let _ = self.channel.exchange_delete(exchange.into(), ExchangeDeleteOptions::default()).await;
        }
    }
}
