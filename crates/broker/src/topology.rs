//! Exchanges, queues and bindings, as plain data.
//!
//! A queue's arguments are part of the queue's identity: the broker refuses a declaration with other arguments. Any
//! value that may change is therefore part of the queue's name.

use std::{str::FromStr, time::Duration};

use fanfare_domain::{
    delivery::delay::{DelayQueues, delay_name},
    event::ordering::PARTITIONS,
};
use lapin::{
    Channel, ExchangeKind,
    options::{ExchangeBindOptions, ExchangeDeclareOptions, QueueBindOptions, QueueDeclareOptions},
    types::{AMQPValue, FieldTable, LongString},
};

use crate::connection::answered;

/// Maximum returns of a message from dead consumers before the message is parked. Never -1: RabbitMQ 3.10 then deletes
/// each message at the first return.
const DELIVERY_LIMIT: i64 = 20;

/// Delivery limit of queues without dead-lettering. Without an explicit limit, RabbitMQ 4 deletes a message after 20
/// returns.
const NO_LIMIT: i64 = 1_000_000_000;

/// Routing key on the deliveries exchange for retries that are due.
pub(crate) const DUE: &str = "due";

/// Routing key on the deliveries exchange for messages that could not be read.
pub(crate) const PARKED: &str = "parked";

/// Header of ordered events with the number of their queue. Written by Fanfare.
pub(crate) const PARTITION: &str = "fanfare-partition";

/// Header of an event with its ordering key.
pub(crate) const ORDERING_KEY: &str = "ordering-key";

/// All names in the broker. The names start with a prefix, so that several environments can share a broker.
#[derive(Debug, Clone)]
pub struct Topology {
    prefix: Prefix,
    delays: DelayQueues,
}

/// Prefix of all names of an environment.
#[derive(Debug, Clone)]
pub struct Prefix(String);

/// The text is not a prefix.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a prefix: use 1 to 64 letters, digits, _ or -")]
pub struct InvalidPrefix(String);

impl FromStr for Prefix {
    type Err = InvalidPrefix;

    fn from_str(text: &str) -> Result<Self, InvalidPrefix> {
        let fits = (1..=64).contains(&text.len());
        if !fits || !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte)) {
            return Err(InvalidPrefix(text.to_owned()));
        }
        Ok(Self(text.to_owned()))
    }
}

struct Queue {
    name: String,
    arguments: FieldTable,
    /// Exchange, routing key and arguments.
    binding: (String, String, FieldTable),
}

impl Topology {
    /// Creates the topology of an environment, with delay queues.
    pub fn new(prefix: Prefix, delays: DelayQueues) -> Self {
        Self { prefix, delays }
    }

    /// Exchange for published events.
    pub fn events_exchange(&self) -> String {
        self.named("events")
    }

    /// Queue of published events.
    pub fn events_queue(&self) -> String {
        self.named("events")
    }

    /// Exchange for events with an ordering key, with the number of the queue in a header.
    pub fn ordered_exchange(&self) -> String {
        self.named("ordered")
    }

    /// Exchange at which other publishers publish events with an ordering key: a single queue has all of them.
    pub fn ordered_by_key_exchange(&self) -> String {
        self.named("ordered-by-key")
    }

    /// Exchange behind [`Self::ordered_exchange`], which chooses the queue. Publishers publish to topic exchanges only,
    /// as RabbitMQ confines a user to its applications there.
    fn partitions_exchange(&self) -> String {
        self.named("ordered.partitions")
    }

    /// Queues of events with an ordering key. A single consumer reads each.
    pub fn ordered_queues(&self) -> Vec<String> {
        let queues = (0..PARTITIONS).map(|partition| self.partition_queue(partition));
        queues.chain([self.ordered_by_key_queue()]).collect()
    }

    fn partition_queue(&self, partition: u8) -> String {
        self.named(&format!("ordered.{partition}"))
    }

    fn ordered_by_key_queue(&self) -> String {
        self.named("ordered.by-key")
    }

    /// True for an exchange at which events are published.
    pub(crate) fn has_events(&self, exchange: &str) -> bool {
        exchange == self.events_exchange() || self.has_ordered_events(exchange)
    }

    /// True for an exchange at which events with an ordering key are published.
    pub(crate) fn has_ordered_events(&self, exchange: &str) -> bool {
        exchange == self.ordered_exchange() || exchange == self.ordered_by_key_exchange()
    }

    /// Exchange for all messages of the dispatcher.
    pub fn deliveries_exchange(&self) -> String {
        self.named("deliveries")
    }

    /// Queue of retries that are due.
    pub fn deliveries_queue(&self) -> String {
        self.named("deliveries")
    }

    /// Queue of messages that could not be read.
    pub fn parked_queue(&self) -> String {
        self.named("parked")
    }

    /// The sequence of delays for a wait.
    pub fn plan(&self, wait: Duration) -> Vec<Duration> {
        self.delays.plan(wait)
    }

