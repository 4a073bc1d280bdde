//! RabbitMQ: topology, codec, confirmed publishing, consuming. Except for tests, no other crate names `lapin`.
//!
//! Publishing has a connection, and each consumed queue has another. Under a memory or disk alarm, the broker stops
//! reading from connections that publish, and acks must not wait behind such a connection. lapin's own recovery is
//! unused, since a consumer stays pending for ever after the broker has closed the channel. Each connection has a
//! supervisor instead that rebuilds connection, topology and channels.

mod acks;
mod connection;
mod consumer;
mod depths;
mod examine;
mod message;
mod nodes;
mod publisher;
mod topology;
mod watchdog;
mod wire;

pub use connection::BrokerSettings;
pub use consumer::{ConsumerState, Consumers, Feed, Incoming};
pub use depths::{QueueDepth, QueueDepths};
pub use examine::BrokerFacts;
pub use message::codec::{
    Message, Unreadable, decode_event, decode_retry, encode_event, encode_published, encode_retry,
};
pub use message::own_headers::HeaderKeys;
pub use message::parked::{
    DELIVERY_LIMIT, Parked, PutBack, decode_parked, encode_parked, encode_put_back, encode_rerouted,
};
pub use nodes::BrokerUrls;
pub use publisher::{PublishError, Publisher, PublisherState};
pub use topology::{InvalidPrefix, Prefix, Topology};
pub use wire::sanitized;