    /// Routing key on the deliveries exchange for a retry with this delay, or for a due retry. A retry message from
    /// another process may have a delay that this process does not declare. The first delay of [`Self::plan`] then
    /// replaces the delay.
    pub(crate) fn retry_routing_key(&self, delay: Option<Duration>) -> String {
        match delay {
            None => DUE.to_owned(),
            Some(delay) => self.plan(delay).first().copied().map_or_else(|| DUE.to_owned(), delay_name),
        }
    }

    /// Exchange and queue of messages that matched no binding.
    pub fn unrouted(&self) -> String {
        self.named("unrouted")
    }

    fn named(&self, what: &str) -> String {
        format!("{}.{what}", self.prefix.0)
    }

    /// Name of a queue that is no part of the topology.
    pub(crate) fn private_queue(&self, name: &str) -> String {
        self.named(name)
    }

    /// Names of all queues, without and with the prefix.
    pub(crate) fn queue_names(&self) -> Vec<(String, String)> {
        let short = |name: &str| name[self.prefix.0.len() + 1..].to_owned();
        self.queues().into_iter().map(|queue| (short(&queue.name), queue.name)).collect()
    }

    fn queues(&self) -> Vec<Queue> {
        let deliveries = |key: &str| (self.deliveries_exchange(), key.to_owned(), FieldTable::default());
        let plain = || {
            let mut table = arguments([]);
            table.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(NO_LIMIT));
            table
        };
        let mut queues = vec![
            Queue {
                name: self.unrouted(),
                arguments: plain(),
                binding: (self.unrouted(), String::new(), FieldTable::default()),
            },
            Queue { name: self.parked_queue(), arguments: plain(), binding: deliveries(PARKED) },
            Queue {
                name: self.events_queue(),
                arguments: self.work_queue(),
                binding: (self.events_exchange(), "#".to_owned(), FieldTable::default()),
            },
            Queue { name: self.deliveries_queue(), arguments: self.work_queue(), binding: deliveries(DUE) },
        ];
        queues.extend(self.delays.delays().map(|delay| Queue {
            name: self.named(&format!("delay.{}", delay_name(delay))),
            arguments: self.delay_queue(delay),
            binding: deliveries(&delay_name(delay)),
        }));
        queues.push(Queue {
            name: self.ordered_by_key_queue(),
            arguments: self.ordered_queue(),
            binding: (self.ordered_by_key_exchange(), "#".to_owned(), FieldTable::default()),
        });
        queues.extend((0..PARTITIONS).map(|partition| Queue {
            name: self.partition_queue(partition),
            arguments: self.ordered_queue(),
            binding: (self.partitions_exchange(), String::new(), of_partition(partition)),
        }));
        queues
    }

    /// Arguments of a queue that parks a message after repeated deaths of consumers.
    fn work_queue(&self) -> FieldTable {
        let mut table = dead_letter(&self.parked_queue());
        table.insert("x-delivery-limit".into(), AMQPValue::LongLongInt(DELIVERY_LIMIT));
        table
    }

    /// Arguments of a queue that hands all messages to one consumer, in order.
    fn ordered_queue(&self) -> FieldTable {
        let mut table = self.work_queue();
        table.insert("x-single-active-consumer".into(), AMQPValue::Boolean(true));
        table
    }

    /// Arguments of a queue without a consumer: after the delay, messages move to the queue of due retries.
    fn delay_queue(&self, delay: Duration) -> FieldTable {
        let mut table = dead_letter(&self.deliveries_queue());
        let milliseconds = i64::try_from(delay.as_millis()).unwrap_or(i64::MAX);
        table.insert("x-message-ttl".into(), AMQPValue::LongLongInt(milliseconds));
        table
    }

    /// Declares all missing parts. Existing parts stay unchanged.
    pub(crate) async fn declare(&self, channel: &Channel) -> lapin::Result<()> {
        declare_exchange(channel, self.unrouted(), ExchangeKind::Fanout, FieldTable::default()).await?;
        let (unrouted, others): (Vec<Queue>, Vec<Queue>) =
            self.queues().into_iter().partition(|queue| queue.name == self.unrouted());
        // RabbitMQ confirms dropped messages. Before an exchange accepts messages, the alternate exchange must have a
        // queue.
        for queue in unrouted {
            declare_queue(channel, queue).await?;
        }
        let alternate = table([("alternate-exchange", self.unrouted())]);
        declare_exchange(channel, self.events_exchange(), ExchangeKind::Topic, alternate.clone()).await?;
        declare_partitions(channel, self.partitions_exchange(), alternate.clone()).await?;
        declare_exchange(channel, self.deliveries_exchange(), ExchangeKind::Direct, alternate.clone()).await?;
        let (by_key, others): (Vec<Queue>, Vec<Queue>) =
            others.into_iter().partition(|queue| queue.name == self.ordered_by_key_queue());
        for queue in others {
            declare_queue(channel, queue).await?;
        }
        // Last: a key must not pass while some of the queues are bound. An event that is routed later would lose its
        // place.
        declare_before(channel, self.ordered_exchange(), self.partitions_exchange(), self.unrouted()).await?;
        for queue in by_key {
            create_queue(channel, &queue).await?;
            declare_exchange(channel, self.ordered_by_key_exchange(), ExchangeKind::Topic, alternate.clone()).await?;
            bind_queue(channel, queue).await?;
        }
        Ok(())
    }
}

/// Declares the exchange that chooses a queue by the header. Nobody publishes there: topic permissions apply to topic
/// exchanges only.
async fn declare_partitions(channel: &Channel, name: String, arguments: FieldTable) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, internal: true, ..ExchangeDeclareOptions::default() };
    answered(channel.exchange_declare(name.into(), ExchangeKind::Headers, options, arguments)).await
}

/// Declares a topic exchange, and binds the exchange that chooses a queue.
async fn declare_before(channel: &Channel, name: String, chooser: String, unrouted: String) -> lapin::Result<()> {
    let arguments = table([("alternate-exchange", unrouted)]);
    declare_exchange(channel, name.clone(), ExchangeKind::Topic, arguments).await?;
    let (options, all) = (ExchangeBindOptions::default(), FieldTable::default());
    answered(channel.exchange_bind(chooser.into(), name.into(), "#".into(), options, all)).await
}

async fn declare_exchange(
    channel: &Channel,
    name: String,
    kind: ExchangeKind,
    arguments: FieldTable,
) -> lapin::Result<()> {
    let options = ExchangeDeclareOptions { durable: true, ..ExchangeDeclareOptions::default() };
    answered(channel.exchange_declare(name.into(), kind, options, arguments)).await
}

/// Declares and binds a queue.
async fn declare_queue(channel: &Channel, queue: Queue) -> lapin::Result<()> {
    create_queue(channel, &queue).await?;
    bind_queue(channel, queue).await
}

async fn create_queue(channel: &Channel, queue: &Queue) -> lapin::Result<()> {
    let options = QueueDeclareOptions { durable: true, ..QueueDeclareOptions::default() };
    answered(channel.queue_declare(queue.name.clone().into(), options, queue.arguments.clone())).await.map(drop)
}

async fn bind_queue(channel: &Channel, queue: Queue) -> lapin::Result<()> {
    let Queue { name, binding: (exchange, key, matched), .. } = queue;
    let options = QueueBindOptions::default();
    answered(channel.queue_bind(name.into(), exchange.into(), key.into(), options, matched)).await
}

/// Arguments for at-least-once dead-lettering through the default exchange. Without `reject-publish` the broker
/// silently falls back to at-most-once, and loses messages when killed.
fn dead_letter(queue: &str) -> FieldTable {
    arguments([
        ("x-dead-letter-exchange", String::new()),
        ("x-dead-letter-routing-key", queue.to_owned()),
        ("x-dead-letter-strategy", "at-least-once".to_owned()),
        ("x-overflow", "reject-publish".to_owned()),
    ])
}

fn arguments<const N: usize>(entries: [(&str, String); N]) -> FieldTable {
    let mut arguments = table(entries);
    arguments.insert("x-queue-type".into(), text("quorum".to_owned()));
    arguments
}

/// Arguments by which the exchange of ordered events chooses a queue.
fn of_partition(partition: u8) -> FieldTable {
    table([("x-match", "all".to_owned()), (PARTITION, partition.to_string())])
}

fn table<const N: usize>(entries: [(&str, String); N]) -> FieldTable {
    let mut table = FieldTable::default();
    for (key, value) in entries {
        table.insert(key.into(), text(value));
    }
    table
}

fn text(value: String) -> AMQPValue {
    AMQPValue::LongString(LongString::from(value))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_queue_that_dead_letters_does_so_at_least_once() {
        let topology = Topology::new("fanfare".parse().expect("prefix"), DelayQueues::new([]));
        let queues = topology.queues();
        let argument = |queue: &Queue, name: &str| queue.arguments.inner().get(name).cloned();
        for queue in &queues {
            assert_eq!(argument(queue, "x-queue-type"), Some(text("quorum".to_owned())), "{}", queue.name);
            if argument(queue, "x-dead-letter-exchange").is_some() {
                assert_eq!(argument(queue, "x-dead-letter-strategy"), Some(text("at-least-once".to_owned())));
                assert_eq!(argument(queue, "x-overflow"), Some(text("reject-publish".to_owned())));
                assert_eq!(argument(queue, "x-max-length"), None);
            }
        }
        let names: Vec<&str> = queues.iter().map(|queue| queue.name.as_str()).collect();
        let fixed = DelayQueues::new([]).delays().map(delay_name).collect::<Vec<_>>();
        for delay in ["60s", "5m", "15m", "60m", "120m"].into_iter().chain(fixed.iter().map(String::as_str)) {
            assert!(names.contains(&format!("fanfare.delay.{delay}").as_str()), "{delay}");
        }
    }

    #[test]
    fn a_prefix_is_one_word() {
        for prefix in ["", "a.b", "a b", "#", "é"] {
            assert!(prefix.parse::<Prefix>().is_err(), "{prefix}");
        }
    }
}
